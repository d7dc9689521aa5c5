//! What paths say on their own, and what administrators say of paths.

use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use super::Engine;
use super::paths::{PATHS_MAX, Path, PathSpec};
use super::status::{Notice, PathState};
use super::table::{Key, State};
use crate::path::{Facts, Life, PathEvent, PathFault, PathId};

impl<B: Buffer> Engine<B> {
    pub(super) fn index_of(&self, id: PathId) -> Option<usize> {
        self.paths.iter().position(|path| path.id == id)
    }

    /// Another way to the device. It is used once it says that it is ready. A path beyond
    /// [`PATHS_MAX`], or with a number in use, is not added.
    pub fn add_path(&mut self, now: Instant, id: PathId, spec: PathSpec) {
        self.at(now);
        if self.index_of(id).is_none() && self.paths.len() < PATHS_MAX {
            self.paths.push(Path::new(now, id, spec));
            self.refresh();
        }
    }

    /// A path leaves the device. Nothing new is sent over it. Its owner ends what is under way, and
    /// passes on what it says until it is quiet.
    pub fn remove_path(&mut self, now: Instant, id: PathId) {
        self.at(now);
        let Some(index) = self.index_of(id) else { return };
        self.paths[index].removed = true;
        self.abort_path(index);
        self.forget_domains();
        self.refresh();
        self.forget_removed();
        self.run();
    }

    /// Nothing new is sent over a path until [`Engine::enable_path`].
    pub fn disable_path(&mut self, now: Instant, id: PathId) {
        self.set_disabled(now, id, true);
    }

    /// A path may be used again if it is ready; its failures are forgiven.
    pub fn enable_path(&mut self, now: Instant, id: PathId) {
        if let Some(index) = self.index_of(id) {
            self.paths[index].flap.forgive();
            self.paths[index].damped_until = None;
        }
        self.set_disabled(now, id, false);
    }

    fn set_disabled(&mut self, now: Instant, id: PathId, disabled: bool) {
        self.at(now);
        if let Some(index) = self.index_of(id) {
            self.paths[index].disabled = disabled;
            self.refresh();
        }
        self.run();
    }

    /// What a path has to say in words, for status.
    pub fn path_words(&mut self, id: PathId, why: Option<String>, next: Option<String>) {
        if let Some(index) = self.index_of(id) {
            (self.paths[index].why, self.paths[index].next) = (why, next);
        }
    }

    /// A path said something.
    pub fn path_event(&mut self, now: Instant, id: PathId, event: PathEvent<B>) {
        self.at(now);
        let Some(index) = self.index_of(id) else { return };
        match event {
            PathEvent::Ready(_) | PathEvent::Down(_) if self.paths[index].removed => {}
            PathEvent::Ready(facts) => self.path_ready(index, facts),
            PathEvent::Down(fault) => self.path_down(index, fault),
            PathEvent::Tried(tried) => self.tried(index, tried),
            PathEvent::Quiet(life) => self.quiet(index, life),
            PathEvent::Settled(id) => self.settled(index, id),
            PathEvent::Haunted(life) => self.haunted(index, life),
            PathEvent::Checked => self.paths[index].check_asked = None,
        }
        if self.paths.iter().any(|path| path.removed) {
            self.forget_removed();
        }
        self.run();
    }

    fn path_ready(&mut self, index: usize, facts: Box<Facts>) {
        let judged = self.admit(index, &facts);
        let path = &mut self.paths[index];
        if !path.up {
            let hold = path.flap.hold(self.now, &self.policy.flap);
            path.damped_until = (!hold.is_zero()).then(|| self.now + hold);
            path.errors_in_row = 0;
            path.rate.forget();
            path.check_asked = None;
        }
        path.up = true;
        match judged {
            Ok(()) => {
                path.quarantine = None;
                self.learn(index, &facts);
                self.paths[index].facts = Some(facts);
            }
            Err(why) => {
                path.facts = Some(facts);
                self.quarantine(index, why);
            }
        }
        self.forget_domains();
        self.refresh();
        self.agree_on_size();
        self.wake_stuck(index);
    }

