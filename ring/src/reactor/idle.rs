//! How long a reactor looks for completions itself before it sleeps.
//!
//! Being woken costs two switches and, where the core has gone to rest, an interrupt to it: more
//! than many a request. A thread that expects something within microseconds is better off looking.
//! What it must not do is burn a core for nothing, or keep one from a thread that needs it. So:
//!
//! - It looks only if the last waits were short, and never longer than a bound. The first long wait
//!   begins to end that: an idle reactor sleeps.
//! - A thread whose core is taken from it while it looks is not alone there, and looking costs it
//!   the turn that it needs when something comes. It rests from looking, for longer each time.
//! - Looking that finds nothing more often than every third time is looked upon the same way: what
//!   is awaited may need this very core to come about. A disk that is slow now and then is no
//!   reason.
//!
//! Pure: told what happened, asked how long to look.

use std::time::Duration;

/// The shortest look that is worth it.
const WINDOW_MIN: Duration = Duration::from_micros(8);
/// A look that finds something earns credit for later ones, up to a bound; one that finds nothing
/// costs twice as much. Who has not enough left rests. So a third may find nothing for ever.
const CREDIT_MAX: u32 = 16;
const CREDIT_FIRST: u32 = 4;
const MISS_COST: u32 = 2;
/// So many that find something halve the next rest.
const FOUND_OFTEN: u32 = 16;
/// How long not to look, at first and at most.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(256);
/// A look that stands still for so long may have been interrupted, by another thread or only by
/// an interrupt; it is worth asking.
pub(super) const STANDS_STILL: Duration = Duration::from_micros(3);

/// See the module. Times are since any one moment.
#[derive(Debug)]
pub(super) struct Idle {
    max: Duration,
    window: Duration,
    credit: u32,
    found: u32,
    rest: Duration,
    resting_until: Duration,
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Something came.
    Found,
    /// Nothing came.
    Missed,
    /// Something else ran on this core meanwhile.
    Interrupted,
}

impl Idle {
    /// Looks for at most `max` at a time; zero is never.
    pub(super) fn new(max: Duration) -> Self {
        let zero = Duration::ZERO;
        let (credit, rest) = (CREDIT_FIRST, REST_MIN);
        Self { max, window: zero, credit, found: 0, rest, resting_until: zero }
    }

    /// False if it never looks, and times need not be told.
    pub(super) fn is_on(&self) -> bool {
        !self.max.is_zero()
    }

    /// How long to look now, if at all.
    pub(super) fn window(&self, now: Duration) -> Option<Duration> {
        let able = !self.window.is_zero() && now >= self.resting_until;
        able.then_some(self.window)
    }

    /// What came of looking.
    pub(super) fn looked(&mut self, now: Duration, look: Look) {
        match look {
            Look::Found => {
                self.credit = (self.credit + 1).min(CREDIT_MAX);
                self.found += 1;
                if self.found.is_multiple_of(FOUND_OFTEN) {
                    self.rest = (self.rest / 2).max(REST_MIN);
                }
            }
            Look::Missed if self.credit >= MISS_COST => self.credit -= MISS_COST,
            Look::Missed | Look::Interrupted => {
                (self.credit, self.found) = (CREDIT_FIRST, 0);
                self.resting_until = now + self.rest;
                self.rest = (self.rest * 2).min(REST_MAX);
            }
        }
    }

    /// Something came after this long, whether it was looked for or slept for.
    pub(super) fn waited(&mut self, waited: Duration) {
        self.window = if waited <= self.max {
            (self.window * 2).max(waited * 2).clamp(WINDOW_MIN.min(self.max), self.max)
        } else if self.window > WINDOW_MIN {
            self.window / 2
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(100);

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn what_comes_late_now_and_then_is_still_looked_for() {
        let mut idle = Idle::new(MAX);
        idle.waited(micros(10));
        // Of ten, three in a row come too late.
        for round in 0..1000 {
            let look = if round % 10 > 6 { Look::Missed } else { Look::Found };
            assert!(idle.window(micros(round)).is_some(), "round {round}");
            idle.looked(micros(round), look);
            idle.waited(micros(10));
        }
        // Of two, one.
        let rests = (1000..2000).filter(|&round| {
            let look = if round % 2 == 0 { Look::Missed } else { Look::Found };
            idle.looked(micros(round), look);
            idle.window(micros(round)).is_none()
        });
        assert!(rests.count() > 0);
    }

    #[test]
    fn who_waits_briefly_looks_and_never_beyond_the_bound() {
        let mut idle = Idle::new(MAX);
        assert_eq!(idle.window(micros(0)), None);
        idle.waited(micros(10));
        assert_eq!(idle.window(micros(0)), Some(micros(20)));
        (0..9).for_each(|_| idle.waited(micros(99)));
        assert_eq!(idle.window(micros(0)), Some(MAX));
    }

    #[test]
    fn an_idle_thread_sleeps_after_a_few_looks() {
        let mut idle = Idle::new(MAX);
        idle.waited(MAX);
        let mut looked = Duration::ZERO;
        for second in 0..100 {
            if let Some(window) = idle.window(micros(second * 1_000_000)) {
                looked += window;
                idle.looked(micros(second * 1_000_000), Look::Missed);
            }
            idle.waited(micros(1_000_000));
        }
        assert!(looked < 3 * MAX && idle.window(micros(200_000_000)).is_none(), "{looked:?}");
    }

    #[test]
    fn two_threads_on_one_core_hardly_look() {
        // What is awaited comes only once this thread has gone to sleep, soon as that may be.
        let (mut idle, mut now, mut looked) = (Idle::new(MAX), Duration::ZERO, Duration::ZERO);
        while now < micros(10_000_000) {
            let window = idle.window(now).unwrap_or_default();
            if !window.is_zero() {
                idle.looked(now + window, Look::Missed);
            }
            (looked, now) = (looked + window, now + window + micros(8));
            idle.waited(window + micros(8));
        }
        assert!(looked < now / 500, "{looked:?} of {now:?}");
    }

    #[test]
    fn a_thread_that_is_interrupted_rests_longer_each_time() {
        let (mut idle, mut now) = (Idle::new(MAX), Duration::ZERO);
        idle.waited(micros(20));
        for rest in [1, 2, 4, 8] {
            assert!(idle.window(now).is_some());
            idle.looked(now, Look::Interrupted);
            now += Duration::from_millis(rest);
            assert_eq!(idle.window(now - micros(1)), None);
        }
        // Finding makes up for it.
        (0..4 * FOUND_OFTEN).for_each(|_| idle.looked(now, Look::Found));
        idle.looked(now, Look::Interrupted);
        assert!(idle.window(now + Duration::from_millis(1)).is_some());
    }

    #[test]
    fn off_is_off() {
        let mut idle = Idle::new(Duration::ZERO);
        idle.waited(micros(1));
        assert!(!idle.is_on() && idle.window(micros(0)).is_none());
    }
}
