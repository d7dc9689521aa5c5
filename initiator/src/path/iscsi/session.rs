//! A session: what its connection says, keep-alive, the end.

use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::initiator::{Command, CommandId, Connection, Event, Transfer};
use corbel_proto::iscsi::login::initiator::Outcome;
use corbel_proto::iscsi::pdu::asynchronous::AsyncEvent;
use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::config::{Reinstatement, Timers};
use super::identify::{Needs, Probe};
use super::unit::Unit;
use super::wire::{Memory, StreamId};
use super::{IscsiPath, Life, PathEvent, PathFault, Phase, Place, Verdict};

/// Commands of ours, not of tries.
pub(super) const PROBE: CommandId = CommandId(1 << 63);
/// A unit that is busy while it is asked is asked again after this.
pub(super) const BUSY: Duration = Duration::from_millis(50);

/// What a session is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Asking the unit who it is.
    Identifying,
    /// Tries are sent.
    Ready,
    /// What was sent is waited for; then it rests.
    Draining(PathFault),
    /// The unit is not fit for work; it is asked again.
    Resting { again: Instant },
    /// What was sent is waited for, but not long; then the logout, and then the end.
    Leaving { fault: PathFault, ask_at: Option<Instant>, until: Instant },
}

/// A connection in full feature phase.
#[derive(Debug)]
pub(super) struct Session<B> {
    pub(super) stream: StreamId,
    pub(super) connection: Connection<Memory<B>>,
    pub(super) lun: Lun,
    pub(super) stage: Stage,
    /// As it was last identified.
    pub(super) unit: Option<Unit>,
    pub(super) needs: Needs,
    /// Tries that were given to the connection.
    pub(super) in_flight: u32,
    /// How many there may be; the target may want fewer than we do.
    pub(super) width: u32,
    /// Commands that ended well since `width` changed.
    pub(super) well: u32,
    /// No command of a try is over time before this.
    pub(super) scan_at: Option<Instant>,
    /// Times the unit was busy in a row.
    pub(super) busy: u32,
    /// A write was acknowledged and then lost.
    pub(super) lost_write: bool,
    /// Something was acknowledged since the last flush, and may be in a cache.
    pub(super) dirty: bool,
    /// A try ended in doubt although the session goes on, for a moment.
    pub(super) doubted: bool,
    pub(super) place: Place,
    pub(super) probe: Option<Probe>,
    /// A question of the probe is under way.
    pub(super) asked: bool,
    /// The probe goes on at this time.
    pub(super) probe_at: Option<Instant>,
    probe_until: Instant,
    heard: Instant,
    /// The first of the commands under way was sent.
    pub(super) busy_since: Instant,
    pinged: Option<Instant>,
    pub(super) graced: bool,
    pub(super) ready_since: Option<Instant>,
}

impl<B: Buffer> Session<B> {
    pub(super) fn new(
        now: Instant,
        stream: StreamId,
        place: Place,
        outcome: &Outcome,
        lun: u16,
        width: u32,
    ) -> Self {
        Self {
            stream,
            // Its keep-alive knows nothing of idle sessions and hosts that stand still.
            connection: Connection::new(now, outcome.start(), None),
            lun: Lun::new(lun),
            stage: Stage::Identifying,
            unit: None,
            needs: Needs::ALL,
            in_flight: 0,
            width,
            well: 0,
            scan_at: None,
            busy: 0,
            lost_write: false,
            dirty: false,
            doubted: false,
            place,
            probe: None,
            asked: false,
            probe_at: None,
            probe_until: now,
            heard: now,
            busy_since: now,
            pinged: None,
            graced: false,
            ready_since: None,
        }
    }

    /// Where it is, with what the unit has told of that.
    pub(super) fn place(&self) -> Place {
        Place { process: self.unit.as_ref().and_then(|unit| unit.process), ..self.place }
    }

    /// Tries may be sent now.
    pub(super) fn is_open(&self) -> bool {
        let asking = self.probe.as_ref().is_some_and(|probe| probe.needs.all);
        self.stage == Stage::Ready && !self.needs.all && !asking && self.in_flight < self.width
    }

