//! A client's requests while they are under way: cut into pieces of at most
//! [`SEGMENT_BYTES_MAX`], put together again, answered.

use std::collections::VecDeque;

use corbel_proto::memory::{Arena, Buffer, SEGMENT_BYTES_MAX, Slice};
use slab::Slab;
use smallvec::SmallVec;

use super::Reply;
use super::export::errno_of;
use super::wire::{self, Errno, Head};
use crate::present::zeroes::{ZeroBlock, take_piece};
use crate::request::{Extent, IoError, Operation, Outcome, Request, RequestId};

/// Length of a piece of a read or a write.
pub(super) const PIECE_BYTES: u32 = {
    assert!(SEGMENT_BYTES_MAX == 256 << 10, "PIECE_BYTES is SEGMENT_BYTES_MAX as u32");
    256 << 10
};
/// Length of a piece of a trim or of zeroes that the device writes itself: long enough to cost
/// nothing, short enough to let others through.
const CLEAR_BYTES_MAX: u64 = 64 << 20;
/// Pieces of one trim or write-zeroes under way at a time.
const CLEAR_PIECES_MAX: u32 = 4;

/// One request of the client.
#[derive(Debug)]
struct Job<B> {
    cookie: u64,
    work: Work<B>,
    /// Pieces under way.
    open: u32,
    /// Pieces made so far; names the next.
    pieces: u16,
    /// The first thing that went wrong.
    error: Option<IoError>,
}

#[derive(Debug)]
enum Work<B> {
    /// All pieces are under way. `join`: the reply is one, so data waits here for the last of it.
    Read {
        extent: Extent,
        join: bool,
        data: SmallVec<[Option<Slice<B>>; 2]>,
    },
    /// `sealed`: the last of its payload has come.
    Write {
        extent: Extent,
        sealed: bool,
    },
    Flush,
    Clear(Clear<B>),
}

/// A trim or write-zeroes.
#[derive(Debug)]
struct Clear<B> {
    operation: Operation,
    /// What is not yet under way.
    left: Extent,
    /// The whole, for another way to do it.
    extent: Extent,
    /// Zeroes, if it is done by writing them.
    zeroes: Option<ZeroBlock<B>>,
    /// Must be fast or fail.
    fast: bool,
    /// To be flushed at the end: it must be on stable storage.
    flush: bool,
}

/// What one reply in the queue gives back when it is sent.
#[derive(Debug)]
struct Queued<B> {
    reply: Reply<B>,
    bytes: u32,
    last: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Jobs<B> {
    connection: u32,
    /// Replies have the structured form.
    pub(super) structured: bool,
    slots: Slab<Job<B>>,
    requests: VecDeque<Request<B>>,
    replies: VecDeque<Queued<B>>,
    /// Zeroes that the device refused to write itself, and that wait for memory.
    unzeroed: Vec<usize>,
    /// The device was found not to write zeroes itself.
    pub(super) zeroes_refused: bool,
    /// Requests whose last reply was not sent.
    pub(super) unanswered: u32,
    /// Payload memory held.
    pub(super) bytes: u64,
    /// How much of it there may be, and the longest piece to be written of zeroes.
    bytes_max: u64,
    zeroes_max: u64,
}

/// How a trim or write-zeroes is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClearWish {
    pub(super) operation: Operation,
    pub(super) fast: bool,
    pub(super) flush: bool,
}

impl<B: Buffer> Jobs<B> {
    /// `len_max`: the longest read or write.
    pub(super) fn new(connection: u32, bytes_max: u64, len_max: u32) -> Self {
        Self {
            connection,
            structured: false,
            slots: Slab::new(),
            requests: VecDeque::new(),
            replies: VecDeque::new(),
            unzeroed: Vec::new(),
            zeroes_refused: false,
            unanswered: 0,
            bytes: 0,
            bytes_max,
            zeroes_max: len_max.min(PIECE_BYTES).into(),
        }
    }

