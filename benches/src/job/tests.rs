use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::transport::Durable;

const IO_BYTES: u32 = 4096;

/// A device in memory that can misbehave.
#[derive(Default)]
struct Fake {
    blocks: BTreeMap<u64, Vec<u8>>,
    under_way: VecDeque<(u32, bool, u64, Option<Vec<u8>>)>,
    memory: BTreeMap<u32, Vec<u8>>,
    /// This write, counted from 1, is acknowledged and forgotten.
    forget: u64,
    /// Every so many requests one fails.
    fail_each: u64,
    writes: u64,
    requests: u64,
    /// Answers only every so often.
    pause: Duration,
}

impl Transport for Fake {
    fn submit(&mut self, _: Instant, slot: u32, write: bool, offset: u64, data: Option<&[u8]>) {
        self.under_way.push_back((slot, write, offset, data.map(<[u8]>::to_vec)));
    }

    fn turn(&mut self, wait: Duration, ended: &mut Vec<Ended>) -> Result<(), String> {
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        } else if self.under_way.is_empty() {
            std::thread::sleep(wait);
        }
        while let Some((slot, write, offset, data)) = self.under_way.pop_front() {
            self.requests += 1;
            if self.fail_each > 0 && self.requests.is_multiple_of(self.fail_each) {
                ended.push(Ended { slot, result: Err("as told".to_owned()) });
                continue;
            }
            if write {
                self.writes += 1;
                if self.writes != self.forget {
                    self.blocks.insert(offset, data.unwrap_or_default());
                }
            } else {
                let zeros = || vec![0; IO_BYTES as usize];
                let block = self.blocks.get(&offset).cloned().unwrap_or_else(zeros);
                self.memory.insert(slot, block);
            }
            ended.push(Ended { slot, result: Ok(()) });
        }
        Ok(())
    }

    fn fetch(&self, slot: u32, into: &mut [u8]) {
        into.copy_from_slice(&self.memory[&slot]);
    }

    fn repeated(&self) -> u64 {
        0
    }

    fn leave(&mut self) {}
}

fn plan(mix: &str, blocks: u64, ledger: bool) -> Plan {
    let ledger = ledger.then(|| Ledger::new(5, IO_BYTES.into(), blocks).unwrap());
    Plan {
        shape: Shape {
            job: 0,
            slots: 8,
            io_bytes: IO_BYTES,
            block_bytes: 512,
            verify: true,
            durable: Durable::AsAnswered,
            busy_poll: std::time::Duration::ZERO,
        },
        mix: mix.parse().unwrap(),
        blocks: 0..blocks,
        first: 0,
        seed: 1,
        rate: None,
        warmup: Duration::ZERO,
        time: Duration::from_millis(40),
        ledger,
    }
}

fn run_on(fake: &mut Fake, plan: Plan) -> Done {
    let done = run(plan, fake, &Watch::default());
    assert_eq!(done.broken, None);
    done
}

/// Runs for as long as it takes until `enough` was done: a machine that is busy with something else
/// may give us nothing of the first milliseconds. `new` makes each attempt's device.
fn run_until(
    new: impl Fn() -> Fake,
    mut plan: Plan,
    enough: impl Fn(&Tally) -> bool,
) -> (Fake, Done) {
    loop {
        let mut fake = new();
        let done = run_on(&mut fake, plan.clone());
        if enough(&done.tally) {
            return (fake, done);
        }
        assert!(plan.time < Duration::from_secs(60), "{:?}", done.tally);
        plan.time *= 4;
    }
}

#[test]
fn a_device_that_keeps_what_it_acknowledged_passes() {
    // A block that was never written cannot be checked.
    let enough = |tally: &Tally| tally.reads.requests > 0 && tally.verified.checked >= 64;
    let (_, done) = run_until(Fake::default, plan("randrw=50", 64, true), enough);
    let tally = done.tally;
    assert_eq!((tally.verified.wrong, tally.failed), (0, 0), "{:?}", tally.verified);
}

#[test]
fn a_write_that_was_acknowledged_and_forgotten_is_found_by_the_last_reading() {
    // The load writes alone; each block is written many times, and the last of all is forgotten.
    let enough = |tally: &Tally| tally.writes.requests >= 64;
    let (mut fake, first) = run_until(Fake::default, plan("write", 16, true), enough);
    let mut again = plan("write", 16, true);
    again.ledger = first.ledger;
    (again.shape.slots, again.time) = (1, Duration::ZERO);
    let mut ledger = again.ledger.clone().unwrap();
    ledger.begin(3);
    ledger.acknowledge(3);
    again.ledger = Some(ledger);
    let verified = run_on(&mut fake, again).tally.verified;
    assert_eq!((verified.stale, verified.wrong, verified.checked), (1, 1, 16));
    assert!(verified.findings[0].starts_with("byte 12288,"), "{:?}", verified.findings);
}

#[test]
fn a_lost_first_write_is_found() {
    let new = || Fake { forget: 3, ..Fake::default() };
    let mut once = plan("write", 1 << 20, true);
    once.time = Duration::from_millis(5);
    let enough = |tally: &Tally| tally.writes.requests > 3;
    let verified = run_until(new, once, enough).1.tally.verified;
    assert_eq!((verified.lost, verified.wrong), (1, 1), "{verified:?}");
}

#[test]
fn a_failed_write_leaves_its_block_in_doubt_and_is_no_finding() {
    let new = || Fake { fail_each: 7, ..Fake::default() };
    let (_, done) = run_until(new, plan("randrw=50", 64, true), |tally| tally.failed > 0);
    let tally = done.tally;
    assert_eq!(tally.errors, ["as told"]);
    assert_eq!(tally.verified.wrong, 0, "{:?}", tally.verified);
}

#[test]
fn fewer_blocks_than_slots_leave_slots_empty() {
    let done = run_on(&mut Fake::default(), plan("randrw=50", 2, true));
    assert_eq!(done.tally.verified.wrong, 0);
}

#[test]
fn a_paced_load_keeps_to_its_rate_and_counts_the_wait_behind_a_slow_device() {
    let mut paced = plan("randread", 1 << 20, false);
    (paced.rate, paced.time) = (Some(1000.0), Duration::from_millis(100));
    let (_, done) = run_until(Fake::default, paced.clone(), |tally| tally.reads.requests > 0);
    let requests = done.tally.reads.requests;
    let due = done.measured.as_nanos() / 1_000_000 + 1;
    assert!(u128::from(requests) <= due, "{requests} of {due}");
    // Eight answers each 20 ms, 20 wanted: the wait grows.
    let mut slow = Fake { pause: Duration::from_millis(20), ..Fake::default() };
    let latency = run_on(&mut slow, paced).tally.reads.latency().unwrap();
    assert!(latency.max > 40_000_000, "{latency:?}");
}
