//! Commands under way: a slab of them, and the order in which they want to be looked at.
//!
//! Nothing here allocates once as many commands have been under way as there will be. Queues name
//! commands by [`Key`]s and may name some that have ended since: those are stepped over, and
//! cleared away when they are many.

use core::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use smallvec::SmallVec;

use super::{CommandId, Operation};
use crate::time::{Duration, Instant};

/// Entries of a queue that may be stale before it is cleared, beyond four for each live command.
const STALE_MAX: usize = 256;

/// A command's place, and which of the commands that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) slot: u32,
    pub(super) serial: u32,
}

/// One copy of a command on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub(super) tag: u32,
    pub(super) sent: Instant,
}

/// Copies of one command, oldest first. Almost always one.
pub(super) type Copies = SmallVec<[Copy; 2]>;

#[derive(Debug)]
pub(super) struct Pending<D> {
    pub(super) id: CommandId,
    pub(super) operation: Operation<D>,
    pub(super) submitted: Instant,
    /// When it is given up.
    pub(super) expires: Instant,
    pub(super) copies: Copies,
    pub(super) sent_count: u32,
    /// When the last copy is taken for lost; `None` while none is waited for.
    pub(super) due: Option<Instant>,
    /// It has been given up, and waits to be told so.
    pub(super) failed: bool,
}

#[derive(Debug)]
struct Entry<D> {
    serial: u32,
    pending: Option<Pending<D>>,
}

#[derive(Debug)]
pub(super) struct Table<D> {
    entries: Vec<Entry<D>>,
    free: Vec<u32>,
    /// Dues of copies on the wire; stale ones among them, never on top.
    dues: BinaryHeap<Reverse<(Instant, Key)>>,
    /// Commands in the order in which they are given up; stale ones among them, never in front.
    ages: VecDeque<Key>,
}

impl<D> Table<D> {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            dues: BinaryHeap::new(),
            ages: VecDeque::new(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// A command is given up no sooner than those before it: they may have been postponed.
    pub(super) fn insert(&mut self, mut pending: Pending<D>) -> Key {
        let before = self.ages.back().and_then(|key| self.get(*key)).map(|last| last.expires);
        pending.expires = before.map_or(pending.expires, |last| last.max(pending.expires));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { serial: 0, pending: None });
            u32::try_from(self.entries.len() - 1).expect("memory ends before 2^32 commands")
        });
        let entry = &mut self.entries[slot as usize];
        entry.serial = entry.serial.wrapping_add(1);
        entry.pending = Some(pending);
        let key = Key { slot, serial: entry.serial };
        self.ages.push_back(key);
        key
    }

    pub(super) fn get(&self, key: Key) -> Option<&Pending<D>> {
        let entry = &self.entries[key.slot as usize];
        entry.pending.as_ref().filter(|_| entry.serial == key.serial)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Pending<D>> {
        let entry = &mut self.entries[key.slot as usize];
        entry.pending.as_mut().filter(|_| entry.serial == key.serial)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Pending<D>> {
        self.get(key)?;
        let pending = self.entries[key.slot as usize].pending.take();
        self.free.push(key.slot);
        self.prune();
        pending
    }

    /// The first command that `wanted` says yes to. Looks at all.
    pub(super) fn find(&self, mut wanted: impl FnMut(CommandId) -> bool) -> Option<Key> {
        let slot = self
            .entries
            .iter()
            .position(|entry| entry.pending.as_ref().is_some_and(|pending| wanted(pending.id)))?;
        let serial = self.entries[slot].serial;
        Some(Key { slot: u32::try_from(slot).expect("slots are 32 bits"), serial })
    }

    /// A copy was sent, and is waited for until `due`.
    pub(super) fn wait_for(&mut self, key: Key, due: Instant) {
        self.get_mut(key).expect("a copy of a live command").due = Some(due);
        self.dues.push(Reverse((due, key)));
        self.prune();
    }

    /// The next moment at which a copy is lost or a command too old.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.dues.peek().map(|Reverse((due, _))| *due);
        let age = self.ages.front().and_then(|key| self.get(*key)).map(|pending| pending.expires);
        [due, age].into_iter().flatten().min()
    }

    /// A command that is too old at `now`, now marked as failed. Its copy is not waited for.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<(Key, bool)> {
        let key = *self.ages.front()?;
        let pending = self.get_mut(key).expect("no stale command in front");
        if pending.expires > now {
            return None;
        }
        pending.failed = true;
        let waited = pending.due.take().is_some();
        self.ages.pop_front();
        self.prune();
        Some((key, waited))
    }

    /// A command whose copy is lost at `now`. It is not waited for any more.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Key> {
        let Reverse((due, key)) = *self.dues.peek()?;
        if due > now {
            return None;
        }
        self.get_mut(key).expect("no stale copy on top").due = None;
        self.dues.pop();
        self.prune();
        Some(key)
    }

    /// Everything that has a time gets this much more.
    pub(super) fn postpone(&mut self, by: Duration) {
        for pending in self.entries.iter_mut().filter_map(|entry| entry.pending.as_mut()) {
            pending.expires = pending.expires + by;
            pending.due = pending.due.map(|due| due + by);
        }
        let later = |Reverse((due, key)): Reverse<(Instant, Key)>| Reverse((due + by, key));
        self.dues = std::mem::take(&mut self.dues).into_iter().map(later).collect();
    }

    /// Keeps stale entries away from where they are looked at, and few elsewhere.
    fn prune(&mut self) {
        let Self { entries, dues, ages, .. } = self;
        let pending = |key: &Key| {
            let entry = &entries[key.slot as usize];
            entry.pending.as_ref().filter(|_| entry.serial == key.serial)
        };
        let waits = |due: Instant, key: &Key| pending(key).is_some_and(|p| p.due == Some(due));
        let ages_on = |key: &Key| pending(key).is_some_and(|p| !p.failed);
        while dues.peek().is_some_and(|Reverse((due, key))| !waits(*due, key)) {
            dues.pop();
        }
        while ages.front().is_some_and(|key| !ages_on(key)) {
            ages.pop_front();
        }
        let most = 4 * (entries.len() - self.free.len()) + STALE_MAX;
        if dues.len() > most {
            dues.retain(|Reverse((due, key))| waits(*due, key));
        }
        if ages.len() > most {
            ages.retain(ages_on);
        }
    }
}
