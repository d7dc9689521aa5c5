//! Requests that have not ended, and the lists they stand in.
//!
//! Entries live in a slab and are linked by their keys, so that no request costs an allocation once
//! the slab has grown to the depth of the presenter.

use std::ops::{Index, IndexMut};

use corbel_proto::memory::Slice;
use corbel_proto::time::{Duration, Instant};
use slab::Slab;
use smallvec::SmallVec;

use super::list::{Linked, Links, List};
use crate::path::{PathId, TryId};
use crate::request::{Extent, IoError, Operation, RequestId};

/// Where an entry stands in the slab.
pub(super) type Key = usize;

/// What an entry waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// For earlier changes that it overlaps; or to be looked at, if there are none left.
    Blocked,
    /// For doubts to end.
    Held,
    /// For a path.
    Waiting,
    /// For a time. `stuck` if every path has failed it; else the device is busy.
    Delayed { until: Instant, stuck: bool },
    /// For its tries, or (a flush) for its parts.
    OnPath,
}

/// Which list of the second kind an entry stands in: those that are watched by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    None,
    /// Changes, oldest first: for the age limit.
    Age,
    /// Changes that are too old and still on a path.
    Dying,
    /// Reads on one path: for a second chance.
    Hedge,
    /// Flushes.
    Flush,
}

/// What an entry is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// A request that is sent as it is.
    Plain,
    /// A flush: its commands are entries of their own.
    Flush {
        /// Doubts below this mark are waited for.
        mark: u64,
        /// Parts that have not ended.
        parts: u32,
        /// What went wrong with one of them.
        error: Option<IoError>,
    },
    /// A flush command, over a path of this cache domain, or any path.
    Part { parent: Key, domain: Option<u32> },
}

#[derive(Debug)]
pub(super) struct Entry<B> {
    pub(super) id: RequestId,
    /// In the order of submission.
    pub(super) seq: u64,
    pub(super) operation: Operation,
    pub(super) extent: Extent,
    /// A read's memory is away while it is on a path.
    pub(super) data: Option<Slice<B>>,
    pub(super) submitted: Instant,
    pub(super) state: State,
    /// Since when it is in a state in which it only waits (`Held`, `Waiting`, a flush on hold).
    pub(super) since: Instant,
    pub(super) role: Role,
    /// Earlier overlapping changes that have not ended.
    pub(super) blockers: u32,
    /// Tries under way.
    pub(super) tries: SmallVec<[TryId; 2]>,
    /// Paths that failed it in this round.
    pub(super) failed: SmallVec<[PathId; 4]>,
    /// Paths that were too busy for it, and how long they want to be left alone.
    pub(super) busy: SmallVec<[PathId; 4]>,
    pub(super) busy_for: Duration,
    /// Since when it was told to come later.
    pub(super) busy_since: Option<Instant>,
    /// Rounds in which every path failed it.
    pub(super) rounds: u32,
    /// Since when no path could do it although some were ready.
    pub(super) stuck_since: Option<Instant>,
    /// It is only waited for; then it ends with this.
    pub(super) dying: Option<IoError>,
    /// Tries so far.
    pub(super) attempts: u32,
    /// A second copy was asked for.
    pub(super) hedged: bool,
    watch: Watch,
    links: [Links; 2],
}

impl<B> Linked for Entry<B> {
    fn links(&mut self, which: usize) -> &mut Links {
        &mut self.links[which]
    }
}

/// Links of lists by state.
const BY_STATE: usize = 0;
/// Links of lists by time.
const BY_WATCH: usize = 1;

#[derive(Debug)]
pub(super) struct Table<B> {
    entries: Slab<Entry<B>>,
    pub(super) held: List<BY_STATE>,
    pub(super) waiting: List<BY_STATE>,
    pub(super) delayed: List<BY_STATE>,
    pub(super) ages: List<BY_WATCH>,
    pub(super) dying: List<BY_WATCH>,
    pub(super) reads: List<BY_WATCH>,
    pub(super) flushes: List<BY_WATCH>,
    next_seq: u64,
}

