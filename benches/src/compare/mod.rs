//! `corbel-bench compare`: this build's target and the installed ones, in turn.
//!
//! ```text
//! server.rs   starting, stopping, ending
//! net.rs      namespaces and interfaces for AoE
//! sample.rs   one load on one server for a moment
//! stats.rs    medians, spreads, ratios; pure
//! result.rs   all samples of a comparison, and what they say; pure
//! page/       the report as a page with plots; pure
//! ```

mod net;
pub(crate) mod page;
mod result;
mod sample;
mod server;
mod stats;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use crate::cli::{Failure, print};
use crate::{run, units};
use net::Net;
use result::{Absent, Comparison, Group, Member};
use sample::{Load, Taking};
use server::{Image, Kind, Protocol, Server, Setup};
pub(crate) use stats::Spread;

/// `compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Whom to compare with: tgt, tgt-1 (tgt with one I/O thread), vblade, corbel-cached (ours,
    /// acknowledging AoE writes before they are stable); repeat it. All otherwise
    #[arg(long = "peer", value_name = "NAME", value_parser = Kind::peer)]
    peers: Vec<Kind>,
    /// Write report.html and report.json there
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// How often each load is put on each server
    #[arg(long, default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long one sample is measured
    #[arg(long, default_value = "500ms", value_name = "TIME", value_parser = units::time)]
    sample: Duration,
    /// How often to take a sample again while something else had the cores
    #[arg(long, default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    retakes: u32,
    /// Which comparisons: iscsi-ram, iscsi-file, aoe-ram, aoe-file; all otherwise
    #[arg(long = "only", value_name = "NAME", value_delimiter = ',',
          value_parser = ["iscsi-ram", "iscsi-file", "aoe-ram", "aoe-file"])]
    only: Vec<String>,
    /// Our target; otherwise the corbel-target beside this program
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// Where the stores on disk are made
    #[arg(long, value_name = "DIR", default_value = ".")]
    disk: PathBuf,
    /// Where the stores in RAM are made
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    ram: PathBuf,
    /// Bytes of each store
    #[arg(long, default_value = "256M", value_name = "SIZE", value_parser = units::bytes)]
    size: u64,
    /// Cores of the servers
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    server_cpus: Vec<usize>,
    /// Core of the load
    #[arg(long, value_name = "N", default_value_t = 1)]
    client_cpu: usize,
}

/// The loads of a protocol; the first ones make the curve over queue depth.
fn loads(protocol: Protocol) -> Vec<Load> {
    let depths = [1, 4, 16, 32, 128];
    let mut loads: Vec<_> = depths.map(|qd| Load::new("randread", 4096, qd)).into();
    loads.push(Load::new("randwrite", 4096, 32));
    match protocol {
        Protocol::Iscsi => {
            loads.push(Load::new("read", 128 << 10, 16));
            loads.push(Load::new("write", 1 << 20, 8));
        }
        Protocol::Aoe => loads.push(Load::new("read", 8 << 10, 32)),
    }
    loads.push(Load::new("randread", 4096, 1).beside_writer());
    loads
}

/// Compares.
///
/// # Errors
/// If our own target does not serve, or a report cannot be written. Of others that fail the report
/// tells.
pub(crate) fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let stop = run::stop_on_signal()?;
    let mut found = Comparison::new(
        args.rounds,
        args.sample,
        (args.server_cpus.clone(), args.client_cpu),
        args.size,
    );
    let programs = programs(args, &mut found.absent)?;
    for (name, protocol, on_disk) in [
        ("iscsi-ram", Protocol::Iscsi, false),
        ("iscsi-file", Protocol::Iscsi, true),
        ("aoe-ram", Protocol::Aoe, false),
        ("aoe-file", Protocol::Aoe, true),
    ] {
        let wanted = args.only.is_empty() || args.only.iter().any(|only| only == name);
        if !wanted || stop.load(Ordering::Relaxed) {
            continue;
        }
        match group(args, (name, protocol, on_disk), &programs, &stop) {
            Ok((group, absent)) => {
                print(&group.table())?;
                found.groups.push(group);
                found.absent.extend(absent);
            }
            Err(why) => found.absent.push(Absent { who: name.to_owned(), why }),
        }
    }
    found.absent.iter().try_for_each(|absent| print(&absent.to_string()))?;
    print(&found.noise_in_words())?;
    if let Some(folder) = &args.report {
        write_report(folder, &found)?;
        print(&format!("{0}/report.html  {0}/report.json", folder.display()))?;
    }
    match found.groups.is_empty() {
        true => Err(Failure::Failed("nothing was compared".to_owned())),
        false => Ok(()),
    }
}

