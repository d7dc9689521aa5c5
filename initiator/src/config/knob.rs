//! What can be set for all devices in `[defaults]`, for one in its `[[device]]`, and (policy only)
//! for a running one with `corbel-initiator set`: each key once, with its parser.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use corbel_daemon::config::{Wrong, nearest, pick};

use super::quantity::{Time, duration};
use crate::multipath::policy::{
    Cache, Failback, Grouping, Hedge, NoPath, Policy, Resize, Selector,
};
use crate::multipath::status::Limit;
use crate::path::iscsi;

/// Where a value in force comes from. Later ones win over earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `shared = true` in `[defaults]`.
    SharedDefaults,
    /// `[defaults]`.
    Defaults,
    /// `shared = true` in the `[[device]]`.
    SharedDevice,
    /// The device's own table.
    Device,
    /// A command line.
    Command,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::SharedDefaults => "[defaults] shared",
            Self::Defaults => "[defaults]",
            Self::SharedDevice => "[[device]] shared",
            Self::Device => "[[device]]",
            Self::Command => "command",
        })
    }
}

/// Where each key that was given comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<&'static str, Origin>);

impl Origins {
    /// Where the value of `key` comes from.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).copied().unwrap_or(Origin::Default)
    }

    /// Notes that `key` was given.
    pub fn note(&mut self, key: &'static str, origin: Origin) {
        self.0.insert(key, origin);
    }
}

/// How long a path may take for what. The defaults are those of iSCSI paths
/// ([`Timers`](crate::path::iscsi::Timers)); AoE paths have their own for what is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathTimers {
    times: [Duration; TIMER_KEYS.len()],
}

/// The keys of [`PathTimers`].
pub(super) const TIMER_KEYS: [&str; 11] = [
    "connect_timeout",
    "login_timeout",
    "identify_timeout",
    "ping_after",
    "ping_idle",
    "answer_within",
    "command_timeout",
    "abort_timeout",
    "retry_min",
    "retry_max",
    "doubt_hold",
];

impl Default for PathTimers {
    fn default() -> Self {
        let limits = iscsi::Timers::default().limits();
        let time = |key: &str| {
            let limit = limits.iter().find(|limit| limit.name == key);
            Duration::from_millis(limit.map_or(0, |limit| limit.ms))
        };
        Self { times: TIMER_KEYS.map(time) }
    }
}

impl PathTimers {
    /// Each by the name of its key.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, Duration)> + use<> {
        TIMER_KEYS.into_iter().zip(self.times)
    }

    /// The one called `key`; zero if there is none.
    pub fn get(&self, key: &str) -> Duration {
        self.each().find(|(name, _)| *name == key).map_or(Duration::ZERO, |(_, time)| time)
    }

    fn field(&mut self, key: &str) -> Option<&mut Duration> {
        let at = TIMER_KEYS.iter().position(|known| *known == key)?;
        self.times.get_mut(at)
    }

    /// Sets the timer `key` to what `text` says.
    pub(super) fn set(&mut self, key: &str, text: &str) -> Result<(), Wrong> {
        let (least, most) = match key {
            // Far targets and busy ones answer late; a limit below their usual answer fails paths
            // that are well.
            "command_timeout" => (Duration::from_millis(200), Duration::from_secs(3600)),
            "doubt_hold" => (Duration::ZERO, Duration::from_secs(3600)),
            _ => (Duration::from_millis(100), Duration::from_secs(600)),
        };
        let time = within(text, least, most)?;
        if let Some(field) = self.field(key) {
            *field = time;
        }
        Ok(())
    }
}

/// The keys of [`Policy`], in the order in which they are taken up.
pub(super) const POLICY_KEYS: [&str; 15] = [
    "no_path_retry",
    "fast_io_fail",
    "write_age_max",
    "selector",
    "requests_per_turn",
    "grouping",
    "failback",
    "cache",
    "resize",
    "flap_failures",
    "flap_window",
    "flap_hold",
    "flap_hold_max",
    "hedge",
    "hedge_after_min",
];

