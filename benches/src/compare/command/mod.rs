//! How each server is started, and when it serves.

mod aoe;
mod iscsi;

use std::fs;
use std::net::SocketAddr;

use super::bout::Protocol;
use super::net::Net;
use super::server::Setup;

/// How to know that it serves.
pub(super) enum Ready {
    /// It says `ready`.
    Says,
    /// It listens there, and then wants these commands.
    Listens(SocketAddr, Vec<Vec<String>>),
    /// It says nothing, and takes a moment.
    Soon,
}

/// A command line and what follows it.
pub(super) struct Started {
    pub(super) words: Vec<String>,
    pub(super) ready: Ready,
}

/// The command, and the path to what it serves as `run` takes it.
pub(super) fn of(setup: &Setup<'_>, net: Option<&mut Net>) -> Result<(Started, String), String> {
    match (setup.bout.protocol, net) {
        (Protocol::Iscsi, _) => iscsi::command(setup),
        (Protocol::Aoe, Some(net)) => aoe::command(setup, net),
        (Protocol::Aoe, None) => Err("AoE without interfaces".to_owned()),
    }
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|&word| word.to_owned()).collect()
}

/// Writes what no command line says. The file lies beside the image and goes with it.
fn config(setup: &Setup<'_>, end: &str, text: &str) -> Result<String, String> {
    let path = setup.image.beside(end);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path.display().to_string())
}
