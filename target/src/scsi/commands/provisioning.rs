//! Logical block provisioning thresholds (SBC-3 4.7.3.7): the operator says what is little, and the
//! watch on the store how much there is.

use corbel_proto::scsi::provisioning::Room;

use crate::scsi::{LogicalUnit, limits};

/// Bytes of a threshold set, where a count of them fits 32 bits.
const SET_BYTES: u64 = 1 << 20;

/// Bytes of one threshold set of this unit: a power of two, of whole blocks.
fn set_bytes(lu: &LogicalUnit) -> u64 {
    let mut set = SET_BYTES;
    while lu.volume.size_bytes() / set > u64::from(u32::MAX) {
        set *= 2;
    }
    set
}

fn count(lu: &LogicalUnit, bytes: u64) -> u32 {
    u32::try_from(bytes / set_bytes(lu)).unwrap_or(u32::MAX)
}

/// The room of a thin unit whose store tells it.
pub(in crate::scsi) fn room(lu: &LogicalUnit) -> Option<Room> {
    let room = lu.volume.space.room().filter(|_| limits::thin(&lu.volume))?;
    Some(Room { available: count(lu, room.available), used: count(lu, room.used) })
}

/// THRESHOLD EXPONENT of VPD page B2: log2 of a set's blocks, 0 where there are no thresholds.
pub(in crate::scsi) fn exponent(lu: &LogicalUnit) -> u8 {
    let blocks = set_bytes(lu) / u64::from(lu.volume.facts.block_bytes);
    room(lu).map_or(0, |_| u8::try_from(blocks.max(1).ilog2()).unwrap_or(0))
}

/// The threshold, in sets, where there is one.
pub(in crate::scsi) fn threshold(lu: &LogicalUnit) -> Option<u32> {
    let warning = lu.volume.options.space_warning;
    (warning > 0).then(|| count(lu, warning).max(1))
}
