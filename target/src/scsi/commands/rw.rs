//! READ, WRITE, WRITE AND VERIFY, WRITE ATOMIC, ORWRITE, COMPARE AND WRITE, VERIFY (SBC-3 5).

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
pub(in crate::scsi) fn durable(lu: &LogicalUnit, fua: bool) -> bool {
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

/// Stable before it is read back; that one block is compared with all of them is VERIFY's alone.
pub(in crate::scsi) fn write_and_verify(
    lu: &LogicalUnit,
    extent: Extent,
    check: ByteCheck,
) -> Result<Plan, Sense> {
    let (offset, len) = range(lu, extent, TRANSFER_BYTES_MAX)?;
    let compare = match check {
        ByteCheck::Readable => false,
        ByteCheck::Payload => true,
        ByteCheck::OneBlock => return Err(Sense::invalid_cdb(1, Some(2))),
    };
    if len == 0 {
        return Ok(Plan::good());
    }
    let kind = MediaKind::WriteAndVerify { offset, len, compare };
    Ok(Plan::media(MediaPlan::new(kind, true), len, 0))
}

/// The store promises that what it takes in one piece is there whole or not at all (SBC-4 4.29).
pub(in crate::scsi) fn write_atomic(
    lu: &LogicalUnit,
    extent: Extent,
    fua: bool,
    boundary: u16,
) -> Result<Plan, Sense> {
    if boundary != 0 {
        return Err(Sense::invalid_cdb(10, None));
    }
    let (offset, len) = range(lu, extent, u64::from(lu.volume.facts.atomic_bytes))?;
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

/// COMPARE AND WRITE and WRITE SAME say by their count how much data they take. An initiator that
/// announces another amount means something else than it says: 256 blocks in a count of one byte,
/// or blocks of another length. A residual count would tell it too late.
pub(in crate::scsi) fn misfit(cdb: &[u8], data_out: u64, announced: u64) -> Option<Sense> {
    match cdb.first()? {
        0x89 if announced != data_out => Some(Sense::invalid_cdb(13, None)),
        0x41 | 0x93 if announced > data_out => {
            Some(Condition::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT.into())
        }
        _ => None,
    }
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
