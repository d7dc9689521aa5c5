//! SYNCHRONIZE CACHE (SBC-3 5.26) and PRE-FETCH (5.8).

use corbel_proto::scsi::Sense;
use corbel_proto::scsi::cdb::Extent;

use super::rw;
use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::{LogicalUnit, Plan};

/// Flushes everything, whatever the range: a store has one cache. The range is still checked.
pub(in crate::scsi) fn plan(
    lu: &LogicalUnit,
    extent: Extent,
    immediate: bool,
) -> Result<Plan, Sense> {
    rw::range(lu, extent, u64::MAX)?;
    let answer_first = immediate;
    let media = MediaPlan { answer_first, ..MediaPlan::new(MediaKind::Flush, true) };
    Ok(Plan::media(media, 0, 0))
}

/// There is no cache to fetch into; GOOD (not CONDITION MET) says that not all blocks fit.
pub(in crate::scsi) fn pre_fetch(lu: &LogicalUnit, extent: Extent) -> Result<Plan, Sense> {
    rw::range(lu, extent, u64::MAX)?;
    Ok(Plan::good())
}
