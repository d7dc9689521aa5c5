//! What the operator wants, parsed into types that cannot be wrong.
//!
//! [`load`] reads a `target.toml`; the command line's `export` and `vblade` build the same
//! [`Config`]. Nothing here opens a device or a socket; only CHAP secret files are read.

mod diff;
mod keys;
mod name;
mod quantity;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corbel_daemon::config::text;

pub use corbel_daemon::config::{Problem, Problems, Secret, SecretKey, Wrong};
pub use corbel_proto::scsi::alua::{AccessState, PortGroup};
pub use diff::{Changes, Diff, diff};
pub use keys::reference;
pub use name::{AoeAddress, InitiatorPattern, InterfaceName, IscsiName, Mac};
pub use quantity::{
    ISCSI_PORT, Network, Size, busy_poll, default_portal, duration, isns_server, ping_time, portal,
};
pub(crate) use read::config_string;

/// Where the daemon's control socket is if nothing else is said.
pub const ADMIN_SOCKET: &str = "/run/corbel/target.sock";

/// Where the configuration is if nothing else is said.
pub const CONFIG_FILE: &str = "/etc/corbel/target.toml";

/// Everything the daemon is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The process as a whole.
    pub daemon: Daemon,
    /// Devices. Names are unique, as are AoE addresses on an interface and LUNs in a target.
    pub exports: Vec<Export>,
    /// iSCSI targets. Every one that an export names is here.
    pub targets: Vec<Target>,
}

impl Config {
    /// Portal group tags that lead to an export.
    pub fn port_groups(&self, export: &str) -> BTreeSet<u16> {
        let export = self.exports.iter().find(|one| one.name == export);
        let units = export.map_or(&[][..], |export| &export.iscsi);
        let leads = |target: &&Target| units.iter().any(|unit| unit.target == target.name);
        let targets = self.targets.iter().filter(leads);
        targets.flat_map(|target| target.portals.iter().map(|portal| portal.group)).collect()
    }
}

/// Longer than a few requests to memory and to fast disks take, too short to be felt by others.
pub const BUSY_POLL: Duration = Duration::from_micros(100);
/// Longer than this, sleeping costs nothing.
pub const BUSY_POLL_MAX: Duration = Duration::from_millis(1);

/// The process as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Threads that serve; `None` is one per CPU.
    pub threads: Option<NonZeroU16>,
    /// How long a thread that expects something looks for it before it sleeps, at most.
    pub busy_poll: Duration,
    /// Control socket; `None` opens none (`export` and `vblade` unless asked).
    pub admin_socket: Option<PathBuf>,
    /// Small state that outlives a restart.
    pub state_dir: PathBuf,
    /// Prometheus endpoint.
    pub metrics: Option<SocketAddr>,
    /// Where targets are registered; `None` is nowhere.
    pub isns: Option<Isns>,
    /// What initiators can use up.
    pub limits: Limits,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            threads: None,
            busy_poll: BUSY_POLL,
            admin_socket: Some(ADMIN_SOCKET.into()),
            state_dir: "/var/lib/corbel".into(),
            metrics: None,
            isns: None,
            limits: Limits::default(),
        }
    }
}

/// iSNS servers (RFC 4171) that are told of the targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isns {
    /// Never empty, none twice.
    pub servers: Vec<SocketAddr>,
    /// Entity identifier, 1 to 255 bytes; `None` is the host's name.
    pub entity: Option<String>,
}

/// What initiators can use up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// iSCSI sessions at a time.
    pub sessions: u16,
    /// TCP connections at a time, those in login included.
    pub connections: u16,
    /// Payload memory in bytes, of all threads together.
    pub memory: u64,
    /// Time from accept to full feature phase.
    pub login_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 4096,
            connections: 8192,
            memory: 256 << 20,
            login_timeout: Duration::from_secs(15),
        }
    }
}

/// Before a ping, and after it: a dead initiator's session ends within a minute.
pub const PING_TIME: Duration = Duration::from_secs(30);

/// Where an export's blocks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A block device or an image file.
    Path(PathBuf),
    /// RAM, of so many bytes.
    Memory(u64),
    /// Nowhere: writes are dropped, reads are zeros. So many bytes.
    Null(u64),
}

