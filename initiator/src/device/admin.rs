//! What an administrator asks of a device.

use corbel_proto::memory::Arena;
use corbel_proto::time::{Duration, Instant};

use super::held::{Held, Machine};
use super::{Device, Ending, PathConfig};
use crate::multipath::PathSpec;
use crate::multipath::policy::Policy;
use crate::path::aoe::AoePath;
use crate::path::iscsi::IscsiPath;
use crate::path::{PathFault, PathId};

/// Servers that answer for one shelf and slot on one interface: more are not used.
const SIBLINGS_MAX: usize = 8;

impl<A: Arena> Device<A> {
    /// Adds a path and starts it. `text` is how the administrator calls it.
    pub fn add_path(
        &mut self,
        now: Instant,
        text: &str,
        config: PathConfig,
        allow_weak: bool,
    ) -> PathId {
        let id = PathId(self.next_path);
        self.next_path = self.next_path.checked_add(1).expect("65,536 paths in one life");
        // SplitMix64's step: another seed for each path.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (machine, interface) = match config {
            PathConfig::Iscsi(config) => {
                (Machine::Iscsi(Box::new(IscsiPath::new(*config, self.seed))), None)
            }
            PathConfig::Aoe(interface, config) => {
                (Machine::Aoe(Box::new(AoePath::new(*config, self.seed))), Some(interface))
            }
        };
        let limits = machine.limits();
        let mut held = Held { text: text.to_owned(), machine, interface, leaving: false };
        let spec = PathSpec { name: text.to_owned(), limits, allow_weak };
        self.engine.add_path(now, id, spec);
        if let (Machine::Aoe(machine), Some(interface)) = (&mut held.machine, &held.interface)
            && let Some(link) = self.links.get(interface)
        {
            machine.link(now, *link);
        }
        held.machine.start(now);
        self.paths.insert(id, held);
        self.settle(now);
        id
    }

    /// Takes a path away: its requests go elsewhere.
    pub fn remove_path(&mut self, now: Instant, id: PathId) {
        if let Some(held) = self.paths.get_mut(&id) {
            held.leaving = true;
        }
        self.engine.disable_path(now, id);
        self.stop_path(now, id, PathFault::Disabled);
    }

    /// The paths that an administrator means by `text`: the whole text, or `aoe:0.0@eth1` for every
    /// server that answers there.
    pub fn paths_called(&self, text: &str) -> Vec<PathId> {
        let called = |held: &Held<_>| {
            let rest = held.text.strip_prefix(text);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.paths.iter().filter(|(_, held)| called(held)).map(|(id, _)| *id).collect()
    }

    /// Every path, as configured.
    pub fn path_names(&self) -> impl Iterator<Item = (PathId, &str)> {
        self.paths.iter().map(|(id, held)| (*id, held.text.as_str()))
    }

    /// Takes a path out of service until [`Self::reinstate_path`].
    pub fn fail_path(&mut self, now: Instant, id: PathId) {
        self.engine.disable_path(now, id);
        self.stop_path(now, id, PathFault::Disabled);
    }

    /// Puts a path back to service; one that is damped need not wait.
    pub fn reinstate_path(&mut self, now: Instant, id: PathId) {
        self.engine.enable_path(now, id);
        if let Some(held) = self.paths.get_mut(&id) {
            held.machine.start(now);
        }
        self.settle(now);
    }

    /// Uses a quarantined path all the same.
    pub fn accept_path(&mut self, now: Instant, id: PathId) {
        self.engine.accept_path(now, id);
        self.settle(now);
    }

    /// Takes over the size that the paths report.
    pub fn accept_size(&mut self, now: Instant) {
        self.engine.accept_size(now);
        self.settle(now);
    }

    /// What an administrator decided.
    pub fn policy(&self) -> &Policy {
        self.engine.policy()
    }

    /// Decides anew; requests that wait obey at once.
    pub fn set_policy(&mut self, now: Instant, policy: Policy) {
        self.engine.set_policy(now, policy);
        self.settle(now);
    }

    /// Uses path group number `group` of [`Self::status`] from now on.
    pub fn switch_group(&mut self, now: Instant, group: usize) {
        self.engine.switch_group(now, group);
        self.settle(now);
    }

    /// Refuses everything, also what waits.
    pub fn fence(&mut self, now: Instant) {
        self.engine.fence(now);
        self.settle(now);
    }

    /// Serves again.
    pub fn unfence(&mut self, now: Instant) {
        self.engine.unfence(now);
        self.settle(now);
    }

    /// Ends the device: requests under way may take `patience`, then they fail; the paths take
    /// leave. Done when [`Self::is_gone`].
    pub fn detach(&mut self, now: Instant, patience: Duration) {
        self.engine.detach(now, patience);
        if self.ending == Ending::No {
            self.ending = Ending::Draining;
        }
        self.settle(now);
    }

    /// True once every request has ended and every stream is closed, after [`Self::detach`].
    pub fn is_gone(&self) -> bool {
        let closed = |held: &Held<_>| match &held.machine {
            Machine::Iscsi(machine) => machine.is_closed(),
            Machine::Aoe(_) => true,
        };
        self.ending == Ending::Leaving && self.paths.values().all(closed)
    }

    pub(super) fn stop_path(&mut self, now: Instant, id: PathId, fault: PathFault) {
        if let Some(held) = self.paths.get_mut(&id) {
            held.machine.stop(now, fault);
        }
        self.settle(now);
    }

    /// Another server answers for the same shelf and slot: another path.
    pub(super) fn adopt_siblings(&mut self, now: Instant) {
        loop {
            let found = self.paths.values_mut().find_map(|held| match &mut held.machine {
                Machine::Aoe(machine) if !held.leaving => {
                    let mac = machine.poll_sibling()?;
                    let config = machine.config().clone();
                    Some((held.text.clone(), held.interface.clone()?, config, mac))
                }
                _ => None,
            });
            let Some((text, interface, mut config, mac)) = found else { return };
            let base = text.split('/').next().unwrap_or_default().to_owned();
            let text = format!("{base}/{mac}");
            let many = self.paths_called(&base).len() >= SIBLINGS_MAX;
            if many || !self.paths_called(&text).is_empty() {
                continue;
            }
            config.remote = Some(mac);
            self.add_path(now, &text, PathConfig::Aoe(interface, Box::new(config)), false);
        }
    }
}
