//! Time: silence, checks, a host that stood still.

use corbel_proto::aoe::initiator::{Completion, Failure};
use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::payload::Payload;
use super::work::{IDENTIFY, PROBE_LONG, PROBE_SHORT};
use super::{AoePath, State, Timers};
use crate::path::{PathEvent, PathFault};

/// A timer that is served so much too late means that the host stood still, and heard nothing.
const STALL_MIN: Duration = Duration::from_millis(200);
/// What is waited for after that, so that what lies in the receive ring can be read first.
const GRACE: Duration = Duration::from_millis(100);
/// Copies of one command that must be lost before silence counts: the first and three more.
const LOST_MIN: u32 = 4;
/// Pause between two questions whether anybody is there, while commands wait.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// How often others are looked for that serve the same shelf and slot.
const SIBLINGS_EVERY: Duration = Duration::from_secs(10);
/// A server that identifies itself or answers probes no further is looked for anew.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);

/// Moments of a conversation.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Anything came from the server.
    pub(super) heard: Instant,
    /// A command was answered.
    pub(super) answered: Instant,
    /// Commands are under way without a break since.
    pub(super) busy_since: Instant,
    /// Next IDENTIFY.
    pub(super) check_next: Option<Instant>,
    /// One is under way.
    pub(super) identifying: bool,
    /// Next query while nothing is heard.
    ask_next: Instant,
    /// Next query for everyone.
    everyone_next: Instant,
    /// Next long probe.
    pub(super) widen_next: Instant,
}

impl Watch {
    /// A conversation begins.
    pub(super) fn talk(&mut self, now: Instant) {
        *self = Self {
            heard: now,
            answered: now,
            busy_since: now,
            identifying: true,
            ..Self::default()
        };
    }

    /// The path is ready.
    pub(super) fn work(&mut self, now: Instant, timers: &Timers) {
        self.check_next = Some(now + timers.check_every);
        self.widen_next = now + timers.widen_every;
        self.everyone_next = now + SIBLINGS_EVERY;
    }

    /// Since when nothing is heard although something should be.
    fn silent_since(&self) -> Instant {
        self.heard.max(self.busy_since)
    }
}

impl<B: Buffer> AoePath<B> {
    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Idle | State::NoLink => None,
            State::Seeking(seek) => Some(seek.next),
            State::Identifying | State::Probing(_) => {
                self.ask_at().min(Some(self.watch.silent_since() + BEGIN_PATIENCE))
            }
            State::Ready => self.work_at(),
        };
        let wire = self.wire.as_ref().and_then(|wire| wire.poll_timeout());
        [own, wire, self.doubts.next()].into_iter().flatten().min()
    }

    fn work_at(&self) -> Option<Instant> {
        let siblings = self.config.remote.is_none().then_some(self.watch.everyone_next);
        let widen = (self.sectors < self.sectors_full).then_some(self.watch.widen_next);
        let times = [self.watch.check_next, siblings, widen, self.ask_at(), self.silent_at()];
        times.into_iter().flatten().min()
    }

    /// When the server is asked whether it is there at all.
    fn ask_at(&self) -> Option<Instant> {
        let waits = self.wire.as_ref().is_some_and(|wire| !wire.is_empty());
        let patience = self.config.timers.silence / 4;
        waits.then(|| self.watch.ask_next.max(self.watch.silent_since() + patience))
    }

    /// When silence means that the path is dead.
    fn silent_at(&self) -> Option<Instant> {
        let wire = self.wire.as_ref()?;
        let lost = !wire.is_empty() && wire.unanswered() >= LOST_MIN;
        lost.then(|| self.watch.silent_since() + self.config.timers.silence)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = self.poll_timeout().map(|due| due.max(self.now));
        self.now = now;
        if let Some(late) = due.map(|due| now.since(due)).filter(|late| *late > STALL_MIN) {
            self.stood_still(now, late);
        }
        let quiet = self.doubts.expire(now);
        self.events.extend(quiet.map(PathEvent::Quiet));
        if let Some(wire) = self.wire.as_mut() {
            wire.handle_timeout(now);
        }
        while let Some(failed) = self.wire.as_mut().and_then(|wire| wire.poll_failed()) {
            self.given_up(now, failed);
        }
        match self.state {
            State::Idle | State::NoLink => {}
            State::Seeking(_) => self.ask_on(now),
            State::Identifying | State::Probing(_) => self.watch_begin(now),
            State::Ready => self.watch_work(now),
        }
        self.feed(now);
    }

    /// Nobody looked for `late`: what did not come in that time is not missing.
    fn stood_still(&mut self, now: Instant, late: Duration) {
        if let Some(wire) = self.wire.as_mut() {
            wire.postpone(late + GRACE);
        }
        self.watch.heard = now;
    }

    /// A command ended.
    pub(super) fn dispatch(&mut self, now: Instant, done: Completion<'_, Payload<B>>) {
        match done.id {
            IDENTIFY => self.identified(now, done.result),
            PROBE_LONG | PROBE_SHORT => {
                let answered = !matches!(done.result, Err(Failure::TimedOut));
                self.probed(now, done.id, answered);
            }
            _ => self.completed(now, done),
        }
    }

    /// A command was not answered in its time. If none was since, the path is to blame.
    fn given_up(&mut self, now: Instant, failed: Completion<'_, Payload<B>>) {
        let (id, submitted) = (failed.id, failed.submitted);
        self.dispatch(now, failed);
        let works = matches!(self.state, State::Ready) && id != PROBE_LONG;
        if works && self.watch.answered < submitted {
            let heard = self.watch.heard > submitted;
            let fault = if heard { PathFault::CommandTimeout } else { PathFault::Silent };
            self.down(now, fault);
            self.seek(now);
        }
    }

    fn watch_begin(&mut self, now: Instant) {
        self.ask_if_silent(now);
        if self.watch.silent_since() + BEGIN_PATIENCE <= now {
            self.down(now, PathFault::Silent);
            return self.seek(now);
        }
        if matches!(self.state, State::Probing(_)) {
            self.watch_probe(now);
        }
    }

    fn watch_work(&mut self, now: Instant) {
        if self.silent_at().is_some_and(|at| at <= now) {
            self.down(now, PathFault::Silent);
            return self.seek(now);
        }
        self.ask_if_silent(now);
        if self.watch.check_next.is_some_and(|at| at <= now) {
            self.ask_identity(now);
        }
        if self.config.remote.is_none() && self.watch.everyone_next <= now {
            self.watch.everyone_next = now + SIBLINGS_EVERY;
            self.query(true);
        }
        if self.sectors < self.sectors_full && self.watch.widen_next <= now {
            self.watch.widen_next = now + self.config.timers.widen_every;
            self.widen(now);
        }
    }

    /// A server whose disk hangs still says that it is there; then the network is not to blame.
    fn ask_if_silent(&mut self, now: Instant) {
        if self.ask_at().is_some_and(|at| at <= now) {
            self.watch.ask_next = now + ASK_PAUSE;
            self.query(false);
        }
    }
}
