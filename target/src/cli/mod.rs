//! The command line: one clap source for parsing, help, completions and man pages.

mod build;
mod import;
mod run;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use corbel_daemon::config::pick;

use crate::config::{
    ACCESS_STATES, AccessState, AoeAddress, Backing, CONFIG_FILE, InterfaceName, IscsiName,
    LUN_MAX, Mac, Size, Wrong, busy_poll, portal,
};

pub use run::{Launch, run};

/// Serves block devices as AoE shelves and iSCSI LUNs.
#[derive(Debug, Parser)]
#[command(name = "corbel-target", version, about, propagate_version = true)]
pub struct Cli {
    /// What is logged on stderr, such as `info` or `corbel_target=debug`; otherwise RUST_LOG
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve one device at once, without a configuration file
    Export(ExportArgs),
    /// Serve what the configuration says (foreground; tells systemd)
    Serve(ConfigArgs),
    /// Read and judge a configuration
    Check(ConfigArgs),
    /// Show exports, endpoints and sessions of the running daemon
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
        /// Where the daemon is
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Make the running daemon read its configuration again
    Reload(SocketArgs),
    /// Change something of the running daemon
    #[command(subcommand)]
    Set(Set),
    /// Finish what is in flight and end the running daemon
    Stop(SocketArgs),
    /// Take vblade's own command line
    Vblade(VbladeArgs),
    /// Print another target's configuration as target.toml
    #[command(subcommand)]
    Import(Import),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages
    Man {
        /// An existing folder
        dir: PathBuf,
    },
}

/// What can be set while it runs.
#[derive(Debug, Subcommand)]
pub enum Set {
    /// How good an iSCSI portal group is as a way to devices (ALUA); initiators are told
    ///
    /// It outlives a restart where there is a state folder, until the configuration says another
    /// state than now.
    Access {
        /// Devices; all that the group leads to if none is named
        exports: Vec<String>,
        /// Portal group tag
        #[arg(long, value_name = "TAG")]
        group: NonZeroU16,
        /// optimized, non-optimized, standby, unavailable or transitioning
        #[arg(long, value_parser = access_state)]
        state: AccessState,
        /// Where the daemon is
        #[command(flatten)]
        socket: SocketArgs,
    },
}

fn access_state(text: &str) -> Result<AccessState, Wrong> {
    pick(text, &ACCESS_STATES)
}

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// tgt's targets.conf
    Tgt {
        /// Such as /etc/tgt/targets.conf
        file: PathBuf,
    },
    /// Lines with vblade commands: inittab, scripts, vblade.conf
    Vblade {
        /// Such as /etc/inittab
        file: PathBuf,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
}

/// Which daemon.
#[derive(Debug, Args)]
pub struct SocketArgs {
    /// The daemon's control socket (/run/corbel/target.sock if nothing is given)
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The daemon's configuration, for the socket that it names
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
}

/// `export`
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Block device or image file; or mem:SIZE (RAM), or null:SIZE (for measuring)
    #[arg(value_parser = Backing::parse)]
    pub device: Backing,
    /// Make a sparse image file of this size if DEVICE is absent
    #[arg(long, value_name = "SIZE")]
    pub create: Option<Size>,
    /// AoE address and where it answers; repeat it for more addresses
    #[arg(long, value_name = "SHELF.SLOT@IFACE[,IFACE…]", value_parser = AoeSpec::parse)]
    pub aoe: Vec<AoeSpec>,
    /// iSCSI target and where it listens (127.0.0.1:3260 if not given)
    #[arg(long, value_name = "IQN[@ADDR:PORT]", value_parser = IscsiSpec::parse)]
    pub iscsi: Option<IscsiSpec>,
    /// Logical unit number
    #[arg(
        long,
        default_value_t = 0,
        value_parser = clap::value_parser!(u16).range(..=i64::from(LUN_MAX))
    )]
    pub lun: u16,
    /// Refuse every write
    #[arg(long)]
    pub read_only: bool,
    /// Report a removable medium
    #[arg(long)]
    pub removable: bool,
    /// Report thin provisioning and give unmapped blocks back
    #[arg(long)]
    pub thin: bool,
    /// Threads that serve (one per CPU if not given)
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroU16>,
    /// Look for what comes within this time before sleeping; 0 to 1ms, 0 is never
    #[arg(long, default_value = "100us", value_name = "TIME", value_parser = busy_poll)]
    pub busy_poll: Duration,
    /// Open a control socket here
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Keep AoE config strings, masks and reservations here; otherwise they end with the process
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// `SHELF.SLOT@IFACE[,IFACE…]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AoeSpec {
    /// Shelf and slot.
    pub address: AoeAddress,
    /// Never empty, none twice.
    pub interfaces: Vec<InterfaceName>,
}

