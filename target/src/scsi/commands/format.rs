//! FORMAT UNIT (SBC-3 5.3). It changes neither block length nor protection, and manages no defects.
//! With an initialization pattern it writes that over every block; without one, a thin unit gives
//! all its blocks back, and any other is left as it is. Where there is something to do it is done
//! the way SANITIZE is: alone, told of in a state file, and not to be stopped.

use corbel_proto::scsi::cdb::FormatUnit;
use corbel_proto::scsi::{Condition, Sense, format as wire};

use super::sanitize;
use crate::scsi::plan::{Action, ParameterCommand, ParameterKind};
use crate::scsi::{LogicalUnit, Plan, limits};
use crate::volume::Erase;
use crate::volume::sanitize::{Phase, Purpose};

/// The CDB does not say how long the list is: see [`measure`].
pub(in crate::scsi) fn plan(lu: &LogicalUnit, command: &FormatUnit) -> Result<Plan, Sense> {
    if !command.list {
        return start(lu, wire::List { immediate: false, pattern: None });
    }
    let kind = ParameterKind::Format { long: command.long };
    let header = u16::try_from(wire::header_bytes(command.long)).unwrap_or(u16::MAX);
    Ok(Plan::parameters(kind, header))
}

/// The list is as long as what the initiator announced, as far as it can mean something.
pub(in crate::scsi) fn measure(
    lu: &LogicalUnit,
    plan: &mut Plan,
    announced: u64,
) -> Result<(), Sense> {
    let Action::Parameters(ParameterCommand(ParameterKind::Format { .. })) = plan.action else {
        return Ok(());
    };
    if announced < plan.data_out {
        return Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into());
    }
    plan.data_out = announced.min(u64::from(wire::bytes_max(lu.volume.facts.block_bytes)));
    Ok(())
}

pub(in crate::scsi) fn resume(lu: &LogicalUnit, long: bool, list: &[u8]) -> Result<Plan, Sense> {
    start(lu, wire::List::parse(list, long, lu.volume.facts.block_bytes)?)
}

fn start(lu: &LogicalUnit, wire::List { immediate, pattern }: wire::List) -> Result<Plan, Sense> {
    let sanitization = &lu.volume.sanitization;
    let phase = sanitization.phase();
    // What a SANITIZE left behind is not to be had by another name.
    if phase != Phase::Open && sanitization.purpose() != Purpose::Format {
        let failed = || Condition::SANITIZE_COMMAND_FAILED.into();
        return Err(sanitize::refusal(lu).unwrap_or_else(failed));
    }
    let block = |pattern: Vec<u8>| {
        pattern.into_iter().cycle().take(lu.volume.facts.block_bytes as usize).collect()
    };
    let how = match pattern {
        Some(pattern) => Erase::Overwrite { block: block(pattern), passes: 1, invert: false },
        None if limits::erasable(&lu.volume) => Erase::Deallocate,
        None if phase == Phase::Open => return Ok(Plan::good()),
        None => return sanitize::reopen(lu),
    };
    sanitize::start(lu, how, immediate, Purpose::Format)
}
