//! READ CAPACITY data (SBC-3 5.15.2, 5.16.2).

/// What READ CAPACITY tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The last block's address.
    pub last_lba: u64,
    /// Bytes in a logical block.
    pub block_bytes: u32,
    /// Logical blocks in a physical block, as a power of two.
    pub physical_exponent: u8,
    /// LBPME: blocks can be deallocated.
    pub thin: bool,
    /// LBPRZ: deallocated blocks read as zeros.
    pub thin_zeroes: bool,
}

impl Capacity {
    /// READ CAPACITY (10). A unit that is too large tells so by 0xffffffff.
    pub fn emit10(&self) -> Vec<u8> {
        let last = u32::try_from(self.last_lba).unwrap_or(u32::MAX);
        [last.to_be_bytes(), self.block_bytes.to_be_bytes()].concat()
    }

    /// READ CAPACITY (16).
    pub fn emit16(&self) -> Vec<u8> {
        let mut out = vec![0; 32];
        out[..8].copy_from_slice(&self.last_lba.to_be_bytes());
        out[8..12].copy_from_slice(&self.block_bytes.to_be_bytes());
        out[13] = self.physical_exponent & 0x0f;
        out[14] = u8::from(self.thin) << 7 | u8::from(self.thin && self.thin_zeroes) << 6;
        out
    }

    /// Reads READ CAPACITY (10) data. The last LBA is `0xffffffff` if (16) must be asked.
    pub fn parse10(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; 8] = bytes.first_chunk()?;
        Some(Self {
            last_lba: u64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]])),
            block_bytes: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
            physical_exponent: 0,
            thin: false,
            thin_zeroes: false,
        })
    }

    /// Reads READ CAPACITY (16) data; `None` if it has fewer than 16 bytes.
    pub fn parse16(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; 16] = bytes.first_chunk()?;
        Some(Self {
            last_lba: u64::from_be_bytes(*b.first_chunk()?),
            block_bytes: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
            physical_exponent: b[13] & 0x0f,
            thin: b[14] & 0x80 != 0,
            thin_zeroes: b[14] & 0x40 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIN: Capacity = Capacity {
        last_lba: 0x1_0000_0001,
        block_bytes: 512,
        physical_exponent: 3,
        thin: true,
        thin_zeroes: true,
    };

    #[test]
    fn capacity16_reads_back() {
        assert_eq!(Capacity::parse16(&THIN.emit16()), Some(THIN));
        assert_eq!(Capacity::parse16(&THIN.emit16()[..15]), None);
    }

    #[test]
    fn capacity10_of_a_large_unit_sends_the_reader_to_16() {
        assert_eq!(THIN.emit10(), [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
        let small = Capacity { last_lba: 7, ..THIN };
        assert_eq!(Capacity::parse10(&small.emit10()).unwrap().last_lba, 7);
    }

    #[test]
    fn zeroing_is_not_claimed_without_deallocation() {
        let fat = Capacity { thin: false, ..THIN };
        assert_eq!(fat.emit16()[14], 0);
    }
}
