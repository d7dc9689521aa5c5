//! The Basic Header Segment (RFC 7143 11.2.1): 48 bytes at the head of every PDU.

use core::fmt;

/// Length of a Basic Header Segment in bytes.
pub const BHS_BYTES: usize = 48;

/// The tag that means "none" in every tag field.
pub const TAG_NONE: u32 = 0xffff_ffff;

/// The final bit, byte 1 bit 7.
pub const FINAL: u8 = 0x80;

/// The largest value DataSegmentLength can carry.
pub const DATA_BYTES_MAX: u32 = 0x00ff_ffff;

/// What a PDU is: the low six bits of byte 0 (RFC 7143 11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Initiator: ping, or the answer to one.
    NopOut = 0x00,
    /// Initiator: SCSI command.
    ScsiCommand = 0x01,
    /// Initiator: task management request.
    TaskRequest = 0x02,
    /// Initiator: login.
    LoginRequest = 0x03,
    /// Initiator: text.
    TextRequest = 0x04,
    /// Initiator: write data.
    DataOut = 0x05,
    /// Initiator: logout.
    LogoutRequest = 0x06,
    /// Initiator: selective acknowledgement.
    Snack = 0x10,
    /// Target: ping, or the answer to one.
    NopIn = 0x20,
    /// Target: SCSI status.
    ScsiResponse = 0x21,
    /// Target: outcome of a task management function.
    TaskResponse = 0x22,
    /// Target: login.
    LoginResponse = 0x23,
    /// Target: text.
    TextResponse = 0x24,
    /// Target: read data.
    DataIn = 0x25,
    /// Target: logout.
    LogoutResponse = 0x26,
    /// Target: ready to take write data.
    R2t = 0x31,
    /// Target: an event nobody asked for.
    Async = 0x32,
    /// Target: refusal of a PDU.
    Reject = 0x3f,
}

impl Opcode {
    /// The opcode of this number, if RFC 7143 defines one.
    pub const fn new(number: u8) -> Option<Self> {
        Some(match number {
            0x00 => Self::NopOut,
            0x01 => Self::ScsiCommand,
            0x02 => Self::TaskRequest,
            0x03 => Self::LoginRequest,
            0x04 => Self::TextRequest,
            0x05 => Self::DataOut,
            0x06 => Self::LogoutRequest,
            0x10 => Self::Snack,
            0x20 => Self::NopIn,
            0x21 => Self::ScsiResponse,
            0x22 => Self::TaskResponse,
            0x23 => Self::LoginResponse,
            0x24 => Self::TextResponse,
            0x25 => Self::DataIn,
            0x26 => Self::LogoutResponse,
            0x31 => Self::R2t,
            0x32 => Self::Async,
            0x3f => Self::Reject,
            _ => return None,
        })
    }
}

/// One header, exactly as it goes over the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bhs(pub [u8; BHS_BYTES]);

impl Bhs {
    /// A header of `opcode` with `flags` in byte 1 and zeros everywhere else.
    pub const fn new(opcode: Opcode, flags: u8) -> Self {
        let mut bytes = [0; BHS_BYTES];
        bytes[0] = opcode as u8;
        bytes[1] = flags;
        Self(bytes)
    }

