//! A disk with a volatile cache, delays, errors and a power switch.
//!
//! The fault model: an operation takes effect at one instant between its submission and its
//! completion. A write that took effect stands in the cache; reads see it at once. A flush makes
//! stable what had *completed* when the flush was submitted, nothing newer. A power cut keeps the
//! stable bytes, and of everything else, sector by sector, any version that was ever in the cache
//! or on its way: the cruellest disk that the standards allow.

use std::collections::BTreeMap;

use crate::rng::Rng;

/// Bytes that are written or lost as one.
pub const SECTOR_BYTES: usize = 512;

/// One sector's contents.
pub type Sector = [u8; SECTOR_BYTES];

/// A write as the disk remembers it until it is stable.
#[derive(Debug, Clone)]
struct Written {
    sector: u64,
    contents: Sector,
    /// The disk's count of completions when the write completed; `None` while it is on its way.
    completed: Option<u64>,
    write: u64,
}

/// The disk. The world decides when an operation takes effect and when it completes.
#[derive(Debug)]
pub struct Disk {
    stable: Vec<u8>,
    /// Not yet stable, oldest first.
    cache: Vec<Written>,
    completions: u64,
    next_write: u64,
    flushes: BTreeMap<u64, u64>,
    next_flush: u64,
}

/// Names a write that took effect, for its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteId(u64);

/// Names a submitted flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushId(u64);

impl Disk {
    /// A disk of `sectors` zeroed sectors.
    pub fn new(sectors: usize) -> Self {
        Self {
            stable: vec![0; sectors * SECTOR_BYTES],
            cache: Vec::new(),
            completions: 0,
            next_write: 0,
            flushes: BTreeMap::new(),
            next_flush: 0,
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.stable.len()
    }

    /// True for a disk without sectors.
    pub fn is_empty(&self) -> bool {
        self.stable.is_empty()
    }

    /// A read takes effect.
    ///
    /// # Panics
    /// If the range is not whole sectors inside the disk, here and below: the target must never
    /// ask for that.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        let first = sector_of(offset);
        for (index, out) in into.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            let sector = first + index as u64;
            let cached = self.cache.iter().rev().find(|w| w.sector == sector);
            match cached {
                Some(written) => out.copy_from_slice(&written.contents),
                None => out.copy_from_slice(&self.stable[bytes_of(sector)]),
            }
        }
    }

    /// A write takes effect.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> WriteId {
        assert_eq!(data.len() % SECTOR_BYTES, 0, "a write of whole sectors");
        let first = sector_of(offset);
        assert!(bytes_of(first).start + data.len() <= self.stable.len(), "inside the disk");
        let write = self.next_write;
        self.next_write += 1;
        for (index, contents) in data.chunks_exact(SECTOR_BYTES).enumerate() {
            let contents = contents.try_into().expect("chunks are whole sectors");
            let sector = first + index as u64;
            self.cache.push(Written { sector, contents, completed: None, write });
        }
        WriteId(write)
    }

    /// A write's completion is on its way to whoever asked for it.
    pub fn complete(&mut self, WriteId(write): WriteId) {
        self.completions += 1;
        for written in self.cache.iter_mut().filter(|w| w.write == write) {
            written.completed = Some(self.completions);
        }
    }

    /// A flush is submitted: what has completed by now will be stable when it completes.
    pub fn flush_submitted(&mut self) -> FlushId {
        let id = self.next_flush;
        self.next_flush += 1;
        self.flushes.insert(id, self.completions);
        FlushId(id)
    }

    /// A flush completes.
    pub fn flush_completed(&mut self, FlushId(id): FlushId) {
        let covers = self.flushes.remove(&id).expect("a flush completes once");
        let cache = std::mem::take(&mut self.cache);
        for written in cache {
            if written.completed.is_some_and(|at| at <= covers) {
                self.stable[bytes_of(written.sector)].copy_from_slice(&written.contents);
            } else {
                self.cache.push(written);
            }
        }
    }

    /// The power fails. What comes back holds the stable bytes and, sector by sector, any one
    /// of the versions that were not stable yet, or none of them.
    pub fn power_cut(mut self, rng: &mut Rng) -> Self {
        let mut versions: BTreeMap<u64, Vec<Sector>> = BTreeMap::new();
        for written in &self.cache {
            versions.entry(written.sector).or_default().push(written.contents);
        }
        let keep_percent = rng.below(101);
        for (sector, versions) in versions {
            if rng.percent(keep_percent) {
                let pick = usize::try_from(rng.below(versions.len() as u64)).expect("an index");
                self.stable[bytes_of(sector)].copy_from_slice(&versions[pick]);
            }
        }
        let sectors = self.stable.len() / SECTOR_BYTES;
        Self { stable: self.stable, ..Self::new(sectors) }
    }
}

fn sector_of(offset: u64) -> u64 {
    assert_eq!(offset % SECTOR_BYTES as u64, 0, "aligned to a sector");
    offset / SECTOR_BYTES as u64
}

fn bytes_of(sector: u64) -> std::ops::Range<usize> {
    let start = usize::try_from(sector).expect("a small disk") * SECTOR_BYTES;
    start..start + SECTOR_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &Disk) -> u8 {
        let mut sector = [0; SECTOR_BYTES];
        disk.read(0, &mut sector);
        sector[0]
    }

    #[test]
    fn a_flush_covers_what_had_completed_when_it_was_submitted_and_no_more() {
        let mut rng = Rng::new(1);
        let mut disk = Disk::new(8);
        let first = disk.write(0, &[1; SECTOR_BYTES]);
        disk.complete(first);
        let flush = disk.flush_submitted();
        let second = disk.write(0, &[2; SECTOR_BYTES]);
        disk.complete(second);
        assert_eq!(read(&disk), 2);
        disk.flush_completed(flush);
        assert_eq!(read(&disk), 2);
        let after = read(&disk.power_cut(&mut rng));
        assert!(after == 1 || after == 2, "never less than what was flushed");
    }

    #[test]
    fn some_power_cut_loses_a_write_that_was_not_flushed() {
        let lost = (0..50).any(|seed| {
            let mut disk = Disk::new(8);
            let write = disk.write(0, &[1; SECTOR_BYTES]);
            disk.complete(write);
            disk.flush_submitted();
            read(&disk.power_cut(&mut Rng::new(seed))) == 0
        });
        assert!(lost);
    }
}
