//! What the owner of a path does for it on the network.

use std::net::SocketAddr;

use corbel_proto::iscsi::initiator::Outgoing;
use corbel_proto::memory::{Buffer, Slice};
use smallvec::SmallVec;

/// A TCP connection of a path. Never used again; what is told of an old one is not listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What to do with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Connect; answer with `connected` or `connect_failed`.
    Connect {
        /// Its name from now on.
        stream: StreamId,
        /// Where to.
        portal: SocketAddr,
    },
    /// Give it up **at once and for good**, connected or not: reset it (`SO_LINGER` of zero) rather
    /// than let the kernel deliver what is still queued. That nothing of it leaves this host after
    /// this is what the doubt's time limit counts from.
    Close {
        /// Which.
        stream: StreamId,
    },
}

/// Bytes to be sent, in this order: `head`, `data`, `tail`.
#[derive(Debug, Clone)]
pub struct Chunk<B> {
    /// Header, and short data.
    pub head: SmallVec<[u8; 64]>,
    /// Payload, in the memory of a request: to be sent from there. The request may end before the
    /// kernel is done with it; keep this handle until then, and the memory stays as it is.
    pub data: Option<Slice<B>>,
    /// Padding and digest.
    pub tail: SmallVec<[u8; 8]>,
}

impl<B: Buffer> Chunk<B> {
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self { head: SmallVec::from_slice(bytes), data: None, tail: SmallVec::new() }
    }

    pub(super) fn of(pdu: &Outgoing<'_, Memory<B>>) -> Self {
        let mut head = SmallVec::from_slice(pdu.header());
        let len = u32::try_from(pdu.data().len()).expect("a data segment is below 16 MiB");
        let data = match pdu.origin() {
            Some((Memory::Lent(slice), at)) if len > 0 => Some(slice.sub(at, len)),
            _ => {
                head.extend_from_slice(pdu.data());
                None
            }
        };
        Self { head, data, tail: SmallVec::from_slice(pdu.trailer()) }
    }

    /// Length of all of it.
    pub fn len(&self) -> usize {
        let data = self.data.as_ref().map_or(0, |data| data.len as usize);
        self.head.len() + data + self.tail.len()
    }

    /// True for no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a copy of all of it behind `stream`: for tests and the simulator.
    pub fn write_to(&self, stream: &mut Vec<u8>) {
        stream.extend_from_slice(&self.head);
        if let Some(data) = &self.data {
            stream.extend_from_slice(data.bytes());
        }
        stream.extend_from_slice(&self.tail);
    }
}

/// The memory of a command: a try's, or a few bytes of our own.
#[derive(Debug)]
pub(super) enum Memory<B> {
    /// A try's. Of a read, the only handle there is.
    Lent(Slice<B>),
    /// What we ask about the unit, and short parameters.
    Own(Vec<u8>),
}

impl<B: Buffer> AsRef<[u8]> for Memory<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Lent(slice) => slice.bytes(),
            Self::Own(bytes) => bytes,
        }
    }
}

impl<B: Buffer> AsMut<[u8]> for Memory<B> {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Lent(slice) => slice.bytes_mut(),
            Self::Own(bytes) => bytes,
        }
    }
}
