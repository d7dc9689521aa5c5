//! The bytes of NBD: the numbers of the protocol document ("The NBD protocol", proto.md) and the
//! messages that have a fixed shape. Everything is big-endian.

use corbel_proto::error::Malformed;
use corbel_proto::reader::Reader;
use smallvec::SmallVec;

/// Headers and other short bytes to send.
pub type Head = SmallVec<[u8; 32]>;

/// Length of a request's header.
pub const REQUEST_BYTES: usize = 28;
/// Length of an option's header.
pub(super) const OPTION_BYTES: usize = 16;
/// Length of the client's answer to the greeting.
pub(super) const CLIENT_FLAGS_BYTES: usize = 4;

const GREETING_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Flags of the handshake; the server's and the client's have the same numbers.
pub(super) mod handshake_flag {
    pub(in super::super) const FIXED_NEWSTYLE: u16 = 1;
    pub(in super::super) const NO_ZEROES: u16 = 2;
}

/// Transmission flags: what an export can do.
pub mod flag {
    /// The flags mean something.
    pub const HAS_FLAGS: u16 = 1;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// NBD_CMD_FLUSH works.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// NBD_CMD_FLAG_FUA works.
    pub const SEND_FUA: u16 = 1 << 3;
    /// NBD_CMD_TRIM works.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// NBD_CMD_WRITE_ZEROES works.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// NBD_CMD_FLAG_DF works.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers what was acknowledged on every one.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// NBD_CMD_FLAG_FAST_ZERO works.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Options of the handshake.
pub(super) mod option {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const LIST_META_CONTEXT: u32 = 9;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options.
pub(super) mod rep {
    pub(in super::super) const ACK: u32 = 1;
    pub(in super::super) const SERVER: u32 = 2;
    pub(in super::super) const INFO: u32 = 3;
    pub(in super::super) const META_CONTEXT: u32 = 4;
    pub(in super::super) const ERR_UNSUP: u32 = 1 << 31 | 1;
    pub(in super::super) const ERR_INVALID: u32 = 1 << 31 | 3;
    pub(in super::super) const ERR_UNKNOWN: u32 = 1 << 31 | 6;
    pub(in super::super) const ERR_TOO_BIG: u32 = 1 << 31 | 9;
}

/// Kinds of NBD_REP_INFO.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DESCRIPTION: u16 = 2;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// Commands of the transmission phase.
pub(super) mod cmd {
    pub(in super::super) const READ: u16 = 0;
    pub(in super::super) const WRITE: u16 = 1;
    pub(in super::super) const DISC: u16 = 2;
    pub(in super::super) const FLUSH: u16 = 3;
    pub(in super::super) const TRIM: u16 = 4;
    pub(in super::super) const WRITE_ZEROES: u16 = 6;
    pub(in super::super) const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command.
pub(super) mod cmd_flag {
    pub(in super::super) const FUA: u16 = 1;
    pub(in super::super) const NO_HOLE: u16 = 1 << 1;
    pub(in super::super) const DF: u16 = 1 << 2;
    pub(in super::super) const REQ_ONE: u16 = 1 << 3;
    pub(in super::super) const FAST_ZERO: u16 = 1 << 4;
}

/// Types of structured reply chunks, and their only flag.
pub(super) mod chunk {
    pub(in super::super) const FLAG_DONE: u16 = 1;
    pub(in super::super) const OFFSET_DATA: u16 = 1;
    pub(in super::super) const BLOCK_STATUS: u16 = 5;
    pub(in super::super) const ERROR: u16 = 1 << 15 | 1;
    pub(in super::super) const ERROR_OFFSET: u16 = 1 << 15 | 2;
}

/// Error values ("Error values" of proto.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// The export is read-only.
    Perm = 1,
    /// The device failed.
    Io = 5,
    /// A parameter is wrong.
    Inval = 22,
    /// Past the end, or a thin device is full.
    NoSpc = 28,
    /// The device cannot, or not fast.
    NotSup = 95,
    /// The device goes away.
    Shutdown = 108,
}

impl Errno {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// One request's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) flags: u16,
    pub(super) kind: u16,
    /// The client's name of it, given back as it came.
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Command {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "NBD request", "proto.md, Request message");
        if reader.u32()? != REQUEST_MAGIC {
            return Err(Malformed::new("NBD request", "wrong magic", "proto.md, Request message"));
        }
        Ok(Self {
            flags: reader.u16()?,
            kind: reader.u16()?,
            cookie: reader.u64()?,
            offset: reader.u64()?,
            len: reader.u32()?,
        })
    }
}

/// An option's header: which, and the length of its data.
pub(super) fn parse_option(bytes: &[u8]) -> Result<(u32, u32), Malformed> {
    let mut reader = Reader::new(bytes, "NBD option", "proto.md, Option haggling");
    if reader.u64()? != OPTION_MAGIC {
        return Err(Malformed::new("NBD option", "wrong magic", "proto.md, Option haggling"));
    }
    Ok((reader.u32()?, reader.u32()?))
}

/// What a server says first.
pub(super) fn greeting() -> Head {
    let flags = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
    let mut head = Head::new();
    head.extend_from_slice(&GREETING_MAGIC.to_be_bytes());
    head.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    head.extend_from_slice(&flags.to_be_bytes());
    head
}

/// A reply to an option, with up to any number of pieces of data.
pub(super) fn option_reply(option: u32, kind: u32, data: &[&[u8]]) -> Head {
    let len: usize = data.iter().map(|piece| piece.len()).sum();
    let len = u32::try_from(len).expect("replies to options are short");
    let mut head = Head::new();
    head.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    head.extend_from_slice(&option.to_be_bytes());
    head.extend_from_slice(&kind.to_be_bytes());
    head.extend_from_slice(&len.to_be_bytes());
    for piece in data {
        head.extend_from_slice(piece);
    }
    head
}

/// A simple reply: 0 is success.
pub(super) fn simple_reply(cookie: u64, error: u32) -> Head {
    let mut head = Head::new();
    head.extend_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    head.extend_from_slice(&error.to_be_bytes());
    head.extend_from_slice(&cookie.to_be_bytes());
    head
}

/// A chunk of a structured reply whose payload is `inline` and then `data_len` further bytes.
pub(super) fn chunk(cookie: u64, kind: u16, done: bool, inline: &[u8], data_len: u32) -> Head {
    let len = u32::try_from(inline.len()).expect("inline payload is short") + data_len;
    let mut head = Head::new();
    head.extend_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
    head.extend_from_slice(&(if done { chunk::FLAG_DONE } else { 0 }).to_be_bytes());
    head.extend_from_slice(&kind.to_be_bytes());
    head.extend_from_slice(&cookie.to_be_bytes());
    head.extend_from_slice(&len.to_be_bytes());
    head.extend_from_slice(inline);
    head
}

/// An error chunk, which says in words what happened, and where if `offset` is known.
pub(super) fn error_chunk(
    cookie: u64,
    error: Errno,
    why: &str,
    offset: Option<u64>,
    done: bool,
) -> Head {
    let why = why.as_bytes();
    let why_len = u16::try_from(why.len()).expect("our error texts are short");
    let mut payload = SmallVec::<[u8; 96]>::new();
    payload.extend_from_slice(&error.number().to_be_bytes());
    payload.extend_from_slice(&why_len.to_be_bytes());
    payload.extend_from_slice(why);
    let kind = match offset {
        Some(offset) => {
            payload.extend_from_slice(&offset.to_be_bytes());
            chunk::ERROR_OFFSET
        }
        None => chunk::ERROR,
    };
    chunk(cookie, kind, done, &payload, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: [u8; REQUEST_BYTES] = [
        0x25, 0x60, 0x95, 0x13, // magic
        0, 1, // FUA
        0, 1, // WRITE
        1, 2, 3, 4, 5, 6, 7, 8, // cookie
        0, 0, 0, 1, 0, 0, 0, 0, // offset
        0, 0, 16, 0, // length
    ];

    #[test]
    fn a_request_has_its_fields_where_the_protocol_says() {
        let expected = Command {
            flags: cmd_flag::FUA,
            kind: cmd::WRITE,
            cookie: 0x0102_0304_0506_0708,
            offset: 1 << 32,
            len: 4096,
        };
        assert_eq!(Command::parse(&REQUEST), Ok(expected));
        let mut wrong = REQUEST;
        wrong[0] = 0;
        assert!(Command::parse(&wrong).is_err());
    }

    #[test]
    fn replies_are_as_long_as_the_protocol_says() {
        assert_eq!(greeting().len(), 18);
        assert_eq!(simple_reply(1, 0).len(), 16);
        assert_eq!(chunk(1, chunk::OFFSET_DATA, true, &[0; 8], 512).len(), 28);
        assert_eq!(chunk(1, chunk::OFFSET_DATA, true, &[0; 8], 512)[16..20], 520u32.to_be_bytes());
        assert_eq!(error_chunk(1, Errno::Io, "why", Some(0), true).len(), 20 + 6 + 3 + 8);
        assert_eq!(option_reply(7, rep::ACK, &[]).len(), 20);
    }
}
