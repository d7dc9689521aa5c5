//! Registers to commands (ACS-3 section 7).

use super::Registers;
use crate::error::Malformed;

/// Opcodes of the commands that are read here.
pub mod opcode {
    #![allow(missing_docs, reason = "the names are the standard's own")]
    pub const DATA_SET_MANAGEMENT: u8 = 0x06;
    pub const READ_SECTORS: u8 = 0x20;
    pub const READ_SECTORS_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const WRITE_SECTORS: u8 = 0x30;
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const READ_VERIFY_SECTORS: u8 = 0x40;
    pub const READ_VERIFY_SECTORS_EXT: u8 = 0x42;
    pub const SMART: u8 = 0xb0;
    pub const READ_DMA: u8 = 0xc8;
    pub const WRITE_DMA: u8 = 0xca;
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    pub const CHECK_POWER_MODE: u8 = 0xe5;
    pub const FLUSH_CACHE: u8 = 0xe7;
    pub const FLUSH_CACHE_EXT: u8 = 0xea;
    pub const IDENTIFY_DEVICE: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
}

/// Sectors in a row, not yet checked against any device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First sector, below 2^48.
    pub lba: u64,
    /// Number of sectors, never 0, at most 65536.
    pub sectors: u32,
}

/// What SMART can be asked for (ACS-3 7.48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smart {
    /// SMART READ DATA: 512 bytes.
    ReadData,
    /// SMART READ ATTRIBUTE THRESHOLDS (obsolete since ACS, still probed): 512 bytes.
    ReadThresholds,
    /// SMART ENABLE OPERATIONS.
    Enable,
    /// SMART RETURN STATUS.
    ReturnStatus,
}

/// SET FEATURES subcommands (ACS-3 7.45).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// 02h: enable the volatile write cache.
    WriteCacheOn,
    /// 82h: disable the volatile write cache.
    WriteCacheOff,
    /// 03h: set the transfer mode, which a cable that is Ethernet does not have.
    TransferMode,
    /// AAh and 55h: read look-ahead.
    LookAhead,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// READ SECTORS, READ DMA, and EXT.
    Read(Extent),
    /// WRITE SECTORS, WRITE DMA, and EXT.
    Write(Extent),
    /// READ VERIFY SECTORS and EXT: read without moving data.
    Verify(Extent),
    /// FLUSH CACHE and EXT.
    Flush,
    /// DATA SET MANAGEMENT with TRIM: this many 512-byte blocks of [`TrimRanges`] follow.
    Trim {
        /// Blocks of ranges, never 0.
        blocks: u32,
    },
    /// IDENTIFY DEVICE.
    Identify,
    /// CHECK POWER MODE.
    CheckPowerMode,
    /// STANDBY IMMEDIATE: the cache is flushed, the media may stop.
    StandbyImmediate,
    /// IDLE IMMEDIATE.
    IdleImmediate,
    /// SMART.
    Smart(Smart),
    /// SET FEATURES.
    SetFeatures(Feature),
    /// Anything else: to be answered with ABRT.
    Unsupported(u8),
}

impl Command {
    /// Reads the registers of a command. Whether they hold 28 or 48 bits of LBA depends on the
    /// opcode alone: clients disagree about the E flag. Addresses are never cylinders and heads.
    pub fn parse(registers: &Registers) -> Self {
        use opcode as op;
        let short = Extent { lba: registers.lba28(), sectors: count(registers.count, 256) };
        let long = Extent { lba: registers.lba48(), sectors: count(registers.count, 65_536) };
        match registers.command_status {
            op::READ_SECTORS | op::READ_DMA => Self::Read(short),
            op::READ_SECTORS_EXT | op::READ_DMA_EXT => Self::Read(long),
            op::WRITE_SECTORS | op::WRITE_DMA => Self::Write(short),
            op::WRITE_SECTORS_EXT | op::WRITE_DMA_EXT => Self::Write(long),
            op::READ_VERIFY_SECTORS => Self::Verify(short),
            op::READ_VERIFY_SECTORS_EXT => Self::Verify(long),
            op::FLUSH_CACHE | op::FLUSH_CACHE_EXT => Self::Flush,
            op::DATA_SET_MANAGEMENT if registers.feature_error & 1 == 1 => {
                Self::Trim { blocks: long.sectors }
            }
            op::IDENTIFY_DEVICE => Self::Identify,
            op::CHECK_POWER_MODE => Self::CheckPowerMode,
            op::STANDBY_IMMEDIATE => Self::StandbyImmediate,
            op::IDLE_IMMEDIATE => Self::IdleImmediate,
            op::SMART => smart(registers),
            op::SET_FEATURES => set_features(registers),
            other => Self::Unsupported(other),
        }
    }
}

/// The count register: 0 means the largest value the command generation knows.
fn count(register: u8, zero_means: u32) -> u32 {
    if register == 0 { zero_means } else { u32::from(register) }
}

fn smart(registers: &Registers) -> Command {
    // ACS-3 7.48.2: LBA mid 4Fh and high C2h, or it is not a SMART command.
    if registers.lba[1..3] != [0x4f, 0xc2] {
        return Command::Unsupported(opcode::SMART);
    }
    match registers.feature_error {
        0xd0 => Command::Smart(Smart::ReadData),
        0xd1 => Command::Smart(Smart::ReadThresholds),
        0xd8 => Command::Smart(Smart::Enable),
        0xda => Command::Smart(Smart::ReturnStatus),
        _ => Command::Unsupported(opcode::SMART),
    }
}