impl AoeSpec {
    fn parse(text: &str) -> Result<Self, Wrong> {
        let shaped = || Wrong::new(format!("`{text}` is no AoE address"), "write it as 0.1@eth1");
        let (address, names) = text.split_once('@').ok_or_else(shaped)?;
        let (shelf, slot) = address.split_once('.').ok_or_else(shaped)?;
        let shelf = shelf.parse().map_err(|_| shaped())?;
        let slot = slot.parse().map_err(|_| shaped())?;
        let mut interfaces: Vec<InterfaceName> = Vec::new();
        for name in names.split(',') {
            let interface = name.parse()?;
            if interfaces.contains(&interface) {
                return Err(Wrong::new(format!("`{name}` is named twice"), "name it once"));
            }
            interfaces.push(interface);
        }
        Ok(Self { address: AoeAddress::new(shelf, slot)?, interfaces })
    }
}

/// `IQN[@ADDR:PORT]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IscsiSpec {
    /// The target.
    pub target: IscsiName,
    /// Where it listens, if not at the default portal.
    pub portal: Option<SocketAddr>,
}

impl IscsiSpec {
    fn parse(text: &str) -> Result<Self, Wrong> {
        let (name, address) = match text.split_once('@') {
            Some((name, address)) => (name, Some(portal(address)?)),
            None => (text, None),
        };
        Ok(Self { target: name.parse()?, portal: address })
    }
}

/// `vblade`: its own options, and positions.
#[derive(Debug, Args)]
pub struct VbladeArgs {
    /// Buffer count told to clients
    #[arg(short = 'b', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub buffers: Option<u16>,
    /// Serve only if the device can be used without the page cache
    #[arg(short = 'd')]
    pub direct: bool,
    /// Acknowledge writes only when they are on stable storage (always so here)
    #[arg(short = 's')]
    pub sync: bool,
    /// Refuse every write
    #[arg(short = 'r')]
    pub read_only: bool,
    /// Stations that are answered
    #[arg(short = 'm', value_name = "MAC,…", value_delimiter = ',')]
    pub allow: Vec<Mac>,
    /// Sectors of 512 bytes to leave out at the beginning
    #[arg(short = 'o', value_name = "OFFSET", default_value_t = 0)]
    pub offset: u64,
    /// Sectors of 512 bytes to export; up to the end if not given
    #[arg(short = 'l', value_name = "LENGTH", value_parser = clap::value_parser!(u64).range(1..))]
    pub length: Option<u64>,
    /// AoE config string
    #[arg(short = 'c', value_name = "CONFIG")]
    pub config: Option<String>,
    /// Open a control socket here
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Keep AoE config strings, masks and reservations here; otherwise they end with the process
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Major AoE address
    pub shelf: i64,
    /// Minor AoE address
    pub slot: i64,
    /// Network interface
    pub iface: InterfaceName,
    /// Block device or image file
    pub file: PathBuf,
}

/// The whole command, for help, completions and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Prints completions for `shell`.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn std::io::Write) {
    clap_complete::generate(shell, &mut command(), "corbel-target", out);
}

/// Writes `corbel-target.1` and one page per subcommand into `dir`.
pub fn man(dir: &std::path::Path) -> std::io::Result<()> {
    clap_mangen::generate_to(command(), dir)
}
