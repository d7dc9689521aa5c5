//! The application on a host, and the kernel's block layer below it: what is asked, and what was
//! answered. It outlives the process that serves it: requests that a killed process had are asked
//! again of the next.

use std::collections::BTreeMap;
use std::ops::Range;

use corbel_initiator::request::{Extent, IoError, Operation, Outcome, Request, RequestId};
use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};

use super::net::between;
use super::store::SECTOR_BYTES;
use crate::checker::{Content, stamp};
use crate::rng::Rng;

/// How an application behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    /// When it begins.
    pub begins: Instant,
    /// Requests in all.
    pub count: u64,
    /// Requests at a time.
    pub depth: usize,
    /// Longest pause between two.
    pub pause_max: Duration,
    /// Sectors it uses, from 0 on.
    pub sectors: u64,
    /// Most sectors of a request.
    pub sectors_max: u64,
    /// Sectors in a logical block: requests are made of whole ones.
    pub block_sectors: u64,
    /// How often each kind is asked for: reads, writes, flushes, discards, zeroes.
    pub weights: [u64; 5],
    /// Percent of writes with FUA.
    pub fua_percent: u64,
    /// Percent of requests behind the end that the device has at first.
    pub outside_percent: u64,
}

impl Habits {
    /// Requests are no longer than what is used.
    #[must_use]
    pub fn fitting(mut self) -> Self {
        self.sectors_max = self.sectors_max.min(self.sectors);
        self
    }
}

/// A request, and what became of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// The host.
    pub host: usize,
    /// What was asked.
    pub operation: Operation,
    /// Where, in sectors.
    pub sectors: Range<u64>,
    /// When the application asked.
    pub began: Instant,
    /// When it was handed to a process: the first time.
    pub submitted: Option<Instant>,
    /// When it was answered, and how.
    pub ended: Option<(Instant, Result<(), IoError>)>,
    /// What was read.
    pub seen: Vec<Content>,
}

impl Record {
    /// It was answered well by then.
    pub fn good_by(&self, at: Instant) -> bool {
        self.ended.is_some_and(|(ended, result)| result.is_ok() && ended <= at)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Load {
    host: usize,
    habits: Habits,
    rng: Rng,
    arena: HeapArena,
    next_at: Option<Instant>,
    /// Everything ever asked, by number.
    pub records: BTreeMap<u64, Record>,
    open: Vec<u64>,
    /// Answers that make no sense.
    pub complaints: Vec<String>,
}

/// More than any run asks for at a time; enough that memory is never why something waits.
const MEMORY_BYTES: usize = 4 << 20;

impl Load {
    /// The application of host number `host`.
    pub fn new(host: usize, habits: Habits, rng: Rng) -> Self {
        Self {
            host,
            next_at: (habits.count > 0).then_some(habits.begins),
            habits,
            rng,
            arena: HeapArena::new(MEMORY_BYTES),
            records: BTreeMap::new(),
            open: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// When it wants to ask next.
    pub fn next_at(&self) -> Option<Instant> {
        self.next_at.filter(|_| self.open.len() < self.habits.depth)
    }

    /// No more after this.
    pub fn rest(&mut self) {
        self.next_at = None;
    }

    /// It has asked for all that it will.
    pub fn is_resting(&self) -> bool {
        self.next_at.is_none()
    }

    /// Requests that are not answered.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Bytes of requests that somebody still holds.
    pub fn memory_in_use(&self) -> usize {
        self.arena.in_use()
    }

    /// Asks for something, if it is time; its number.
    pub fn ask(&mut self, now: Instant) -> Option<u64> {
        if self.next_at().is_none_or(|at| at > now) {
            return None;
        }
        let number = (self.host as u64 + 1) << 40 | (self.records.len() as u64 + 1);
        let (operation, sectors) = self.choose();
        let record = Record {
            host: self.host,
            operation,
            sectors,
            began: now,
            submitted: None,
            ended: None,
            seen: Vec::new(),
        };
        self.records.insert(number, record);
        self.open.push(number);
        let more = (self.records.len() as u64) < self.habits.count;
        let pause = between(self.habits.pause_max, &mut self.rng);
        self.next_at = more.then_some(now + pause);
        Some(number)
    }

    fn choose(&mut self) -> (Operation, Range<u64>) {
        let habits = &self.habits;
        let rng = &mut self.rng;
        let mut pick = rng.below(habits.weights.iter().sum::<u64>().max(1));
        let mut kind = 0;
        while kind < 4 && pick >= habits.weights[kind] {
            pick -= habits.weights[kind];
            kind += 1;
        }
        let fua = rng.percent(habits.fua_percent);
        let unmap = rng.percent(50);
        let operation = match kind {
            0 => Operation::Read,
            1 => Operation::Write { fua },
            2 => return (Operation::Flush, 0..0),
            3 => Operation::Discard,
            _ => Operation::WriteZeroes { unmap, fua },
        };
        let unit = habits.block_sectors;
        let blocks_max = (habits.sectors_max / unit).max(1);
        let len = (1 + rng.below(blocks_max)) * unit;
        if rng.percent(habits.outside_percent) {
            let end = super::plan::SECTORS as u64;
            return (operation, end..end + len);
        }
        let first = rng.below((habits.sectors - len) / unit + 1) * unit;
        (operation, first..first + len)
    }

    /// The request of this number, for a process. `None` if it is not open.
    pub fn request(&mut self, now: Instant, number: u64) -> Option<Request<HeapBuffer>> {
        let record = self.records.get_mut(&number).filter(|record| record.ended.is_none())?;
        record.submitted.get_or_insert(now);
        let sectors = record.sectors.clone();
        let count = sectors.end - sectors.start;
        let len = usize::try_from(count).expect("short") * SECTOR_BYTES;
        let data = match record.operation {
            Operation::Read | Operation::Write { .. } => {
                let buffer = self.arena.alloc(len).expect("more than any run asks for");
                let mut data = Slice::whole(buffer);
                if record.operation.changes() {
                    let stamped = stamp::filled(count, SECTOR_BYTES, number, sectors.start);
                    data.bytes_mut().copy_from_slice(&stamped);
                } else {
                    data.bytes_mut().fill(0xa5);
                }
                Some(data)
            }
            _ => None,
        };
        let offset = sectors.start * SECTOR_BYTES as u64;
        let extent = Extent { offset, len: len as u64 };
        Some(Request { id: RequestId(number), operation: record.operation, extent, data })
    }

    /// What is to be asked again of a new process.
    pub fn open_numbers(&self) -> Vec<u64> {
        self.open.clone()
    }

    /// A request was answered.
    pub fn answered(&mut self, now: Instant, outcome: &Outcome<HeapBuffer>) {
        let number = outcome.id.0;
        let Some(place) = self.open.iter().position(|open| *open == number) else {
            return self.complaints.push(format!("{number:#x} was answered twice, or never asked"));
        };
        self.open.remove(place);
        let record = self.records.get_mut(&number).expect("what is open is recorded");
        record.ended = Some((now, outcome.result));
        if matches!(record.operation, Operation::Read) && outcome.result.is_ok() {
            let count = record.sectors.end - record.sectors.start;
            match &outcome.data {
                Some(data) if u64::from(data.len) == count * SECTOR_BYTES as u64 => {
                    let start = record.sectors.start;
                    record.seen = stamp::read_all(data.bytes(), SECTOR_BYTES, start);
                }
                other => {
                    let len = other.as_ref().map(|data| data.len);
                    let what = format!("{number:#x} read {count} sectors and was given {len:?}");
                    self.complaints.push(what);
                }
            }
        }
    }
}
