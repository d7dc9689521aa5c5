//! Command 3, Reserve / Release: who may use the disk now (AoEr11 section 3.4).

use super::Mac;
use crate::error::Malformed;

/// Bytes in front of the addresses.
pub const ARGUMENT_BYTES: usize = 2;

/// Most addresses in a reservation.
pub const MACS_MAX: usize = 255;

const MAC_BYTES: usize = 6;

/// What to do with the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Answer with the list.
    Read,
    /// Set it, if it is empty or the sender is on it. An empty list releases.
    Set,
    /// Set it whatever it is.
    ForceSet,
    /// Not a command.
    Other(u8),
}

/// A view over an argument, from byte 24 of the frame on.
#[derive(Debug, Clone)]
pub struct Packet<T>(T);

impl<T: AsRef<[u8]>> Packet<T> {
    /// The view, if `buffer` holds the fields and as many addresses as they say.
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        const SECTION: &str = "AoEr11 3.4";
        let bytes = buffer.as_ref();
        if bytes.len() < ARGUMENT_BYTES {
            return Err(Malformed::new("reserve argument", "shorter than its fields", SECTION));
        }
        if bytes.len() - ARGUMENT_BYTES < usize::from(bytes[1]) * MAC_BYTES {
            return Err(Malformed::new("reserve argument", "fewer addresses than said", SECTION));
        }
        Ok(Self(buffer))
    }

    /// The command.
    pub fn command(&self) -> Command {
        match self.0.as_ref()[0] {
            0 => Command::Read,
            1 => Command::Set,
            2 => Command::ForceSet,
            other => Command::Other(other),
        }
    }

    /// The addresses.
    pub fn macs(&self) -> impl ExactSizeIterator<Item = Mac> + '_ {
        let bytes = self.0.as_ref();
        let len = usize::from(bytes[1]) * MAC_BYTES;
        bytes[ARGUMENT_BYTES..ARGUMENT_BYTES + len].chunks_exact(MAC_BYTES).map(Mac::at)
    }
}

/// The meaning of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repr {
    /// What to do.
    pub command: Command,
    /// Who: at most [`MACS_MAX`].
    pub macs: Vec<Mac>,
}

impl Repr {
    /// Reads an argument. At most 255 addresses are allocated.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Self {
        Self { command: packet.command(), macs: packet.macs().collect() }
    }

    /// Bytes that [`Self::emit`] writes.
    pub fn buffer_len(&self) -> usize {
        ARGUMENT_BYTES + self.macs.len() * MAC_BYTES
    }

    /// Writes the argument at the head of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter than [`Self::buffer_len`], or the list longer than its maximum.
    pub fn emit(&self, bytes: &mut [u8]) {
        bytes[0] = match self.command {
            Command::Read => 0,
            Command::Set => 1,
            Command::ForceSet => 2,
            Command::Other(other) => other,
        };
        bytes[1] = u8::try_from(self.macs.len()).expect("at most 255 addresses");
        let places = bytes[ARGUMENT_BYTES..].chunks_exact_mut(MAC_BYTES);
        self.macs.iter().zip(places).for_each(|(mac, place)| place.copy_from_slice(&mac.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET_BYTES: [u8; 14] = [
        0x01, // set
        0x02, // two addresses
        0x00, 0x16, 0x3e, 0x00, 0x00, 0x01, //
        0x00, 0x16, 0x3e, 0x00, 0x00, 0x02,
    ];

    fn repr() -> Repr {
        let macs = vec![Mac([0, 0x16, 0x3e, 0, 0, 1]), Mac([0, 0x16, 0x3e, 0, 0, 2])];
        Repr { command: Command::Set, macs }
    }

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&PACKET_BYTES[..]).unwrap();
        assert_eq!(packet.command(), Command::Set);
        assert_eq!(packet.macs().len(), 2);
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; 2];
        Repr { command: Command::ForceSet, macs: vec![] }.emit(&mut bytes);
        assert_eq!(bytes, [2, 0]);
    }

    #[test]
    fn parse() {
        let mut padded = PACKET_BYTES.to_vec();
        padded.resize(36, 0);
        assert_eq!(Repr::parse(&Packet::new_checked(&padded[..]).unwrap()), repr());
    }

    #[test]
    fn emit() {
        let mut bytes = [0xa5; 14];
        repr().emit(&mut bytes);
        assert_eq!(bytes, PACKET_BYTES);
        assert_eq!(repr().buffer_len(), 14);
    }

    #[test]
    fn a_count_beyond_the_frame_is_refused() {
        let mut lying = PACKET_BYTES;
        lying[1] = 3;
        assert!(Packet::new_checked(&lying[..]).is_err());
        assert!(Packet::new_checked(&lying[..1]).is_err());
    }
}