    /// Takes note of the cache behind a path that is used from now on.
    pub(super) fn learn(&mut self, index: usize, facts: &Facts) {
        let (domain, lost) = self.domains.meet(facts, self.paths[index].domain);
        self.paths[index].domain = domain;
        if lost {
            self.cache_lost();
        }
    }

    fn path_down(&mut self, index: usize, fault: PathFault) {
        let path = &mut self.paths[index];
        let asked = matches!(fault, PathFault::Disabled | PathFault::Standby);
        if path.up && !asked && !path.disabled {
            path.failures += 1;
            path.flap.failed(self.now, &self.policy.flap);
        }
        (path.up, path.fault) = (false, fault);
        self.refresh();
        self.agree_on_size();
    }

    fn haunted(&mut self, index: usize, life: Life) {
        let path = &self.paths[index];
        if path.quiet.is_none_or(|quiet| quiet < life) {
            self.doubts.add_whole(path.id, life, path.domain);
        }
    }

    /// A path is (again) well: requests that wait for one may try it.
    fn wake_stuck(&mut self, index: usize) {
        if !self.groups.working.contains(&index) {
            return;
        }
        let id = self.paths[index].id;
        let mut next = self.table.delayed.head();
        while let Some(key) = next {
            next = self.table.after(key);
            if matches!(self.table[key].state, State::Delayed { stuck: true, .. }) {
                self.table[key].failed.retain(|failed| *failed != id);
                self.wake(key);
            }
        }
        self.release_waiting();
    }

    /// Looks again at everything that waits for a path.
    pub(super) fn release_waiting(&mut self) {
        let waiting: Vec<Key> =
            std::iter::successors(self.table.waiting.head(), |&key| self.table.after(key))
                .collect();
        waiting.into_iter().for_each(|key| self.wake(key));
    }

    /// Looks again at states, groups and the device after paths, policy or time have changed.
    pub(super) fn refresh(&mut self) {
        let worked = !self.groups.working.is_empty();
        for index in 0..self.paths.len() {
            let (old, new) = (self.paths[index].state, self.paths[index].judge(self.now));
            if old == new {
                continue;
            }
            let path = &mut self.paths[index];
            (path.state, path.since) = (new, self.now);
            let used = |state| matches!(state, PathState::Ready | PathState::Damped);
            let name = path.spec.name.clone();
            let fault = self.fault_of(index);
            match (used(old), used(new)) {
                (false, true) => self.notice(Notice::PathUp { path: name }),
                (true, false) if new != PathState::Quarantined => {
                    let fault = fault.unwrap_or(PathFault::Disabled);
                    self.notice(Notice::PathDown { path: name, fault });
                }
                _ => {}
            }
        }
        let changed = self.regroup();
        let works = !self.groups.working.is_empty();
        match (worked, works) {
            (true, false) => self.all_paths_lost(),
            (false, true) => self.first_path_back(),
            _ => {}
        }
        if works && changed {
            self.release_waiting();
        }
    }

    /// Why a path is not ready.
    pub(super) fn fault_of(&self, index: usize) -> Option<PathFault> {
        let path = &self.paths[index];
        match path.state {
            PathState::Ready => None,
            PathState::Ghost => Some(PathFault::Standby),
            PathState::Down => Some(path.fault),
            PathState::Damped => Some(PathFault::Flapping),
            PathState::Quarantined => Some(PathFault::Mismatch),
            PathState::Disabled => Some(PathFault::Disabled),
        }
    }

    /// Drops removed paths of which nothing is left.
    pub(super) fn forget_removed(&mut self) {
        let doubts = &self.doubts;
        let gone = |path: &Path| path.removed && path.in_flight == 0 && !doubts.of_path(path.id);
        if self.paths.iter().any(gone) {
            self.paths.retain(|path| !gone(path));
            // Groups hold places of paths.
            self.regroup();
        }
    }
}
