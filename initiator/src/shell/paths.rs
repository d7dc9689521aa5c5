//! From settings to path clients.

use corbel_proto::iscsi::name::Name;
use corbel_proto::time::Instant;
use corbel_ring::memory::Arena;

use crate::config::{DeviceSettings, Digests, Origin, PathSettings, PathSpec};
use crate::device::{Device, PathConfig};
use crate::path::{aoe, iscsi};

/// Who we are, on every path.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// Our iSCSI name.
    pub(super) name: Name,
    /// What tells this host from others, for session identifiers.
    pub(super) id: Vec<u8>,
    /// An earlier process may have left requests under way.
    pub(super) recovering: bool,
}

/// Adds a path as configured.
pub(super) fn add(
    now: Instant,
    device: &mut Device<Arena>,
    path: &PathSettings,
    settings: &DeviceSettings,
    host: &Host,
) {
    let text = path.spec.to_string();
    let (config, weak) = match &path.spec {
        PathSpec::Aoe { shelf, slot, interface } => {
            let mut config = aoe::Config::new(*shelf, *slot);
            given(settings, |name, time, from| config.set(name, time, from));
            config.depth = settings.depth;
            config.weight = path.weight;
            config.recovering = host.recovering;
            // AoE has no world-wide names of its own: shelf and slot are the name.
            (PathConfig::Aoe(interface.clone(), Box::new(config)), true)
        }
        PathSpec::Iscsi { target, lun, portal } => {
            let isid = iscsi::isid_for(&host.id, *portal, target);
            let mut config =
                iscsi::Config::new(host.name.clone(), isid, target.clone(), *lun, *portal);
            given(settings, |name, time, from| config.timers.set(name, time, from));
            config.depth = u32::from(settings.depth);
            config.weight = path.weight;
            config.recovering = host.recovering;
            config.chap = settings.chap.as_ref().map(|ours| iscsi::Chap {
                ours: ours.to_chap(),
                theirs: settings.mutual_chap.as_ref().map(|theirs| theirs.to_chap()),
            });
            let digests = match settings.digests {
                Digests::None => iscsi::Digests::None,
                Digests::Prefer => iscsi::Digests::Prefer,
                Digests::Require => iscsi::Digests::Require,
            };
            (config.header_digest, config.data_digest) = (digests, digests);
            config.reinstatement = settings.reinstatement;
            (PathConfig::Iscsi(Box::new(config)), false)
        }
    };
    device.add_path(now, &text, config, weak);
}

/// Sets the time limits that were given; the others are the path client's own.
fn given(
    settings: &DeviceSettings,
    mut set: impl FnMut(&str, corbel_proto::time::Duration, &str) -> bool,
) {
    for (name, time) in settings.timers.each() {
        let origin = settings.origins.of(name);
        if origin != Origin::Default {
            set(name, time, &origin.to_string());
        }
    }
}
