//! `corbel-bench run`: jobs from start to end.

use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use corbel_initiator::blocking::login::Options;
use corbel_initiator::config::{Credentials, Secret};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Failure, RunArgs};
use crate::cpu;
use crate::job::{self, Done, Plan, Watch};
use crate::ledger::Ledger;
use crate::place::{self, Device, Wanted};
use crate::report::{Costs, Report, Served};
use crate::tally::Tally;
use crate::transport::{self, Shape};
use crate::units::{show_bytes, show_count};

/// How often the progress line is drawn, and a signal noticed.
const TICK: Duration = Duration::from_millis(100);
/// Longest request: what one SCSI command and its memory here can carry.
const IO_BYTES_MAX: u64 = 16 << 20;

/// Runs it and says what came of it.
///
/// # Errors
/// If it could not be begun. Requests that failed are in the report.
pub(crate) fn run(args: &RunArgs) -> Result<Report, Failure> {
    let stop = stop_on_signal()?;
    let wanted = Wanted { writes: args.rw.writes(), durable: args.durable };
    let device = place::reach(&args.path, login(args)?, wanted)
        .map_err(|why| Failure::Failed(format!("{}: {why}", args.path)))?;
    let blocks = blocks(args, &device)?;
    let mut ledger = ledger(args, blocks)?;
    let jobs = start(args, &device, blocks, ledger.as_ref())?;
    let server = watch(args, &jobs, &stop);
    let mut tally = Tally::new();
    let mut broken = None;
    let (mut cpu_nanos, mut waited, mut measured) = (0, 0, Duration::ZERO);
    for job in jobs {
        let done = job.thread.join().map_err(|_| Failure::Failed("a job panicked".to_owned()))?;
        tally.add(&done.tally);
        cpu_nanos += done.cpu_nanos;
        waited = waited.max(done.waited_nanos);
        measured = measured.max(done.measured);
        if let (Some(whole), Some(share)) = (&mut ledger, &done.ledger) {
            whole.join(share);
        }
        broken = broken.or(done.broken);
    }
    if let (Some(path), Some(ledger)) = (&args.state, &ledger) {
        let saved = ledger.save(path);
        saved.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    }
    let costs = Costs { own: cpu_nanos, own_waited: waited, server };
    Ok(Report::new(args, &device, &tally, measured, costs, broken))
}

/// Told by the first SIGINT or SIGTERM; the second ends the process.
pub(crate) fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag::{register, register_conditional_shutdown};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| register(signal, stop.clone()))
            .map_err(|error| Failure::Failed(error.to_string()))?;
    }
    Ok(stop)
}

fn login(args: &RunArgs) -> Result<Options, Failure> {
    let chap = match (&args.chap_user, &args.chap_secret_file) {
        (Some(name), Some(file)) => {
            let shown = file.display();
            let secret =
                Secret::read(file).map_err(|wrong| Failure::Usage(format!("{shown}: {wrong}")))?;
            Some(Credentials { user: name.clone(), secret }.to_chap())
        }
        _ => None,
    };
    // RFC 7143 11.12.5: a random 24-bit name, and the number of the session.
    let mut isid = [0x80, 0, 0, 0, 0, 0];
    getrandom::fill(&mut isid[1..4]).expect("the kernel's random source works from boot on");
    Ok(Options {
        initiator: args.initiator.to_string(),
        isid,
        chap,
        digests: args.digests,
        ..Options::default()
    })
}

/// Requests' places on the device.
fn blocks(args: &RunArgs, device: &Device) -> Result<u64, Failure> {
    let size = args.size.unwrap_or(device.size_bytes);
    if size > device.size_bytes {
        let there = device.size_bytes;
        return Err(Failure::Usage(format!("--size {size}: the device has {there} bytes")));
    }
    let offset = args.offset.unwrap_or(0);
    if offset >= size || !offset.is_multiple_of(args.bs) {
        return Err(Failure::Usage(format!(
            "--offset {offset}: a multiple of --bs below the size, {size}, is wanted"
        )));
    }
    let size = size - offset;
    let block = u64::from(device.block_bytes);
    if args.bs > IO_BYTES_MAX || !args.bs.is_multiple_of(block) {
        return Err(Failure::Usage(format!(
            "--bs {}: a multiple of the device's blocks of {block} bytes is wanted, 16M at most",
            args.bs
        )));
    }
    match size / args.bs {
        0 => Err(Failure::Usage(format!("{size} bytes are less than one request"))),
        blocks if blocks < args.jobs as u64 => {
            Err(Failure::Usage(format!("{blocks} requests' places are too few for the jobs")))
        }
        blocks => Ok(blocks),
    }
}

