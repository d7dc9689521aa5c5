//! The command line: one clap source for parsing, help, completions and man pages.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use corbel_proto::iscsi::name::Name;

use crate::compare::CompareArgs;
use crate::null_aoe::NullAoeArgs;
use crate::pattern::Mix;
use crate::place::Place;
use crate::scale::ScaleArgs;
use crate::{compare, null_aoe, run, scale, units};

/// Measures iSCSI and AoE targets, block devices and files.
#[derive(Debug, Parser)]
#[command(name = "corbel-bench", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put one load on one path and tell what came of it
    ///
    /// A load that writes destroys what is there.
    Run(Box<RunArgs>),
    /// Compare this build's target with the installed ones
    ///
    /// Each serves a store of its own, in RAM and on a disk, over iSCSI on loopback and over AoE
    /// between two network namespaces made for it. All are up at once, all but the measured one
    /// are stopped, and short samples alternate. Needs root for AoE.
    Compare(CompareArgs),
    /// Measure what work costs our target as it grows
    ///
    /// Queue depth 1 to 256, requests of 512 bytes to 4 MiB, 1 to 1024 sessions, 1 to 4096 exports,
    /// over iSCSI on loopback, from RAM; memory for each session and export, and what an idle
    /// target takes.
    Scale(ScaleArgs),
    /// Serve AoE from nowhere: what the network alone takes
    #[command(hide = true)]
    NullAoe(NullAoeArgs),
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

/// `run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// aoe:SHELF.SLOT@IFACE, iscsi:IQN[/LUN]@ADDR:PORT, a block device or a file
    #[arg(value_name = "PATH")]
    pub(crate) path: Place,
    /// What is done: read, write, randread, randwrite, rw=70, randrw=70 (percent of reads)
    #[arg(long, default_value = "randread", value_name = "LOAD")]
    pub(crate) rw: Mix,
    /// Bytes of a request
    #[arg(long, default_value = "4k", value_name = "SIZE", value_parser = units::bytes)]
    pub(crate) bs: u64,
    /// Requests of a job at a time
    #[arg(long, default_value_t = 32, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) qd: u32,
    /// Threads, each with a session and a ring of its own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = jobs)]
    pub(crate) jobs: usize,
    /// How long it is measured
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = units::time)]
    pub(crate) time: Duration,
    /// How long it runs before
    #[arg(long, default_value = "0.2s", value_name = "TIME", value_parser = units::time)]
    pub(crate) warmup: Duration,
    /// Begin so many requests a second, at fixed times, and count latency from those times
    ///
    /// What could not be begun since the target had stalled counts as waiting (no coordinated
    /// omission). Otherwise a request begins as soon as one has ended.
    #[arg(long, value_name = "IOPS", value_parser = units::rate)]
    pub(crate) rate: Option<f64>,
    /// Use only the first so many bytes
    #[arg(long, value_name = "SIZE", value_parser = units::bytes)]
    pub(crate) size: Option<u64>,
    /// Use only what comes after so many bytes; a multiple of --bs
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, conflicts_with = "verify")]
    pub(crate) offset: Option<u64>,
    /// Count a write as done when it is on stable storage
    ///
    /// iSCSI: WRITE with FUA where the LUN has that, and otherwise WRITE and SYNCHRONIZE CACHE
    /// one after the other. A file or block device: written through. AoE has no such request.
    #[arg(long)]
    pub(crate) durable: bool,
    /// Stamp what is written and judge what is read: stale, torn, misplaced, damaged, lost
    ///
    /// At the end every block that was written is read once more. No two requests are on one block
    /// at a time.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Keep what --verify knows in this file, and begin with what is there
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) state: Option<PathBuf>,
    /// Run job N on the N-th of these cores
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// Look for an answer that may come within this time before sleeping; 0 is never
    ///
    /// What is measured is then the target's time rather than how long this machine takes to wake
    /// a thread.
    #[arg(long, default_value = "100us", value_name = "TIME", value_parser = units::time)]
    pub(crate) busy_poll: Duration,
    /// Also tell the CPU time of this process, the server
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// The same number gives the same places again
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Our iSCSI name
    #[arg(long, default_value = "iqn.2026-11.org.example:corbel-bench", value_name = "IQN")]
    pub(crate) initiator: Name,
    /// Our CHAP name
    #[arg(long, value_name = "NAME", requires = "chap_secret_file")]
    pub(crate) chap_user: Option<String>,
    /// File that holds our CHAP secret
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    pub(crate) chap_secret_file: Option<PathBuf>,
    /// Insist on header and data digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(jobs @ 1..=1024) => Ok(jobs),
        _ => Err("1 to 1024 jobs are wanted".to_owned()),
    }
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit code 2.
    Usage(String),
    /// Exit code 1.
    Failed(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Does what the command line says: 0 done, 1 failed, 2 wrong usage. What went wrong is said on
/// stderr.
pub fn run() -> ExitCode {
    let (code, message) = match dispatch(Cli::parse().command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (1, message),
        Err(Failure::Usage(message)) => (2, message),
    };
    // Without stderr there is only the exit code.
    let _ = writeln!(std::io::stderr(), "corbel-bench: {message}");
    ExitCode::from(code)
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(args) => {
            let report = run::run(&args)?;
            if args.json {
                print_json(&report)?
            } else {
                print(&report.to_string())?
            }
            if report.is_good() {
                return Ok(());
            }
            Err(Failure::Failed("not everything went well; see above".to_owned()))
        }
        Command::Compare(args) => compare::compare(&args),
        Command::Scale(args) => scale::scale(&args),
        Command::NullAoe(args) => null_aoe::serve(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "corbel-bench", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man { dir } => clap_mangen::generate_to(Cli::command(), &dir).map_err(|error| {
            Failure::Failed(format!("no man pages in {}: {error}", dir.display()))
        }),
    }
}

/// Prints a text and a line's end.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    print(&text.map_err(|error| Failure::Failed(error.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<RunArgs, clap::Error> {
        let words = ["corbel-bench", "run"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| match cli.command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_load_that_nobody_described_reads() {
        let args = parsed("disk.img").unwrap();
        assert!(!args.rw.writes());
        assert_eq!((args.bs, args.qd, args.jobs), (4096, 32, 1));
        assert_eq!(args.time, Duration::from_secs(10));
    }

    #[test]
    fn loads_are_spelled_as_the_manual_says() {
        let args =
            parsed("--rw randrw=70 --bs 64k --qd 8 --time 5s --rate 20k --cpus 0,1 aoe:0.0@e");
        let args = args.unwrap();
        assert_eq!((args.rw.reads, args.bs, args.rate), (70, 65536, Some(20_000.0)));
        assert_eq!(args.cpus, [0, 1]);
        for bad in ["", "--rw some x", "--qd 0 x", "--jobs 0 x", "--state f x", "--bs 0 x"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
