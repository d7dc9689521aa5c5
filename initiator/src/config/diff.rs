//! What a reload has to change.

use super::{DeviceSettings, PathSettings, Settings};

/// The difference between two configurations.
#[derive(Debug, PartialEq, Eq)]
pub struct Diff<'a> {
    /// Keys of `[daemon]` that differ but are read at start only.
    pub needs_restart: Vec<&'static str>,
    /// Another program is told of events.
    pub event_hook: bool,
    /// Only in the new one.
    pub added: Vec<&'a DeviceSettings>,
    /// Only in the old one.
    pub removed: Vec<&'a DeviceSettings>,
    /// In both, and not equal.
    pub changed: Vec<Change<'a>>,
}

/// One device that is in both configurations, and not equal.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// As it was.
    pub old: &'a DeviceSettings,
    /// As it is to be.
    pub new: &'a DeviceSettings,
    /// Keys that differ but are read when a device is attached: it has to be detached first.
    pub needs_detach: Vec<&'static str>,
    /// The policy, or where it comes from, differs.
    pub policy: bool,
    /// Paths to be added.
    pub paths_added: Vec<&'a PathSettings>,
    /// Paths to be removed.
    pub paths_removed: Vec<&'a PathSettings>,
}

impl Diff<'_> {
    /// True if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.needs_restart.is_empty()
            && !self.event_hook
            && self.added.is_empty()
            && self.removed.is_empty()
            && self.changed.is_empty()
    }
}

/// What leads from `old` to `new`.
pub fn diff<'a>(old: &'a Settings, new: &'a Settings) -> Diff<'a> {
    let (was, is) = (&old.daemon, &new.daemon);
    let needs_restart = [
        ("daemon.admin_socket", was.admin_socket != is.admin_socket),
        ("daemon.state_dir", was.state_dir != is.state_dir),
        ("daemon.metrics", was.metrics != is.metrics),
        ("daemon.initiator_name", was.initiator_name != is.initiator_name),
        ("daemon.lock_memory", was.lock_memory != is.lock_memory),
    ];
    let find = |devices: &'a [DeviceSettings], name: &str| {
        devices.iter().find(|device| device.name == name)
    };
    let only_in = |these: &'a [DeviceSettings], those: &'a [DeviceSettings]| {
        these.iter().filter(|device| find(those, &device.name).is_none()).collect()
    };
    let changed = new.devices.iter().filter_map(|new| {
        let old = find(&old.devices, &new.name)?;
        (old != new).then(|| change(old, new))
    });
    Diff {
        needs_restart: differing(&needs_restart),
        event_hook: was.event_hook != is.event_hook,
        added: only_in(&new.devices, &old.devices),
        removed: only_in(&old.devices, &new.devices),
        changed: changed.collect(),
    }
}

fn change<'a>(old: &'a DeviceSettings, new: &'a DeviceSettings) -> Change<'a> {
    let needs_detach = [
        ("wwid", old.wwid != new.wwid),
        ("present", old.present != new.present),
        ("depth", old.depth != new.depth),
        ("chap", old.chap != new.chap),
        ("mutual_chap", old.mutual_chap != new.mutual_chap),
        ("digests", old.digests != new.digests),
        ("reinstatement", old.reinstatement != new.reinstatement),
    ];
    let mut needs_detach = differing(&needs_detach);
    let timers = old.timers.each().zip(new.timers.each());
    needs_detach.extend(timers.filter(|(old, new)| old != new).map(|((key, _), _)| key));
    let only_in = |these: &'a [PathSettings], those: &'a [PathSettings]| {
        these.iter().filter(|path| !those.contains(path)).collect()
    };
    Change {
        old,
        new,
        needs_detach,
        policy: old.policy != new.policy || old.origins != new.origins,
        paths_added: only_in(&new.paths, &old.paths),
        paths_removed: only_in(&old.paths, &new.paths),
    }
}

fn differing(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
}
