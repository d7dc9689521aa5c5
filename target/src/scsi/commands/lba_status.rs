//! GET LBA STATUS (SBC-3 5.4): which blocks the store holds.

use corbel_proto::scsi::{Condition, Sense};

use crate::host::Extent;
use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::{LogicalUnit, Plan, limits};

/// Length of the header, and of each descriptor.
const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

/// More than this many are not looked for in one command; the initiator goes on from there.
const DESCRIPTORS_MAX: usize = 64;

/// PROVISIONING STATUS (SBC-3 table 52).
const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;

/// A fully provisioned unit has mapped everything; the store of a thin one is asked.
pub(in crate::scsi) fn plan(lu: &LogicalUnit, lba: u64, allocation: u32) -> Result<Plan, Sense> {
    if lba >= lu.volume.blocks() {
        return Err(Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE.into());
    }
    // Below the volume's size in bytes.
    let offset = lba * u64::from(lu.volume.facts.block_bytes);
    let kind = MediaKind::Status { offset, allocation };
    if limits::thin(&lu.volume) {
        return Ok(Plan::media(MediaPlan::new(kind, false), 0, 0));
    }
    let rest = Extent { len: lu.volume.size_bytes().saturating_sub(offset), mapped: true };
    Ok(Plan::data(answer(lu, &kind, &[rest]), allocation))
}

/// How many descriptors are worth looking for: at least one, for who asks with less learns how long
/// the answer is.
pub(in crate::scsi) fn descriptors(allocation: u32) -> usize {
    let room = usize::try_from(allocation).unwrap_or(usize::MAX).saturating_sub(HEADER);
    (room / DESCRIPTOR).clamp(1, DESCRIPTORS_MAX)
}

/// Parameter data, cut to the allocation length.
pub(in crate::scsi) fn answer(lu: &LogicalUnit, kind: &MediaKind, extents: &[Extent]) -> Vec<u8> {
    let MediaKind::Status { offset, allocation } = kind else { return Vec::new() };
    let block = u64::from(lu.volume.facts.block_bytes);
    let mut lba = offset / block;
    let mut out = vec![0; HEADER];
    for extent in extents {
        let blocks = extent.len / block;
        let status = if extent.mapped { MAPPED } else { DEALLOCATED };
        // A count of 32 bits; what does not fit is asked for next.
        let told = u32::try_from(blocks).unwrap_or(u32::MAX);
        out.extend_from_slice(&lba.to_be_bytes());
        out.extend_from_slice(&told.to_be_bytes());
        out.extend_from_slice(&[status, 0, 0, 0]);
        if u64::from(told) < blocks {
            break;
        }
        lba += blocks;
    }
    // PARAMETER DATA LENGTH does not count itself.
    let len = u32::try_from(out.len() - 4).expect("a few descriptors");
    out[..4].copy_from_slice(&len.to_be_bytes());
    corbel_proto::scsi::truncate(out, *allocation)
}
