//! What a reload has to change.

use super::{Config, Export, Target};

/// The difference between two configurations, by object.
#[derive(Debug, PartialEq, Eq)]
pub struct Diff<'a> {
    /// Keys of `[daemon]` that differ but are read at start only.
    pub needs_restart: Vec<&'static str>,
    /// The limits that can change at once differ.
    pub limits: bool,
    /// The iSNS servers, or the name that they know us by, differ.
    pub isns: bool,
    /// Exports, by name.
    pub exports: Changes<'a, Export>,
    /// Targets, by name.
    pub targets: Changes<'a, Target>,
}

impl Diff<'_> {
    /// True if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.needs_restart.is_empty()
            && !self.limits
            && !self.isns
            && self.exports.is_empty()
            && self.targets.is_empty()
    }
}

/// The difference between two lists of named objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes<'a, T> {
    /// Only in the new one.
    pub added: Vec<&'a T>,
    /// Only in the old one.
    pub removed: Vec<&'a T>,
    /// In both, and not equal: old, new.
    pub changed: Vec<(&'a T, &'a T)>,
}

impl<T> Changes<'_, T> {
    /// True if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// What leads from `old` to `new`.
pub fn diff<'a>(old: &'a Config, new: &'a Config) -> Diff<'a> {
    let (was, is) = (&old.daemon, &new.daemon);
    let needs_restart = [
        ("daemon.threads", was.threads != is.threads),
        ("daemon.busy_poll", was.busy_poll != is.busy_poll),
        ("daemon.admin_socket", was.admin_socket != is.admin_socket),
        ("daemon.state_dir", was.state_dir != is.state_dir),
        ("daemon.metrics", was.metrics != is.metrics),
        ("daemon.limits.memory", was.limits.memory != is.limits.memory),
    ];
    let limits = (was.limits.sessions, was.limits.connections, was.limits.login_timeout)
        != (is.limits.sessions, is.limits.connections, is.limits.login_timeout);
    Diff {
        needs_restart: needs_restart.iter().filter(|(_, d)| *d).map(|(key, _)| *key).collect(),
        limits,
        isns: was.isns != is.isns,
        exports: changes(&old.exports, &new.exports, |export| &export.name),
        targets: changes(&old.targets, &new.targets, |target| target.name.as_str()),
    }
}

fn changes<'a, T: PartialEq>(
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&T) -> &str,
) -> Changes<'a, T> {
    let old_by_name: std::collections::HashMap<&str, &T> =
        old.iter().map(|object| (name(object), object)).collect();
    let mut changes = Changes { added: Vec::new(), removed: Vec::new(), changed: Vec::new() };
    let mut kept = std::collections::HashSet::new();
    for object in new {
        match old_by_name.get(name(object)) {
            None => changes.added.push(object),
            Some(before) => {
                kept.insert(name(object));
                if *before != object {
                    changes.changed.push((before, object));
                }
            }
        }
    }
    changes.removed = old.iter().filter(|object| !kept.contains(name(object))).collect();
    changes
}
