//! How a device treats its paths: what an administrator decides.

use corbel_proto::time::Duration;
use serde::Serialize;

/// What becomes of requests while no path works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoPath {
    /// They wait for ever.
    Queue,
    /// They fail once the last path has been gone for [`Policy::fast_io_fail`].
    Fail,
    /// They wait until the last path has been gone this long; then all fail, at once, until a path
    /// is back.
    For(Duration),
}

/// Which paths stand in one group. Only one group is used at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Each path is its own group.
    Failover,
    /// All in one.
    Multibus,
    /// By priority (ALUA, or configured weight).
    GroupByPrio,
    /// By the target's serial number.
    GroupBySerial,
}

/// Which path of the group takes the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selector {
    /// Each in turn, [`Policy::requests_per_turn`] at a time.
    RoundRobin,
    /// The one with the fewest requests under way.
    QueueLength,
    /// The one that will be done first: bytes under way against measured throughput.
    ServiceTime,
}

/// When a better group that has come back is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failback {
    /// At once.
    Immediate,
    /// When an administrator says so, or the group in use dies.
    Manual,
    /// After it has been well for so long.
    After(Duration),
}

/// How far flushes of one path reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// One flush over any path covers the unit (SBC: the cache is the logical unit's).
    Trust,
    /// Each cache domain that was written to is flushed; while one is gone, the flush waits.
    Multi,
    /// Every write is sent with FUA; nothing is ever in a volatile cache.
    Fua,
}

/// What is done about another size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Grow when all paths agree; a smaller size quarantines the path.
    GrowOnly,
    /// Any other size quarantines the path, until an administrator says `resize`.
    Never,
}

/// Damping of paths that come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Flap {
    /// Failures within `window` that make a path suspect; 0 turns damping off.
    pub failures: u32,
    /// How far back failures count.
    pub window: Duration,
    /// First time out; doubles with each further failure, up to `hold_max`.
    pub hold: Duration,
    /// Longest time out.
    pub hold_max: Duration,
}

/// Reads that take too long are asked for once more on another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hedge {
    /// Per mille of reads that are faster; slower ones are hedged (999 is p99.9).
    pub per_mille: u16,
    /// Never earlier than this.
    pub after_min: Duration,
}

/// See each field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Which paths stand together.
    pub grouping: Grouping,
    /// Which path of a group is next.
    pub selector: Selector,
    /// Requests in a row for one path (round-robin).
    pub requests_per_turn: u32,
    /// When to go back.
    pub failback: Failback,
    /// What happens while no path works.
    pub no_path: NoPath,
    /// With [`NoPath::Fail`]: how long a lost path may take to come back before errors are given.
    pub fast_io_fail: Duration,
    /// A write, discard or write zeroes older than this is failed and never sent (again), even if a
    /// path returns. For storage shared under leases. `None`: no limit.
    pub write_age_max: Option<Duration>,
    /// How far flushes reach.
    pub cache: Cache,
    /// What is done about another size.
    pub resize: Resize,
    /// Damping of paths that come and go.
    pub flap: Flap,
    /// Second chances for slow reads.
    pub hedge: Option<Hedge>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grouping: Grouping::Failover,
            selector: Selector::ServiceTime,
            requests_per_turn: 1,
            failback: Failback::Immediate,
            no_path: NoPath::Queue,
            fast_io_fail: Duration::from_secs(5),
            write_age_max: None,
            cache: Cache::Trust,
            resize: Resize::GrowOnly,
            flap: Flap {
                failures: 4,
                window: Duration::from_secs(60),
                hold: Duration::from_secs(10),
                hold_max: Duration::from_secs(600),
            },
            hedge: None,
        }
    }
}
