//! What a connection serves, and how its abilities and failures are told in NBD's words.

use super::wire::{Errno, flag};
use crate::request::IoError;

/// Longest request that any client may send, whatever we say (proto.md, "Block size constraints").
const LEN_MAX: u32 = 32 << 20;
/// Blocks that clients like, if the device has no larger ones.
const PREFERRED_BYTES_MIN: u32 = 4096;

/// A device as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The name that clients ask for; the empty name means this one too. At most 4096 bytes.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// Size in bytes, whole logical blocks.
    pub size_bytes: u64,
    /// Bytes of a logical block; a power of two.
    pub block_bytes: u32,
    /// Bytes of a physical block; a power of two.
    pub physical_block_bytes: u32,
    /// Must not be written.
    pub read_only: bool,
    /// Discard works.
    pub discard: bool,
    /// Write zeroes works without sending them; otherwise they are written.
    pub write_zeroes: bool,
}

impl Export {
    /// Transmission flags. FLUSH and FUA are there whatever cache the device has now: a path to it
    /// that is added later may have one.
    ///
    /// All connections go through one engine whose flush covers every acknowledged write of every
    /// connection, hence CAN_MULTI_CONN. A device that writes zeroes itself is sent no data, which
    /// is always faster than writing; hence FAST_ZERO is understood, and refused where zeroes are
    /// written.
    pub fn flags(&self, structured: bool) -> u16 {
        let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA | flag::CAN_MULTI_CONN;
        if self.read_only {
            flags |= flag::READ_ONLY;
        } else {
            flags |= flag::SEND_WRITE_ZEROES | flag::SEND_FAST_ZERO;
            if self.discard {
                flags |= flag::SEND_TRIM;
            }
        }
        if structured {
            flags |= flag::SEND_DF;
        }
        flags
    }

    /// Block sizes: smallest, preferred, and the longest request, of which `bytes_max` bound.
    pub(super) fn block_sizes(&self, bytes_max: u64) -> [u32; 3] {
        let preferred =
            PREFERRED_BYTES_MIN.max(self.physical_block_bytes).max(self.block_bytes).min(LEN_MAX);
        [self.block_bytes, preferred, self.len_max(bytes_max)]
    }

    /// The longest read or write, in whole blocks.
    pub(super) fn len_max(&self, bytes_max: u64) -> u32 {
        let len = u32::try_from(bytes_max).unwrap_or(LEN_MAX).min(LEN_MAX);
        (len - len % self.block_bytes).max(self.block_bytes)
    }

    pub(super) fn is_whole_blocks(&self, offset: u64, len: u32) -> bool {
        offset.is_multiple_of(self.block_bytes.into()) && len.is_multiple_of(self.block_bytes)
    }

    pub(super) fn holds(&self, offset: u64, len: u32) -> bool {
        offset.checked_add(len.into()).is_some_and(|end| end <= self.size_bytes)
    }
}

/// The whole table of what clients are told of a failure.
pub(super) fn errno_of(error: IoError) -> Errno {
    match error {
        IoError::Io | IoError::Medium | IoError::Target | IoError::Conflict | IoError::TooOld => {
            Errno::Io
        }
        IoError::NoSpace => Errno::NoSpc,
        IoError::Unsupported => Errno::NotSup,
        IoError::ReadOnly => Errno::Perm,
        IoError::Fenced => Errno::Shutdown,
        IoError::Invalid => Errno::Inval,
    }
}
