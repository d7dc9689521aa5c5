//! Who may touch which bytes now.
//!
//! Every request on a volume holds its range while it is at the medium: readers share, writers
//! exclude. So each request is atomic against every other on any overlapping range, whichever
//! session, tag, shard or protocol it came by. A write that a client retransmits while the first
//! copy is still at the disk waits for it, and so does the newer write that follows: nothing lands
//! late (AoE tags change with every retransmission, so a target cannot recognise the copies).
//!
//! Requests are served in order of arrival: a newcomer waits for every earlier conflicting
//! request, granted or waiting. That order is total, so nobody waits in a circle or for ever.
//!
//! The price without overlap: the volume is cut into chunks that are dealt out over a few dozen
//! stripes, and a request locks its chunk's stripe twice for some tens of nanoseconds (two atomic
//! instructions each, when no other shard is in the same stripe at that moment), and looks through
//! the requests in flight on that stripe. `benches/` measures it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host::ShardId;

/// Bytes in one chunk, as a power of two: the largest payload piece, so that most requests lie in
/// one chunk.
const CHUNK_SHIFT: u32 = 18;

/// Stripes that chunks are dealt out over; a power of two.
const STRIPES: usize = 32;

/// Whether a request lets others in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Readers: many at a time.
    Shared,
    /// Writers: alone.
    Exclusive,
}

/// Who is told when a waiting request's turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The shard that owns the request.
    pub shard: ShardId,
    /// The request's number there.
    pub id: u64,
}

/// A place in the order of requests. Give it back with [`RangeLock::release`], granted or not.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket that is not released blocks its range for ever"]
pub struct Ticket {
    number: u64,
    start: u64,
    end: u64,
}

/// The answer to [`RangeLock::acquire`].
#[derive(Debug, PartialEq, Eq)]
pub enum Grant {
    /// The range is yours.
    Now(Ticket),
    /// The range is yours when [`RangeLock::release`] names your waiter.
    Later(Ticket),
}

/// The range lock of one volume.
#[derive(Debug)]
pub struct RangeLock {
    stripes: Box<[Mutex<Vec<Entry>>]>,
    next_number: AtomicU64,
}

/// A request in a stripe. Entries stand in order of arrival.
#[derive(Debug)]
struct Entry {
    number: u64,
    start: u64,
    end: u64,
    access: Access,
    /// Earlier entries of this stripe that conflict.
    blockers: u32,
    waiter: Waiter,
    /// The sum of blockers over all stripes, for a request that stands in several.
    spread: Option<Arc<AtomicU32>>,
}

impl Entry {
    fn conflicts(&self, start: u64, end: u64, access: Access) -> bool {
        self.start < end
            && start < self.end
            && (self.access == Access::Exclusive || access == Access::Exclusive)
    }
}

type Stripe<'a> = MutexGuard<'a, Vec<Entry>>;

impl Default for RangeLock {
    fn default() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::new(Vec::new())).collect();
        Self { stripes, next_number: AtomicU64::new(0) }
    }
}

impl RangeLock {
    /// Asks for the bytes from `start` up to, not including, `end`.
    ///
    /// # Panics
    /// If the range is empty: a request without bytes needs no lock.
    pub fn acquire(&self, start: u64, end: u64, access: Access, waiter: Waiter) -> Grant {
        assert!(start < end, "an empty range needs no lock");
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { number, start, end };
        let blockers = match single_stripe(start, end) {
            Some(index) => self.enter(&mut self.lock(index), &ticket, access, waiter, None),
            None => self.enter_many(&ticket, access, waiter),
        };
        if blockers == 0 { Grant::Now(ticket) } else { Grant::Later(ticket) }
    }

    /// Gives a range back, or leaves the queue. Those whose turn it is now are added to `woken`.
    pub fn release(&self, ticket: Ticket, woken: &mut Vec<Waiter>) {
        match single_stripe(ticket.start, ticket.end) {
            Some(index) => leave(&mut self.lock(index), ticket.number, woken),
            None => {
                let mut stripes = self.lock_many(ticket.start, ticket.end);
                for stripe in &mut stripes {
                    leave(stripe, ticket.number, woken);
                }
            }
        }
    }

    /// Requests that hold or wait for a range. For status and tests; takes every stripe's lock.
    pub fn len(&self) -> usize {
        let mut numbers: Vec<u64> = Vec::new();
        for index in 0..STRIPES {
            numbers.extend(self.lock(index).iter().map(|e| e.number));
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }

    /// True if nobody holds or waits for a range.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self, index: usize) -> Stripe<'_> {
        // A panic while a stripe is locked ends the process (panic = abort); in tests that
        // unwind, the list itself is whole after every statement.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks every stripe that the range lies in, in ascending order, so that two such calls
    /// never wait for each other in a circle.
    fn lock_many(&self, start: u64, end: u64) -> Vec<Stripe<'_>> {
        let first = start >> CHUNK_SHIFT;
        let last = (end - 1) >> CHUNK_SHIFT;
        if last - first + 1 >= STRIPES as u64 {
            return (0..STRIPES).map(|index| self.lock(index)).collect();
        }
        let mut indexes: Vec<usize> = (first..=last).map(stripe_of_chunk).collect();
        indexes.sort_unstable();
        indexes.into_iter().map(|index| self.lock(index)).collect()
    }

    fn enter_many(&self, ticket: &Ticket, access: Access, waiter: Waiter) -> u32 {
        let mut stripes = self.lock_many(ticket.start, ticket.end);
        let sum = Arc::new(AtomicU32::new(0));
        let mut blockers = 0;
        for stripe in &mut stripes {
            blockers += self.enter(stripe, ticket, access, waiter, Some(sum.clone()));
        }
        // All stripes are still locked, so nobody has counted down yet.
        sum.store(blockers, Ordering::Relaxed);
        blockers
    }

    fn enter(
        &self,
        stripe: &mut Vec<Entry>,
        ticket: &Ticket,
        access: Access,
        waiter: Waiter,
        spread: Option<Arc<AtomicU32>>,
    ) -> u32 {
        let &Ticket { number, start, end } = ticket;
        let conflicts = stripe.iter().filter(|e| e.conflicts(start, end, access)).count();
        let blockers = u32::try_from(conflicts).expect("requests in flight are bounded");
        stripe.push(Entry { number, start, end, access, blockers, waiter, spread });
        blockers
    }
}

#[allow(clippy::cast_possible_truncation)] // masked to the number of stripes
const fn stripe_of_chunk(chunk: u64) -> usize {
    chunk as usize & (STRIPES - 1)
}

const fn single_stripe(start: u64, end: u64) -> Option<usize> {
    let chunk = start >> CHUNK_SHIFT;
    if chunk == (end - 1) >> CHUNK_SHIFT { Some(stripe_of_chunk(chunk)) } else { None }
}

/// Takes entry `number` out of `stripe` and counts down those that waited for it.
fn leave(stripe: &mut Vec<Entry>, number: u64, woken: &mut Vec<Waiter>) {
    let position = stripe.iter().position(|e| e.number == number);
    let position = position.expect("a ticket stands in every stripe of its range until released");
    let gone = stripe.remove(position);
    for later in &mut stripe[position..] {
        if !later.conflicts(gone.start, gone.end, gone.access) {
            continue;
        }
        later.blockers -= 1;
        let turn = match &later.spread {
            Some(sum) => sum.fetch_sub(1, Ordering::AcqRel) == 1,
            None => later.blockers == 0,
        };
        if turn {
            woken.push(later.waiter);
        }
    }
}

#[cfg(test)]
#[path = "range_lock_tests.rs"]
mod tests;
