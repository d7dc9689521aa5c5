//! UNMAP (SBC-3 5.28).

use corbel_proto::scsi::{Condition, Sense, unmap};

use super::rw;
use crate::scsi::limits::{UNMAP_BLOCKS_MAX, UNMAP_EXTENTS_MAX};
use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::plan::ParameterKind;
use crate::scsi::{LogicalUnit, Plan};

pub(in crate::scsi) fn plan(anchor: bool, len: u16) -> Result<Plan, Sense> {
    if anchor {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    if len == 0 {
        return Ok(Plan::good());
    }
    Ok(Plan::parameters(ParameterKind::Unmap, len))
}

/// All ranges are checked before any is deallocated.
pub(in crate::scsi) fn resume(lu: &LogicalUnit, list: &[u8]) -> Result<Plan, Sense> {
    let block = u64::from(lu.volume.facts.block_bytes);
    let size = lu.volume.blocks();
    let mut ranges = Vec::new();
    let mut total = 0_u64;
    for extent in unmap::parse(list, UNMAP_EXTENTS_MAX)? {
        let blocks = u64::from(extent.blocks);
        // No blocks behind the last one are none too many.
        if extent.lba > size || blocks > size - extent.lba {
            return Err(Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.into());
        }
        total += blocks; // at most 256 times 2^32
        if blocks > 0 {
            ranges.push((extent.lba * block, blocks * block));
        }
    }
    if total > u64::from(UNMAP_BLOCKS_MAX) {
        return Err(Sense::invalid_parameter(8, None));
    }
    if ranges.is_empty() {
        return Ok(Plan::good());
    }
    let media = MediaPlan::new(MediaKind::Discard(ranges), rw::durable(lu, false));
    Ok(Plan::media(media, 0, 0))
}
