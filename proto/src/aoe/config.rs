//! Command 1, Query Config Information: discovery, and a string to tell targets by
//! (AoEr11 section 3.2).

use super::VERSION;
use crate::error::Malformed;

/// Bytes in front of the string.
pub const ARGUMENT_BYTES: usize = 8;

/// The longest config string.
pub const STRING_BYTES_MAX: usize = 1024;

mod field {
    use core::ops::Range;
    pub(super) const BUFFER_COUNT: Range<usize> = 0..2;
    pub(super) const FIRMWARE: Range<usize> = 2..4;
    pub(super) const SECTORS: usize = 4;
    pub(super) const VERSION_COMMAND: usize = 5;
    pub(super) const LENGTH: Range<usize> = 6..8;
}

/// What to do with the string (AoEr11 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Answer with the string.
    Read,
    /// Answer only if the string is exactly this.
    Test,
    /// Answer only if the string begins with this.
    TestPrefix,
    /// Set it, if it is empty or already this.
    Set,
    /// Set it whatever it is.
    ForceSet,
    /// Not a command.
    Other(u8),
}

impl From<u8> for Command {
    fn from(number: u8) -> Self {
        match number & 0x0f {
            0 => Self::Read,
            1 => Self::Test,
            2 => Self::TestPrefix,
            3 => Self::Set,
            4 => Self::ForceSet,
            other => Self::Other(other),
        }
    }
}

impl From<Command> for u8 {
    fn from(command: Command) -> Self {
        match command {
            Command::Read => 0,
            Command::Test => 1,
            Command::TestPrefix => 2,
            Command::Set => 3,
            Command::ForceSet => 4,
            Command::Other(other) => other & 0x0f,
        }
    }
}

/// A view over an argument, from byte 24 of the frame on.
#[derive(Debug, Clone)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// The view, if `buffer` holds the fields and as much string as they say.
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        const SECTION: &str = "AoEr11 3.2";
        let bytes = buffer.as_ref();
        if bytes.len() < ARGUMENT_BYTES {
            return Err(Malformed::new("config argument", "shorter than its fields", SECTION));
        }
        let packet = Self(buffer);
        let len = packet.string_len();
        if len > STRING_BYTES_MAX {
            return Err(Malformed::new("config string", "longer than 1024 bytes", SECTION));
        }
        if len > packet.0.as_ref().len() - ARGUMENT_BYTES {
            return Err(Malformed::new("config string", "longer than its frame", SECTION));
        }
        Ok(packet)
    }

    fn u16_at(&self, start: usize) -> u16 {
        let bytes = self.0.as_ref();
        u16::from_be_bytes([bytes[start], bytes[start + 1]])
    }

    /// Outstanding messages the server can queue.
    pub fn buffer_count(&self) -> u16 {
        self.u16_at(field::BUFFER_COUNT.start)
    }

    /// The server's firmware version.
    pub fn firmware(&self) -> u16 {
        self.u16_at(field::FIRMWARE.start)
    }

    /// Most sectors in one ATA command. As sent: 0 means 2.
    pub fn sectors(&self) -> u8 {
        self.0.as_ref()[field::SECTORS]
    }

    /// The AoE version the server speaks. Requests of common clients leave it 0.
    pub fn version(&self) -> u8 {
        self.0.as_ref()[field::VERSION_COMMAND] >> 4
    }

    /// The command.
    pub fn command(&self) -> Command {
        self.0.as_ref()[field::VERSION_COMMAND].into()
    }

    fn string_len(&self) -> usize {
        usize::from(self.u16_at(field::LENGTH.start))
    }

    /// The string: any bytes.
    pub fn string(&self) -> &[u8] {
        &self.0.as_ref()[ARGUMENT_BYTES..ARGUMENT_BYTES + self.string_len()]
    }
}

