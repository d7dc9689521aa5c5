//! Bytes to requests, no faster than they can be answered.

use std::collections::VecDeque;

use corbel_proto::memory::{Arena, Buffer, Slice};
use smallvec::SmallVec;

use super::export::Export;
use super::handshake::{ALLOCATION_ID, Agreed, Handshake, Next, OPTION_DATA_BYTES_MAX};
use super::jobs::{ClearWish, Jobs, PIECE_BYTES};
use super::wire::{self, Command, Errno, cmd, cmd_flag};
use super::{Bounds, Mode, Refusal, Reply};
use crate::present::zeroes::ZeroBlock;
use crate::request::{Extent, Operation, Outcome, Request};

/// Replies of the handshake that may wait to be sent before we stop to listen.
const REPLIES_QUEUED_MAX: usize = 64;
/// Payload shorter than this is not worth a receive of its own.
const FILL_BYTES_MIN: u32 = 4096;

/// What comes next in the stream.
#[derive(Debug)]
enum State<B> {
    ClientFlags,
    OptionHeader,
    OptionData {
        kind: u32,
        len: u32,
    },
    SkipOption {
        left: u32,
    },
    Request,
    /// A request that waits for room or memory.
    Admit(Command),
    Payload(Payload<B>),
    /// Payload of a write that is refused.
    SkipPayload {
        left: u32,
        cookie: u64,
        error: Errno,
        why: &'static str,
    },
    Over,
}

/// A write's payload.
#[derive(Debug)]
struct Payload<B> {
    job: usize,
    fua: bool,
    /// Where the next byte goes.
    offset: u64,
    /// Bytes to come.
    left: u32,
    piece: Piece<B>,
}

#[derive(Debug)]
enum Piece<B> {
    /// Needs memory.
    None,
    /// Memory, and how much of it is filled.
    Filling(Slice<B>, u32),
    /// The memory is with the owner, who receives into it. Where its piece starts, how long it is,
    /// and how much of it was filled before.
    Lent { start: u32, len: u32, done: u32 },
}

/// One client. See the module.
#[derive(Debug)]
pub struct Connection<B> {
    export: Export,
    bounds: Bounds,
    agreed: Agreed,
    state: State<B>,
    jobs: Jobs<B>,
    /// Received and not yet looked at: a message that was cut, or everything behind what waits.
    stash: Vec<u8>,
    /// Memory was asked for and not lent.
    starved: bool,
}

impl<B: Buffer> Connection<B> {
    /// A connection that has just begun. `number` is the upper half of its requests' names; no
    /// other connection with requests under way may have it.
    pub fn new(number: u32, export: Export, mode: Mode, bounds: Bounds) -> Self {
        let bounds = Bounds { requests_max: bounds.requests_max.clamp(1, 1 << 16), ..bounds };
        let mut jobs = Jobs::new(number, bounds.bytes_max, export.len_max(bounds.bytes_max));
        let state = match mode {
            Mode::Handshake => {
                jobs.say(wire::greeting());
                State::ClientFlags
            }
            Mode::Transmission => State::Request,
        };
        Self {
            export,
            bounds,
            agreed: Agreed::default(),
            state,
            jobs,
            stash: Vec::new(),
            starved: false,
        }
    }

    /// What is served.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// The device has this size now. The client is not told, NBD has no word for it over this
    /// connection; the kernel's client is told over netlink.
    pub fn resized(&mut self, size_bytes: u64) {
        self.export.size_bytes = size_bytes;
    }

    /// True if bytes may be given to [`Self::received`]. Changes with every call.
    pub fn wants_read(&self) -> bool {
        !self.is_held() && !self.starved && !self.is_lent()
    }

    /// [`Self::resume`] has something to do.
    pub fn wants_resume(&self) -> bool {
        if self.jobs.wants_zeroes() {
            return true;
        }
        let waits = matches!(self.state, State::Admit(_)) || self.stash.len() >= self.unit();
        waits && !self.is_held() && !self.is_lent()
    }

