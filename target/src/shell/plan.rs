//! A configuration to who is served what, and where.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use corbel_proto::aoe::Mac;

use super::StartError;
use super::letter::Plan;
use super::state;
use super::volumes::{Opened, Volumes};
use crate::aoe::{Address, PortId, ShelfMap, Slot};
use crate::ata::{Acknowledge, Disk};
use crate::config::{self, AoeExport, Config, Diff, Export};
use crate::iscsi::registry::Registry;
use crate::scsi::LogicalUnit;

/// Makes plans, and keeps what must not change from one to the next: the numbers of interfaces,
/// and the slots, which remember things for their clients.
#[derive(Debug)]
pub(super) struct Planner {
    state_dir: Option<PathBuf>,
    ports: Vec<String>,
    slots: BTreeMap<(String, Address), Arc<Slot>>,
    logical_units: super::targets::LogicalUnits,
}

impl Planner {
    pub(super) fn new(state_dir: Option<PathBuf>) -> Self {
        Self {
            state_dir,
            ports: Vec::new(),
            slots: BTreeMap::new(),
            logical_units: super::targets::LogicalUnits::default(),
        }
    }

    /// The plan of `config`, all of whose exports are open.
    pub(super) fn plan(&mut self, config: &Config, volumes: &Volumes) -> Result<Plan, StartError> {
        let mut entries = Vec::new();
        let mut ports = Vec::new();
        let mut slots = BTreeMap::new();
        for export in &config.exports {
            let Some(opened) = volumes.get(&export.name) else { continue };
            for aoe in &export.aoe {
                let slot = self.slot(opened, aoe)?;
                slots.insert((export.name.clone(), slot.address()), slot.clone());
                for interface in &aoe.interfaces {
                    let id = self.port(interface.as_str())?;
                    entries.push((id, slot.clone()));
                    if !ports.iter().any(|(known, _)| *known == id) {
                        ports.push((id, interface.as_str().to_owned()));
                    }
                }
            }
        }
        let shelves = ShelfMap::new(entries).map_err(|e| StartError::System(e.to_string()))?;
        let targets = self.logical_units.targets(config, volumes, self.state_dir.as_deref())?;
        let mut portals: Vec<_> =
            config.targets.iter().flat_map(|t| t.portals.iter().map(|p| p.address)).collect();
        portals.sort_unstable();
        portals.dedup();
        self.slots = slots;
        Ok(Plan { shelves: Arc::new(shelves), targets: Arc::new(targets), ports, portals })
    }

    /// The logical unit of an export.
    pub(super) fn unit(&self, export: &str) -> Option<&Arc<LogicalUnit>> {
        self.logical_units.get(export)
    }

    fn port(&mut self, name: &str) -> Result<PortId, StartError> {
        let known = self.ports.iter().position(|port| port == name);
        let index = known.unwrap_or_else(|| {
            self.ports.push(name.to_owned());
            self.ports.len() - 1
        });
        let id = u16::try_from(index).map_err(|_| StartError::System("too many ports".into()))?;
        Ok(PortId(id))
    }

    fn slot(&self, opened: &Opened, aoe: &AoeExport) -> Result<Arc<Slot>, StartError> {
        let export = &opened.export;
        let wrong = |why: String| StartError::Export { export: export.name.clone(), why };
        let address = Address::new(aoe.address.shelf(), aoe.address.slot())
            .map_err(|error| wrong(error.to_string()))?;
        let acknowledge = match export.acknowledge {
            config::Acknowledge::Stable => Acknowledge::Stable,
            config::Acknowledge::Cached => Acknowledge::Cached,
        };
        let disk = Disk::new(opened.volume.clone(), acknowledge);
        let allow = aoe.allow.iter().map(|mac| Mac(mac.0)).collect();
        let slot = match self.slots.get(&(export.name.clone(), address)) {
            Some(before) => before.reconfigured(disk, allow),
            None => {
                let slot = Slot::new(address, disk, allow);
                self.restore(&slot).map_err(wrong)?;
                slot
            }
        };
        let slot = slot.with_buffers(aoe.buffers);
        if let Some(text) = &aoe.config {
            slot.set_config(text.as_bytes());
        }
        Ok(Arc::new(slot))
    }

    fn restore(&self, slot: &Slot) -> Result<(), String> {
        let Some(dir) = &self.state_dir else { return Ok(()) };
        let name = slot.state_name();
        let file = dir.join(&name);
        let bytes = state::load(dir, &name).map_err(|e| format!("{}: {e}", file.display()))?;
        let Some(bytes) = bytes else { return Ok(()) };
        slot.restore(&bytes).map_err(|error| {
            format!(
                "{}: {error}; it holds the slot's config string, mask and reservation: restore it \
                 from a backup, or remove it to start without them",
                file.display()
            )
        })
    }
}

/// An export may change its endpoints while it runs, not its device.
pub(super) fn same_device(before: &Export, after: &Export) -> Result<(), StartError> {
    let device = |export: &Export| Export {
        aoe: Vec::new(),
        iscsi: Vec::new(),
        alua: config::Alua::default(),
        port_groups: Vec::new(),
        create: None,
        acknowledge: config::Acknowledge::default(),
        ..export.clone()
    };
    if device(before) == device(after) {
        return Ok(());
    }
    Err(StartError::Export {
        export: after.name.clone(),
        why: "its device or how it is presented changed; clients would take it for the old one: \
              give it another name, or restart the target"
            .to_owned(),
    })
}

/// What a reload did.
pub(super) fn in_words(diff: &Diff<'_>) -> Vec<String> {
    let mut said = Vec::new();
    let mut list = |verb: &str, kind: &str, names: Vec<&str>| {
        said.extend(names.iter().map(|name| format!("{kind} `{name}` {verb}")));
    };
    list("added", "export", diff.exports.added.iter().map(|e| e.name.as_str()).collect());
    list("removed", "export", diff.exports.removed.iter().map(|e| e.name.as_str()).collect());
    list("changed", "export", diff.exports.changed.iter().map(|(_, e)| e.name.as_str()).collect());
    list("added", "target", diff.targets.added.iter().map(|t| t.name.as_str()).collect());
    list("removed", "target", diff.targets.removed.iter().map(|t| t.name.as_str()).collect());
    list("changed", "target", diff.targets.changed.iter().map(|(_, t)| t.name.as_str()).collect());
    if diff.isns {
        list("changed", "key", vec!["daemon.isns"]);
    }
    list("differs but is read at start only: restart for it", "key", diff.needs_restart.clone());
    said
}

/// What shards are told once.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) aoe: crate::aoe::Options,
    pub(super) iscsi: crate::iscsi::server::Config,
}

pub(super) fn settings(config: &Config) -> Settings {
    let limits = &config.daemon.limits;
    let mut iscsi = crate::iscsi::server::Config::default();
    iscsi.wire.login_timeout = limits.login_timeout;
    iscsi.connections_max = usize::from(limits.connections);
    iscsi.half_open_max = iscsi.half_open_max.min(iscsi.connections_max);
    Settings { aoe: crate::aoe::Options::default(), iscsi }
}

pub(super) fn registry(config: &Config) -> Registry {
    Registry::new(usize::from(config.daemon.limits.sessions))
}
