//! Frames, and what is in them.

use corbel_proto::aoe::FRAME_BYTES_MIN;
use corbel_proto::aoe::initiator;
use corbel_proto::memory::{Buffer, Slice};
use smallvec::SmallVec;

/// A frame to be sent: `head`, then `data`. Long enough for Ethernet as it is.
#[derive(Debug, Clone)]
pub struct Frame<B> {
    /// All headers, and whatever is not payload. In place unless it is long, which only frames are
    /// that are rare.
    pub head: SmallVec<[u8; 64]>,
    /// The bytes of a write.
    pub data: Option<Slice<B>>,
}

impl<B> Frame<B> {
    /// Of headers alone, padded.
    pub(super) fn short(head: &[u8]) -> Self {
        let mut head = SmallVec::from_slice(head);
        if head.len() < FRAME_BYTES_MIN {
            head.resize(FRAME_BYTES_MIN, 0);
        }
        Self { head, data: None }
    }
}

/// A command and its bytes.
pub(super) type Command<B> = initiator::Operation<Payload<B>>;

/// Bytes that follow the headers.
#[derive(Debug, Clone)]
pub(super) enum Payload<B> {
    /// A write's.
    Memory(Slice<B>),
    /// A TRIM's.
    Ranges(Box<[u8; 512]>),
    /// So many sectors of zeroes, for frames that only have to be long.
    Padding(u8),
}

/// As many zeroes as a frame can hold.
static PADDING: [u8; 255 * 512] = [0; 255 * 512];

impl<B: Buffer> AsRef<[u8]> for Payload<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Memory(slice) => slice.bytes(),
            Self::Ranges(ranges) => &ranges[..],
            Self::Padding(sectors) => &PADDING[..usize::from(*sectors) * 512],
        }
    }
}

impl<B: Buffer> From<initiator::Frame<'_, Payload<B>>> for Frame<B> {
    fn from(frame: initiator::Frame<'_, Payload<B>>) -> Self {
        match frame.data {
            None => Self::short(&frame.head),
            Some(Payload::Memory(slice)) => {
                Self { head: SmallVec::from_slice(&frame.head), data: Some(slice.clone()) }
            }
            Some(long) => {
                let mut head = SmallVec::from_slice(&frame.head);
                head.extend_from_slice(long.as_ref());
                Self { head, data: None }
            }
        }
    }
}
