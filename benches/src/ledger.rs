//! What each block holds, as far as its writer knows; kept between runs if wanted.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::stamp::Known;

const MAGIC: [u8; 8] = *b"corbelL1";
const HEAD_BYTES: usize = 32;

/// More would not be a measurement but a mistake: 512 MiB of ledger.
const BLOCKS_MAX: u64 = 1 << 26;

/// The blocks of a job, or of a whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) series: u64,
    block_bytes: u64,
    first: u64,
    blocks: Vec<Known>,
    /// Blocks with a request under way; one bit each. Two at a time could not be judged.
    busy: Vec<u64>,
}

impl Ledger {
    /// Nothing is known of blocks 0 to below `count`.
    ///
    /// # Errors
    /// If there are too many to remember.
    pub(crate) fn new(series: u64, block_bytes: u64, count: u64) -> Result<Self, String> {
        if count > BLOCKS_MAX {
            return Err(format!(
                "--verify remembers each of {count} blocks, {BLOCKS_MAX} at most; use a part of \
                 the device with --size, or larger blocks"
            ));
        }
        let blocks = usize::try_from(count).map_err(|error| error.to_string())?;
        Ok(Self::of(series, block_bytes, 0, vec![Known::default(); blocks]))
    }

    fn of(series: u64, block_bytes: u64, first: u64, blocks: Vec<Known>) -> Self {
        let busy = vec![0; blocks.len().div_ceil(64)];
        Self { series, block_bytes, first, blocks, busy }
    }

    /// The part of one job.
    pub(crate) fn share(&self, blocks: Range<u64>) -> Self {
        let part = self.at(blocks.start)..self.at(blocks.end);
        Self::of(self.series, self.block_bytes, blocks.start, self.blocks[part].to_vec())
    }

    /// Takes back what [`Self::share`] gave.
    pub(crate) fn join(&mut self, share: &Self) {
        let at = self.at(share.first);
        self.blocks[at..at + share.blocks.len()].copy_from_slice(&share.blocks);
    }

    fn at(&self, block: u64) -> usize {
        usize::try_from(block - self.first).expect("blocks are counted in memory")
    }

    /// Keeps the block for one request. False if another has it.
    pub(crate) fn take(&mut self, block: u64) -> bool {
        let at = self.at(block);
        let bit = 1 << (at % 64);
        let free = self.busy[at / 64] & bit == 0;
        self.busy[at / 64] |= bit;
        free
    }

    /// The request has ended.
    pub(crate) fn release(&mut self, block: u64) {
        let at = self.at(block);
        self.busy[at / 64] &= !(1 << (at % 64));
    }

    /// What is known of a block.
    pub(crate) fn known(&self, block: u64) -> Known {
        self.blocks[self.at(block)]
    }

    /// A write of the block is about to be sent; its generation.
    pub(crate) fn begin(&mut self, block: u64) -> u32 {
        let at = self.at(block);
        let known = &mut self.blocks[at];
        known.newest = known.newest.checked_add(1).expect("fewer than 2^32 writes of a block");
        known.newest
    }

    /// The last write of the block was acknowledged.
    pub(crate) fn acknowledge(&mut self, block: u64) {
        let at = self.at(block);
        self.blocks[at].acked = self.blocks[at].newest;
    }

    /// The first block from `from` on that was written.
    pub(crate) fn next_written(&self, from: u64) -> Option<u64> {
        let known = self.blocks[self.at(from).min(self.blocks.len())..].iter();
        (from..).zip(known).find(|(_, known)| known.newest > 0).map(|(block, _)| block)
    }

    /// Writes it to a file, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.blocks.len() * 8 + 4);
        bytes.extend_from_slice(&MAGIC);
        for number in [self.series, self.block_bytes, self.blocks.len() as u64] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for known in &self.blocks {
            bytes.extend_from_slice(&known.acked.to_le_bytes());
            bytes.extend_from_slice(&known.newest.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        fs::write(&fresh, &bytes)?;
        fs::rename(&fresh, path)
    }

    /// Reads what [`Self::save`] wrote; `None` if there is no such file.
    ///
    /// # Errors
    /// If it is no ledger, damaged, or about other blocks.
    pub(crate) fn load(path: &Path, block_bytes: u64, count: u64) -> Result<Option<Self>, String> {
        let shown = path.display();
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{shown}: {error}")),
        };
        let (body, crc) = bytes.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
        let whole = crc32fast::hash(body).to_le_bytes() == *crc;
        if body.len() < HEAD_BYTES || body[..8] != MAGIC || !whole {
            return Err(format!("{shown} is no state of --verify, or damaged; take it away"));
        }
        let number = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight"));
        let (series, told_bytes, told_count) = (number(8), number(16), number(24));
        if (told_bytes, told_count) != (block_bytes, count) {
            return Err(format!(
                "{shown} is about {told_count} blocks of {told_bytes} bytes, not about {count} of \
                 {block_bytes}; give the same --bs and --size, or take it away"
            ));
        }
        let half = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four"));
        let blocks: Vec<_> = body[HEAD_BYTES..]
            .chunks_exact(8)
            .map(|pair| Known { acked: half(&pair[..4]), newest: half(&pair[4..]) })
            .collect();
        if blocks.len() as u64 != count {
            return Err(format!("{shown} is cut off; take it away"));
        }
        Ok(Some(Self::of(series, block_bytes, 0, blocks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_in_doubt_until_it_is_acknowledged() {
        let mut ledger = Ledger::new(1, 4096, 100).unwrap();
        assert_eq!(ledger.begin(7), 1);
        assert_eq!(ledger.known(7), Known { acked: 0, newest: 1 });
        ledger.acknowledge(7);
        assert_eq!(ledger.begin(7), 2);
        assert_eq!(ledger.known(7), Known { acked: 1, newest: 2 });
        assert_eq!((ledger.next_written(0), ledger.next_written(8)), (Some(7), None));
    }

    #[test]
    fn a_block_is_for_one_request_at_a_time() {
        let mut ledger = Ledger::new(1, 4096, 100).unwrap();
        assert!(ledger.take(65) && ledger.take(64) && !ledger.take(65));
        ledger.release(65);
        assert!(ledger.take(65));
    }

    #[test]
    fn jobs_work_on_shares_and_give_them_back() {
        let mut whole = Ledger::new(1, 4096, 100).unwrap();
        let mut share = whole.share(50..100);
        share.begin(50);
        share.begin(99);
        whole.join(&share);
        assert_eq!((whole.next_written(0), whole.next_written(51)), (Some(50), Some(99)));
        assert_eq!(whole.next_written(100), None);
    }

    #[test]
    fn what_was_saved_reads_back_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(Ledger::load(&path, 4096, 10), Ok(None));
        let mut ledger = Ledger::new(9, 4096, 10).unwrap();
        ledger.begin(3);
        ledger.save(&path).unwrap();
        assert_eq!(Ledger::load(&path, 4096, 10), Ok(Some(ledger)));
        assert!(Ledger::load(&path, 512, 10).unwrap_err().contains("--bs"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(Ledger::load(&path, 4096, 10).unwrap_err().contains("damaged"));
    }

    #[test]
    fn too_many_blocks_are_refused_with_the_cure() {
        assert!(Ledger::new(1, 512, 1 << 40).unwrap_err().contains("--size"));
    }
}
