//! Command 0, Issue ATA Command: a register set, then data (AoEr11 section 3.1).

use crate::ata::Registers;
use crate::error::Malformed;

/// Bytes of the registers; data follows.
pub const ARGUMENT_BYTES: usize = 12;

mod field {
    use core::ops::Range;
    pub(super) const FLAGS: usize = 0;
    pub(super) const ERROR_FEATURE: usize = 1;
    pub(super) const COUNT: usize = 2;
    pub(super) const COMMAND_STATUS: usize = 3;
    pub(super) const LBA: Range<usize> = 4..10;
    pub(super) const RESERVED: Range<usize> = 10..12;
}

/// E: the registers are those of a 48-bit command.
const FLAG_EXTENDED: u8 = 0x40;
/// D: bit 4 of the device/head register.
const FLAG_DEVICE: u8 = 0x10;
/// A: the write may be acknowledged before it is done.
const FLAG_ASYNCHRONOUS: u8 = 0x02;
/// W: data goes to the device.
const FLAG_WRITE: u8 = 0x01;

/// A view over an argument, from byte 24 of the frame on.
#[derive(Debug, Clone)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// The view, if `buffer` holds the registers.
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        if buffer.as_ref().len() < ARGUMENT_BYTES {
            return Err(Malformed::new("ATA argument", "shorter than its fields", "AoEr11 3.1"));
        }
        Ok(Self(buffer))
    }

    fn flag(&self, flag: u8) -> bool {
        self.0.as_ref()[field::FLAGS] & flag != 0
    }

    /// The registers.
    pub fn registers(&self) -> Registers {
        let bytes = self.0.as_ref();
        Registers {
            feature_error: bytes[field::ERROR_FEATURE],
            count: bytes[field::COUNT],
            command_status: bytes[field::COMMAND_STATUS],
            lba: bytes[field::LBA].try_into().expect("a slice of six bytes"),
        }
    }

    /// The data, and whatever padding follows it.
    pub fn data(&self) -> &[u8] {
        &self.0.as_ref()[ARGUMENT_BYTES..]
    }
}

/// The meaning of an argument, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// E flag.
    pub extended: bool,
    /// D flag.
    pub device: bool,
    /// A flag. A server may always ignore it, and one that keeps its promises does.
    pub asynchronous: bool,
    /// W flag.
    pub write: bool,
    /// The register set: command registers in a request, status registers in a reply.
    pub registers: Registers,
}

impl Repr {
    /// Reads the registers and flags. Which of them make sense is for the ATA device to say.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self {
            extended: packet.flag(FLAG_EXTENDED),
            device: packet.flag(FLAG_DEVICE),
            asynchronous: packet.flag(FLAG_ASYNCHRONOUS),
            write: packet.flag(FLAG_WRITE),
            registers: packet.registers(),
        }
    }

    /// Bytes that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        ARGUMENT_BYTES
    }

    /// Writes flags and registers at the head of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Self::buffer_len`].
    pub fn emit(&self, bytes: &mut [u8]) {
        let flags = [
            (self.extended, FLAG_EXTENDED),
            (self.device, FLAG_DEVICE),
            (self.asynchronous, FLAG_ASYNCHRONOUS),
            (self.write, FLAG_WRITE),
        ];
        bytes[field::FLAGS] = flags.iter().filter(|f| f.0).map(|f| f.1).sum();
        bytes[field::ERROR_FEATURE] = self.registers.feature_error;
        bytes[field::COUNT] = self.registers.count;
        bytes[field::COMMAND_STATUS] = self.registers.command_status;
        bytes[field::LBA].copy_from_slice(&self.registers.lba);
        bytes[field::RESERVED].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET_BYTES: [u8; 14] = [
        0x41, // E, W
        0x00, // feature
        0x02, // two sectors
        0x34, // WRITE SECTORS EXT
        0x06, 0x05, 0x04, 0x03, 0x02, 0x01, // LBA 0x010203040506, lowest byte first
        0x00, 0x00, // reserved
        0xaa, 0xbb, // data
    ];

    fn repr() -> Repr {
        Repr {
            extended: true,
            device: false,
            asynchronous: false,
            write: true,
            registers: Registers {
                feature_error: 0,
                count: 2,
                command_status: 0x34,
                lba: [6, 5, 4, 3, 2, 1],
            },
        }
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&PACKET_BYTES[..]).unwrap();
        assert_eq!(packet.registers().lba48(), 0x0102_0304_0506);
        assert_eq!(packet.data(), [0xaa, 0xbb]);
        assert!(Packet::new_checked(&PACKET_BYTES[..11]).is_err());
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; 12];
        let repr =
            Repr { extended: false, device: true, asynchronous: true, write: false, ..repr() };
        repr.emit(&mut bytes);
        assert_eq!(bytes[0], 0x12);
        assert_eq!(Repr::parse(&Packet::new_checked(&bytes[..]).unwrap()), repr);
    }

    #[test]
    fn parse() {
        assert_eq!(Repr::parse(&Packet::new_checked(&PACKET_BYTES[..]).unwrap()), repr());
    }

    #[test]
    fn emit() {
        let mut bytes = [0xa5; 12];
        repr().emit(&mut bytes);
        assert_eq!(bytes, PACKET_BYTES[..12]);
    }
}
