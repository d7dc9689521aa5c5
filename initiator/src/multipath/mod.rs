//! The multipath engine: many paths, one device, nothing lost, nothing stuck.
//!
//! [`Engine`] is a plain struct, one for each device. It is given requests, what paths say, and the
//! time; it hands out orders to paths, outcomes and notices. A request's way:
//!
//! ```text
//! submit ─► blocked ─► held ─► waiting ─► on a path ─► outcome
//!           earlier    doubts  no path    │   ▲
//!           changes                       └─► delayed (all paths failed it, or the device is busy)
//! ```
//!
//! What it promises:
//!
//! - **No stale write.** A change whose path died is sent again at once, but its blocks are not
//!   changed by anybody else, and no flush is answered, until the path has proved that the old
//!   copy is dead (`doubts.rs`).
//! - **Overlapping changes keep their order**, first come first served (`ranges.rs`).
//! - **A device's error goes to the asker**, a path's error to another path (`verdict.rs`).
//! - **Acknowledged means durable after a flush**, for every cache behind every path (`flush.rs`).
//! - **Only this device**: a path is judged before anything is sent over it (`admission.rs`).
//! - **Every request ends** when policy says so at the latest (`lifecycle.rs`).
//!
//! The price of the first is that a write which overlaps a doubt waits for the proof: for iSCSI a
//! new session, for AoE the time a frame may live. Without a doubt it costs one comparison.
//!
//! ```text
//! policy.rs      what an administrator decides
//! status.rs      what is told to people and scripts; report.rs fills it in
//! rules.rs       the safety rules, each with a switch for the simulator
//! table.rs       requests that have not ended; list.rs the lists they stand in
//! tries.rs       tries under way
//! ranges.rs      which ranges overlap
//! doubts.rs      ranges whose old copy may still land
//! dispatch.rs    a request's way to a path, and its end
//! verdict.rs     what a try's end means
//! flush.rs       caches, and when a flush is done
//! legacy.rs      what the next process must know, should this one die
//! paths.rs       what is known of a path; rate.rs its speed, flap.rs its failures
//! group.rs       path groups; select.rs the path for a request
//! admission.rs   is it this device?
//! events.rs      what paths say
//! lifecycle.rs   no path, old age, fence, detach
//! hedge.rs       second chances for slow reads
//! ```

mod admission;
mod dispatch;
mod doubts;
mod events;
mod flap;
mod flush;
mod group;
mod hedge;
mod legacy;
mod lifecycle;
mod list;
mod paths;
pub mod policy;
mod ranges;
mod rate;
mod report;
pub mod rules;
mod select;
pub mod status;
mod table;
#[cfg(test)]
mod tests;
mod tries;
mod verdict;

use std::collections::VecDeque;

use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use self::admission::Device;
use self::doubts::Doubts;
use self::flush::Domains;
use self::group::Groups;
use self::hedge::Latencies;
use self::legacy::Ages;
pub use self::legacy::{CacheMark, Legacy};
use self::paths::Path;
pub use self::paths::{PATHS_MAX, PathSpec};
use self::policy::Policy;
use self::ranges::Ranges;
pub use self::report::Geometry;
use self::rules::Rules;
use self::select::Turn;
use self::status::{DeviceCounters, Notice, PathState};
use self::table::{Key, Role, Table, Watch};
use self::tries::Tries;
use crate::path::{PathId, Try, TryId};
use crate::request::{Extent, IoError, Operation, Outcome, Request};

/// Notices kept for an owner who does not ask for them; older ones are dropped.
const NOTICES_MAX: usize = 256;

/// What a path is to do.
#[derive(Debug)]
pub enum Order<B> {
    /// Perform a try. The try of a read may have no memory: its owner lends some, or ends it with
    /// [`Verdict::Later`](crate::path::Verdict::Later).
    Start {
        /// Which path.
        path: PathId,
        /// What.
        attempt: Try<B>,
    },
    /// End a try early, if it has not ended. It ends with a verdict of its own in any case.
    Abort {
        /// Which path.
        path: PathId,
        /// Which try.
        id: TryId,
    },
    /// Look whether the path is well.
    Check {
        /// Which path.
        path: PathId,
    },
}

/// The engine of one device. See the head of this module.
///
/// Feed it with [`submit`](Self::submit), [`path_event`](Self::path_event) and
/// [`handle_timeout`](Self::handle_timeout), and after each ask [`poll_order`](Self::poll_order),
/// [`poll_outcome`](Self::poll_outcome), [`poll_notice`](Self::poll_notice) until they are empty
/// and [`poll_timeout`](Self::poll_timeout) once.
#[derive(Debug)]
pub struct Engine<B> {
    /// The latest time it was told.
    now: Instant,
    policy: Policy,
    rules: Rules,
    device: Option<Device>,
    /// A request has come: the size of blocks is settled.
    began: bool,
    paths: Vec<Path>,
    groups: Groups,
    turn: Turn,
    table: Table<B>,
    tries: Tries,
    /// Changes that have not ended.
    changes: Ranges<Key>,
    doubts: Doubts,
    domains: Domains,
    ages: Ages,
    /// Entries to be looked at, with their sequence numbers.
    runnable: VecDeque<(Key, u64)>,
    /// The first of the pauses to end, or earlier.
    delayed_next: Option<Instant>,
    latencies: Latencies,
    no_path_since: Option<Instant>,
    /// Requests fail, and that has been told.
    given_up: bool,
    fenced: bool,
    /// Until when requests may end.
    detaching: Option<Instant>,
    counters: DeviceCounters,
    orders: VecDeque<Order<B>>,
    outcomes: VecDeque<Outcome<B>>,
    notices: VecDeque<Notice>,
}

