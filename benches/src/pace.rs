//! When the next request is due.
//!
//! Without a rate, a request is due as soon as a slot is free: each waits for another to end, so
//! a target that stalls is asked less, and its stall is one bad figure among many. With a rate,
//! requests are due at fixed times whatever became of those before, and latency counts from then:
//! what would have been asked during a stall counts as waiting (no coordinated omission).

use corbel_proto::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) enum Pace {
    /// As fast as slots become free.
    Full,
    /// At fixed times.
    Fixed {
        start: Instant,
        /// Nanoseconds from one to the next.
        interval: f64,
        /// Requests begun.
        count: u64,
    },
}

impl Pace {
    /// `rate` requests a second from `start` on.
    pub(crate) fn new(rate: Option<f64>, start: Instant) -> Self {
        match rate {
            None => Self::Full,
            Some(rate) => Self::Fixed { start, interval: 1e9 / rate, count: 0 },
        }
    }

    /// When the next request is due. `Err` says that it is not yet, and when it will be.
    pub(crate) fn due(&self, now: Instant) -> Result<Instant, Instant> {
        match self {
            Self::Full => Ok(now),
            Self::Fixed { start, interval, count } => {
                let due = *start + nanos(*interval, *count);
                if due <= now { Ok(due) } else { Err(due) }
            }
        }
    }

    /// A request was begun.
    pub(crate) const fn begun(&mut self) {
        if let Self::Fixed { count, .. } = self {
            *count += 1;
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "exact for weeks of requests, and never negative"
)]
fn nanos(interval: f64, count: u64) -> Duration {
    Duration::from_nanos((interval * count as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(micros * 1000)
    }

    #[test]
    fn without_a_rate_a_request_is_due_now() {
        assert_eq!(Pace::new(None, at(0)).due(at(7)), Ok(at(7)));
    }

    #[test]
    fn requests_held_up_by_a_stall_count_from_when_they_were_due() {
        let mut pace = Pace::new(Some(1000.0), at(0));
        assert_eq!(pace.due(at(0)), Ok(at(0)));
        pace.begun();
        assert_eq!(pace.due(at(10)), Err(at(1000)));
        // Nothing could be begun for 5 ms.
        for due in 1..=5 {
            assert_eq!(pace.due(at(5500)), Ok(at(due * 1000)));
            pace.begun();
        }
        assert_eq!(pace.due(at(5500)), Err(at(6000)));
    }
}
