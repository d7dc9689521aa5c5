//! Tries under way: requests cut into commands, and put together again.

use std::collections::VecDeque;

use corbel_proto::aoe::SECTOR_BYTES;
use corbel_proto::aoe::initiator::CommandId;
use corbel_proto::ata::command::TrimRanges;
use corbel_proto::memory::{Buffer, Slice};

use super::payload::{Command, Payload};
use crate::path::{Try, TryId, Verdict};
use crate::request::{IoError, Operation};

/// AoE counts in these.
const SECTOR: u64 = SECTOR_BYTES as u64;

/// Sectors that commands are aligned to where frames are large enough: 4 KiB.
const ALIGNMENT: u64 = 8;

/// Bytes of one TRIM, at most: what a server can do well within the time a command has.
const TRIM_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(TRIM_BYTES_MAX / SECTOR <= TrimRanges::SECTORS_MAX);

/// A try under way.
#[derive(Debug)]
pub(super) struct Open<B> {
    pub(super) attempt: Try<B>,
    /// Bytes that commands were made for.
    issued: u64,
    /// Commands made.
    commands: u32,
    /// Commands made and not ended.
    pub(super) outstanding: u32,
    /// A flush is to be sent when everything else is done.
    flush: bool,
    /// The first bad news.
    pub(super) failed: Option<Verdict>,
}

impl<B: Buffer> Open<B> {
    fn is_issued(&self) -> bool {
        self.failed.is_some() || (self.issued == self.attempt.extent.len && !self.flush)
    }

    /// Nothing is left to be sent or waited for.
    pub(super) fn is_over(&self) -> bool {
        self.outstanding == 0 && self.is_issued()
    }

    /// All that is left is the flush.
    pub(super) fn is_flush_next(&self) -> bool {
        self.outstanding == 0 && self.flush && self.issued == self.attempt.extent.len
    }

    /// The flush can only go out once the data is acknowledged.
    fn is_held(&self) -> bool {
        self.issued == self.attempt.extent.len && self.flush && self.outstanding > 0
    }

    /// The next command, if there is one to be sent now. At most `sectors_max` sectors.
    fn next(&mut self, sectors_max: u8) -> Option<Command<B>> {
        let extent = self.attempt.extent;
        let left = extent.len - self.issued;
        if left == 0 {
            self.flush = false;
            return Some(Command::Flush);
        }
        let offset = extent.offset + self.issued;
        let lba = offset / SECTOR;
        if self.attempt.operation == Operation::Discard {
            let len = left.min(TRIM_BYTES_MAX);
            self.issued += len;
            let ranges = Box::new(TrimRanges::emit(lba, len / SECTOR));
            return Some(Command::Trim { ranges: Payload::Ranges(ranges) });
        }
        let fitting = u64::from(sectors_max);
        let aligned = if fitting < ALIGNMENT { fitting } else { fitting - lba % ALIGNMENT };
        let sectors = u8::try_from(aligned.min(left / SECTOR)).expect("at most sectors_max");
        let len = u64::from(sectors) * SECTOR;
        let start = self.issued;
        self.issued += len;
        match self.attempt.operation {
            Operation::Read => Some(Command::Read { lba, sectors }),
            _ => {
                let start = u32::try_from(start).expect("as long as its memory");
                let len = u32::try_from(len).expect("a frame's worth");
                let data = self.attempt.data.as_ref().expect("checked when submitted");
                Some(Command::Write { lba, data: Payload::Memory(data.sub(start, len)) })
            }
        }
    }

    /// Bytes that were read from `lba` on.
    pub(super) fn place(&mut self, lba: u64, bytes: &[u8]) {
        let start = usize::try_from(lba * SECTOR - self.attempt.extent.offset);
        let data = self.attempt.data.as_mut().expect("checked when submitted");
        let start = start.expect("inside its memory");
        data.bytes_mut()[start..start + bytes.len()].copy_from_slice(bytes);
    }
}

