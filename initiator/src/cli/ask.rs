//! Commands to the running daemon.

use std::io::IsTerminal;

use corbel_daemon::command::{Failure, print, print_changes, say};

use super::run::print_json;
use super::{DeviceArgs, PathArgs, SocketArgs};
use crate::admin::{self, ErrorKind, Request, Response};
use crate::config::{ADMIN_SOCKET, load};

/// `status`
pub(super) fn status(
    socket: &SocketArgs,
    device: Option<String>,
    json: bool,
) -> Result<(), Failure> {
    // https://no-color.org
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !json && !plain && std::io::stdout().is_terminal();
    let Response::Status { status, text } = ask(socket, &Request::Status { device, colour })?
    else {
        return Err(Failure::strange_answer());
    };
    if json { print_json(&status) } else { print(&text) }
}

/// `reload`
pub(super) fn reload(socket: &SocketArgs) -> Result<(), Failure> {
    let Response::Reloaded { changes } = ask(socket, &Request::Reload {})? else {
        return Err(Failure::strange_answer());
    };
    print_changes(&changes)
}

/// `stop`
pub(super) fn stop(socket: &SocketArgs) -> Result<(), Failure> {
    ask(socket, &Request::Stop {}).map(drop)
}

/// Whatever changes a device; what the daemon has to say about it goes to stderr.
pub(super) fn change(socket: &SocketArgs, request: &Request) -> Result<(), Failure> {
    let Response::Done { notes } = ask(socket, request)? else {
        return Err(Failure::strange_answer());
    };
    notes.iter().for_each(|note| say("corbel-initiator", note));
    Ok(())
}

/// A change of a path.
pub(super) fn path(args: PathArgs, request: fn(String, String) -> Request) -> Result<(), Failure> {
    change(&args.socket, &request(args.name, args.path))
}

/// A change of a device.
pub(super) fn device(args: DeviceArgs, request: fn(String) -> Request) -> Result<(), Failure> {
    change(&args.socket, &request(args.name))
}

fn ask(socket: &SocketArgs, request: &Request) -> Result<Response, Failure> {
    let path = match (&socket.socket, &socket.config) {
        (Some(socket), _) => socket.clone(),
        (None, None) => ADMIN_SOCKET.into(),
        (None, Some(config)) => {
            let socket = load(config)?.settings.daemon.admin_socket;
            socket.unwrap_or_else(|| ADMIN_SOCKET.into())
        }
    };
    match admin::ask(&path, request)? {
        Response::Error { kind: ErrorKind::Failed, message } => Err(Failure::Failed(message)),
        Response::Error { message, .. } => Err(Failure::Usage(message)),
        response => Ok(response),
    }
}
