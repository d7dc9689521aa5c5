//! What can be asked of a reactor, and what comes of it.

use corbel_proto::memory::Slice;

use super::message::Message;
use crate::memory::Buf;

/// A file, socket or store that a reactor holds. Stale handles are harmless: operations on them
/// complete with [`FailureKind::Gone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct File {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

/// A submitted operation, to cancel it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

/// One operation. It owns its memory; the memory comes back with the [`Completion`].
#[derive(Debug)]
pub enum Op {
    /// Accept connections on a listener until cancelled. Completes once per connection.
    Accept {
        /// A listening socket.
        file: File,
    },
    /// Receive straight into `data`, which must be the only handle to its buffer.
    Recv {
        /// A stream socket.
        file: File,
        /// Where the bytes go.
        data: Slice<Buf>,
        /// Complete only when `data` is full (or the stream ends).
        exact: bool,
    },
    /// Receive into memory shared by all connections, taken only when bytes are there.
    RecvPooled {
        /// A stream socket.
        file: File,
        /// At most this many bytes in one piece; 0 is as many as a pool buffer holds.
        len_max: u32,
        /// Again and again until cancelled, the stream ends, or an error.
        repeat: bool,
    },
    /// Send a message whole. Start the next one on the same stream only after this completed.
    Send {
        /// A stream socket, or a bound packet socket (one frame).
        file: File,
        /// What to send.
        message: Message,
    },
    /// Read from a store into `data`, which must be the only handle to its buffer.
    Read {
        /// A store.
        file: File,
        /// First byte on the store.
        offset: u64,
        /// Where the bytes go.
        data: Slice<Buf>,
    },
    /// Write `data` to a store.
    Write {
        /// A store.
        file: File,
        /// First byte on the store.
        offset: u64,
        /// What is written.
        data: Slice<Buf>,
        /// Complete only when it is on stable storage (RWF_DSYNC).
        durable: bool,
    },
    /// Make every completed write of a store stable.
    Sync {
        /// A store.
        file: File,
    },
    /// Give up the contents of a range.
    Fallocate {
        /// A store.
        file: File,
        /// What becomes of the range.
        mode: Hole,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Complete each time `file` becomes readable, until cancelled.
    PollReadable {
        /// Anything that can be polled.
        file: File,
    },
    /// Like [`Self::PollReadable`], for another ring. Each time it is a new poll: kernels from 6.2
    /// until a fix of 2026 forget a repeated poll of a ring after its first completion, and do not
    /// say so.
    PollRing {
        /// An io_uring.
        file: File,
    },
    /// Complete once `file` is writable: a connecting socket has connected or failed.
    PollWritable {
        /// Anything that can be polled.
        file: File,
    },
}

/// What becomes of a range given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// Deallocated; reads as zeros (FALLOC_FL_PUNCH_HOLE). A block device that would have to
    /// write the zeros one by one answers [`FailureKind::Unsupported`] instead.
    Punch,
    /// Reads as zeros, allocated or not (FALLOC_FL_ZERO_RANGE).
    Zero,
}

/// What came of an operation.
#[derive(Debug)]
pub struct Completion {
    /// The caller's tag.
    pub tag: u64,
    /// The outcome.
    pub event: Event,
    /// True if the same operation will complete again.
    pub more: bool,
    /// Bytes came, and the socket holds more already. False where the kernel does not say.
    pub waiting: bool,
}

/// Outcomes, one kind per [`Op`].
#[derive(Debug)]
pub enum Event {
    /// A connection, or why none could be accepted just now.
    Accepted(Result<File, Failure>),
    /// Bytes received into `data` (0: the stream ended; with `exact` less than asked: it ended
    /// early). The buffer comes back whatever happened.
    Received {
        /// The operation's memory.
        data: Slice<Buf>,
        /// How many bytes.
        result: Result<u32, Failure>,
    },
    /// Bytes from the shared pool; `None` is the end of the stream. Drop them soon: every
    /// connection waits for pool memory when it runs out.
    Pooled(Result<Option<Slice<Buf>>, Failure>),
    /// The message was handed to the network whole (its length).
    Sent(Result<u64, Failure>),
    /// A read; complete unless the store ended before.
    Read {
        /// The operation's memory.
        data: Slice<Buf>,
        /// Bytes read.
        result: Result<u32, Failure>,
    },
    /// A write, complete or failed.
    Written {
        /// The operation's memory.
        data: Slice<Buf>,
        /// Bytes written.
        result: Result<u32, Failure>,
    },
    /// A sync.
    Synced(Result<(), Failure>),
    /// A fallocate.
    Deallocated(Result<(), Failure>),
    /// The file is readable.
    Readable(Result<(), Failure>),
    /// The file is writable.
    Writable(Result<(), Failure>),
}

/// The kernel refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {}", std::io::Error::from_raw_os_error(*.errno))]
pub struct Failure {
    /// What was tried.
    pub operation: &'static str,
    /// The kernel's errno.
    pub errno: i32,
}

/// Failures by what a caller does about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The medium could not be read or written.
    Medium,
    /// No room left on a thin store, or in a quota.
    NoSpace,
    /// The file cannot do this.
    Unsupported,
    /// The file, device or interface is gone or closed.
    Gone,
    /// Another host holds a reservation on the device (EBADE, the block layer's NEXUS error).
    Conflict,
    /// The peer closed, reset or vanished.
    Disconnected,
    /// It was cancelled.
    Cancelled,
    /// Out of descriptors or memory; tried again later.
    Exhausted,
    /// The caller's mistake (misaligned, out of range).
    Invalid,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) fn new(operation: &'static str, errno: i32) -> Self {
        Self { operation, errno }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> FailureKind {
        match self.errno {
            libc::EIO | libc::EILSEQ | libc::ENODATA | libc::EREMOTEIO | libc::ETIME => {
                FailureKind::Medium
            }
            libc::ENOSPC | libc::EDQUOT | libc::EFBIG => FailureKind::NoSpace,
            libc::EOPNOTSUPP | libc::ENOSYS => FailureKind::Unsupported,
            libc::ENODEV
            | libc::ENXIO
            | libc::EBADF
            | libc::ENETDOWN
            | libc::ENOMEDIUM
            | libc::ESTALE
            | libc::EROFS => FailureKind::Gone,
            libc::EBADE => FailureKind::Conflict,
            libc::ECONNRESET
            | libc::EPIPE
            | libc::ETIMEDOUT
            | libc::ECONNABORTED
            | libc::ENOTCONN
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ECONNREFUSED => FailureKind::Disconnected,
            libc::ECANCELED => FailureKind::Cancelled,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => FailureKind::Exhausted,
            libc::EINVAL | libc::EFAULT => FailureKind::Invalid,
            _ => FailureKind::Other,
        }
    }
}
