//! Round-trip time and congestion window of one path.
//!
//! The estimate is RFC 6298's (smoothed time, mean deviation), fed by every reply since each copy
//! has its own tag. A copy is waited for twice as long as RFC 6298 would (the Linux AoE client does
//! the same): a disk's times vary more than a network's, and a copy sent too early is a write that
//! may land late. The window is AIMD with slow start.

use crate::time::{Duration, Instant};

/// How long a copy is waited for before the next one is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Before the first reply.
    pub first: Duration,
    /// Never less: a disk that spins up, or a busy server, is not a lost frame.
    pub min: Duration,
    /// Never more.
    pub max: Duration,
}

impl Timeouts {
    /// For a storage LAN: 250 ms at first, then 20 ms to 5 s.
    pub const DEFAULT: Self = Self {
        first: Duration::from_millis(250),
        min: Duration::from_millis(20),
        max: Duration::from_secs(5),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[derive(Debug)]
pub(super) struct Estimate {
    timeouts: Timeouts,
    smoothed: Option<Duration>,
    deviation: Duration,
    window_max: f64,
    window: f64,
    threshold: f64,
    /// Losses before this belong to a cut already made.
    cut: Instant,
}

impl Estimate {
    pub(super) fn new(window_max: u16, timeouts: Timeouts) -> Self {
        let window_max = f64::from(window_max.max(1));
        Self {
            timeouts,
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
        let Timeouts { first, min, max } = self.timeouts;
        let wait = self.smoothed.map_or(first, |time| time * 2 + self.deviation * 8);
        let doublings = copy.saturating_sub(1).min(8);
        wait.max(min).saturating_mul(1 << doublings).min(max)
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
        self.cut = now + self.smoothed.unwrap_or(self.timeouts.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn estimate(window_max: u16) -> Estimate {
        Estimate::new(window_max, Timeouts::DEFAULT)
    }

    #[test]
    fn timeout_follows_the_replies_and_doubles_with_each_copy() {
        let mut estimate = estimate(16);
        assert_eq!(estimate.timeout(1), 250 * MS);
        for _ in 0..100 {
            estimate.sample(30 * MS);
        }
        assert!(estimate.timeout(1) < 62 * MS && estimate.timeout(1) >= 60 * MS);
        assert_eq!(estimate.timeout(3), estimate.timeout(1) * 4);
        assert_eq!(estimate.timeout(u32::MAX), 5000 * MS);
    }

    #[test]
    fn window_opens_with_replies_and_halves_once_per_round_trip() {
        let mut estimate = estimate(16);
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
        assert_eq!(estimate(0).window(), 1);
    }
}
