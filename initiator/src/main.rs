//! `corbel-initiator`: what is there.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.
#![forbid(unsafe_code)]

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use corbel_initiator::blocking::Error;
use corbel_initiator::blocking::aoe::Port;
use corbel_initiator::blocking::login::{Options, connect};
use corbel_initiator::discover;
use corbel_initiator::identity::Identity;
use corbel_proto::iscsi::chap::{Credentials, Secret};
use serde::Serialize;

/// The port that IANA gave iSCSI.
const ISCSI_PORT: u16 = 3260;

#[derive(Debug, Parser)]
#[command(name = "corbel-initiator", version, about = "Finds AoE shelves and iSCSI LUNs")]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is there, with identities
    #[command(subcommand)]
    Discover(Discover),
}

#[derive(Debug, Subcommand)]
enum Discover {
    /// The targets of an iSCSI portal, and the LUNs of each
    Iscsi(Iscsi),
    /// The AoE shelves on the links of these interfaces
    Aoe(Aoe),
}

#[derive(Debug, Args)]
struct Iscsi {
    /// The portal; port 3260 if none is named
    #[arg(value_name = "ADDR[:PORT]")]
    portal: String,
    /// Our iSCSI name
    #[arg(long, value_name = "IQN", default_value = "iqn.2026-11.org.example:corbel-initiator")]
    initiator: corbel_proto::iscsi::name::Name,
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

#[derive(Debug, Args)]
struct Aoe {
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

/// What to tell, and with which exit code.
struct Failed(u8, String);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let code = if matches!(error, Error::Interface { .. }) { 2 } else { 1 };
        Self(code, error.to_string())
    }
}

fn main() -> ExitCode {
    let Command::Discover(what) = Program::parse().command;
    let result = match what {
        Discover::Iscsi(arguments) => discover_iscsi(&arguments),
        Discover::Aoe(arguments) => discover_aoe(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(code, why)) => {
            eprintln!("corbel-initiator: {why}");
            ExitCode::from(code)
        }
    }
}

fn discover_iscsi(arguments: &Iscsi) -> Result<(), Failed> {
    let portal = resolve(&arguments.portal)?;
    let wait = Duration::from_secs(arguments.timeout);
    let mut isid = [0x80, 0, 0, 0, 0, 0];
    getrandom::fill(&mut isid[1..]).map_err(|error| Failed(1, error.to_string()))?;
    let options = Options {
        initiator: arguments.initiator.to_string(),
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
    let mut session = connect(portal, &options)?;
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
    for target in &found {
        println!("{}  {}", target.target, target.portals.join("  "));
        for unit in &target.luns {
            println!("  lun {}  {}", unit.lun, unit.known.describe());
        }
        if let Some(error) = &target.error {
            println!("  LUNs unknown: {error}");
        }
    }
    Ok(())
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

fn discover_aoe(arguments: &Aoe) -> Result<(), Failed> {
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
    for shelf in &shelves {
        let FoundShelf { shelf: major, slot, interface, mac, known, .. } = shelf;
        println!("e{major}.{slot}  {interface}  {mac}  {}", known.describe());
    }
    Ok(())
}

fn resolve(portal: &str) -> Result<SocketAddr, Failed> {
    let wrong = || Failed(2, format!("`{portal}` is not ADDR or ADDR:PORT, such as 10.0.0.1:3260"));
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
) -> Result<Option<Credentials>, Failed> {
    let (Some(user), Some(file)) = (user, file) else { return Ok(None) };
    let secret =
        fs::read(file).map_err(|error| Failed(2, format!("{}: {error}", file.display())))?;
    let end = secret.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
    if end == 0 {
        return Err(Failed(2, format!("{}: the file holds no secret", file.display())));
    }
    let secret = Secret::new(secret[..end].to_vec());
    Ok(Some(Credentials { name: user.clone(), secret }))
}

fn print_json<T: Serialize>(found: &[T]) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(found).map_err(|error| Failed(1, error.to_string()))?;
    println!("{text}");
    Ok(())
}
