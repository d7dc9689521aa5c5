//! The header in front of every AoE frame, Ethernet header included (AoEr11 section 2).

use super::{ETHERTYPE, HEADER_BYTES, Mac, VERSION};
use crate::error::Malformed;

const SECTION: &str = "AoEr11 2";

mod field {
    use core::ops::Range;
    pub(super) const DESTINATION: Range<usize> = 0..6;
    pub(super) const SOURCE: Range<usize> = 6..12;
    pub(super) const TYPE: Range<usize> = 12..14;
    pub(super) const VERSION_FLAGS: usize = 14;
    pub(super) const ERROR: usize = 15;
    pub(super) const MAJOR: Range<usize> = 16..18;
    pub(super) const MINOR: usize = 18;
    pub(super) const COMMAND: usize = 19;
    pub(super) const TAG: Range<usize> = 20..24;
}

/// R: this is a response.
const FLAG_RESPONSE: u8 = 0x08;
/// E: the error field is valid.
const FLAG_ERROR: u8 = 0x04;

/// The command code (AoEr11 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Issue an ATA command.
    Ata,
    /// Query or set the config string.
    Config,
    /// Read or edit the MAC mask list.
    Mask,
    /// Reserve or release.
    Reserve,
    /// Reserved codes, and 240 to 255, which belong to vendors.
    Other(u8),
}

impl From<u8> for Code {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Ata,
            1 => Self::Config,
            2 => Self::Mask,
            3 => Self::Reserve,
            other => Self::Other(other),
        }
    }
}

impl From<Code> for u8 {
    fn from(code: Code) -> Self {
        match code {
            Code::Ata => 0,
            Code::Config => 1,
            Code::Mask => 2,
            Code::Reserve => 3,
            Code::Other(other) => other,
        }
    }
}

/// Why a server refuses a frame (AoEr11 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Error {
    /// The server does not know this command.
    UnrecognizedCommand = 1,
    /// The argument is not valid for the command.
    BadArgument = 2,
    /// The device does not take ATA commands now.
    DeviceUnavailable = 3,
    /// A config string is set, and it is another one.
    ConfigStringPresent = 4,
    /// The server does not speak this version.
    UnsupportedVersion = 5,
    /// Reserved for others.
    TargetReserved = 6,
}

impl Error {
    /// The error with this number, if there is one.
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::UnrecognizedCommand,
            2 => Self::BadArgument,
            3 => Self::DeviceUnavailable,
            4 => Self::ConfigStringPresent,
            5 => Self::UnsupportedVersion,
            6 => Self::TargetReserved,
            _ => return None,
        })
    }
}

/// A view over a whole frame, from the destination address on.
#[derive(Debug, Clone)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// The view, if `buffer` holds a header of the AoE Ethernet type.
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        let bytes = buffer.as_ref();
        if bytes.len() < HEADER_BYTES {
            return Err(Malformed::new("AoE header", "shorter than its fields", SECTION));
        }
        if bytes[field::TYPE] != ETHERTYPE.to_be_bytes() {
            return Err(Malformed::new("AoE header", "another Ethernet type", "AoEr11 2.1"));
        }
        Ok(Self(buffer))
    }

    /// The destination address.
    pub fn destination(&self) -> Mac {
        Mac::at(&self.0.as_ref()[field::DESTINATION])
    }

    /// The source address.
    pub fn source(&self) -> Mac {
        Mac::at(&self.0.as_ref()[field::SOURCE])
    }

    /// The protocol version (4 bits), which may be wrong.
    pub fn version(&self) -> u8 {
        self.0.as_ref()[field::VERSION_FLAGS] >> 4
    }

    /// The R flag.
    pub fn is_response(&self) -> bool {
        self.0.as_ref()[field::VERSION_FLAGS] & FLAG_RESPONSE != 0
    }

    /// The error number, if the E flag is set; it may be unknown.
    pub fn error(&self) -> Option<u8> {
        let bytes = self.0.as_ref();
        (bytes[field::VERSION_FLAGS] & FLAG_ERROR != 0).then(|| bytes[field::ERROR])
    }

    /// The shelf, "major".
    pub fn shelf(&self) -> u16 {
        let bytes = self.0.as_ref();
        u16::from_be_bytes([bytes[field::MAJOR.start], bytes[field::MAJOR.start + 1]])
    }

    /// The slot, "minor".
    pub fn slot(&self) -> u8 {
        self.0.as_ref()[field::MINOR]
    }

    /// The command.
    pub fn code(&self) -> Code {
        self.0.as_ref()[field::COMMAND].into()
    }

    /// The client's tag.
    pub fn tag(&self) -> u32 {
        let tag = &self.0.as_ref()[field::TAG];
        u32::from_be_bytes(tag.try_into().expect("a slice of four bytes"))
    }

    /// What follows the header, padding included.
    pub fn argument(&self) -> &[u8] {
        &self.0.as_ref()[HEADER_BYTES..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// A view to be written through.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`HEADER_BYTES`].
    pub fn new_unwritten(buffer: T) -> Self {
        assert!(buffer.as_ref().len() >= HEADER_BYTES, "no room for an AoE header");
        Self(buffer)
    }

    /// Writes every field, the Ethernet type included. Version as given, so that tests can lie.
    fn write(&mut self, repr: &Repr) {
        let mut flags = (repr.version & 0x0f) << 4;
        if repr.response {
            flags |= FLAG_RESPONSE;
        }
        if repr.error.is_some() {
            flags |= FLAG_ERROR;
        }
        let bytes = self.0.as_mut();
        bytes[field::DESTINATION].copy_from_slice(&repr.destination.0);
        bytes[field::SOURCE].copy_from_slice(&repr.source.0);
        bytes[field::TYPE].copy_from_slice(&ETHERTYPE.to_be_bytes());
        bytes[field::VERSION_FLAGS] = flags;
        bytes[field::ERROR] = repr.error.map_or(0, |e| e as u8);
        bytes[field::MAJOR].copy_from_slice(&repr.shelf.to_be_bytes());
        bytes[field::MINOR] = repr.slot;
        bytes[field::COMMAND] = repr.code.into();
        bytes[field::TAG].copy_from_slice(&repr.tag.to_be_bytes());
    }
}

/// The meaning of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// Protocol version as sent; only [`VERSION`] has a meaning.
    pub version: u8,
    /// R flag.
    pub response: bool,
    /// E flag and error number. Numbers without a name read as [`Error::BadArgument`].
    pub error: Option<Error>,
    /// Shelf, or [`super::SHELF_BROADCAST`].
    pub shelf: u16,
    /// Slot, or [`super::SLOT_BROADCAST`].
    pub slot: u8,
    /// Command.
    pub code: Code,
    /// Chosen by the client, returned by the server.
    pub tag: u32,
}

