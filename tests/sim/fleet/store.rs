//! The storage behind the heads. It remembers every version that every sector ever had.
//!
//! Caches are volatile and coherent: what was written through one head is read through every
//! other, but each *domain* loses its own (a head's controller without a mirrored cache), and a
//! flush reaches one domain. With one domain for all heads it is an ordinary disk.
//!
//! An operation takes effect at one instant between its submission and its completion. A flush
//! makes stable what had completed when it was submitted. A loss keeps, sector by sector, any one
//! version that was not older than the stable one, or the stable one.

use std::collections::{BTreeMap, BTreeSet};

use corbel_proto::time::Instant;

use crate::checker::{Content, WriteId, stamp};
use crate::rng::Rng;

/// Bytes of a sector, and of a block in a history.
pub const SECTOR_BYTES: usize = 512;

/// One content of one sector.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// Who wrote it; 0: zeroes.
    pub id: WriteId,
    /// When it took effect.
    pub at: Instant,
    domain: usize,
    operation: u64,
    /// The domain's count of completions when it completed.
    completed: Option<u64>,
}

/// The story of one sector.
#[derive(Debug)]
pub struct Story {
    /// Everything that was ever put there, in the order of effect. The first was always there.
    pub versions: Vec<Version>,
    /// What a read returns from when on: an index of `versions`.
    pub visible: Vec<(Instant, usize)>,
    stable: usize,
}

impl Story {
    fn new() -> Self {
        let zero =
            Version { id: 0, at: Instant::ZERO, domain: 0, operation: 0, completed: Some(0) };
        Self { versions: vec![zero], visible: vec![(Instant::ZERO, 0)], stable: 0 }
    }

    /// The version a read returns now.
    pub fn seen(&self) -> usize {
        self.visible.last().expect("the first version is always there").1
    }

    /// What a read could return between two moments.
    pub fn could_be_seen(&self, began: Instant, ended: Instant) -> impl Iterator<Item = WriteId> {
        let first = self.visible.partition_point(|(at, _)| *at <= began).saturating_sub(1);
        let in_time = self.visible[first..].iter().take_while(move |(at, _)| *at <= ended);
        in_time.map(|(_, version)| self.versions[*version].id)
    }
}

/// What a cache loss left.
#[derive(Debug)]
pub struct Loss {
    /// When.
    pub at: Instant,
    /// For each sector, the version that is there now.
    pub left: Vec<usize>,
}

/// A flush on its way.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    domain: usize,
    covers: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Store {
    /// Sector by sector.
    pub stories: Vec<Story>,
    /// Every loss of a cache so far.
    pub losses: Vec<Loss>,
    /// Sectors that cannot be read or written.
    pub bad: BTreeSet<u64>,
    /// Sectors that hold what no client ever wrote.
    pub garbage: Vec<String>,
    /// How often a sector refused a write.
    pub refused: BTreeMap<(u64, WriteId), u32>,
    completions: Vec<u64>,
    dirty: Vec<(usize, usize)>,
    next_operation: u64,
}

fn span(offset: u64, len: u64) -> std::ops::Range<usize> {
    let sector = |byte: u64| usize::try_from(byte).expect("a small disk") / SECTOR_BYTES;
    sector(offset)..sector(offset + len)
}

impl Store {
    /// Zeroed `sectors` behind `domains` caches.
    pub fn new(sectors: usize, domains: usize) -> Self {
        Self {
            stories: (0..sectors).map(|_| Story::new()).collect(),
            losses: Vec::new(),
            bad: BTreeSet::new(),
            garbage: Vec::new(),
            refused: BTreeMap::new(),
            completions: vec![0; domains],
            dirty: Vec::new(),
            next_operation: 1,
        }
    }

    /// True if a sector there is bad.
    pub fn fails(&self, offset: u64, len: u64) -> bool {
        span(offset, len).any(|sector| self.bad.contains(&(sector as u64)))
    }

    /// A write fails for a bad sector.
    pub fn refuse(&mut self, offset: u64, data: &[u8]) {
        let sectors = span(offset, data.len() as u64);
        for (sector, block) in sectors.zip(data.chunks_exact(SECTOR_BYTES)) {
            let sector = sector as u64;
            if self.bad.contains(&sector)
                && let Content::Of(id) = stamp::read(block, sector)
            {
                *self.refused.entry((sector, id)).or_default() += 1;
            }
        }
    }

