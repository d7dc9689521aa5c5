//! Configured targets to logical units that sessions can use.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use corbel_proto::iscsi::chap::{Algorithm, Credentials, Policy, Secret};
use corbel_proto::iscsi::login::directory::{DigestsRequired, Terms};
use corbel_proto::iscsi::name::Name;

use super::StartError;
use super::state;
use super::volumes::Volumes;
use crate::config::{self, Alua, Config, DigestChoice, Export, InitiatorPattern};
use crate::iscsi::model::{Allow, PortalGroup, Prefix, Redirect, Target, Targets};
use crate::scsi::{Instance, LogicalUnit};
use crate::volume::Volume;
use crate::volume::sanitize::Phase;

/// The kernel's name of this boot. A restart of the daemon loses nothing that was acknowledged (it
/// is with the kernel or the disk by then); a restart of the host may.
fn boot_id() -> Option<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits = text.trim().replace('-', "");
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

/// Who serves: the same all the life of the process.
fn instance() -> Option<Instance> {
    static PROCESS: LazyLock<Option<[u8; 16]>> = LazyLock::new(|| {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok().map(|()| bytes)
    });
    Some(Instance { boot: boot_id()?, process: (*PROCESS)? })
}

/// The logical units of all exports, by name. They keep state (mode pages, started or stopped), so
/// a reload takes them over.
#[derive(Debug, Default)]
pub(super) struct LogicalUnits(BTreeMap<String, Arc<LogicalUnit>>);

impl LogicalUnits {
    /// The targets of `config`, all of whose exports are open.
    pub(super) fn targets(
        &mut self,
        config: &Config,
        volumes: &Volumes,
        state_dir: Option<&Path>,
    ) -> Result<Targets<LogicalUnit>, StartError> {
        let known = std::mem::take(&mut self.0);
        for opened in volumes.iter() {
            let name = &opened.export.name;
            let before = known.get(name).filter(|unit| unit.volume.id == opened.volume.id);
            let unit = match before {
                Some(unit) => unit.clone(),
                None => {
                    let wrong = |why| StartError::Export { export: name.clone(), why };
                    restore(&opened.volume, state_dir).map_err(wrong)?;
                    let unit = LogicalUnit::new(opened.volume.clone());
                    configure(&unit, &opened.export);
                    restore_access(&unit, state_dir).map_err(wrong)?;
                    restore_mode(&unit, state_dir).map_err(wrong)?;
                    Arc::new(unit.with_instance(instance()))
                }
            };
            configure(&unit, &opened.export);
            self.0.insert(name.clone(), unit);
        }
        let targets: Result<Vec<_>, _> =
            config.targets.iter().map(|target| self.target(target, config)).collect();
        Ok(Targets::new(targets?, None))
    }

    /// That of an export.
    pub(super) fn get(&self, export: &str) -> Option<&Arc<LogicalUnit>> {
        self.0.get(export)
    }

    fn target(
        &self,
        target: &config::Target,
        config: &Config,
    ) -> Result<Target<LogicalUnit>, StartError> {
        let wrong =
            |why: String| StartError::System(format!("target `{}`: {why}", target.name.as_str()));
        let name: Name = target
            .name
            .as_str()
            .parse()
            .map_err(|error| wrong(format!("its name is not a valid iSCSI name: {error}")))?;
        let mut luns = BTreeMap::new();
        for export in &config.exports {
            for logical in export.iscsi.iter().filter(|logical| logical.target == target.name) {
                if let Some(unit) = self.0.get(&export.name) {
                    luns.insert(logical.lun, unit.clone());
                }
            }
        }
        let chap = policy(target);
        if let Some(policy) = &chap {
            policy.check().map_err(|error| wrong(error.to_string()))?;
        }
        Ok(Target {
            name,
            alias: target.alias.clone(),
            luns,
            groups: groups(target),
            allow: allow(target),
            chap,
            sessions_max: u32::from(target.sessions.unwrap_or(config.daemon.limits.sessions)),
            digests_required: DigestsRequired {
                header: target.header_digest == DigestChoice::Require,
                data: target.data_digest == DigestChoice::Require,
            },
            terms: Terms {
                connections_max: target.connections,
                recovery_level_max: target.recovery_level,
            },
            commands_max: target.commands.map(u32::from),
            pings: Some((target.ping_interval, target.ping_timeout)),
            redirect: target
                .redirect
                .map(|config::Redirect { address, permanent }| Redirect { address, permanent }),
        })
    }
}

