//! `corbel-bench compare`: this build's target and the installed ones, in turn.
//!
//! ```text
//! bout.rs     what is compared, and by which loads
//! kind.rs     who takes part, and where each is found
//! command/    how each is started
//! server.rs   starting, stopping, ending
//! net.rs      namespaces and interfaces for AoE
//! fio.rs      the load itself, without a server
//! sample.rs   one load on one server for a moment
//! stats.rs    medians, spreads, ratios; pure
//! result.rs   all samples of a comparison, and what they say; pure
//! page/       the report as a page with plots; pure
//! ```

mod bout;
mod command;
mod fio;
mod kind;
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
use bout::{Bout, Protocol, Store};
use kind::Kind;
use net::Net;
use result::{Absent, Comparison, Group, Member};
use sample::{Load, Taking};
use server::{Image, Server, Setup};
pub(crate) use stats::Spread;

/// `compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Whom to compare with; repeat it. All otherwise
    ///
    /// tgt, tgt-1 (tgt with one I/O thread), spdk (polling; on a file its uring bdev), spdk-aio,
    /// spdk-interrupt, vblade, ggaoed, corbel-cached (ours, acknowledging AoE writes before they
    /// are stable); and as limits null-aoe (answers each frame by one system call and touches no
    /// data) and fio (on the file itself).
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
    /// Which comparisons; all otherwise
    #[arg(long = "only", value_name = "NAME", value_delimiter = ',', value_parser = Bout::NAMES)]
    only: Vec<String>,
    /// Our target; otherwise the corbel-target beside this program
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// SPDK's iscsi_tgt; otherwise the one in PATH
    #[arg(long, value_name = "FILE")]
    spdk: Option<PathBuf>,
    /// ggaoed; otherwise the one in PATH
    #[arg(long, value_name = "FILE")]
    ggaoed: Option<PathBuf>,
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
    for bout in &Bout::ALL {
        let name = bout.name;
        let wanted = args.only.is_empty() || args.only.iter().any(|only| only == name);
        if !wanted || stop.load(Ordering::Relaxed) {
            continue;
        }
        match group(args, bout, &programs, &stop) {
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
    let ours = ours.or_else(|| kind::find("corbel-target")).ok_or_else(|| {
        Failure::Usage("there is no corbel-target beside this program; name it by --target".into())
    })?;
    let mut programs = vec![(Kind::Corbel, ours)];
    let peers = if args.peers.is_empty() { &Kind::PEERS[..] } else { &args.peers };
    for &kind in peers {
        let (program, bringer) = kind.program();
        let named = match kind {
            Kind::CorbelCached | Kind::CorbelMemory => Some(programs[0].1.clone()),
            Kind::NullAoe => std::env::current_exe().ok(),
            Kind::Ggaoed => args.ggaoed.clone(),
            _ => args.spdk.clone().filter(|_| kind.is_spdk()),
        };
        match named.or_else(|| kind::find(program)) {
            Some(path) => programs.push((kind, path)),
            None => absent.push(Absent {
                who: kind.name().to_owned(),
                why: format!("{program} is not installed ({bringer})"),
            }),
        }
    }
    Ok(programs)
}

/// The servers of a comparison, stopped, and those that are not there.
fn servers(
    args: &CompareArgs,
    bout: &'static Bout,
    programs: &[(Kind, PathBuf)],
    cores: &[usize],
    mut net: Option<&mut Net>,
) -> Result<(Vec<Server>, Vec<Absent>), String> {
    let (mut servers, mut absent) = (Vec::<Server>::new(), Vec::new());
    let folder = if bout.store == Store::Disk { &args.disk } else { &args.ram };
    for (kind, program) in programs.iter().filter(|(kind, _)| kind.takes_part(bout)) {
        let (kind, who) = (*kind, format!("{}, {}", kind.name(), bout.name));
        if let Some(why) = kind.why_not(bout) {
            absent.push(Absent { who, why: why.to_owned() });
            continue;
        }
        if kind == Kind::Fio {
            // Ours is the first.
            servers.extend(Server::limit(kind, program, &servers[0]));
            continue;
        }
        let noise = !kind.has_own_store(bout) && kind != Kind::NullAoe;
        let name = format!("{}-{}", bout.name, kind.name());
        // Ours locks what it serves, so a second one of ours has a file of its own.
        let shares = bout.store == Store::Disk && kind != Kind::CorbelCached;
        let first = servers.first().and_then(Server::image).filter(|_| shares);
        let image = first
            .map_or_else(
                || Image::new(folder, &name, args.size, noise),
                |first| first.shared(folder, &name),
            )
            .map_err(|error| format!("a store in {}: {error}", folder.display()))?;
        match Server::start(Setup { kind, bout, program, image, cores }, net.as_deref_mut()) {
            Ok(server) => {
                server.pause();
                servers.push(server);
            }
            Err(why) if kind == Kind::Corbel => return Err(why),
            Err(why) => absent.push(Absent { who, why }),
        }
    }
    Ok((servers, absent))
}

/// One protocol on one kind of store.
fn group(
    args: &CompareArgs,
    bout: &'static Bout,
    programs: &[(Kind, PathBuf)],
    stop: &AtomicBool,
) -> Result<(Group, Vec<Absent>), String> {
    let mut net = match bout.protocol {
        Protocol::Aoe => Some(Net::new(bout.mtu)?),
        Protocol::Iscsi => None,
    };
    let mut cores = args.server_cpus.clone();
    cores.extend((bout.every_core && !cores.contains(&args.client_cpu)).then_some(args.client_cpu));
    let (servers, absent) = servers(args, bout, programs, &cores, net.as_mut())?;
    let namespace = net.as_ref().map(|net| net.clients.as_str());
    let (time, client_core, server_cores) = (args.sample, args.client_cpu, &cores[..]);
    let taking = Taking { time, client_core, server_cores, namespace };
    for server in servers.iter().filter(|server| server.kind.has_own_store(bout)) {
        taking.fill(server)?;
    }
    let mut group = Group::new(bout, bout.loads());
    for round in 0..args.rounds as usize {
        for load in group.loads.clone() {
            for place in 0..servers.len() {
                // Every other round goes the other way, so that nobody is always first.
                let place = if round % 2 == 0 { place } else { servers.len() - 1 - place };
                if !stop.load(Ordering::Relaxed) && servers[place].kind.does(&load) {
                    take(args, &taking, (round, &servers[place], load), &mut group);
                }
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
