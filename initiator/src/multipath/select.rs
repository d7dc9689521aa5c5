//! Which path takes the next request.

use corbel_proto::memory::Buffer;
use smallvec::SmallVec;

use super::Engine;
use super::paths::Path;
use super::policy::Selector;
use super::rate::cost;
use super::table::{Key, Role};
use crate::path::PathId;
use crate::request::{IoError, Operation};

/// Paths that may take a request, as indices.
pub(super) type Candidates = SmallVec<[usize; 8]>;

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This path takes it.
    Path(usize),
    /// All that could take it have failed it or are busy: later.
    Exhausted,
    /// There is no path for it now.
    None,
    /// No path will ever take it.
    Never(IoError),
}

/// Whose turn it is (round-robin), and who was asked last (ties).
#[derive(Debug, Default)]
pub(super) struct Turn {
    path: Option<PathId>,
    left: u32,
}

impl<B: Buffer> Engine<B> {
    /// A path for a request: of the group in use, else of any group.
    pub(super) fn choose(&mut self, key: Key) -> Choice {
        let entry = &self.table[key];
        let domain = match entry.role {
            Role::Part { domain, .. } => domain,
            Role::Plain | Role::Flush { .. } => None,
        };
        // A path without a cache answers a flush without a word to the device: the caches of other
        // paths would stay as they are, and their loss would stay unknown.
        let cache = entry.operation == Operation::Flush && self.domains.are_dirty();
        let fits = |index: &usize| {
            let path = &self.paths[*index];
            let there = match domain {
                None => !cache || path.domain.is_some(),
                some => path.domain == some,
            };
            path.suits(entry.operation) && there
        };
        let fresh = |index: &usize| {
            let id = self.paths[*index].id;
            fits(index) && !entry.failed.contains(&id) && !entry.busy.contains(&id)
        };
        let mut found: Candidates =
            self.groups.members.iter().copied().filter(|index| fresh(index)).collect();
        if found.is_empty() && entry.busy.is_empty() {
            found = self.groups.working.iter().copied().filter(|index| fresh(index)).collect();
        }
        if entry.operation == Operation::Flush {
            // Where there is a cache to flush, in whichever group.
            let caches = |index: &usize| self.paths[*index].domain.is_some() && fresh(index);
            if !found.iter().any(caches) {
                let others = self.groups.working.iter().copied().filter(|index| caches(index));
                let others: Candidates = others.collect();
                found = if others.is_empty() { found } else { others };
            }
            if found.iter().any(caches) {
                found.retain(|index| caches(index));
            }
        }
        let bytes = entry.extent.len;
        if !found.is_empty() {
            return Choice::Path(self.select(&found, bytes));
        }
        if self.groups.working.iter().any(fits) {
            return Choice::Exhausted;
        }
        if entry.operation == Operation::Flush || self.groups.working.is_empty() {
            return Choice::None;
        }
        let read_only =
            |index: &usize| self.paths[*index].facts.as_ref().is_some_and(|facts| facts.read_only);
        let denied = entry.operation.changes() && self.groups.working.iter().all(read_only);
        Choice::Never(if denied { IoError::ReadOnly } else { IoError::Unsupported })
    }

    /// One of `candidates`, which are not empty, by the policy's selector.
    pub(super) fn select(&mut self, candidates: &Candidates, bytes: u64) -> usize {
        let chosen = match (&candidates[..], self.policy.selector) {
            ([only], _) => return *only,
            (_, Selector::RoundRobin) => return self.round_robin(candidates),
            (_, Selector::QueueLength) => self.least(candidates, |path| (path.in_flight, 1)),
            (_, Selector::ServiceTime) => self.service_time(candidates, bytes),
        };
        self.turn.path = Some(self.paths[chosen].id);
        chosen
    }

    fn round_robin(&mut self, candidates: &Candidates) -> usize {
        let current = candidates.iter().position(|&at| Some(self.paths[at].id) == self.turn.path);
        let place = match current {
            Some(place) if self.turn.left > 0 => place,
            _ => {
                self.turn.left = self.policy.requests_per_turn.max(1);
                self.after_last(candidates)
            }
        };
        self.turn.left -= 1;
        self.turn.path = Some(self.paths[candidates[place]].id);
        candidates[place]
    }

    /// The place in `candidates` that follows the path asked last.
    fn after_last(&self, candidates: &Candidates) -> usize {
        let Some(last) = self.turn.path else { return 0 };
        let later = candidates.iter().position(|&at| self.paths[at].id > last);
        later.unwrap_or(0)
    }

    /// The least `value`, a fraction; among equals the one that follows the path asked last.
    fn least(&self, candidates: &Candidates, value: impl Fn(&Path) -> (u64, u64)) -> usize {
        let first = self.after_last(candidates);
        let (early, late) = candidates.split_at(first);
        let mut best = candidates[first];
        let mut least = value(&self.paths[best]);
        for &at in late[1..].iter().chain(early) {
            let one = value(&self.paths[at]);
            let smaller =
                u128::from(one.0) * u128::from(least.1) < u128::from(least.0) * u128::from(one.1);
            if smaller {
                (best, least) = (at, one);
            }
        }
        best
    }

    /// The path that would be done first. One whose speed is not known gets a request at a time.
    fn service_time(&self, candidates: &Candidates, bytes: u64) -> usize {
        let now = self.now;
        let speed = |path: &Path| path.rate.per_second(now);
        let unknown =
            |&&at: &&usize| self.paths[at].in_flight == 0 && speed(&self.paths[at]).is_none();
        if let Some(&at) = candidates.iter().find(unknown) {
            return at;
        }
        let usual = candidates.iter().filter_map(|&at| speed(&self.paths[at])).max().unwrap_or(1);
        self.least(candidates, |path| {
            (path.rate.load.saturating_add(cost(bytes)), speed(path).unwrap_or(usual))
        })
    }
}
