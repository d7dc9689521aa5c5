//! READ DEFECT DATA (SBC-3 5.17, 5.18).

use corbel_proto::scsi::cdb::ReadDefects;

use crate::scsi::Plan;

/// The lists that are asked for, in the format that is asked for, with nothing in them: what lies
/// below manages its defects itself and does not tell.
pub(in crate::scsi) fn plan(command: &ReadDefects) -> Plan {
    let len = if command.twelve { 8 } else { 4 };
    let mut data = vec![0; len];
    data[1] = command.lists; // PLISTV, GLISTV, DEFECT LIST FORMAT
    Plan::data(data, command.allocation)
}