fn ledger(args: &RunArgs, blocks: u64) -> Result<Option<Ledger>, Failure> {
    if !args.verify {
        return Ok(None);
    }
    if let Some(path) = &args.state
        && let Some(known) = Ledger::load(path, args.bs, blocks).map_err(Failure::Usage)?
    {
        return Ok(Some(known));
    }
    let mut series = [0; 8];
    getrandom::fill(&mut series).expect("the kernel's random source works from boot on");
    Ledger::new(u64::from_le_bytes(series), args.bs, blocks).map(Some).map_err(Failure::Usage)
}

/// A job that runs.
struct Running {
    thread: JoinHandle<Done>,
    watch: Arc<Watch>,
}

/// Opens all jobs' ways to the device, and starts them together.
fn start(
    args: &RunArgs,
    device: &Device,
    blocks: u64,
    ledger: Option<&Ledger>,
) -> Result<Vec<Running>, Failure> {
    let (ready, told) = channel();
    let mut running = Vec::new();
    let mut gates = Vec::new();
    for number in 0..args.jobs {
        let plan = plan(args, device, blocks, number, ledger)?;
        let (watch, way, ready) = (Arc::new(Watch::default()), device.way.clone(), ready.clone());
        let (gate, opened) = channel();
        gates.push(gate);
        let core = args.cpus.get(number % args.cpus.len().max(1)).copied();
        let thread = thread::Builder::new().name(format!("job {number}")).spawn({
            let watch = watch.clone();
            move || work(plan, &way, core, &watch, &ready, &opened)
        });
        let thread = thread.map_err(|error| Failure::Failed(error.to_string()))?;
        running.push(Running { thread, watch });
    }
    for _ in 0..args.jobs {
        // Jobs that are ready end when the gates are dropped.
        told.recv()
            .unwrap_or_else(|_| Err("a job panicked".to_owned()))
            .map_err(|why| Failure::Failed(format!("{}: {why}", args.path)))?;
    }
    for gate in gates {
        // A job that is not there any more says so when it is joined.
        let _ = gate.send(());
    }
    Ok(running)
}

/// Blocks of one job: its share if it keeps a ledger, else all.
fn share(blocks: u64, number: usize, jobs: usize, whole: bool) -> (Range<u64>, u64) {
    let edge = |n: usize| {
        let wide = u128::from(blocks) * n as u128 / jobs as u128;
        u64::try_from(wide).expect("at most `blocks`")
    };
    let (start, end) = (edge(number), edge(number + 1));
    (if whole { 0..blocks } else { start..end }, start)
}

fn plan(
    args: &RunArgs,
    device: &Device,
    blocks: u64,
    number: usize,
    ledger: Option<&Ledger>,
) -> Result<Plan, Failure> {
    let (range, first) = share(blocks, number, args.jobs, ledger.is_none());
    let base = args.offset.unwrap_or(0) / args.bs;
    let (range, first) = (range.start + base..range.end + base, first + base);
    let io_bytes = u32::try_from(args.bs).map_err(|e| Failure::Usage(e.to_string()))?;
    #[expect(clippy::cast_precision_loss, reason = "jobs are few")]
    let rate = args.rate.map(|rate| rate / args.jobs as f64);
    let all = || thread::available_parallelism().map_or(1, usize::from);
    let cores = if args.cpus.is_empty() { all() } else { args.cpus.len() };
    Ok(Plan {
        shape: Shape {
            job: number,
            slots: args.qd,
            io_bytes,
            block_bytes: device.block_bytes,
            verify: args.verify,
            durable: device.durable,
            // Jobs that share a core would look at each other's cost.
            busy_poll: if args.jobs > cores { Duration::ZERO } else { args.busy_poll },
        },
        mix: args.rw,
        ledger: ledger.map(|whole| whole.share(range.clone())),
        blocks: range,
        first,
        seed: args.seed.wrapping_add(number as u64),
        rate,
        warmup: args.warmup,
        time: args.time,
    })
}

