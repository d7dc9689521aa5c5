//! What happens when: virtual time.

use std::collections::BTreeMap;

use corbel_proto::time::{Duration, Instant};

/// Events in the order of their time; of one time, in the order in which they were put in.
#[derive(Debug)]
pub struct Agenda<E> {
    now: Instant,
    events: BTreeMap<(Instant, u64), E>,
    next: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { now: Instant::from_nanos(1), events: BTreeMap::new(), next: 0 }
    }
}

impl<E> Agenda<E> {
    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Puts in an event; one of the past happens now.
    pub fn at(&mut self, at: Instant, event: E) {
        self.events.insert((at.max(self.now), self.next), event);
        self.next += 1;
    }

    /// Puts in an event.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.at(self.now + delay, event);
    }

    /// Goes on to the next event, if it comes before `end`.
    pub fn next_before(&mut self, end: Instant) -> Option<E> {
        let entry = self.events.first_entry().filter(|entry| entry.key().0 < end)?;
        let ((at, _), event) = entry.remove_entry();
        self.now = at;
        Some(event)
    }

    /// Takes out what is not wanted.
    pub fn retain(&mut self, wanted: impl Fn(&E) -> bool) {
        self.events.retain(|_, event| wanted(event));
    }

    /// Nothing happened until `now`.
    pub fn pass(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}
