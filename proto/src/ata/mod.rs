//! The ATA command set as AoE carries it: registers to commands, IDENTIFY, status.
//!
//! AoE carries one byte each of feature and count and six of LBA, always in sectors of 512
//! bytes. Commands that move more than fits a frame, need interrupts, or exist only for real
//! cables are not here; a device answers them with ABRT, as ACS-3 6.2 asks for.

pub mod command;
pub mod identify;
pub mod status;

pub use command::Command;
pub use identify::Identify;
pub use status::Fault;

/// Bytes in a sector, as ATA over Ethernet counts.
pub const SECTOR_BYTES: u32 = 512;

/// The register set, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// Feature in a command, error in a reply.
    pub feature_error: u8,
    /// Sector count.
    pub count: u8,
    /// Command in a command, status in a reply.
    pub command_status: u8,
    /// LBA, lowest byte first.
    pub lba: [u8; 6],
}

impl Registers {
    /// All 48 bits of the LBA.
    pub fn lba48(&self) -> u64 {
        let [a, b, c, d, e, f] = self.lba;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The 28 bits that a command of the first generation looks at. Linux sends 0xe0, the old
    /// device register, in the top bits of the fourth byte.
    pub fn lba28(&self) -> u64 {
        self.lba48() & 0x0fff_ffff
    }

    /// The same registers with another LBA, of which the low 48 bits are kept.
    #[must_use]
    pub fn with_lba(self, lba: u64) -> Self {
        let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
        Self { lba: [a, b, c, d, e, f], ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lba_is_little_endian_and_lba28_drops_the_device_bits() {
        let registers = Registers { lba: [0x01, 0x02, 0x03, 0xe4, 0, 0], ..Registers::default() };
        assert_eq!(registers.lba28(), 0x0403_0201);
        assert_eq!(registers.lba48(), 0xe403_0201);
        assert_eq!(registers.with_lba(0x0605_0403_0201).lba, [1, 2, 3, 4, 5, 6]);
    }
}
