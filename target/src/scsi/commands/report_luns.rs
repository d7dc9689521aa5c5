//! REPORT LUNS (SPC-4 6.33).

use corbel_proto::scsi::{Sense, lun};

use crate::scsi::{Plan, View};

/// SELECT REPORT 0 and 2: all units that can be reached (there are no well-known ones); 1:
/// well-known units only.
pub(in crate::scsi) fn plan(view: &View<'_>, select: u8, allocation: u32) -> Result<Plan, Sense> {
    match select {
        0x00 | 0x02 => Ok(Plan::data(lun::report(view.luns), allocation)),
        0x01 => Ok(Plan::data(lun::report(&[]), allocation)),
        _ => Err(Sense::invalid_cdb(2, None)),
    }
}
