//! How much one command may ask for: told in VPD page B0, and held to.

use corbel_proto::scsi::vpd::BlockLimits;

use crate::volume::Volume;

/// Payload of one command. Bounds what a session can pin; larger transfers gain nothing.
pub const TRANSFER_BYTES_MAX: u64 = 4 << 20;

/// Range of one WRITE SAME. It holds its range lock while it runs, so readers wait for it. As many
/// blocks as the 10-byte command can say.
pub const WRITE_SAME_BLOCKS_MAX: u64 = 65_535;

/// Sum of the ranges of one UNMAP, in blocks.
pub const UNMAP_BLOCKS_MAX: u32 = 1 << 20;

/// Ranges in one UNMAP: a parameter list of 4104 bytes.
pub const UNMAP_EXTENTS_MAX: usize = 256;

/// Blocks of one COMPARE AND WRITE, all that its count can say.
const COMPARE_AND_WRITE_BLOCKS_MAX: u8 = u8::MAX;

/// True if the unit is thinly provisioned: the operator wants it and the store can do it.
pub fn thin(volume: &Volume) -> bool {
    volume.options.thin && volume.facts.discard
}

/// True if UNMAP is there. Blocks of an encrypted unit would read as noise after it; WRITE SAME
/// with UNMAP is there all the same, and writes what it says.
pub fn unmaps(volume: &Volume) -> bool {
    thin(volume) && volume.deallocates()
}

/// True if all blocks can be deallocated for good: then they read as zeros, or, encrypted, as noise
/// that tells nothing of what was there.
pub fn erasable(volume: &Volume) -> bool {
    thin(volume) && (volume.facts.discard_zeroes || volume.cipher.is_some())
}

/// VPD page B0 of `volume`.
pub fn block_limits(volume: &Volume) -> BlockLimits {
    let facts = &volume.facts;
    let block = u64::from(facts.block_bytes);
    let blocks = |bytes: u64| u32::try_from(bytes / block).unwrap_or(u32::MAX);
    let granularity = facts.granularity_bytes.max(facts.physical_bytes);
    // An optimum beyond the maximum is no use to anyone, and Linux rejects it loudly.
    let optimal = u64::from(facts.optimal_bytes);
    let optimal = if optimal <= TRANSFER_BYTES_MAX { optimal } else { 0 };
    let mut limits = BlockLimits {
        write_same_nonzero: thin(volume),
        compare_and_write_max: COMPARE_AND_WRITE_BLOCKS_MAX,
        granularity: u16::try_from(blocks(u64::from(granularity))).unwrap_or(0),
        transfer_max: blocks(TRANSFER_BYTES_MAX),
        transfer_optimal: blocks(optimal),
        write_same_max: WRITE_SAME_BLOCKS_MAX,
        atomic_max: blocks(u64::from(facts.atomic_bytes)),
        ..BlockLimits::default()
    };
    if unmaps(volume) {
        limits.unmap_blocks_max = UNMAP_BLOCKS_MAX;
        limits.unmap_extents_max = u32::try_from(UNMAP_EXTENTS_MAX).expect("a few hundred");
        limits.unmap_granularity = blocks(u64::from(facts.discard_granularity_bytes));
    }
    limits
}
