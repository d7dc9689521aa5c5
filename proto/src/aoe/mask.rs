//! Command 2, MAC Mask List: who may talk to the target at all (AoEr11 section 3.3).

use super::Mac;
use crate::error::Malformed;

/// Bytes in front of the directives.
pub const ARGUMENT_BYTES: usize = 4;

/// Bytes of one directive.
pub const DIRECTIVE_BYTES: usize = 8;

/// Most directives in a message, and so most addresses in a list.
pub const DIRECTIVES_MAX: usize = 255;

mod field {
    pub(super) const RESERVED: usize = 0;
    pub(super) const COMMAND: usize = 1;
    pub(super) const ERROR: usize = 2;
    pub(super) const COUNT: usize = 3;
}

/// What to do with the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Answer with the list.
    Read,
    /// Perform the directives, then answer with the list.
    Edit,
    /// Not a command.
    Other(u8),
}

/// Why an edit was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Error {
    /// Could not be done.
    Unspecified = 1,
    /// Not a directive.
    BadDirective = 2,
    /// The list holds no more.
    Full = 3,
}

/// One step of an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Nothing; in a reply: a member of the list.
    None(Mac),
    /// Put it on the list.
    Add(Mac),
    /// Take it off the list.
    Delete(Mac),
    /// Not a directive.
    Other(u8, Mac),
}

impl Directive {
    fn from_wire(bytes: &[u8]) -> Self {
        let mac = Mac::at(&bytes[2..]);
        match bytes[1] {
            0 => Self::None(mac),
            1 => Self::Add(mac),
            2 => Self::Delete(mac),
            other => Self::Other(other, mac),
        }
    }

    /// Writes the directive at the head of `bytes`, which must hold [`DIRECTIVE_BYTES`].
    fn emit(self, bytes: &mut [u8]) {
        let (number, mac) = match self {
            Self::None(mac) => (0, mac),
            Self::Add(mac) => (1, mac),
            Self::Delete(mac) => (2, mac),
            Self::Other(number, mac) => (number, mac),
        };
        bytes[0] = 0;
        bytes[1] = number;
        bytes[2..DIRECTIVE_BYTES].copy_from_slice(&mac.0);
    }
}

/// A view over an argument, from byte 24 of the frame on.
#[derive(Debug, Clone)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// The view, if `buffer` holds the fields and as many directives as they say.
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        const SECTION: &str = "AoEr11 3.3";
        let bytes = buffer.as_ref();
        if bytes.len() < ARGUMENT_BYTES {
            return Err(Malformed::new("MAC mask argument", "shorter than its fields", SECTION));
        }
        let failed = bytes[field::ERROR] != 0;
        let needed = usize::from(bytes[field::COUNT]) * DIRECTIVE_BYTES;
        // A reply that tells of a failure uses the count for the place of the failure.
        if !failed && bytes.len() - ARGUMENT_BYTES < needed {
            return Err(Malformed::new("MAC mask argument", "fewer directives than said", SECTION));
        }
        Ok(Self(buffer))
    }

    /// The command.
    pub fn command(&self) -> Command {
        match self.0.as_ref()[field::COMMAND] {
            0 => Command::Read,
            1 => Command::Edit,
            other => Command::Other(other),
        }
    }

    /// The error number as sent; 0 is none.
    pub fn error(&self) -> u8 {
        self.0.as_ref()[field::ERROR]
    }

    /// Number of directives; after a failure, the number of the one that failed.
    pub fn count(&self) -> u8 {
        self.0.as_ref()[field::COUNT]
    }

    /// The directives; none after a failure.
    pub fn directives(&self) -> impl ExactSizeIterator<Item = Directive> + '_ {
        let count = if self.error() == 0 { usize::from(self.count()) } else { 0 };
        let bytes = &self.0.as_ref()[ARGUMENT_BYTES..ARGUMENT_BYTES + count * DIRECTIVE_BYTES];
        bytes.chunks_exact(DIRECTIVE_BYTES).map(Directive::from_wire)
    }
}

/// The meaning of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repr {
    /// A request, or a reply that worked: at most [`DIRECTIVES_MAX`] directives.
    List(Command, Vec<Directive>),
    /// An edit failed at the directive with this number; nothing was changed.
    Failed(Error, u8),
}

impl Repr {
    /// Reads an argument. At most 255 directives are allocated.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        match packet.error() {
            0 => Self::List(packet.command(), packet.directives().collect()),
            2 => Self::Failed(Error::BadDirective, packet.count()),
            3 => Self::Failed(Error::Full, packet.count()),
            _ => Self::Failed(Error::Unspecified, packet.count()),
        }
    }

    /// Bytes that [`Self::emit`] writes.
    pub fn buffer_len(&self) -> usize {
        match self {
            Self::List(_, list) => ARGUMENT_BYTES + list.len() * DIRECTIVE_BYTES,
            Self::Failed(..) => ARGUMENT_BYTES,
        }
    }

    /// Writes the argument at the head of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Self::buffer_len`], or the list longer than its maximum.
    pub fn emit(&self, bytes: &mut [u8]) {
        let (command, error, count) = match self {
            Self::List(command, list) => {
                let count = u8::try_from(list.len()).expect("at most 255 directives");
                (*command, 0, count)
            }
            Self::Failed(error, place) => (Command::Edit, *error as u8, *place),
        };
        bytes[field::RESERVED] = 0;
        bytes[field::COMMAND] = match command {
            Command::Read => 0,
            Command::Edit => 1,
            Command::Other(other) => other,
        };
        bytes[field::ERROR] = error;
        bytes[field::COUNT] = count;
        if let Self::List(_, list) = self {
            let places = bytes[ARGUMENT_BYTES..].chunks_exact_mut(DIRECTIVE_BYTES);
            list.iter().zip(places).for_each(|(directive, place)| directive.emit(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET_BYTES: [u8; 20] = [
        0x00, // reserved
        0x01, // edit
        0x00, // no error
        0x02, // two directives
        0x00, 0x01, 0x00, 0x16, 0x3e, 0x00, 0x00, 0x01, // add
        0x00, 0x02, 0x00, 0x16, 0x3e, 0x00, 0x00, 0x02, // delete
    ];

    fn repr() -> Repr {
        Repr::List(
            Command::Edit,
            vec![
                Directive::Add(Mac([0, 0x16, 0x3e, 0, 0, 1])),
                Directive::Delete(Mac([0, 0x16, 0x3e, 0, 0, 2])),
            ],
        )
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&PACKET_BYTES[..]).unwrap();
        assert_eq!((packet.command(), packet.error(), packet.count()), (Command::Edit, 0, 2));
        assert_eq!(packet.directives().len(), 2);
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; 4];
        let failed = Repr::Failed(Error::Full, 7);
        failed.emit(&mut bytes);
        assert_eq!(bytes, [0, 1, 3, 7]);
        assert_eq!(Repr::parse(&Packet::new_checked(&bytes[..]).unwrap()), failed);
    }

    #[test]
    fn parse() {
        assert_eq!(Repr::parse(&Packet::new_checked(&PACKET_BYTES[..]).unwrap()), repr());
    }

    #[test]
    fn emit() {
        let mut bytes = [0xa5; 20];
        repr().emit(&mut bytes);
        assert_eq!(bytes, PACKET_BYTES);
    }

    #[test]
    fn a_count_beyond_the_frame_is_refused() {
        let mut lying = PACKET_BYTES;
        lying[3] = 3;
        assert!(Packet::new_checked(&lying[..]).is_err());
        assert!(Packet::new_checked(&lying[..3]).is_err());
    }
}
