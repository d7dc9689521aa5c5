//! Path groups: which paths stand together, which group is in use, and when the better one is used
//! again.

use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use super::Engine;
use super::paths::Path;
use super::policy::{Failback, Grouping};
use super::status::PathState;
use crate::path::PathId;

/// A group's name: stays while paths come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupKey {
    Path(PathId),
    All,
    Priority(u32),
    Serial(String),
}

/// A group. Members are indices of paths, in the order they were added.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) priority: u32,
    pub(super) members: Vec<usize>,
}

/// All groups, and which is in use.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The best first: by priority, then in the order of paths.
    pub(super) all: Vec<Group>,
    /// In use, or last used if no path works.
    pub(super) active: Option<GroupKey>,
    /// An administrator chose the active one.
    pinned: bool,
    /// A better group waits for its time to come.
    better: Option<(GroupKey, Instant)>,
    /// Working paths of the active group.
    pub(super) members: Vec<usize>,
    /// All working paths, best group first.
    pub(super) working: Vec<usize>,
}

fn key_of(path: &Path, grouping: Grouping) -> GroupKey {
    match (grouping, &path.facts) {
        (Grouping::Multibus, _) => GroupKey::All,
        (Grouping::GroupByPrio, Some(facts)) => GroupKey::Priority(facts.priority),
        (Grouping::GroupBySerial, Some(facts)) => GroupKey::Serial(facts.group_serial.clone()),
        (Grouping::Failover, _) | (_, None) => GroupKey::Path(path.id),
    }
}

fn arrange(paths: &[Path], grouping: Grouping) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, path) in paths.iter().enumerate().filter(|(_, path)| !path.removed) {
        let key = key_of(path, grouping);
        match groups.iter_mut().find(|group| group.key == key) {
            Some(group) => group.members.push(index),
            None => groups.push(Group { key, priority: 0, members: vec![index] }),
        }
    }
    for group in &mut groups {
        let of = |&index: &usize| paths[index].priority();
        let working = group.members.iter().filter(|&&index| paths[index].works());
        let best = working.map(of).max();
        group.priority = best.or_else(|| group.members.iter().map(of).max()).unwrap_or(0);
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.priority));
    groups
}

impl<B: Buffer> Engine<B> {
    /// Looks again at groups after paths, policy or time have changed. True if the set of working
    /// paths is another one.
    pub(super) fn regroup(&mut self) -> bool {
        self.groups.all = arrange(&self.paths, self.policy.grouping);
        // Damped paths are used only if there is nothing better.
        let ready = self.paths.iter().any(|p| !p.removed && p.state == PathState::Ready);
        let paths = &self.paths;
        let usable = |index: &usize| {
            paths[*index].works() && (!ready || paths[*index].state == PathState::Ready)
        };
        let alive = |group: &&Group| group.members.iter().any(usable);
        let best = self.groups.all.iter().find(alive).map(|group| group.key.clone());
        let active = self
            .groups
            .active
            .clone()
            .filter(|key| self.groups.all.iter().filter(alive).any(|group| group.key == *key));
        let working: Vec<usize> = self
            .groups
            .all
            .iter()
            .flat_map(|group| &group.members)
            .copied()
            .filter(usable)
            .collect();
        match (active, best) {
            (_, None) => self.groups.better = None,
            (None, Some(best)) => self.activate(best),
            (Some(active), Some(best)) if active == best => {
                (self.groups.better, self.groups.pinned) = (None, false);
            }
            (Some(_), Some(best)) => self.failback(best),
        }
        let active = self.groups.active.as_ref();
        let group = self.groups.all.iter().find(|group| Some(&group.key) == active);
        let members = group.map_or(&[][..], |group| &group.members);
        self.groups.members.clear();
        self.groups.members.extend(members.iter().filter(|index| working.contains(index)));
        let changed = self.groups.working != working;
        self.groups.working = working;
        changed
    }

    fn activate(&mut self, key: GroupKey) {
        if self.groups.active.as_ref().is_some_and(|old| *old != key) {
            self.counters.group_switches += 1;
        }
        self.groups.active = Some(key);
        (self.groups.better, self.groups.pinned) = (None, false);
    }

    fn failback(&mut self, best: GroupKey) {
        if self.groups.pinned {
            return;
        }
        match self.policy.failback {
            Failback::Immediate => self.activate(best),
            Failback::Manual => self.groups.better = None,
            Failback::After(wait) => {
                let since = match &self.groups.better {
                    Some((key, since)) if *key == best => *since,
                    _ => self.now,
                };
                if self.now.since(since) >= wait {
                    self.activate(best);
                } else {
                    self.groups.better = Some((best, since));
                }
            }
        }
    }

    /// When the better group is used again.
    pub(super) fn failback_at(&self) -> Option<Instant> {
        let Failback::After(wait) = self.policy.failback else { return None };
        self.groups.better.as_ref().map(|(_, since)| *since + wait)
    }

    /// Uses group number `index` of `status` from now on, until it dies or another is chosen.
    /// False if no path of it works.
    pub fn switch_group(&mut self, now: Instant, index: usize) -> bool {
        self.at(now);
        let Some(group) = self.groups.all.get(index) else { return false };
        if !group.members.iter().any(|member| self.groups.working.contains(member)) {
            return false;
        }
        let key = group.key.clone();
        self.activate(key);
        self.groups.pinned = true;
        self.regroup();
        self.run();
        true
    }
}
