//! The netlink messages of the kernel's NBD client (linux/nbd-netlink.h, linux/genetlink.h):
//! bytes of this host's order, attributes aligned to four.

/// An answer that cannot be read: not the kernel's, or of a kernel we do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's answer is malformed: {0}")]
pub struct BadAnswer(&'static str);

/// The type of a message to the directory of families.
pub(super) const CONTROLLER: u16 = 0x10;
const TYPE_ERROR: u16 = 2;
const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;
const FLAG_NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = !(3 << 14);
const HEADER_BYTES: usize = 16;
const GENERIC_BYTES: usize = 4;
const ATTRIBUTE_BYTES: usize = 4;

/// Commands: of the directory, and of NBD.
pub(super) mod command {
    pub(in super::super) const GET_FAMILY: u8 = 3;
    pub(in super::super) const CONNECT: u8 = 1;
    pub(in super::super) const DISCONNECT: u8 = 2;
    pub(in super::super) const RECONFIGURE: u8 = 3;
    pub(in super::super) const STATUS: u8 = 5;
}

/// Attributes: of the directory, and of NBD.
pub(super) mod attribute {
    pub(in super::super) const FAMILY_ID: u16 = 1;
    pub(in super::super) const FAMILY_NAME: u16 = 2;
    pub(in super::super) const INDEX: u16 = 1;
    pub(in super::super) const SIZE_BYTES: u16 = 2;
    pub(in super::super) const BLOCK_SIZE_BYTES: u16 = 3;
    pub(in super::super) const TIMEOUT: u16 = 4;
    pub(in super::super) const SERVER_FLAGS: u16 = 5;
    pub(in super::super) const SOCKETS: u16 = 7;
    pub(in super::super) const DEAD_CONN_TIMEOUT: u16 = 8;
    pub(in super::super) const DEVICE_LIST: u16 = 9;
    pub(in super::super) const BACKEND_IDENTIFIER: u16 = 10;
    /// The only kind of thing in either list.
    pub(in super::super) const ITEM: u16 = 1;
    pub(in super::super) const SOCKET_FD: u16 = 1;
    pub(in super::super) const DEVICE_INDEX: u16 = 1;
    pub(in super::super) const DEVICE_CONNECTED: u16 = 2;
}

/// A request, while it is put together.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// `command` of the family numbered `family`, to be acknowledged.
    pub(super) fn new(family: u16, command: u8, version: u8, sequence: u32) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&family.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(FLAG_REQUEST | FLAG_ACK).to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes.extend([command, version, 0, 0]);
        Self(bytes)
    }

    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A text, with the zero byte at its end.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let start = self.begin(kind);
        self.0.extend_from_slice(value);
        self.end(start);
        self
    }

    /// An attribute that holds those that `fill` adds.
    pub(super) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.begin(kind | FLAG_NESTED);
        let mut filled = fill(self);
        filled.end(start);
        filled
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend([0, 0]);
        self.0.extend(kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let len = u16::try_from(self.0.len() - start).expect("attributes of ours are short");
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// The bytes to send.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).expect("requests of ours are short");
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// One message from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// The request is done (0) or failed with this errno.
    End(i32),
    /// What was asked for.
    Attributes(Attributes<'a>),
}

/// The messages in `bytes` that answer request number `sequence`.
pub(super) fn answers(mut bytes: &[u8], sequence: u32) -> Result<Vec<Answer<'_>>, BadAnswer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let header = bytes.get(..HEADER_BYTES).ok_or(BadAnswer("a header is cut"))?;
        let len = usize::try_from(u32_at(header, 0)).unwrap_or(usize::MAX);
        let body = bytes.get(HEADER_BYTES..len).ok_or(BadAnswer("a message is cut"))?;
        if u32_at(header, 8) == sequence {
            answers.push(if u16_at(header, 4) == TYPE_ERROR {
                let code = body.get(..4).ok_or(BadAnswer("an error is cut"))?;
                let code = i32::from_ne_bytes(code.try_into().expect("four bytes"));
                Answer::End(code.checked_neg().ok_or(BadAnswer("an error has no number"))?)
            } else {
                let body = body.get(GENERIC_BYTES..).ok_or(BadAnswer("a message is cut"))?;
                Answer::Attributes(Attributes(body))
            });
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(answers)
}

/// Attributes, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of `kind`.
    pub(super) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(other, _)| *other == kind).map(|(_, value)| value)
    }

    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_ne_bytes)
    }

    pub(super) fn u16(self, kind: u16) -> Option<u16> {
        self.get(kind)?.try_into().ok().map(u16::from_ne_bytes)
    }

    /// Those within the attribute of `kind`; none if there is none.
    pub(super) fn within(self, kind: u16) -> Self {
        Self(self.get(kind).unwrap_or(&[]))
    }

    /// What `bytes` of an attribute hold.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

/// Ends at the first attribute that is not whole.
impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..ATTRIBUTE_BYTES)?;
        let (len, kind) = (usize::from(u16_at(header, 0)), u16_at(header, 2) & TYPE_MASK);
        let value = self.0.get(ATTRIBUTE_BYTES..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_headers_and_aligned_attributes() {
        let bytes = Request::new(0x1b, command::CONNECT, 1, 7)
            .text(attribute::BACKEND_IDENTIFIER, "abc")
            .nested(attribute::SOCKETS, |list| {
                list.nested(attribute::ITEM, |item| item.u32(attribute::SOCKET_FD, 5))
            })
            .finish();
        if cfg!(target_endian = "little") {
            let expected = [
                44, 0, 0, 0, 0x1b, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // netlink
                1, 1, 0, 0, // generic
                8, 0, 10, 0, b'a', b'b', b'c', 0, // identifier
                16, 0, 7, 0x80, // sockets
                12, 0, 1, 0x80, // one of them
                8, 0, 1, 0, 5, 0, 0, 0, // its descriptor
            ];
            assert_eq!(bytes, expected);
        }
        let body = &bytes[HEADER_BYTES + GENERIC_BYTES..];
        let item = Attributes::of(body).within(attribute::SOCKETS).within(attribute::ITEM);
        assert_eq!(item.u32(attribute::SOCKET_FD), Some(5));
    }

    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER_BYTES + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn answers_to_other_requests_are_left_alone() {
        let mut bytes = message(0x1b, 6, &[1, 1, 0, 0, 1, 2, 3, 4]);
        bytes.extend(message(0x1b, 7, &[1, 1, 0, 0, 1, 2, 3, 4]));
        bytes.extend(message(TYPE_ERROR, 7, &(-16i32).to_ne_bytes()));
        let expected = [Answer::Attributes(Attributes(&[1, 2, 3, 4])), Answer::End(16)];
        assert_eq!(answers(&bytes, 7).unwrap(), expected);
    }

    #[test]
    fn cut_answers_are_refused() {
        let whole = message(TYPE_ERROR, 7, &0i32.to_ne_bytes());
        for len in 1..whole.len() {
            assert!(answers(&whole[..len], 7).is_err(), "{len}");
        }
        assert!(answers(&message(TYPE_ERROR, 7, &[1, 0]), 7).is_err());
        assert!(answers(&[0; 32], 0).is_err());
        let min = message(TYPE_ERROR, 7, &i32::MIN.to_ne_bytes());
        assert!(answers(&min, 7).is_err());
    }

    #[test]
    fn attributes_end_where_they_are_cut() {
        assert_eq!(Attributes::of(&[2, 0, 1, 0, 9]).next(), None);
        assert_eq!(Attributes::of(&[9, 0, 1, 0, 9]).next(), None);
        assert_eq!(Attributes::of(&[1, 2]).next(), None);
    }
}
