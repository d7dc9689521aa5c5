//! The haggling before the first request (proto.md, "Handshake phase", fixed newstyle).

use std::collections::VecDeque;

use corbel_proto::error::Malformed;
use corbel_proto::reader::Reader;

use super::export::Export;
use super::wire::{Head, handshake_flag, info, option, option_reply, rep};
use super::{Bounds, Refusal};

/// Data of an option that is looked at; more is answered with NBD_REP_ERR_TOO_BIG.
pub(super) const OPTION_DATA_BYTES_MAX: u32 = 16 << 10;
/// Data of an option that is read past; more ends the connection.
pub(super) const OPTION_SKIP_BYTES_MAX: u32 = 1 << 20;
/// Options of one handshake.
const OPTIONS_MAX: u32 = 256;
/// The only metadata context there is, and our number of it.
const ALLOCATION: &[u8] = b"base:allocation";
pub(super) const ALLOCATION_ID: u32 = 1;
const EXPORT_NAME_PADDING: [u8; 124] = [0; 124];

/// What was agreed so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Agreed {
    no_zeroes: bool,
    pub(super) structured: bool,
    /// BLOCK_STATUS may be asked.
    pub(super) allocation: bool,
    options: u32,
}

/// What comes after an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Option,
    Transmission,
    /// The client asked for the end.
    End,
}

/// The server's side of it.
pub(super) struct Handshake<'a> {
    pub(super) agreed: &'a mut Agreed,
    pub(super) export: &'a Export,
    pub(super) bounds: Bounds,
    /// Replies go here.
    pub(super) replies: &'a mut VecDeque<Head>,
}

