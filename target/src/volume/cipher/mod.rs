//! Encryption at rest: the keys of one volume, and how they are replaced.
//!
//! A volume's blocks are encrypted under a random *media key* ([`xts`]), which nobody ever sees. It
//! is kept on the store itself, before the volume's first block, wrapped under the key of the
//! operator's key file ([`header`]). SANITIZE makes another media key and destroys the wrapped old
//! one: whatever was written under it is noise from then on, to us too.

pub mod header;
pub mod xts;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

use self::header::Header;
pub use self::header::{HEADER_BYTES, Refusal, SLOT_BYTES, slot_offset};
pub use self::xts::Xts;

/// Bytes of a media key: two AES-256 keys, for data and for tweaks.
pub const MEDIA_KEY_BYTES: usize = 64;

/// The bytes of a media key. They are wiped when dropped.
pub(crate) type MediaKey = Zeroizing<[u8; MEDIA_KEY_BYTES]>;

/// The key that media keys are wrapped under. Wiped when dropped, and never shown.
#[derive(Clone)]
pub struct WrappingKey(Zeroizing<[u8; 32]>);

impl WrappingKey {
    /// From what the operator's key file says.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappingKey(not shown)")
    }
}

/// The keys of a volume. Shared by all shards.
#[derive(Debug)]
pub struct Cipher {
    wrapping: WrappingKey,
    now: RwLock<(u64, Arc<Xts>)>,
    /// A replacement began and did not end: which key the store tells is not known.
    unsettled: AtomicBool,
}

/// A media key that is to be the next, and its place on the store.
#[derive(Debug)]
pub(crate) struct Successor {
    generation: u64,
    keys: Arc<Xts>,
    /// The slot's content.
    pub(crate) slot: Vec<u8>,
}

impl Successor {
    /// Where it is written, counted from the header's first byte; and what must go then.
    pub(crate) const fn places(&self) -> (u64, u64) {
        (slot_offset(self.generation), slot_offset(self.generation + 1))
    }
}

impl Cipher {
    /// A volume that has no key yet, and its header's first [`SLOT_BYTES`].
    pub fn fresh(wrapping: WrappingKey, random: &mut dyn FnMut(&mut [u8])) -> (Self, Vec<u8>) {
        let first = draw(&wrapping, 0, random);
        let now = RwLock::new((first.generation, first.keys));
        (Self { wrapping, now, unsettled: AtomicBool::new(false) }, first.slot)
    }

    /// The volume whose header has these slots. Gives also the place of a slot that must be wiped:
    /// an older key, whose replacement was cut off.
    ///
    /// # Errors
    /// If there is no header, or another key is needed for it.
    pub fn open(wrapping: WrappingKey, slots: [&[u8]; 2]) -> Result<(Self, Option<u64>), Refusal> {
        let [one, other] = slots.map(Header::parse);
        let (newest, stale) = match (one, other) {
            (None, None) => return Err(Refusal::NoHeader),
            (Some(only), None) | (None, Some(only)) => (only, None),
            (Some(a), Some(b)) if a.generation >= b.generation => (a, Some(b.generation)),
            (Some(a), Some(b)) => (b, Some(a.generation)),
        };
        let keys = Arc::new(Xts::new(&*newest.unwrap(&wrapping)?));
        let now = RwLock::new((newest.generation, keys));
        let unsettled = AtomicBool::new(false);
        Ok((Self { wrapping, now, unsettled }, stale.map(slot_offset)))
    }

    /// The keys in force.
    pub(crate) fn keys(&self) -> Arc<Xts> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// How many media keys the store had before the one in force; [`slot_offset`] says where it is.
    pub fn generation(&self) -> u64 {
        self.now.read().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Makes a new media key. Nothing is changed yet.
    pub(crate) fn successor(&self, random: &mut dyn FnMut(&mut [u8])) -> Successor {
        let generation = self.generation() + 1;
        draw(&self.wrapping, generation, random)
    }

    /// From now until [`Self::install`] it is not known which key the store tells.
    pub(crate) fn unsettle(&self) {
        self.unsettled.store(true, Ordering::Release);
    }

    /// The store tells this key, and no other.
    pub(crate) fn install(&self, next: &Successor) {
        let keys = (next.generation, next.keys.clone());
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.unsettled.store(false, Ordering::Release);
    }

    /// False after a replacement that failed: what is written now may not be readable after a
    /// restart, so nothing may be, until another replacement succeeds.
    pub fn is_settled(&self) -> bool {
        !self.unsettled.load(Ordering::Acquire)
    }
}

fn draw(wrapping: &WrappingKey, generation: u64, random: &mut dyn FnMut(&mut [u8])) -> Successor {
    let mut key = MediaKey::new([0; MEDIA_KEY_BYTES]);
    random(&mut key[..]);
    let slot = Header::wrap(generation, &key, wrapping).slot();
    Successor { generation, keys: Arc::new(Xts::new(&key)), slot }
}

#[cfg(test)]
mod tests;
