//! READ, WRITE, ORWRITE, COMPARE AND WRITE, VERIFY (SBC-3 5).

use corbel_proto::scsi::cdb::{ByteCheck, Extent};
use corbel_proto::scsi::{Condition, Sense};

use crate::scsi::limits::TRANSFER_BYTES_MAX;
use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::{LogicalUnit, Plan};

/// The bytes of `extent`, or the sense that refuses it. The first block must exist even if none is
/// asked for.
pub(super) fn range(lu: &LogicalUnit, extent: Extent, max: u64) -> Result<(u64, u64), Sense> {
    let (blocks, size) = (u64::from(extent.blocks), lu.volume.blocks());
    let inside = extent.lba < size && blocks <= size - extent.lba;
    if !inside {
        return Err(Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.into());
    }
    let block = u64::from(lu.volume.facts.block_bytes);
    // Both products are at most the volume's size in bytes.
    let (offset, len) = (extent.lba * block, blocks * block);
    if len > max {
        return Err(Sense::invalid_cdb(u16::from(extent.count_at), None));
    }
    Ok((offset, len))
}

/// Write-back is allowed only where the initiator can know of it: WCE set and FUA clear.
pub(super) fn durable(lu: &LogicalUnit, fua: bool) -> bool {
    fua || !lu.write_cache()
}

pub(in crate::scsi) fn read(lu: &LogicalUnit, extent: Extent) -> Result<Plan, Sense> {
    let (offset, len) = range(lu, extent, TRANSFER_BYTES_MAX)?;
    if len == 0 {
        return Ok(Plan::good());
    }
    Ok(Plan::media(MediaPlan::new(MediaKind::Read { offset, len }, false), 0, len))
}

pub(in crate::scsi) fn write(lu: &LogicalUnit, extent: Extent, fua: bool) -> Result<Plan, Sense> {
    let (offset, len) = range(lu, extent, TRANSFER_BYTES_MAX)?;
    if len == 0 {
        return Ok(Plan::good());
    }
    let kind = MediaKind::Write { offset, len };
    Ok(Plan::media(MediaPlan::new(kind, durable(lu, fua)), len, 0))
}

pub(in crate::scsi) fn or_write(
    lu: &LogicalUnit,
    extent: Extent,
    fua: bool,
) -> Result<Plan, Sense> {
    let (offset, len) = range(lu, extent, TRANSFER_BYTES_MAX)?;
    if len == 0 {
        return Ok(Plan::good());
    }
    let kind = MediaKind::Or { offset, len };
    Ok(Plan::media(MediaPlan::new(kind, durable(lu, fua)), len, 0))
}

/// The payload is what must stand there, then what to write.
pub(in crate::scsi) fn compare_and_write(
    lu: &LogicalUnit,
    extent: Extent,
    fua: bool,
) -> Result<Plan, Sense> {
    let (offset, len) = range(lu, extent, TRANSFER_BYTES_MAX / 2)?;
    if len == 0 {
        return Ok(Plan::good());
    }
    let kind = MediaKind::CompareAndWrite { offset, len };
    Ok(Plan::media(MediaPlan::new(kind, durable(lu, fua)), 2 * len, 0))
}

pub(in crate::scsi) fn verify(
    lu: &LogicalUnit,
    extent: Extent,
    check: ByteCheck,
) -> Result<Plan, Sense> {
    let (offset, len) = range(lu, extent, TRANSFER_BYTES_MAX)?;
    if len == 0 {
        return Ok(Plan::good());
    }
    let payload = match check {
        ByteCheck::Readable => 0,
        ByteCheck::Payload => len,
        ByteCheck::OneBlock => u64::from(lu.volume.facts.block_bytes),
    };
    let kind = MediaKind::Verify { offset, len, payload };
    Ok(Plan::media(MediaPlan::new(kind, false), payload, 0))
}
