//! Command lines to the same [`Config`] that a file would give.

use std::num::NonZeroU16;
use std::path::PathBuf;

use super::{ExportArgs, VbladeArgs};
use crate::config::{
    AOE_BUFFERS, AoeAddress, AoeExport, Backing, Config, Daemon, Direct, Export, IscsiName,
    LogicalUnit, Portal, Size, Target, Wrong,
};

impl ExportArgs {
    /// The configuration that this command line means. `host` is this machine's name.
    pub fn config(self, host: &str) -> Result<Config, Wrong> {
        let device = match &self.device {
            Backing::Path(path) => {
                path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
            }
            Backing::Memory(_) => "mem".to_owned(),
            Backing::Null(_) => "null".to_owned(),
        };
        if self.create.is_some() && !matches!(self.device, Backing::Path(_)) {
            let right = "leave --create out, or name an image file";
            return Err(Wrong::new("--create makes files only", right));
        }
        let mut export = Export::new(tidy(&device), self.device);
        export.create = match self.create {
            Some(Size(bytes)) if bytes < 512 => {
                return Err(Wrong::new("--create is below 512 bytes", "give a larger size"));
            }
            other => other.map(|Size(bytes)| bytes),
        };
        export.read_only = self.read_only;
        export.removable = self.removable;
        export.thin = self.thin;
        for spec in self.aoe {
            if export.aoe.iter().any(|known| known.address == spec.address) {
                let right = "list all its interfaces in one --aoe";
                return Err(Wrong::new(format!("AoE {} is given twice", spec.address), right));
            }
            export.aoe.push(AoeExport {
                address: spec.address,
                interfaces: spec.interfaces,
                allow: Vec::new(),
                buffers: AOE_BUFFERS,
                config: None,
            });
        }
        let mut targets = Vec::new();
        if self.iscsi.is_some() || export.aoe.is_empty() {
            let (name, portal) = match self.iscsi {
                Some(spec) => (spec.target, spec.portal),
                None => (IscsiName::made_from(host, &device), None),
            };
            let mut target = Target::new(name.clone());
            if let Some(address) = portal {
                target.portals = vec![Portal { address, group: 1 }];
            }
            targets.push(target);
            export.iscsi.push(LogicalUnit { target: name, lun: self.lun });
        }
        let daemon = daemon(self.threads, self.admin_socket, self.state_dir);
        let daemon = Daemon { busy_poll: self.busy_poll, ..daemon };
        Ok(Config { daemon, exports: vec![export], targets })
    }
}

impl VbladeArgs {
    /// The configuration that this command line means.
    pub fn config(self) -> Result<Config, Wrong> {
        let address = AoeAddress::new(self.shelf, self.slot)?;
        let bytes = |sectors: u64| {
            let right = "-o and -l count sectors of 512 bytes";
            sectors.checked_mul(512).ok_or_else(|| Wrong::new("too many sectors", right))
        };
        if self.allow.len() > 255 {
            return Err(Wrong::new("-m names too many stations", "AoE masks have 255 at most"));
        }
        let mut allow = Vec::new();
        for mac in self.allow {
            if !allow.contains(&mac) {
                allow.push(mac);
            }
        }
        let config = self.config.as_deref().map(crate::config::config_string).transpose()?;
        let mut export = Export::new(format!("e{address}"), Backing::Path(self.file));
        export.offset = bytes(self.offset)?;
        export.length = self.length.map(bytes).transpose()?;
        export.read_only = self.read_only;
        export.direct = if self.direct { Direct::Require } else { Direct::Auto };
        export.aoe.push(AoeExport {
            address,
            interfaces: vec![self.iface],
            allow,
            buffers: self.buffers.unwrap_or(AOE_BUFFERS),
            config,
        });
        let daemon = daemon(None, self.admin_socket, self.state_dir);
        Ok(Config { daemon, exports: vec![export], targets: Vec::new() })
    }
}

fn daemon(
    threads: Option<NonZeroU16>,
    admin_socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
) -> Daemon {
    let usual = Daemon::default();
    let state_dir = state_dir.unwrap_or(usual.state_dir);
    Daemon { threads, admin_socket, state_dir, ..Daemon::default() }
}

/// An export's name made of a file's.
pub(super) fn tidy(device: &str) -> String {
    let name: String = device
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
        .take(64)
        .collect();
    if name.is_empty() { "disk".to_owned() } else { name }
}