/// Sets `key` of a policy to what `text` says.
pub(super) fn set_policy(policy: &mut Policy, key: &str, text: &str) -> Result<(), Wrong> {
    let ms = Duration::from_millis;
    let s = Duration::from_secs;
    match key {
        "no_path_retry" => policy.no_path = no_path(text)?,
        "fast_io_fail" => policy.fast_io_fail = within(text, ms(0), s(600))?,
        "write_age_max" => {
            policy.write_age_max = match text {
                "none" => None,
                text => Some(within_or(text, s(1), s(86_400), "\"none\"")?),
            }
        }
        "selector" => policy.selector = selector(text)?,
        "requests_per_turn" => policy.requests_per_turn = count(text, 1, 100_000)?,
        "grouping" => policy.grouping = grouping(text)?,
        "failback" => {
            policy.failback = match text {
                "immediate" => Failback::Immediate,
                "manual" => Failback::Manual,
                text => {
                    let words = "\"immediate\", \"manual\"";
                    Failback::After(within_or(text, s(0), s(86_400), words)?)
                }
            }
        }
        "cache" => {
            let words = [("trust", Cache::Trust), ("multi", Cache::Multi), ("fua", Cache::Fua)];
            policy.cache = pick(text, &words)?;
        }
        "resize" => {
            let words = [("grow-only", Resize::GrowOnly), ("never", Resize::Never)];
            policy.resize = pick(text, &words)?;
        }
        "flap_failures" => policy.flap.failures = count(text, 0, 1000)?,
        "flap_window" => policy.flap.window = within(text, s(1), s(86_400))?,
        "flap_hold" => policy.flap.hold = within(text, s(0), s(86_400))?,
        "flap_hold_max" => policy.flap.hold_max = within(text, s(0), s(86_400))?,
        "hedge" => policy.hedge = hedge(text, policy.hedge)?,
        "hedge_after_min" => {
            let after = within(text, ms(1), s(60))?;
            match &mut policy.hedge {
                Some(hedge) => hedge.after_min = after,
                None => {
                    let right = "say first from which percentile on: hedge = \"p99.9\"";
                    return Err(Wrong::new("`hedge` is off", right));
                }
            }
        }
        _ => return Err(unknown(key)),
    }
    Ok(())
}

/// The time limits in a policy, each by the name of its key.
pub(super) fn policy_times(policy: &Policy) -> Vec<(&'static str, Duration)> {
    let mut times = vec![("fast_io_fail", policy.fast_io_fail)];
    if let NoPath::For(time) = policy.no_path {
        times.push(("no_path_retry", time));
    }
    times.extend(policy.write_age_max.map(|time| ("write_age_max", time)));
    if let Failback::After(time) = policy.failback {
        times.push(("failback", time));
    }
    times
}

/// Time limits with where each comes from, as `status` shows them.
pub(super) fn limits(
    times: impl IntoIterator<Item = (&'static str, Duration)>,
    origins: &Origins,
) -> Vec<Limit> {
    let limit = |(name, time): (&'static str, Duration)| Limit {
        name,
        ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        from: origins.of(name).to_string(),
    };
    times.into_iter().map(limit).collect()
}

/// One policy key and its new value, for a device that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    key: &'static str,
    value: String,
}

impl Setting {
    /// `key` as in initiator.toml, with `-` or `_`; `value` as there, without quotes.
    ///
    /// # Errors
    /// If there is no such key, or the value is none of its.
    pub fn parse(key: &str, value: &str) -> Result<Self, Wrong> {
        let given = key.replace('-', "_");
        if TIMER_KEYS.contains(&given.as_str()) {
            return Err(Wrong::new(
                format!("`{key}` is taken up when a path is added"),
                "put it into the configuration and reload",
            ));
        }
        let known =
            POLICY_KEYS.into_iter().find(|known| *known == given).ok_or_else(|| unknown(key))?;
        // On a policy that has everything switched on, so that only the value is judged.
        let after_min = Duration::from_millis(10);
        let hedge = Some(Hedge { per_mille: 999, after_min });
        set_policy(&mut Policy { hedge, ..Policy::default() }, known, value)?;
        Ok(Self { key: known, value: value.to_owned() })
    }

    /// The key, as in initiator.toml.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Takes it up; from now on its origin is a command.
    ///
    /// # Errors
    /// If `policy` has no use for it. Nothing is changed then.
    pub fn apply(&self, policy: &mut Policy, origins: &mut Origins) -> Result<(), Wrong> {
        set_policy(policy, self.key, &self.value)?;
        origins.note(self.key, Origin::Command);
        Ok(())
    }
}

/// There is no such key.
pub(super) fn unknown(key: &str) -> Wrong {
    let right = match nearest(&key.replace('-', "_"), POLICY_KEYS.into_iter()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("there are {}", POLICY_KEYS.join(", ")),
    };
    Wrong::new(format!("there is no setting `{key}`"), right)
}

fn no_path(text: &str) -> Result<NoPath, Wrong> {
    Ok(match text {
        "queue" => NoPath::Queue,
        "fail" => NoPath::Fail,
        text => {
            let most = Duration::from_secs(30 * 86_400);
            match within_or(text, Duration::ZERO, most, "\"queue\", \"fail\"")? {
                Duration::ZERO => NoPath::Fail,
                time => NoPath::For(time),
            }
        }
    })
}

fn selector(text: &str) -> Result<Selector, Wrong> {
    let words = [
        ("service-time", Selector::ServiceTime),
        ("round-robin", Selector::RoundRobin),
        ("queue-length", Selector::QueueLength),
    ];
    pick(&text.replace('_', "-"), &words)
}

