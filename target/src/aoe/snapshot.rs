//! What a slot remembers across restarts, and how it is written down.
//!
//! ```text
//! "CAoE"  version 1 (u8)  string length (u16 LE)  string
//! number of masked addresses (u8)  addresses  number of reserving ones (u8)  addresses
//! CRC-32 of all before (u32 LE)
//! ```

use corbel_proto::aoe::Mac;
use corbel_proto::aoe::config::STRING_BYTES_MAX;
use corbel_proto::reader::Reader;
use thiserror::Error;

use crate::sealed::{Flaw, Form};

const VERSION: u8 = 1;
const FORM: Form = Form { magic: *b"CAoE", version: VERSION };

/// What clients may set on a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// Config string, at most 1024 bytes.
    pub config: Vec<u8>,
    /// MAC mask list, at most 255; empty lets everybody in.
    pub mask: Vec<Mac>,
    /// Who holds the reservation, at most 255; empty is nobody.
    pub reserve: Vec<Mac>,
}

/// A state file that cannot be believed. Nothing of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Another file, or another version's.
    #[error("not an AoE slot's state of version {VERSION}")]
    Foreign,
    /// The checksum is wrong, or the file has another length than it says.
    #[error("the AoE slot's state is damaged")]
    Damaged,
}

impl Contents {
    /// Writes it down.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        let mut out = FORM.begin();
        let len = u16::try_from(self.config.len()).expect("config strings have 1024 bytes at most");
        out.extend(len.to_le_bytes());
        out.extend(&self.config);
        for list in [&self.mask, &self.reserve] {
            out.push(u8::try_from(list.len()).expect("lists hold 255 addresses at most"));
            list.iter().for_each(|mac| out.extend(mac.0));
        }
        FORM.seal(out)
    }

    /// Reads it back.
    pub(super) fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        let content = FORM.open(bytes).map_err(|flaw| match flaw {
            Flaw::Foreign => RestoreError::Foreign,
            Flaw::Damaged => RestoreError::Damaged,
        })?;
        Self::fields(content).ok_or(RestoreError::Damaged)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes, "AoE slot state", "snapshot.rs");
        let len = usize::from(u16::from_le_bytes(reader.array().ok()?));
        if len > STRING_BYTES_MAX {
            return None;
        }
        let config = reader.take(len).ok()?.to_vec();
        let mut list = || -> Option<Vec<Mac>> {
            let count = reader.u8().ok()?;
            (0..count).map(|_| reader.array().ok().map(Mac)).collect()
        };
        let (mask, reserve) = (list()?, list()?);
        reader.finish().ok()?;
        Some(Self { config, mask, reserve })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Contents {
        let mac = |n| Mac([2, 0, 0, 0, 0, n]);
        Contents { config: b"vms".to_vec(), mask: vec![mac(1), mac(2)], reserve: vec![mac(1)] }
    }

    #[test]
    fn what_was_written_comes_back() {
        let full = Contents {
            config: vec![7; 1024],
            mask: vec![Mac([1; 6]); 255],
            reserve: vec![Mac([2; 6]); 255],
        };
        for contents in [Contents::default(), sample(), full] {
            assert_eq!(Contents::restore(&contents.snapshot()), Ok(contents));
        }
    }

    #[test]
    fn any_flipped_bit_or_lost_byte_is_noticed() {
        let good = sample().snapshot();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Contents::restore(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(Contents::restore(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn another_version_is_foreign_and_lying_lengths_are_damage() {
        let mut newer = sample().snapshot();
        newer[4] = 2;
        assert_eq!(Contents::restore(&newer), Err(RestoreError::Foreign));
        let mut lying = sample().snapshot();
        lying.truncate(lying.len() - 4);
        lying.push(0);
        let sum = crc32fast::hash(&lying);
        lying.extend(sum.to_le_bytes());
        assert_eq!(Contents::restore(&lying), Err(RestoreError::Damaged));
    }
}