fn set_features(registers: &Registers) -> Command {
    match registers.feature_error {
        0x02 => Command::SetFeatures(Feature::WriteCacheOn),
        0x82 => Command::SetFeatures(Feature::WriteCacheOff),
        0x03 => Command::SetFeatures(Feature::TransferMode),
        0xaa | 0x55 => Command::SetFeatures(Feature::LookAhead),
        _ => Command::Unsupported(opcode::SET_FEATURES),
    }
}

/// The data of a TRIM: eight-byte entries, little-endian, 48 bits of LBA and 16 of length; a
/// length of 0 is no entry (ACS-3 7.5.3.2).
#[derive(Debug, Clone)]
pub struct TrimRanges<'a>(core::slice::ChunksExact<'a, u8>);

impl<'a> TrimRanges<'a> {
    /// The entries in `data`, a whole number of sectors.
    pub fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        if data.is_empty() || !data.len().is_multiple_of(512) {
            return Err(Malformed::new("TRIM ranges", "not whole sectors", "ACS-3 7.5.3.2"));
        }
        Ok(Self(data.chunks_exact(8)))
    }

    /// Sectors that one block of ranges can name, when each entry but the last starts on 4 KiB.
    pub const SECTORS_MAX: u64 = 64 * Self::ENTRY_SECTORS;

    /// Sectors of one entry here: 65535, rounded down to 4 KiB.
    const ENTRY_SECTORS: u64 = 0xfff8;

    /// One block that names `sectors` (1 to [`Self::SECTORS_MAX`]) sectors from `lba` on.
    ///
    /// # Panics
    /// If there are more.
    pub fn emit(lba: u64, sectors: u64) -> [u8; 512] {
        assert!(sectors <= Self::SECTORS_MAX, "more than one block can name");
        let mut block = [0; 512];
        let (mut lba, mut left) = (lba, sectors);
        for entry in block.chunks_exact_mut(8) {
            let len = left.min(Self::ENTRY_SECTORS);
            if len > 0 {
                entry.copy_from_slice(&(len << 48 | lba & 0xffff_ffff_ffff).to_le_bytes());
            }
            (lba, left) = (lba + len, left - len);
        }
        block
    }
}

impl Iterator for TrimRanges<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        loop {
            let entry = u64::from_le_bytes(self.0.next()?.try_into().expect("chunks of eight"));
            let sectors = u32::try_from(entry >> 48).expect("sixteen bits");
            if sectors != 0 {
                return Some(Extent { lba: entry & 0xffff_ffff_ffff, sectors });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(command: u8, feature: u8, count: u8, lba: [u8; 6]) -> Registers {
        Registers { feature_error: feature, count, command_status: command, lba }
    }

    #[test]
    fn short_commands_take_28_bits_and_long_ones_48() {
        let lba = [1, 2, 3, 0xe4, 5, 6];
        for op in [0x20, 0xc8] {
            let command = Command::parse(&registers(op, 0, 2, lba));
            assert_eq!(command, Command::Read(Extent { lba: 0x0403_0201, sectors: 2 }));
        }
        for op in [0x34, 0x35] {
            let command = Command::parse(&registers(op, 0, 2, lba));
            assert_eq!(command, Command::Write(Extent { lba: 0x0605_e403_0201, sectors: 2 }));
        }
    }

    #[test]
    fn a_count_of_zero_is_the_largest_count() {
        let read = Command::parse(&registers(0x40, 0, 0, [0; 6]));
        assert_eq!(read, Command::Verify(Extent { lba: 0, sectors: 256 }));
        let read = Command::parse(&registers(0x42, 0, 0, [0; 6]));
        assert_eq!(read, Command::Verify(Extent { lba: 0, sectors: 65_536 }));
    }

    #[test]
    fn smart_needs_its_signature() {
        let signed = [0, 0x4f, 0xc2, 0, 0, 0];
        let status = Command::parse(&registers(0xb0, 0xda, 0, signed));
        assert_eq!(status, Command::Smart(Smart::ReturnStatus));
        assert_eq!(Command::parse(&registers(0xb0, 0xda, 0, [0; 6])), Command::Unsupported(0xb0));
        assert_eq!(Command::parse(&registers(0xb0, 0xd9, 0, signed)), Command::Unsupported(0xb0));
    }

    #[test]
    fn what_is_not_known_keeps_its_opcode() {
        for op in [0x00, 0x08, 0x3d, 0x60, 0xa1, 0xc4, 0xff] {
            assert_eq!(Command::parse(&registers(op, 0, 1, [0; 6])), Command::Unsupported(op));
        }
        assert_eq!(Command::parse(&registers(0x06, 0, 1, [0; 6])), Command::Unsupported(0x06));
    }

    #[test]
    fn trim_entries_of_no_length_are_skipped() {
        let mut data = [0u8; 512];
        data[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 0x10, 0x00]);
        data[16..24].copy_from_slice(&[9, 0, 0, 0, 0, 0, 0xff, 0xff]);
        let ranges: Vec<_> = TrimRanges::parse(&data).unwrap().collect();
        assert_eq!(
            ranges,
            [Extent { lba: 0x0605_0403_0201, sectors: 16 }, Extent { lba: 9, sectors: 65_535 }]
        );
        assert!(TrimRanges::parse(&data[..511]).is_err());
        assert!(TrimRanges::parse(&[]).is_err());
    }

    #[test]
    fn emitted_ranges_name_every_sector_once() {
        for sectors in [1, 0xfff8, 0xfff9, TrimRanges::SECTORS_MAX] {
            let block = TrimRanges::emit(77, sectors);
            let ranges: Vec<_> = TrimRanges::parse(&block).unwrap().collect();
            let mut next = 77;
            for range in ranges {
                assert_eq!(range.lba, next);
                next += u64::from(range.sectors);
            }
            assert_eq!(next, 77 + sectors);
        }
    }
}
