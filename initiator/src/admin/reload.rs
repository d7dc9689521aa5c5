//! From one configuration to the next, device by device. What is wrong with one device leaves the
//! others as they are to be.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::calls;
use super::devices::{Command, Devices};
use super::events::Events;
use super::protocol::{ErrorKind, Response};
use super::run::Source;
use super::{CALL_MAX, PATIENCE};
use crate::config::{Change, DeviceSettings, PathSettings, Settings, diff, load};

/// A new device that is not there by then comes later by itself.
const ATTACH_MAX: Duration = CALL_MAX;

/// Knows the configuration in force, and where the next one comes from.
pub(super) struct Reloader {
    devices: Arc<dyn Devices>,
    events: Events,
    source: Source,
    in_force: Settings,
}

/// What came of a reload.
#[derive(Default)]
struct Outcome {
    changes: Vec<String>,
    failures: Vec<String>,
}

impl Reloader {
    pub(super) fn new(
        devices: Arc<dyn Devices>,
        events: Events,
        source: Source,
        in_force: Settings,
    ) -> Self {
        Self { devices, events, source, in_force }
    }

    /// Reads the configuration, and takes up what differs.
    pub(super) async fn reload(&mut self) -> Response {
        let path = match &self.source {
            Source::Fixed => return Response::Reloaded { changes: Vec::new() },
            Source::File(path) => path.clone(),
        };
        // The file may be on storage that hangs: signals are heard meanwhile.
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        match read {
            Ok(Ok(settings)) => self.take_up(settings).await,
            Ok(Err(message)) => Response::Error { kind: ErrorKind::Configuration, message },
            Err(_) => Response::failed("the reload broke off"),
        }
    }

    async fn take_up(&mut self, new: Settings) -> Response {
        let attached = self.devices.names();
        // What was detached by hand is attached again if the file still names it.
        let mut old = self.in_force.clone();
        old.devices.retain(|device| attached.contains(&device.name));
        let found = diff(&old, &new);
        let mut outcome = Outcome::default();
        for key in &found.needs_restart {
            outcome.changes.push(format!("{key} changes at the next start"));
        }
        if found.event_hook {
            self.events.hook(new.daemon.event_hook.clone());
            outcome.changes.push("daemon.event_hook changed".to_owned());
        }
        let mut kept = Vec::new();
        for device in &found.removed {
            if !self.detach(&device.name, &mut outcome).await {
                kept.push((*device).clone());
            }
        }
        for device in &found.added {
            self.attach(device, &mut outcome).await;
        }
        let mut partly = Vec::new();
        for change in &found.changed {
            partly.push(self.change(change, &mut outcome).await);
        }
        let mut settings = new.clone();
        for device in partly {
            if let Some(slot) = settings.devices.iter_mut().find(|slot| slot.name == device.name) {
                *slot = device;
            }
        }
        settings.devices.extend(kept);
        self.in_force = settings;
        if outcome.failures.is_empty() {
            return Response::Reloaded { changes: outcome.changes };
        }
        outcome.failures.extend(outcome.changes.iter().map(|change| format!("done: {change}")));
        Response::failed(outcome.failures.join("\n"))
    }

    async fn detach(&self, name: &str, outcome: &mut Outcome) -> bool {
        let command = Command::Detach { force: false, patience: PATIENCE };
        match calls::call(&self.devices, name, command).await {
            Ok(_) => {
                outcome.changes.push(format!("device `{name}` detached"));
                true
            }
            Err(why) => {
                outcome.failures.push(format!("device `{name}` stays: {why}"));
                false
            }
        }
    }

    async fn attach(&self, device: &DeviceSettings, outcome: &mut Outcome) {
        let name = &device.name;
        // It goes on by itself if it takes longer.
        let mut coming = tokio::spawn(calls::attach(self.devices.clone(), device.clone()));
        match timeout(ATTACH_MAX, &mut coming).await {
            Ok(Ok(Ok(at))) => outcome.changes.push(format!("device `{name}` attached: {at}")),
            Ok(Ok(Err(why))) => {
                outcome.failures.push(format!("device `{name}` is not attached: {why}"));
            }
            Ok(Err(_)) => {
                outcome.failures.push(format!("device `{name}`: its beginning broke off"))
            }
            Err(_) => {
                outcome.changes.push(format!("device `{name}` attached; no path works yet"));
            }
        }
    }

    /// Takes up what can be; gives the settings that are in force then.
    async fn change(&self, change: &Change<'_>, outcome: &mut Outcome) -> DeviceSettings {
        let (name, mut in_force) = (&change.new.name, change.old.clone());
        if !change.needs_detach.is_empty() {
            let keys = change.needs_detach.join(", ");
            outcome.failures.push(format!(
                "device `{name}`: {keys} cannot change while it is attached; detach it, then reload"
            ));
        }
        if change.policy {
            let (policy, origins) = (change.new.policy.clone(), change.new.origins.clone());
            let command = Command::SetPolicy(Box::new(policy), origins);
            if self.tell(name, command, "policy changed", outcome).await {
                in_force.policy.clone_from(&change.new.policy);
                in_force.origins.clone_from(&change.new.origins);
            }
        }
        let renewed =
            |path: &PathSettings| change.paths_added.iter().any(|added| added.spec == path.spec);
        let (renewed, removed): (Vec<_>, Vec<_>) =
            change.paths_removed.iter().copied().partition(|path| renewed(path));
        // Otherwise new ones come first: a device never has fewer paths than before or after.
        for path in renewed {
            self.remove(name, path, &mut in_force, outcome).await;
        }
        for path in &change.paths_added {
            let command = Command::AddPath(Box::new((*path).clone()));
            if self.tell(name, command, &format!("path {} added", path.spec), outcome).await {
                in_force.paths.push((*path).clone());
            }
        }
        for path in removed {
            self.remove(name, path, &mut in_force, outcome).await;
        }
        in_force
    }

    async fn remove(
        &self,
        name: &str,
        path: &PathSettings,
        in_force: &mut DeviceSettings,
        outcome: &mut Outcome,
    ) {
        let command = Command::RemovePath { path: path.spec.to_string() };
        if self.tell(name, command, &format!("path {} removed", path.spec), outcome).await {
            in_force.paths.retain(|known| known != path);
        }
    }

    async fn tell(&self, name: &str, command: Command, what: &str, outcome: &mut Outcome) -> bool {
        match calls::call(&self.devices, name, command).await {
            Ok(_) => {
                outcome.changes.push(format!("device `{name}`: {what}"));
                true
            }
            Err(why) => {
                outcome.failures.push(format!("device `{name}`: not done, {what}: {why}"));
                false
            }
        }
    }
}

fn read(path: &Path) -> Result<Settings, String> {
    let loaded = load(path).map_err(|problems| problems.to_string())?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(loaded.settings)
}
