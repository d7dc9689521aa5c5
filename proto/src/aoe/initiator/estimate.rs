//! Round-trip time and congestion window of one path.
//!
//! The estimate is RFC 6298's (smoothed time, mean deviation), fed by every reply since each copy
//! has its own tag. The window is AIMD with slow start. The bounds are those of a storage LAN.

use crate::time::{Duration, Instant};

/// Retransmission timer before the first reply.
const TIMEOUT_FIRST: Duration = Duration::from_millis(250);
/// Never less: a disk that spins up, or a busy server, is not a lost frame.
const TIMEOUT_MIN: Duration = Duration::from_millis(20);
/// Never more.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Estimate {
    smoothed: Option<Duration>,
    deviation: Duration,
    window_max: f64,
    window: f64,
    threshold: f64,
    /// Losses before this belong to a cut already made.
    cut: Instant,
}

impl Estimate {
    pub(super) fn new(window_max: u16) -> Self {
        let window_max = f64::from(window_max.max(1));
        Self {
            smoothed: None,
            deviation: Duration::ZERO,
            window_max,
            window: (window_max / 2.0).max(1.0),
            threshold: window_max,
            cut: Instant::ZERO,
        }
    }

    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Commands that may be on the wire, at least 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and 65535
    pub(super) const fn window(&self) -> usize {
        self.window as usize
    }

    /// How long to wait for the reply to a command's `copy`-th copy (from 1).
    pub(super) fn timeout(&self, copy: u32) -> Duration {
        let first = self.smoothed.map_or(TIMEOUT_FIRST, |time| time + self.deviation * 4);
        let doublings = copy.saturating_sub(1).min(8);
        (first.max(TIMEOUT_MIN) * (1 << doublings)).min(TIMEOUT_MAX)
    }

    /// A reply came after `time`.
    pub(super) fn sample(&mut self, time: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(time);
                self.deviation = time / 2;
            }
            Some(smoothed) => {
                self.deviation = (self.deviation * 3 + smoothed.abs_diff(time)) / 4;
                self.smoothed = Some((smoothed * 7 + time) / 8);
            }
        }
        let step = if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
        self.window = (self.window + step).min(self.window_max);
    }

    /// Copies were not answered in time. The window is cut once in a round trip.
    pub(super) fn lost(&mut self, now: Instant) {
        if now < self.cut {
            return;
        }
        self.window = (self.window / 2.0).max(1.0);
        self.threshold = self.window;
        self.cut = now + self.smoothed.unwrap_or(TIMEOUT_FIRST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn timeout_follows_the_replies_and_doubles_with_each_copy() {
        let mut estimate = Estimate::new(16);
        assert_eq!(estimate.timeout(1), TIMEOUT_FIRST);
        for _ in 0..100 {
            estimate.sample(30 * MS);
        }
        assert!(estimate.timeout(1) < 32 * MS && estimate.timeout(1) >= 30 * MS);
        assert_eq!(estimate.timeout(3), estimate.timeout(1) * 4);
        assert_eq!(estimate.timeout(u32::MAX), TIMEOUT_MAX);
    }

    #[test]
    fn window_opens_with_replies_and_halves_once_per_round_trip() {
        let mut estimate = Estimate::new(16);
        assert_eq!(estimate.window(), 8);
        for _ in 0..20 {
            estimate.sample(MS);
        }
        assert_eq!(estimate.window(), 16);
        let now = Instant::ZERO + 10 * MS;
        estimate.lost(now);
        estimate.lost(now);
        assert_eq!(estimate.window(), 8);
        for later in 1..20 {
            estimate.lost(now + 10 * MS * later);
        }
        assert_eq!(estimate.window(), 1);
    }

    #[test]
    fn a_server_that_says_it_has_no_buffers_still_gets_one_frame() {
        assert_eq!(Estimate::new(0).window(), 1);
    }
}
