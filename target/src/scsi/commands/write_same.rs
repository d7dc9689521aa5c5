//! WRITE SAME (SBC-3 5.42, 5.43).

use corbel_proto::scsi::Sense;
use corbel_proto::scsi::cdb::WriteSame;

use super::rw;
use crate::scsi::limits::{self, WRITE_SAME_BYTES_MAX};
use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::{LogicalUnit, Plan};

/// One block of payload (none with NDOB), over the range. UNMAP only on a thin unit, and ANCHOR
/// never.
pub(in crate::scsi) fn plan(lu: &LogicalUnit, command: &WriteSame) -> Result<Plan, Sense> {
    if command.anchor {
        return Err(Sense::invalid_cdb(1, Some(4)));
    }
    if command.unmap && !limits::thin(&lu.volume) {
        return Err(Sense::invalid_cdb(1, Some(3)));
    }
    let (offset, len) = rw::range(lu, command.extent, WRITE_SAME_BYTES_MAX)?;
    if len == 0 {
        // WSNZ: "to the end" would hold its range for hours on a large unit.
        return Err(Sense::invalid_cdb(u16::from(command.extent.count_at), None));
    }
    let payload = !command.no_payload;
    let kind = MediaKind::WriteSame { offset, len, unmap: command.unmap, payload };
    let data_out = if payload { u64::from(lu.volume.facts.block_bytes) } else { 0 };
    Ok(Plan::media(MediaPlan::new(kind, rw::durable(lu, false)), data_out, 0))
}
