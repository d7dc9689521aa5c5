//! A thousand exports and a thousand idle sessions in one process: what they cost.
//!
//! Starts the target, waits for its `ready`, measures its memory, loads one unit with random reads
//! in turn without and with idle sessions, and tells.
//!
//! Exit code 0: measured; 1: something failed; 2: wrong usage.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use corbel_initiator::blocking::now;
use corbel_tests::drive::process::{at_share, resident_kib};
use corbel_tests::drive::{AnyError, Disk, IscsiDisk, IscsiPlace, Operation, PATIENCE, end};
use corbel_tests::rng::Rng;

#[derive(Debug, Parser)]
#[command(about = "Start-up time, memory and effect on a busy unit of many exports and sessions")]
struct Arguments {
    /// The iSCSI portal of the target that is started.
    #[arg(long, value_name = "ADDR:PORT")]
    portal: SocketAddr,
    /// Targets' names, with `{}` for the number from 0.
    #[arg(long, value_name = "IQN")]
    target: String,
    /// Exports that the target's configuration has.
    #[arg(long, default_value_t = 1000)]
    exports: u32,
    /// Idle sessions, spread over the exports.
    #[arg(long, default_value_t = 1000)]
    sessions: u32,
    /// Rounds of each load.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of one load.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Print JSON only.
    #[arg(long)]
    json: bool,
    /// The target's program and arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ending what we started; if it has ended by itself, nothing is left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> ExitCode {
    end("idle-sessions", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), AnyError> {
    let began = Instant::now();
    let (program, rest) = arguments.program.split_first().ok_or("no program")?;
    let child = Command::new(program).args(rest).stdout(Stdio::piped()).spawn()?;
    let mut target = Running(child);
    let output = target.0.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    while lines.next().ok_or("the target ended before it was ready")?? != "ready" {}
    let start_ms = began.elapsed().as_millis();
    let pid = target.0.id();
    let rss_start = resident_kib(pid)?;

    let place = |number: u32| IscsiPlace {
        portal: arguments.portal,
        target: arguments.target.replace("{}", &number.to_string()),
        lun: 0,
    };
    let mut busy = place(0).connect(1)?;
    let blocks = busy.blocks()?;
    let (mut few, mut many) = (Vec::new(), Vec::new());
    let (mut rss_sessions, mut login_ms) = (0, 0);
    for round in 0..arguments.rounds {
        few.push(load(&mut busy, blocks, arguments.seconds, u64::from(round))?);
        let began = Instant::now();
        let mut idle = Vec::new();
        for number in 0..arguments.sessions {
            idle.push(place(number % arguments.exports).connect(10 + number)?);
        }
        login_ms = began.elapsed().as_millis();
        rss_sessions = rss_sessions.max(resident_kib(pid)?);
        many.push(load(&mut busy, blocks, arguments.seconds, u64::from(round))?);
        for disk in &mut idle {
            disk.session().ping(PATIENCE)?;
        }
    }
    few.sort_unstable();
    many.sort_unstable();
    let (few, many) = (at_share(&few, 0.5), at_share(&many, 0.5));
    let report = serde_json::json!({
        "exports": arguments.exports,
        "idle_sessions": arguments.sessions,
        "start_ms": start_ms,
        "rss_start_kib": rss_start,
        "rss_with_sessions_kib": rss_sessions,
        "kib_per_session": rss_sessions.saturating_sub(rss_start) / u64::from(arguments.sessions),
        "logins_ms": login_ms,
        "read_4k_qd32_iops_few_sessions": few,
        "read_4k_qd32_iops_idle_sessions": many,
        "ratio_percent": many * 100 / few.max(1),
    });
    if arguments.json {
        println!("{report}");
        return Ok(());
    }
    println!(
        "{} exports ready in {start_ms} ms, {rss_start} KiB; {} sessions logged in within \
         {login_ms} ms, {rss_sessions} KiB; 4 KiB random reads, 32 at a time: {few}/s alone, \
         {many}/s beside them ({} %)\n{report}",
        arguments.exports,
        arguments.sessions,
        many * 100 / few.max(1),
    );
    Ok(())
}

/// Random reads of 4 KiB, 32 at a time; how many in a second.
fn load(disk: &mut IscsiDisk, blocks: u64, seconds: u64, seed: u64) -> Result<u64, AnyError> {
    let mut rng = Rng::new(seed);
    let mut read = |disk: &mut IscsiDisk, id| {
        disk.submit(id, Operation::Read { first: rng.below(blocks / 8) * 8, blocks: 8 });
    };
    (0..32).for_each(|id| read(disk, id));
    let end = now() + Duration::from_secs(seconds);
    let mut done = 0;
    while now() < end {
        let ended = disk.next(now() + PATIENCE)?.ok_or("a read hangs")?;
        ended.result?;
        done += 1;
        read(disk, ended.id);
    }
    for _ in 0..32 {
        disk.next(now() + PATIENCE)?.ok_or("a read hangs")?.result?;
    }
    Ok(done / seconds)
}
