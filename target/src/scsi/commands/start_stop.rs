//! START STOP UNIT (SBC-3 5.25) and PREVENT ALLOW MEDIUM REMOVAL (5.10).

use corbel_proto::scsi::cdb::StartStop;
use corbel_proto::scsi::{Condition, Sense};

use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::unit::Medium;
use crate::scsi::{Nexus, Plan};

/// LOEJ moves the medium of a removable unit only, and only while nobody has locked it in or out;
/// elsewhere it is an invalid field. Stopping and ejecting make everything stable, unless NO_FLUSH.
///
/// There is no stopped state and no power condition: a unit is many initiators', and one that
/// shuts down (Linux stops its disks then) must not take it from the others. So stopping flushes,
/// and a POWER CONDITION, which makes START and LOEJ void, changes nothing.
pub(in crate::scsi) fn plan(nexus: &mut Nexus, command: &StartStop) -> Result<Plan, Sense> {
    let lu = &nexus.lu;
    if command.power_condition != 0 {
        return Ok(Plan::good());
    }
    if command.load_eject && !lu.volume.options.removable {
        return Err(Sense::invalid_cdb(4, Some(1)));
    }
    if command.load_eject && lu.removal_prevented() {
        return Err(Condition::MEDIUM_REMOVAL_PREVENTED.into());
    }
    if command.start {
        if lu.ejected() && !command.load_eject {
            return Err(Condition::MEDIUM_NOT_PRESENT.into());
        }
        if lu.set_medium(Medium::Started) {
            // News for all but the one who did it.
            nexus.seen.medium += 1;
        }
        return Ok(Plan::good());
    }
    if command.load_eject {
        lu.set_medium(Medium::Ejected);
    }
    if command.no_flush {
        return Ok(Plan::good());
    }
    Ok(Plan::media(MediaPlan::new(MediaKind::Flush, true), 0, 0))
}

/// Holds for this initiator until it allows removal, goes away, or the unit is reset.
pub(in crate::scsi) fn prevent_allow(nexus: &mut Nexus, prevent: u8) -> Result<Plan, Sense> {
    match prevent {
        0 => nexus.set_prevent(false),
        1 => nexus.set_prevent(true),
        _ => return Err(Sense::invalid_cdb(4, Some(1))),
    }
    Ok(Plan::good())
}