impl Repr {
    /// Reads a header. Never fails on a checked packet; the version is for the caller to judge.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self {
            destination: packet.destination(),
            source: packet.source(),
            version: packet.version(),
            response: packet.is_response(),
            error: packet.error().map(|n| Error::from_wire(n).unwrap_or(Error::BadArgument)),
            shelf: packet.shelf(),
            slot: packet.slot(),
            code: packet.code(),
            tag: packet.tag(),
        }
    }

    /// Bytes that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        HEADER_BYTES
    }

    /// Writes the header.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.write(self);
    }

    /// The header of the reply that `shelf.slot`, reached at `source`, gives to this request.
    pub const fn reply(&self, source: Mac, shelf: u16, slot: u8, error: Option<Error>) -> Self {
        Self {
            destination: self.source,
            source,
            version: VERSION,
            response: true,
            error,
            shelf,
            slot,
            code: self.code,
            tag: self.tag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET_BYTES: [u8; 24] = [
        0x00, 0x16, 0x3e, 0x00, 0x00, 0x01, // destination
        0x00, 0x16, 0x3e, 0x00, 0x00, 0x02, // source
        0x88, 0xa2, // type
        0x1c, // version 1, R, E
        0x04, // config string present
        0x01, 0x02, 0x03, // shelf 258, slot 3
        0x01, // Query Config
        0x80, 0x00, 0x00, 0x07, // tag
    ];

    fn repr() -> Repr {
        Repr {
            destination: Mac([0, 0x16, 0x3e, 0, 0, 1]),
            source: Mac([0, 0x16, 0x3e, 0, 0, 2]),
            version: 1,
            response: true,
            error: Some(Error::ConfigStringPresent),
            shelf: 258,
            slot: 3,
            code: Code::Config,
            tag: 0x8000_0007,
        }
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&PACKET_BYTES[..]).unwrap();
        assert_eq!(packet.destination().to_string(), "00:16:3e:00:00:01");
        assert_eq!(packet.source().to_string(), "00:16:3e:00:00:02");
        assert_eq!((packet.version(), packet.is_response()), (1, true));
        assert_eq!(packet.error(), Some(4));
        assert_eq!((packet.shelf(), packet.slot()), (258, 3));
        assert_eq!((packet.code(), packet.tag()), (Code::Config, 0x8000_0007));
        assert!(packet.argument().is_empty());
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; 24];
        let request = Repr { response: false, error: None, code: Code::Other(240), ..repr() };
        request.emit(&mut Packet::new_unwritten(&mut bytes[..]));
        assert_eq!(bytes[14..16], [0x10, 0]);
        assert_eq!(bytes[19], 240);
        assert_eq!(Repr::parse(&Packet::new_checked(&bytes[..]).unwrap()), request);
    }

    #[test]
    fn parse() {
        assert_eq!(Repr::parse(&Packet::new_checked(&PACKET_BYTES[..]).unwrap()), repr());
    }

    #[test]
    fn emit() {
        let mut bytes = [0xa5; 24];
        repr().emit(&mut Packet::new_unwritten(&mut bytes[..]));
        assert_eq!(bytes, PACKET_BYTES);
    }

    #[test]
    fn short_frames_and_other_types_are_refused() {
        assert!(Packet::new_checked(&PACKET_BYTES[..23]).is_err());
        let mut other = PACKET_BYTES;
        other[13] = 0xa3;
        assert!(Packet::new_checked(&other[..]).is_err());
    }

    #[test]
    fn a_reply_swaps_addresses_and_names_its_own_shelf() {
        let query = Repr { response: false, error: None, shelf: 0xffff, slot: 0xff, ..repr() };
        let own = Mac([2, 0, 0, 0, 0, 9]);
        let reply = query.reply(own, 7, 1, None);
        assert_eq!((reply.destination, reply.source), (query.source, own));
        assert_eq!((reply.shelf, reply.slot, reply.tag), (7, 1, query.tag));
        assert!(reply.response);
    }
}