    /// It waits for payload memory: call [`Self::resume`] when some was given back.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Nothing more will come of this connection: close it. Not before the last reply was taken.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over) && self.jobs.is_idle()
    }

    /// Requests of the client that are under way; their outcomes may come after the connection
    /// was closed. Until there are none, no other connection may have this one's number.
    pub fn in_flight(&self) -> usize {
        self.jobs.in_flight()
    }

    /// Takes no more requests; [`Self::is_over`] once those under way were answered.
    pub fn drain(&mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let State::Payload(payload) = &self.state {
            self.jobs.bytes -= match &payload.piece {
                Piece::None => 0,
                Piece::Filling(memory, _) => memory.len.into(),
                Piece::Lent { len, .. } => u64::from(*len),
            };
            self.jobs.abandon(payload.job);
        }
        self.state = State::Over;
        self.stash = Vec::new();
    }

    /// Bytes came. They are taken whole; give more only while [`Self::wants_read`].
    ///
    /// # Errors
    /// The client broke the protocol: close the connection. Requests under way end as they end.
    pub fn received(
        &mut self,
        arena: &mut impl Arena<Buf = B>,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let mut rest = bytes;
        if !self.stash.is_empty() {
            // A message that was cut: only as much is added as makes it whole.
            let unit = self.unit();
            let add = unit.saturating_sub(self.stash.len()).min(rest.len());
            let (cut, after) = rest.split_at(add);
            self.stash.extend_from_slice(cut);
            rest = after;
            self.resume(arena)?;
        }
        if self.stash.is_empty() {
            self.read(arena, &mut rest)?;
        }
        if !matches!(self.state, State::Over) {
            self.stash.extend_from_slice(rest);
        }
        if self.wants_resume() {
            self.resume(arena)?;
        }
        Ok(())
    }

    /// Goes on with what had to wait, if it can.
    ///
    /// # Errors
    /// As [`Self::received`].
    pub fn resume(&mut self, arena: &mut impl Arena<Buf = B>) -> Result<(), Refusal> {
        self.starved = !self.jobs.write_unzeroed(arena);
        self.export.write_zeroes &= !self.jobs.zeroes_refused;
        let stash = std::mem::take(&mut self.stash);
        let mut rest = stash.as_slice();
        self.read(arena, &mut rest)?;
        let taken = stash.len() - rest.len();
        if !matches!(self.state, State::Over) {
            self.stash = stash;
            self.stash.drain(..taken);
        }
        Ok(())
    }

    /// The next request to the device.
    pub fn poll_request(&mut self) -> Option<Request<B>> {
        self.jobs.poll_request()
    }

    /// A request has ended. Outcomes of other connections' requests are ignored.
    pub fn complete(&mut self, outcome: Outcome<B>) {
        self.jobs.complete(outcome);
    }

    /// Payload memory held: lent by the arena and not yet given back or sent. At most
    /// [`Bounds::bytes_max`].
    pub fn memory_bytes(&self) -> u64 {
        self.jobs.bytes
    }

    /// The next bytes to send.
    pub fn transmit(&mut self) -> Option<Reply<B>> {
        self.jobs.transmit()
    }

    /// Memory for payload that comes next, to receive straight into: up to all of it. `None` if
    /// there is none to come, if it is too short to be worth it, or if there is no memory. To be
    /// given back with [`Self::filled`]; nothing is read meanwhile.
    pub fn poll_fill(&mut self, arena: &mut impl Arena<Buf = B>) -> Option<Slice<B>> {
        if !self.wants_read() || !self.stash.is_empty() {
            return None;
        }
        let State::Payload(payload) = &self.state else { return None };
        if payload.left < FILL_BYTES_MIN || !self.has_piece(arena) {
            return None;
        }
        let State::Payload(payload) = &mut self.state else { return None };
        match std::mem::replace(&mut payload.piece, Piece::None) {
            Piece::Filling(memory, done) => {
                let (start, len) = (memory.start, memory.len);
                payload.piece = Piece::Lent { start, len, done };
                Some(Slice { buffer: memory.buffer, start: start + done, len: len - done })
            }
            other => {
                payload.piece = other;
                None
            }
        }
    }

    /// The first `len` bytes of what [`Self::poll_fill`] gave were received into it. 0 if none
    /// were: the stream has ended.
    pub fn filled(&mut self, memory: Slice<B>, len: u32) {
        let State::Payload(payload) = &mut self.state else { return };
        let Piece::Lent { start, len: whole, done } = payload.piece else { return };
        payload.piece = Piece::Filling(Slice { buffer: memory.buffer, start, len: whole }, done);
        self.advance(len.min(whole - done));
    }

    /// Room is lacking: nothing more is taken out of the stream.
    fn is_held(&self) -> bool {
        match &self.state {
            State::Over => true,
            State::ClientFlags | State::OptionHeader | State::OptionData { .. } => {
                self.jobs.replies_queued() >= REPLIES_QUEUED_MAX
            }
            State::SkipOption { .. } => false,
            State::Request | State::SkipPayload { .. } => {
                self.jobs.unanswered >= self.bounds.requests_max
            }
            State::Admit(command) => !self.jobs.has_room(self.memory_for(command)),
            State::Payload(payload) => match payload.piece {
                Piece::None => !self.jobs.has_room(payload.left.min(PIECE_BYTES).into()),
                _ => false,
            },
        }
    }

    fn is_lent(&self) -> bool {
        matches!(&self.state, State::Payload(Payload { piece: Piece::Lent { .. }, .. }))
    }

    /// How many bytes the next step needs at once.
    fn unit(&self) -> usize {
        match &self.state {
            State::ClientFlags => wire::CLIENT_FLAGS_BYTES,
            State::OptionHeader => wire::OPTION_BYTES,
            State::OptionData { len, .. } => *len as usize,
            State::Request => wire::REQUEST_BYTES,
            State::Admit(_) => 0,
            State::SkipOption { .. } | State::Payload(_) | State::SkipPayload { .. } => 1,
            State::Over => usize::MAX,
        }
    }

    fn read(&mut self, arena: &mut impl Arena<Buf = B>, bytes: &mut &[u8]) -> Result<(), Refusal> {
        while self.wants_read() && bytes.len() >= self.unit() {
            let stepped = self.step(arena, bytes);
            if stepped.is_err() {
                self.end();
            }
            stepped?;
        }
        Ok(())
    }

    fn step(&mut self, arena: &mut impl Arena<Buf = B>, bytes: &mut &[u8]) -> Result<(), Refusal> {
        match &mut self.state {
            State::ClientFlags => {
                let flags = take(bytes, wire::CLIENT_FLAGS_BYTES);
                self.haggle(|handshake| handshake.client_flags(flags))?;
                self.state = State::OptionHeader;
            }
            State::OptionHeader => {
                let (kind, len) = wire::parse_option(take(bytes, wire::OPTION_BYTES))?;
                self.state = if len > OPTION_DATA_BYTES_MAX {
                    self.haggle(|handshake| handshake.too_big(kind, len))?;
                    State::SkipOption { left: len }
                } else {
                    State::OptionData { kind, len }
                };
            }
            State::OptionData { kind, len } => {
                let (kind, data) = (*kind, take(bytes, *len as usize));
                match self.haggle(|handshake| handshake.option(kind, data))? {
                    Next::Option => self.state = State::OptionHeader,
                    Next::Transmission => self.state = State::Request,
                    Next::End => self.end(),
                }
                self.jobs.structured = self.agreed.structured;
            }
            State::SkipOption { left } => {
                *left -= skip(bytes, *left);
                if *left == 0 {
                    self.state = State::OptionHeader;
                }
            }
            State::Request => {
                let command = Command::parse(take(bytes, wire::REQUEST_BYTES))?;
                self.judge(command);
            }
            State::Admit(command) => {
                let command = *command;
                self.admit(arena, command);
            }
            State::Payload(_) => self.payload(arena, bytes),
            State::SkipPayload { left, cookie, error, why } => {
                *left -= skip(bytes, *left);
                if *left == 0 {
                    let (cookie, error, why) = (*cookie, *error, *why);
                    self.jobs.refuse(cookie, error, why);
                    self.state = State::Request;
                }
            }
            State::Over => {}
        }
        Ok(())
    }

    fn haggle<T>(
        &mut self,
        ask: impl FnOnce(&mut Handshake<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut replies = VecDeque::new();
        let (agreed, export, bounds) = (&mut self.agreed, &self.export, self.bounds);
        let said = ask(&mut Handshake { agreed, export, bounds, replies: &mut replies });
        for head in replies {
            self.jobs.say(head);
        }
        said
    }

    /// A request's header has come: is it one that may be tried?
    fn judge(&mut self, command: Command) {
        if command.kind == cmd::DISC {
            return self.end();
        }
        let Err((error, why)) = self.check(&command) else {
            self.state = State::Admit(command);
            return;
        };
        if command.kind == cmd::WRITE && command.len > 0 {
            let Command { len: left, cookie, .. } = command;
            self.state = State::SkipPayload { left, cookie, error, why };
        } else {
            self.jobs.refuse(command.cookie, error, why);
        }
    }

    fn check(&self, command: &Command) -> Result<(), (Errno, &'static str)> {
        let export = &self.export;
        let (flags, past_end, changes) = match command.kind {
            cmd::READ if self.agreed.structured => (cmd_flag::DF, Errno::Inval, false),
            cmd::READ => (0, Errno::Inval, false),
            cmd::WRITE => (cmd_flag::FUA, Errno::NoSpc, true),
            cmd::FLUSH => (0, Errno::Inval, false),
            cmd::TRIM if export.discard => (cmd_flag::FUA, Errno::Inval, true),
            cmd::WRITE_ZEROES => {
                let flags = cmd_flag::FUA | cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO;
                (flags, Errno::NoSpc, true)
            }
            cmd::BLOCK_STATUS if self.agreed.allocation => (cmd_flag::REQ_ONE, Errno::Inval, false),
            _ => return Err((Errno::Inval, "the command was not offered")),
        };
        // FUA means nothing to a read, and is to be let through (proto.md, "Command flags").
        let flags = flags | if changes { 0 } else { cmd_flag::FUA };
        if command.flags & !flags != 0 {
            return Err((Errno::Inval, "flags that this command does not have"));
        }
        if command.kind == cmd::FLUSH {
            return Ok(());
        }
        if changes && export.read_only {
            return Err((Errno::Perm, "the export is read-only"));
        }
        if command.len == 0 || !export.is_whole_blocks(command.offset, command.len) {
            return Err((Errno::Inval, "not whole blocks"));
        }
        if !export.holds(command.offset, command.len) {
            return Err((past_end, "past the end"));
        }
        let transfers = matches!(command.kind, cmd::READ | cmd::WRITE);
        if transfers && command.len > export.len_max(self.bounds.bytes_max) {
            return Err((Errno::Inval, "longer than the longest request"));
        }
        Ok(())
    }

    /// Memory that must be there before the request can begin.
    fn memory_for(&self, command: &Command) -> u64 {
        match command.kind {
            cmd::READ => command.len.into(),
            cmd::WRITE_ZEROES if !self.export.write_zeroes => {
                self.jobs.zeroes_for(command.len.into())
            }
            _ => 0,
        }
    }

    /// Begins a request that was judged well; it stays where it is if memory is lacking.
    fn admit(&mut self, arena: &mut impl Arena<Buf = B>, command: Command) {
        let Command { flags, cookie, offset, len, .. } = command;
        let extent = Extent { offset, len: len.into() };
        let (has, fua) = (|flag| flags & flag != 0, flags & cmd_flag::FUA != 0);
        match command.kind {
            cmd::READ => {
                let Some(memory) = lend(arena, len) else { return self.starved = true };
                self.jobs.read(cookie, extent, has(cmd_flag::DF), memory);
            }
            cmd::WRITE => {
                let job = self.jobs.write(cookie, extent);
                let piece = Piece::None;
                self.state = State::Payload(Payload { job, fua, offset, left: len, piece });
                return;
            }
            cmd::FLUSH => self.jobs.flush(cookie),
            cmd::BLOCK_STATUS => self.jobs.allocated(cookie, ALLOCATION_ID, len),
            cmd::TRIM => {
                let wish = ClearWish { operation: Operation::Discard, fast: false, flush: fua };
                self.jobs.clear(cookie, extent, wish, None);
            }
            _ => {
                let fast = has(cmd_flag::FAST_ZERO);
                let unmap = !has(cmd_flag::NO_HOLE);
                if fast && !self.export.write_zeroes {
                    self.jobs.refuse(cookie, Errno::NotSup, "zeroes have to be written here");
                } else {
                    let block = if self.export.write_zeroes {
                        None
                    } else {
                        let Some(block) = ZeroBlock::new(arena, self.jobs.zeroes_for(extent.len))
                        else {
                            return self.starved = true;
                        };
                        Some(block)
                    };
                    let operation = Operation::WriteZeroes { unmap, fua: false };
                    let wish = ClearWish { operation, fast, flush: fua };
                    self.jobs.clear(cookie, extent, wish, block);
                }
            }
        }
        self.state = State::Request;
    }

    /// Sees to it that there is memory for the next bytes of payload.
    fn has_piece(&mut self, arena: &mut impl Arena<Buf = B>) -> bool {
        let State::Payload(payload) = &mut self.state else { return false };
        if let Piece::None = payload.piece {
            let len = payload.left.min(PIECE_BYTES);
            let Some(buffer) = arena.alloc(len as usize) else {
                self.starved = true;
                return false;
            };
            payload.piece = Piece::Filling(Slice::part(buffer, 0, len), 0);
            self.jobs.bytes += u64::from(len);
        }
        true
    }

    fn payload(&mut self, arena: &mut impl Arena<Buf = B>, bytes: &mut &[u8]) {
        if !self.has_piece(arena) {
            return;
        }
        let State::Payload(payload) = &mut self.state else { return };
        let Piece::Filling(memory, done) = &mut payload.piece else { return };
        let room = (memory.len - *done) as usize;
        let data = take(bytes, room.min(bytes.len()));
        let at = *done as usize;
        memory.bytes_mut()[at..at + data.len()].copy_from_slice(data);
        self.advance(u32::try_from(data.len()).expect("no more than a piece"));
    }

    /// So many further bytes of payload are where they belong.
    fn advance(&mut self, len: u32) {
        let State::Payload(payload) = &mut self.state else { return };
        let Piece::Filling(memory, done) = &mut payload.piece else { return };
        *done += len;
        if *done < memory.len {
            return;
        }
        let Piece::Filling(memory, _) = std::mem::replace(&mut payload.piece, Piece::None) else {
            return;
        };
        let (job, fua, offset) = (payload.job, payload.fua, payload.offset);
        payload.offset += u64::from(memory.len);
        payload.left -= memory.len;
        let last = payload.left == 0;
        if last {
            self.state = State::Request;
        }
        self.jobs.write_piece(job, offset, fua, memory, last);
    }
}

/// Memory for all of a read, or none: who holds some never waits for more.
fn lend<B: Buffer>(arena: &mut impl Arena<Buf = B>, len: u32) -> Option<SmallVec<[Slice<B>; 2]>> {
    let mut pieces = SmallVec::new();
    let mut left = len;
    while left > 0 {
        let len = left.min(PIECE_BYTES);
        pieces.push(Slice::part(arena.alloc(len as usize)?, 0, len));
        left -= len;
    }
    Some(pieces)
}

/// The first `len` bytes, taken off.
fn take<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, rest) = bytes.split_at(len);
    *bytes = rest;
    head
}

/// Takes up to `len` bytes off; says how many.
fn skip(bytes: &mut &[u8], len: u32) -> u32 {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
    take(bytes, len);
    u32::try_from(len).expect("no more than asked for")
}
