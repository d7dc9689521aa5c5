//! Tries to commands, completions to verdicts.

use corbel_proto::aoe::initiator::{CommandId, Completion, Failure};
use corbel_proto::ata::Fault;
use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use super::payload::{Command, Payload};
use super::tries::{self, Open};
use super::{AoePath, State, judge};
use crate::path::{PathEvent, PathFault, Tried, Try, TryId, Verdict};
use crate::request::{IoError, Operation};

/// IDENTIFY DEVICE, whoever asked for it.
pub(super) const IDENTIFY: CommandId = CommandId(u64::MAX);
/// The probe with a frame as long as possible.
pub(super) const PROBE_LONG: CommandId = CommandId(u64::MAX - 1);
/// The probe with a frame that any Ethernet carries.
pub(super) const PROBE_SHORT: CommandId = CommandId(u64::MAX - 2);

impl<B: Buffer> AoePath<B> {
    /// True if acknowledged writes have to be flushed.
    pub(super) fn has_cache(&self) -> bool {
        let says = self.identify.as_ref().is_some_and(|identify| identify.write_cache);
        self.config.server_caches || says
    }

    pub(super) fn take(&mut self, attempt: Try<B>) {
        if !matches!(self.state, State::Ready) {
            let fault = self.fault.unwrap_or(PathFault::Starting);
            return self.tell(attempt, Verdict::Elsewhere(fault));
        }
        let size =
            self.identify.as_ref().map_or(0, |identify| identify.sectors.saturating_mul(512));
        if let Err(error) = tries::check(&attempt, size) {
            return self.tell(attempt, Verdict::Device(error));
        }
        let flush = match attempt.operation {
            Operation::Flush if !self.has_cache() => return self.tell(attempt, Verdict::Done),
            Operation::Flush => true,
            Operation::Write { fua } => fua && self.has_cache(),
            Operation::Read | Operation::Discard | Operation::WriteZeroes { .. } => false,
        };
        let trims = self.identify.as_ref().is_some_and(|identify| identify.trim_blocks > 0);
        if attempt.operation == Operation::Discard && !trims {
            return self.tell(attempt, Verdict::Device(IoError::Unsupported));
        }
        self.tries.open(attempt, flush);
    }

    fn tell(&mut self, attempt: Try<B>, verdict: Verdict) {
        let tried = Tried { id: attempt.id, data: attempt.data, verdict };
        self.events.push_back(PathEvent::Tried(tried));
    }

    /// Commands are on their way from here on, if none was before.
    pub(super) fn busy(&mut self, now: Instant) {
        if self.wire.as_ref().is_none_or(|wire| wire.is_empty()) {
            self.watch.busy_since = now;
        }
    }

    /// Makes commands of tries, as many as can go out.
    pub(super) fn feed(&mut self, now: Instant) {
        if !matches!(self.state, State::Ready) {
            return;
        }
        let Some(wire) = self.wire.as_mut() else { return };
        while wire.room() > 0 {
            let Some((id, command)) = self.tries.next(self.sectors) else { break };
            if wire.is_empty() {
                self.watch.busy_since = now;
            }
            let short = self.flush_short && matches!(command, Command::Flush);
            wire.submit(now, id, if short { Command::FlushShort } else { command });
        }
    }

    /// A command of a try ended.
    pub(super) fn completed(&mut self, now: Instant, done: Completion<'_, Payload<B>>) {
        let slot = tries::slot_of(done.id);
        let Some(open) = self.tries.get_mut(slot) else { return };
        open.outstanding -= 1;
        let operation = open.attempt.operation;
        if operation.changes() && done.copies_lost > 0 {
            let answered = !matches!(done.result, Err(Failure::TimedOut));
            let timers = &self.config.timers;
            let hold = if answered { timers.copy_hold } else { timers.doubt_hold };
            let forgotten = done.copies_lost as usize > done.lost_tags.len();
            let until = done.last_sent + hold;
            self.doubts.lost(open.attempt.id, &done.lost_tags, forgotten, until);
        }
        match (done.result, done.operation) {
            (Ok(bytes), Command::Read { lba, .. }) => open.place(lba, bytes),
            (Ok(_), _) => {}
            (Err(Failure::Device(Fault::Aborted)), Command::Flush) => {
                self.flush_short = true;
                return self.tries.flush(slot);
            }
            (Err(failure), command) => {
                let flushed = matches!(command, Command::Flush | Command::FlushShort);
                let asked = if flushed { Operation::Flush } else { operation };
                let verdict = judge::verdict(asked, failure);
                open.failed.get_or_insert(verdict);
                if matches!(
                    verdict,
                    Verdict::Elsewhere(PathFault::NoDevice) | Verdict::Device(IoError::Invalid)
                ) {
                    self.watch.check_next = Some(now);
                }
            }
        }
        self.settle(now, slot);
    }

