//! What happened, as one number, and in words for whoever replays a seed.

use std::fmt;

use corbel_proto::time::Instant;

/// A running hash of everything that happened.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    aloud: bool,
}

impl Trace {
    /// Nothing happened yet. With `aloud`, every line goes to stderr as well.
    pub const fn new(aloud: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, aloud }
    }

    /// Something happened.
    pub fn note(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3_9e37).rotate_left(29);
    }

    /// Bytes went by.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut whole = [0; 8];
            whole[..word.len()].copy_from_slice(word);
            self.note(u64::from_le_bytes(whole));
        }
        self.note(bytes.len() as u64);
    }

    /// In words, if anybody listens.
    pub fn say(&self, now: Instant, words: impl FnOnce() -> String) {
        if self.aloud {
            let micros = now.as_nanos() / 1000;
            eprintln!("{:>4}.{:06} {}", micros / 1_000_000, micros % 1_000_000, words());
        }
    }

    /// Everything so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash)
    }
}