/// A job's thread.
fn work(
    plan: Plan,
    way: &place::Way,
    core: Option<usize>,
    watch: &Watch,
    ready: &Sender<Result<(), String>>,
    opened: &Receiver<()>,
) -> Done {
    let pinned =
        core.map_or(Ok(()), |core| cpu::pin(&[core])).map_err(|error| format!("--cpus: {error}"));
    let transport = pinned.and_then(|()| transport::open(way, plan.shape));
    let idle = |ledger, broken| Done {
        tally: Tally::new(),
        ledger,
        cpu_nanos: 0,
        waited_nanos: 0,
        measured: Duration::ZERO,
        broken,
    };
    let mut transport = match transport {
        Ok(transport) => transport,
        Err(why) => {
            let _ = ready.send(Err(why.clone()));
            return idle(plan.ledger, Some(why));
        }
    };
    let _ = ready.send(Ok(()));
    if opened.recv().is_err() {
        return idle(plan.ledger, None);
    }
    job::run(plan, &mut *transport, watch)
}

/// Draws progress, hands signals on, and takes the server's CPU time in the measured part.
fn watch(args: &RunArgs, jobs: &[Running], stop: &AtomicBool) -> Option<Served> {
    let began = Instant::now();
    let bar = progress(args);
    let server = || args.server_pid.and_then(Seen::now);
    let (from, end) = (began + args.warmup, began + args.warmup + args.time);
    let (mut first, mut last, mut before) = (None, None, (began, 0));
    while !jobs.iter().all(|job| job.thread.is_finished()) {
        let now = Instant::now();
        if first.is_none() && now >= from {
            first = Some(server());
        }
        if last.is_none() && now >= end {
            last = Some(server());
            bar.set_message("finishing");
        }
        if stop.load(Ordering::Relaxed) {
            jobs.iter().for_each(|job| job.watch.stop.store(true, Ordering::Relaxed));
        }
        let requests: u64 = jobs.iter().map(|job| job.watch.requests.load(Ordering::Relaxed)).sum();
        if last.is_none() {
            bar.set_position(u64::try_from((now - began).as_millis()).unwrap_or(u64::MAX));
            bar.set_message(speed(requests - before.1, now - before.0, args.bs));
        }
        before = (now, requests);
        let next = [first.is_none().then_some(from), last.is_none().then_some(end)];
        let next = next.into_iter().flatten().map(|at| at.saturating_duration_since(now));
        thread::sleep(next.min().map_or(TICK, |next| next.min(TICK)).max(Duration::from_millis(1)));
    }
    bar.finish_and_clear();
    let last = last.unwrap_or_else(server);
    Some(last?.since(first??))
}

/// The account of a server, and of the cores it may use.
#[derive(Debug, Clone, Copy)]
struct Seen {
    server: cpu::Account,
    cores: cpu::Cores,
}

impl Seen {
    fn now(pid: u32) -> Option<Self> {
        let cores = cpu::of_cores(pid).unwrap_or_default();
        Some(Self { server: cpu::of_process(pid).ok()?, cores })
    }

    /// What others kept the server from: no more than it waited, since others may run when it does
    /// not want to; and no more than they ran, since its own threads wait for each other.
    fn since(self, before: Self) -> Served {
        let server = self.server.since(before.server);
        let busy = self.cores.busy.saturating_sub(before.cores.busy);
        let others = busy.saturating_sub(server.ran);
        let stolen = self.cores.stolen.saturating_sub(before.cores.stolen);
        Served { cpu: server.ran, waited: server.waited.min(others), stolen }
    }
}

fn progress(args: &RunArgs) -> ProgressBar {
    if args.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let length = u64::try_from((args.warmup + args.time).as_millis()).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("{wide_bar} {msg}").expect("a good template");
    ProgressBar::new(length).with_style(style)
}

#[expect(clippy::cast_precision_loss, reason = "for the eye")]
fn speed(requests: u64, time: Duration, bytes: u64) -> String {
    let rate = requests as f64 / time.as_secs_f64().max(1e-3);
    format!("{} IOPS  {}/s", show_count(rate), show_bytes(rate * bytes as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_block_once() {
        for (blocks, jobs) in [(10, 3), (7, 7), (1 << 40, 5)] {
            let mut next = 0;
            for number in 0..jobs {
                let (range, first) = share(blocks, number, jobs, false);
                assert_eq!((range.start, first), (next, next));
                assert!(!range.is_empty());
                next = range.end;
            }
            assert_eq!(next, blocks);
        }
        assert_eq!(share(10, 1, 2, true), (0..10, 5));
    }
}