    pub(super) fn check(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Resting { again } => *again = now,
            Stage::Ready => self.needs.check = true,
            _ => {}
        }
    }

    /// The clock went on without us.
    pub(super) fn shift(&mut self, now: Instant, late: Duration) {
        self.pinged = self.pinged.map(|_| now);
        self.probe_until = self.probe_until + late;
        self.scan_at = self.scan_at.map(|at| at + late);
    }

    /// When to ping, or to give up on the answer.
    fn silent_at(&self, timers: &Timers) -> Instant {
        match self.pinged {
            Some(sent) => sent.max(self.heard) + timers.ping_answer,
            None if self.in_flight > 0 || self.asked => {
                self.heard.max(self.busy_since) + timers.ping_after
            }
            None => self.heard + timers.ping_idle,
        }
    }

    pub(super) fn due(&self, timers: &Timers) -> Instant {
        let mut due = self.silent_at(timers);
        match self.stage {
            Stage::Resting { again } => due = due.min(again),
            Stage::Leaving { ask_at, until, .. } => due = due.min(ask_at.unwrap_or(until)),
            _ => {}
        }
        if self.probe.is_some() {
            due = due.min(self.probe_until);
        }
        let others = [self.probe_at, self.scan_at.filter(|_| self.in_flight > 0)];
        others.into_iter().flatten().fold(due, Instant::min)
    }

    /// Sends the next question about the unit, if one is due.
    fn ask(&mut self, now: Instant, timers: &Timers) {
        let wanted = matches!(self.stage, Stage::Identifying | Stage::Ready);
        if self.probe.is_none() && self.needs.any() && wanted {
            let needs = std::mem::take(&mut self.needs);
            self.probe = Some(Probe::new(needs, self.unit.as_ref()));
            // While tries are sent, questions wait for the target's window as they do.
            let first = self.stage == Stage::Identifying;
            self.probe_until = now + if first { timers.identify } else { timers.command };
        }
        let leaving = matches!(self.stage, Stage::Leaving { .. });
        if leaving || self.asked || self.probe_at.is_some_and(|at| now < at) {
            return;
        }
        self.probe_at = None;
        let Some((cdb, len)) = self.probe.as_ref().and_then(Probe::question) else { return };
        let transfer = match len {
            0 => Transfer::None,
            len => Transfer::Read(Memory::Own(vec![0; len as usize])),
        };
        self.asked = true;
        if self.in_flight == 0 {
            self.busy_since = now;
        }
        self.connection.submit(Command { id: PROBE, lun: self.lun, cdb, transfer });
    }
}

