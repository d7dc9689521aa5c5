//! `discover`: what is there, with identities.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use corbel_daemon::command::{Failure, print};
use corbel_proto::iscsi::chap::Credentials;
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::pdu::login::Status;
use serde::Serialize;

use super::run::print_json;
use crate::blocking::Error;
use crate::blocking::aoe::Port;
use crate::blocking::iscsi::Session;
use crate::blocking::login::{Options, connect};
use crate::config::{self, Daemon, ISCSI_PORT, Secret};
use crate::discover;
use crate::identity::Identity;

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub enum Discover {
    /// The targets of an iSCSI portal, and the LUNs of each
    Iscsi(Iscsi),
    /// The AoE shelves on the links of these interfaces
    Aoe(Aoe),
}

/// `discover iscsi`
#[derive(Debug, Args)]
pub struct Iscsi {
    /// The portal; port 3260 if none is named
    #[arg(value_name = "ADDR[:PORT]")]
    portal: String,
    /// Our iSCSI name; otherwise the one that the daemon has
    #[arg(long, value_name = "IQN")]
    initiator: Option<Name>,
    /// Our CHAP name
    #[arg(long, value_name = "NAME", requires = "chap_secret_file")]
    chap_user: Option<String>,
    /// File that holds our CHAP secret
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    chap_secret_file: Option<PathBuf>,
    /// The target must prove to be this, by mutual CHAP
    #[arg(long, value_name = "NAME", requires_all = ["mutual_chap_secret_file", "chap_user"])]
    mutual_chap_user: Option<String>,
    /// File that holds the target's secret
    #[arg(long, value_name = "FILE", requires = "mutual_chap_user")]
    mutual_chap_secret_file: Option<PathBuf>,
    /// Insist on header and data digests
    #[arg(long)]
    digests: bool,
    /// Longest wait for each answer, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `discover aoe`
#[derive(Debug, Args)]
pub struct Aoe {
    /// Interfaces to ask on
    #[arg(required = true, value_name = "IFACE")]
    interfaces: Vec<String>,
    /// How long to gather answers, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A device, or why its identity is not known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Known {
    Identity(Identity),
    Error(String),
}

impl Known {
    fn describe(&self) -> String {
        match self {
            Self::Identity(identity) => format!(
                "{} bytes  {}  serial {}  wwn {}",
                identity.size_bytes,
                identity.model,
                identity.serial,
                identity.wwn.as_deref().unwrap_or("none"),
            ),
            Self::Error(error) => format!("identity unknown: {error}"),
        }
    }
}

impl From<Result<Identity, Error>> for Known {
    fn from(result: Result<Identity, Error>) -> Self {
        match result {
            Ok(identity) => Self::Identity(identity),
            Err(error) => Self::Error(error.to_string()),
        }
    }
}

#[derive(Debug, Serialize)]
struct FoundTarget {
    target: String,
    portals: Vec<String>,
    luns: Vec<FoundLun>,
    /// Why the LUNs are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct FoundLun {
    lun: u64,
    #[serde(flatten)]
    known: Known,
}

#[derive(Debug, Serialize)]
struct FoundShelf {
    shelf: u16,
    slot: u8,
    interface: String,
    mac: String,
    buffer_count: u16,
    sectors_max: u8,
    config: String,
    #[serde(flatten)]
    known: Known,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Interface { .. } => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Looks, and prints what there is.
pub(super) fn discover(what: &Discover) -> Result<(), Failure> {
    match what {
        Discover::Iscsi(arguments) => discover_iscsi(arguments),
        Discover::Aoe(arguments) => discover_aoe(arguments),
    }
}

fn discover_iscsi(arguments: &Iscsi) -> Result<(), Failure> {
    let portal = resolve(&arguments.portal)?;
    let wait = Duration::from_secs(arguments.timeout);
    let mut isid = [0x80, 0, 0, 0, 0, 0];
    getrandom::fill(&mut isid[1..]).map_err(|error| Failure::Failed(error.to_string()))?;
    let initiator = match &arguments.initiator {
        Some(name) => name.clone(),
        None => config::initiator_name(&Daemon::default())?,
    };
    let options = Options {
        initiator: initiator.to_string(),
        isid,
        chap: credentials(arguments.chap_user.as_ref(), arguments.chap_secret_file.as_ref())?,
        mutual_chap: credentials(
            arguments.mutual_chap_user.as_ref(),
            arguments.mutual_chap_secret_file.as_ref(),
        )?,
        digests: arguments.digests,
        wait,
        ..Options::default()
    };
    let mut session = ask_for_targets(portal, &options)?;
    let text = session.text(b"SendTargets=All\0", wait)?;
    // The answer is complete; how the target takes leave changes nothing about it.
    drop(session.logout(wait));
    let found: Vec<_> = discover::targets(&text)
        .into_iter()
        .map(|target| look_at(portal, &options, target, wait))
        .collect();
    if arguments.json {
        return print_json(&found);
    }
    let mut lines = Vec::new();
    for target in &found {
        lines.push(format!("{}  {}", target.target, target.portals.join("  ")));
        for unit in &target.luns {
            lines.push(format!("  lun {}  {}", unit.lun, unit.known.describe()));
        }
        if let Some(error) = &target.error {
            lines.push(format!("  LUNs unknown: {error}"));
        }
    }
    print_lines(&lines)
}

/// A discovery session. Many targets want CHAP for their disks alone, and know no CHAP here; a list
/// of targets may be taken without it, unless the target must prove itself.
fn ask_for_targets(portal: SocketAddr, options: &Options) -> Result<Session, Error> {
    match connect(portal, options) {
        Err(Error::Refused(Status::AUTHENTICATION_FAILURE))
            if options.chap.is_some() && options.mutual_chap.is_none() =>
        {
            connect(portal, &Options { chap: None, ..options.clone() })
        }
        result => result,
    }
}

fn look_at(
    portal: SocketAddr,
    options: &Options,
    target: discover::Target,
    wait: Duration,
) -> FoundTarget {
    let options = Options { target: Some(target.name.clone()), ..options.clone() };
    let mut found =
        FoundTarget { target: target.name, portals: target.portals, luns: Vec::new(), error: None };
    let result = connect(portal, &options).and_then(|mut session| {
        for lun in discover::luns(&mut session, wait)? {
            let known = discover::identify_lun(&mut session, lun, wait).into();
            let number = lun.number().map_or(lun.0, u64::from);
            found.luns.push(FoundLun { lun: number, known });
        }
        session.logout(wait)
    });
    found.error = result.err().map(|error| error.to_string());
    found
}

fn discover_aoe(arguments: &Aoe) -> Result<(), Failure> {
    let wait = Duration::from_millis(arguments.wait);
    let mut shelves = Vec::new();
    for name in &arguments.interfaces {
        for found in Port::open(name)?.discover(wait)? {
            let identity = Port::open(name)
                .and_then(|port| discover::identify_slot(port, &found, Duration::from_secs(2)));
            shelves.push(FoundShelf {
                shelf: found.shelf,
                slot: found.slot,
                interface: name.clone(),
                mac: found.remote.to_string(),
                buffer_count: found.buffer_count,
                sectors_max: found.sectors,
                config: String::from_utf8_lossy(&found.config).into_owned(),
                known: identity.into(),
            });
        }
    }
    if arguments.json {
        return print_json(&shelves);
    }
    let lines: Vec<_> = shelves
        .iter()
        .map(|shelf| {
            let FoundShelf { shelf: major, slot, interface, mac, known, .. } = shelf;
            format!("e{major}.{slot}  {interface}  {mac}  {}", known.describe())
        })
        .collect();
    print_lines(&lines)
}

/// What came over a network must not steer the terminal.
fn print_lines(lines: &[String]) -> Result<(), Failure> {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    let line = |line: &String| line.chars().map(clean).chain(['\n']).collect::<String>();
    print(&lines.iter().map(line).collect::<String>())
}

fn resolve(portal: &str) -> Result<SocketAddr, Failure> {
    let wrong = || {
        let right = "give ADDR or ADDR:PORT, such as 10.0.0.1:3260";
        Failure::Usage(format!("`{portal}` is no portal; {right}"))
    };
    let bare = portal.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(SocketAddr::new(address, ISCSI_PORT));
    }
    let with_port =
        if portal.contains(':') { portal.to_owned() } else { format!("{portal}:{ISCSI_PORT}") };
    let mut addresses = with_port.to_socket_addrs().map_err(|_| wrong())?;
    addresses.next().ok_or_else(wrong)
}

fn credentials(
    user: Option<&String>,
    file: Option<&PathBuf>,
) -> Result<Option<Credentials>, Failure> {
    let (Some(user), Some(file)) = (user, file) else { return Ok(None) };
    let secret = Secret::read(file)?;
    Ok(Some(config::Credentials { user: user.clone(), secret }.to_chap()))
}
