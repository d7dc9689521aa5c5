//! Tries under way, by their names.

use corbel_proto::time::Instant;
use slab::Slab;

use super::table::Key;
use crate::path::{PathId, TryId};
use crate::request::{Extent, Operation};

/// Bits of a try's name that say where it stands; the rest is a count, so that no name comes again.
const SLOT_BITS: u32 = 20;

/// One try under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// Its request; `None` once that has been answered.
    pub(super) request: Option<Key>,
    pub(super) path: PathId,
    pub(super) operation: Operation,
    pub(super) extent: Extent,
    pub(super) started: Instant,
    /// The volatile cache its bytes land in.
    pub(super) domain: Option<u32>,
    /// Count of cached writes when it started: what a flush covers.
    pub(super) cached: u64,
    /// An abort was ordered.
    pub(super) aborted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Tries {
    all: Slab<(u64, Attempt)>,
    count: u64,
}

impl Tries {
    pub(super) fn insert(&mut self, attempt: Attempt) -> TryId {
        self.count += 1;
        let slot = self.all.insert((self.count, attempt));
        TryId(self.count << SLOT_BITS | slot as u64)
    }

    fn slot(&self, id: TryId) -> Option<usize> {
        let slot = usize::try_from(id.0 & ((1 << SLOT_BITS) - 1)).ok()?;
        let (count, _) = self.all.get(slot)?;
        (*count == id.0 >> SLOT_BITS).then_some(slot)
    }

    pub(super) fn get_mut(&mut self, id: TryId) -> Option<&mut Attempt> {
        let slot = self.slot(id)?;
        Some(&mut self.all[slot].1)
    }

    pub(super) fn get(&self, id: TryId) -> Option<&Attempt> {
        self.slot(id).map(|slot| &self.all[slot].1)
    }

    pub(super) fn remove(&mut self, id: TryId) -> Option<Attempt> {
        self.slot(id).map(|slot| self.all.remove(slot).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TryId, &Attempt)> {
        let named = |(slot, (count, attempt))| (TryId(count << SLOT_BITS | slot as u64), attempt);
        self.all.iter().map(|(slot, (count, attempt))| (slot, (*count, attempt))).map(named)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
