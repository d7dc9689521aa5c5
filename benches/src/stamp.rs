//! Sectors that say what they are, and what is wrong with one that should.
//!
//! Each sector of 512 bytes, little-endian: magic (8 bytes), sector number (8), series (8),
//! generation (4), sectors of the block (4), filling that follows from these, and in the last 4
//! bytes the CRC32 of all before. The *series* is drawn at random for each first run;
//! *generations* count the writes of a block from 1.

use std::fmt;

use crate::pattern::Rng;

/// Bytes in a sector.
pub(crate) const SECTOR_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"corbelB1";
const FILL: usize = 32;
const CRC: usize = SECTOR_BYTES - 4;

/// Who wrote a sector, and as which write of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) sector: u64,
    pub(crate) series: u64,
    pub(crate) generation: u32,
    /// Sectors that were written together.
    pub(crate) sectors: u32,
}

impl Stamp {
    /// Writes the whole sector.
    fn put(self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.sector.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.series.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.generation.to_le_bytes());
        bytes[28..FILL].copy_from_slice(&self.sectors.to_le_bytes());
        let seed = self.series ^ self.sector.rotate_left(32) ^ u64::from(self.generation);
        Rng::new(seed).fill(&mut bytes[FILL..CRC]);
        let crc = crc32fast::hash(&bytes[..CRC]);
        bytes[CRC..].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a sector: its stamp, `None` if it never had one, or that it is damaged.
    fn get(bytes: &[u8]) -> Result<Option<Self>, Wrong> {
        if bytes[..8] != MAGIC {
            return Ok(None);
        }
        if crc32fast::hash(&bytes[..CRC]).to_le_bytes() != bytes[CRC..] {
            return Err(Wrong::Damaged);
        }
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let (sector, series) = (number(8), number(16));
        Ok(Some(Self { sector, series, generation: half(24), sectors: half(28) }))
    }
}

/// Stamps a whole block.
pub(crate) fn put(block: &mut [u8], first_sector: u64, series: u64, generation: u32) {
    let sectors = sectors(block);
    for (sector, bytes) in (first_sector..).zip(block.chunks_exact_mut(SECTOR_BYTES)) {
        Stamp { sector, series, generation, sectors }.put(bytes);
    }
}

fn sectors(block: &[u8]) -> u32 {
    u32::try_from(block.len() / SECTOR_BYTES).expect("blocks are far below 2 TiB")
}

/// What its writer knows of a block: writes `acked` to `newest` may be there, nothing else. Equal
/// numbers: it is known exactly; zeros: nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Known {
    /// The last write that was acknowledged; 0 if none was.
    pub(crate) acked: u32,
    /// The last write that was sent; 0 if none was.
    pub(crate) newest: u32,
}

/// What is wrong with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A sector's checksum does not fit its bytes.
    Damaged,
    /// A sector belongs elsewhere.
    Misplaced {
        /// The sector that it says it is.
        says: u64,
    },
    /// The block's sectors come from different writes.
    Torn {
        /// Generations of the first sector and of the first that differs.
        generations: (u32, u32),
    },
    /// An older write than the last that was acknowledged.
    Stale {
        /// What was found.
        found: u32,
        /// What was acknowledged.
        wanted: u32,
    },
    /// A write that this series has not made.
    Unknown {
        /// What was found.
        found: u32,
    },
    /// Nothing of this series, though it was written.
    Lost {
        /// What was acknowledged.
        wanted: u32,
    },
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => write!(f, "damaged: a checksum does not fit"),
            Self::Misplaced { says } => write!(f, "misplaced: it belongs at sector {says}"),
            Self::Torn { generations: (a, b) } => {
                write!(f, "torn: parts of writes {a} and {b} together")
            }
            Self::Stale { found, wanted } => {
                write!(f, "stale: write {found}, though write {wanted} was acknowledged")
            }
            Self::Unknown { found } => write!(f, "unknown: write {found} was never made"),
            Self::Lost { wanted } => {
                write!(f, "lost: write {wanted} was acknowledged, and nothing of it is there")
            }
        }
    }
}

/// Judges a block that was read. `Ok(false)`: there is nothing to judge it by.
///
/// A write that was never answered may have been done in part. So a block whose last write is in
/// doubt may hold sectors of several writes.
///
/// # Errors
/// The first thing that is wrong, and in which sector.
pub(crate) fn judge(
    block: &[u8],
    first_sector: u64,
    series: u64,
    known: Known,
) -> Result<bool, (u64, Wrong)> {
    let mut first: Option<Option<(u64, u32)>> = None;
    let mut torn = None;
    let mut whole = known.acked == known.newest;
    for (sector, bytes) in (first_sector..).zip(block.chunks_exact(SECTOR_BYTES)) {
        let found = judge_sector(bytes, sector, series, known).map_err(|wrong| (sector, wrong))?;
        whole &= known.newest > 0 || found.is_some_and(|stamp| stamp.sectors == sectors(block));
        let write = found.map(|stamp| (stamp.series, stamp.generation));
        let first = *first.get_or_insert(write);
        if first != write && torn.is_none() {
            let number = |write: Option<(u64, u32)>| write.map_or(0, |write| write.1);
            torn = Some((sector, Wrong::Torn { generations: (number(first), number(write)) }));
        }
    }
    if let Some(torn) = torn.filter(|_| whole) {
        return Err(torn);
    }
    // Only after all sectors: of a block that is torn, the first may just be the older one.
    let Some(generation) = first.flatten().map(|write| write.1) else {
        let lost = known.acked > 0;
        return if lost {
            Err((first_sector, Wrong::Lost { wanted: known.acked }))
        } else {
            Ok(false)
        };
    };
    if known.newest > 0 && generation < known.acked {
        let wrong = Wrong::Stale { found: generation, wanted: known.acked };
        return Err((first_sector, wrong));
    }
    Ok(true)
}

