//! Messages: a header of 12 bytes, and attributes (RFC 4171 5 and 6).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::error::Malformed;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;
/// The largest payload of one PDU: its length has 16 bits, and counts in fours.
pub const PAYLOAD_BYTES_MAX: usize = 65_532;
/// Where iSNS servers listen.
pub const PORT: u16 = 3205;

const VERSION: u16 = 1;

/// Function IDs (4.1.3, 5.4).
pub mod function {
    /// Register (DevAttrReg).
    pub const REGISTER: u16 = 0x0001;
    /// Ask (DevAttrQry).
    pub const QUERY: u16 = 0x0002;
    /// Take a registration back (DevDereg).
    pub const DEREGISTER: u16 = 0x0004;
    /// Set in the answer to each.
    pub const RESPONSE: u16 = 0x8000;
}

/// Header flags (5.1.4).
pub mod flag {
    /// The sender is a client.
    pub const CLIENT: u16 = 0x8000;
    /// What was registered before is replaced.
    pub const REPLACE: u16 = 0x1000;
    /// The last PDU of a message.
    pub const LAST: u16 = 0x0800;
    /// The first PDU of a message.
    pub const FIRST: u16 = 0x0400;
}

/// Attribute tags (6.1).
pub mod tag {
    /// Ends the key of a message.
    pub const DELIMITER: u32 = 0;
    /// Entity Identifier.
    pub const ENTITY: u32 = 1;
    /// Entity Protocol: 2 is iSCSI.
    pub const PROTOCOL: u32 = 2;
    /// Registration Period, seconds.
    pub const PERIOD: u32 = 6;
    /// Portal IP Address, IPv4 mapped into IPv6.
    pub const PORTAL_ADDRESS: u32 = 16;
    /// Portal TCP/UDP Port.
    pub const PORTAL_PORT: u32 = 17;
    /// iSCSI Name.
    pub const NAME: u32 = 32;
    /// iSCSI Node Type.
    pub const NODE_TYPE: u32 = 33;
    /// iSCSI Alias.
    pub const ALIAS: u32 = 34;
    /// Portal group: iSCSI Name.
    pub const GROUP_NAME: u32 = 48;
    /// Portal group: Portal IP Address.
    pub const GROUP_ADDRESS: u32 = 49;
    /// Portal group: Portal TCP/UDP Port.
    pub const GROUP_PORT: u32 = 50;
    /// Portal Group Tag.
    pub const GROUP_TAG: u32 = 51;
}

/// Entity Protocol of iSCSI.
pub const PROTOCOL_ISCSI: u32 = 2;
/// Node type bit of a target.
pub const NODE_TARGET: u32 = 1;

/// The header of a PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is about.
    pub function: u16,
    /// Bytes that follow.
    pub payload_bytes: u16,
    /// See [`flag`].
    pub flags: u16,
    /// Names the question in its answer.
    pub transaction: u16,
    /// Counts the PDUs of a message.
    pub sequence: u16,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// If its version is unknown, or the length is no multiple of four.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let wrong = |why| Err(Malformed::new("iSNS header", why, "RFC 4171 5.1"));
        if at(0) != VERSION {
            return wrong("unknown version");
        }
        if at(4) % 4 != 0 {
            return wrong("its length is no multiple of four");
        }
        let (function, payload_bytes, flags) = (at(2), at(4), at(6));
        Ok(Self { function, payload_bytes, flags, transaction: at(8), sequence: at(10) })
    }

    /// Gives a message of [`Writer::message`] its transaction.
    pub fn set_transaction(message: &mut [u8], transaction: u16) {
        message[8..10].copy_from_slice(&transaction.to_be_bytes());
    }

    /// Writes it.
    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let words = [
            VERSION,
            self.function,
            self.payload_bytes,
            self.flags,
            self.transaction,
            self.sequence,
        ];
        let mut bytes = [0; HEADER_BYTES];
        for (place, word) in bytes.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// See [`tag`].
    pub tag: u32,
    /// Its value, padding and all.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// A number.
    pub fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }

    /// Text, without the zeros that end it.
    pub fn text(&self) -> Option<&'a str> {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        str::from_utf8(&self.value[..end]).ok()
    }

    /// An IP address.
    pub fn address(&self) -> Option<IpAddr> {
        let bytes: [u8; 16] = self.value.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).to_canonical())
    }

    /// A TCP port.
    pub fn port(&self) -> Option<u16> {
        // Bit 16 says UDP.
        u16::try_from(self.number()?).ok()
    }
}