    /// Ends the try in `slot` if nothing of it is left to do.
    fn settle(&mut self, now: Instant, slot: u32) {
        let Some(open) = self.tries.get_mut(slot) else { return };
        if open.is_over() {
            let verdict = open.failed.unwrap_or(Verdict::Done);
            self.end(now, slot, verdict);
        } else if open.is_flush_next() {
            self.tries.resume(slot);
        }
    }

    /// The try in `slot` ends with `verdict`, or in doubt.
    fn end(&mut self, now: Instant, slot: u32, verdict: Verdict) {
        let Some(Open { attempt, .. }) = self.tries.close(slot) else { return };
        let verdict = match (self.doubts.close(now, attempt.id), verdict) {
            (None, verdict) => verdict,
            (Some(life), Verdict::Done | Verdict::DoneInDoubt(_)) => Verdict::DoneInDoubt(life),
            (Some(life), Verdict::Elsewhere(fault) | Verdict::InDoubt(fault, _)) => {
                Verdict::InDoubt(fault, life)
            }
            (Some(life), Verdict::Device(error) | Verdict::DeviceInDoubt(error, _)) => {
                Verdict::DeviceInDoubt(error, life)
            }
            // Definite for the command that was answered, but not for the copies of others.
            (Some(life), Verdict::Later(_)) => Verdict::InDoubt(PathFault::CommandsFail, life),
        };
        self.tell(attempt, verdict);
    }

    /// Takes back the commands that `wanted` says yes to, and notes what is in doubt.
    fn withdraw(&mut self, mut wanted: impl FnMut(CommandId) -> bool) {
        let Some(wire) = self.wire.as_mut() else { return };
        while let Some(gone) = wire.withdraw_any(&mut wanted) {
            let Some(open) = self.tries.get_mut(tries::slot_of(gone.id)) else { continue };
            open.outstanding -= 1;
            if gone.copies_lost > 0 && open.attempt.operation.changes() {
                let until = gone.last_sent + self.config.timers.doubt_hold;
                let forgotten = gone.copies_lost as usize > gone.lost_tags.len();
                self.doubts.lost(open.attempt.id, &gone.lost_tags, forgotten, until);
            }
        }
    }

    /// Takes back a command of the path's own; true if it was under way.
    pub(super) fn withdraw_own(&mut self, id: CommandId) -> bool {
        self.wire.as_mut().is_some_and(|wire| wire.withdraw_any(|other| other == id).is_some())
    }

    /// Ends one try before its time.
    pub(super) fn give_back(&mut self, now: Instant, id: TryId) {
        let Some(slot) = self.tries.find(id) else { return };
        self.withdraw(|command| tries::slot_of(command) == slot);
        self.end(now, slot, Verdict::Elsewhere(PathFault::CommandTimeout));
    }

    /// Ends every try, and with them the conversation.
    pub(super) fn down(&mut self, now: Instant, fault: PathFault) {
        self.withdraw(|_| true);
        while let Some(slot) = self.tries.any() {
            let failed = self.tries.get_mut(slot).and_then(|open| open.failed);
            self.end(now, slot, failed.unwrap_or(Verdict::Elsewhere(fault)));
        }
        if let Some(wire) = self.wire.take() {
            self.last_tag = wire.last_tag();
        }
        self.set_fault(fault);
    }
}
