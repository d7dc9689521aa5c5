//! One shard's requests in flight: ordered, performed, made durable, answered.
//!
//! A request passes four gates, in this order, so that nobody who holds a range waits for memory
//! and nobody who holds memory waits for less than its turn:
//!
//! ```text
//! memory   what a read, comparison or fill needs is lent, all of it or none; else it queues.
//!          A read that a store in memory lends its own needs none
//! range    its bytes are its own (range_lock); a flush has no range
//! medium   its block operations run, several at a time (steps); beside readers,
//!          writes by a window                                                   (pace)
//! flush    if it must be durable on a volatile cache: one flush for all that wait (commit)
//! ```
//!
//! The range is given back after the medium, before the flush: overlapping requests are in order
//! by then, and need not wait for each other's flush. The range of a read whose data the store has
//! lent is given back when the store has its memory back: what was read may be sent until then.

mod commit;
mod pace;
mod steps;

use std::collections::VecDeque;
use std::sync::Arc;

use corbel_proto::memory::{Buffer, Slice};
use corbel_proto::time::{Duration, Instant};
use slab::Slab;

use self::commit::Commits;
use self::pace::Paces;
use self::steps::{Job, Progress};
use super::range_lock::{Access, Grant, Ticket, Waiter};
use super::sanitize::Phase;
use super::{Outcome, Request, Volume};
use crate::host::{BlockError, BlockOp, BlockToken, Extent, Host, Message};

/// Whose request it is. The number is the owner's own and comes back with the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The AoE server.
    Aoe(u64),
    /// The iSCSI server.
    Iscsi(u64),
}

/// Names a request from its submission to its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    fn new(key: usize, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | key as u64)
    }

    #[allow(clippy::cast_possible_truncation)] // the halves that `new` put together
    const fn key(self) -> usize {
        self.0 as u32 as usize
    }

    #[allow(clippy::cast_possible_truncation)]
    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Memory,
    Range,
    Medium,
    Flush,
    /// Answered with memory that the store has lent.
    Lent,
}

#[derive(Debug)]
struct InFlight<B> {
    generation: u32,
    owner: Owner,
    volume: Arc<Volume>,
    durable: bool,
    gate: Gate,
    ticket: Option<Ticket>,
    /// Block operations not yet completed.
    outstanding: u32,
    failed: Option<BlockError>,
    /// Attempts to sanitize the volume when it was submitted.
    sanitizations: u32,
    job: Job<B>,
}

/// The requests of one shard.
#[derive(Debug)]
pub struct Engine<B> {
    requests: Slab<InFlight<B>>,
    next_generation: u32,
    /// Requests that found no memory, in order of arrival.
    starved: VecDeque<RequestId>,
    /// Erasures that wait for their next turn, and when that is.
    paced: Vec<(Instant, RequestId)>,
    commits: Commits,
    paces: Paces<B>,
    woken: Vec<Waiter>,
    done: VecDeque<(Owner, Outcome<B>)>,
}

impl<B: Buffer> Default for Engine<B> {
    fn default() -> Self {
        Self {
            requests: Slab::new(),
            next_generation: 0,
            starved: VecDeque::new(),
            paced: Vec::new(),
            commits: Commits::default(),
            paces: Paces::default(),
            woken: Vec::new(),
            done: VecDeque::new(),
        }
    }
}

