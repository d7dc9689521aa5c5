//! SANITIZE (SBC-3 5.24): overwrite, block and cryptographic erase, and the way out of a failed
//! attempt.

use corbel_proto::scsi::cdb::{Sanitize, SanitizeMethod};
use corbel_proto::scsi::{Condition, Sense, Status, sanitize as wire};

use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::plan::{Action, Kept, ParameterKind};
use crate::scsi::{LogicalUnit, Plan, Reply};
use crate::volume::Erase;
use crate::volume::sanitize::{Phase, Purpose};

/// The state file first: a process that does not outlive the operation must not leave a volume
/// behind that seems untouched. Others are refused from this moment on.
pub(in crate::scsi) fn plan(lu: &LogicalUnit, command: &Sanitize) -> Result<Plan, Sense> {
    match command.method {
        SanitizeMethod::Overwrite => {
            if !wire::lengths(lu.volume.facts.block_bytes).contains(&usize::from(command.len)) {
                return Err(Sense::invalid_cdb(7, None));
            }
            let (immediate, unrestricted) = (command.immediate, command.unrestricted);
            let kind = ParameterKind::Sanitize { immediate, unrestricted };
            Ok(Plan::parameters(kind, command.len))
        }
        _ if command.len > 0 => Err(Sense::invalid_cdb(7, None)),
        SanitizeMethod::BlockErase => {
            let unrestricted = command.unrestricted;
            start(lu, Erase::Deallocate, command.immediate, Purpose::Sanitize { unrestricted })
        }
        SanitizeMethod::CryptoErase => {
            let unrestricted = command.unrestricted;
            start(lu, Erase::NewKey, command.immediate, Purpose::Sanitize { unrestricted })
        }
        SanitizeMethod::ExitFailureMode => exit(lu),
    }
}

/// With the parameter list of SANITIZE OVERWRITE.
pub(in crate::scsi) fn resume(
    lu: &LogicalUnit,
    (immediate, unrestricted): (bool, bool),
    list: &[u8],
) -> Result<Plan, Sense> {
    let block_bytes = lu.volume.facts.block_bytes;
    let wanted = wire::Overwrite::parse(list, block_bytes)?;
    let (passes, invert) = (wanted.passes, wanted.invert);
    let how = Erase::Overwrite { block: wanted.block(block_bytes), passes, invert };
    start(lu, how, immediate, Purpose::Sanitize { unrestricted })
}

/// Begins to work on the whole medium.
pub(super) fn start(
    lu: &LogicalUnit,
    how: Erase,
    immediate: bool,
    purpose: Purpose,
) -> Result<Plan, Sense> {
    let sanitization = &lu.volume.sanitization;
    let Some(before) = sanitization.begin(purpose) else { return Err(in_progress(lu)) };
    let kind = MediaKind::Erase(how);
    let media = MediaPlan { answer_first: immediate, ..MediaPlan::new(kind, true) };
    Ok(keep(lu, sanitization.snapshot(), Kept::SanitizeBegun { media, before }))
}

fn exit(lu: &LogicalUnit) -> Result<Plan, Sense> {
    match lu.volume.sanitization.phase() {
        Phase::Open => Ok(Plan::good()),
        Phase::Running => Err(in_progress(lu)),
        Phase::Restricted => Err(Sense::invalid_cdb(1, Some(4))),
        // What is written now might not be read after a restart.
        Phase::Unrestricted if lu.volume.cipher.as_ref().is_some_and(|c| !c.is_settled()) => {
            Err(Condition::SANITIZE_COMMAND_FAILED.into())
        }
        Phase::Unrestricted => reopen(lu),
    }
}

