//! Long and payload-less requests, in pieces; and write-zeroes for devices that cannot do it
//! themselves: as writes of one piece of zeroed memory, again and again.

use corbel_proto::memory::{Arena, Buffer, SEGMENT_BYTES_MAX, Slice};

use crate::request::Extent;

/// Takes up to `len_max` bytes off the front of `left`. `None` once nothing is left.
pub fn take_piece(left: &mut Extent, len_max: u64) -> Option<Extent> {
    let len = left.len.min(len_max);
    if len == 0 {
        return None;
    }
    let piece = Extent { offset: left.offset, len };
    *left = Extent { offset: left.offset + len, len: left.len - len };
    Some(piece)
}

/// Zeroed memory that every write of one request shares.
#[derive(Debug, Clone)]
pub struct ZeroBlock<B>(Slice<B>);

impl<B: Buffer> ZeroBlock<B> {
    /// Enough of it for requests of `len` bytes; `None` if `arena` has no memory now.
    pub fn new(arena: &mut impl Arena<Buf = B>, len: u64) -> Option<Self> {
        let len = usize::try_from(len).unwrap_or(usize::MAX).clamp(1, SEGMENT_BYTES_MAX);
        let mut block = Slice::whole(arena.alloc(len)?);
        block.bytes_mut().fill(0);
        Some(Self(block))
    }

    /// The longest write it serves.
    pub fn len_max(&self) -> u32 {
        self.0.len
    }

    /// Memory for a write of `len` zeroes.
    ///
    /// # Panics
    /// If that is more than [`Self::len_max`].
    pub fn slice(&self, len: u32) -> Slice<B> {
        self.0.sub(0, len)
    }
}

#[cfg(test)]
mod tests {
    use corbel_proto::memory::HeapArena;

    use super::*;

    #[test]
    fn pieces_cover_an_extent_without_gap_or_overlap() {
        let mut left = Extent { offset: 4096, len: 10_000 };
        let pieces: Vec<_> = std::iter::from_fn(|| take_piece(&mut left, 4096)).collect();
        let expected = [(4096, 4096), (8192, 4096), (12_288, 1808)]
            .map(|(offset, len)| Extent { offset, len });
        assert_eq!(pieces, expected);
    }

    #[test]
    fn a_zero_block_is_no_longer_than_its_request_and_than_a_segment() {
        let mut arena = HeapArena::new(1 << 20);
        assert_eq!(ZeroBlock::new(&mut arena, 512).unwrap().len_max(), 512);
        let block = ZeroBlock::new(&mut arena, u64::MAX).unwrap();
        assert_eq!(block.len_max() as usize, SEGMENT_BYTES_MAX);
        assert!(block.slice(1000).bytes().iter().all(|byte| *byte == 0));
        assert!(ZeroBlock::new(&mut HeapArena::new(100), 512).is_none());
    }
}
