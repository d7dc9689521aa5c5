//! What users of a device ask, and what they are told.

use corbel_proto::memory::Slice;

/// The asker's name of a request; unique among those that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A run of bytes of the device. Whole logical blocks, inside the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes; 0 only for a flush.
    pub len: u64,
}

impl Extent {
    /// Of no bytes.
    pub const NONE: Self = Self { offset: 0, len: 0 };

    /// The first byte after it.
    pub const fn end(self) -> u64 {
        self.offset + self.len
    }

    /// True if they have a byte in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bytes to the asker.
    Read,
    /// Bytes to the device.
    Write {
        /// Acknowledged only when it is on stable storage.
        fua: bool,
    },
    /// Everything acknowledged before becomes stable.
    Flush,
    /// The contents are not needed any more.
    Discard,
    /// Zeroes to the device.
    WriteZeroes {
        /// The range may be deallocated, as long as it reads as zeroes.
        unmap: bool,
        /// Acknowledged only when it is on stable storage.
        fua: bool,
    },
}

impl Operation {
    /// It changes what is stored.
    pub const fn changes(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Discard | Self::WriteZeroes { .. })
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request<B> {
    /// Its name.
    pub id: RequestId,
    /// What.
    pub operation: Operation,
    /// Where.
    pub extent: Extent,
    /// As long as `extent` for reads and writes, at most
    /// [`SEGMENT_BYTES_MAX`](corbel_proto::memory::SEGMENT_BYTES_MAX); else `None`. Memory of a
    /// read must have no other holder. Memory of a write may be shared, and is not to be changed
    /// before every holder has dropped it: that may be long after the request ended.
    pub data: Option<Slice<B>>,
}

/// How a request ended.
#[derive(Debug)]
pub struct Outcome<B> {
    /// Which.
    pub id: RequestId,
    /// A read's bytes: in the request's own memory, or in other memory if that one was still
    /// waited for on a slow path. The request's memory of a write.
    pub data: Option<Slice<B>>,
    /// Well, or not.
    pub result: Result<(), IoError>,
}

/// Why a request failed, in the words a block layer has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum IoError {
    /// EIO: no path, or a failure that says no more.
    #[error("input/output error")]
    Io,
    /// ENODATA: the medium cannot be read or written there.
    #[error("medium error")]
    Medium,
    /// EREMOTEIO: the device refuses, and would on every path.
    #[error("the device refuses the command")]
    Target,
    /// ENOSPC: no room on a thin device.
    #[error("no space left on the device")]
    NoSpace,
    /// EBADE: another host holds a reservation.
    #[error("reservation conflict")]
    Conflict,
    /// EOPNOTSUPP: the device cannot do this.
    #[error("not supported by the device")]
    Unsupported,
    /// EROFS/EPERM: the device is write-protected.
    #[error("the device is write-protected")]
    ReadOnly,
    /// ETIMEDOUT: it became too old to be sent (write age limit).
    #[error("too old to be sent")]
    TooOld,
    /// ENODEV: the device is fenced or being detached.
    #[error("the device is fenced or detached")]
    Fenced,
    /// EINVAL: outside the device, or not whole blocks.
    #[error("outside the device, or not whole blocks")]
    Invalid,
}