/// What a failed attempt left is used as it is. Nobody begins another one while that is recorded:
/// the end of this would open the medium under it.
pub(super) fn reopen(lu: &LogicalUnit) -> Result<Plan, Sense> {
    if !lu.volume.sanitization.begin_reopening() {
        // Somebody else was faster.
        return refusal(lu).map_or_else(|| Ok(Plan::good()), Err);
    }
    let reply = Reply::good(Vec::new());
    let bytes = lu.volume.sanitization.snapshot_after(true);
    Ok(keep(lu, bytes, Kept::SanitizeEnded { done: true, reply }))
}

fn keep(lu: &LogicalUnit, bytes: Vec<u8>, then: Kept) -> Plan {
    Plan::action(Action::Keep { file: lu.volume.sanitize_state_name(), bytes, then })
}

fn in_progress(lu: &LogicalUnit) -> Sense {
    let progress = lu.volume.sanitization.progress();
    Sense::from(running(lu)).with_progress(progress)
}

/// What is told of work on the whole medium, by what it is for.
pub(in crate::scsi) fn running(lu: &LogicalUnit) -> Condition {
    match lu.volume.sanitization.purpose() {
        Purpose::Sanitize { .. } => Condition::SANITIZE_IN_PROGRESS,
        Purpose::Format => Condition::FORMAT_IN_PROGRESS,
    }
}

/// What is told to who asked for it, if it fails.
pub(in crate::scsi) fn failed(lu: &LogicalUnit) -> Condition {
    match lu.volume.sanitization.purpose() {
        Purpose::Sanitize { .. } => Condition::SANITIZE_COMMAND_FAILED,
        Purpose::Format => Condition::FORMAT_COMMAND_FAILED,
    }
}

/// Why the medium is closed to all but SANITIZE itself (or, where that failed, FORMAT UNIT), if it
/// is (SBC-3 4.11, 4.10).
pub(in crate::scsi) fn refusal(lu: &LogicalUnit) -> Option<Sense> {
    let sanitization = &lu.volume.sanitization;
    match (sanitization.phase(), sanitization.purpose()) {
        (Phase::Open, _) => None,
        (Phase::Running, _) => Some(in_progress(lu)),
        (_, Purpose::Sanitize { .. }) => Some(Condition::SANITIZE_COMMAND_FAILED.into()),
        (_, Purpose::Format) => Some(Condition::MEDIUM_FORMAT_CORRUPTED.into()),
    }
}

impl LogicalUnit {
    /// The state file tells of the operation, or could not be written.
    pub(in crate::scsi) fn sanitize_begun(
        &self,
        media: MediaPlan,
        before: Phase,
        ok: bool,
    ) -> Plan {
        if ok {
            let purpose = self.volume.sanitization.purpose();
            tracing::warn!(export = self.volume.name, ?purpose, "all blocks are worked on");
            return Plan::action(Action::Detach(media));
        }
        self.volume.sanitization.abandon(before);
        let failed = Condition::INTERNAL_TARGET_FAILURE.into();
        Plan::respond(Reply::check(failed, self.descriptor_sense()))
    }

    /// What the state file is to say, and what follows, now that the medium is done with. `None`
    /// for work of another kind.
    pub fn erased(&self, media: &MediaPlan, reply: Reply) -> Option<Plan> {
        if !matches!(media.kind, MediaKind::Erase(_)) {
            return None;
        }
        let done = reply.status == Status::Good;
        let bytes = self.volume.sanitization.snapshot_after(done);
        Some(keep(self, bytes, Kept::SanitizeEnded { done, reply }))
    }

    /// The state file says how it ended, or could not be written: then the volume stays closed, as
    /// it would be after a restart.
    pub(in crate::scsi) fn sanitize_ended(&self, done: bool, reply: Reply, ok: bool) -> Plan {
        let purpose = self.volume.sanitization.purpose();
        tracing::warn!(export = self.volume.name, ?purpose, done, recorded = ok, "it ended");
        self.volume.sanitization.end(done && ok);
        if ok {
            return Plan::respond(reply);
        }
        Plan::respond(Reply::check(failed(self).into(), self.descriptor_sense()))
    }
}
