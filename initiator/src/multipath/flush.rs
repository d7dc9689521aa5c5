//! Flushes: which caches hold acknowledged writes, and when a flush is done.
//!
//! A flush of the asker becomes one command for each cache that must be flushed; each is an entry
//! of its own with the retries of any request. The asker is told once all are done *and* the doubts
//! that stood when the flush came have ended.

use corbel_proto::memory::Buffer;
use smallvec::SmallVec;

use super::Engine;
use super::legacy::{CacheMark, Legacy};
use super::paths::Path;
use super::policy::Cache;
use super::status::Notice;
use super::table::{Key, Role, State, Watch};
use super::tries::Attempt;
use crate::path::Facts;
use crate::request::{Extent, IoError, Operation, Request, RequestId};

/// A volatile cache that a path leads to, or led. Numbers are counts of writes, see
/// [`Domains::count`].
#[derive(Debug)]
struct Domain {
    id: u32,
    name: String,
    /// The process that holds it.
    instance: Option<String>,
    /// The last write that may be in it.
    written: u64,
    /// The last *acknowledged* write that may be in it.
    acknowledged: u64,
    /// Everything up to here is stable.
    flushed: u64,
    /// Known from an earlier process; no path has led to it yet.
    remembered: bool,
}

/// All volatile caches of a device.
#[derive(Debug, Default)]
pub(super) struct Domains {
    all: Vec<Domain>,
    next_id: u32,
    count: u64,
    /// Counts changes of [`Domains::marks`].
    version: u64,
    /// Acknowledged writes are lost: the next flush says so.
    lost: bool,
}

impl Domains {
    /// Writes into caches so far.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// An earlier process wrote to these caches, and nobody knows what it flushed.
    pub(super) fn remember(&mut self, legacy: Legacy) {
        self.lost |= legacy.lost;
        for CacheMark { name, instance } in legacy.caches {
            self.add(name, instance, true);
        }
    }

    /// Counts changes of [`Self::marks`].
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// What the next process must know of them.
    pub(super) fn marks(&self) -> Legacy {
        let mark = |one: &Domain| (one.name.clone(), one.instance.clone());
        let caches = self.all.iter().map(mark);
        let caches = caches.map(|(name, instance)| CacheMark { name, instance }).collect();
        Legacy { lost: self.lost, caches, changes_since: None }
    }

    fn set_lost(&mut self, lost: bool) -> bool {
        let was = std::mem::replace(&mut self.lost, lost);
        self.version += u64::from(was != lost);
        was
    }

    /// Another cache, to which somebody else may have written.
    fn add(&mut self, name: String, instance: Option<String>, remembered: bool) -> u32 {
        self.count += 1;
        self.version += 1;
        let (id, written) = (self.next_id, self.count);
        self.next_id += 1;
        let acknowledged = if remembered { written } else { 0 };
        self.all.push(Domain { id, name, instance, written, acknowledged, flushed: 0, remembered });
        id
    }

    /// The cache behind a path that has come up, and whether it lost acknowledged writes since.
    /// `before` is the one that was behind it.
    pub(super) fn meet(&mut self, facts: &Facts, before: Option<u32>) -> (Option<u32>, bool) {
        let known = self.all.iter_mut().find(|domain| domain.name == facts.cache_domain);
        if !facts.volatile_cache {
            // A cache that is turned off is written back, if it is still the same.
            let same = |one: &&mut Domain| Some(one.id) == before && one.instance == facts.instance;
            if let Some(domain) = known.filter(same) {
                domain.flushed = domain.written;
            }
            return (None, false);
        }
        let Some(domain) = known else {
            // Whoever had the device before may have written to it.
            let id = self.add(facts.cache_domain.clone(), facts.instance.clone(), false);
            return (Some(id), false);
        };
        domain.remembered = false;
        let restarted = match (&domain.instance, &facts.instance) {
            (Some(old), Some(new)) => old != new,
            _ => false,
        };
        if facts.instance.is_some() && domain.instance != facts.instance {
            domain.instance.clone_from(&facts.instance);
            self.version += 1;
        }
        let lost = restarted && domain.acknowledged > domain.flushed;
        if lost {
            domain.acknowledged = domain.flushed;
        }
        (Some(domain.id), lost)
    }

    /// A change landed, or may have, in this cache.
    pub(super) fn written(&mut self, domain: Option<u32>, acknowledged: bool) {
        let Some(domain) = self.all.iter_mut().find(|one| Some(one.id) == domain) else { return };
        self.count += 1;
        domain.written = self.count;
        if acknowledged {
            domain.acknowledged = self.count;
        }
    }

    /// A flush that started when [`Domains::count`] was `upto` is done: of this cache or of all.
    fn flushed(&mut self, domain: Option<u32>, upto: u64) {
        for one in self.all.iter_mut().filter(|one| domain.is_none() || Some(one.id) == domain) {
            one.flushed = one.flushed.max(upto);
        }
    }

    fn unstable(&self) -> impl Iterator<Item = u32> {
        self.all.iter().filter(|one| one.written > one.flushed).map(|one| one.id)
    }

    /// Drops caches that no path leads to. True if one held acknowledged writes. `all_met`: no path
    /// can lead to one that is only remembered: its paths were taken off while nobody looked, which
    /// is no loss that could be told.
    fn forget(&mut self, all_met: bool, used: impl Fn(u32) -> bool) -> bool {
        let (mut lost, known) = (false, self.all.len());
        self.all.retain(|one| {
            let keep = used(one.id) || (one.remembered && !all_met);
            lost |= !keep && !one.remembered && one.acknowledged > one.flushed;
            keep
        });
        self.version += u64::from(self.all.len() < known);
        lost
    }