impl Backing {
    /// `mem:SIZE`, `null:SIZE`, or a path.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let size = |text: &str| {
            let Size(bytes) = text.parse()?;
            if bytes < 512 {
                return Err(Wrong::new("a device has at least 512 bytes", "give a larger size"));
            }
            Ok(bytes)
        };
        if let Some(rest) = text.strip_prefix("mem:") {
            return size(rest).map(Self::Memory);
        }
        if let Some(rest) = text.strip_prefix("null:") {
            return size(rest).map(Self::Null);
        }
        if text.is_empty() || text.contains('\0') {
            return Err(Wrong::new("the path is empty", "name a block device or an image file"));
        }
        Ok(Self::Path(text.into()))
    }
}

/// When an AoE write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// Once it is on stable storage.
    #[default]
    Stable,
    /// Once the device took it; a power cut can lose it.
    Cached,
}

/// Direct I/O on the backing store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direct {
    /// Where the store can.
    #[default]
    Auto,
    /// Or not at all: an export whose store cannot is refused.
    Require,
}

/// Who may say how good each way to a device is (SPC-4 5.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alua {
    /// The operator.
    #[default]
    Implicit,
    /// Initiators too.
    Explicit,
}

/// The states that a port group can be given.
pub const ACCESS_STATES: [(&str, AccessState); 5] = [
    (AccessState::Optimized.name(), AccessState::Optimized),
    (AccessState::NonOptimized.name(), AccessState::NonOptimized),
    (AccessState::Standby.name(), AccessState::Standby),
    (AccessState::Unavailable.name(), AccessState::Unavailable),
    (AccessState::Transitioning.name(), AccessState::Transitioning),
];

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Unique among exports.
    pub name: String,
    /// Where its blocks are.
    pub backing: Backing,
    /// Make a sparse file of so many bytes if there is none (`export --create`).
    pub create: Option<u64>,
    /// First exported byte of the store, a multiple of 512.
    pub offset: u64,
    /// Exported bytes, a multiple of 512; `None` is up to the end.
    pub length: Option<u64>,
    /// Refuse every write.
    pub read_only: bool,
    /// Removable medium.
    pub removable: bool,
    /// Thin provisioning is reported.
    pub thin: bool,
    /// Bytes a second that SANITIZE writes at most; 0 is no limit.
    pub sanitize_rate: u64,
    /// Its blocks are encrypted, and their key wrapped under this one.
    pub encryption: Option<SecretKey>,
    /// Initiators of a thin unit are told when less room than this is left; 0 is never.
    pub space_warning: u64,
    /// When an AoE write is acknowledged.
    pub acknowledge: Acknowledge,
    /// Direct I/O.
    pub direct: Direct,
    /// Instead of the serial made from the store's identity; 1 to 20 printable ASCII characters.
    pub serial: Option<String>,
    /// Instead of the NAA name made from the store's identity.
    pub naa: Option<u64>,
    /// Who may say how good each way to it is.
    pub alua: Alua,
    /// Portal groups that it is not reached by as by others; none twice.
    pub port_groups: Vec<PortGroup>,
    /// AoE addresses.
    pub aoe: Vec<AoeExport>,
    /// iSCSI logical units.
    pub iscsi: Vec<LogicalUnit>,
}

impl Export {
    /// An export of `backing` with every option at its default and no endpoint.
    pub fn new(name: String, backing: Backing) -> Self {
        Self {
            name,
            backing,
            create: None,
            offset: 0,
            length: None,
            read_only: false,
            removable: false,
            thin: false,
            sanitize_rate: 0,
            encryption: None,
            space_warning: 0,
            acknowledge: Acknowledge::default(),
            direct: Direct::default(),
            serial: None,
            naa: None,
            alua: Alua::default(),
            port_groups: Vec::new(),
            aoe: Vec::new(),
            iscsi: Vec::new(),
        }
    }
}

/// How many commands a client may keep in flight unless an export says otherwise.
pub const AOE_BUFFERS: u16 = 64;

/// One AoE address of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AoeExport {
    /// Shelf and slot.
    pub address: AoeAddress,
    /// Where it answers; never empty, none twice.
    pub interfaces: Vec<InterfaceName>,
    /// Who is answered; empty is everyone; at most 255 (AoE r11 3.3).
    pub allow: Vec<Mac>,
    /// Buffer count told to clients (AoE r11 3.2); never 0.
    pub buffers: u16,
    /// Config string, at most 1024 bytes; `None` keeps what was set over the wire.
    pub config: Option<String>,
}