/// All tries under way.
#[derive(Debug)]
pub(super) struct Tries<B> {
    slots: Vec<Option<Open<B>>>,
    free: Vec<u32>,
    /// Tries of which something is left to be sent. Names some that have ended.
    queue: VecDeque<(u32, TryId)>,
}

impl<B: Buffer> Tries<B> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), queue: VecDeque::new() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.slots.len() == self.free.len()
    }

    /// Takes a try in; its slot. `flush`: it ends with a flush.
    pub(super) fn open(&mut self, attempt: Try<B>, flush: bool) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("memory ends before 2^32 tries")
        });
        self.queue.push_back((slot, attempt.id));
        let open = Open { attempt, issued: 0, commands: 0, outstanding: 0, flush, failed: None };
        self.slots[slot as usize] = Some(open);
        slot
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Open<B>> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn find(&self, id: TryId) -> Option<u32> {
        let is = |open: &Option<Open<B>>| open.as_ref().is_some_and(|open| open.attempt.id == id);
        self.slots.iter().position(is).and_then(|slot| u32::try_from(slot).ok())
    }

    /// The slot of any try, to end them all.
    pub(super) fn any(&self) -> Option<u32> {
        self.slots.iter().position(Option::is_some).and_then(|slot| u32::try_from(slot).ok())
    }

    pub(super) fn close(&mut self, slot: u32) -> Option<Open<B>> {
        let open = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if self.queue.len() > 2 * self.slots.len() + 16 {
            let slots = &self.slots;
            let lives = |(slot, id): &(u32, TryId)| {
                slots[*slot as usize].as_ref().is_some_and(|open| open.attempt.id == *id)
            };
            self.queue.retain(lives);
        }
        Some(open)
    }

    /// What held a try back has ended.
    pub(super) fn resume(&mut self, slot: u32) {
        if let Some(Some(open)) = self.slots.get(slot as usize) {
            self.queue.push_front((slot, open.attempt.id));
        }
    }

    /// The flush at a try's end has to be sent again.
    pub(super) fn flush(&mut self, slot: u32) {
        if let Some(open) = self.get_mut(slot) {
            open.flush = true;
            let id = open.attempt.id;
            self.queue.push_front((slot, id));
        }
    }

    /// The next command to be sent, oldest try first.
    pub(super) fn next(&mut self, sectors_max: u8) -> Option<(CommandId, Command<B>)> {
        loop {
            let (slot, id) = *self.queue.front()?;
            let open = self.slots[slot as usize].as_mut().filter(|open| open.attempt.id == id);
            let Some(open) = open.filter(|open| !open.is_issued() && !open.is_held()) else {
                self.queue.pop_front();
                continue;
            };
            let command = open.next(sectors_max)?;
            let number = CommandId(u64::from(slot) << 32 | u64::from(open.commands));
            open.commands = open.commands.wrapping_add(1);
            open.outstanding += 1;
            return Some((number, command));
        }
    }
}

/// The slot of the try that a command belongs to.
pub(super) const fn slot_of(id: CommandId) -> u32 {
    (id.0 >> 32) as u32
}

/// Why this try cannot be what it says it is.
pub(super) fn check<B: Buffer>(attempt: &Try<B>, size_bytes: u64) -> Result<(), IoError> {
    let extent = attempt.extent;
    let data = attempt.data.as_ref().map(|data: &Slice<B>| u64::from(data.len));
    let fits = match attempt.operation {
        Operation::Flush => return Ok(()),
        Operation::WriteZeroes { .. } => return Err(IoError::Unsupported),
        Operation::Read | Operation::Write { .. } => data == Some(extent.len),
        Operation::Discard => true,
    };
    let inside = extent.offset.checked_add(extent.len).is_some_and(|end| end <= size_bytes);
    let whole = extent.len > 0 && (extent.offset | extent.len).is_multiple_of(SECTOR);
    if fits && inside && whole { Ok(()) } else { Err(IoError::Invalid) }
}