/// Persistent reservations that were to outlive the process. Without them a host that was fenced
/// off would be let in again; so a file that cannot be read keeps the export from being served.
fn restore(volume: &Volume, state_dir: Option<&Path>) -> Result<(), String> {
    let Some(dir) = state_dir else { return Ok(()) };
    restore_sanitization(volume, dir)?;
    volume.reservations.enable_persistence();
    let name = volume.state_name();
    let file = dir.join(&name);
    let bytes = state::load(dir, &name).map_err(|e| format!("{}: {e}", file.display()))?;
    let Some(bytes) = bytes else { return Ok(()) };
    volume.reservations.restore(&bytes).map_err(|error| {
        format!(
            "{}: {error}; it says which initiators are registered and who holds the reservation: \
             restore it from a backup, or remove it to start without them",
            file.display()
        )
    })
}

/// States of port groups that were set. Without them a port that was taken out of service would
/// serve again.
fn restore_access(unit: &LogicalUnit, state_dir: Option<&Path>) -> Result<(), String> {
    let Some(dir) = state_dir else { return Ok(()) };
    let name = unit.access_name();
    let file = dir.join(&name);
    let bytes = state::load(dir, &name).map_err(|e| format!("{}: {e}", file.display()))?;
    let Some(bytes) = bytes else { return Ok(()) };
    unit.port_groups.restore(&bytes).map_err(|error| {
        format!(
            "{}: {error}; it says which port groups were set to another state than the \
             configuration's: restore it from a backup, or remove it to start without",
            file.display()
        )
    })
}

/// Saved mode pages. Without them a unit that was protected against writes could be written.
fn restore_mode(unit: &LogicalUnit, state_dir: Option<&Path>) -> Result<(), String> {
    let Some(dir) = state_dir else { return Ok(()) };
    unit.mode.enable_saving();
    let name = unit.mode_name();
    let file = dir.join(&name);
    let bytes = state::load(dir, &name).map_err(|e| format!("{}: {e}", file.display()))?;
    let Some(bytes) = bytes else { return Ok(()) };
    unit.mode.restore(&bytes).map_err(|error| {
        format!(
            "{}: {error}; it says how initiators set the unit (write protection, cache, sense \
             format): restore it from a backup, or remove it to start with the defaults",
            file.display()
        )
    })
}

fn configure(unit: &LogicalUnit, export: &Export) {
    unit.port_groups.configure(export.alua == Alua::Explicit, &export.port_groups);
}

/// A sanitize operation that did not come to its end: nobody may read what it left.
fn restore_sanitization(volume: &Volume, dir: &Path) -> Result<(), String> {
    let name = volume.sanitize_state_name();
    let file = dir.join(&name);
    let bytes = state::load(dir, &name).map_err(|e| format!("{}: {e}", file.display()))?;
    let Some(bytes) = bytes else { return Ok(()) };
    volume.sanitization.restore(&bytes).map_err(|error| {
        format!(
            "{}: {error}; it says whether a SANITIZE was under way: remove it if none was, or if \
             what it left may be read",
            file.display()
        )
    })?;
    if volume.sanitization.phase() != Phase::Open {
        tracing::error!(
            export = volume.name,
            "a SANITIZE did not come to its end: nothing can be read or written until another does"
        );
    }
    Ok(())
}

fn groups(target: &config::Target) -> Vec<PortalGroup> {
    let mut groups: BTreeMap<u16, PortalGroup> = BTreeMap::new();
    for portal in &target.portals {
        let fresh = || PortalGroup { tag: portal.group, portals: Vec::new() };
        groups.entry(portal.group).or_insert_with(fresh).portals.push(portal.address);
    }
    groups.into_values().collect()
}

fn allow(target: &config::Target) -> Allow {
    Allow {
        initiators: target.initiators.iter().map(pattern).collect(),
        addresses: target
            .addresses
            .iter()
            .filter_map(|network| Prefix::new(network.address(), network.bits()))
            .collect(),
    }
}

fn pattern(from: &InitiatorPattern) -> String {
    match from {
        InitiatorPattern::Exactly(name) => name.as_str().to_owned(),
        InitiatorPattern::Prefix(prefix) => format!("{prefix}*"),
    }
}

fn policy(target: &config::Target) -> Option<Policy> {
    let first = target.chap.first()?;
    let credentials = |from: &config::Credentials| Credentials {
        name: from.user.clone(),
        secret: Secret::new(from.secret.bytes().to_vec()),
    };
    let algorithm = |from: &config::Algorithm| match from {
        config::Algorithm::Md5 => Algorithm::Md5,
        config::Algorithm::Sha1 => Algorithm::Sha1,
        config::Algorithm::Sha256 => Algorithm::Sha256,
        config::Algorithm::Sha3_256 => Algorithm::Sha3_256,
    };
    Some(Policy {
        // The order of preference is the first user's; what any user may use is taken.
        algorithms: first.algorithms.iter().map(algorithm).collect(),
        incoming: target.chap.iter().map(|chap| credentials(&chap.credentials)).collect(),
        outgoing: target.mutual_chap.as_ref().map(credentials),
    })
}
