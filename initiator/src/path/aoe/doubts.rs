//! What may still land, and until when.
//!
//! AoE has no abort and no session: of a copy that was sent and not answered nothing can be known
//! but that no frame lives for ever. So a doubt has an end in time, and a [`Life`] is such an end:
//! moments are counted in steps of 50 ms, which keeps them few. A doubt ends earlier if every
//! copy has been answered after all.

use std::collections::{BTreeMap, BTreeSet};

use corbel_proto::time::Instant;

use crate::path::{Life, TryId};

/// Ends are rounded up to these: 50 ms, in nanoseconds.
const STEP: u64 = 50_000_000;

/// Tags of unanswered copies that are remembered. Doubts of copies beyond them end in time only.
const TAGS_MAX: usize = 4096;

/// A try that changes something, and has copies about that were not answered.
#[derive(Debug)]
struct Ghost {
    /// Copies whose tags are remembered.
    copies: u32,
    /// There are copies whose tags are not.
    forgotten: bool,
    until: Instant,
    /// Set once the try has ended.
    life: Option<Life>,
}

#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Lives whose end has to be told.
    ends: BTreeSet<u64>,
    ghosts: BTreeMap<TryId, Ghost>,
    tags: BTreeMap<u32, TryId>,
}

const fn step_of(moment: Instant) -> u64 {
    moment.as_nanos().div_ceil(STEP)
}

const fn moment_of(step: u64) -> Instant {
    Instant::from_nanos(step.saturating_mul(STEP))
}

impl Doubts {
    /// Copies of a command of `id` are about until `until`: `tags`, and others if `forgotten`.
    pub(super) fn lost(&mut self, id: TryId, tags: &[u32], forgotten: bool, until: Instant) {
        let ghost = self.ghosts.entry(id).or_insert(Ghost {
            copies: 0,
            forgotten: false,
            until,
            life: None,
        });
        ghost.until = ghost.until.max(until);
        ghost.forgotten |= forgotten;
        for &tag in tags {
            if self.tags.len() < TAGS_MAX {
                self.tags.insert(tag, id);
                ghost.copies += 1;
            } else {
                ghost.forgotten = true;
            }
        }
    }

    /// A reply came for a command that had ended. The try that is in doubt no more, if that was the
    /// last of its copies.
    pub(super) fn answered(&mut self, tag: u32) -> Option<TryId> {
        let id = self.tags.remove(&tag)?;
        let ghost = self.ghosts.get_mut(&id)?;
        ghost.copies -= 1;
        if ghost.copies > 0 || ghost.forgotten {
            return None;
        }
        let ghost = self.ghosts.remove(&id)?;
        ghost.life.map(|_| id)
    }

    /// A try ends: its life, if it is in doubt.
    pub(super) fn close(&mut self, now: Instant, id: TryId) -> Option<Life> {
        let until = self.ghosts.get(&id)?.until;
        if until <= now {
            self.ghosts.remove(&id);
            self.tags.retain(|_, other| *other != id);
            return None;
        }
        let life = self.until(until);
        self.ghosts.get_mut(&id)?.life = Some(life);
        Some(life)
    }

    /// A life that ends at `until`, which is after now.
    pub(super) fn until(&mut self, until: Instant) -> Life {
        let step = step_of(until);
        self.ends.insert(step);
        Life(step)
    }

    /// When the next life ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ends.first().map(|step| moment_of(*step))
    }

    /// The highest life that has ended by now, if one did since the last call.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Life> {
        let mut ended = None;
        while let Some(&step) = self.ends.first().filter(|step| moment_of(**step) <= now) {
            self.ends.pop_first();
            ended = Some(Life(step));
        }
        let last = ended?;
        self.ghosts.retain(|_, ghost| ghost.life.is_none_or(|life| life > last));
        let ghosts = &self.ghosts;
        self.tags.retain(|_, id| ghosts.contains_key(id));
        ended
    }

    /// Nothing is in doubt.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corbel_proto::time::Duration;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn short_doubts_end_before_long_ones_that_are_older() {
        let mut doubts = Doubts::default();
        doubts.lost(TryId(1), &[1], false, at(10_000));
        let long = doubts.close(at(100), TryId(1)).unwrap();
        doubts.lost(TryId(2), &[2], false, at(1_130));
        let short = doubts.close(at(200), TryId(2)).unwrap();
        assert!(short < long);
        assert_eq!((doubts.expire(at(1_149)), doubts.next()), (None, Some(at(1_150))));
        assert_eq!(doubts.expire(at(1_150)), Some(short));
        assert_eq!(doubts.expire(at(20_000)), Some(long));
        assert!(doubts.is_empty() && doubts.ghosts.is_empty() && doubts.tags.is_empty());
    }

    #[test]
    fn a_new_life_is_never_one_that_was_said_to_be_quiet() {
        let mut doubts = Doubts::default();
        let mut said = None;
        for ms in (0..2000).step_by(7) {
            doubts.lost(TryId(ms), &[], true, at(ms + 1));
            let life = doubts.close(at(ms), TryId(ms)).unwrap();
            assert!(Some(life) > said);
            said = doubts.expire(at(ms)).or(said);
        }
    }

    #[test]
    fn replies_to_every_copy_settle_a_try_and_fewer_do_not() {
        let mut doubts = Doubts::default();
        doubts.lost(TryId(1), &[1, 2], false, at(1000));
        doubts.lost(TryId(2), &[3], true, at(1000));
        doubts.close(at(0), TryId(1)).unwrap();
        doubts.close(at(0), TryId(2)).unwrap();
        assert_eq!(doubts.answered(1), None);
        assert_eq!(doubts.answered(1), None, "said twice is said once");
        assert_eq!(doubts.answered(2), Some(TryId(1)));
        assert_eq!(doubts.answered(3), None, "there is another copy");
    }

    #[test]
    fn what_is_answered_or_over_when_its_try_ends_is_no_doubt() {
        let mut doubts = Doubts::default();
        doubts.lost(TryId(1), &[1], false, at(1000));
        assert_eq!(doubts.answered(1), None, "the try has not ended");
        assert_eq!(doubts.close(at(0), TryId(1)), None);
        doubts.lost(TryId(2), &[2], false, at(1000));
        assert_eq!(doubts.close(at(1000), TryId(2)), None);
        assert!(doubts.is_empty() && doubts.tags.is_empty());
    }

    #[test]
    fn copies_beyond_what_is_remembered_end_in_time_only() {
        let mut doubts = Doubts::default();
        let tags: Vec<u32> = (0..5000).collect();
        doubts.lost(TryId(1), &tags, false, at(1000));
        doubts.close(at(0), TryId(1)).unwrap();
        assert!(tags.iter().all(|tag| doubts.answered(*tag).is_none()));
        assert!(doubts.expire(at(1000)).is_some());
    }
}
