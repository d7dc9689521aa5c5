//! Whether a path leads to this device: before anything is sent over it.

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::Engine;
use super::policy::Resize;
use super::status::{Notice, PathState};
use crate::identity::Identity;
use crate::path::{Facts, PathId};

/// The device as the first path found it.
#[derive(Debug, Clone)]
pub(super) struct Device {
    /// Its size is the one that requests are measured against.
    pub(super) identity: Identity,
    /// It was expected by configuration, and no path has found it yet.
    pub(super) unconfirmed: bool,
}

/// How often paths are asked who they are while they do not agree.
const RECHECK: Duration = Duration::from_secs(5);

/// Bytes, as words.
fn size(bytes: u64) -> String {
    format!("{bytes} bytes")
}

impl<B: Buffer> Engine<B> {
    /// Only a device that says it is `identity` is this device; a size of 0 is any size. Without it
    /// the first path decides.
    pub fn expect(&mut self, identity: Identity) {
        if self.device.is_none() {
            self.device = Some(Device { identity, unconfirmed: true });
        }
    }

    /// Judges what a path found. `Err` says why it must not be used.
    pub(super) fn admit(&mut self, index: usize, facts: &Facts) -> Result<(), String> {
        let found = &facts.identity;
        if found.block_bytes == 0 || found.size_bytes == 0 {
            return Err("no medium, or blocks of no bytes".to_owned());
        }
        let Some(device) = &self.device else {
            self.device = Some(Device { identity: found.clone(), unconfirmed: false });
            return Ok(());
        };
        if !self.rules.check_identity {
            return Ok(());
        }
        let path = &self.paths[index];
        let known = &device.identity;
        let named = |one: &Identity| {
            (&one.wwn, &one.serial, &one.model) == (&found.wwn, &found.serial, &found.model)
        };
        if !path.accepted.as_ref().is_some_and(named) {
            self.same_name(index, known, found)?;
        }
        if found.block_bytes > known.block_bytes && self.began && !device.unconfirmed {
            return Err(format!(
                "blocks of {} bytes; the device is in use with blocks of {}",
                found.block_bytes, known.block_bytes
            ));
        }
        if found.size_bytes < known.size_bytes {
            return Err(format!(
                "{}; the device has {}",
                size(found.size_bytes),
                size(known.size_bytes)
            ));
        }
        let any_size = device.unconfirmed && known.size_bytes == 0;
        if found.size_bytes > known.size_bytes && self.policy.resize == Resize::Never && !any_size {
            return Err(format!(
                "{}; the device has {} until the new size is accepted",
                size(found.size_bytes),
                size(known.size_bytes)
            ));
        }
        let device = self.device.as_mut().expect("looked at above");
        if device.unconfirmed && device.identity.size_bytes == 0 {
            device.identity = found.clone();
        }
        device.unconfirmed = false;
        let blocks = &mut device.identity.block_bytes;
        *blocks = (*blocks).max(found.block_bytes);
        Ok(())
    }

    fn same_name(&self, index: usize, known: &Identity, found: &Identity) -> Result<(), String> {
        match (&known.wwn, &found.wwn) {
            (Some(one), Some(other)) if one == other => Ok(()),
            (Some(one), Some(other)) => Err(format!("device {other}; expected {one}")),
            (Some(one), None) => Err(format!("a device without a name; expected {one}")),
            (None, Some(other)) => Err(format!("device {other}; expected one without a name")),
            (None, None) => self.same_weakly(index, known, found),
        }
    }

    /// Without a world-wide name: the same serial number, model and size, and the one path there is
    /// (targets repeat serial numbers), unless the administrator says that they do not here.
    fn same_weakly(&self, index: usize, known: &Identity, found: &Identity) -> Result<(), String> {
        let same = (&known.serial, &known.model) == (&found.serial, &found.model);
        if !same || known.size_bytes != found.size_bytes {
            return Err(format!(
                "serial {:?}, model {:?}, {}; expected serial {:?}, model {:?}, {}",
                found.serial,
                found.model,
                size(found.size_bytes),
                known.serial,
                known.model,
                size(known.size_bytes)
            ));
        }
        let path = &self.paths[index];
        let others = self.paths.iter().enumerate().any(|(at, other)| {
            let uses = other.facts.is_some() && other.quarantine.is_none();
            at != index && !other.removed && uses
        });
        let was_it = path.facts.as_ref().is_some_and(|old| old.identity == *found);
        if path.spec.allow_weak || !others || (was_it && path.quarantine.is_none()) {
            return Ok(());
        }
        Err("a device without a world-wide name, and another path: they may differ".to_owned())
    }