impl Handshake<'_> {
    pub(super) fn client_flags(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let flags = Reader::new(bytes, "client flags", "proto.md, Handshake phase").u32()?;
        let known = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;
        if flags & !u32::from(known) != 0 {
            return Err(Refusal::ClientFlags(flags));
        }
        self.agreed.no_zeroes = flags & u32::from(handshake_flag::NO_ZEROES) != 0;
        Ok(())
    }

    /// An option whose data is too long to be looked at.
    pub(super) fn too_big(&mut self, kind: u32, len: u32) -> Result<(), Refusal> {
        self.count()?;
        // The old way to ask for an export cannot be answered with an error.
        if kind == option::EXPORT_NAME || len > OPTION_SKIP_BYTES_MAX {
            return Err(Refusal::OptionTooLong(len));
        }
        self.reply(kind, rep::ERR_TOO_BIG, &[b"the option's data is too long"]);
        Ok(())
    }

    pub(super) fn option(&mut self, kind: u32, data: &[u8]) -> Result<Next, Refusal> {
        self.count()?;
        let done = match kind {
            option::EXPORT_NAME => return self.export_name(data),
            option::ABORT => {
                self.reply(kind, rep::ACK, &[]);
                return Ok(Next::End);
            }
            option::LIST => self.list(data),
            option::INFO | option::GO => self.info(kind, data),
            option::STRUCTURED_REPLY => self.structured_reply(data),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(kind, data),
            // STARTTLS among them: there is no TLS here.
            _ => Err(OptionError::Refused(rep::ERR_UNSUP, "unknown here")),
        };
        match done {
            Ok(()) => self.reply(kind, rep::ACK, &[]),
            Err(OptionError::Refused(error, why)) => self.reply(kind, error, &[why.as_bytes()]),
            Err(OptionError::Malformed(error)) => {
                self.reply(kind, rep::ERR_INVALID, &[error.why.as_bytes()]);
            }
        }
        let agreed = done.is_ok() && kind == option::GO;
        Ok(if agreed { Next::Transmission } else { Next::Option })
    }

    fn count(&mut self) -> Result<(), Refusal> {
        self.agreed.options += 1;
        if self.agreed.options > OPTIONS_MAX {
            return Err(Refusal::TooManyOptions);
        }
        Ok(())
    }

    fn reply(&mut self, kind: u32, reply: u32, data: &[&[u8]]) {
        self.replies.push_back(option_reply(kind, reply, data));
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.export.name.as_bytes()
    }

    fn export_name(&mut self, name: &[u8]) -> Result<Next, Refusal> {
        if !self.is_ours(name) {
            return Err(Refusal::UnknownExport(String::from_utf8_lossy(name).into_owned()));
        }
        let mut head = Head::new();
        head.extend_from_slice(&self.export.size_bytes.to_be_bytes());
        head.extend_from_slice(&self.export.flags(self.agreed.structured).to_be_bytes());
        if !self.agreed.no_zeroes {
            head.extend_from_slice(&EXPORT_NAME_PADDING);
        }
        self.replies.push_back(head);
        Ok(Next::Transmission)
    }

    fn list(&mut self, data: &[u8]) -> Result<(), OptionError> {
        Reader::new(data, "NBD_OPT_LIST", "proto.md, Option types").finish()?;
        let (name, about) = (self.export.name.as_bytes(), self.export.description.as_bytes());
        let len = u32::try_from(name.len()).unwrap_or(0);
        self.replies.push_back(option_reply(
            option::LIST,
            rep::SERVER,
            &[&len.to_be_bytes(), name, about],
        ));
        Ok(())
    }

    /// Block sizes are told to everybody: they bind whoever asks or not.
    fn info(&mut self, kind: u32, data: &[u8]) -> Result<(), OptionError> {
        let mut reader = Reader::new(data, "NBD_OPT_INFO", "proto.md, Option types");
        let name = text(&mut reader)?;
        let count = reader.u16()?;
        let (mut wants_name, mut wants_description) = (false, false);
        for _ in 0..count {
            let wanted = reader.u16()?;
            wants_name |= wanted == info::NAME;
            wants_description |= wanted == info::DESCRIPTION;
        }
        reader.finish()?;
        if !self.is_ours(name) {
            return Err(OptionError::Refused(rep::ERR_UNKNOWN, "no such export"));
        }
        let size = self.export.size_bytes.to_be_bytes();
        let flags = self.export.flags(self.agreed.structured).to_be_bytes();
        self.reply(kind, rep::INFO, &[&info::EXPORT.to_be_bytes(), &size, &flags]);
        let [min, preferred, max] =
            self.export.block_sizes(self.bounds.bytes_max).map(u32::to_be_bytes);
        self.reply(kind, rep::INFO, &[&info::BLOCK_SIZE.to_be_bytes(), &min, &preferred, &max]);
        let (name, about) = (self.export.name.as_bytes(), self.export.description.as_bytes());
        if wants_name {
            self.reply(kind, rep::INFO, &[&info::NAME.to_be_bytes(), name]);
        }
        if wants_description && !about.is_empty() {
            self.reply(kind, rep::INFO, &[&info::DESCRIPTION.to_be_bytes(), about]);
        }
        Ok(())
    }

    fn structured_reply(&mut self, data: &[u8]) -> Result<(), OptionError> {
        Reader::new(data, "NBD_OPT_STRUCTURED_REPLY", "proto.md, Option types").finish()?;
        self.agreed.structured = true;
        Ok(())
    }

    /// Which contexts there are, or which are to be used from now on.
    fn contexts(&mut self, kind: u32, data: &[u8]) -> Result<(), OptionError> {
        let set = kind == option::SET_META_CONTEXT;
        if set {
            self.agreed.allocation = false;
        }
        let mut reader = Reader::new(data, "NBD_OPT_*_META_CONTEXT", "proto.md, Option types");
        let name = text(&mut reader)?;
        let count = reader.u32()?;
        let mut wanted = !set && count == 0;
        for _ in 0..count {
            let query = text(&mut reader)?;
            wanted |= query == ALLOCATION || (!set && query == b"base:");
        }
        reader.finish()?;
        if !self.agreed.structured {
            return Err(OptionError::Refused(rep::ERR_INVALID, "structured replies come first"));
        }
        if !self.is_ours(name) {
            return Err(OptionError::Refused(rep::ERR_UNKNOWN, "no such export"));
        }
        if wanted {
            let id = if set { ALLOCATION_ID } else { 0 };
            self.reply(kind, rep::META_CONTEXT, &[&id.to_be_bytes(), ALLOCATION]);
            self.agreed.allocation |= set;
        }
        Ok(())
    }
}

enum OptionError {
    Refused(u32, &'static str),
    Malformed(Malformed),
}

impl From<Malformed> for OptionError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

/// A length of four bytes, and that many bytes.
fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = reader.u32()?;
    reader.take(usize::try_from(len).unwrap_or(usize::MAX))
}