impl<B> Default for Table<B> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            held: List::default(),
            waiting: List::default(),
            delayed: List::default(),
            ages: List::default(),
            dying: List::default(),
            reads: List::default(),
            flushes: List::default(),
            next_seq: 0,
        }
    }
}

impl<B> Table<B> {
    /// A new entry, blocked by nothing.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        (id, operation, extent): (RequestId, Operation, Extent),
        data: Option<Slice<B>>,
        role: Role,
    ) -> Key {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.entries.insert(Entry {
            id,
            seq,
            operation,
            extent,
            data,
            submitted: now,
            state: State::Blocked,
            since: now,
            role,
            blockers: 0,
            tries: SmallVec::new(),
            failed: SmallVec::new(),
            busy: SmallVec::new(),
            busy_for: Duration::ZERO,
            busy_since: None,
            rounds: 0,
            stuck_since: None,
            dying: None,
            attempts: 0,
            hedged: false,
            watch: Watch::None,
            links: [Links::default(); 2],
        })
    }

    /// Takes an entry out of everything.
    pub(super) fn remove(&mut self, key: Key) -> Entry<B> {
        self.enter(key, State::Blocked);
        self.watch(key, Watch::None);
        self.entries.remove(key)
    }

    fn list(&mut self, state: State) -> Option<(&mut List<BY_STATE>, &mut Slab<Entry<B>>)> {
        let list = match state {
            State::Held => &mut self.held,
            State::Waiting => &mut self.waiting,
            State::Delayed { .. } => &mut self.delayed,
            State::Blocked | State::OnPath => return None,
        };
        Some((list, &mut self.entries))
    }

    /// Changes an entry's state, and the list it stands in, at whose end it is put.
    pub(super) fn enter(&mut self, key: Key, state: State) {
        let old = self.entries[key].state;
        if let Some((list, entries)) = self.list(old) {
            list.remove(entries, key);
        }
        self.entries[key].state = state;
        if let Some((list, entries)) = self.list(state) {
            list.push_back(entries, key);
        }
    }

    fn watched(&mut self, watch: Watch) -> Option<(&mut List<BY_WATCH>, &mut Slab<Entry<B>>)> {
        let list = match watch {
            Watch::Age => &mut self.ages,
            Watch::Dying => &mut self.dying,
            Watch::Hedge => &mut self.reads,
            Watch::Flush => &mut self.flushes,
            Watch::None => return None,
        };
        Some((list, &mut self.entries))
    }

    /// Puts an entry at the end of another list by time.
    pub(super) fn watch(&mut self, key: Key, watch: Watch) {
        let old = self.entries[key].watch;
        if let Some((list, entries)) = self.watched(old) {
            list.remove(entries, key);
        }
        self.entries[key].watch = watch;
        if let Some((list, entries)) = self.watched(watch) {
            list.push_back(entries, key);
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry<B>> {
        self.entries.get(key)
    }

    /// The one after `key` in a list by state.
    pub(super) fn after(&self, key: Key) -> Option<Key> {
        self.entries[key].links[BY_STATE].next()
    }

    /// The one after `key` in a list by time.
    pub(super) fn watched_after(&self, key: Key) -> Option<Key> {
        self.entries[key].links[BY_WATCH].next()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Entry<B>)> {
        self.entries.iter()
    }

    /// Every key, in the order of submission.
    pub(super) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<Key> = self.entries.iter().map(|(key, _)| key).collect();
        keys.sort_unstable_by_key(|&key| self.entries[key].seq);
        keys
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<B> Index<Key> for Table<B> {
    type Output = Entry<B>;

    fn index(&self, key: Key) -> &Entry<B> {
        &self.entries[key]
    }
}

impl<B> IndexMut<Key> for Table<B> {
    fn index_mut(&mut self, key: Key) -> &mut Entry<B> {
        &mut self.entries[key]
    }
}
