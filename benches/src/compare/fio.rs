//! fio with the load of a sample, on the file itself: what a target could at most make of it.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::sample::Load;
use super::server::Server;
use crate::cpu;

/// How often its account is looked at while it runs: the last look counts.
const LOOK: Duration = Duration::from_millis(20);

/// The command line.
pub(super) fn words(server: &Server, load: &Load, time: Duration, cores: &[usize]) -> Vec<String> {
    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    let mut words = vec![server.command.clone()];
    words.extend([
        "--name=limit".to_owned(),
        format!("--filename={}", server.path),
        format!("--size={}", server.store_bytes),
        format!("--rw={}", load.rw),
        format!("--bs={}", load.bs),
        format!("--iodepth={}", load.qd),
        format!("--runtime={}ms", time.as_millis()),
        format!("--cpus_allowed={}", cores.join(",")),
    ]);
    let always = ["--ioengine=io_uring", "--direct=1", "--time_based=1", "--ramp_time=100ms"];
    words.extend(always.map(str::to_owned));
    words.extend(["--norandommap=1", "--thread=1", "--output-format=json"].map(str::to_owned));
    words.extend(load.durable.then(|| "--sync=dsync".to_owned()));
    words
}

/// Runs it, and gives its figures in the places where `corbel-bench run` has them. Its CPU time
/// stands where a server's does.
pub(super) fn run(words: &[String], load: &Load) -> Result<Value, String> {
    let child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| format!("{}: {error}", words[0]))?;
    let waited = watch(&mut child)?;
    let mut text = String::new();
    let out = child.stdout.take().map(|mut out| out.read_to_string(&mut text));
    out.transpose().map_err(|error| error.to_string())?;
    figures(&text, load, waited).ok_or_else(|| format!("fio, {}: {}", load.name(), text.trim()))
}

/// Waits for its end. How long it was ready and did not run, nanoseconds. What it prints fits the
/// pipe.
fn watch(child: &mut Child) -> Result<u64, String> {
    let mut waited = 0;
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        let account = cpu::of_process(child.id()).unwrap_or_default();
        waited = waited.max(account.waited);
        thread::sleep(LOOK);
    }
    Ok(waited)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(text: &str, load: &Load, waited: u64) -> Option<Value> {
    // Remarks may come before it.
    let told: Value = serde_json::from_str(&text[text.find('{')?..]).ok()?;
    let job = told.pointer("/jobs/0")?;
    let side = if load.rw.ends_with("write") { "write" } else { "read" };
    let figure = |pointer: &str| job.pointer(pointer).and_then(Value::as_f64);
    let own = |name: &str| figure(&format!("/{side}/{name}"));
    let iops = own("iops").filter(|iops| *iops > 0.0 && figure("/error") == Some(0.0))?;
    let percentile = |name: &str| own(&format!("clat_ns/percentile/{name}"));
    let latency = json!({
        "p50": percentile("50.000000")?,
        "p99": percentile("99.000000")?,
        "p99_9": percentile("99.900000")?,
    });
    let cores = (figure("/usr_cpu")? + figure("/sys_cpu")?) / 100.0;
    let life = figure("/job_runtime")? * 1e6;
    let starved = if life > 0.0 { waited as f64 / life } else { 0.0 };
    Some(json!({
        "iops": iops,
        "bytes_per_second": own("bw_bytes")?,
        side: { "latency_ns": latency },
        "cpu": { "server_ns_per_request": cores / iops * 1e9 },
        "starved": { "server": starved },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = r#"note: a remark
{ "fio version": "fio-3.33", "jobs": [ {
    "error": 0, "job_runtime": 250, "usr_cpu": 10.0, "sys_cpu": 15.0,
    "read": { "iops": 50000.0, "bw_bytes": 204800000, "clat_ns": { "percentile": {
        "50.000000": 5000, "99.000000": 9000, "99.900000": 12000 } } },
    "write": { "iops": 0.0 }
} ] }"#;

    #[test]
    fn figures_are_where_those_of_a_server_are() {
        let load = Load::new("randread", 4096, 32);
        let told = figures(TOLD, &load, 25_000_000).unwrap();
        let figure = |pointer| told.pointer(pointer).and_then(Value::as_f64).unwrap();
        assert_eq!((figure("/iops"), figure("/read/latency_ns/p99")), (50_000.0, 9000.0));
        assert!((figure("/cpu/server_ns_per_request") - 5000.0).abs() < 1e-6);
        assert!((figure("/starved/server") - 0.1).abs() < 1e-9);
    }

    #[test]
    fn a_run_that_did_nothing_or_failed_has_no_figures() {
        assert!(figures(TOLD, &Load::new("randwrite", 4096, 32), 0).is_none());
        let failed = TOLD.replace("\"error\": 0", "\"error\": 5");
        assert!(figures(&failed, &Load::new("randread", 4096, 32), 0).is_none());
        assert!(figures("fio: no such file", &Load::new("randread", 4096, 32), 0).is_none());
    }
}
