//! What is told to people and scripts: the shape of `multipath -ll`, and what they miss there.
//!
//! Field names are stable: scripts read them as JSON.

use serde::Serialize;

use super::policy::Policy;
use crate::path::PathFault;

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// World-wide name, once known.
    pub wwid: Option<String>,
    /// Model, once known.
    pub model: Option<String>,
    /// Size in bytes, once known.
    pub size_bytes: Option<u64>,
    /// Bytes of a logical block, once known.
    pub block_bytes: Option<u32>,
    /// Not to be written.
    pub read_only: bool,
    /// What it does now.
    pub state: DeviceState,
    /// In force.
    pub policy: Policy,
    /// Paths that take requests.
    pub paths_ready: u32,
    /// Requests that wait for a path or for a doubt to end.
    pub queued_requests: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Age of the oldest of them, milliseconds.
    pub queued_oldest_ms: u64,
    /// Requests on paths.
    pub in_flight: u64,
    /// Ranges whose old copy may still land.
    pub doubts: u64,
    /// How long it has been without a path, milliseconds.
    pub no_path_since_ms: Option<u64>,
    /// What happens next on its own, in words with a time ("requests fail in 22.4 s").
    pub next: Option<String>,
    /// Counts.
    pub counters: DeviceCounters,
    /// Path groups, the best first.
    pub groups: Vec<GroupStatus>,
}

/// What a device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// No path has been ready yet.
    Starting,
    /// Serving.
    Active,
    /// Serving, with fewer paths than configured.
    Degraded,
    /// No path; requests wait.
    Queueing,
    /// No path; requests fail.
    Failing,
    /// Fenced by an administrator: everything is refused.
    Fenced,
    /// Being taken away.
    Detaching,
}

/// Counts since the device was attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeviceCounters {
    /// Requests that ended well.
    pub completed: u64,
    /// Requests that ended with an error.
    pub failed: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Switches to another path group.
    pub group_switches: u64,
    /// Times the last path was lost.
    pub all_paths_down: u64,
    /// Requests that had to wait for a doubt.
    pub held: u64,
    /// Reads asked for a second time.
    pub hedged: u64,
}

/// A path group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupStatus {
    /// Priority of its paths.
    pub priority: u32,
    /// In use.
    pub active: bool,
    /// Its paths.
    pub paths: Vec<PathStatus>,
}

/// A path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PathStatus {
    /// As configured: `iscsi:IQN/LUN@ADDR:PORT` or `aoe:SHELF.SLOT@IFACE`.
    pub path: String,
    /// What it does.
    pub state: PathState,
    /// Why it is not ready.
    pub fault: Option<PathFault>,
    /// The same in words, with what the target said.
    pub why: Option<String>,
    /// Since when it is in this state, milliseconds.
    pub since_ms: u64,
    /// What happens next on its own, in words with a time ("connects again in 0.8 s").
    pub next: Option<String>,
    /// Tries under way.
    pub in_flight: u64,
    /// Tries that ended well.
    pub completed: u64,
    /// Times it failed.
    pub failures: u64,
    /// Bytes moved, both ways.
    pub bytes: u64,
    /// Smoothed time of a try, microseconds.
    pub latency_us: Option<u64>,
    /// Time limits in force and where each comes from.
    pub limits: Vec<Limit>,
}

/// What a path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    /// Takes requests if its group is in use.
    Ready,
    /// Works, but is standing by (ALUA).
    Ghost,
    /// Does not work; it is tried again.
    Down,
    /// Works, but has to prove itself first (flap damping).
    Damped,
    /// Another device, or another size: not used until an administrator says so.
    Quarantined,
    /// Failed by an administrator.
    Disabled,
}

/// A time limit in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// Which.
    pub name: &'static str,
    /// How long, milliseconds.
    pub ms: u64,
    /// Where it comes from: `default`, `[defaults]`, `[[device]]`, `command`.
    pub from: String,
}

/// Something an administrator may want to be told at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A path that worked does not.
    PathDown {
        /// As configured.
        path: String,
        /// Why.
        fault: PathFault,
    },
    /// A path works (again).
    PathUp {
        /// As configured.
        path: String,
    },
    /// Another device, or another size: not used.
    PathQuarantined {
        /// As configured.
        path: String,
        /// What was expected and what is there.
        why: String,
    },
    /// The last path is gone.
    AllPathsDown,
    /// A path works again after the last was gone.
    Recovered,
    /// Requests now fail: no path came back in time.
    QueueGivenUp,
    /// The size is another one now, in bytes.
    Resized(u64),
    /// The device was restarted while acknowledged writes may have been in a volatile cache; the
    /// next flush fails.
    CacheLost,
}