/// The meaning of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr<'a> {
    /// Outstanding messages the server can queue; more are dropped. 0 in requests. Clients start
    /// with half of it, so a server must never say 0 or 1.
    pub buffer_count: u16,
    /// The server's firmware version. 0 in requests.
    pub firmware: u16,
    /// Most sectors in one ATA command. 0 in requests; in a reply 0 means 2.
    pub sectors: u8,
    /// What to do.
    pub command: Command,
    /// The config string, at most [`STRING_BYTES_MAX`] bytes.
    pub string: &'a [u8],
}

impl<'a> Repr<'a> {
    /// Reads an argument. The version in it is not judged: the Linux client leaves it 0.
    pub fn parse<T: AsRef<[u8]>>(packet: &'a Packet<T>) -> Self {
        Self {
            buffer_count: packet.buffer_count(),
            firmware: packet.firmware(),
            sectors: packet.sectors(),
            command: packet.command(),
            string: packet.string(),
        }
    }

    /// Bytes that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        ARGUMENT_BYTES + self.string.len()
    }

    /// Writes the argument at the head of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Self::buffer_len`], or the string longer than its maximum.
    pub fn emit(&self, bytes: &mut [u8]) {
        assert!(self.string.len() <= STRING_BYTES_MAX, "config string too long");
        let len = u16::try_from(self.string.len()).expect("checked above");
        bytes[field::BUFFER_COUNT].copy_from_slice(&self.buffer_count.to_be_bytes());
        bytes[field::FIRMWARE].copy_from_slice(&self.firmware.to_be_bytes());
        bytes[field::SECTORS] = self.sectors;
        bytes[field::VERSION_COMMAND] = VERSION << 4 | u8::from(self.command);
        bytes[field::LENGTH].copy_from_slice(&len.to_be_bytes());
        bytes[ARGUMENT_BYTES..ARGUMENT_BYTES + self.string.len()].copy_from_slice(self.string);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET_BYTES: [u8; 11] = [
        0x00, 0x80, // 128 buffers
        0x40, 0x10, // firmware
        0x10, // 16 sectors
        0x13, // version 1, set
        0x00, 0x03, // length
        b'v', b'm', b's',
    ];

    const REPR: Repr<'static> = Repr {
        buffer_count: 128,
        firmware: 0x4010,
        sectors: 16,
        command: Command::Set,
        string: b"vms",
    };

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&PACKET_BYTES[..]).unwrap();
        assert_eq!((packet.buffer_count(), packet.firmware()), (128, 0x4010));
        assert_eq!((packet.sectors(), packet.version()), (16, 1));
        assert_eq!((packet.command(), packet.string()), (Command::Set, &b"vms"[..]));
    }

    #[test]
    fn construct() {
        for number in 0..16u8 {
            let repr = Repr { command: number.into(), string: b"", ..REPR };
            let mut bytes = [0; 8];
            repr.emit(&mut bytes);
            assert_eq!(bytes[5], 0x10 | number);
        }
    }

    #[test]
    fn parse() {
        let mut padded = PACKET_BYTES.to_vec();
        padded.resize(36, 0);
        assert_eq!(Repr::parse(&Packet::new_checked(&padded[..]).unwrap()), REPR);
    }

    #[test]
    fn emit() {
        let mut bytes = [0xa5; 11];
        REPR.emit(&mut bytes);
        assert_eq!(bytes, PACKET_BYTES);
        assert_eq!(REPR.buffer_len(), 11);
    }

    #[test]
    fn a_string_longer_than_its_frame_or_1024_is_refused() {
        let mut lying = PACKET_BYTES;
        lying[7] = 4;
        assert!(Packet::new_checked(&lying[..]).is_err());
        let mut long = vec![0; 2000];
        long[6..8].copy_from_slice(&1024u16.to_be_bytes());
        assert!(Packet::new_checked(&long[..]).is_ok());
        long[6..8].copy_from_slice(&1025u16.to_be_bytes());
        assert!(Packet::new_checked(&long[..]).is_err());
    }
}
