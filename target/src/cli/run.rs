//! From a parsed command line to an exit code.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use super::{Cli, Command, ExportArgs, Import, SocketArgs, VbladeArgs, completions, import, man};
use crate::admin::{self, Daemon, ErrorKind, Plan, Request, Response, Source};
use crate::config::{ADMIN_SOCKET, Backing, Config, Problems, Wrong, load};

/// Starts a target. `persist` keeps AoE config strings, masks and reservations in the state
/// folder.
pub type Launch = fn(&Config, persist: bool) -> Result<Arc<dyn Daemon>, String>;

/// Why a command did not do what it should.
enum Failure {
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

impl From<admin::RunError> for Failure {
    fn from(error: admin::RunError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<admin::AskError> for Failure {
    fn from(error: admin::AskError) -> Self {
        Self::Failed(error.to_string())
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
    let _ = writeln!(std::io::stderr(), "corbel-target: {message}");
    ExitCode::from(code)
}

fn log(filter: Option<&str>) -> Result<(), Failure> {
    let asked = match filter {
        Some(filter) => Some(("--log", filter.to_owned())),
        None => std::env::var("RUST_LOG").ok().map(|filter| ("RUST_LOG", filter)),
    };
    let filter = match asked.filter(|(_, filter)| !filter.is_empty()) {
        Some((place, text)) => EnvFilter::try_new(&text).map_err(|error| {
            let right = "write it as info or corbel_target=debug,warn";
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
        Command::Export(args) => export(args, launch),
        Command::Vblade(args) => vblade(args, launch),
        Command::Serve(args) => {
            let config = read(&args.config)?;
            let plan = Plan { config, source: Source::File(args.config), announce: true };
            serve(plan, true, launch)
        }
        Command::Check(args) => {
            let loaded = load(&args.config)?;
            for warning in &loaded.warnings {
                let _ = writeln!(std::io::stderr(), "warning: {warning}");
            }
            let exports = count(loaded.config.exports.len(), "export");
            let targets = count(loaded.config.targets.len(), "iSCSI target");
            print(&format!("{}: good: {exports}, {targets}\n", args.config.display()))
        }
        Command::Status { json, socket } => status(&socket, json),
        Command::Reload(socket) => {
            let Response::Reloaded { changes } = ask(&socket, Request::Reload)?.0 else {
                return Err(Failure::Failed("the daemon answered something else".into()));
            };
            if changes.is_empty() {
                return print("nothing changed\n");
            }
            print(&changes.iter().map(|change| format!("{change}\n")).collect::<String>())
        }
        Command::Stop(socket) => ask(&socket, Request::Stop).map(drop),
        Command::Import(Import::Tgt { file }) => print(&import::tgt(&source(&file)?)),
        Command::Import(Import::Vblade { file }) => print(&import::vblade(&source(&file)?)),
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

/// The text of a file to import.
fn source(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::Failed(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

fn read(path: &Path) -> Result<Config, Failure> {
    let loaded = load(path)?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(loaded.config)
}

fn export(args: ExportArgs, launch: Launch) -> Result<(), Failure> {
    let persist = args.state_dir.is_some();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let config = args.config(&host)?;
    for export in &config.exports {
        if let (Some(_), Backing::Path(path)) = (export.create, &export.backing)
            && let Ok(found) = std::fs::metadata(path)
        {
            let file = path.display();
            match found.is_file() {
                true => tracing::warn!("{file} exists and keeps its size, {} bytes", found.len()),
                false => tracing::warn!("{file} exists; --create does nothing"),
            }
        }
    }
    serve(at_once(config), persist, launch)
}

fn vblade(args: VbladeArgs, launch: Launch) -> Result<(), Failure> {
    let persist = args.state_dir.is_some();
    serve(at_once(args.config()?), persist, launch)
}

fn at_once(config: Config) -> Plan {
    Plan { source: Source::Fixed(Box::new(config.clone())), config, announce: true }
}

fn serve(plan: Plan, persist: bool, launch: Launch) -> Result<(), Failure> {
    admin::raise_limits();
    let launch = move |config: &Config| launch(config, persist);
    Ok(admin::run(plan, launch, &mut std::io::stdout())?)
}

fn status(socket: &SocketArgs, json: bool) -> Result<(), Failure> {
    let (response, line) = ask(socket, Request::Status)?;
    let Response::Status { status } = response else {
        return Err(Failure::Failed("the daemon answered something else".into()));
    };
    if !json {
        return print(&admin::render(&status));
    }
    // As it came: a newer daemon may say more than this program knows.
    let whole: serde_json::Value = serde_json::from_str(&line).map_err(std::io::Error::from)?;
    let text = serde_json::to_string_pretty(&whole["status"]).map_err(std::io::Error::from)?;
    print(&format!("{text}\n"))
}

fn ask(socket: &SocketArgs, request: Request) -> Result<(Response, String), Failure> {
    let path = socket.path()?;
    let (response, line) = admin::ask(&path, request)?;
    match response {
        Response::Error { kind: ErrorKind::Configuration, message } => Err(Failure::Usage(message)),
        Response::Error { message, .. } => Err(Failure::Failed(message)),
        response => Ok((response, line)),
    }
}

impl SocketArgs {
    /// The daemon's control socket: named, or the configuration's, or the usual one.
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let Some(config) = &self.config else { return Ok(ADMIN_SOCKET.into()) };
        let socket = load(config)?.config.daemon.admin_socket;
        Ok(socket.unwrap_or_else(|| ADMIN_SOCKET.into()))
    }
}

/// Prints to whoever still listens: `corbel-target status | head` is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