    /// Something may be in one of them.
    pub(super) fn are_dirty(&self) -> bool {
        self.unstable().next().is_some()
    }

    fn knows(&self, domain: u32) -> bool {
        self.all.iter().any(|one| one.id == domain)
    }
}

impl<B: Buffer> Engine<B> {
    /// A flush has come.
    pub(super) fn submit_flush(&mut self, request: Request<B>) {
        let domains: SmallVec<[Option<u32>; 4]> = match self.policy.cache {
            Cache::Multi if self.rules.flush_all_domains => {
                self.domains.unstable().map(Some).collect()
            }
            _ => self.domains.unstable().take(1).map(|_| None).collect(),
        };
        // Before the first path is ready nobody knows the caches.
        let unknown = self.device.as_ref().is_none_or(|device| device.unconfirmed);
        let nothing = domains.is_empty() && unknown;
        let domains = if nothing { SmallVec::from_slice(&[None]) } else { domains };
        let error =
            (self.domains.set_lost(false) && self.rules.fail_lost_cache).then_some(IoError::Io);
        let parts = if error.is_some() { 0 } else { domains.len() };
        let role = Role::Flush {
            mark: self.doubts.mark(),
            parts: u32::try_from(parts).unwrap_or(u32::MAX),
            error,
        };
        let what = (request.id, Operation::Flush, Extent::NONE);
        let key = self.table.insert(self.now, what, request.data, role);
        self.table.watch(key, Watch::Flush);
        self.table.enter(key, State::OnPath);
        for domain in domains.into_iter().take(parts) {
            let what = (RequestId(0), Operation::Flush, Extent::NONE);
            let role = Role::Part { parent: key, domain };
            let part = self.table.insert(self.now, what, None, role);
            self.wake(part);
        }
        self.judge_flush(key);
    }

    /// A flush command was done.
    pub(super) fn flushed(&mut self, part: Key, attempt: &Attempt) {
        let Role::Part { domain, .. } = self.table[part].role else { return };
        if self.policy.cache == Cache::Multi && self.rules.flush_all_domains {
            let path = self.index_of(attempt.path).and_then(|index| self.paths[index].domain);
            if let Some(domain) = domain.or(path) {
                self.domains.flushed(Some(domain), attempt.cached);
            }
        } else {
            self.domains.flushed(None, attempt.cached);
        }
    }

    /// A flush command ended.
    pub(super) fn part_ended(&mut self, parent: Key, result: Result<(), IoError>) {
        if let Role::Flush { parts, error, .. } = &mut self.table[parent].role {
            *parts -= 1;
            *error = error.or(result.err());
        }
        self.judge_flush(parent);
    }

    /// Answers a flush if nothing is missing.
    fn judge_flush(&mut self, key: Key) {
        let Role::Flush { mark, parts, error } = self.table[key].role else { return };
        if parts > 0 {
            return;
        }
        if self.rules.hold_flush && self.doubts.stand_before(mark) && error.is_none() {
            self.counters.held += 1;
            self.table[key].since = self.now;
            return;
        }
        self.finish(key, error.map_or(Ok(()), Err));
    }

    /// Answers flushes that waited for doubts which have ended.
    pub(super) fn release_flushes(&mut self) {
        let mut next = self.table.flushes.head();
        while let Some(key) = next {
            next = self.table.watched_after(key);
            let Role::Flush { mark, parts: 0, error } = self.table[key].role else { continue };
            if !self.doubts.stand_before(mark) {
                self.finish(key, error.map_or(Ok(()), Err));
            }
        }
    }

    /// The commands of a flush that was answered without them.
    pub(super) fn drop_parts(&mut self, flush: Key) {
        let of = |role: Role| matches!(role, Role::Part { parent, .. } if parent == flush);
        let parts = self.table.iter().filter(|(_, entry)| of(entry.role)).map(|(key, _)| key);
        for part in parts.collect::<Vec<_>>() {
            for id in self.table.remove(part).tries {
                self.abort(id);
                if let Some(attempt) = self.tries.get_mut(id) {
                    attempt.request = None;
                }
            }
        }
    }

    /// Acknowledged writes are gone with a cache: who waits for a flush is told, and the next too.
    pub(super) fn cache_lost(&mut self) {
        self.domains.set_lost(true);
        self.notice(Notice::CacheLost);
        if !self.rules.fail_lost_cache {
            return;
        }
        let mut next = self.table.flushes.head();
        while let Some(key) = next {
            next = self.table.watched_after(key);
            if let Role::Flush { parts: 1.., error, .. } = &mut self.table[key].role {
                *error = Some(IoError::Io);
            }
        }
    }

    /// Drops caches that no path leads to any more, with the flush commands for them.
    pub(super) fn forget_domains(&mut self) {
        let paths = &self.paths;
        let used = |id| paths.iter().any(|path| !path.removed && path.domain == Some(id));
        let met = |path: &Path| path.facts.is_some() && path.quarantine.is_none();
        let all_met = paths.iter().filter(|path| !path.removed).all(met);
        let before = self.domains.version;
        if self.domains.forget(all_met, used) {
            self.cache_lost();
        }
        if self.domains.version == before {
            return;
        }
        let mut next = self.table.waiting.head();
        while let Some(key) = next {
            next = self.table.after(key);
            match self.table[key].role {
                // It was clean, or its loss was told above.
                Role::Part { domain: Some(domain), .. } if !self.domains.knows(domain) => {
                    self.finish(key, Ok(()));
                }
                // What it waited for may be gone.
                Role::Part { domain: None, .. } => self.wake(key),
                _ => {}
            }
        }
    }
}