fn write_report(folder: &Path, found: &Comparison) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(&found.to_json())
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join("report.json"), json))
        .and_then(|()| fs::write(folder.join("report.html"), page::page(found)));
    written.map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))
}

/// Our target, and those peers that are installed.
fn programs(args: &CompareArgs, absent: &mut Vec<Absent>) -> Result<Vec<(Kind, PathBuf)>, Failure> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("corbel-target"));
    let ours = args.target.clone().or_else(beside).filter(|path| path.is_file());
    let ours = ours.or_else(|| server::find("corbel-target")).ok_or_else(|| {
        Failure::Usage("there is no corbel-target beside this program; name it by --target".into())
    })?;
    let mut programs = vec![(Kind::Corbel, ours)];
    let peers = if args.peers.is_empty() { &Kind::PEERS[..] } else { &args.peers };
    for &kind in peers {
        let (program, bringer) = kind.program();
        if kind == Kind::CorbelCached {
            let ours = programs[0].1.clone();
            programs.push((kind, ours));
            continue;
        }
        match server::find(program) {
            Some(path) => programs.push((kind, path)),
            None => absent.push(Absent {
                who: kind.name().to_owned(),
                why: format!("{program} is not installed ({bringer})"),
            }),
        }
    }
    Ok(programs)
}

/// One protocol on one kind of store.
fn group(
    args: &CompareArgs,
    (name, protocol, on_disk): (&'static str, Protocol, bool),
    programs: &[(Kind, PathBuf)],
    stop: &AtomicBool,
) -> Result<(Group, Vec<Absent>), String> {
    let mut net = match protocol {
        Protocol::Aoe => Some(Net::new()?),
        Protocol::Iscsi => None,
    };
    let (mut servers, mut absent) = (Vec::new(), Vec::new());
    let folder = if on_disk { &args.disk } else { &args.ram };
    let takes_part = |(kind, _): &&(Kind, PathBuf)| kind.takes_part(protocol, on_disk);
    for (kind, program) in programs.iter().filter(takes_part) {
        let image = Image::new(folder, &format!("{name}-{}", kind.name()), args.size)
            .map_err(|error| format!("a store in {}: {error}", folder.display()))?;
        let (kind, cores) = (*kind, &args.server_cpus[..]);
        let setup = Setup { kind, protocol, direct: on_disk, program, image, cores };
        match Server::start(setup, net.as_mut()) {
            Ok(server) => {
                server.pause();
                servers.push(server);
            }
            Err(why) if kind == Kind::Corbel => return Err(why),
            Err(why) => absent.push(Absent { who: format!("{}, {name}", kind.name()), why }),
        }
    }
    let namespace = net.as_ref().map(|net| net.clients.as_str());
    let taking = Taking { time: args.sample, client_core: args.client_cpu, namespace };
    let mut group = Group::new(name, loads(protocol));
    for round in 0..args.rounds as usize {
        for load in group.loads.clone() {
            for place in 0..servers.len() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Every other round goes the other way, so that nobody is always first.
                let place = if round % 2 == 0 { place } else { servers.len() - 1 - place };
                take(args, &taking, (round, &servers[place], load), &mut group);
            }
        }
    }
    for server in &servers {
        group.members.push(Member {
            name: server.kind.name(),
            command: server.command.clone(),
            sample_command: taking.words(server, group.loads[0]).join(" "),
            idle_bytes: server.idle_bytes,
            used_bytes: server.resident_bytes(),
        });
    }
    Ok((group, absent))
}

/// Takes a sample, and takes it again while somebody else had the cores.
fn take(
    args: &CompareArgs,
    taking: &Taking<'_>,
    (round, server, load): (usize, &Server, Load),
    group: &mut Group,
) {
    for left in (0..=args.retakes).rev() {
        match taking.sample(round, server, load) {
            // Beside a writer the reader waits for his core, as it is meant to.
            Ok(sample) if left > 0 && sample.is_starved() => group.discarded.push(sample),
            Ok(sample) => return group.samples.push(sample),
            Err(why) => return group.failures.push(why),
        }
    }
}

/// What a reader should know of the machine.
fn machine() -> result::Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    result::Machine {
        cpu: model.map_or("unknown", |text| text.trim_start_matches([' ', '\t', ':'])).to_owned(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: kernel.trim().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
    }
}
