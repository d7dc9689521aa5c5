//! What can be asked of a volume, and what comes of it.

use std::sync::Arc;

use corbel_proto::memory::{Buffer, Slice};

/// Payload of one request: each piece a whole number of logical blocks, except where a kind says
/// otherwise.
pub use corbel_proto::memory::Segments;

use super::Volume;
use crate::host::{BlockError, Extent};

/// Bytes in all pieces together.
pub fn segments_bytes<B: Buffer>(segments: &[Slice<B>]) -> u64 {
    segments.iter().map(|s| u64::from(s.len)).sum()
}

/// One piece of work on a volume. Ranges are bytes, whole logical blocks, inside the volume: the
/// device in front (ATA or SCSI) has checked that and answered its client if not.
#[derive(Debug)]
pub struct Request<B> {
    /// Where.
    pub volume: Arc<Volume>,
    /// What.
    pub kind: Kind<B>,
    /// Complete only when the effect is on stable storage. Costs nothing on a write-through
    /// device, one flush shared by all that wait at that moment on a write-back one.
    pub durable: bool,
    /// What is read is only sent: a store may lend its own memory for it, and has it back before
    /// anybody writes there.
    pub lend: bool,
}

/// The kinds of work. Each is atomic against every other request on any overlapping range.
#[derive(Debug)]
pub enum Kind<B> {
    /// Read `len` bytes. Completes with [`Outcome::Data`].
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Write the payload.
    Write {
        /// First byte.
        offset: u64,
        /// What to write; its total length is the length of the write.
        data: Segments<B>,
    },
    /// Everything acknowledged before this was submitted, on any session, shard or protocol,
    /// becomes stable.
    Flush,
    /// Deallocate ranges (`offset`, `len`); contents afterwards are undefined (zeros where the
    /// device gives them).
    Discard(Vec<(u64, u64)>),
    /// Write `block` again and again over `len` bytes.
    WriteSame {
        /// First byte.
        offset: u64,
        /// Bytes, a multiple of the block's length.
        len: u64,
        /// One logical block; `None` is a block of zeros.
        block: Option<Slice<B>>,
        /// Deallocate instead, where that reads as zeros afterwards.
        unmap: bool,
    },
    /// Compare the range with `expected`; write `new` if all of it is equal. Both have the same
    /// length.
    CompareAndWrite {
        /// First byte.
        offset: u64,
        /// What must stand there.
        expected: Segments<B>,
        /// What is written then.
        new: Segments<B>,
    },
    /// Check that the range can be read, and equals `expected` if there is one.
    Verify {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// What must stand there.
        expected: Option<Segments<B>>,
    },
    /// Write the payload, make it stable, read it back past the store's cache as far as the store
    /// lets us, and compare it if that is wanted.
    WriteAndVerify {
        /// First byte.
        offset: u64,
        /// What to write.
        data: Segments<B>,
        /// Compare what was read back with it.
        compare: bool,
    },
    /// Which blocks the store holds, from `offset` to the volume's end or until there are
    /// `extents_max` extents, whatever comes first. Completes with [`Outcome::Extents`].
    Status {
        /// First byte.
        offset: u64,
        /// How many extents are wanted at most.
        extents_max: usize,
    },
    /// Make everything on the volume unreadable and stable, alone: after
    /// [`begin`](super::sanitize::Sanitization::begin), and its outcome must be told to
    /// [`end`](super::sanitize::Sanitization::end).
    Erase(Erase),
    /// Read, OR with the payload, write back.
    Or {
        /// First byte.
        offset: u64,
        /// What to OR in.
        data: Segments<B>,
    },
}

/// How everything is made unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erase {
    /// One logical block is written over each, `passes` times, each pass stable before the next;
    /// with `invert` its complement in every other one.
    Overwrite {
        /// What is written.
        block: Vec<u8>,
        /// How often.
        passes: u8,
        /// Whether passes alternate.
        invert: bool,
    },
    /// Everything is deallocated, and reads as zeros (on an encrypted volume: as noise).
    Deallocate,
    /// The media key is replaced, which every erasure of an encrypted volume does first.
    NewKey,
}

/// How a request ended.
#[derive(Debug)]
pub enum Outcome<B> {
    /// Done; nothing to hand back.
    Done,
    /// Done; what was read.
    Data(Segments<B>),
    /// Done; extents one behind the other, of whole blocks, at least one.
    Extents(Vec<Extent>),
    /// The comparison failed at this byte, counted from the start of the range.
    Miscompare(u64),
    /// The backing store failed.
    Failed(BlockError),
    /// It was cancelled before it touched the medium.
    Cancelled,
}
