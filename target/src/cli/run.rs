//! From a parsed command line to an exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use corbel_daemon::command::{Failure, count, exit_code, print, print_changes, text_of, warn};
use corbel_daemon::limits::raise_limits;
use corbel_daemon::log;

use super::{
    Cli, Command, ExportArgs, Import, Set, SocketArgs, VbladeArgs, completions, import, man,
};
use crate::admin::{self, AccessOrder, Daemon, ErrorKind, Plan, Request, Response, Source};
use crate::config::{ADMIN_SOCKET, Backing, Config, load};

/// Starts a target. `persist` keeps AoE config strings, masks and reservations in the state
/// folder.
pub type Launch = fn(&Config, persist: bool) -> Result<Arc<dyn Daemon>, String>;

/// Does what the command line says: 0 done, 1 failed, 2 wrong usage or configuration. What went
/// wrong is said on stderr.
pub fn run(cli: Cli, launch: Launch) -> ExitCode {
    let logs = log::init(cli.log.as_deref(), "info or corbel_target=debug,warn");
    let done = logs.map_err(Failure::from).and_then(|()| dispatch(cli.command, launch));
    exit_code("corbel-target", done)
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
            warn(&loaded.warnings);
            let exports = count(loaded.config.exports.len(), "export");
            let targets = count(loaded.config.targets.len(), "iSCSI target");
            print(&format!("{}: good: {exports}, {targets}\n", args.config.display()))
        }
        Command::Status { json, socket } => status(&socket, json),
        Command::Reload(socket) => {
            let Response::Reloaded { changes } = ask(&socket, Request::Reload)?.0 else {
                return Err(Failure::strange_answer());
            };
            print_changes(&changes)
        }
        Command::Set(Set::Access { exports, group, state, socket }) => {
            let order = AccessOrder { exports, group: group.get(), state };
            let Response::Changed { changes } = ask(&socket, Request::Access(order))?.0 else {
                return Err(Failure::strange_answer());
            };
            print_changes(&changes)
        }
        Command::Stop(socket) => ask(&socket, Request::Stop).map(drop),
        Command::Import(Import::Tgt { file }) => print(&import::tgt(&text_of(&file)?)),
        Command::Import(Import::Vblade { file }) => print(&import::vblade(&text_of(&file)?)),
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
    raise_limits();
    let launch = move |config: &Config| launch(config, persist);
    Ok(admin::run(plan, launch, &mut std::io::stdout())?)
}

fn status(socket: &SocketArgs, json: bool) -> Result<(), Failure> {
    let (response, line) = ask(socket, Request::Status)?;
    let Response::Status { status } = response else {
        return Err(Failure::strange_answer());
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
