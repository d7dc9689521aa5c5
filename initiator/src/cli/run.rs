//! From a parsed command line to an exit code.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::{Cli, Command, DeviceArgs, Import, PathArgs, ask, completions, discover, man};
use crate::admin::{self, Devices, NoticeSink, Plan, Request, Source};
use crate::config::{Problems, Settings, Wrong, load};
use crate::import;

/// Starts an initiator without devices yet. It is given all settings, for the process as a whole,
/// and whom devices report to.
pub type Launch = fn(&Settings, NoticeSink) -> Result<Arc<dyn Devices>, String>;

/// Why a command did not do what it should.
#[derive(Debug)]
pub(super) enum Failure {
    /// Exit code 2.
    Usage(String),
    /// Exit code 1.
    Failed(String),
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Self::Usage(wrong.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Usage(problems.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Does what the command line says: 0 done, 1 failed, 2 wrong usage or configuration. What went
/// wrong is said on stderr.
pub fn run(cli: Cli, launch: Launch) -> ExitCode {
    let done = log(cli.log.as_deref()).and_then(|()| dispatch(cli.command, launch));
    let (code, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (1, message),
        Err(Failure::Usage(message)) => (2, message),
    };
    // Without stderr there is only the exit code.
    let _ = writeln!(std::io::stderr(), "corbel-initiator: {message}");
    ExitCode::from(code)
}

fn log(filter: Option<&str>) -> Result<(), Failure> {
    let asked = match filter {
        Some(filter) => Some(("--log", filter.to_owned())),
        None => std::env::var("RUST_LOG").ok().map(|filter| ("RUST_LOG", filter)),
    };
    let filter = match asked.filter(|(_, filter)| !filter.is_empty()) {
        Some((place, text)) => EnvFilter::try_new(&text).map_err(|error| {
            let right = "write it as info or corbel_initiator=debug,warn";
            Failure::Usage(format!("{place}: `{text}` is no filter: {error}; {right}"))
        })?,
        None => EnvFilter::new("info"),
    };
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        // It would be said on stderr, with a panic if that is what is broken.
        .log_internal_errors(false)
        .init();
    Ok(())
}

fn dispatch(command: Command, launch: Launch) -> Result<(), Failure> {
    match command {
        Command::Discover(what) => discover::discover(&what),
        Command::Attach(args) => {
            let settings = args.settings()?;
            serve(Plan { settings, source: Source::Fixed }, launch)
        }
        Command::Run(args) => {
            let loaded = load(&args.config)?;
            loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            let source = Source::File(args.config);
            serve(Plan { settings: loaded.settings, source }, launch)
        }
        Command::Check(args) => check(&args.config),
        Command::Import(Import::Multipath { file }) => {
            let made = import::multipath(&text_of(&file)?, &file.display().to_string());
            for warning in &made.warnings {
                let _ = writeln!(std::io::stderr(), "warning: {warning}");
            }
            print(&made.toml)
        }
        Command::UdevInfo { node } => match admin::udev::describe(&node) {
            Some(lines) => print(&lines),
            None => Err(Failure::Failed(format!("{node} is not one of ours"))),
        },
        Command::Completions { shell } => {
            let mut script = Vec::new();
            completions(shell, &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man { dir } => man(&dir).map_err(|error| {
            Failure::Failed(format!("no man pages in {}: {error}", dir.display()))
        }),
        other => tell(other),
    }
}

/// What the running daemon is asked.
fn tell(command: Command) -> Result<(), Failure> {
    match command {
        Command::Status { name, json, socket } => ask::status(&socket, name, json),
        Command::Reload(socket) => ask::reload(&socket),
        Command::Stop(socket) => ask::stop(&socket),
        Command::Fail(args) => ask::path(args, |device, path| Request::Fail { device, path }),
        Command::Reinstate(args) => {
            ask::path(args, |device, path| Request::Reinstate { device, path })
        }
        Command::RemovePath(args) => {
            ask::path(args, |device, path| Request::RemovePath { device, path })
        }
        Command::Accept(args) => ask::path(args, |device, path| Request::Accept { device, path }),
        Command::AddPath { weight, path: PathArgs { name: device, path, socket } } => {
            ask::change(&socket, &Request::AddPath { device, path, weight })
        }
        Command::Set { name: device, key, value, socket } => {
            ask::change(&socket, &Request::Set { device, key, value })
        }
        Command::SwitchGroup { name: device, group, socket } => {
            ask::change(&socket, &Request::SwitchGroup { device, group: group.into() })
        }
        Command::Resize(args) => ask::device(args, |device| Request::Resize { device }),
        Command::Fence(args) => ask::device(args, |device| Request::Fence { device }),
        Command::Unfence(args) => ask::device(args, |device| Request::Unfence { device }),
        Command::Detach { force, patience, device: DeviceArgs { name: device, socket } } => {
            let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
            ask::change(&socket, &Request::Detach { device, force, patience_ms })
        }
        other => Err(Failure::Usage(format!("{other:?} is not for the daemon"))),
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let loaded = load(path)?;
    for warning in &loaded.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let devices = count(loaded.settings.devices.len(), "device");
    let paths = loaded.settings.devices.iter().map(|device| device.paths.len()).sum();
    let paths = count(paths, "path");
    print(&format!("{}: good: {devices}, {paths}\n", path.display()))
}

/// The text of a file to import.
fn text_of(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::Failed(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn serve(plan: Plan, launch: Launch) -> Result<(), Failure> {
    admin::raise_limits();
    if plan.settings.daemon.lock_memory {
        admin::stay_in_memory();
    }
    admin::run(plan, launch, &mut std::io::stdout())
        .map_err(|error| Failure::Failed(error.to_string()))
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Prints to whoever still listens: `corbel-initiator status | head` is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// The same for programs.
pub(super) fn print_json<T: Serialize>(found: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(found).map_err(std::io::Error::from)?;
    print(&format!("{text}\n"))
}
