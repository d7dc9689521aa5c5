//! One load on one server for a moment, and how fast the machine itself was just then.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use super::fio;
use super::kind::Kind;
use super::server::Server;
use crate::cpu;
use crate::pattern::Rng;
use crate::report::Starved;

/// A load, the same for all servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Load {
    pub(crate) rw: &'static str,
    pub(crate) bs: u64,
    pub(crate) qd: u32,
    /// Beside somebody who writes 64 x 256 KiB at a time to the same device.
    pub(crate) beside_writer: bool,
    /// A write counts when it is on stable storage.
    pub(crate) durable: bool,
    /// Each with a queue of that depth.
    pub(crate) sessions: u32,
}

impl Load {
    pub(crate) const fn new(rw: &'static str, bs: u64, qd: u32) -> Self {
        Self { rw, bs, qd, beside_writer: false, durable: false, sessions: 1 }
    }

    pub(crate) const fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    pub(crate) const fn sessions(self, sessions: u32) -> Self {
        Self { sessions, ..self }
    }

    pub(crate) const fn beside_writer(self) -> Self {
        Self { beside_writer: true, ..self }
    }

    pub(crate) fn name(&self) -> String {
        let size = match self.bs {
            bs if bs >= 1 << 20 => format!("{} MiB", bs >> 20),
            bs => format!("{} KiB", bs >> 10),
        };
        let mut name = format!("{} {size}, QD {}", self.rw, self.qd);
        if self.sessions > 1 {
            name = format!("{name} x {}", self.sessions);
        }
        let more = [(self.beside_writer, " + writer"), (self.durable, ", durable")];
        name.extend(more.iter().filter(|more| more.0).map(|more| more.1));
        name
    }
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) server: &'static str,
    pub(crate) load: Load,
    /// Server and load shared a core.
    pub(crate) shared: bool,
    /// Time of a fixed piece of work on the client's core just before, nanoseconds.
    pub(crate) calibration_ns: u64,
    /// The report of `corbel-bench run`.
    pub(crate) report: Value,
}

impl Sample {
    /// A figure of the report, by its place in the JSON.
    pub(crate) fn figure(&self, pointer: &str) -> Option<f64> {
        self.report.pointer(pointer).and_then(Value::as_f64)
    }

    /// Somebody who took part was ready to run for much of the time, and others ran.
    pub(crate) fn is_starved(&self) -> bool {
        // A reader shares its core with the writer beside it, for each server alike; and servers
        // share the load's where they may use it.
        let alone = !self.load.beside_writer && !self.shared;
        let own = self.figure("/starved/own").filter(|_| alone);
        let server = self.figure("/starved/server").filter(|_| !self.shared);
        let shares = [own, server, self.figure("/starved/stolen")];
        shares.into_iter().flatten().any(|share| share > Starved::MUCH)
    }

    /// One of the latencies, nanoseconds.
    pub(crate) fn latency(&self, name: &str) -> Option<f64> {
        let side = if self.load.rw.ends_with("write") { "write" } else { "read" };
        self.figure(&format!("/{side}/latency_ns/{name}"))
    }
}

/// Long enough for some passes over a store, at a tenth of what any of them makes of it.
const FILL_TIME: Duration = Duration::from_secs(2);

/// Logged in, and its queue full, by then.
const WRITER_BEGINS: Duration = Duration::from_millis(300);

/// Should nobody end it.
const WRITER_MAX: Duration = Duration::from_secs(60);

/// Ends with the sample.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How samples are taken.
pub(crate) struct Taking<'a> {
    pub(crate) time: Duration,
    pub(crate) client_core: usize,
    /// Of the servers.
    pub(crate) server_cores: &'a [usize],
    /// Namespace of the client, if it is not ours.
    pub(crate) namespace: Option<&'a str>,
}