/// The stamp of a sector that counts: of this series, or of any if nothing is known.
fn judge_sector(
    bytes: &[u8],
    sector: u64,
    series: u64,
    known: Known,
) -> Result<Option<Stamp>, Wrong> {
    let found = Stamp::get(bytes)?.filter(|stamp| known.newest == 0 || stamp.series == series);
    let Some(stamp) = found else { return Ok(None) };
    if stamp.sector != sector {
        return Err(Wrong::Misplaced { says: stamp.sector });
    }
    if known.newest > 0 && stamp.generation > known.newest {
        return Err(Wrong::Unknown { found: stamp.generation });
    }
    Ok(Some(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIES: u64 = 77;
    const NOTHING: Known = Known { acked: 0, newest: 0 };

    fn exactly(generation: u32) -> Known {
        Known { acked: generation, newest: generation }
    }

    fn block(generation: u32) -> Vec<u8> {
        let mut block = vec![0; 4096];
        put(&mut block, 80, SERIES, generation);
        block
    }

    fn judged(block: &[u8], known: Known) -> Result<bool, (u64, Wrong)> {
        judge(block, 80, SERIES, known)
    }

    #[test]
    fn a_block_is_what_was_written() {
        assert_eq!(judged(&block(3), exactly(3)), Ok(true));
        assert_eq!(judged(&block(3), NOTHING), Ok(true));
    }

    #[test]
    fn an_older_write_is_stale() {
        let wrong = Wrong::Stale { found: 2, wanted: 3 };
        assert_eq!(judged(&block(2), exactly(3)), Err((80, wrong)));
    }

    #[test]
    fn half_of_a_write_is_torn() {
        let mut torn = block(3);
        torn[2048..].copy_from_slice(&block(2)[2048..]);
        let wrong = Wrong::Torn { generations: (3, 2) };
        assert_eq!(judged(&torn, exactly(3)), Err((84, wrong)));
        let mut torn = block(3);
        torn[512..].fill(0);
        let wrong = Wrong::Torn { generations: (3, 0) };
        assert_eq!(judged(&torn, exactly(3)), Err((81, wrong)));
    }

    #[test]
    fn a_block_from_elsewhere_is_misplaced() {
        let mut elsewhere = vec![0; 4096];
        put(&mut elsewhere, 88, SERIES, 3);
        let wrong = Err((80, Wrong::Misplaced { says: 88 }));
        assert_eq!(judged(&elsewhere, exactly(3)), wrong);
        assert_eq!(judged(&elsewhere, NOTHING), wrong);
    }

    #[test]
    fn one_wrong_bit_is_damage_wherever_it_is() {
        for at in [8, 20, 25, 40, 300, 511] {
            let mut damaged = block(3);
            damaged[512 + at] ^= 1;
            assert_eq!(judged(&damaged, exactly(3)), Err((81, Wrong::Damaged)), "{at}");
        }
    }

    #[test]
    fn an_acknowledged_write_of_which_nothing_is_there_is_lost() {
        assert_eq!(judged(&[0; 4096], exactly(1)), Err((80, Wrong::Lost { wanted: 1 })));
        let mut others = vec![0; 4096];
        put(&mut others, 80, SERIES + 1, 9);
        assert_eq!(judged(&others, exactly(1)), Err((80, Wrong::Lost { wanted: 1 })));
    }

    #[test]
    fn a_write_in_doubt_may_be_there_whole_in_part_or_not_at_all() {
        let doubt = Known { acked: 2, newest: 3 };
        let mut part = block(3);
        part[2048..].copy_from_slice(&block(2)[2048..]);
        for good in [block(3), block(2), part] {
            assert_eq!(judged(&good, doubt), Ok(true));
        }
        assert_eq!(judged(&[0; 4096], Known { acked: 0, newest: 1 }), Ok(false));
        let stale = Wrong::Stale { found: 1, wanted: 2 };
        assert_eq!(judged(&block(1), doubt), Err((80, stale)));
        assert_eq!(judged(&block(4), doubt), Err((80, Wrong::Unknown { found: 4 })));
    }

    #[test]
    fn what_others_wrote_in_blocks_of_another_size_is_not_torn() {
        let mut others = vec![0; 4096];
        put(&mut others[..2048], 80, SERIES + 1, 5);
        put(&mut others[2048..], 84, SERIES + 1, 6);
        assert_eq!(judged(&others, NOTHING), Ok(true));
        put(&mut others, 80, SERIES + 1, 7);
        let again = others.clone();
        put(&mut others, 80, SERIES + 1, 8);
        others[2048..].copy_from_slice(&again[2048..]);
        let torn = Err((84, Wrong::Torn { generations: (8, 7) }));
        assert_eq!(judged(&others, NOTHING), torn);
    }

    #[test]
    fn what_nobody_stamped_cannot_be_judged() {
        assert_eq!(judged(&[0xa5; 4096], NOTHING), Ok(false));
    }
}
