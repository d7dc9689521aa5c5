//! Tokens that name blocks of a volume as they are (SBC-3 4.25).
//!
//! Nothing is kept of what they name: who changes any of it, over whatever protocol, ends the
//! token. The [engine](super::engine) tells of each request that is about to change something, when
//! it has its range. So whoever reads under a range, and finds the token valid after that, has read
//! what it names: a change that was before the token was made still held the range, and one that
//! came after has ended it. While there are no tokens this costs each request one atomic read.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Tokens of a volume at a time, ended ones included. Each change is compared with all of them.
const TOKENS_MAX: usize = 64;

/// Why a token does not name anything any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It never was, or is long forgotten.
    Unknown,
    /// What it named was changed.
    Revoked,
    /// Nobody used it.
    Expired,
}

/// A use of a token, or the token's own part in it.
#[derive(Debug)]
pub struct Named {
    id: u64,
    /// Ranges in bytes: offset and length, in the order of the token's blocks.
    pub ranges: Vec<(u64, u64)>,
    revoked: AtomicBool,
    expired: AtomicBool,
    /// It was used at least once.
    used: AtomicBool,
    inactivity: u32,
    /// Seconds it has left without a use.
    left: AtomicU32,
}

impl Named {
    /// True as long as the blocks are what they were.
    pub fn is_valid(&self) -> bool {
        !self.revoked.load(Ordering::Acquire)
    }
}

/// See the module. Part of a volume.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Some can still be revoked.
    any: AtomicBool,
    ids: AtomicU64,
    all: Mutex<Vec<Arc<Named>>>,
}

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Named>>> {
        // Each change below is complete before anything can panic.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token for these ranges, by its number. If there are too many, one that has ended makes
    /// room, or else the oldest that was used and is not just now: hosts seldom use one twice.
    /// `None` if all wait for their first use.
    pub fn make(&self, ranges: Vec<(u64, u64)>, inactivity: u32) -> Option<u64> {
        let mut all = self.lock();
        if all.len() >= TOKENS_MAX {
            let ended = |one: &Arc<Named>| !one.is_valid() || one.expired.load(Ordering::Relaxed);
            let idle =
                |one: &Arc<Named>| one.used.load(Ordering::Relaxed) && Arc::strong_count(one) == 1;
            let at = all.iter().position(ended).or_else(|| all.iter().position(idle))?;
            all.remove(at);
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed) + 1;
        all.push(Arc::new(Named {
            id,
            ranges,
            revoked: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            used: AtomicBool::new(false),
            inactivity,
            left: AtomicU32::new(inactivity),
        }));
        self.any.store(true, Ordering::Release);
        Some(id)
    }

    /// Uses a token. It does not expire while it is used.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn find(&self, id: u64) -> Result<Arc<Named>, Ended> {
        let all = self.lock();
        let one = all.iter().find(|one| one.id == id).ok_or(Ended::Unknown)?;
        if !one.is_valid() {
            return Err(Ended::Revoked);
        }
        if one.expired.load(Ordering::Relaxed) {
            return Err(Ended::Expired);
        }
        one.left.store(one.inactivity, Ordering::Relaxed);
        one.used.store(true, Ordering::Relaxed);
        Ok(one.clone())
    }

    /// Forgets a token. Who uses it just now cannot go on: nobody would tell him of changes.
    pub fn delete(&self, id: u64) {
        let mut all = self.lock();
        for one in all.extract_if(.., |one| one.id == id) {
            one.revoked.store(true, Ordering::Release);
        }
        self.look(&all);
    }

    /// True if [`Self::written`] must be told of changes.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Bytes from `start` up to, not including, `end` are about to be changed, by who has their
    /// range.
    pub fn written(&self, start: u64, end: u64) {
        let all = self.lock();
        for one in all.iter() {
            let hit = |(offset, len): &(u64, u64)| *offset < end && start < offset + len;
            if one.ranges.iter().any(hit) {
                one.revoked.store(true, Ordering::Release);
            }
        }
        self.look(&all);
    }

    /// So many seconds have passed.
    pub fn elapsed(&self, seconds: u32) {
        if !self.any() && self.lock().is_empty() {
            return;
        }
        let mut all = self.lock();
        all.retain(|one| {
            let left = one.left.load(Ordering::Relaxed);
            if Arc::strong_count(one) > 1 {
                one.left.store(one.inactivity, Ordering::Relaxed);
            } else if left > seconds {
                one.left.store(left - seconds, Ordering::Relaxed);
            } else if one.expired.swap(true, Ordering::Relaxed) {
                return false; // it was told for as long as it lived
            } else {
                one.left.store(one.inactivity, Ordering::Relaxed);
            }
            true
        });
        self.look(&all);
    }

    fn look(&self, all: &[Arc<Named>]) {
        let lives = |one: &Arc<Named>| {
            let used = Arc::strong_count(one) > 1;
            one.is_valid() && (used || !one.expired.load(Ordering::Relaxed))
        };
        self.any.store(all.iter().any(lives), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_of_any_named_byte_ends_the_token_and_no_other() {
        for (start, end, ends) in [
            (0, 4096, false),
            (4095, 4097, true),
            (8191, 8192, true),
            (8192, 9000, false),
            (0, u64::MAX, true),
            (20_480, 20_481, true),
        ] {
            let tokens = Tokens::default();
            assert!(!tokens.any());
            let id = tokens.make(vec![(4096, 4096), (20_480, 512)], 60).unwrap();
            let used = tokens.find(id).unwrap();
            tokens.written(start, end);
            assert_eq!(tokens.find(id).err(), ends.then_some(Ended::Revoked), "{start}..{end}");
            assert_eq!((used.is_valid(), tokens.any()), (!ends, !ends));
        }
    }

    #[test]
    fn unused_token_expires_and_is_forgotten_as_much_later() {
        let tokens = Tokens::default();
        let id = tokens.make(vec![(0, 512)], 60).unwrap();
        tokens.elapsed(59);
        let used = tokens.find(id).unwrap();
        tokens.elapsed(59);
        tokens.elapsed(59);
        drop(used);
        assert!(tokens.find(id).is_ok(), "it was used meanwhile");
        tokens.elapsed(60);
        assert_eq!(tokens.find(id).err(), Some(Ended::Expired));
        assert!(!tokens.any());
        tokens.elapsed(60);
        assert_eq!(tokens.find(id).err(), Some(Ended::Unknown));
    }

    #[test]
    fn there_are_never_too_many_and_ended_ones_make_room() {
        let tokens = Tokens::default();
        let ids: Vec<_> =
            (0..TOKENS_MAX as u64).map(|n| tokens.make(vec![(n * 512, 512)], 9).unwrap()).collect();
        assert_eq!(tokens.make(vec![(0, 512)], 9), None);
        tokens.written(512, 513);
        let fresh = tokens.make(vec![(0, 512)], 9).unwrap();
        assert!(!ids.contains(&fresh));
        assert_eq!(tokens.find(ids[1]).err(), Some(Ended::Unknown));
        let at_work = tokens.find(ids[4]).unwrap();
        tokens.find(ids[5]).unwrap();
        assert!(tokens.make(vec![(0, 512)], 9).is_some(), "one that was used makes room");
        assert_eq!(tokens.find(ids[5]).err(), Some(Ended::Unknown));
        assert_eq!(tokens.make(vec![(0, 512)], 9), None);
        assert!(at_work.is_valid());
        tokens.delete(fresh);
        assert_eq!(tokens.find(fresh).err(), Some(Ended::Unknown));
    }
}
