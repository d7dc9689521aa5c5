//! What a try's end means for its request.

use corbel_proto::memory::Buffer;

use super::doubts::{Doubt, NOBODY, Until};
use super::table::{Key, State, Watch};
use super::tries::Attempt;
use super::{Engine, Order};
use crate::path::{Life, PathFault, Tried, TryId, Verdict};
use crate::request::{IoError, Operation};

/// So many tries in a row that a path fails make it suspect.
const ERRORS_MAX: u32 = 8;

impl<B: Buffer> Engine<B> {
    /// A try ended.
    pub(super) fn tried(&mut self, index: usize, tried: Tried<B>) {
        let here = self.paths[index].id;
        if self.tries.get(tried.id).is_none_or(|attempt| attempt.path != here) {
            return;
        }
        let Some(attempt) = self.tries.remove(tried.id) else { return };
        let well = matches!(tried.verdict, Verdict::Done | Verdict::DoneInDoubt(_));
        self.paths[index].ended(self.now, attempt.started, attempt.extent.len, well);
        if well && attempt.operation == Operation::Read {
            self.latencies.add(self.now.since(attempt.started));
        }
        if !attempt.aborted {
            self.weigh(index, tried.verdict);
        }
        let Some(key) = attempt.request else { return self.orphan_ended(&attempt, &tried) };
        let entry = &mut self.table[key];
        entry.tries.retain(|id| *id != tried.id);
        if attempt.operation == Operation::Read && tried.data.is_some() {
            entry.data = tried.data;
        }
        if attempt.operation.changes() {
            self.note_change(tried.id, &attempt, tried.verdict);
        }
        if well && attempt.operation == Operation::Flush {
            self.flushed(key, &attempt);
        }
        self.decide(key, index, tried.verdict);
    }

    /// A path that says it is well but fails one try after another is set aside for a while, as one
    /// that comes and goes is.
    fn weigh(&mut self, index: usize, verdict: Verdict) {
        let (now, flap) = (self.now, self.policy.flap);
        let path = &mut self.paths[index];
        match verdict {
            Verdict::Done
            | Verdict::DoneInDoubt(_)
            | Verdict::Device(_)
            | Verdict::DeviceInDoubt(..) => path.errors_in_row = 0,
            Verdict::Later(_) => {}
            Verdict::Elsewhere(_) | Verdict::InDoubt(..) => path.errors_in_row += 1,
        }
        if path.errors_in_row >= ERRORS_MAX && flap.failures > 0 {
            path.errors_in_row = 0;
            path.damped_until = path.damped_until.max(Some(now + flap.hold));
            self.refresh();
        }
    }

    /// A try ended whose request was answered before.
    fn orphan_ended(&mut self, attempt: &Attempt, tried: &Tried<B>) {
        if !attempt.operation.changes() {
            return;
        }
        self.note_change(tried.id, attempt, tried.verdict);
        let id = tried.id;
        self.end_doubts(|doubt| doubt.tried == id && doubt.until == Until::Ended);
    }

    /// Keeps account of what a change has left behind: in caches, and in doubt.
    fn note_change(&mut self, id: TryId, attempt: &Attempt, verdict: Verdict) {
        let life = match verdict {
            Verdict::Done | Verdict::DoneInDoubt(_) => {
                self.domains.written(attempt.domain, attempt.request.is_some());
                if let Verdict::DoneInDoubt(life) = verdict { life } else { return }
            }
            Verdict::InDoubt(_, life) | Verdict::DeviceInDoubt(_, life) => {
                self.domains.written(attempt.domain, false);
                life
            }
            Verdict::Device(_) | Verdict::Later(_) | Verdict::Elsewhere(_) => return,
        };
        let index = self.index_of(attempt.path);
        let quiet = index.and_then(|index| self.paths[index].quiet);
        if quiet.is_some_and(|quiet| quiet >= life) {
            return;
        }
        let owner = attempt.request.map_or(NOBODY, |key| self.table[key].seq);
        let what = (attempt.extent, owner);
        self.doubts.add((attempt.path, id), Until::Quiet(life), what, attempt.domain);
    }

