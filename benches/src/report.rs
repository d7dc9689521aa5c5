//! The figures of one run, for people and for programs.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::cli::RunArgs;
use crate::place::Device;
use crate::tally::{Latency, Side, Tally, Verified};
use crate::units::{show_bytes, show_count, show_time};

/// What one direction did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Direction {
    pub(crate) requests: u64,
    pub(crate) iops: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) latency_ns: Latency,
}

/// CPU time in the measured part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Cpu {
    /// Of our own jobs, nanoseconds for each request.
    pub(crate) own_ns_per_request: f64,
    /// Of the server named by `--server-pid`.
    pub(crate) server_ns_per_request: Option<f64>,
    /// Cores that the server kept busy.
    pub(crate) server_cores: Option<f64>,
}

/// CPU time in the measured part, nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Costs {
    pub(crate) own: u64,
    /// The longest that one of our jobs was ready and did not run.
    pub(crate) own_waited: u64,
    pub(crate) server: Option<Served>,
}

/// Of the server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Served {
    pub(crate) cpu: u64,
    /// Others had its core while it was ready to run.
    pub(crate) waited: u64,
    /// The host of this virtual machine had it.
    pub(crate) stolen: u64,
}

/// Shares of the measured time in which somebody was ready and others ran on the core: a figure
/// taken while that was much says something of the others, and not of what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Starved {
    pub(crate) own: f64,
    pub(crate) server: Option<f64>,
    /// By the host of a virtual machine, on the server's cores.
    pub(crate) stolen: Option<f64>,
    /// The largest of these.
    pub(crate) worst: f64,
}

impl Starved {
    /// Above this, a figure is to be thrown away.
    pub(crate) const MUCH: f64 = 0.05;
}

