//! EXTENDED COPY (SPC-4 6.4) and RECEIVE COPY RESULTS (6.22, 6.23).

use std::sync::Arc;

use corbel_proto::scsi::copy::{self as wire, List, Standing};
use corbel_proto::scsi::{Condition, Sense};

use crate::scsi::copy::Copy;
use crate::scsi::plan::{Action, ParameterKind};
use crate::scsi::{LogicalUnit, Nexus, Plan};

pub(in crate::scsi) fn plan(len: u32) -> Result<Plan, Sense> {
    match u16::try_from(len) {
        Ok(0) => Ok(Plan::good()),
        Ok(len) => Ok(Plan::parameters(ParameterKind::ExtendedCopy, len)),
        Err(_) => Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into()),
    }
}

pub(in crate::scsi) fn resume(list: &[u8]) -> Result<Plan, Sense> {
    Ok(Plan::action(Action::Copy(List::parse(list)?)))
}

impl Nexus {
    /// The copy of [`Action::Copy`], given the units that this initiator sees.
    ///
    /// # Errors
    /// The sense that refuses it; then nothing is copied.
    pub fn copy(&mut self, list: &List, units: &[Arc<LogicalUnit>]) -> Result<Copy, Sense> {
        self.copies
            .retain(|(id, copy)| Some(*id) != list.id || copy.standing() == Standing::Running);
        if self.copies.iter().any(|(id, _)| Some(*id) == list.id) {
            return Err(Condition::OPERATION_IN_PROGRESS.into());
        }
        let copy = Copy::new(list, self.name.clone(), &self.lu, units)?;
        if let Some(id) = list.id {
            if self.copies.len() >= usize::from(wire::IDENTIFIED_MAX) {
                let ended = self.copies.iter().position(|(_, c)| c.standing() != Standing::Running);
                let oldest = ended.ok_or(Condition::OPERATION_IN_PROGRESS)?;
                self.copies.remove(oldest);
            }
            self.copies.push((id, copy.account()));
        }
        Ok(copy)
    }
}

/// The state of this initiator's copies alone; a status stays until its identifier, or its room,
/// is used again.
pub(in crate::scsi) fn results(
    nexus: &Nexus,
    list_id: Option<u8>,
    allocation: u32,
) -> Result<Plan, Sense> {
    let Some(id) = list_id else { return Ok(Plan::data(wire::operating_parameters(), allocation)) };
    let copy = nexus.copies.iter().find(|(known, _)| *known == id);
    let (_, copy) = copy.ok_or(Sense::invalid_cdb(2, None))?;
    Ok(Plan::data(copy.tell(), allocation))
}
