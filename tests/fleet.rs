//! Targets and initiators as shipped, in virtual time, on machines and cables that fail.
//!
//! env: `CORBEL_SEED` (replay one), `CORBEL_SEEDS` (how many, from 0), `CORBEL_TRACE=1` (say what
//! happens; with `CORBEL_SEED`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corbel_initiator::multipath::rules::Rules;
use corbel_tests::fleet::run::{Failure, Report, run};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Like `run`; a panic is a failure like any other.
fn attempt(seed: u64, rules: Rules) -> Result<Report, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(seed, rules, false))).unwrap_or_else(|cause| {
        let words = cause.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| cause.downcast_ref::<&str>().copied());
        let what = vec![format!("panic: {}", words.unwrap_or("of no words"))];
        Err(Failure { seed, what })
    })
}

/// Runs seeds on all cores until `enough` of them failed. Failures, and seeds run.
fn sweep(seeds: std::ops::Range<u64>, rules: Rules, enough: usize) -> (Vec<Failure>, u64) {
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let started = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let full = || failures.lock().expect("no thread panics").len() >= enough;
                    if seed >= seeds.end || full() {
                        return;
                    }
                    if let Err(failure) = attempt(seed, rules) {
                        failures.lock().expect("no thread panics").push(failure);
                    }
                    let done = seed - seeds.start + 1;
                    if done.is_multiple_of(10_000) {
                        eprintln!("{done} seeds, {} s", started.elapsed().as_secs());
                    }
                }
            });
        }
    });
    let run = next.into_inner().min(seeds.end) - seeds.start;
    (failures.into_inner().expect("no thread panics"), run)
}

#[test]
fn no_seed_breaks_a_promise() {
    let default = if cfg!(debug_assertions) { 200 } else { 20_000 };
    let count = number("CORBEL_SEEDS").unwrap_or(default);
    let started = Instant::now();
    let (failures, run) = sweep(0..count, Rules::SOUND, 10);
    let took = started.elapsed().max(Duration::from_millis(1));
    eprintln!("{run} seeds in {:.1} s", took.as_secs_f64());
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    assert!(failures.is_empty(), "{} of {run} seeds failed", failures.len());
}

#[test]
fn one_seed() {
    let seed = number("CORBEL_SEED").unwrap_or(1);
    let aloud = std::env::var_os("CORBEL_TRACE").is_some();
    match run(seed, Rules::SOUND, aloud) {
        Ok(report) => eprintln!("seed {seed}: {report:?}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..20 {
        let twice = [0; 2].map(|_| attempt(seed, Rules::SOUND).map(|report| report.hash));
        if let [Ok(first), Ok(second)] = twice {
            assert_eq!(first, second, "seed {seed}");
        }
    }
}

/// Its name, and how to break it.
type Mutant = (&'static str, fn(&mut Rules));

/// The safety rules, each switched off: what the simulator must notice.
const MUTANTS: [Mutant; 13] = [
    ("hold_overlap", |rules| rules.hold_overlap = false),
    ("hold_flush", |rules| rules.hold_flush = false),
    ("keep_device_errors", |rules| rules.keep_device_errors = false),
    ("respect_age", |rules| rules.respect_age = false),
    ("flush_all_domains", |rules| rules.flush_all_domains = false),
    ("retry_path_errors", |rules| rules.retry_path_errors = false),
    ("check_identity", |rules| rules.check_identity = false),
    ("order_overlaps", |rules| rules.order_overlaps = false),
    ("fail_lost_cache", |rules| rules.fail_lost_cache = false),
    ("remember_caches", |rules| rules.remember_caches = false),
    ("reissue_after_doubt", |rules| rules.reissue_after_doubt = false),
    ("prove_at_one_process", |rules| rules.prove_at_one_process = false),
    ("check_bounds", |rules| rules.check_bounds = false),
];

/// Each mutant is caught within so many seeds.
const MUTANT_SEEDS: u64 = 2_000;

#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes unless optimised; tests/run.sh does it")]
fn every_broken_rule_is_noticed() {
    let mut unnoticed = Vec::new();
    for (name, break_it) in MUTANTS {
        let mut rules = Rules::SOUND;
        break_it(&mut rules);
        let (failures, run) = sweep(0..MUTANT_SEEDS, rules, 1);
        match failures.iter().min_by_key(|failure| failure.seed) {
            Some(first) => eprintln!("{name}: seed {}: {}", first.seed, first.what[0]),
            None => unnoticed.push(name),
        }
        eprintln!("{name}: {run} seeds");
    }
    assert!(unnoticed.is_empty(), "nobody notices if these are off: {unnoticed:?}");
}