    /// Sets `path` aside.
    pub(super) fn quarantine(&mut self, index: usize, why: String) {
        let path = &mut self.paths[index];
        if path.quarantine.as_ref() != Some(&why) {
            let name = path.spec.name.clone();
            path.quarantine = Some(why.clone());
            self.notice(Notice::PathQuarantined { path: name, why });
        }
        // What is under way there would reach another device.
        self.abort_path(index);
    }

    /// The device's paths do not agree what it is. Those that are idle are told of nothing, so all
    /// of them are asked now and then, until they agree.
    fn disagree(&self) -> bool {
        let Some(device) = &self.device else { return false };
        let up = self.paths.iter().filter(|path| !path.removed && path.up);
        up.filter_map(|path| path.facts.as_ref().map(|facts| (path, facts))).any(|(path, facts)| {
            path.quarantine.is_some() || facts.identity.size_bytes != device.identity.size_bytes
        })
    }

    /// When the next path is asked.
    pub(super) fn recheck_at(&self) -> Option<Instant> {
        if !self.disagree() {
            return None;
        }
        let up = self.paths.iter().filter(|path| !path.removed && path.up);
        up.map(|path| path.rechecked + RECHECK).min()
    }

    /// Asks the paths whose time has come.
    pub(super) fn recheck(&mut self) {
        if !self.disagree() {
            return;
        }
        for index in 0..self.paths.len() {
            let path = &mut self.paths[index];
            if !path.removed && path.up && path.rechecked + RECHECK <= self.now {
                path.rechecked = self.now;
                self.check(index);
            }
        }
    }

    /// Grows the device once every path that answers agrees on more.
    pub(super) fn agree_on_size(&mut self) {
        let Some(device) = &self.device else { return };
        let known = device.identity.size_bytes;
        let answers =
            |state| matches!(state, PathState::Ready | PathState::Damped | PathState::Ghost);
        let sizes = self.paths.iter().filter(|path| !path.removed && path.up);
        let sizes = sizes.filter(|path| answers(path.state));
        let least = sizes.filter_map(|p| p.facts.as_ref()).map(|f| f.identity.size_bytes).min();
        if self.policy.resize == Resize::GrowOnly && least.is_some_and(|least| least > known) {
            self.resize(least.unwrap_or(known));
        }
    }

    fn resize(&mut self, size_bytes: u64) {
        if let Some(device) = &mut self.device
            && device.identity.size_bytes != size_bytes
        {
            device.identity.size_bytes = size_bytes;
            self.notice(Notice::Resized(size_bytes));
        }
    }

    /// The paths' size is the device's, larger or smaller; paths that were set aside for their size
    /// are used again. Of several sizes the smallest counts.
    pub fn accept_size(&mut self, now: Instant) {
        self.at(now);
        let Some(device) = &self.device else { return };
        let mut least: Option<u64> = None;
        for (index, path) in self.paths.iter().enumerate() {
            let Some(facts) = path.facts.as_ref().filter(|_| path.up && !path.removed) else {
                continue;
            };
            let mut known = device.identity.clone();
            known.size_bytes = facts.identity.size_bytes;
            if self.same_name(index, &known, &facts.identity).is_ok() {
                least = Some(least.map_or(known.size_bytes, |old| old.min(known.size_bytes)));
            }
        }
        if let Some(least) = least {
            self.resize(least);
            self.readmit();
        }
        self.refresh();
        self.run();
    }

    /// The administrator vouches for what this path leads to. One that is too small stays aside:
    /// accept the size for that.
    pub fn accept_path(&mut self, now: Instant, id: PathId) {
        self.at(now);
        if let Some(index) = self.index_of(id) {
            let path = &mut self.paths[index];
            path.accepted = path.facts.as_ref().map(|facts| facts.identity.clone());
            self.readmit();
        }
        self.refresh();
        self.run();
    }

    /// Judges all paths in quarantine once more.
    pub(super) fn readmit(&mut self) {
        for index in 0..self.paths.len() {
            if self.paths[index].quarantine.is_none() || !self.paths[index].up {
                continue;
            }
            let Some(facts) = self.paths[index].facts.clone() else { continue };
            match self.admit(index, &facts) {
                Ok(()) => {
                    self.paths[index].quarantine = None;
                    self.learn(index, &facts);
                }
                Err(why) => self.paths[index].quarantine = Some(why),
            }
        }
    }
}
