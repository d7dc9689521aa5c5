//! Blocks that say who wrote them.
//!
//! Every block of a write carries the write's number, its own address, and a filling that follows
//! from both. So a block that mixes two writes, or that landed elsewhere, is recognised.

use crate::rng::Rng;

/// The number of a write. Zero is "never written".
pub type WriteId = u64;

/// What a block turned out to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// All of it comes from this write (0: zeros).
    Of(WriteId),
    /// It is no block that anybody wrote at this address.
    Broken,
}

const MAGIC: u64 = 0x436f_7262_656c_2121;

/// Fills `block` for write `id` at address `block_address`.
///
/// # Panics
/// If the block is shorter than 24 bytes or not a multiple of eight.
pub fn fill(block: &mut [u8], id: WriteId, block_address: u64) {
    assert!(block.len() >= 24 && block.len().is_multiple_of(8), "a block of whole words");
    let mut filling = Rng::new(id ^ block_address.rotate_left(32));
    let head = [MAGIC, id, block_address];
    for (place, word) in block.chunks_exact_mut(8).enumerate() {
        let value = head.get(place).copied().unwrap_or_else(|| filling.next());
        word.copy_from_slice(&value.to_be_bytes());
    }
}

/// A whole write: blocks of `block_bytes` from `first` on.
pub fn filled(blocks: u64, block_bytes: usize, id: WriteId, first: u64) -> Vec<u8> {
    let len = usize::try_from(blocks).expect("a transfer fits memory") * block_bytes;
    let mut bytes = vec![0; len];
    for (place, block) in (first..).zip(bytes.chunks_exact_mut(block_bytes)) {
        fill(block, id, place);
    }
    bytes
}

/// Whose block this is.
pub fn read(block: &[u8], block_address: u64) -> Content {
    if block.iter().all(|&byte| byte == 0) {
        return Content::Of(0);
    }
    let Some(id) = block.get(8..16) else {
        return Content::Broken;
    };
    let id = u64::from_be_bytes(id.try_into().expect("eight bytes"));
    let mut wanted = vec![0; block.len()];
    if wanted.len() < 24 || !wanted.len().is_multiple_of(8) {
        return Content::Broken;
    }
    fill(&mut wanted, id, block_address);
    if wanted == block { Content::Of(id) } else { Content::Broken }
}

/// The contents of consecutive blocks from `first` on.
pub fn read_all(bytes: &[u8], block_bytes: usize, first: u64) -> Vec<Content> {
    (first..).zip(bytes.chunks(block_bytes)).map(|(place, block)| read(block, place)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_its_write() {
        let bytes = filled(3, 512, 7, 100);
        assert_eq!(read_all(&bytes, 512, 100), [Content::Of(7); 3]);
        assert_eq!(read(&[0; 512], 5), Content::Of(0));
    }

    #[test]
    fn a_block_elsewhere_half_written_or_with_one_wrong_bit_is_broken() {
        let bytes = filled(1, 512, 7, 100);
        assert_eq!(read(&bytes, 101), Content::Broken);
        let mut torn = filled(1, 512, 8, 100);
        torn[256..].copy_from_slice(&bytes[256..]);
        assert_eq!(read(&torn, 100), Content::Broken);
        let mut flipped = bytes;
        flipped[511] ^= 1;
        assert_eq!(read(&flipped, 100), Content::Broken);
    }
}
