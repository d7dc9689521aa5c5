//! How fast a path is, measured from what it does.

use corbel_proto::time::{Duration, Instant};

/// What a request costs a path beyond its bytes, so that a path which was given small requests
/// does not look slow.
const REQUEST_COST_BYTES: u64 = 16 * 1024;

/// A measurement takes this long while the path is busy.
const WINDOW: Duration = Duration::from_millis(20);

/// A measurement that is older says nothing.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// The load on a path, and its throughput while there was some.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Cost of what is under way, in bytes.
    pub(super) load: u64,
    busy_since: Instant,
    done: u64,
    per_second: Option<u64>,
    measured: Instant,
}

/// What a request of so many bytes costs.
pub(super) const fn cost(bytes: u64) -> u64 {
    bytes.saturating_add(REQUEST_COST_BYTES)
}

impl Rate {
    pub(super) fn started(&mut self, now: Instant, bytes: u64) {
        if self.load == 0 {
            (self.busy_since, self.done) = (now, 0);
        }
        self.load = self.load.saturating_add(cost(bytes));
    }

    pub(super) fn ended(&mut self, now: Instant, bytes: u64, well: bool) {
        self.load = self.load.saturating_sub(cost(bytes));
        if well {
            self.done = self.done.saturating_add(cost(bytes));
        }
        let busy = now.since(self.busy_since);
        if self.done == 0 || (busy < WINDOW && self.load > 0) {
            return;
        }
        let nanos = busy.as_nanos().max(1000);
        let now_per_second = u128::from(self.done) * 1_000_000_000 / nanos;
        let sample = u64::try_from(now_per_second).unwrap_or(u64::MAX).max(1);
        self.per_second = Some(match self.per_second {
            Some(old) if now.since(self.measured) < FRESH_FOR => old - old / 8 + sample / 8,
            _ => sample,
        });
        self.measured = now;
        (self.busy_since, self.done) = (now, 0);
    }

    /// Cost in bytes that it does in a second; `None` if that is not known.
    pub(super) fn per_second(&self, now: Instant) -> Option<u64> {
        self.per_second.filter(|_| now.since(self.measured) < FRESH_FOR)
    }

    /// A new life is measured anew.
    pub(super) fn forget(&mut self) {
        self.per_second = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_bytes_by_busy_time_and_grows_old() {
        let (mut rate, start) = (Rate::default(), Instant::from_nanos(1));
        assert_eq!(rate.per_second(start), None);
        rate.started(start, 1 << 20);
        let end = start + Duration::from_millis(10);
        rate.ended(end, 1 << 20, true);
        assert_eq!(rate.per_second(end), Some(cost(1 << 20) * 100));
        assert_eq!(rate.load, 0);
        assert_eq!(rate.per_second(end + FRESH_FOR), None);
    }

    #[test]
    fn a_failure_is_no_measurement() {
        let (mut rate, now) = (Rate::default(), Instant::from_nanos(1));
        rate.started(now, 4096);
        rate.ended(now + Duration::from_secs(1), 4096, false);
        assert_eq!(rate.per_second(now), None);
    }
}
