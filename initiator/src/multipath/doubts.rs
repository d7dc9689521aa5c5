//! Ranges whose old copy may still land.
//!
//! A change whose path died is sent again on another path at once, since the bytes are the same.
//! What must wait is the *next* change of those blocks: the old copy could land on top of it. A
//! doubt is the note of such a copy; it stands until the path has proved that the copy is dead.

use slab::Slab;

use super::ranges::Ranges;
use crate::path::{Life, PathId, TryId};
use crate::request::Extent;

/// Doubts of one device. Beyond, those of each path become one doubt about the whole device: more
/// waits than must, but no more memory is taken.
pub(super) const DOUBTS_MAX: usize = 4096;

/// The owner of a doubt that is nobody's.
pub(super) const NOBODY: u64 = u64::MAX;

/// The try of a doubt that is of none, or of many.
const NO_TRY: TryId = TryId(0);

/// All there is.
const WHOLE: Extent = Extent { offset: 0, len: u64::MAX };

/// What ends a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The path is quiet up to this life.
    Quiet(Life),
    /// The try ends: its request was answered already.
    Ended,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    /// In the order of coming.
    id: u64,
    extent: Extent,
    pub(super) path: PathId,
    /// Which try it is of.
    pub(super) tried: TryId,
    pub(super) until: Until,
    /// Sequence number of the request whose copy it is.
    owner: u64,
    /// Where the copy may land, if in a volatile cache.
    pub(super) domain: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Doubts {
    all: Slab<Doubt>,
    ranges: Ranges<usize>,
    next: u64,
}

impl Doubts {
    /// A copy of request `owner`, sent by this try, may land on `extent`.
    pub(super) fn add(
        &mut self,
        (path, tried): (PathId, TryId),
        until: Until,
        (extent, owner): (Extent, u64),
        domain: Option<u32>,
    ) {
        let id = self.next;
        self.next += 1;
        self.insert(Doubt { id, extent, path, tried, until, owner, domain });
        if self.all.len() > DOUBTS_MAX {
            self.collapse();
        }
    }

    /// From now on anything of this path's life may land anywhere.
    pub(super) fn add_whole(&mut self, path: PathId, life: Life, domain: Option<u32>) {
        let until = Until::Quiet(life);
        let stands = |key: usize| {
            let doubt = &self.all[key];
            (doubt.path, doubt.until, doubt.extent) == (path, until, WHOLE)
        };
        if !self.ranges.overlapping(WHOLE).any(stands) {
            self.add((path, NO_TRY), until, (WHOLE, NOBODY), domain);
        }
    }

    fn insert(&mut self, doubt: Doubt) {
        let key = self.all.insert(doubt);
        self.ranges.insert(doubt.extent, key);
    }

    fn remove(&mut self, key: usize) -> Doubt {
        let doubt = self.all.remove(key);
        self.ranges.remove(doubt.extent, key);
        doubt
    }

    /// One doubt a path, as wide as the device and as old as the oldest.
    fn collapse(&mut self) {
        let mut merged: Vec<Doubt> = Vec::new();
        let keys: Vec<usize> = self.all.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Until::Quiet(life) = self.all[key].until else { continue };
            let doubt = self.remove(key);
            let Some(one) = merged.iter_mut().find(|one| one.path == doubt.path) else {
                merged.push(Doubt { extent: WHOLE, owner: NOBODY, tried: NO_TRY, ..doubt });
                continue;
            };
            one.id = one.id.min(doubt.id);
            one.domain = one.domain.or(doubt.domain);
            if matches!(one.until, Until::Quiet(least) if least < life) {
                one.until = doubt.until;
            }
        }
        merged.into_iter().for_each(|doubt| self.insert(doubt));
    }

    /// Does a change of `extent` by request `owner` have to wait?
    pub(super) fn hold(&self, extent: Extent, owner: u64) -> bool {
        !self.all.is_empty()
            && self.ranges.overlapping(extent).any(|key| self.all[key].owner != owner)
    }

    /// Ends every doubt that `ends` says is over; each is given to `ended`. True if there was any.
    pub(super) fn end(
        &mut self,
        ends: impl Fn(&Doubt) -> bool,
        mut ended: impl FnMut(Doubt),
    ) -> bool {
        let mut any = false;
        // Slab keys stay while others are taken out.
        let mut key = 0;
        while !self.all.is_empty() && key < self.all.capacity() {
            if self.all.get(key).is_some_and(&ends) {
                ended(self.remove(key));
                any = true;
            }
            key += 1;
        }
        any
    }

    /// Doubts that stand now are those below this mark.
    pub(super) const fn mark(&self) -> u64 {
        self.next
    }

    /// Does a doubt from before `mark` stand?
    pub(super) fn stand_before(&self, mark: u64) -> bool {
        self.all.iter().any(|(_, doubt)| doubt.id < mark)
    }

    /// Does a doubt of this path stand?
    pub(super) fn of_path(&self, path: PathId) -> bool {
        self.all.iter().any(|(_, doubt)| doubt.path == path)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, len: u64) -> Extent {
        Extent { offset, len }
    }

    fn quiet(doubts: &mut Doubts, path: PathId, life: Life) -> bool {
        let ends = |doubt: &Doubt| {
            doubt.path == path && matches!(doubt.until, Until::Quiet(of) if of <= life)
        };
        doubts.end(ends, |_| {})
    }

    #[test]
    fn a_doubt_holds_others_but_not_its_owner() {
        let mut doubts = Doubts::default();
        doubts.add((PathId(0), TryId(9)), Until::Quiet(Life(1)), (extent(0, 4096), 7), None);
        assert!(doubts.hold(extent(4095, 1), 8));
        assert!(!doubts.hold(extent(4096, 1), 8));
        assert!(!doubts.hold(extent(0, 4096), 7));
    }

    #[test]
    fn quiet_ends_what_is_of_that_life_and_path_and_no_more() {
        let mut doubts = Doubts::default();
        doubts.add((PathId(0), TryId(9)), Until::Quiet(Life(1)), (extent(0, 1), 7), None);
        doubts.add((PathId(0), TryId(9)), Until::Quiet(Life(2)), (extent(0, 1), 7), None);
        doubts.add((PathId(1), TryId(9)), Until::Quiet(Life(1)), (extent(0, 1), 7), None);
        assert!(quiet(&mut doubts, PathId(0), Life(1)));
        assert_eq!(doubts.len(), 2);
        assert!(!quiet(&mut doubts, PathId(0), Life(1)));
    }

    #[test]
    fn too_many_doubts_become_one_per_path_that_ends_with_the_last_life() {
        let mut doubts = Doubts::default();
        for n in 0..=DOUBTS_MAX as u64 {
            doubts.add((PathId(0), TryId(9)), Until::Quiet(Life(n)), (extent(n * 10, 1), n), None);
        }
        assert_eq!(doubts.len(), 1);
        assert!(doubts.stand_before(1), "it is as old as the oldest");
        assert!(doubts.hold(extent(1 << 40, 1), 3), "it covers everything");
        assert!(!quiet(&mut doubts, PathId(0), Life(DOUBTS_MAX as u64 - 1)));
        assert!(quiet(&mut doubts, PathId(0), Life(DOUBTS_MAX as u64)));
        assert!(doubts.is_empty());
    }
}
