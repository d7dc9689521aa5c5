//! POPULATE TOKEN, WRITE USING TOKEN (SBC-3 5.7, 5.41) and RECEIVE ROD TOKEN INFORMATION
//! (SPC-4 6.26).
//!
//! A token says which blocks are meant; the data stay where they are, and a change of them ends it.
//! It is good for whoever sees the unit and may read it.

use std::sync::Arc;

use corbel_proto::scsi::copy::Standing;
use corbel_proto::scsi::token::{self as wire, Information, Range, Token};
use corbel_proto::scsi::{Condition, Sense};

use crate::scsi::copy::{Account, Copy, Using};
use crate::scsi::plan::{Action, ParameterKind};
use crate::scsi::{LogicalUnit, Nexus, Plan};
use crate::volume::tokens::Ended;

/// Commands of one nexus whose outcome is kept.
const KEPT_MAX: usize = 16;

/// Longer lists than any that name as many ranges as may be named.
const LIST_BYTES_MAX: u32 = 4 << 10;

const POPULATE: u8 = 0x10;
const WRITE: u8 = 0x11;

/// What became of a command, by its list identifier.
#[derive(Debug)]
pub(in crate::scsi) enum Outcome {
    /// POPULATE TOKEN.
    Made(Token),
    /// WRITE USING TOKEN, here or under way.
    Written(Arc<Account>),
}

pub(in crate::scsi) fn plan(list_id: u32, writes: bool, len: u32) -> Result<Plan, Sense> {
    match u16::try_from(len) {
        Ok(0) => Ok(Plan::good()),
        Ok(len) if u32::from(len) <= LIST_BYTES_MAX => {
            Ok(Plan::parameters(ParameterKind::Token { list_id, writes }, len))
        }
        _ => Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into()),
    }
}

/// Ranges of blocks in bytes, and how many blocks they are.
fn bytes(lu: &LogicalUnit, ranges: &[Range]) -> Result<(Vec<(u64, u64)>, u64), Sense> {
    let block = u64::from(lu.volume.facts.block_bytes);
    let mut out = Vec::with_capacity(ranges.len());
    let mut blocks = 0;
    for range in ranges {
        let (lba, count) = (range.lba, u64::from(range.blocks));
        let end = lba.checked_add(count).filter(|end| *end <= lu.volume.blocks());
        end.ok_or(Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)?;
        blocks += count;
        if count > 0 {
            out.push((lba * block, count * block));
        }
    }
    if blocks * block > wire::BYTES_MAX {
        return Err(Condition::INVALID_FIELD_IN_PARAMETER_LIST.into());
    }
    Ok((out, blocks))
}

pub(in crate::scsi) fn resume(
    nexus: &mut Nexus,
    (list_id, writes): (u32, bool),
    list: &[u8],
) -> Result<Plan, Sense> {
    if writes {
        let order = Box::new(wire::Write::parse(list)?);
        return Ok(Plan::action(Action::WriteUsingToken(list_id, order)));
    }
    let wanted = wire::Populate::parse(list)?;
    let lu = nexus.lu.clone();
    let (ranges, blocks) = bytes(&lu, &wanted.ranges)?;
    nexus.room_for(list_id)?;
    let full = Condition::INSUFFICIENT_RESOURCES_TO_CREATE_ROD_TOKEN;
    let id = lu.volume.tokens.make(ranges, wanted.inactivity).ok_or(full)?;
    let token = Token {
        id,
        process: process(&lu),
        naa: lu.volume.identity.naa,
        bytes: blocks * u64::from(lu.volume.facts.block_bytes),
    };
    nexus.tokens.push((list_id, Outcome::Made(token)));
    Ok(Plan::good())
}

fn process(lu: &LogicalUnit) -> [u8; 16] {
    lu.instance().map_or([0; 16], |instance| instance.process)
}

impl Nexus {
    /// Makes room for the outcome of another command; the oldest is forgotten.
    fn room_for(&mut self, list_id: u32) -> Result<(), Sense> {
        let running = |outcome: &Outcome| match outcome {
            Outcome::Made(_) => false,
            Outcome::Written(account) => account.standing() == Standing::Running,
        };
        if self.tokens.iter().any(|(id, outcome)| *id == list_id && running(outcome)) {
            return Err(Condition::OPERATION_IN_PROGRESS.into());
        }
        self.tokens.retain(|(id, _)| *id != list_id);
        if self.tokens.len() >= KEPT_MAX {
            let ended = self.tokens.iter().position(|(_, outcome)| !running(outcome));
            self.tokens.remove(ended.ok_or(Condition::OPERATION_IN_PROGRESS)?);
        }
        Ok(())
    }

    /// The copy of [`Action::WriteUsingToken`], given the units that this initiator sees.
    ///
    /// # Errors
    /// The sense that refuses it; then nothing is copied.
    pub fn write_using_token(
        &mut self,
        list_id: u32,
        order: &wire::Write,
        units: &[Arc<LogicalUnit>],
    ) -> Result<Copy, Sense> {
        let here = self.lu.clone();
        let wire::Write { delete, offset, token, ranges } = order;
        let (to, blocks) = bytes(&here, ranges)?;
        let seen = units.iter().find(|unit| unit.volume.identity.naa == token.naa);
        // Whether it is there at all is not told.
        let source = seen.filter(|unit| process(unit) == token.process);
        let source = source.ok_or(Condition::TOKEN_UNKNOWN)?;
        let named = source.volume.tokens.find(token.id).map_err(|ended| match ended {
            Ended::Unknown => Condition::TOKEN_UNKNOWN,
            Ended::Revoked => Condition::TOKEN_REVOKED,
            Ended::Expired => Condition::TOKEN_EXPIRED,
        })?;
        let block = u64::from(here.volume.facts.block_bytes);
        if u64::from(source.volume.facts.block_bytes) != block {
            return Err(Condition::INVALID_TOKEN_OPERATION.into());
        }
        let whole: u64 = named.ranges.iter().map(|(_, len)| len).sum();
        let skip = offset.checked_mul(block).filter(|skip| *skip <= whole);
        let skip = skip.ok_or(Sense::invalid_parameter(8, None))?;
        if blocks * block > whole - skip {
            return Err(Sense::invalid_parameter(534, None));
        }
        self.room_for(list_id)?;
        let source = source.clone();
        let using = Using { named, source, token: token.id, delete: *delete };
        let copy = Copy::of_token(self.name.clone(), &here, (skip, &to), using)?;
        self.tokens.push((list_id, Outcome::Written(copy.account())));
        Ok(copy)
    }
}

/// What became of this initiator's own commands.
pub(in crate::scsi) fn information(
    nexus: &Nexus,
    list_id: u32,
    allocation: u32,
) -> Result<Plan, Sense> {
    let block = u64::from(nexus.lu.volume.facts.block_bytes);
    let outcome = nexus.tokens.iter().find(|(id, _)| *id == list_id);
    let (_, outcome) = outcome.ok_or(Sense::invalid_cdb(2, None))?;
    let told = match outcome {
        Outcome::Made(token) => {
            let blocks = token.bytes / block;
            let (action, standing, token) = (POPULATE, Standing::Done, Some(*token));
            Information { action, standing, blocks, token }
        }
        Outcome::Written(account) => {
            let (standing, blocks) = (account.standing(), account.bytes() / block);
            Information { action: WRITE, standing, blocks, token: None }
        }
    };
    Ok(Plan::data(told.emit(), allocation))
}
