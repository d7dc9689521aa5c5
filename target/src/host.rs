//! What a machine may ask of its surroundings, and nothing more.
//!
//! In production the surroundings are a ring ([`crate`]'s `shell`), in tests the simulator. Every
//! method only *queues*: none calls back into the machine, none blocks.

use corbel_proto::memory::{Arena, Buffer, Slice};
use corbel_proto::time::Instant;

use crate::volume::VolumeId;

/// One thread's share of the server. Shards are numbered from zero.
pub type ShardId = u16;

/// Block I/O on one volume's backing store. Offsets and lengths are bytes, multiples of the
/// volume's logical block, inside the volume.
#[derive(Debug, Clone)]
pub enum BlockOp<B> {
    /// Fill `data` from `offset`.
    Read {
        /// First byte on the store.
        offset: u64,
        /// Where the bytes go.
        data: Slice<B>,
    },
    /// Put `data` at `offset`. Stable only after a flush, if the store's cache is volatile.
    Write {
        /// First byte on the store.
        offset: u64,
        /// What is written.
        data: Slice<B>,
    },
    /// Everything completed before this was submitted becomes stable.
    Flush,
    /// The blocks' contents are no longer needed.
    Discard {
        /// First byte on the store.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The blocks read as zeros afterwards. With `unmap`, by deallocation where the store can.
    Zero {
        /// First byte on the store.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Deallocate if that gives zeros.
        unmap: bool,
    },
    /// Tell whether the store holds something at `offset`, and how far that goes. Completes with an
    /// [`Extent`], or fails with [`BlockError::Unsupported`] where the store cannot tell.
    Status {
        /// First byte on the store.
        offset: u64,
    },
}

impl<B> BlockOp<B> {
    /// The same, so many bytes further on the store.
    #[must_use]
    pub(crate) fn further(mut self, bytes: u64) -> Self {
        match &mut self {
            Self::Read { offset, .. }
            | Self::Write { offset, .. }
            | Self::Discard { offset, .. }
            | Self::Zero { offset, .. }
            | Self::Status { offset } => *offset += bytes,
            Self::Flush => {}
        }
        self
    }
}

/// How the store's bytes are from where [`BlockOp::Status`] asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes that are alike, at least one.
    pub len: u64,
    /// The store holds them; otherwise they read as zeros and take no room.
    pub mapped: bool,
}

/// Why block I/O failed: what is worth telling a client apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// The medium could not be read or written (EIO, EILSEQ, ENODATA …).
    Medium,
    /// No room left on a thin store (ENOSPC, EDQUOT).
    NoSpace,
    /// The store cannot do this operation (EOPNOTSUPP).
    Unsupported,
    /// The store is gone (ENODEV, ENXIO, closed).
    Gone,
    /// What is on it is being made unreadable, or was not quite. No store says so.
    Sanitizing,
}

/// Names a submitted [`BlockOp`] until its completion. Chosen by the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockToken(pub u64);

/// What shards tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A range that a request of the addressed shard waits for is now its own.
    RangeGranted {
        /// The waiting request's number in its shard.
        waiter: u64,
    },
    /// Wait for the AoE commands on a volume that the addressed shard has at work, then say
    /// [`Cleared`](crate::iscsi::Message::Cleared).
    FenceAoe {
        /// Which volume.
        volume: VolumeId,
        /// Who waits.
        shard: ShardId,
        /// Its number for this.
        ask: u64,
    },
    /// About iSCSI sessions.
    Iscsi(crate::iscsi::Message),
}

/// The surroundings of a shard.
pub trait Host: Arena<Buf = <Self as Host>::Memory> {
    /// The payload memory.
    type Memory: Buffer;

    /// The time of the event being handled.
    fn now(&self) -> Instant;

    /// This shard's number.
    fn shard(&self) -> ShardId;

    /// Queues block I/O. Its completion comes back with `token`, exactly once.
    fn block(&mut self, volume: VolumeId, op: BlockOp<Self::Memory>, token: BlockToken);

    /// True if the volume's store may lend its memory at once: see [`Self::lend`].
    fn lends(&self, volume: VolumeId) -> bool {
        let _ = volume;
        false
    }

    /// `len` bytes of a store in memory from `offset` on, lent to be sent and not looked at
    /// ([`Buffer::is_loan`]). The host tells when the last handle is gone, by `token`
    /// ([`Engine::returned`](crate::volume::engine::Engine::returned)). `None`: read them.
    fn lend(
        &mut self,
        volume: VolumeId,
        offset: u64,
        len: u32,
        token: BlockToken,
    ) -> Option<Self::Memory> {
        let _ = (volume, offset, len, token);
        None
    }

    /// Queues `message` for another shard (or this one; then it comes back as an event).
    fn post(&mut self, shard: ShardId, message: Message);

    /// Number of shards in this process.
    fn shards(&self) -> ShardId;

    /// Unpredictable bytes (CHAP challenges, session handles).
    fn random(&mut self, bytes: &mut [u8]);

    /// Queues a crash-safe replacement of the small state file `name` (AoE config strings,
    /// masks, reservations). Answered, with `token`, once it is on stable storage or has failed.
    fn persist(&mut self, name: &str, bytes: Vec<u8>, token: u64);
}
