//! WRITE SAME (SBC-3 5.43, 5.44).

use corbel_proto::scsi::Sense;
use corbel_proto::scsi::cdb::WriteSame;

use super::rw;
use crate::scsi::limits::{self, WRITE_SAME_BLOCKS_MAX};
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
    // No blocks are all blocks to the end, if those are not too many: except on a thin unit (WSNZ),
    // where an initiator that counted wrong would lose more than a write's worth.
    let mut extent = command.extent;
    let rest = lu.volume.blocks().saturating_sub(extent.lba);
    let blocks = if extent.blocks == 0 { rest } else { u64::from(extent.blocks) };
    let max = WRITE_SAME_BLOCKS_MAX * u64::from(lu.volume.facts.block_bytes);
    extent.blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
    let (offset, len) = rw::range(lu, extent, max)?;
    if command.extent.blocks == 0 && limits::thin(&lu.volume) {
        return Err(Sense::invalid_cdb(u16::from(extent.count_at), None));
    }
    let payload = !command.no_payload;
    let kind = MediaKind::WriteSame { offset, len, unmap: command.unmap, payload };
    let data_out = if payload { u64::from(lu.volume.facts.block_bytes) } else { 0 };
    Ok(Plan::media(MediaPlan::new(kind, rw::durable(lu, false)), data_out, 0))
}