impl<B: Buffer> Engine<B> {
    /// Takes on a request. Its outcome comes out of [`Self::poll`] exactly once.
    pub fn submit<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        owner: Owner,
        request: Request<B>,
    ) -> RequestId {
        let Request { volume, kind, durable, lend } = request;
        let durable = durable && volume.facts.volatile_cache;
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        // In this order: whoever begins closes the volume first, and counts then.
        let sanitizations = volume.sanitization.attempts();
        let erasure = matches!(kind, super::Kind::Erase(_));
        let refusal = match volume.sanitization.phase() {
            _ if volume.is_gone() => Some(BlockError::Gone),
            Phase::Open => None,
            _ if erasure => None,
            _ => Some(BlockError::Sanitizing),
        };
        let borrows = lend && host.lends(volume.id);
        let job = Job::new(kind, borrows, volume.cipher.clone());
        let key = self.requests.insert(InFlight {
            generation,
            owner,
            volume,
            durable,
            gate: Gate::Memory,
            ticket: None,
            outstanding: 0,
            failed: refusal,
            sanitizations,
            job,
        });
        let id = RequestId::new(key, generation);
        if refusal.is_some() {
            self.answer(key);
        } else {
            self.wait_for_memory(host, key);
        }
        self.wake(host);
        id
    }

    /// Stops a request that has not touched the medium. True: it never will; its outcome is
    /// [`Outcome::Cancelled`]. False: it is at the medium or past it (or answered already), and
    /// its natural outcome comes.
    pub fn cancel<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, id: RequestId) -> bool {
        let Some(request) = self.requests.get(id.key()) else { return false };
        if request.generation != id.generation() || request.job.touched_medium() {
            return false;
        }
        match request.gate {
            Gate::Memory => self.starved.retain(|other| *other != id),
            Gate::Range => self.release(id.key()),
            Gate::Medium | Gate::Flush | Gate::Lent => return false,
        }
        let request = self.requests.remove(id.key());
        self.done.push_back((request.owner, Outcome::Cancelled));
        self.wake(host);
        true
    }

    /// A block operation completed. `data` is the piece that was lent with it.
    pub fn block_done<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        token: BlockToken,
        result: Result<(), BlockError>,
        data: Option<Slice<B>>,
    ) {
        if let Some(volume) = Commits::volume_of(token) {
            self.flush_done(host, volume, result);
        } else {
            self.piece_done(host, token, result, data);
        }
        self.wake(host);
    }

    /// Nobody has a handle any more to what a store has lent ([`Host::lend`]). Comes once for each
    /// loan.
    pub fn returned<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, token: BlockToken) {
        let key = RequestId(token.0).key();
        let gate = self.requests.get(key).map(|request| request.gate);
        assert_eq!(gate, Some(Gate::Lent), "a request outlives what it was lent");
        self.release(key);
        self.requests.remove(key);
        self.wake(host);
    }

    /// A [`BlockOp::Status`] was answered.
    pub fn status_done<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        token: BlockToken,
        extent: Extent,
    ) {
        let key = RequestId(token.0).key();
        let request = self.requests.get_mut(key).expect("a request outlives its block operations");
        let block = u64::from(request.volume.facts.block_bytes);
        request.job.extent(extent, block, request.volume.size_bytes());
        request.outstanding -= 1;
        self.advance(host, key);
        self.wake(host);
    }

    /// A message of [`crate::host::Message`]'s engine kind, from the shard that gave a range back.
    pub fn message<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, waiter: u64) {
        self.granted(host, RequestId(waiter));
        self.wake(host);
    }

    /// Tries again for requests that found no memory, and goes on with those whose time has come.
    /// Call once per turn.
    pub fn tick<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H) {
        let now = host.now();
        while let Some(at) = self.paced.iter().position(|(due, _)| *due <= now) {
            let (_, id) = self.paced.swap_remove(at);
            self.advance(host, id.key());
        }
        while let Some(id) = self.starved.front().copied() {
            if !self.pass_memory(host, id.key()) {
                break;
            }
            self.starved.pop_front();
        }
        self.wake(host);
    }

    /// When [`Self::tick`] is due at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.paced.iter().map(|(due, _)| *due).min()
    }

    /// The next outcome.
    pub fn poll(&mut self) -> Option<(Owner, Outcome<B>)> {
        self.done.pop_front()
    }

    /// Requests that have no outcome yet, or whose outcome a store has lent memory for.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// The same by volume.
    pub fn in_flight_by_volume(&self) -> Vec<(super::VolumeId, u64)> {
        let mut counts = std::collections::BTreeMap::new();
        for (_, request) in &self.requests {
            *counts.entry(request.volume.id).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// Requests that wait for memory; call [`Self::tick`] again soon if there are any.
    pub fn starved(&self) -> usize {
        self.starved.len()
    }

    /// Nobody overtakes those who already wait for memory.
    fn wait_for_memory<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, key: usize) {
        let request = &self.requests[key];
        let id = RequestId::new(key, request.generation);
        let behind = !self.starved.is_empty() && request.job.needs_memory();
        if behind || !self.pass_memory(host, key) {
            self.starved.push_back(id);
        }
    }

    /// Lends what the request needs, all or nothing; then on to the range.
    fn pass_memory<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, key: usize) -> bool {
        if !self.requests[key].job.lend(host) {
            return false;
        }
        self.pass_range(host, key);
        true
    }

    fn pass_range<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, key: usize) {
        let request = &mut self.requests[key];
        let Some((start, end, access)) = request.job.range() else {
            request.gate = Gate::Medium;
            return self.advance(host, key);
        };
        let id = RequestId::new(key, request.generation);
        let waiter = Waiter { shard: host.shard(), id: id.0 };
        match request.volume.ranges.acquire(start, end, access, waiter) {
            Grant::Now(ticket) => {
                request.ticket = Some(ticket);
                self.enter_medium(host, key);
            }
            Grant::Later(ticket) => {
                request.ticket = Some(ticket);
                request.gate = Gate::Range;
            }
        }
    }

    /// A range was granted to a request that waited. It may have been cancelled meanwhile.
    fn granted<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, id: RequestId) {
        let Some(request) = self.requests.get_mut(id.key()) else { return };
        if request.generation != id.generation() || request.gate != Gate::Range {
            return;
        }
        self.enter_medium(host, id.key());
    }

    /// The range is the request's own. Whoever began to sanitize the volume after it was
    /// submitted has the range next, or had it, and nothing may be written after that.
    fn enter_medium<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, key: usize) {
        let request = &mut self.requests[key];
        request.gate = Gate::Medium;
        let stale = request.sanitizations != request.volume.sanitization.attempts();
        if stale && !request.job.is_erasure() {
            request.failed = Some(BlockError::Sanitizing);
        }
        if request.volume.tokens.any()
            && let Some((start, end, Access::Exclusive)) = request.job.range()
        {
            request.volume.tokens.written(start, end);
        }
        if request.failed.is_none() && request.job.borrows() {
            // It costs the store nothing, so no write is paced beside it.
            let (volume, token) = (request.volume.id, BlockToken(key as u64));
            if request.job.borrow(|offset, len| host.lend(volume, offset, len, token)) {
                return self.answer_lent(key);
            }
            // It lends no more. Who holds a range does not wait for memory.
            request.gate = Gate::Memory;
            self.release(key);
            return self.wait_for_memory(host, key);
        }
        self.advance(host, key);
    }

    /// Runs the request's next block operations, or moves it on if there are none left.
    fn advance<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, key: usize) {
        let request = &mut self.requests[key];
        if request.job.is_erasure() {
            request.prepare_erasure(&mut |bytes| host.random(bytes));
        }
        let volume = request.volume.id;
        let mut piece = 0u32;
        let mut issued = 0u32;
        let paces = &mut self.paces;
        let mut issue = |op: BlockOp<B>| {
            let token = BlockToken(u64::from(piece) << 32 | key as u64);
            if let Some((op, token)) = paces.pass(volume, op, token, host.now()) {
                host.block(volume, op, token);
            }
            piece += 1;
            issued += 1;
        };
        let progress = request.job.next(request.failed, &mut issue);
        request.outstanding += issued;
        match progress {
            Progress::Wait => {}
            Progress::NextRange => {
                self.release(key);
                self.pass_range(host, key);
            }
            Progress::Finished => {
                self.release(key);
                self.pass_flush(host, key);
            }
        }
    }

    fn piece_done<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        token: BlockToken,
        result: Result<(), BlockError>,
        data: Option<Slice<B>>,
    ) {
        let BlockToken(own) = pace::unmarked(token);
        let key = RequestId(own).key();
        let piece = RequestId(own).generation() as usize;
        let request = self.requests.get_mut(key).expect("a request outlives its block operations");
        request.outstanding -= 1;
        let volume = request.volume.id;
        if pace::is_write(token) {
            let bytes = data.as_ref().map_or(0, |data| data.len);
            self.paces.written(volume, bytes.into());
            while let Some((op, token)) = self.paces.next(volume, host.now()) {
                host.block(volume, op, token);
            }
        }
        if result.is_err() && request.job.is_flushing() {
            request.volume.count_flush_failure();
        }
        let end = request.volume.size_bytes();
        let result = request.job.piece_done(piece, result, data, end);
        if let Err(error) = result {
            request.failed.get_or_insert(error);
        }
        if request.outstanding > 0 {
            return;
        }
        match request.pause() {
            Some(pause) => {
                let id = RequestId::new(key, request.generation);
                self.paced.push((host.now() + pause, id));
            }
            None => self.advance(host, key),
        }
    }

    /// Past the medium: does it have to wait for a flush?
    fn pass_flush<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, key: usize) {
        let request = &mut self.requests[key];
        let volatile = request.volume.facts.volatile_cache;
        let flush = request.job.is_flush() && volatile;
        let durable = request.durable && request.job.changes_medium();
        if request.failed.is_some() || !(flush || durable) {
            return self.answer(key);
        }
        request.gate = Gate::Flush;
        let volume = request.volume.id;
        if self.commits.join(volume, key) {
            host.block(volume, BlockOp::Flush, Commits::token(volume));
        }
    }

    fn flush_done<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        volume: super::VolumeId,
        result: Result<(), BlockError>,
    ) {
        let (riders, again) = self.commits.landed(volume);
        if let (Err(_), Some(first)) = (result, riders.first()) {
            self.requests[*first].volume.count_flush_failure();
        }
        for &key in &riders {
            if let Err(error) = result {
                self.requests[key].failed = Some(error);
            }
            self.answer(key);
        }
        self.commits.recycle(riders);
        if again {
            host.block(volume, BlockOp::Flush, Commits::token(volume));
        }
    }

    fn answer(&mut self, key: usize) {
        let request = self.requests.remove(key);
        let bytes = request.job.bytes();
        request.volume.count(request.job.is_read(), bytes, request.failed.is_some());
        let outcome = match request.failed {
            Some(error) => Outcome::Failed(error),
            None => request.job.outcome(),
        };
        self.done.push_back((request.owner, outcome));
    }

    /// The answer to a read whose range stays its own until it has left.
    fn answer_lent(&mut self, key: usize) {
        let request = &mut self.requests[key];
        request.volume.count(true, request.job.bytes(), false);
        request.gate = Gate::Lent;
        self.done.push_back((request.owner, Outcome::Data(request.job.take_data())));
    }

    fn release(&mut self, key: usize) {
        let request = &mut self.requests[key];
        if let Some(ticket) = request.ticket.take() {
            request.volume.ranges.release(ticket, &mut self.woken);
        }
    }

    /// Tells those whose range became free: here at once, elsewhere by message.
    fn wake<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H) {
        while let Some(waiter) = self.woken.pop() {
            if waiter.shard == host.shard() {
                self.granted(host, RequestId(waiter.id));
            } else {
                host.post(waiter.shard, Message::RangeGranted { waiter: waiter.id });
            }
        }
    }
}

impl<B: Buffer> InFlight<B> {
    /// Before the next operations of an erasure.
    fn prepare_erasure(&mut self, random: &mut dyn FnMut(&mut [u8])) {
        self.job.measure(self.volume.size_bytes());
        self.job.draw_key(random);
        let (done, all) = self.job.erasure();
        self.volume.sanitization.set_progress(done, all);
        if self.volume.is_gone() {
            self.failed.get_or_insert(BlockError::Gone);
        }
    }

    /// How long an erasure rests before its next operations, so that others on the same disks get
    /// their share.
    fn pause(&self) -> Option<Duration> {
        let rate = self.volume.options.sanitize_rate;
        let bytes = if rate > 0 { self.job.batch() } else { 0 };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        (bytes > 0).then(|| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// What a range is asked for with.
const fn access(exclusive: bool) -> Access {
    if exclusive { Access::Exclusive } else { Access::Shared }
}

#[cfg(test)]
mod tests;
