//! Tries: waiting, sent, aborted, ended.

use corbel_proto::iscsi::initiator::{Answer, Command, CommandId, Failure, Transfer};
use corbel_proto::iscsi::pdu::Residual;
use corbel_proto::iscsi::pdu::task::TaskOutcome;
use corbel_proto::memory::{Buffer, Slice};
use corbel_proto::time::{Duration, Instant};

use super::commands::{Data, Piece, fits, needs_flush, piece, synchronize};
use super::judge::{Act, Last, Ruling, judge, words};
use super::session::Session;
use super::unit::Unit;
use super::wire::Memory;
use super::{IscsiPath, PathEvent, PathFault, Phase, Tried, Verdict};
use crate::path::TryId;
use crate::request::{Extent, IoError, Operation};

/// First wait of a request that a busy unit refused; it doubles.
const BUSY_MIN: Duration = Duration::from_millis(10);
/// The longest.
const BUSY_MAX: Duration = Duration::from_secs(1);
/// How long a transition is given before it is asked after.
const HOLD: Duration = Duration::from_millis(500);

/// Where a try is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    /// Here.
    Waiting,
    /// With the connection.
    Sent,
    /// The same, and the target is to abort it.
    Aborting(PathFault),
}

/// A try that has not ended.
#[derive(Debug)]
pub(super) struct Held<B> {
    pub(super) id: TryId,
    pub(super) operation: Operation,
    extent: Extent,
    /// Its memory, unless it is sent.
    data: Option<Slice<B>>,
    /// Where the memory begins and how long it is, while a part of it is sent.
    whole: (u32, u32),
    /// Bytes of the extent that are done.
    done: u64,
    /// Bytes of the extent that the present command is about.
    piece: u64,
    /// All is written; now it is made durable.
    flushing: bool,
    whereabouts: Whereabouts,
    pub(super) deadline: Instant,
    /// Times the present command was repeated.
    repeats: u8,
}

impl<B> Held<B> {
    pub(super) const fn new(
        id: TryId,
        operation: Operation,
        extent: Extent,
        data: Option<Slice<B>>,
    ) -> Self {
        Self {
            id,
            operation,
            extent,
            data,
            whole: (0, 0),
            done: 0,
            piece: 0,
            flushing: false,
            whereabouts: Whereabouts::Waiting,
            deadline: Instant::ZERO,
            repeats: 0,
        }
    }

    /// What the present command is, for the judge.
    const fn now(&self) -> Operation {
        if self.flushing { Operation::Flush } else { self.operation }
    }
}

impl<B: Buffer> Session<B> {
    /// Sends the next command of a try.
    fn launch(
        &mut self,
        now: Instant,
        limit: Duration,
        slot: usize,
        held: &mut Held<B>,
    ) -> Result<(), IoError> {
        let unit = self.unit.as_ref().expect("a session is open once the unit is known");
        let len = held.data.as_ref().map(|data| data.len);
        if !fits(unit, held.operation, held.extent, len) {
            return Err(IoError::Invalid);
        }
        let Piece { cdb, data, bytes } = match held.flushing {
            true => synchronize(),
            false => piece(unit, held.operation, held.extent, held.done)?,
        };
        let transfer = match data {
            Data::None => Transfer::None,
            Data::Parameters(bytes) => Transfer::Write(Memory::Own(bytes)),
            Data::Read => Transfer::Read(Memory::Lent(held.lend(bytes))),
            Data::Write => Transfer::Write(Memory::Lent(held.lend(bytes))),
        };
        held.piece = bytes;
        held.whereabouts = Whereabouts::Sent;
        held.deadline = now + limit;
        if self.in_flight == 0 {
            self.busy_since = now;
            self.scan_at = None;
        }
        self.in_flight += 1;
        // Later commands have later limits.
        self.scan_at.get_or_insert(held.deadline);
        self.connection.submit(Command { id: name(slot), lun: self.lun, cdb, transfer });
        Ok(())
    }
}

impl<B: Buffer> Held<B> {
    /// The part of the memory that comes next. The handle itself goes, for memory of a read must
    /// have no other holder.
    fn lend(&mut self, bytes: u64) -> Slice<B> {
        let mut part = self.data.take().expect("`fits` has seen it");
        self.whole = (part.start, part.len);
        let narrow =
            |bytes: u64| u32::try_from(bytes).expect("inside a slice, whose length is 32 bits");
        part.start += narrow(self.done);
        part.len = narrow(bytes);
        part
    }
}

/// A try's place is the name of its command: it has one at a time.
const fn name(slot: usize) -> CommandId {
    CommandId(slot as u64)
}

fn slot_of(id: CommandId) -> usize {
    usize::try_from(id.0).expect("made from one")
}

impl<B: Buffer> IscsiPath<B> {
    /// Sends what may be sent.
    pub(super) fn pump(&mut self, now: Instant) {
        let limit = self.config.timers.command;
        loop {
            let Phase::Session(session) = &mut self.phase else { return };
            if !session.is_open() {
                return;
            }
            let Some(slot) = self.queue.pop_front() else { return };
            if let Err(error) = session.launch(now, limit, slot, &mut self.tries[slot]) {
                self.end(slot, Verdict::Device(error));
            }
        }
    }

