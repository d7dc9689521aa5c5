//! initiator.toml: what the operator wants, parsed into types that cannot be wrong.
//!
//! [`load`] reads a file; the command line's `attach` builds the same [`Settings`]. Nothing here
//! opens a device or a socket; only CHAP secret files and the initiator's name are read.
//!
//! ```text
//! keys.rs            every key once: what is known, and the reference page
//! read.rs            from the document to Settings
//! knob.rs            policy and timers: shared by [defaults], [[device]] and `set`
//! path_spec.rs       aoe:SHELF.SLOT@IFACE and iscsi:IQN/LUN@ADDR:PORT
//! diff.rs            what a reload has to change
//! initiator_name.rs  our iSCSI name, the same for the life of the machine
//! ```

mod credentials;
mod diff;
mod initiator_name;
mod keys;
mod knob;
mod path_spec;
mod quantity;
mod read;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corbel_daemon::config::{text, unreadable};
use corbel_proto::iscsi::name::Name;

use crate::multipath::policy::{NoPath, Policy};
use crate::multipath::status::Limit;
use crate::path::iscsi::Reinstatement;

pub use corbel_daemon::config::{Problem, Problems, Secret, Wrong};
pub use credentials::Credentials;
pub use diff::{Change, Diff, diff};
pub use initiator_name::initiator_name;
pub use keys::reference;
pub use knob::{Origin, Origins, PathTimers, Setting};
pub use path_spec::{LUN_MAX, PathSpec};
pub use quantity::{ISCSI_PORT, Time, duration, portal};

/// Where the daemon's control socket is if nothing else is said.
pub const ADMIN_SOCKET: &str = "/run/corbel/initiator.sock";

/// Where the configuration is if nothing else is said.
pub const CONFIG_FILE: &str = "/etc/corbel/initiator.toml";

/// Where small state is kept if nothing else is said.
pub const STATE_DIR: &str = "/var/lib/corbel";

/// sanlock's `io_timeout` unless it was told otherwise (sanlock.8).
pub const SANLOCK_IO_TIMEOUT: Duration = Duration::from_secs(10);

/// A lease is lost so many `io_timeout`s after its last renewal; then another host may write.
pub const SANLOCK_FAIL_FACTOR: u32 = 8;

/// Commands in flight on one path, if nothing else is said.
pub const DEPTH: u16 = 128;

/// Everything the daemon is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The process as a whole.
    pub daemon: Daemon,
    /// Devices. Names, `wwid`s and numbers are unique; so are paths, over all devices.
    pub devices: Vec<DeviceSettings>,
}

/// The process as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Control socket; `None` opens none (`attach` unless asked).
    pub admin_socket: Option<PathBuf>,
    /// Small state that outlives a restart.
    pub state_dir: PathBuf,
    /// Prometheus endpoint.
    pub metrics: Option<SocketAddr>,
    /// Our iSCSI name; `None`: see [`initiator_name`].
    pub initiator_name: Option<Name>,
    /// A program that is run for each event.
    pub event_hook: Option<PathBuf>,
    /// Keep the whole process in memory, so that it never waits for a page that is on a disk it
    /// serves itself.
    pub lock_memory: bool,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            admin_socket: Some(ADMIN_SOCKET.into()),
            state_dir: STATE_DIR.into(),
            metrics: None,
            initiator_name: None,
            event_hook: None,
            lock_memory: true,
        }
    }
}

/// How a device is offered to this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Present {
    /// `/dev/ublkbN`, with this N if one is given.
    Ublk(Option<u32>),
    /// `/dev/nbdN`, by the kernel's NBD client, with this N if one is given.
    Nbd(Option<u32>),
    /// An NBD server on a Unix socket.
    NbdUnix(PathBuf),
    /// An NBD server on a TCP port.
    NbdTcp(SocketAddr),
}

/// Whether iSCSI digests (CRC32C of headers and data) are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Digests {
    /// Not offered.
    #[default]
    None,
    /// Offered first; a target that does not know them is used without.
    Prefer,
    /// Or no login.
    Require,
}

/// One path of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSettings {
    /// Where it leads.
    pub spec: PathSpec,
    /// Priority instead of what the target says; higher is better.
    pub weight: Option<u32>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSettings {
    /// Unique among devices.
    pub name: String,
    /// The world-wide name that it must have, as
    /// [`Identity::wwn`](crate::identity::Identity::wwn) is written.
    pub wwid: Option<String>,
    /// Its paths; none twice.
    pub paths: Vec<PathSettings>,
    /// How it treats them.
    pub policy: Policy,
    /// How long they may take for what.
    pub timers: PathTimers,
    /// Where each of these values comes from, by the key of the file.
    pub origins: Origins,
    /// Commands in flight on one path.
    pub depth: u16,
    /// How it is offered here.
    pub present: Present,
    /// How we prove who we are.
    pub chap: Option<Credentials>,
    /// What a target must prove to be.
    pub mutual_chap: Option<Credentials>,
    /// Digests of its iSCSI paths.
    pub digests: Digests,
    /// What a login of theirs in place of a lost session proves.
    pub reinstatement: Reinstatement,
}

impl DeviceSettings {
    /// A device of this name with everything at its default, and no path yet.
    pub fn new(name: String) -> Self {
        Self {
            name,
            wwid: None,
            paths: Vec::new(),
            policy: Policy::default(),
            timers: PathTimers::default(),
            origins: Origins::default(),
            depth: DEPTH,
            present: Present::Ublk(None),
            chap: None,
            mutual_chap: None,
            digests: Digests::default(),
            reinstatement: Reinstatement::default(),
        }
    }