/// Everything, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) path: String,
    pub(crate) rw: String,
    pub(crate) bs: u64,
    pub(crate) qd: u32,
    pub(crate) jobs: usize,
    /// A write counted as done when it was on stable storage.
    pub(crate) durable: bool,
    pub(crate) rate: Option<f64>,
    pub(crate) cpus: Vec<usize>,
    pub(crate) device_bytes: u64,
    /// Length of the measured part.
    pub(crate) seconds: f64,
    pub(crate) iops: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) read: Option<Direction>,
    pub(crate) write: Option<Direction>,
    pub(crate) cpu: Cpu,
    pub(crate) starved: Starved,
    /// Requests that failed.
    pub(crate) failed: u64,
    pub(crate) errors: Vec<String>,
    /// Commands sent again: the target was busy, or a frame was lost.
    pub(crate) repeated: u64,
    pub(crate) verify: Option<Verified>,
    /// Why it ended before its time.
    pub(crate) broken: Option<String>,
    pub(crate) note: Option<String>,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Report {
    pub(crate) fn new(
        args: &RunArgs,
        device: &Device,
        tally: &Tally,
        measured: Duration,
        costs: Costs,
        broken: Option<String>,
    ) -> Self {
        let seconds = measured.as_secs_f64();
        let per_second = |n: f64| if seconds > 0.0 { n / seconds } else { 0.0 };
        let direction = |side: &Side| {
            Some(Direction {
                requests: side.requests,
                iops: per_second(side.requests as f64),
                bytes_per_second: per_second(side.requests as f64 * args.bs as f64),
                latency_ns: side.latency()?,
            })
        };
        let requests = tally.requests() as f64;
        let Costs { own, own_waited, server } = costs;
        let cores = |nanos: u64| per_second(nanos as f64 / 1e9);
        let [waited, stolen] =
            [server.map(|server| cores(server.waited)), server.map(|server| cores(server.stolen))];
        let worst = [Some(cores(own_waited)), waited, stolen];
        let worst = worst.into_iter().flatten().fold(0.0, f64::max);
        let starved = Starved { own: cores(own_waited), server: waited, stolen, worst };
        let each = |nanos: u64| if requests > 0.0 { nanos as f64 / requests } else { 0.0 };
        Self {
            path: args.path.to_string(),
            rw: args.rw.to_string(),
            bs: args.bs,
            qd: args.qd,
            jobs: args.jobs,
            durable: args.durable,
            rate: args.rate,
            cpus: args.cpus.clone(),
            device_bytes: device.size_bytes,
            seconds,
            iops: per_second(requests),
            bytes_per_second: per_second(requests * args.bs as f64),
            read: direction(&tally.reads),
            write: direction(&tally.writes),
            cpu: Cpu {
                own_ns_per_request: each(own),
                server_ns_per_request: server.map(|server| each(server.cpu)),
                server_cores: server.map(|server| cores(server.cpu)),
            },
            starved,
            failed: tally.failed,
            errors: tally.errors.clone(),
            repeated: tally.repeated,
            verify: args.verify.then(|| tally.verified.clone()),
            broken,
            note: device.note.clone(),
        }
    }

    /// Nothing failed, and nothing was wrong.
    pub(crate) fn is_good(&self) -> bool {
        let wrong = self.verify.as_ref().map_or(0, |verified| verified.wrong);
        self.failed == 0 && wrong == 0 && self.broken.is_none()
    }

    fn write_verified(&self, text: &mut String) -> fmt::Result {
        let Some(verified) = &self.verify else { return Ok(()) };
        write!(text, "verify  {} blocks checked, ", verified.checked)?;
        match verified.wrong {
            0 => writeln!(text, "none wrong")?,
            wrong => writeln!(
                text,
                "{wrong} WRONG: {} stale, {} torn, {} misplaced, {} damaged, {} lost, {} never \
                 made",
                verified.stale,
                verified.torn,
                verified.misplaced,
                verified.damaged,
                verified.lost,
                verified.never_made,
            )?,
        }
        if verified.unknown > 0 {
            let unknown = verified.unknown;
            writeln!(text, "        {unknown} reads of blocks that nothing is known of")?;
        }
        for finding in &verified.findings {
            writeln!(text, "        {finding}")?;
        }
        Ok(())
    }

    fn write_to(&self, text: &mut String) -> fmt::Result {
        let jobs = if self.jobs == 1 { "1 job".to_owned() } else { format!("{} jobs", self.jobs) };
        writeln!(
            text,
            "{}{} {} bytes, QD {}, {jobs}, {:.1} s on {}",
            if self.durable { "durable " } else { "" },
            self.rw,
            self.bs,
            self.qd,
            self.seconds,
            self.path
        )?;
        if let Some(note) = &self.note {
            writeln!(text, "note    {note}")?;
        }
        for (name, side) in [("read", &self.read), ("write", &self.write)] {
            let Some(side) = side else { continue };
            let latency = &side.latency_ns;
            let time = |nanos: u64| show_time(nanos as f64);
            writeln!(
                text,
                "{name:<7} {} IOPS  {}/s  p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                show_count(side.iops),
                show_bytes(side.bytes_per_second),
                time(latency.p50),
                time(latency.p90),
                time(latency.p99),
                time(latency.p99_9),
                time(latency.max),
            )?;
        }
        write!(text, "cpu     own {} a request", show_time(self.cpu.own_ns_per_request))?;
        if let (Some(each), Some(cores)) = (self.cpu.server_ns_per_request, self.cpu.server_cores) {
            write!(text, ", server {} a request ({cores:.2} cores)", show_time(each))?;
        }
        writeln!(text)?;
        if self.starved.worst > Starved::MUCH {
            let percent = 100.0 * self.starved.worst;
            writeln!(text, "STARVED others had the core for {percent:.0} % of the time")?;
        }
        if self.repeated > 0 {
            writeln!(text, "again   {} commands were sent again", self.repeated)?;
        }
        self.write_verified(text)?;
        if self.failed > 0 {
            writeln!(text, "FAILED  {} requests: {}", self.failed, self.errors.join("; "))?;
        }
        match &self.broken {
            Some(why) => writeln!(text, "ENDED   before its time: {why}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_to(&mut text)?;
        f.write_str(text.trim_end())
    }
}