impl<B: Buffer> IscsiPath<B> {
    pub(super) fn session(&mut self) -> Option<&mut Session<B>> {
        match &mut self.phase {
            Phase::Session(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn session_bytes(&mut self, now: Instant, bytes: &[u8]) {
        let Some(session) = self.session() else { return };
        if !bytes.is_empty() {
            (session.heard, session.graced) = (now, false);
        }
        let stream = session.stream;
        let result = session.connection.handle_bytes(now, bytes);
        // What was said before the connection broke still holds.
        self.settle(now);
        if let (Err(fatal), true) = (result, self.stream() == Some(stream)) {
            self.gone(now, PathFault::Protocol, fatal.to_string());
        }
    }

    /// Takes what the connection says, asks and sends what may be sent now.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(event) = self.session().and_then(|session| session.connection.poll_event()) {
            self.event(now, event);
        }
        let Phase::Session(session) = &mut self.phase else { return };
        session.ask(now, &self.config.timers);
        self.pump(now);
        let Phase::Session(session) = &mut self.phase else { return };
        let idle = session.in_flight == 0;
        match &mut session.stage {
            Stage::Draining(fault) if idle => {
                let fault = *fault;
                self.rest(now, fault, None);
            }
            Stage::Leaving { ask_at, .. } if ask_at.is_some_and(|at| idle || at <= now) => {
                *ask_at = None;
                session.connection.logout();
            }
            _ => {}
        }
    }

    fn event(&mut self, now: Instant, event: Event<Memory<B>>) {
        match event {
            Event::Done { id: PROBE, transfer, result } => {
                self.probe_answered(now, transfer, result)
            }
            Event::Done { id, transfer, result } => self.answered(now, id, transfer, result),
            Event::Pong(_) => {
                if let Some(session) = self.session() {
                    session.pinged = None;
                }
            }
            // Of resets there are none of ours: an abort that the target will not do.
            Event::Managed(_, outcome) => {
                let why = format!("the target does not abort a command: {outcome:?}");
                self.gone(now, PathFault::CommandTimeout, why);
            }
            Event::Text(_) => {}
            Event::Async(event, _) => self.asynchronous(now, event),
            Event::Rejected(reason) => {
                let why = format!("the target rejects what we send: {reason:?}");
                self.gone(now, PathFault::Protocol, why);
            }
            Event::LoggedOut(code) => self.logged_out(now, code),
        }
    }

    fn asynchronous(&mut self, now: Instant, event: AsyncEvent) {
        match event {
            // New parameters could be negotiated, too; a new login does that as well.
            AsyncEvent::LogoutRequest { .. } | AsyncEvent::Renegotiate { .. } => {
                let why = Some("the target asked us to log out".to_owned());
                self.leave(now, PathFault::LogoutAsked, why);
            }
            AsyncEvent::DropConnection { .. } | AsyncEvent::DropSession { .. } => {
                self.gone(now, PathFault::Closed, "the target drops the session".to_owned());
            }
            // Without a word about which: nobody would answer for them.
            AsyncEvent::TasksTerminated => {
                self.gone(now, PathFault::Closed, "the target ended all tasks".to_owned());
            }
            // Whatever it is about, a unit attention follows.
            AsyncEvent::Scsi | AsyncEvent::Other(_) => {}
        }
    }

    /// Begins to leave: no more tries are sent, those that were may be answered, then the logout.
    pub(super) fn leave(&mut self, now: Instant, fault: PathFault, why: Option<String>) {
        // The answer to a logout ends what a hung command leaves open: it is asked for soon.
        let ask_at = Some(now + self.config.timers.logout / 2);
        let until = now + self.config.timers.logout;
        let Some(session) = self.session() else { return };
        match &mut session.stage {
            Stage::Leaving { fault: old, .. } => *old = fault,
            stage => *stage = Stage::Leaving { fault, ask_at, until },
        }
        self.why = why;
        self.fail_waiting(fault);
        self.settle(now);
    }

    fn logged_out(&mut self, now: Instant, code: u8) {
        let Some(session) = self.session() else { return };
        let place = session.place();
        let fault = match session.stage {
            Stage::Leaving { fault, .. } => fault,
            _ => PathFault::Closed,
        };
        let why = self.why.take();
        self.lose(now, fault, why);
        // RFC 7143 11.14: the target answers once the session's tasks are over.
        let over = code == 0 && self.config.reinstatement != Reinstatement::Nothing;
        if over && let Some(last) = self.doubts.replaced(place) {
            self.events.push_back(PathEvent::Quiet(last));
        }
    }

    pub(super) fn session_timeout(&mut self, now: Instant) {
        let timers = &self.config.timers;
        let Phase::Session(session) = &mut self.phase else { return };
        if session.silent_at(timers) <= now {
            if session.pinged.is_some() {
                let silent = now.since(session.heard).as_millis();
                let why = format!("nothing was heard for {silent} ms, no answer to a ping");
                return self.gone(now, PathFault::Silent, why);
            }
            session.pinged = Some(now);
            session.connection.ping(now);
        }
        if session.probe.is_some() && session.probe_until <= now {
            let why = "the unit does not answer questions in time".to_owned();
            return self.gone(now, PathFault::CommandTimeout, why);
        }
        match session.stage {
            // A question that came too early may still be answered; the next one waits for that.
            Stage::Resting { ref mut again } if *again <= now && session.asked => {
                *again = now + BUSY;
            }
            Stage::Resting { again } if again <= now => {
                session.stage = Stage::Identifying;
                session.needs = Needs::ALL;
                (session.probe, session.probe_at) = (None, None);
            }
            Stage::Leaving { fault, until, .. } if until <= now => {
                let why = self.why.take();
                return self.lose(now, fault, why);
            }
            _ => {}
        }
        self.overtime(now);
        self.settle(now);
    }

    /// The session is over: every command of it ends.
    pub(super) fn end_session(&mut self, now: Instant, mut session: Session<B>, fault: PathFault) {
        let mut doubt = session.doubted;
        let place = session.place();
        // Of several answers that came at once, one may end the session: those behind it are not
        // looked at any more, and their commands are as unfinished as the others.
        let events = std::iter::from_fn(|| session.connection.poll_event());
        let mut left: Vec<_> = events
            .filter_map(|event| match event {
                Event::Done { id, transfer, .. } => Some((id, transfer, true)),
                _ => None,
            })
            .collect();
        let unfinished = session.connection.into_unfinished();
        left.extend(unfinished.map(|(command, sent)| (command.id, command.transfer, sent)));
        for (id, transfer, sent) in left {
            if id == PROBE {
                continue;
            }
            let slot = self.take_back(id, transfer);
            let in_doubt = sent && self.tries[slot].operation.changes();
            doubt |= in_doubt;
            let verdict = match in_doubt {
                true => Verdict::InDoubt(fault, self.life),
                false => Verdict::Elsewhere(fault),
            };
            self.end(slot, verdict);
        }
        if doubt {
            self.doubts.add(now, self.life, place);
            self.proof_allowed = true;
        }
        self.life = Life(self.life.0 + 1);
        // A session that stood for a while does not make the next attempt wait.
        let stood = session.ready_since.map(|since| now.since(since));
        if stood.is_some_and(|stood| stood >= self.config.timers.retry_max) {
            self.failures = 0;
        }
    }
}
