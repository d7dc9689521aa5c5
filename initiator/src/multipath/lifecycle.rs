//! What ends requests other than paths: no path for too long, old age, fencing, detaching.

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::Engine;
use super::policy::{NoPath, Policy};
use super::status::Notice;
use super::table::{Entry, Key, Role, State, Watch};
use crate::path::TryId;
use crate::request::IoError;

/// A change that is too old is answered at the latest so long after its abort was ordered.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// A request that waits for a doubt is given at least so long, whatever the policy says of paths: a
/// path is there, and the doubt ends on its own.
const DOUBT_PATIENCE_MIN: Duration = Duration::from_secs(60);

impl<B: Buffer> Engine<B> {
    /// The policy in force.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Another policy, at once, for waiting requests too.
    pub fn set_policy(&mut self, now: Instant, policy: Policy) {
        self.at(now);
        self.policy = policy;
        if !self.no_path_over() {
            self.given_up = false;
        }
        if self.policy.hedge.is_none() {
            while let Some(key) = self.table.reads.head() {
                self.table.watch(key, Watch::None);
            }
        }
        // Sizes may be judged in another way.
        self.readmit();
        self.refresh();
        self.agree_on_size();
        self.expire();
        self.run();
    }

    /// How long requests wait while no path works; `None` is for ever.
    pub(super) const fn no_path_limit(&self) -> Option<Duration> {
        match self.policy.no_path {
            NoPath::Queue => None,
            NoPath::Fail => Some(self.policy.fast_io_fail),
            NoPath::For(time) => Some(time),
        }
    }

    /// When requests fail for want of a path.
    pub(super) fn no_path_end(&self) -> Option<Instant> {
        Some(self.no_path_since? + self.no_path_limit()?)
    }

    /// Requests fail for want of a path.
    pub(super) fn no_path_over(&self) -> bool {
        self.no_path_end().is_some_and(|end| end <= self.now)
    }

    pub(super) fn all_paths_lost(&mut self) {
        self.no_path_since = Some(self.now);
        self.counters.all_paths_down += 1;
        self.notice(Notice::AllPathsDown);
        self.give_up_if_over();
    }

    pub(super) fn first_path_back(&mut self) {
        (self.no_path_since, self.given_up) = (None, false);
        if self.counters.all_paths_down > 0 {
            self.notice(Notice::Recovered);
        }
    }

    /// Fails what waits once there was no path for too long.
    pub(super) fn give_up_if_over(&mut self) {
        if !self.no_path_over() || self.given_up {
            return;
        }
        self.given_up = true;
        self.notice(Notice::QueueGivenUp);
        for key in self.table.keys() {
            let waits = |entry: &Entry<B>| self.flight(entry).is_empty();
            if self.table.get(key).is_some_and(waits) {
                self.finish(key, Err(IoError::Io));
            }
        }
    }

    /// The sequence number of the flush that `entry` is a part of.
    pub(super) fn flush_of(&self, entry: &Entry<B>) -> Option<u64> {
        let Role::Part { parent, .. } = entry.role else { return None };
        Some(self.table[parent].seq)
    }

    /// A request's tries; of a flush, those of its parts.
    fn flight(&self, entry: &Entry<B>) -> Vec<TryId> {
        if !matches!(entry.role, Role::Flush { .. }) {
            return entry.tries.to_vec();
        }
        let parts = self.table.iter().map(|(_, part)| part);
        let parts = parts.filter(|part| self.flush_of(part) == Some(entry.seq));
        parts.flat_map(|part| part.tries.iter().copied()).collect()
    }

    pub(super) fn is_too_old(&self, entry: &Entry<B>) -> bool {
        let limit = self.policy.write_age_max.filter(|_| self.rules.respect_age);
        entry.operation.changes() && limit.is_some_and(|limit| entry.submitted + limit <= self.now)
    }

    /// No path could do it for as long as requests wait when there is none.
    pub(super) fn is_stuck_for_good(&self, entry: &Entry<B>) -> bool {
        let end = entry.stuck_since.zip(self.no_path_limit()).map(|(since, limit)| since + limit);
        end.is_some_and(|end| end <= self.now)
    }

    /// How long a request waits for doubts.
    pub(super) fn doubt_limit(&self) -> Option<Duration> {
        self.no_path_limit().map(|limit| limit.max(DOUBT_PATIENCE_MIN))
    }

    /// Ends what is too old, or waited too long.
    pub(super) fn expire(&mut self) {
        self.give_up_if_over();
        while let Some(key) =
            self.table.ages.head().filter(|&key| self.is_too_old(&self.table[key]))
        {
            self.give_up(key, IoError::TooOld);
        }
        while let Some(key) = self.table.dying.head() {
            if self.table[key].since + ABORT_PATIENCE > self.now {
                break;
            }
            self.finish(key, Err(IoError::TooOld));
        }
        if let Some(limit) = self.doubt_limit() {
            while let Some(key) = self.table.held.head() {
                if self.table[key].since + limit > self.now {
                    break;
                }
                self.finish(key, Err(IoError::Io));
            }
            let mut next = self.table.flushes.head();
            while let Some(key) = next {
                next = self.table.watched_after(key);
                let held = matches!(self.table[key].role, Role::Flush { parts: 0, .. });
                if held && self.table[key].since + limit <= self.now {
                    self.finish(key, Err(IoError::Io));
                }
            }
        }
        let mut next = self.table.waiting.head();
        while let Some(key) = next {
            next = self.table.after(key);
            if self.is_stuck_for_good(&self.table[key]) {
                self.finish(key, Err(IoError::Io));
            }
        }
        if self.detaching.is_some_and(|end| end <= self.now) {
            self.end_all(IoError::Fenced);
        }
    }

