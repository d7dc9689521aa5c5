//! CRC32C as iSCSI puts it on the wire (RFC 7143 13.1).
//!
//! Reflected polynomial, seed of all ones, final complement, and the result sent least significant
//! byte first. A header digest covers BHS and AHS, a data digest the data and its padding.

/// Length of a digest on the wire.
pub const DIGEST_BYTES: usize = 4;

/// A digest being computed over bytes as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(u32);

impl Digest {
    /// The digest of no bytes.
    pub const fn new() -> Self {
        Self(0)
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc32c::crc32c(bytes))
    }

    /// Goes on over `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }

    /// The four bytes that go over the wire.
    pub const fn to_wire(self) -> [u8; DIGEST_BYTES] {
        self.0.to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7143 appendix A.4.
    #[test]
    fn vectors_of_the_standard() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        assert_eq!(Digest::of(&[0; 32]).to_wire(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(Digest::of(&[0xff; 32]).to_wire(), [0x43, 0xab, 0xa8, 0x62]);
        assert_eq!(Digest::of(&ascending).to_wire(), [0x4e, 0x79, 0xdd, 0x46]);
        assert_eq!(Digest::of(&descending).to_wire(), [0x5c, 0xdb, 0x3f, 0x11]);
    }

    #[test]
    fn pieces_give_the_same_digest_as_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in [0, 1, 7, 128, 256] {
            let mut digest = Digest::new();
            digest.update(&bytes[..cut]);
            digest.update(&bytes[cut..]);
            assert_eq!(digest, Digest::of(&bytes));
        }
    }
}
