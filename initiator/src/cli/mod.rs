//! The command line: one clap source for parsing, help, completions and man pages.

mod discover;
mod run;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::CONFIG_FILE;

pub use discover::Discover;
pub use run::run;

/// Attaches AoE shelves and iSCSI LUNs over many paths.
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
    /// Read and judge a configuration
    Check(ConfigArgs),
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

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub config: PathBuf,
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
