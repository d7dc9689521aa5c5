//! AES-256 in XTS mode (IEEE 1619, NIST SP 800-38E), in data units of 512 bytes.
//!
//! The tweak is the unit's number, counted from the volume's first byte, in 128 bits, little
//! endian: what Linux calls `aes-xts-plain64`. Units are 512 bytes on stores of larger blocks too,
//! so that a store's copy on another disk can still be read. The AES crate uses the processor's
//! own instructions, several blocks at a time, which is why all blocks of a unit go to it at once.

use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use super::MEDIA_KEY_BYTES;

/// Bytes of a data unit.
pub const UNIT_BYTES: usize = 512;

const BLOCK_BYTES: usize = 16;
const UNIT_BLOCKS: usize = UNIT_BYTES / BLOCK_BYTES;
/// Units whose tweaks are made at once.
const BATCH_UNITS: usize = 8;

type Block = aes::Block;

/// A media key, ready for use. Its key schedules are wiped when dropped.
pub struct Xts {
    data: Aes256,
    tweak: Aes256,
}

impl std::fmt::Debug for Xts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Xts(not shown)")
    }
}

impl Xts {
    /// Key 1 (data) and key 2 (tweaks), one behind the other.
    pub fn new(key: &[u8; MEDIA_KEY_BYTES]) -> Self {
        let (data, tweak) = key.split_at(MEDIA_KEY_BYTES / 2);
        let schedule = |half: &[u8]| Aes256::new_from_slice(half).expect("32 bytes each");
        Self { data: schedule(data), tweak: schedule(tweak) }
    }

    /// Encrypts whole units in place, of which the first has number `first`.
    pub fn encrypt(&self, bytes: &mut [u8], first: u64) {
        self.apply(bytes, first, |blocks| self.data.encrypt_blocks(blocks));
    }

    /// Decrypts whole units in place, of which the first has number `first`.
    pub fn decrypt(&self, bytes: &mut [u8], first: u64) {
        self.apply(bytes, first, |blocks| self.data.decrypt_blocks(blocks));
    }

    fn apply(&self, bytes: &mut [u8], first: u64, cipher: impl Fn(&mut [Block])) {
        debug_assert!(bytes.len().is_multiple_of(UNIT_BYTES), "whole units only");
        let mut number = first;
        for batch in bytes.chunks_mut(BATCH_UNITS * UNIT_BYTES) {
            let mut begins = [Block::default(); BATCH_UNITS];
            for begin in &mut begins {
                *begin = Array(u128::from(number).to_le_bytes());
                number = number.wrapping_add(1);
            }
            self.tweak.encrypt_blocks(&mut begins);
            for (unit, begin) in batch.chunks_exact_mut(UNIT_BYTES).zip(&begins) {
                let tweaks = tweaks(begin);
                let (blocks, _) = unit.as_chunks_mut::<BLOCK_BYTES>();
                let blocks = Block::cast_slice_from_core_mut(blocks);
                whiten(blocks, &tweaks);
                cipher(blocks);
                whiten(blocks, &tweaks);
            }
        }
    }
}

/// The tweaks of a unit's blocks: each is the one before times α in GF(2^128).
fn tweaks(begin: &Block) -> [u128; UNIT_BLOCKS] {
    let mut tweak = u128::from_le_bytes(begin.0);
    let mut tweaks = [0; UNIT_BLOCKS];
    for place in &mut tweaks {
        *place = tweak;
        tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
    }
    tweaks
}

fn whiten(blocks: &mut [Block], tweaks: &[u128; UNIT_BLOCKS]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        block.0 = (u128::from_le_bytes(block.0) ^ tweak).to_le_bytes();
    }
}
