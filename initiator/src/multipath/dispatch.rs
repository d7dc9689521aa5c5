//! A request's way to a path, and its end.

use corbel_proto::memory::Buffer;
use corbel_proto::time::Duration;

use super::doubts::Until;
use super::policy::Cache;
use super::select::Choice;
use super::table::{Entry, Key, Role, State, Watch};
use super::tries::Attempt;
use super::{Engine, Order};
use crate::path::{PathId, Try, TryId};
use crate::request::{IoError, Operation, Outcome};

/// Pause after a round in which every path failed a request; doubles up to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A path that is busy is left alone for at least and at most so long.
const BUSY_MIN: Duration = Duration::from_millis(1);
const BUSY_MAX: Duration = Duration::from_secs(30);

impl<B: Buffer> Engine<B> {
    /// Looks at everything that may go on. Requests that this sets free are looked at too, one
    /// after another: nothing calls itself.
    pub(super) fn run(&mut self) {
        while let Some((key, seq)) = self.runnable.pop_front() {
            let free = |entry: &Entry<B>| {
                entry.seq == seq && entry.state == State::Blocked && entry.blockers == 0
            };
            if self.table.get(key).is_some_and(free) {
                self.dispatch(key);
            }
        }
    }

    /// Has `key` looked at, soon.
    pub(super) fn wake(&mut self, key: Key) {
        self.table.enter(key, State::Blocked);
        self.runnable.push_back((key, self.table[key].seq));
    }

    /// Sends a request that is blocked by nothing, or finds out what it waits for.
    fn dispatch(&mut self, key: Key) {
        if let Some(error) = self.refusal(key) {
            return self.finish(key, Err(error));
        }
        let entry = &self.table[key];
        if self.rules.hold_overlap
            && entry.operation.changes()
            && self.doubts.hold(entry.extent, entry.seq)
        {
            self.counters.held += 1;
            return self.rest(key, State::Held);
        }
        match self.choose(key) {
            Choice::Path(index) => self.start(key, index, false),
            Choice::None => self.rest(key, State::Waiting),
            Choice::Never(error) => self.finish(key, Err(error)),
            Choice::Exhausted => self.postpone(key),
        }
    }

    /// Why a request must not be sent at all.
    fn refusal(&self, key: Key) -> Option<IoError> {
        let entry = &self.table[key];
        if self.fenced {
            return Some(IoError::Fenced);
        }
        if self.is_too_old(entry) {
            return Some(IoError::TooOld);
        }
        if self.groups.working.is_empty() && self.no_path_over() {
            return Some(IoError::Io);
        }
        self.misfit(entry.operation, entry.extent)
    }

    pub(super) fn rest(&mut self, key: Key, state: State) {
        self.table[key].since = self.now;
        if state == State::Waiting && !self.groups.working.is_empty() {
            self.table[key].stuck_since.get_or_insert(self.now);
        }
        self.table.enter(key, state);
    }

    /// Every path has failed it or is busy: a pause, then all of them again. Not without end: a
    /// request that fails everywhere has the time that requests have without a path, one that
    /// meets a busy device the time of one that waits for doubts.
    fn postpone(&mut self, key: Key) {
        let (now, patience) = (self.now, self.doubt_limit());
        let entry = &mut self.table[key];
        let stuck = entry.busy.is_empty();
        let (pause, over) = if stuck {
            entry.stuck_since.get_or_insert(now);
            let doubled = 2u32.saturating_pow(entry.rounds);
            entry.rounds = entry.rounds.saturating_add(1);
            (BACKOFF_MIN.saturating_mul(doubled).min(BACKOFF_MAX), false)
        } else {
            let since = *entry.busy_since.get_or_insert(now);
            let over = patience.is_some_and(|patience| since + patience <= now);
            (entry.busy_for.clamp(BUSY_MIN, BUSY_MAX), over)
        };
        entry.failed.clear();
        entry.busy.clear();
        if over || self.is_stuck_for_good(&self.table[key]) {
            return self.finish(key, Err(IoError::Io));
        }
        let until = now + pause;
        self.delayed_next = Some(self.delayed_next.map_or(until, |next| next.min(until)));
        self.table.enter(key, State::Delayed { until, stuck });
    }