/// Reads attributes, in their order.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let attribute = split(self.0);
        match attribute {
            Some((attribute, rest)) => {
                self.0 = rest;
                Some(Ok(attribute))
            }
            None => {
                self.0 = &[];
                let why = "longer than its message";
                Some(Err(Malformed::new("iSNS attribute", why, "RFC 4171 5.3.1")))
            }
        }
    }
}

/// The first attribute, and what is behind it.
fn split(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (tag, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    let padding = len.next_multiple_of(4) - len;
    let attribute = Attribute { tag: u32::from_be_bytes(*tag), value };
    Some((attribute, rest.get(padding..)?))
}

/// Writes attributes.
#[derive(Debug, Clone, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Any attribute.
    pub fn put(&mut self, tag: u32, value: &[u8]) -> &mut Self {
        // The length counts the padding, too.
        let len = value.len().next_multiple_of(4);
        self.0.extend(tag.to_be_bytes());
        self.0.extend(u32::try_from(len).expect("attributes are short").to_be_bytes());
        let end = self.0.len() + len;
        self.0.extend(value);
        self.0.resize(end, 0);
        self
    }

    /// A number.
    pub fn number(&mut self, tag: u32, value: u32) -> &mut Self {
        self.put(tag, &value.to_be_bytes())
    }

    /// Text, with at least one zero behind it.
    pub fn text(&mut self, tag: u32, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(tag, &bytes)
    }

    /// An address and a port, under these tags.
    pub fn portal(&mut self, (address, port): (u32, u32), portal: SocketAddr) -> &mut Self {
        let ip = match portal.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.put(address, &ip.octets()).number(port, portal.port().into())
    }

    /// What another one has written.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A message of one PDU, without a transaction yet; at most [`PAYLOAD_BYTES_MAX`] bytes may
    /// have been written.
    pub fn message(&self, function: u16, flags: u16) -> Vec<u8> {
        let header = Header {
            function,
            payload_bytes: u16::try_from(self.0.len()).expect("the caller keeps to the limit"),
            flags: flags | flag::FIRST | flag::LAST,
            transaction: 0,
            sequence: 0,
        };
        [header.emit().as_slice(), &self.0].concat()
    }
}

/// Puts PDUs together to messages, up to a length.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Payloads of a message's PDUs so far; none before its first.
    payload: Option<Vec<u8>>,
}

/// The longest message that is taken.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

impl Framer {
    /// More of the stream came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message: the header of its last PDU, and its payload.
    ///
    /// # Errors
    /// If the stream makes no sense any more, or a message is too long.
    pub fn next_message(&mut self) -> Result<Option<(Header, Vec<u8>)>, Malformed> {
        loop {
            let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
            let header = Header::parse(header)?;
            let end = HEADER_BYTES + usize::from(header.payload_bytes);
            let Some(payload) = self.bytes.get(HEADER_BYTES..end) else { return Ok(None) };
            if header.flags & flag::FIRST != 0 {
                self.payload = Some(Vec::new());
            }
            let wrong = |why| Err(Malformed::new("iSNS message", why, "RFC 4171 5.1"));
            let Some(whole) = &mut self.payload else {
                return wrong("it does not begin with its first PDU");
            };
            if whole.len() + payload.len() > MESSAGE_BYTES_MAX {
                return wrong("too long");
            }
            whole.extend_from_slice(payload);
            self.bytes.drain(..end);
            if header.flags & flag::LAST != 0 {
                return Ok(self.payload.take().map(|whole| (header, whole)));
            }
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