impl Taking<'_> {
    /// The command line of a sample, whose last words are the server's.
    pub(crate) fn words(&self, server: &Server, load: Load) -> Vec<String> {
        if server.kind == Kind::Fio {
            return fio::words(server, &load, self.time, self.server_cores);
        }
        let program = std::env::current_exe().unwrap_or_else(|_| "corbel-bench".into());
        let mut words = Vec::new();
        if let Some(namespace) = self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
        }
        words.push(program.display().to_string());
        let (bs, qd) = (load.bs.to_string(), load.qd.to_string());
        let (time, core) = (format!("{}ms", self.time.as_millis()), self.client_core.to_string());
        let line = ["run", "--json", "--rw", load.rw, "--bs", &bs, "--qd", &qd, "--time", &time];
        words.extend(line.map(str::to_owned));
        words.extend(["--warmup", "100ms", "--cpus", &core].map(str::to_owned));
        if let Some(pid) = server.pid() {
            words.extend(["--server-pid".to_owned(), pid.to_string()]);
        }
        if load.sessions > 1 {
            words.extend(["--jobs".to_owned(), load.sessions.to_string()]);
        }
        words.extend(load.durable.then(|| "--durable".to_owned()));
        // A read that overlaps a write waits for it where reads are consistent; that is not what is
        // compared here. So each has a half of the device.
        let half = (server.store_bytes / 2).to_string();
        if load.beside_writer {
            words.extend(["--size", &half].map(str::to_owned));
        }
        words.push(server.path.clone());
        words
    }

    /// Starts somebody who writes to the same device, and waits until that is under way. He has
    /// what the measured client leaves of its core.
    fn writer(&self, server: &Server) -> Result<Writer, String> {
        let ever = Taking { time: WRITER_MAX, ..*self };
        let words = ever.words(server, Load::new("write", 256 << 10, 64));
        let half = (server.store_bytes / 2).to_string();
        // Ordinary and nice, also where all this was started with a real-time policy.
        let child = Command::new("chrt")
            .args(["--other", "0", "nice", "-n", "10"])
            .args(words)
            .args(["--offset", &half])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let writer = Writer(child.map_err(|error| error.to_string())?);
        thread::sleep(WRITER_BEGINS);
        Ok(writer)
    }

    /// Takes one.
    ///
    /// # Errors
    /// If the run failed.
    pub(crate) fn sample(
        &self,
        round: usize,
        server: &Server,
        load: Load,
    ) -> Result<Sample, String> {
        let calibration_ns = calibrate(self.client_core);
        let words = self.words(server, load);
        let name = server.kind.name();
        let shared = self.server_cores.contains(&self.client_core);
        let sample = |report| Sample { round, server: name, load, shared, calibration_ns, report };
        if server.kind == Kind::Fio {
            return fio::run(&words, &load).map(sample);
        }
        server.go_on();
        let writer = load.beside_writer.then(|| self.writer(server)).transpose()?;
        let done = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output();
        drop(writer);
        server.pause();
        let done = done.map_err(|error| error.to_string())?;
        let failed = || {
            let said = String::from_utf8_lossy(&done.stderr);
            let why = why_not(&done.stdout).unwrap_or_else(|| said.trim().to_owned());
            format!("{name}, {}: {why}", load.name())
        };
        if !done.status.success() {
            return Err(failed());
        }
        let mut report = serde_json::from_slice(&done.stdout).map_err(|_| failed())?;
        if server.kind.polls() {
            all_its_time(&mut report, self.server_cores.len());
        }
        Ok(sample(report))
    }

    /// Writes the whole store once, so that memory is what it says to be.
    ///
    /// # Errors
    /// If that fails.
    pub(crate) fn fill(&self, server: &Server) -> Result<(), String> {
        let pass = Taking { time: FILL_TIME, ..*self };
        pass.sample(0, server, Load::new("write", 1 << 20, 8)).map(drop)
    }
}

/// Why a run that has a report did not go well.
fn why_not(report: &[u8]) -> Option<String> {
    let report: Value = serde_json::from_slice(report).ok()?;
    let errors = report.get("errors")?.as_array()?;
    let why = report.get("broken").into_iter().chain(errors).filter_map(Value::as_str);
    Some(why.collect::<Vec<_>>().join("; ")).filter(|why| !why.is_empty())
}

/// One that never sleeps takes all its cores' time. With a real-time policy the scheduler's account
/// of it lags, and says less.
fn all_its_time(report: &mut Value, cores: usize) {
    let iops = report.pointer("/iops").and_then(Value::as_f64).filter(|iops| *iops > 0.0);
    let cores = u32::try_from(cores).map_or(0.0, f64::from);
    if let (Some(iops), Some(cpu)) = (iops, report.pointer_mut("/cpu/server_ns_per_request")) {
        *cpu = (cores * 1e9 / iops).into();
    }
}

/// Times a fixed piece of work. A machine that is left alone takes the same time each time.
fn calibrate(core: usize) -> u64 {
    let work = move || {
        // Wherever it runs, it is a measure.
        let _ = cpu::pin(&[core]);
        let (began, mut rng, mut sum) = (Instant::now(), Rng::new(1), 0_u64);
        for _ in 0..1_000_000 {
            sum = sum.wrapping_add(std::hint::black_box(rng.next()));
        }
        std::hint::black_box(sum);
        u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    };
    thread::spawn(work).join().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_failed_says_why() {
        let why = why_not(br#"{ "broken": "closed", "errors": ["SCSI status 0x02"] }"#);
        assert_eq!(why.as_deref(), Some("closed; SCSI status 0x02"));
        assert_eq!(why_not(br#"{ "broken": null, "errors": [] }"#), None);
    }

    #[test]
    fn who_never_sleeps_takes_all_the_time_there_is() {
        let mut report = serde_json::json!({
            "iops": 500_000.0, "cpu": { "server_ns_per_request": 532.0 }
        });
        all_its_time(&mut report, 1);
        assert_eq!(report.pointer("/cpu/server_ns_per_request"), Some(&2000.0.into()));
    }

    #[test]
    fn a_write_has_the_latency_of_its_writes() {
        let report = serde_json::json!({
            "starved": { "own": 0.25, "server": 0.01 },
            "iops": 5.0, "read": null, "write": { "latency_ns": { "p50": 7 } }
        });
        let load = Load::new("randwrite", 4096, 32);
        let shared = false;
        let sample = Sample { round: 0, server: "a", load, shared, calibration_ns: 1, report };
        assert!(sample.is_starved());
        assert!(!Sample { shared: true, ..sample.clone() }.is_starved());
        assert!(!Sample { load: load.beside_writer(), ..sample.clone() }.is_starved());
        assert_eq!(load.beside_writer().name(), "randwrite 4 KiB, QD 32 + writer");
        assert_eq!((sample.figure("/iops"), sample.latency("p50")), (Some(5.0), Some(7.0)));
        assert_eq!(load.name(), "randwrite 4 KiB, QD 32");
        assert_eq!(load.durable().name(), "randwrite 4 KiB, QD 32, durable");
        assert_eq!(load.sessions(2).name(), "randwrite 4 KiB, QD 32 x 2");
    }
}