    /// The opcode's number, six bits.
    pub const fn opcode_number(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// The opcode; `None` if the number is not one of RFC 7143's.
    pub const fn opcode(&self) -> Option<Opcode> {
        Opcode::new(self.opcode_number())
    }

    /// The I bit: deliver at once, outside the command window.
    pub const fn immediate(&self) -> bool {
        self.0[0] & 0x40 != 0
    }

    /// Sets the I bit.
    #[must_use]
    pub const fn with_immediate(mut self, immediate: bool) -> Self {
        if immediate {
            self.0[0] |= 0x40;
        }
        self
    }

    /// Byte 1.
    pub const fn flags(&self) -> u8 {
        self.0[1]
    }

    /// The F bit.
    pub const fn is_final(&self) -> bool {
        self.0[1] & FINAL != 0
    }

    /// Bytes of additional header segments: TotalAHSLength in words, times four; 1020 at most.
    pub const fn ahs_bytes(&self) -> usize {
        self.0[4] as usize * 4
    }

    /// DataSegmentLength: bytes of data without padding and digest.
    pub const fn data_bytes(&self) -> u32 {
        u32::from_be_bytes([0, self.0[5], self.0[6], self.0[7]])
    }

    /// Sets TotalAHSLength. `bytes` is a multiple of four, at most 1020.
    #[must_use]
    pub fn with_ahs_bytes(mut self, bytes: usize) -> Self {
        debug_assert!(bytes.is_multiple_of(4));
        self.0[4] = u8::try_from(bytes / 4).expect("at most 255 words of AHS");
        self
    }

    /// Sets DataSegmentLength.
    ///
    /// # Panics
    /// If `bytes` is above [`DATA_BYTES_MAX`].
    #[must_use]
    pub fn with_data_bytes(mut self, bytes: u32) -> Self {
        assert!(bytes <= DATA_BYTES_MAX, "a data segment has at most 2^24-1 bytes");
        self.0[5..8].copy_from_slice(&bytes.to_be_bytes()[1..]);
        self
    }

    /// Bytes 8 to 15 as a logical unit number (where the PDU has one).
    pub fn lun(&self) -> Lun {
        Lun(self.u64_at(8))
    }

    /// Initiator Task Tag.
    pub fn itt(&self) -> u32 {
        self.u32_at(16)
    }

    /// Two bytes from `at`, big-endian.
    pub fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    /// Four bytes from `at`, big-endian.
    pub fn u32_at(&self, at: usize) -> u32 {
        let field = self.0[at..at + 4].try_into().expect("four bytes");
        u32::from_be_bytes(field)
    }

    /// Eight bytes from `at`, big-endian.
    pub fn u64_at(&self, at: usize) -> u64 {
        let field = self.0[at..at + 8].try_into().expect("eight bytes");
        u64::from_be_bytes(field)
    }

    /// Puts bytes at `at`: fields are given by their `to_be_bytes`.
    #[must_use]
    pub fn put<const N: usize>(mut self, at: usize, field: [u8; N]) -> Self {
        self.0[at..at + N].copy_from_slice(&field);
        self
    }

    /// Puts a four-byte number at `at`, big-endian.
    #[must_use]
    pub fn put_u32(self, at: usize, number: u32) -> Self {
        self.put(at, number.to_be_bytes())
    }
}

impl fmt::Debug for Bhs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.opcode() {
            Some(opcode) => write!(f, "Bhs({opcode:?}")?,
            None => write!(f, "Bhs({:#04x}", self.opcode_number())?,
        }
        write!(f, " flags {:#04x} itt {:#x} data {}", self.flags(), self.itt(), self.data_bytes())?;
        f.write_str(")")
    }
}

/// A logical unit number as SAM-5 4.7 lays it out in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Lun(pub u64);

impl Lun {
    /// The single-level LUN `number`: peripheral addressing below 256, flat space above.
    ///
    /// # Panics
    /// If `number` is above 16383.
    pub fn new(number: u16) -> Self {
        assert!(number < 0x4000, "single-level LUNs have 14 bits");
        let method = if number < 256 { 0 } else { 0x4000 };
        Self(u64::from(number | method) << 48)
    }

    /// The number, if this is a single-level LUN by peripheral (bus 0) or flat space addressing.
    pub fn number(self) -> Option<u16> {
        if self.0 & 0x0000_ffff_ffff_ffff != 0 {
            return None;
        }
        let level = u16::try_from(self.0 >> 48).expect("16 bits are left");
        match level >> 14 {
            0 if level < 256 => Some(level),
            1 => Some(level & 0x3fff),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_sit_in_bytes_four_to_seven() {
        let bhs =
            Bhs::new(Opcode::ScsiCommand, FINAL).with_ahs_bytes(12).with_data_bytes(0x01_0203);
        assert_eq!(bhs.0[..8], [0x01, 0x80, 0, 0, 3, 1, 2, 3]);
        assert_eq!((bhs.ahs_bytes(), bhs.data_bytes()), (12, 0x01_0203));
    }

    #[test]
    fn immediate_bit_is_not_part_of_the_opcode() {
        let bhs = Bhs::new(Opcode::NopOut, FINAL).with_immediate(true);
        assert_eq!(bhs.0[0], 0x40);
        assert_eq!(bhs.opcode(), Some(Opcode::NopOut));
    }

    #[test]
    fn every_opcode_reads_back_and_no_other_number_does() {
        let known = (0..64).filter_map(Opcode::new).collect::<Vec<_>>();
        assert_eq!(known.len(), 18);
        assert!(known.iter().all(|&op| Opcode::new(op as u8) == Some(op)));
    }

    #[test]
    fn luns_by_both_addressing_methods_and_nothing_deeper() {
        assert_eq!(Lun::new(7).0, 0x0007_0000_0000_0000);
        assert_eq!(Lun::new(300).0, 0x412c_0000_0000_0000);
        assert_eq!(Lun::new(300).number(), Some(300));
        assert_eq!(Lun(0x4005_0000_0000_0000).number(), Some(5));
        assert_eq!(Lun(0x0105_0000_0000_0000).number(), None);
        assert_eq!(Lun(0x0005_0001_0000_0000).number(), None);
        assert_eq!(Lun(u64::MAX).number(), None);
    }
}