impl<B: Buffer> Engine<B> {
    /// A device without paths. Requests may come at once; they wait for the first path as the
    /// policy says, from `now` on.
    pub fn new(now: Instant, policy: Policy, rules: Rules) -> Self {
        Self {
            now,
            policy,
            rules,
            device: None,
            began: false,
            paths: Vec::new(),
            groups: Groups::default(),
            turn: Turn::default(),
            table: Table::default(),
            tries: Tries::default(),
            changes: Ranges::default(),
            doubts: Doubts::default(),
            domains: Domains::default(),
            ages: Ages::default(),
            runnable: VecDeque::new(),
            delayed_next: None,
            latencies: Latencies::default(),
            no_path_since: Some(now),
            given_up: false,
            fenced: false,
            detaching: None,
            counters: DeviceCounters::default(),
            orders: VecDeque::new(),
            outcomes: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// Time never goes back.
    fn at(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn notice(&mut self, notice: Notice) {
        if self.notices.len() == NOTICES_MAX {
            self.notices.pop_front();
        }
        self.notices.push_back(notice);
    }

    /// Takes a request. Its outcome comes from [`Engine::poll_outcome`], exactly once, perhaps at
    /// once.
    pub fn submit(&mut self, now: Instant, request: Request<B>) {
        self.at(now);
        self.began = true;
        if let Some(error) = self.unfit(&request) {
            self.counters.failed += 1;
            let outcome = Outcome { id: request.id, data: request.data, result: Err(error) };
            return self.outcomes.push_back(outcome);
        }
        if request.operation == Operation::Flush {
            self.submit_flush(request);
            return self.run();
        }
        let Request { id, operation, extent, data } = request;
        let key = self.table.insert(self.now, (id, operation, extent), data, Role::Plain);
        if operation.changes() {
            self.table[key].submitted = self.change_begun();
            if self.rules.order_overlaps {
                let before = self.changes.overlapping(extent).count();
                self.table[key].blockers = u32::try_from(before).unwrap_or(u32::MAX);
            }
            self.changes.insert(extent, key);
            self.table.watch(key, Watch::Age);
            self.note_ages();
        }
        self.wake(key);
        self.run();
    }

    /// Why a request is refused when it comes.
    fn unfit(&self, request: &Request<B>) -> Option<IoError> {
        if self.fenced || self.detaching.is_some() {
            return Some(IoError::Fenced);
        }
        if self.groups.working.is_empty() && self.no_path_over() {
            return Some(IoError::Io);
        }
        let given = request.data.as_ref().map(|data| u64::from(data.len));
        let fits = match request.operation {
            Operation::Flush => return None,
            Operation::Read => given.is_none_or(|len| len == request.extent.len),
            Operation::Write { .. } => given == Some(request.extent.len),
            Operation::Discard | Operation::WriteZeroes { .. } => given.is_none(),
        };
        let Extent { offset, len } = request.extent;
        if !fits || len == 0 || offset.checked_add(len).is_none() {
            return Some(IoError::Invalid);
        }
        self.misfit(request.operation, request.extent)
    }

    /// Why the device, as far as it is known, cannot take this.
    fn misfit(&self, operation: Operation, extent: Extent) -> Option<IoError> {
        let known = self.device.as_ref().filter(|device| !device.unconfirmed);
        let identity = &known.filter(|_| self.rules.check_bounds)?.identity;
        let block = u64::from(identity.block_bytes).max(1);
        let whole = extent.offset.is_multiple_of(block) && extent.len.is_multiple_of(block);
        let inside = extent.end() <= identity.size_bytes;
        let fits = operation == Operation::Flush || (whole && inside);
        (!fits).then_some(IoError::Invalid)
    }

    /// What a path is to do next.
    pub fn poll_order(&mut self) -> Option<Order<B>> {
        self.orders.pop_front()
    }

    /// The next answer.
    pub fn poll_outcome(&mut self) -> Option<Outcome<B>> {
        self.outcomes.pop_front()
    }

    /// The next piece of news.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Engine::handle_timeout`] wants to be called. Changes with every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Also one whose time is over, if nobody has looked at it since.
        let damped = self.paths.iter().filter(|path| path.state == PathState::Damped);
        let damped = damped.filter_map(|path| path.damped_until).min();
        let times = [
            self.next_expiry(),
            self.delayed_next.filter(|_| !self.table.delayed.is_empty()),
            self.hedge_at(),
            self.failback_at(),
            self.recheck_at(),
            damped,
            self.ages_due(),
        ];
        times.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.at(now);
        self.refresh();
        self.expire();
        self.note_ages();
        self.recheck();
        self.wake_delayed();
        self.hedge();
        self.run();
    }
}
