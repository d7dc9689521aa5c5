//! `corbel-bench scale`: what work costs as it grows: sessions, exports, queue depth, block size.
//!
//! ```text
//! server.rs   a target with so many exports, and sessions that do nothing
//! curve.rs    throughput and memory over what grows, and what is wrong with them; pure
//! page.rs     the curves as one page; pure
//! ```

mod curve;
mod page;
mod server;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{Failure, print};
use crate::report::Starved;
use crate::{run, units};
use curve::{Curve, Point};
use server::Server;

/// `scale`
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Write scale.html and scale.json there
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// How often each point is measured
    #[arg(long, default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long one sample is measured
    #[arg(long, default_value = "300ms", value_name = "TIME", value_parser = units::time)]
    sample: Duration,
    /// How often to take a sample again while something else had the cores
    #[arg(long, default_value_t = 2, value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    retakes: u32,
    /// Which curves: depth, block, sessions, exports; all otherwise
    #[arg(long = "only", value_name = "NAME", value_delimiter = ',',
          value_parser = ["depth", "block", "sessions", "exports"])]
    only: Vec<String>,
    /// The target; otherwise the corbel-target beside this program
    #[arg(long, value_name = "FILE")]
    target: Option<PathBuf>,
    /// Cores of the target
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "0")]
    server_cpus: Vec<usize>,
    /// Core of the load
    #[arg(long, value_name = "N", default_value_t = 1)]
    client_cpu: usize,
}

/// A load on the first export.
#[derive(Debug, Clone, Copy)]
struct Load {
    rw: &'static str,
    bs: u64,
    qd: u64,
    jobs: u64,
}

const READS: Load = Load { rw: "randread", bs: 4096, qd: 32, jobs: 1 };

/// Bytes of all requests at a time, where requests grow.
const UNDER_WAY_MAX: u64 = 8 << 20;
/// Sessions that work at a time, of those that are there.
const WORKING_MAX: u64 = 16;

/// Measures.
///
/// # Errors
/// If the target does not serve, or a report cannot be written.
pub(crate) fn scale(args: &ScaleArgs) -> Result<(), Failure> {
    let stop = run::stop_on_signal()?;
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("corbel-target"));
    let program = args.target.clone().or_else(beside).filter(|path| path.is_file());
    let program = program.ok_or_else(|| {
        Failure::Usage("there is no corbel-target beside this program; name it by --target".into())
    })?;
    let server = |exports| Server::start(&program, exports, &args.server_cpus);
    let idle = server(1).and_then(Server::idle).map_err(Failure::Failed)?;
    print(&idle.to_string())?;
    let mut curves = Vec::new();
    for name in ["depth", "block", "sessions", "exports"] {
        let wanted = args.only.is_empty() || args.only.iter().any(|only| only == name);
        if wanted && !stop.load(Ordering::Relaxed) {
            let curve = measure(args, name, &server, &stop).map_err(Failure::Failed)?;
            print(&curve.table())?;
            curves.push(curve);
        }
    }
    let Some(folder) = &args.report else { return Ok(()) };
    let json = serde_json::to_string_pretty(&json!({ "idle": idle, "curves": curves }))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join("scale.json"), json))
        .and_then(|()| fs::write(folder.join("scale.html"), page::page(&idle, &curves)));
    written.map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
    print(&format!("{0}/scale.html  {0}/scale.json", folder.display()))
}

/// Points of a curve: how large what grows is, the load, and exports and sessions to be there.
fn points(name: &str) -> Vec<(u64, Load, u64, u64)> {
    let powers = |from: u32, to: u32, step: usize| (from..=to).step_by(step).map(|n| 1_u64 << n);
    match name {
        "depth" => powers(0, 8, 1).map(|qd| (qd, Load { qd, ..READS }, 1, 1)).collect(),
        "block" => {
            // No more under way than caches hold: it is the target that is measured.
            let load = |bs| Load { rw: "read", bs, qd: (UNDER_WAY_MAX / bs).clamp(1, 8), jobs: 1 };
            [9, 10, 12, 14, 16, 18, 20, 22].map(|n| (1 << n, load(1 << n), 1, 1)).into()
        }
        "sessions" => powers(0, 10, 2)
            .map(|all| {
                let jobs = all.min(WORKING_MAX);
                (all, Load { jobs, qd: 8, ..READS }, 1, all)
            })
            .collect(),
        _ => powers(0, 12, 2).map(|exports| (exports, READS, exports, 1)).collect(),
    }
}

/// One curve. What grows beyond the load has a target of its own for each point, all up at once.
fn measure(
    args: &ScaleArgs,
    name: &'static str,
    server: &dyn Fn(u64) -> Result<Server, String>,
    stop: &AtomicBool,
) -> Result<Curve, String> {
    let points = points(name);
    let mut servers: Vec<Server> = Vec::new();
    let mut curve = Curve::new(name);
    for &(size, load, exports, sessions) in &points {
        if servers.is_empty() || exports > 1 || sessions > 1 {
            let mut server = server(exports)?;
            let before = server.resident_bytes();
            server.hold_sessions(sessions - load.jobs)?;
            curve.points.push(Point::new(size, before, server.resident_bytes(), sessions));
            servers.push(server);
        } else {
            let bytes = servers[0].resident_bytes();
            curve.points.push(Point::new(size, bytes, bytes, sessions));
        }
    }
    for _ in 0..args.rounds {
        for (place, &(_, load, ..)) in points.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let server = &servers[place.min(servers.len() - 1)];
            for left in (0..=args.retakes).rev() {
                let sample = sample(args, load, server)?;
                let starved = sample.pointer("/starved/worst").and_then(Value::as_f64);
                if left == 0 || starved.unwrap_or(0.0) <= Starved::MUCH {
                    curve.points[place].samples.push(sample);
                    break;
                }
            }
        }
    }
    Ok(curve)
}

fn sample(args: &ScaleArgs, load: Load, server: &Server) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let time = format!("{}ms", args.sample.as_millis());
    let done = Command::new(program)
        .args(["run", "--json", "--warmup", "100ms", "--rw", load.rw, "--time", &time])
        .args(["--bs", &load.bs.to_string(), "--qd", &load.qd.to_string()])
        .args(["--jobs", &load.jobs.to_string(), "--cpus", &args.client_cpu.to_string()])
        .args(["--server-pid", &server.pid().to_string(), &server.path()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
    }
    serde_json::from_slice(&done.stdout).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_reach_as_far_as_they_say() {
        let ends = |name| points(name).last().map(|point| point.0);
        assert_eq!((ends("depth"), ends("block")), (Some(256), Some(4 << 20)));
        assert_eq!((ends("sessions"), ends("exports")), (Some(1024), Some(4096)));
        for (_, load, _, sessions) in points("sessions") {
            assert!(load.jobs <= sessions && load.jobs <= WORKING_MAX);
        }
    }
}