    fn decide(&mut self, key: Key, index: usize, verdict: Verdict) {
        let entry = &mut self.table[key];
        if let Some(error) = entry.dying {
            let done = matches!(verdict, Verdict::Done | Verdict::DoneInDoubt(_));
            let done = done && error == IoError::TooOld;
            if entry.tries.is_empty() || done {
                self.finish(key, if done { Ok(()) } else { Err(error) });
            }
            return;
        }
        let path = self.paths[index].id;
        match verdict {
            Verdict::Done | Verdict::DoneInDoubt(_) => return self.finish(key, Ok(())),
            Verdict::Device(error) | Verdict::DeviceInDoubt(error, _)
                if self.rules.keep_device_errors =>
            {
                return self.finish(key, Err(error));
            }
            Verdict::Later(pause) => {
                let first = entry.busy.is_empty();
                entry.busy_for = if first { pause } else { entry.busy_for.min(pause) };
                entry.busy.push(path);
            }
            Verdict::InDoubt(..)
                if entry.operation.changes() && !self.rules.reissue_after_doubt =>
            {
                return self.finish(key, Ok(()));
            }
            Verdict::Device(_)
            | Verdict::DeviceInDoubt(..)
            | Verdict::Elsewhere(_)
            | Verdict::InDoubt(..) => {
                if !self.rules.retry_path_errors {
                    return self.finish(key, Err(IoError::Io));
                }
                if !entry.failed.contains(&path) {
                    entry.failed.push(path);
                }
                if verdict == Verdict::Elsewhere(PathFault::CommandsFail) {
                    self.check(index);
                }
            }
        }
        // Another copy may still do it.
        if self.table[key].tries.is_empty() {
            if self.table[key].operation == Operation::Read {
                self.table.watch(key, Watch::None);
                self.table[key].hedged = false;
            }
            self.wake(key);
        }
    }

    /// Has a path look at itself; not more than once a second.
    pub(super) fn check(&mut self, index: usize) {
        let path = &mut self.paths[index];
        let lately = path.check_asked.is_some_and(|at| self.now.since(at).as_secs() < 1);
        if path.up && !lately {
            path.check_asked = Some(self.now);
            self.orders.push_back(Order::Check { path: path.id });
        }
    }

    /// What a path sent in its lives up to this one is over.
    pub(super) fn quiet(&mut self, index: usize, life: Life) {
        let path = &mut self.paths[index];
        path.quiet = path.quiet.max(Some(life));
        let id = path.id;
        self.end_doubts(|doubt| {
            doubt.path == id && matches!(doubt.until, Until::Quiet(of) if of <= life)
        });
    }

    /// Every copy of a try has been answered for.
    pub(super) fn settled(&mut self, index: usize, id: TryId) {
        let path = self.paths[index].id;
        let of_life = |until| matches!(until, Until::Quiet(_));
        self.end_doubts(|doubt| (doubt.path, doubt.tried) == (path, id) && of_life(doubt.until));
    }

    /// Ends doubts, and lets go on what waited for them.
    fn end_doubts(&mut self, ends: impl Fn(&Doubt) -> bool) {
        let domains = &mut self.domains;
        // The old copy may have landed in a cache just now.
        if self.doubts.end(ends, |doubt| domains.written(doubt.domain, false)) {
            self.release_held();
            self.release_flushes();
            self.forget_removed();
        }
    }

    fn release_held(&mut self) {
        let mut next = self.table.held.head();
        while let Some(key) = next {
            next = self.table.after(key);
            let entry = &self.table[key];
            let held = entry.state == State::Held && self.doubts.hold(entry.extent, entry.seq);
            if !held {
                self.wake(key);
            }
        }
    }
}