fn grouping(text: &str) -> Result<Grouping, Wrong> {
    let words = [
        ("failover", Grouping::Failover),
        ("multibus", Grouping::Multibus),
        ("group_by_prio", Grouping::GroupByPrio),
        ("group_by_serial", Grouping::GroupBySerial),
    ];
    pick(&text.replace('-', "_"), &words)
}

/// `off`, or a percentile: `p99`, `p99.9`.
fn hedge(text: &str, before: Option<Hedge>) -> Result<Option<Hedge>, Wrong> {
    if text == "off" {
        return Ok(None);
    }
    let wrong = || {
        let right = "give \"off\", or a percentile from \"p50\" to \"p99.9\"";
        Wrong::new(format!("`{text}` is no percentile"), right)
    };
    let digits = text.strip_prefix('p').ok_or_else(wrong)?;
    let (whole, tenths) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |digits: &str, most: usize| {
        (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    if !plain(whole, 2) || !plain(tenths, 1) {
        return Err(wrong());
    }
    let whole: u16 = whole.parse().map_err(|_| wrong())?;
    let tenths: u16 = tenths.parse().map_err(|_| wrong())?;
    let per_mille = whole * 10 + tenths;
    if per_mille < 500 {
        return Err(wrong());
    }
    let after_min = before.map_or(Duration::from_millis(10), |hedge| hedge.after_min);
    Ok(Some(Hedge { per_mille, after_min }))
}

fn count(text: &str, least: u32, most: u32) -> Result<u32, Wrong> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        Wrong::new(format!("`{text}` is out of range"), format!("give {least} to {most}"))
    })
}

/// A time inside limits.
pub(super) fn within(text: &str, least: Duration, most: Duration) -> Result<Duration, Wrong> {
    let time = duration(text)?;
    if !(least..=most).contains(&time) {
        let right = format!("give {} to {}", Time(least), Time(most));
        return Err(Wrong::new(format!("`{text}` is out of range"), right));
    }
    Ok(time)
}

/// A time inside limits, where words could stand too.
fn within_or(text: &str, least: Duration, most: Duration, words: &str) -> Result<Duration, Wrong> {
    let words = |wrong: Wrong| Wrong::new(wrong.what, format!("{} (or {words})", wrong.right));
    within(text, least, most).map_err(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_retry_is_queue_fail_or_a_time() {
        for (text, meant) in [
            ("queue", NoPath::Queue),
            ("fail", NoPath::Fail),
            ("0", NoPath::Fail),
            ("60", NoPath::For(Duration::from_secs(60))),
            ("30s", NoPath::For(Duration::from_secs(30))),
        ] {
            assert_eq!(no_path(text), Ok(meant), "{text}");
        }
        let wrong = no_path("retry").unwrap_err();
        assert!(wrong.right.contains("\"queue\", \"fail\""), "{wrong}");
    }

    #[test]
    fn every_policy_key_can_be_set_and_no_other() {
        for (key, value) in [
            ("no-path-retry", "queue"),
            ("fast_io_fail", "5s"),
            ("write-age-max", "80s"),
            ("selector", "round-robin"),
            ("requests-per-turn", "100"),
            ("grouping", "group-by-prio"),
            ("failback", "30"),
            ("cache", "multi"),
            ("resize", "never"),
            ("flap-failures", "0"),
            ("flap-window", "60s"),
            ("flap-hold", "10s"),
            ("flap-hold-max", "10m"),
            ("hedge", "p99.9"),
            ("hedge-after-min", "20ms"),
        ] {
            let setting = Setting::parse(key, value).expect(key);
            let mut policy = Policy { hedge: hedge("p99", None).unwrap(), ..Policy::default() };
            let mut origins = Origins::default();
            setting.apply(&mut policy, &mut origins).expect(key);
            assert_eq!(origins.of(setting.key()), Origin::Command);
        }
        for (key, value) in
            [("colour", "red"), ("shared", "true"), ("ping-after", "2s"), ("selector", "best")]
        {
            assert!(Setting::parse(key, value).is_err(), "{key}");
        }
    }

    #[test]
    fn a_percentile_is_kept_in_per_mille() {
        let parsed = |text| hedge(text, None).map(|hedge| hedge.map(|h| h.per_mille));
        assert_eq!(parsed("p99.9"), Ok(Some(999)));
        assert_eq!(parsed("p50"), Ok(Some(500)));
        assert_eq!(parsed("off"), Ok(None));
        for bad in ["", "99", "p", "p100", "p99.99", "p49.9", "p-1", "p99."] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_timer_is_one_that_a_path_has() {
        for key in TIMER_KEYS {
            let mut timers = iscsi::Timers::default();
            assert!(timers.set(key, Duration::from_secs(1), "command"), "{key}");
            assert_ne!(PathTimers::default().get(key), Duration::ZERO, "{key}");
        }
        let mut timers = PathTimers::default();
        for (key, _) in PathTimers::default().each() {
            timers.set(key, "7s").expect(key);
        }
        assert!(timers.each().all(|(_, time)| time == Duration::from_secs(7)));
    }
}
