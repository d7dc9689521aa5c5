//! A request to SCSI commands: what a device takes in one, and the bytes that say so.
//!
//! A request that is longer than the device takes at once is done piece by piece, one on the wire
//! at a time. That costs round trips, which such devices are slow enough to hide, and it keeps the
//! rest simple: a try has at most one command under way, so it can end at any moment with one
//! answer.

use corbel_proto::scsi::unmap;

use super::unit::Unit;
use crate::request::{Extent, IoError, Operation};

/// Blocks of one WRITE SAME if the device does not say (what Linux takes for safe).
const WRITE_SAME_BLOCKS_MAX: u64 = 0xffff;
/// Blocks of one WRITE SAME however many the device says: such a command takes its time.
const WRITE_SAME_BLOCKS_CAP: u64 = 0x7f_ffff;

/// One command of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) cdb: [u8; 16],
    pub(super) data: Data,
    /// Bytes of the request that it takes care of.
    pub(super) bytes: u64,
}

/// The data of a piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Data {
    None,
    /// That part of the request's memory, to be filled.
    Read,
    /// That part of the request's memory, to be sent.
    Write,
    /// These bytes, to be sent.
    Parameters(Vec<u8>),
}

/// True if the extent is whole blocks inside the device.
pub(super) fn fits(unit: &Unit, operation: Operation, extent: Extent, data: Option<u32>) -> bool {
    let block = u64::from(unit.capacity.block_bytes);
    match operation {
        Operation::Flush => true,
        Operation::Discard | Operation::WriteZeroes { .. } => inside(unit, extent, block),
        Operation::Read | Operation::Write { .. } => {
            inside(unit, extent, block) && data.map(u64::from) == Some(extent.len)
        }
    }
}

fn inside(unit: &Unit, extent: Extent, block: u64) -> bool {
    let whole = extent.offset.is_multiple_of(block) && extent.len.is_multiple_of(block);
    let end = extent.offset.checked_add(extent.len);
    whole && extent.len > 0 && end.is_some_and(|end| end <= unit.size_bytes())
}

/// The command for what is left of a request that [`fits`], from `done` bytes on.
///
/// # Errors
/// If the device cannot do it.
pub(super) fn piece(
    unit: &Unit,
    operation: Operation,
    extent: Extent,
    done: u64,
) -> Result<Piece, IoError> {
    let block = u64::from(unit.capacity.block_bytes);
    let lba = (extent.offset + done) / block;
    let left = (extent.len - done) / block;
    let limited = |max: u64| left.min(max.max(1));
    match operation {
        Operation::Read | Operation::Write { .. } => {
            let write = operation != Operation::Read;
            let fua = operation == (Operation::Write { fua: true }) && unit.takes_fua();
            let blocks = limited(unit.transfer_blocks_max());
            let data = if write { Data::Write } else { Data::Read };
            Ok(Piece { cdb: read_write(write, fua, lba, blocks), data, bytes: blocks * block })
        }
        Operation::Flush => Ok(synchronize()),
        Operation::Discard if unit.can_unmap() => {
            let blocks = limited(u64::from(unit.limits.unmap_blocks_max));
            let count = u32::try_from(blocks).expect("limited by a number of 32 bits");
            let list = unmap::emit(&[unmap::Extent { lba, blocks: count }]);
            let list = list.expect("one extent is far below the limit");
            let mut cdb = [0; 16];
            cdb[0] = 0x42; // UNMAP
            cdb[7..9].copy_from_slice(&u16::try_from(list.len()).expect("24").to_be_bytes());
            Ok(Piece { cdb, data: Data::Parameters(list), bytes: blocks * block })
        }
        Operation::Discard if unit.can_unmap_by_write_same() => {
            Ok(write_same(unit, lba, limited(write_same_max(unit)), true))
        }
        Operation::WriteZeroes { unmap, .. } if unit.can_write_same() => {
            // Deallocating will do where that leaves zeroes.
            let unmap = unmap && unit.can_unmap_by_write_same() && unit.capacity.thin_zeroes;
            Ok(write_same(unit, lba, limited(write_same_max(unit)), unmap))
        }
        Operation::Discard | Operation::WriteZeroes { .. } => Err(IoError::Unsupported),
    }
}

/// Whether a request is durable only with a SYNCHRONIZE CACHE after it: FUA was asked for, and the
/// command has no such bit or the device does not take it.
pub(super) fn needs_flush(unit: &Unit, operation: Operation) -> bool {
    match operation {
        Operation::Write { fua } => fua && !unit.takes_fua() && unit.may_cache(),
        Operation::WriteZeroes { fua, .. } => fua && unit.may_cache(),
        _ => false,
    }
}

/// SYNCHRONIZE CACHE (10) of the whole unit.
pub(super) fn synchronize() -> Piece {
    let mut cdb = [0; 16];
    cdb[0] = 0x35;
    Piece { cdb, data: Data::None, bytes: 0 }
}

fn write_same_max(unit: &Unit) -> u64 {
    match unit.limits.write_same_max {
        0 => WRITE_SAME_BLOCKS_MAX,
        max => max.min(WRITE_SAME_BLOCKS_CAP),
    }
}

/// WRITE SAME (16) of zeroes.
fn write_same(unit: &Unit, lba: u64, blocks: u64, unmap: bool) -> Piece {
    let no_payload = unit.write_same.is_some_and(|told| told.no_payload);
    let mut cdb = [0; 16];
    cdb[0] = 0x93;
    cdb[1] = u8::from(unmap) << 3 | u8::from(no_payload); // UNMAP, NDOB
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    let count = u32::try_from(blocks).expect("capped far below 32 bits");
    cdb[10..14].copy_from_slice(&count.to_be_bytes());
    let data = match no_payload {
        true => Data::None,
        false => Data::Parameters(vec![0; unit.capacity.block_bytes as usize]),
    };
    Piece { cdb, data, bytes: blocks * u64::from(unit.capacity.block_bytes) }
}

/// READ or WRITE, of 10 bytes where that is enough, else of 16.
fn read_write(write: bool, fua: bool, lba: u64, blocks: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[1] = u8::from(fua) << 3;
    let last = lba + blocks - 1;
    if let (Ok(_), Ok(lba), Ok(blocks)) =
        (u32::try_from(last), u32::try_from(lba), u16::try_from(blocks))
    {
        cdb[0] = if write { 0x2a } else { 0x28 };
        cdb[2..6].copy_from_slice(&lba.to_be_bytes());
        cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    } else {
        cdb[0] = if write { 0x8a } else { 0x88 };
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        let blocks = u32::try_from(blocks).expect("a request is far below 2^32 blocks");
        cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    }
    cdb
}

#[cfg(test)]
mod tests;
