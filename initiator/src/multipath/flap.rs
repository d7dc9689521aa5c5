//! Damping of paths that come and go: each return costs every request on the path a detour.

use std::collections::VecDeque;

use corbel_proto::time::{Duration, Instant};

use super::policy::Flap;

/// A path's failures of late.
#[derive(Debug, Default)]
pub(super) struct Record {
    failures: VecDeque<Instant>,
    /// Times it was found suspect in a row.
    level: u32,
    last: Option<Instant>,
}

/// Failures remembered at most, whatever the policy asks for.
const FAILURES_MAX: usize = 64;

impl Record {
    /// The path failed.
    pub(super) fn failed(&mut self, now: Instant, policy: &Flap) {
        if policy.failures == 0 {
            return;
        }
        let most = usize::try_from(policy.failures).unwrap_or(usize::MAX).min(FAILURES_MAX);
        if self.last.is_some_and(|last| now.since(last) > policy.window) {
            self.failures.clear();
            self.level = 0;
        }
        self.last = Some(now);
        self.failures.push_back(now);
        while self.failures.len() > most {
            self.failures.pop_front();
        }
        let first = self.failures.front().copied().unwrap_or(now);
        if self.failures.len() == most && now.since(first) <= policy.window {
            self.level = self.level.saturating_add(1);
        }
    }

    /// How long a path that works again has to prove itself. Zero: not at all.
    pub(super) fn hold(&self, now: Instant, policy: &Flap) -> Duration {
        let lately =
            self.last.is_some_and(|last| now.since(last) <= policy.window.max(policy.hold_max));
        if policy.failures == 0 || self.level == 0 || !lately {
            return Duration::ZERO;
        }
        let doubled = 2u32.saturating_pow(self.level - 1);
        policy.hold.saturating_mul(doubled).min(policy.hold_max)
    }

    /// An administrator says that it is well.
    pub(super) fn forgive(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAP: Flap = Flap {
        failures: 3,
        window: Duration::from_secs(60),
        hold: Duration::from_secs(10),
        hold_max: Duration::from_secs(35),
    };

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn few_failures_cost_nothing_and_many_cost_double_each_time() {
        let mut record = Record::default();
        let mut holds = Vec::new();
        for n in 0..6 {
            record.failed(at(n), &FLAP);
            holds.push(record.hold(at(n), &FLAP).as_secs());
        }
        assert_eq!(holds, [0, 0, 10, 20, 35, 35]);
    }

    #[test]
    fn a_quiet_window_is_forgiven() {
        let mut record = Record::default();
        (0..3).for_each(|n| record.failed(at(n), &FLAP));
        record.failed(at(100), &FLAP);
        assert_eq!(record.hold(at(100), &FLAP), Duration::ZERO);
    }

    #[test]
    fn failures_far_apart_are_not_flapping() {
        let mut record = Record::default();
        (0..20).for_each(|n| record.failed(at(n * 40), &FLAP));
        assert_eq!(record.hold(at(800), &FLAP), Duration::ZERO);
    }

    #[test]
    fn zero_failures_turns_damping_off() {
        let mut record = Record::default();
        let off = Flap { failures: 0, ..FLAP };
        (0..9).for_each(|n| record.failed(at(n), &off));
        assert_eq!(record.hold(at(9), &off), Duration::ZERO);
    }
}