    /// A try ends: the one place where it does.
    pub(super) fn end(&mut self, slot: usize, verdict: Verdict) {
        let Held { id, data, .. } = self.tries.remove(slot);
        self.events.push_back(PathEvent::Tried(Tried { id, data, verdict }));
    }

    /// Tries that wait go elsewhere.
    pub(super) fn fail_waiting(&mut self, fault: PathFault) {
        for slot in std::mem::take(&mut self.queue) {
            self.end(slot, Verdict::Elsewhere(fault));
        }
    }

    /// Takes a try's memory back from the connection.
    pub(super) fn take_back(&mut self, id: CommandId, transfer: Transfer<Memory<B>>) -> usize {
        let slot = slot_of(id);
        if let Transfer::Read(Memory::Lent(mut part)) | Transfer::Write(Memory::Lent(mut part)) =
            transfer
        {
            let held = &mut self.tries[slot];
            (part.start, part.len) = held.whole;
            held.data = Some(part);
        }
        slot
    }

    /// The command of a try ended.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        id: CommandId,
        transfer: Transfer<Memory<B>>,
        result: Result<Answer, Failure>,
    ) {
        let slot = self.take_back(id, transfer);
        let Phase::Session(session) = &mut self.phase else { return };
        session.in_flight -= 1;
        let held = &self.tries[slot];
        let aborted = match held.whereabouts {
            Whereabouts::Aborting(fault) => Some(fault),
            _ => None,
        };
        let timeout = aborted.unwrap_or(PathFault::CommandTimeout);
        match result {
            Ok(answer) => {
                let (ruling, act) =
                    judge(held.now(), answer.status, &answer.sense, answer.residual);
                let ruling = match (ruling, aborted) {
                    (Ruling::Again(..), Some(fault)) => Ruling::Elsewhere(fault),
                    _ => ruling,
                };
                self.rule(slot, ruling);
                self.act(now, act, &answer);
            }
            Err(Failure::Aborted(outcome)) if outcome != TaskOutcome::Complete => {
                self.unknown_task(now, slot, timeout);
            }
            Err(Failure::Aborted(_) | Failure::Unfinished { .. }) => {
                self.end(slot, Verdict::Elsewhere(timeout));
            }
            Err(Failure::DataMissing) => {
                self.rule(slot, Ruling::Again(1, Last::Elsewhere(PathFault::CommandsFail)));
            }
            Err(Failure::Target(_) | Failure::Rejected(_)) => {
                self.end(slot, Verdict::Elsewhere(PathFault::CommandsFail));
            }
        }
    }

    /// The target does not know a command that it was to abort, and has not answered it: on one
    /// connection an answer would have come first. Whatever became of it may still take effect;
    /// only the end of the session is an end to it.
    fn unknown_task(&mut self, now: Instant, slot: usize, fault: PathFault) {
        if !self.tries[slot].operation.changes() {
            return self.end(slot, Verdict::Elsewhere(fault));
        }
        self.end(slot, Verdict::InDoubt(fault, self.life));
        if let Some(session) = self.session() {
            session.doubted = true;
        }
        self.gone(now, fault, "the target has forgotten a command".to_owned());
    }

    fn rule(&mut self, slot: usize, ruling: Ruling) {
        let Phase::Session(session) = &mut self.phase else { return };
        let held = &mut self.tries[slot];
        match ruling {
            Ruling::Done => {
                session.busy = 0;
                session.widen(self.config.depth);
                self.piece_done(slot);
            }
            Ruling::Device(IoError::Unsupported) => self.unsupported(slot),
            Ruling::Device(error) => self.end(slot, Verdict::Device(error)),
            Ruling::Busy => {
                let wait = BUSY_MIN.saturating_mul(1 << session.busy.min(8)).min(BUSY_MAX);
                session.busy += 1;
                self.end(slot, Verdict::Later(wait));
            }
            Ruling::Hold => self.end(slot, Verdict::Later(HOLD)),
            Ruling::Elsewhere(fault) => self.end(slot, Verdict::Elsewhere(fault)),
            Ruling::Again(times, _) if held.repeats < times => {
                held.repeats += 1;
                self.wait_first(slot);
            }
            Ruling::Again(_, Last::Elsewhere(fault)) => self.end(slot, Verdict::Elsewhere(fault)),
            Ruling::Again(_, Last::Device(error)) => self.end(slot, Verdict::Device(error)),
        }
    }

    fn piece_done(&mut self, slot: usize) {
        let Phase::Session(session) = &mut self.phase else { return };
        let held = &mut self.tries[slot];
        if held.now() == Operation::Flush {
            let lost = std::mem::take(&mut session.lost_write);
            session.dirty = false;
            let verdict = if lost { Verdict::Device(IoError::Io) } else { Verdict::Done };
            return self.end(slot, verdict);
        }
        let unit = session.unit.as_ref();
        session.dirty |= held.operation.changes() && unit.is_none_or(Unit::may_cache);
        held.done += held.piece;
        held.repeats = 0;
        if held.done >= held.extent.len {
            if !unit.is_some_and(|unit| needs_flush(unit, held.operation)) {
                return self.end(slot, Verdict::Done);
            }
            held.flushing = true;
        }
        self.wait_first(slot);
    }

    /// The try goes on before all others, on this path or, if it does not last, elsewhere.
    fn wait_first(&mut self, slot: usize) {
        if let Whereabouts::Aborting(fault) = self.tries[slot].whereabouts {
            return self.end(slot, Verdict::Elsewhere(fault));
        }
        self.tries[slot].whereabouts = Whereabouts::Waiting;
        self.queue.push_front(slot);
    }

    /// The unit does not know the command.
    fn unsupported(&mut self, slot: usize) {
        let Phase::Session(session) = &mut self.phase else { return };
        let Some(unit) = &mut session.unit else { return };
        match self.tries[slot].now() {
            // A unit that cannot flush, and does not say that it has a cache, has none.
            Operation::Flush if unit.mode.and_then(|mode| mode.write_cache) != Some(true) => {
                return self.piece_done(slot);
            }
            Operation::Discard => unit.refuses_discard = true,
            Operation::WriteZeroes { .. } => unit.refuses_zeroes = true,
            _ => {}
        }
        self.end(slot, Verdict::Device(IoError::Unsupported));
        let (target, weight) = (self.config.target.as_str().to_owned(), self.config.weight);
        self.announce(&target, weight);
    }

    /// What a sense code means for questions: as [`Self::answered`] does for tries.
    pub(super) fn attend(&mut self, now: Instant, answer: &Answer) {
        let (_, act) = judge(Operation::Read, answer.status, &answer.sense, Residual::None);
        self.act(now, act, answer);
    }

    fn act(&mut self, now: Instant, act: Act, answer: &Answer) {
        let limit = now + self.config.timers.abort;
        let Phase::Session(session) = &mut self.phase else { return };
        match act {
            Act::Nothing => {}
            Act::Identify => session.needs.all = true,
            Act::Capacity => session.needs.capacity = true,
            Act::Mode => session.needs.mode = true,
            Act::Groups => session.needs.groups = true,
            Act::LostWrite => session.lost_write = true,
            Act::Narrow => (session.width, session.well) = (session.in_flight.max(1), 0),
            Act::Rest(fault) => {
                let why = format!("the unit says {}", words(answer.status, &answer.sense));
                self.unfit(now, fault, why);
            }
            Act::PowerOn | Act::Reset | Act::Cleared => {
                session.needs.all |= act != Act::Cleared;
                // SAM-5: a reset keeps what is in the cache, a loss of power does not.
                session.lost_write |= act == Act::PowerOn && session.dirty;
                if session.in_flight > 0 {
                    session.scan_at = Some(session.scan_at.map_or(limit, |at| at.min(limit)));
                }
                for (_, held) in &mut self.tries {
                    held.deadline = held.deadline.min(limit);
                }
            }
        }
    }

    /// Commands that took too long are aborted; aborts that took too long end the session.
    pub(super) fn overtime(&mut self, now: Instant) {
        let Phase::Session(session) = &mut self.phase else { return };
        if session.in_flight == 0 || session.scan_at.is_none_or(|at| now < at) {
            return;
        }
        let late =
            |held: &Held<B>| held.whereabouts != Whereabouts::Waiting && held.deadline <= now;
        let slots: Vec<_> =
            self.tries.iter().filter(|(_, held)| late(held)).map(|(slot, _)| slot).collect();
        for slot in slots {
            if matches!(self.tries[slot].whereabouts, Whereabouts::Aborting(_)) {
                let why = "an abort was not answered in time".to_owned();
                return self.gone(now, PathFault::CommandTimeout, why);
            }
            self.abort_slot(now, slot, PathFault::CommandTimeout);
        }
        let sent = self.tries.iter().filter(|(_, held)| held.whereabouts != Whereabouts::Waiting);
        let next = sent.map(|(_, held)| held.deadline).min();
        if let Some(session) = self.session() {
            session.scan_at = next;
        }
    }

    /// Ends a try early.
    pub(super) fn abort_slot(&mut self, now: Instant, slot: usize, fault: PathFault) {
        let held = &mut self.tries[slot];
        match held.whereabouts {
            Whereabouts::Waiting => {
                self.queue.retain(|other| *other != slot);
                self.end(slot, Verdict::Elsewhere(fault));
            }
            Whereabouts::Sent => {
                held.whereabouts = Whereabouts::Aborting(fault);
                held.deadline = now + self.config.timers.abort;
                let Phase::Session(session) = &mut self.phase else { return };
                let deadline = held.deadline;
                session.scan_at = Some(session.scan_at.map_or(deadline, |at| at.min(deadline)));
                session.connection.abort(name(slot));
            }
            Whereabouts::Aborting(_) => {}
        }
    }
}

impl<B: Buffer> Session<B> {
    /// A command went well: one more at a time, after as many as there are now.
    fn widen(&mut self, depth: u32) {
        self.well += 1;
        if self.width < depth && self.well >= self.width {
            (self.width, self.well) = (self.width + 1, 0);
        }
    }
}