    /// Sets a key of the policy or a timer, as in the file (`-` or `_`, no quotes).
    ///
    /// # Errors
    /// If there is no such key, or the value is none of its.
    pub fn set(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), Wrong> {
        let given = key.replace('-', "_");
        let timer = self.timers.each().find(|(name, _)| *name == given);
        let known = match timer {
            Some((known, _)) => {
                self.timers.set(known, value)?;
                known
            }
            None => {
                let known = knob::POLICY_KEYS.into_iter().find(|known| *known == given);
                let known = known.ok_or_else(|| knob::unknown(key))?;
                knob::set_policy(&mut self.policy, known, value)?;
                known
            }
        };
        self.origins.note(known, origin);
        Ok(())
    }

    /// `shared = true`: what the lease allows, for storage that several hosts use.
    pub fn share(&mut self, sanlock_io_timeout: Duration, origin: Origin) {
        let lease = sanlock_io_timeout * SANLOCK_FAIL_FACTOR;
        self.policy.no_path = NoPath::For(lease);
        self.policy.write_age_max = Some(lease);
        self.origins.note("no_path_retry", origin);
        self.origins.note("write_age_max", origin);
    }

    /// The time limits in force on every path, and where each comes from.
    pub fn limits(&self) -> Vec<Limit> {
        let times = knob::policy_times(&self.policy).into_iter().chain(self.timers.each());
        knob::limits(times, &self.origins)
    }
}

/// A configuration file that was read.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Problem>,
}

/// Reads the file at `path`.
///
/// # Errors
/// Everything that is wrong with it, each with its place and cure.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let text = text(path)?;
    // A program's name without a folder would be looked for in PATH.
    let base = std::path::absolute(path).map_err(|error| unreadable(path, &error))?;
    parse(&text, &file, base.parent().unwrap_or_else(|| Path::new("/")))
}

/// Reads a configuration's text. `file` is its name in messages; relative paths count from `base`.
///
/// # Errors
/// Everything that is wrong with it, each with its place and cure.
pub fn parse(text: &str, file: &str, base: &Path) -> Result<Loaded, Problems> {
    read::read(text, file, base)
}

/// A device's name: 1 to 64 letters, digits, `-`, `_` or `.`; it becomes a file name under
/// `/dev/corbel`.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn device_name(text: &str) -> Result<String, Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !(1..=64).contains(&text.len()) || !text.chars().all(good) || !starts_well {
        let right = "names have 1 to 64 letters, digits, `-`, `_` or `.`, and begin with a letter \
                     or a digit";
        return Err(Wrong::new(format!("`{text}` cannot be a device's name"), right));
    }
    Ok(text.to_owned())
}

/// `ublk`, `nbd`, `nbd:unix:SOCKET` or `nbd:ADDR:PORT`.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn present(text: &str) -> Result<Present, Wrong> {
    let wrong = || {
        let right = "give \"ublk\", \"nbd\", \"nbd:unix:/run/corbel/disk.nbd\" or \
                     \"nbd:127.0.0.1:10809\"";
        Wrong::new(format!("`{text}` is no way to present a device"), right)
    };
    match text {
        "ublk" => return Ok(Present::Ublk(None)),
        "nbd" => return Ok(Present::Nbd(None)),
        _ => {}
    }
    let rest = text.strip_prefix("nbd:").ok_or_else(wrong)?;
    if let Some(path) = rest.strip_prefix("unix:") {
        // A socket's address has 108 bytes, its end included (unix(7)).
        if !path.starts_with('/') || path.contains('\0') || path.len() > 107 {
            return Err(wrong());
        }
        return Ok(Present::NbdUnix(path.into()));
    }
    let address: SocketAddr = rest.parse().map_err(|_| wrong())?;
    if address.port() == 0 {
        return Err(wrong());
    }
    Ok(Present::NbdTcp(address))
}

/// A world-wide name in the form of [`Identity::wwn`](crate::identity::Identity::wwn): hex digits,
/// lower case, nothing before them. Taken as people have it: `naa.6001405…`, `eui.0011…`,
/// `0x5000…`, or with multipath's type digit in front (`36001405…`).
///
/// # Errors
/// What is wrong, and what would be right.
pub fn wwid(text: &str) -> Result<String, Wrong> {
    let bare = ["naa.", "eui.", "0x"].iter().find_map(|head| text.strip_prefix(head));
    let digits = bare.unwrap_or(text);
    let digits = match digits.len() {
        // SPC-4 7.8.6.1: designator type 3 is NAA, 2 is EUI-64; udev and multipath put it in front.
        17 | 33 if bare.is_none() && digits.starts_with(['2', '3']) => &digits[1..],
        _ => digits,
    };
    let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex || !matches!(digits.len(), 16 | 32) {
        let right = "give the NAA or EUI-64 name that `discover` shows: 16 or 32 hex digits";
        return Err(Wrong::new(format!("`{text}` is no world-wide name"), right));
    }
    Ok(digits.to_ascii_lowercase())
}

/// The time limits of a policy, and where each comes from.
pub fn policy_limits(policy: &Policy, origins: &Origins) -> Vec<Limit> {
    knob::limits(knob::policy_times(policy), origins)
}
