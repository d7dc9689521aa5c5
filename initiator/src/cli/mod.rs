//! The command line: one clap source for parsing, help, completions and man pages.

mod ask;
mod build;
mod discover;
mod run;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{CONFIG_FILE, duration};

pub use build::AttachArgs;
pub use discover::Discover;
pub use run::{Launch, run};

/// Attaches AoE shelves and iSCSI LUNs as local disks, over many paths.
#[derive(Debug, Parser)]
#[command(name = "corbel-initiator", version, about, propagate_version = true)]
pub struct Cli {
    /// What is logged on stderr, such as `info` or `corbel_initiator=debug`; otherwise RUST_LOG
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is there, with identities
    #[command(subcommand)]
    Discover(Discover),
    /// Attach one device at once, without a configuration file
    Attach(Box<AttachArgs>),
    /// Attach what the configuration says (foreground; tells systemd)
    Run(ConfigArgs),
    /// Read and judge a configuration
    Check(ConfigArgs),
    /// Show devices, path groups and paths of the running daemon
    Status {
        /// One device, with its counters and time limits
        name: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
        /// Where the daemon is
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Use a path no more, until it is reinstated
    Fail(PathArgs),
    /// Use a path again
    Reinstate(PathArgs),
    /// Give a device one more path
    AddPath {
        /// Its priority, instead of what the target says
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
        weight: Option<u32>,
        /// Which
        #[command(flatten)]
        path: PathArgs,
    },
    /// Take a path away from a device
    RemovePath(PathArgs),
    /// Take what a quarantined path leads to for the device
    Accept(PathArgs),
    /// Change how a device treats its paths, until the next reload changes it again
    Set {
        /// The device
        name: String,
        /// A key of initiator.toml, such as no-path-retry, selector, failback
        key: String,
        /// Its value, such as queue, round-robin, 30s
        value: String,
        /// Where the daemon is
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Use this path group
    SwitchGroup {
        /// The device
        name: String,
        /// Counted from 1, in the order of `status`
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        group: u16,
        /// Where the daemon is
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Take up the size that a device's paths report
    Resize(DeviceArgs),
    /// Refuse all I/O; comes back when nothing is on its way to the storage any more
    Fence(DeviceArgs),
    /// Serve a fenced device again
    Unfence(DeviceArgs),
    /// Take a device away
    Detach {
        /// Even if it is in use: those who use it see errors
        #[arg(long)]
        force: bool,
        /// How long requests under way may take; then they fail
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
        patience: std::time::Duration,
        /// Which
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Make the running daemon read its configuration again
    Reload(SocketArgs),
    /// Detach every device and end the running daemon
    Stop(SocketArgs),
    /// Print another initiator's configuration as initiator.toml
    #[command(subcommand)]
    Import(Import),
    /// What udev imports for a device node (used by the rules that come with this program)
    #[command(hide = true)]
    UdevInfo {
        /// Such as /dev/ublkb0
        node: String,
    },
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

/// What can be imported.
#[derive(Debug, Subcommand)]
pub enum Import {
    /// multipath-tools' multipath.conf
    Multipath {
        /// Such as /etc/multipath.conf
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
    /// The daemon's control socket (/run/corbel/initiator.sock if nothing is given)
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The daemon's configuration, for the socket that it names
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
}

/// Which device.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// The device
    pub name: String,
    /// Where the daemon is
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Which path of which device.
#[derive(Debug, Args)]
pub struct PathArgs {
    /// The device
    pub name: String,
    /// As configured, such as aoe:0.0@eth1
    pub path: String,
    /// Where the daemon is
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The whole command, for help, completions and man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Prints completions for `shell`.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn std::io::Write) {
    clap_complete::generate(shell, &mut command(), "corbel-initiator", out);
}

/// Writes `corbel-initiator.1` and one page per subcommand into `dir`.
///
/// # Errors
/// If a page cannot be written.
pub fn man(dir: &std::path::Path) -> std::io::Result<()> {
    clap_mangen::generate_to(command(), dir)
}