/// One place of a device among a target's logical units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalUnit {
    /// The target.
    pub target: IscsiName,
    /// 0 to 16383 (SAM-5 4.7: flat space addressing).
    pub lun: u16,
}

/// The largest logical unit number of a single-level address (SAM-5 4.7.7.3).
pub const LUN_MAX: u16 = 16383;

/// One iSCSI target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Unique among targets.
    pub name: IscsiName,
    /// A name for people.
    pub alias: Option<String>,
    /// Where it listens; never empty, no address twice.
    pub portals: Vec<Portal>,
    /// Initiators that may log in; empty is all. Both lists must let an initiator in.
    pub initiators: Vec<InitiatorPattern>,
    /// Addresses they may come from; empty is all.
    pub addresses: Vec<Network>,
    /// Users who may log in; empty asks for no proof.
    pub chap: Vec<Chap>,
    /// How the target proves itself.
    pub mutual_chap: Option<Credentials>,
    /// Header digest.
    pub header_digest: DigestChoice,
    /// Data digest.
    pub data_digest: DigestChoice,
    /// Sessions at a time; `None` is as many as the process may have.
    pub sessions: Option<u16>,
    /// Commands that one session may have outstanding.
    pub commands: Option<u16>,
    /// Silence after which an initiator is pinged; zero: never.
    pub ping_interval: Duration,
    /// Silence after a ping for which it is taken for dead.
    pub ping_timeout: Duration,
    /// Where new logins are sent instead.
    pub redirect: Option<Redirect>,
    /// Connections that one session may have.
    pub connections: u16,
    /// The highest ErrorRecoveryLevel that is agreed on.
    pub recovery_level: u8,
}

/// Another place for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// There.
    pub address: SocketAddr,
    /// For good, not just for now.
    pub permanent: bool,
}

impl Target {
    /// A target that listens on this machine only and is open to all.
    pub fn new(name: IscsiName) -> Self {
        Self {
            name,
            alias: None,
            portals: vec![Portal { address: default_portal(), group: 1 }],
            initiators: Vec::new(),
            addresses: Vec::new(),
            chap: Vec::new(),
            mutual_chap: None,
            header_digest: DigestChoice::default(),
            data_digest: DigestChoice::default(),
            sessions: None,
            commands: None,
            ping_interval: PING_TIME,
            ping_timeout: PING_TIME,
            redirect: None,
            connections: 1,
            recovery_level: 0,
        }
    }

    /// True if an initiator of this name and address may log in (and must then still prove it,
    /// where CHAP is asked for).
    pub fn admits(&self, initiator: &str, address: std::net::IpAddr) -> bool {
        let name_ok = self.initiators.is_empty()
            || self.initiators.iter().any(|pattern| pattern.matches(initiator));
        let address_ok = self.addresses.is_empty()
            || self.addresses.iter().any(|network| network.contains(address));
        name_ok && address_ok
    }
}

/// Where a target listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portal {
    /// Address and port.
    pub address: SocketAddr,
    /// Target portal group tag.
    pub group: u16,
}

/// A name and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// CHAP_N, 1 to 255 bytes.
    pub user: String,
    /// What CHAP_R is made from.
    pub secret: Secret,
}

/// A user who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chap {
    /// Name and secret.
    pub credentials: Credentials,
    /// Accepted hashes, best first; never empty.
    pub algorithms: Vec<Algorithm>,
}

/// CHAP hashes, by their registered number in CHAP_A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// 5
    Md5 = 5,
    /// 6
    Sha1 = 6,
    /// 7
    Sha256 = 7,
    /// 8
    Sha3_256 = 8,
}

impl Algorithm {
    /// All, best first.
    pub const ALL: [Self; 4] = [Self::Sha3_256, Self::Sha256, Self::Sha1, Self::Md5];
}

/// What a target thinks of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestChoice {
    /// The initiator decides, by the order of what it offers (RFC 7143 6.2.1).
    #[default]
    Initiator,
    /// CRC32C, or no login.
    Require,
}

/// A configuration file that was read.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Problem>,
}

/// Reads the file at `path`.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let text = text(path)?;
    let base = path.parent().unwrap_or_else(|| Path::new("."));
    parse(&text, &file, base)
}

/// Reads a configuration's text. `file` is its name in messages; relative paths count from `base`.
pub fn parse(text: &str, file: &str, base: &Path) -> Result<Loaded, Problems> {
    read::read(text, file, base)
}
