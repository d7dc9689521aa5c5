//! REQUEST SENSE (SPC-4 6.39).

use corbel_proto::scsi::{Condition, Sense};

use super::{port_groups, sanitize};
use crate::scsi::{Nexus, Plan};

/// A pending unit attention (which is then told), else why the unit is not ready (with
/// the progress of what makes it so), else nothing.
/// Sense of failed commands went with their status already.
pub(in crate::scsi) fn plan(nexus: &mut Nexus, descriptor: bool, allocation: u8) -> Plan {
    let sense = nexus
        .take_attention()
        .or_else(|| port_groups::unready(nexus.access))
        .or_else(|| sanitize::refusal(&nexus.lu))
        .or_else(|| nexus.lu.unready())
        .unwrap_or_else(|| Sense::from(Condition::NO_ADDITIONAL_SENSE_INFORMATION));
    Plan::data(sense.encode(descriptor).as_slice().to_vec(), u32::from(allocation))
}
