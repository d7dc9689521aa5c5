//! A shard's own copy of what the hot path asks of a slot.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use corbel_proto::aoe::Mac;

use super::Slot;

/// What one shard did for one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Reads that succeeded.
    pub reads: u64,
    /// Bytes they returned.
    pub read_bytes: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes they brought.
    pub write_bytes: u64,
    /// Other commands that succeeded.
    pub others: u64,
    /// Commands answered with an ATA error.
    pub faults: u64,
    /// Commands answered with an AoE error.
    pub refused: u64,
    /// Of those, because of a reservation.
    pub conflicts: u64,
    /// Frames not answered because their sender is not allowed.
    pub shut_out: u64,
    /// Changes not answered because another was being written.
    pub busy: u64,
}

/// A slot as one shard knows it.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) slot: Arc<Slot>,
    access: RefCell<Access>,
    stats: Cell<Stats>,
    in_flight: Cell<u32>,
}

/// The lists as of a generation, sorted.
#[derive(Debug)]
struct Access {
    generation: u64,
    mask: Vec<Mac>,
    reserve: Vec<Mac>,
}

impl Local {
    /// The copy of `slot`, which goes on counting from `stats`.
    pub(super) fn new(slot: Arc<Slot>, stats: Stats) -> Self {
        let access = RefCell::new(Access::of(&slot));
        Self { slot, access, stats: Cell::new(stats), in_flight: Cell::new(0) }
    }

    /// May `mac` talk to this slot at all?
    pub(super) fn admits(&self, mac: Mac) -> bool {
        let allow = self.slot.allow();
        self.refresh();
        lets_in(allow, mac) && lets_in(&self.access.borrow().mask, mac)
    }

    /// Is the disk reserved for others?
    pub(super) fn reserved_against(&self, mac: Mac) -> bool {
        self.refresh();
        !lets_in(&self.access.borrow().reserve, mac)
    }

    fn refresh(&self) {
        if self.access.borrow().generation != self.slot.generation() {
            *self.access.borrow_mut() = Access::of(&self.slot);
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    /// A command went to the engine.
    pub(super) fn began(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A command came back.
    pub(super) fn ended(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }

    /// Commands in the engine, of those that came since the map was set.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats.get()
    }
}

impl Access {
    fn of(slot: &Slot) -> Self {
        let (generation, mut contents) = slot.current();
        contents.mask.sort_unstable();
        contents.reserve.sort_unstable();
        Self { generation, mask: contents.mask, reserve: contents.reserve }
    }
}

/// An empty list lets everybody in.
fn lets_in(sorted: &[Mac], mac: Mac) -> bool {
    sorted.is_empty() || sorted.binary_search(&mac).is_ok()
}
