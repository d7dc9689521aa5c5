//! Where a volume's media key is kept: wrapped, on the store, before the volume's first block.
//!
//! ```text
//! 0        slot of even generations: 4096 bytes
//! 64 KiB   slot of odd generations
//! 1 MiB    the volume's first block
//!
//! slot     magic "CrKy"  version (u8)  generation (u64 LE)  wrapped key (72)  CRC-32 (LE)  zeros
//! ```
//!
//! A new key goes to the other slot, and once it is stable the old slot is overwritten with zeros.
//! Whatever cuts that off, one slot at least is whole, and of two the newer counts. The key is
//! wrapped by RFC 3394, which tells a wrong wrapping key from the right one.

use aes_kw::KwAes256;
use aes_kw::cipher::KeyInit;

use super::{MEDIA_KEY_BYTES, MediaKey, WrappingKey};
use crate::sealed::Form;

/// What the header takes of the store.
pub const HEADER_BYTES: u64 = 1 << 20;

/// Bytes of a slot that are read and written.
pub const SLOT_BYTES: usize = 4096;

/// Far enough from the first to be in another erase block of most media.
const SECOND_SLOT: u64 = 64 << 10;

const FORM: Form = Form { magic: *b"CrKy", version: 1 };
const WRAPPED_BYTES: usize = MEDIA_KEY_BYTES + 8;
const SEALED_BYTES: usize = 4 + 1 + 8 + WRAPPED_BYTES + 4;

/// Where the key of a generation stands, counted from the header's first byte.
pub const fn slot_offset(generation: u64) -> u64 {
    if generation.is_multiple_of(2) { 0 } else { SECOND_SLOT }
}

/// Why an encrypted volume is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Neither slot holds a wrapped key.
    NoHeader,
    /// The wrapped key is there, and was wrapped under another one than we were given.
    WrongKey,
}

/// What a slot holds.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) generation: u64,
    wrapped: [u8; WRAPPED_BYTES],
}

impl Header {
    pub(super) fn wrap(generation: u64, key: &MediaKey, under: &WrappingKey) -> Self {
        let mut wrapped = [0; WRAPPED_BYTES];
        let wrapper = wrapper(under);
        wrapper.wrap_key(&key[..], &mut wrapped).expect("64 bytes become 72");
        Self { generation, wrapped }
    }

    /// The slot to be written.
    pub(super) fn slot(&self) -> Vec<u8> {
        let mut out = FORM.begin();
        out.extend(self.generation.to_le_bytes());
        out.extend(self.wrapped);
        let mut slot = FORM.seal(out);
        slot.resize(SLOT_BYTES, 0);
        slot
    }

    /// What stands in a slot, if it is whole and ours.
    pub(super) fn parse(slot: &[u8]) -> Option<Self> {
        let content = FORM.open(slot.get(..SEALED_BYTES)?).ok()?;
        let (generation, wrapped) = content.split_first_chunk::<8>()?;
        let generation = u64::from_le_bytes(*generation);
        Some(Self { generation, wrapped: wrapped.try_into().ok()? })
    }

    pub(super) fn unwrap(&self, under: &WrappingKey) -> Result<MediaKey, Refusal> {
        let mut key = MediaKey::new([0; MEDIA_KEY_BYTES]);
        let opened = wrapper(under).unwrap_key(&self.wrapped, &mut key[..]);
        opened.map_err(|_| Refusal::WrongKey)?;
        Ok(key)
    }
}

fn wrapper(key: &WrappingKey) -> KwAes256 {
    KwAes256::new_from_slice(&key.0[..]).expect("32 bytes")
}