    /// Ends a request that is on no path; orders the end of one that is, and has it end with
    /// `error` then.
    fn give_up(&mut self, key: Key, error: IoError) {
        let tries = self.table[key].tries.clone();
        if tries.is_empty() {
            return self.finish(key, Err(error));
        }
        tries.into_iter().for_each(|id| self.abort(id));
        let entry = &mut self.table[key];
        (entry.dying, entry.since) = (Some(error), self.now);
        let watch = if error == IoError::TooOld { Watch::Dying } else { Watch::None };
        self.table.watch(key, watch);
    }

    /// Refuses everything from now on: what waits fails, what is on a path is aborted and fails
    /// when that has ended it. Doubts stay; nothing of this host can land any more once `status`
    /// counts neither requests in flight nor doubts.
    pub fn fence(&mut self, now: Instant) {
        self.at(now);
        self.fenced = true;
        for key in self.table.keys() {
            let Some(entry) = self.table.get(key) else { continue };
            match entry.role {
                Role::Plain if entry.dying.is_none() => self.give_up(key, IoError::Fenced),
                Role::Flush { .. } => self.finish(key, Err(IoError::Fenced)),
                // It ends with its flush, or is ending.
                Role::Plain | Role::Part { .. } => {}
            }
        }
        self.run();
    }

    /// Takes requests again.
    pub fn unfence(&mut self, now: Instant) {
        self.at(now);
        self.fenced = false;
        self.run();
    }

    /// Takes no new requests. Those that are here may end within `patience`, then they fail.
    /// [`Engine::is_drained`] tells when the device can go.
    pub fn detach(&mut self, now: Instant, patience: Duration) {
        self.at(now);
        let end = now + patience;
        self.detaching = Some(self.detaching.map_or(end, |old| old.min(end)));
        self.expire();
        self.run();
    }

    /// After [`Engine::detach`]: every request has been answered, and nothing is on its way to the
    /// device any more; or the patience is over.
    pub fn is_drained(&self) -> bool {
        let over = self.detaching.is_some_and(|end| end <= self.now);
        let done = self.table.is_empty() && self.outcomes.is_empty();
        let settled = self.doubts.is_empty() && self.tries.is_empty();
        self.detaching.is_some() && done && (settled || over)
    }

    /// Nothing of any request is on its way, or may still be.
    pub fn is_quiet(&self) -> bool {
        self.doubts.is_empty() && self.tries.is_empty()
    }

    /// Answers every request now. What is on a path is aborted; memory that a path still has comes
    /// back to the engine and is dropped there.
    fn end_all(&mut self, error: IoError) {
        for key in self.table.keys() {
            let Some(entry) = self.table.get(key) else { continue };
            if matches!(entry.role, Role::Part { .. }) {
                continue;
            }
            let tries = entry.tries.clone();
            tries.into_iter().for_each(|id| self.abort(id));
            self.finish(key, Err(error));
        }
    }

    /// Is there anything that the passing of time would end or begin?
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut at = |when: Option<Instant>| {
            next = match (next, when) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        };
        if !self.given_up {
            at(self.no_path_end());
        }
        if let (Some(limit), true) = (self.policy.write_age_max, self.rules.respect_age) {
            at(self.table.ages.head().map(|key| self.table[key].submitted + limit));
        }
        at(self.table.dying.head().map(|key| self.table[key].since + ABORT_PATIENCE));
        if let Some(limit) = self.doubt_limit() {
            at(self.table.held.head().map(|key| self.table[key].since + limit));
            let flushes = self.table.flushes.head();
            let flushes = std::iter::successors(flushes, |&key| self.table.watched_after(key));
            let held = |entry: &&Entry<B>| matches!(entry.role, Role::Flush { parts: 0, .. });
            at(flushes.map(|k| &self.table[k]).filter(held).map(|e| e.since + limit).min());
        }
        if let (Some(limit), true) = (self.no_path_limit(), self.no_path_since.is_none()) {
            let waiting = self.table.waiting.head();
            let waiting = std::iter::successors(waiting, |&key| self.table.after(key));
            at(waiting.filter_map(|k| self.table[k].stuck_since).map(|s| s + limit).min());
        }
        at(self.detaching.filter(|end| *end > self.now || !self.table.is_empty()));
        next
    }

    /// Requests whose pause is over.
    pub(super) fn wake_delayed(&mut self) {
        if self.delayed_next.is_none_or(|next| next > self.now) {
            return;
        }
        let mut soonest: Option<Instant> = None;
        let mut next = self.table.delayed.head();
        while let Some(key) = next {
            next = self.table.after(key);
            let State::Delayed { until, .. } = self.table[key].state else { continue };
            if until <= self.now {
                self.wake(key);
            } else {
                soonest = Some(soonest.map_or(until, |one| one.min(until)));
            }
        }
        self.delayed_next = soonest;
    }
}
