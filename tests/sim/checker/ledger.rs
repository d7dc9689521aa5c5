//! What stands promised in each sector, and whether the disk has kept it after a power cut.

use super::stamp::{self, Content, WriteId};
use crate::disk::SECTOR_BYTES;

/// What is known of one sector. Writes to it are sent one at a time, so their numbers grow.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// The last write sent.
    sent: WriteId,
    /// The last write acknowledged.
    acknowledged: WriteId,
    /// The last write that was promised to be stable.
    promised: WriteId,
    busy: bool,
}

/// A command under way.
#[derive(Debug)]
pub enum Work {
    /// A write.
    Write {
        /// Its first sector.
        first: u64,
        /// Its sectors.
        count: u64,
        /// Its acknowledgement is the promise that it is stable.
        durable: bool,
    },
    /// A flush, and what stood acknowledged in each sector when it was sent.
    Flush(Vec<WriteId>),
}

/// What is known of each sector.
#[derive(Debug)]
pub struct Ledger(Vec<Known>);

impl Ledger {
    /// A disk of `sectors` on which nothing was written.
    pub fn new(sectors: usize) -> Self {
        Self(vec![Known::default(); sectors])
    }

    /// Whether a write to one of these sectors is under way: another has to wait.
    pub fn is_busy(&self, first: u64, count: u64) -> bool {
        self.0[range(first, count)].iter().any(|sector| sector.busy)
    }

    /// The write of this number is sent.
    pub fn write(&mut self, number: WriteId, first: u64, count: u64, durable: bool) -> Work {
        for sector in &mut self.0[range(first, count)] {
            (sector.sent, sector.busy) = (number, true);
        }
        Work::Write { first, count, durable }
    }

    /// A flush is sent.
    pub fn flush(&self) -> Work {
        Work::Flush(self.0.iter().map(|sector| sector.acknowledged).collect())
    }

    /// `work`, of this number, was acknowledged.
    pub fn acknowledged(&mut self, number: WriteId, work: Work) {
        match work {
            Work::Write { first, count, durable } => {
                for sector in &mut self.0[range(first, count)] {
                    (sector.acknowledged, sector.busy) = (number, false);
                    if durable {
                        sector.promised = number;
                    }
                }
            }
            Work::Flush(covered) => {
                for (sector, covered) in self.0.iter_mut().zip(covered) {
                    sector.promised = sector.promised.max(covered);
                }
            }
        }
    }

    /// Whether each sector of `disk` holds what was promised, or a later write that was sent.
    ///
    /// # Errors
    /// The first sector that does not.
    pub fn judge(&self, disk: &[u8]) -> Result<(), String> {
        let contents = stamp::read_all(disk, SECTOR_BYTES, 0);
        for (sector, (known, content)) in self.0.iter().zip(contents).enumerate() {
            match content {
                Content::Of(number) if (known.promised..=known.sent).contains(&number) => {}
                other => return Err(format!("sector {sector}: {known:?}, but it holds {other:?}")),
            }
        }
        Ok(())
    }
}

fn range(first: u64, count: u64) -> std::ops::Range<usize> {
    let at = |sector| usize::try_from(sector).expect("disks of tests are small");
    at(first)..at(first + count)
}
