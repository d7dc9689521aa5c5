//! From a parsed command line to an exit code.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use corbel_daemon::command::{Failure, count, exit_code, print, say, text_of, warn};
use corbel_daemon::limits::raise_limits;
use corbel_daemon::log;
use serde::Serialize;

use super::{Cli, Command, DeviceArgs, Import, PathArgs, ask, completions, discover, man};
use crate::admin::{self, Devices, NoticeSink, Plan, Request, Source};
use crate::config::{Settings, load};
use crate::import;

/// Starts an initiator without devices yet. It is given all settings, for the process as a whole,
/// and whom devices report to.
pub type Launch = fn(&Settings, NoticeSink) -> Result<Arc<dyn Devices>, String>;

/// Does what the command line says: 0 done, 1 failed, 2 wrong usage or configuration. What went
/// wrong is said on stderr.
pub fn run(cli: Cli, launch: Launch) -> ExitCode {
    let logs = log::init(cli.log.as_deref(), "info or corbel_initiator=debug,warn");
    let done = logs.map_err(Failure::from).and_then(|()| dispatch(cli.command, launch));
    exit_code("corbel-initiator", done)
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
            made.warnings.iter().for_each(|warning| say("warning", warning));
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
    warn(&loaded.warnings);
    let devices = count(loaded.settings.devices.len(), "device");
    let paths = loaded.settings.devices.iter().map(|device| device.paths.len()).sum();
    let paths = count(paths, "path");
    print(&format!("{}: good: {devices}, {paths}\n", path.display()))
}

fn serve(plan: Plan, launch: Launch) -> Result<(), Failure> {
    raise_limits();
    if plan.settings.daemon.lock_memory {
        admin::stay_in_memory();
    }
    Ok(admin::run(plan, launch, &mut std::io::stdout())?)
}

/// Prints to whoever still listens, for programs.
pub(super) fn print_json<T: Serialize>(found: &T) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(found).map_err(std::io::Error::from)?;
    print(&format!("{text}\n"))
}
