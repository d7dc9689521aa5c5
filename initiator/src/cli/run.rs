//! From a parsed command line to an exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use tracing_subscriber::EnvFilter;

use super::{Cli, Command, completions, discover, man};
use crate::config::{Problems, Wrong, load};

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
pub fn run(cli: Cli) -> ExitCode {
    let done = log(cli.log.as_deref()).and_then(|()| dispatch(cli.command));
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

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Discover(what) => discover::discover(&what),
        Command::Check(args) => {
            let loaded = load(&args.config)?;
            for warning in &loaded.warnings {
                let _ = writeln!(std::io::stderr(), "warning: {warning}");
            }
            let devices = count(loaded.settings.devices.len(), "device");
            let paths = loaded.settings.devices.iter().map(|device| device.paths.len()).sum();
            let paths = count(paths, "path");
            print(&format!("{}: good: {devices}, {paths}\n", args.config.display()))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            completions(shell, &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man { dir } => man(&dir).map_err(|error| {
            Failure::Failed(format!("no man pages in {}: {error}", dir.display()))
        }),
    }
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