    /// Sends a request over a path. A second copy of a read goes without memory: the owner of the
    /// path lends some.
    pub(super) fn start(&mut self, key: Key, index: usize, second: bool) {
        let now = self.now;
        let fua_always = self.policy.cache == Cache::Fua;
        let entry = &mut self.table[key];
        let operation = match entry.operation {
            Operation::Write { fua } => Operation::Write { fua: fua || fua_always },
            Operation::WriteZeroes { unmap, fua } => {
                Operation::WriteZeroes { unmap, fua: fua || fua_always }
            }
            other => other,
        };
        let data = match operation {
            Operation::Read if second => None,
            Operation::Read => entry.data.take(),
            _ => entry.data.clone(),
        };
        let path = &mut self.paths[index];
        let attempt = Attempt {
            request: Some(key),
            path: path.id,
            operation,
            extent: entry.extent,
            started: now,
            domain: path.domain.filter(|_| operation.changes() && !is_fua(operation)),
            cached: self.domains.count(),
            aborted: false,
        };
        path.started(now, entry.extent.len);
        let (path, extent) = (path.id, entry.extent);
        let id = self.tries.insert(attempt);
        entry.tries.push(id);
        if entry.attempts > 0 && !second {
            self.counters.retries += 1;
        }
        entry.attempts = entry.attempts.saturating_add(1);
        entry.hedged |= second;
        let watch = operation == Operation::Read && self.policy.hedge.is_some() && !second;
        let watch = watch && !entry.hedged;
        self.table.enter(key, State::OnPath);
        if watch {
            self.table.watch(key, Watch::Hedge);
        }
        let attempt = Try { id, operation, extent, data };
        self.orders.push_back(Order::Start { path, attempt });
    }

    /// Orders the end of a try, once.
    pub(super) fn abort(&mut self, id: TryId) {
        if let Some(attempt) = self.tries.get_mut(id)
            && !attempt.aborted
        {
            attempt.aborted = true;
            self.orders.push_back(Order::Abort { path: attempt.path, id });
        }
    }

    /// Orders the end of every try on a path.
    pub(super) fn abort_path(&mut self, index: usize) {
        let path: PathId = self.paths[index].id;
        let of_path = self.tries.iter().filter(|(_, attempt)| attempt.path == path);
        let ids: Vec<TryId> = of_path.map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.abort(id));
    }

    /// Ends a request. Tries of it that are still under way are waited for without it: a change's
    /// blocks stay in doubt until then.
    pub(super) fn finish(&mut self, key: Key, result: Result<(), IoError>) {
        let mut entry = self.table.remove(key);
        for id in std::mem::take(&mut entry.tries) {
            let Some(attempt) = self.tries.get_mut(id) else { continue };
            attempt.request = None;
            if attempt.operation.changes() {
                let (path, domain) = (attempt.path, attempt.domain);
                let what = (entry.extent, entry.seq);
                self.doubts.add((path, id), Until::Ended, what, domain);
            }
        }
        if entry.operation.changes() {
            self.unblock(key, &entry);
        }
        match entry.role {
            Role::Part { parent, .. } => return self.part_ended(parent, result),
            Role::Flush { parts, .. } if parts > 0 => self.drop_parts(key),
            Role::Flush { .. } | Role::Plain => {}
        }
        self.count(&entry, result);
        self.outcomes.push_back(Outcome { id: entry.id, data: entry.data, result });
    }

    /// Lets later changes go on that waited for this one.
    fn unblock(&mut self, key: Key, entry: &Entry<B>) {
        self.changes.remove(entry.extent, key);
        for other in self.changes.overlapping(entry.extent) {
            let later = &mut self.table[other];
            if later.seq > entry.seq && later.blockers > 0 {
                later.blockers -= 1;
                if later.blockers == 0 {
                    self.runnable.push_back((other, later.seq));
                }
            }
        }
    }

    fn count(&mut self, entry: &Entry<B>, result: Result<(), IoError>) {
        if result.is_err() {
            self.counters.failed += 1;
            return;
        }
        self.counters.completed += 1;
        match entry.operation {
            Operation::Read => self.counters.read_bytes += entry.extent.len,
            Operation::Write { .. } => self.counters.written_bytes += entry.extent.len,
            Operation::Flush | Operation::Discard | Operation::WriteZeroes { .. } => {}
        }
    }
}

/// It is on stable storage when it is done.
pub(super) const fn is_fua(operation: Operation) -> bool {
    matches!(operation, Operation::Write { fua: true } | Operation::WriteZeroes { fua: true, .. })
}