    /// A connection that holds nothing may always hold one request's memory.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.bytes == 0 || self.bytes + bytes <= self.bytes_max
    }

    /// Memory that `len` zeroes are written from.
    pub(super) fn zeroes_for(&self, len: u64) -> u64 {
        len.min(self.zeroes_max)
    }

    /// Nothing is under way, and every reply was taken.
    pub(super) fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.replies.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn replies_queued(&self) -> usize {
        self.replies.len()
    }

    pub(super) fn poll_request(&mut self) -> Option<Request<B>> {
        self.requests.pop_front()
    }

    pub(super) fn transmit(&mut self) -> Option<Reply<B>> {
        let queued = self.replies.pop_front()?;
        self.bytes -= u64::from(queued.bytes);
        self.unanswered -= u32::from(queued.last);
        Some(queued.reply)
    }

    /// Bytes of the handshake.
    pub(super) fn say(&mut self, head: Head) {
        self.push(head, None, 0, false);
    }

    fn push(&mut self, head: Head, data: Option<Slice<B>>, bytes: u32, last: bool) {
        self.replies.push_back(Queued { reply: Reply { head, data }, bytes, last });
    }

    /// Answers a request that never was under way.
    pub(super) fn refuse(&mut self, cookie: u64, error: Errno, why: &str) {
        self.unanswered += 1;
        self.fail(cookie, error, why);
    }

    fn fail(&mut self, cookie: u64, error: Errno, why: &str) {
        let head = if self.structured {
            wire::error_chunk(cookie, error, why, None, true)
        } else {
            wire::simple_reply(cookie, error.number())
        };
        self.push(head, None, 0, true);
    }

    /// "It is all there": the length asked for, allocated and not known to be zero.
    pub(super) fn allocated(&mut self, cookie: u64, context: u32, len: u32) {
        self.unanswered += 1;
        let mut payload = [0; 12];
        payload[..4].copy_from_slice(&context.to_be_bytes());
        payload[4..8].copy_from_slice(&len.to_be_bytes());
        let head = wire::chunk(cookie, wire::chunk::BLOCK_STATUS, true, &payload, 0);
        self.push(head, None, 0, true);
    }

    fn open(&mut self, cookie: u64, work: Work<B>) -> usize {
        self.unanswered += 1;
        self.slots.insert(Job { cookie, work, open: 0, pieces: 0, error: None })
    }

    fn issue(&mut self, key: usize, operation: Operation, extent: Extent, data: Option<Slice<B>>) {
        let job = &mut self.slots[key];
        let id = request_id(self.connection, key, job.pieces);
        job.pieces = job.pieces.wrapping_add(1);
        job.open += 1;
        self.requests.push_back(Request { id, operation, extent, data });
    }

    /// Starts a read whose memory is `pieces`. `whole`: its reply may not be cut.
    pub(super) fn read(
        &mut self,
        cookie: u64,
        extent: Extent,
        whole: bool,
        pieces: SmallVec<[Slice<B>; 2]>,
    ) {
        let join = whole || !self.structured;
        let data = if join { pieces.iter().map(|_| None).collect() } else { SmallVec::new() };
        let key = self.open(cookie, Work::Read { extent, join, data });
        self.bytes += extent.len;
        let mut left = extent;
        for memory in pieces {
            let piece = take_piece(&mut left, memory.len.into()).expect("memory for all of it");
            self.issue(key, Operation::Read, piece, Some(memory));
        }
    }

    /// Starts a write; its payload comes in [`Self::write_piece`]s, the last one `sealed`.
    pub(super) fn write(&mut self, cookie: u64, extent: Extent) -> usize {
        self.open(cookie, Work::Write { extent, sealed: false })
    }

    pub(super) fn write_piece(
        &mut self,
        key: usize,
        offset: u64,
        fua: bool,
        data: Slice<B>,
        last: bool,
    ) {
        if let Work::Write { sealed, .. } = &mut self.slots[key].work {
            *sealed = last;
        }
        let extent = Extent { offset, len: data.len.into() };
        self.issue(key, Operation::Write { fua }, extent, Some(data));
    }

    pub(super) fn flush(&mut self, cookie: u64) {
        let key = self.open(cookie, Work::Flush);
        self.issue(key, Operation::Flush, Extent::NONE, None);
    }

    /// Starts a trim or write-zeroes; the latter by writing if there is a block of `zeroes`.
    pub(super) fn clear(
        &mut self,
        cookie: u64,
        extent: Extent,
        wish: ClearWish,
        zeroes: Option<ZeroBlock<B>>,
    ) {
        self.bytes += zeroes.as_ref().map_or(0, |block| block.len_max().into());
        let ClearWish { operation, fast, flush } = wish;
        let clear = Clear { operation, left: extent, extent, zeroes, fast, flush };
        let key = self.open(cookie, Work::Clear(clear));
        self.clear_on(key);
    }

    /// Puts as many further pieces under way as may be. True if there were any.
    fn clear_on(&mut self, key: usize) -> bool {
        let before = self.requests.len();
        loop {
            let job = &mut self.slots[key];
            let Work::Clear(clear) = &mut job.work else { break };
            if job.open >= CLEAR_PIECES_MAX || job.error.is_some() {
                break;
            }
            let len_max = clear.zeroes.as_ref().map_or(CLEAR_BYTES_MAX, |z| z.len_max().into());
            if let Some(piece) = take_piece(&mut clear.left, len_max) {
                let len = u32::try_from(piece.len).unwrap_or(PIECE_BYTES);
                let data = clear.zeroes.as_ref().map(|block| block.slice(len));
                let fua = Operation::Write { fua: false };
                let operation = if data.is_some() { fua } else { clear.operation };
                self.issue(key, operation, piece, data);
            } else if clear.flush && job.open == 0 {
                clear.flush = false;
                self.issue(key, Operation::Flush, Extent::NONE, None);
            } else {
                break;
            }
        }
        self.requests.len() > before
    }

    /// A piece has ended. Outcomes of other connections, and of pieces that are not under way, are
    /// left alone.
    pub(super) fn complete(&mut self, outcome: Outcome<B>) {
        let Some((key, piece)) = place_of(self.connection, outcome.id) else { return };
        let Some(job) = self.slots.get_mut(key).filter(|job| job.open > 0) else { return };
        job.open -= 1;
        match &job.work {
            Work::Read { .. } => self.read_done(key, piece, outcome),
            Work::Write { extent, .. } => {
                let len = piece_of(*extent, piece).len;
                self.bytes -= len;
                job.error = job.error.or_else(|| outcome.result.err());
                self.end_if_over(key);
            }
            Work::Flush => {
                job.error = outcome.result.err();
                self.end_if_over(key);
            }
            Work::Clear(_) => self.clear_done(key, outcome),
        }
    }

    fn read_done(&mut self, key: usize, piece: u16, outcome: Outcome<B>) {
        let job = &mut self.slots[key];
        let (cookie, last) = (job.cookie, job.open == 0);
        let Work::Read { extent, join, data } = &mut job.work else { return };
        let at = piece_of(*extent, piece);
        let len = u32::try_from(at.len).unwrap_or(PIECE_BYTES);
        let result = match (outcome.result, outcome.data) {
            (Ok(()), Some(slice)) if slice.len == len => Ok(slice),
            (Ok(()), _) => Err(IoError::Io),
            (Err(error), _) => Err(error),
        };
        if *join {
            match result {
                Ok(slice) => data[usize::from(piece)] = Some(slice),
                Err(error) => job.error = job.error.or(Some(error)),
            }
            self.end_if_over(key);
            return;
        }
        if last {
            self.slots.remove(key);
        }
        match result {
            Ok(slice) => {
                let place = at.offset.to_be_bytes();
                let head = wire::chunk(cookie, wire::chunk::OFFSET_DATA, last, &place, len);
                self.push(head, Some(slice), len, last);
            }
            Err(error) => {
                self.bytes -= u64::from(len);
                let (errno, why) = (errno_of(error), error.to_string());
                let head = wire::error_chunk(cookie, errno, &why, Some(at.offset), last);
                self.push(head, None, 0, last);
            }
        }
    }

    fn clear_done(&mut self, key: usize, outcome: Outcome<B>) {
        let job = &mut self.slots[key];
        let Work::Clear(clear) = &mut job.work else { return };
        let zeroes = matches!(clear.operation, Operation::WriteZeroes { .. });
        let unable = outcome.result == Err(IoError::Unsupported) && clear.zeroes.is_none();
        if unable && zeroes {
            self.zeroes_refused = true;
        }
        job.error = job.error.or_else(|| outcome.result.err());
        if job.error.is_none() && self.clear_on(key) {
            return;
        }
        let job = &mut self.slots[key];
        let Work::Clear(clear) = &mut job.work else { return };
        let by_hand = job.error == Some(IoError::Unsupported) && clear.zeroes.is_none();
        if job.open == 0 && by_hand && zeroes && !clear.fast {
            self.unzeroed.push(key);
        } else {
            self.end_if_over(key);
        }
    }

    /// Zeroes that the device refused to write wait for memory to be written from.
    pub(super) fn wants_zeroes(&self) -> bool {
        !self.unzeroed.is_empty() && self.has_room(self.zeroes_max)
    }

    /// Goes on with those, as far as there is room. False if `arena` has no memory.
    pub(super) fn write_unzeroed(&mut self, arena: &mut impl Arena<Buf = B>) -> bool {
        while let Some(&key) = self.unzeroed.last().filter(|_| self.has_room(self.zeroes_max)) {
            let zeroes_max = self.zeroes_max;
            let job = &mut self.slots[key];
            let Work::Clear(clear) = &mut job.work else { return true };
            let len = clear.extent.len.min(zeroes_max);
            let Some(block) = ZeroBlock::new(arena, len) else { return false };
            self.bytes += u64::from(block.len_max());
            (clear.left, clear.zeroes, job.error) = (clear.extent, Some(block), None);
            self.unzeroed.pop();
            self.clear_on(key);
        }
        true
    }

    /// Answers the request if nothing more of it is to come.
    fn end_if_over(&mut self, key: usize) {
        let job = &self.slots[key];
        if job.open > 0 || matches!(job.work, Work::Write { sealed: false, .. }) {
            return;
        }
        let job = self.slots.remove(key);
        let cookie = job.cookie;
        if let Work::Clear(Clear { zeroes: Some(block), .. }) = &job.work {
            self.bytes -= u64::from(block.len_max());
        }
        match (job.error, job.work) {
            (None, Work::Read { extent, data, .. }) => self.answer_read(cookie, extent, data),
            (None, _) => self.push(wire::simple_reply(cookie, 0), None, 0, true),
            (Some(error), work) => {
                if let Work::Read { extent, .. } = work {
                    self.bytes -= extent.len;
                }
                self.fail(cookie, errno_of(error), &error.to_string());
            }
        }
    }

    fn answer_read(&mut self, cookie: u64, extent: Extent, data: SmallVec<[Option<Slice<B>>; 2]>) {
        let len = u32::try_from(extent.len).expect("NBD lengths have 32 bits");
        let mut head = if self.structured {
            let place = extent.offset.to_be_bytes();
            wire::chunk(cookie, wire::chunk::OFFSET_DATA, true, &place, len)
        } else {
            wire::simple_reply(cookie, 0)
        };
        let count = data.len();
        for (at, slice) in data.into_iter().flatten().enumerate() {
            let len = slice.len;
            self.push(std::mem::take(&mut head), Some(slice), len, at + 1 == count);
        }
    }

    /// A write whose payload will never come: the connection has ended.
    pub(super) fn abandon(&mut self, key: usize) {
        let job = &mut self.slots[key];
        if let Work::Write { sealed, .. } = &mut job.work {
            *sealed = true;
        }
        job.error = job.error.or(Some(IoError::Io));
        self.end_if_over(key);
    }
}

/// Where piece number `piece` of a read or write lies.
fn piece_of(extent: Extent, piece: u16) -> Extent {
    let start = u64::from(piece) * u64::from(PIECE_BYTES);
    let len = extent.len.saturating_sub(start).min(PIECE_BYTES.into());
    Extent { offset: extent.offset + start, len }
}

fn request_id(connection: u32, key: usize, piece: u16) -> RequestId {
    let key = u16::try_from(key).expect("at most 65536 requests a connection");
    RequestId(u64::from(connection) << 32 | u64::from(key) << 16 | u64::from(piece))
}

fn place_of(connection: u32, id: RequestId) -> Option<(usize, u16)> {
    let bytes = id.0.to_be_bytes();
    let owner = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let key = u16::from_be_bytes([bytes[4], bytes[5]]);
    let piece = u16::from_be_bytes([bytes[6], bytes[7]]);
    (owner == connection).then_some((key.into(), piece))
}