    /// A read takes effect.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        let sectors = span(offset, into.len() as u64);
        for (sector, block) in sectors.zip(into.chunks_exact_mut(SECTOR_BYTES)) {
            let story = &self.stories[sector];
            match story.versions[story.seen()].id {
                0 => block.fill(0),
                id => stamp::fill(block, id, sector as u64),
            }
        }
    }

    /// A write takes effect; its number, for [`Self::complete`].
    pub fn write(&mut self, now: Instant, domain: usize, offset: u64, data: &[u8]) -> u64 {
        let sectors = span(offset, data.len() as u64);
        let ids: Vec<WriteId> = sectors
            .clone()
            .zip(data.chunks_exact(SECTOR_BYTES))
            .map(|(sector, block)| match stamp::read(block, sector as u64) {
                Content::Of(id) => id,
                Content::Broken => {
                    self.garbage.push(format!("sector {sector} was given garbage at {now:?}"));
                    WriteId::MAX
                }
            })
            .collect();
        self.put(now, domain, sectors, &ids)
    }

    /// Zeroes take effect.
    pub fn zero(&mut self, now: Instant, domain: usize, offset: u64, len: u64) -> u64 {
        let sectors = span(offset, len);
        let ids = vec![0; sectors.len()];
        self.put(now, domain, sectors, &ids)
    }

    fn put(
        &mut self,
        now: Instant,
        domain: usize,
        sectors: std::ops::Range<usize>,
        ids: &[WriteId],
    ) -> u64 {
        let operation = self.next_operation;
        self.next_operation += 1;
        for (sector, &id) in sectors.zip(ids) {
            let story = &mut self.stories[sector];
            let place = story.versions.len();
            story.versions.push(Version { id, at: now, domain, operation, completed: None });
            story.visible.push((now, place));
            self.dirty.push((sector, place));
        }
        operation
    }

    /// A write's completion is on its way to whoever asked for it.
    pub fn complete(&mut self, domain: usize, operation: u64) {
        self.completions[domain] += 1;
        for &(sector, place) in self.dirty.iter().rev() {
            let version = &mut self.stories[sector].versions[place];
            if version.operation == operation {
                version.completed = Some(self.completions[domain]);
            }
        }
    }

    /// A flush is submitted: what has completed by now will be stable when it completes.
    pub fn flush_submitted(&self, domain: usize) -> Flush {
        Flush { domain, covers: self.completions[domain] }
    }

    /// A flush completes.
    pub fn flush_completed(&mut self, flush: Flush) {
        let stories = &mut self.stories;
        self.dirty.retain(|&(sector, place)| {
            let story = &mut stories[sector];
            let version = story.versions[place];
            let covered = version.completed.is_some_and(|at| at <= flush.covers);
            if version.domain == flush.domain && covered {
                story.stable = story.stable.max(place);
                return false;
            }
            true
        });
        let superseded = |&(sector, place): &(usize, usize)| place > stories[sector].stable;
        self.dirty.retain(superseded);
    }

    /// A domain loses its cache. True if anything that was visible is not any more.
    pub fn lose(&mut self, now: Instant, domain: usize, rng: &mut Rng) -> bool {
        let keep_percent = if rng.percent(50) { 0 } else { rng.below(101) };
        let mut changed = false;
        for (sector, story) in self.stories.iter_mut().enumerate() {
            let mine = self.dirty.iter().filter(|(s, _)| *s == sector).map(|(_, place)| *place);
            let (own, others): (Vec<usize>, Vec<usize>) =
                mine.partition(|place| story.versions[*place].domain == domain);
            if own.is_empty() {
                continue;
            }
            if rng.percent(keep_percent) {
                let pick = usize::try_from(rng.below(own.len() as u64)).expect("an index");
                story.stable = story.stable.max(own[pick]);
            }
            let left = others.into_iter().fold(story.stable, usize::max);
            if left != story.seen() {
                changed = true;
                story.visible.push((now, left));
            }
        }
        let stories = &self.stories;
        self.dirty.retain(|&(sector, place)| {
            let story = &stories[sector];
            story.versions[place].domain != domain && place > story.stable
        });
        self.losses.push(Loss { at: now, left: self.stories.iter().map(Story::seen).collect() });
        changed
    }

    /// Anything acknowledged to anybody could be lost by losing this domain's cache.
    pub fn is_dirty(&self, domain: usize) -> bool {
        self.dirty.iter().any(|&(s, place)| self.stories[s].versions[place].domain == domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn block(id: WriteId) -> Vec<u8> {
        stamp::filled(1, SECTOR_BYTES, id, 0)
    }

    fn seen(store: &Store) -> Content {
        let mut bytes = vec![0; SECTOR_BYTES];
        store.read(0, &mut bytes);
        stamp::read(&bytes, 0)
    }

    fn put(store: &mut Store, domain: usize, id: WriteId) {
        let operation = store.write(at(id), domain, 0, &block(id));
        store.complete(domain, operation);
    }

    #[test]
    fn a_flush_reaches_one_domain_and_what_had_completed() {
        let mut store = Store::new(1, 2);
        put(&mut store, 0, 1);
        let flush = store.flush_submitted(0);
        put(&mut store, 1, 2);
        store.flush_completed(flush);
        assert_eq!(seen(&store), Content::Of(2));
        assert!(!store.is_dirty(0) && store.is_dirty(1));
        // Some loss of the other domain brings back what was flushed, never what was before it.
        let mut left = BTreeSet::new();
        for seed in 0..40 {
            let mut store = Store::new(1, 2);
            put(&mut store, 0, 1);
            let flush = store.flush_submitted(0);
            put(&mut store, 1, 2);
            store.flush_completed(flush);
            store.lose(at(9), 1, &mut Rng::new(seed));
            left.insert(store.stories[0].versions[store.stories[0].seen()].id);
        }
        assert_eq!(left, BTreeSet::from([1, 2]));
    }

    #[test]
    fn an_older_copy_that_is_still_cached_never_covers_a_newer_stable_one() {
        let mut store = Store::new(1, 2);
        store.write(at(1), 0, 0, &block(1));
        put(&mut store, 1, 2);
        let flush = store.flush_submitted(1);
        store.flush_completed(flush);
        store.lose(at(3), 0, &mut Rng::new(1));
        assert_eq!(seen(&store), Content::Of(2));
    }

    #[test]
    fn a_story_tells_what_a_read_could_have_returned() {
        let mut store = Store::new(1, 1);
        put(&mut store, 0, 5);
        put(&mut store, 0, 8);
        let could = |began, ended| -> Vec<WriteId> {
            store.stories[0].could_be_seen(at(began), at(ended)).collect()
        };
        assert_eq!(could(1, 4), [0]);
        assert_eq!(could(5, 6), [5]);
        assert_eq!(could(3, 9), [0, 5, 8]);
    }
}
