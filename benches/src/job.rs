//! One thread, one ring, one stream of requests.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use corbel_proto::time::{Duration, Instant};

use crate::cpu::{self, now};
use crate::ledger::Ledger;
use crate::pace::Pace;
use crate::pattern::{Mix, Pattern};
use crate::stamp::{self, SECTOR_BYTES};
use crate::tally::Tally;
use crate::transport::{Ended, Shape, Transport};

/// Looks around at least this often.
const LOOK: Duration = Duration::from_millis(50);
/// How long requests under way may take once no more are begun.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// The kernel ends a wait this much too late. Before a fixed time it is not waited but turned, so
/// that our own sleep is not measured.
const OVERSLEPT: Duration = Duration::from_micros(80);
/// Blocks tried, one after the other, before a slot is left empty since all have a request.
const TRIES: usize = 64;

/// What a job does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) mix: Mix,
    pub(crate) blocks: Range<u64>,
    /// Where requests in order begin.
    pub(crate) first: u64,
    pub(crate) seed: u64,
    /// Requests a second; `None`: as many as there can be.
    pub(crate) rate: Option<f64>,
    pub(crate) warmup: Duration,
    pub(crate) time: Duration,
    pub(crate) ledger: Option<Ledger>,
}

/// What others see of a job while it runs.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Requests that ended well, warm-up included.
    pub(crate) requests: AtomicU64,
    /// Ends it early.
    pub(crate) stop: AtomicBool,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) tally: Tally,
    pub(crate) ledger: Option<Ledger>,
    /// Our own CPU time in the measured part, nanoseconds.
    pub(crate) cpu_nanos: u64,
    /// How long in the measured part the job was ready and did not run.
    pub(crate) waited_nanos: u64,
    /// Length of the measured part.
    pub(crate) measured: Duration,
    /// Why it ended before its time.
    pub(crate) broken: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    block: u64,
    write: bool,
    /// When it was due.
    due: Instant,
}

/// A moment, the job's CPU time until then, and how long it had been kept from running.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    cpu: u64,
    waited: u64,
}

impl Mark {
    fn new(at: Instant) -> Self {
        Self { at, cpu: cpu::of_thread(), waited: cpu::waited_by_thread() }
    }
}

/// The measured part: how long it took, and what the job's thread ran and waited in it.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    time: Duration,
    cpu: u64,
    waited: u64,
}

struct Job<'a> {
    plan: Plan,
    transport: &'a mut dyn Transport,
    watch: &'a Watch,
    pattern: Pattern,
    tally: Tally,
    slots: Vec<Slot>,
    free: Vec<u32>,
    ended: Vec<Ended>,
    /// Where a block is stamped and looked at.
    scratch: Vec<u8>,
    measuring: Option<Mark>,
    /// Commands sent again before the measured part: each new session meets some news.
    repeated_before: u64,
}

/// Runs a job to its end.
pub(crate) fn run(plan: Plan, transport: &mut dyn Transport, watch: &Watch) -> Done {
    let slot = Slot { block: 0, write: false, due: Instant::ZERO };
    let mut job = Job {
        pattern: Pattern::new(plan.mix, plan.seed, plan.blocks.clone(), plan.first),
        tally: Tally::new(),
        slots: vec![slot; plan.shape.slots as usize],
        free: (0..plan.shape.slots).collect(),
        ended: Vec::with_capacity(plan.shape.slots as usize),
        scratch: vec![0; plan.shape.io_bytes as usize],
        measuring: None,
        repeated_before: 0,
        transport,
        watch,
        plan,
    };
    let mut marks = None;
    let mut broken = job.load(&mut marks).err();
    if broken.is_none() && job.plan.ledger.is_some() {
        broken = job.sweep().err();
    }
    if broken.is_none() {
        job.transport.leave();
    }
    job.tally.repeated = job.transport.repeated() - job.repeated_before;
    let Measured { time: measured, cpu: cpu_nanos, waited: waited_nanos } =
        marks.unwrap_or_default();
    let (tally, ledger) = (job.tally, job.plan.ledger);
    Done { tally, ledger, cpu_nanos, waited_nanos, measured, broken }
}

impl Job<'_> {
    /// The measured part, and the warm-up before it.
    fn load(&mut self, marks: &mut Option<Measured>) -> Result<(), String> {
        let begin = now();
        let (from, end) = (begin + self.plan.warmup, begin + self.plan.warmup + self.plan.time);
        let mut pace = Pace::new(self.plan.rate, begin);
        let mut at = begin;
        while at < end && !self.watch.stop.load(Ordering::Relaxed) {
            if self.measuring.is_none() && at >= from {
                self.measuring = Some(Mark::new(at));
                self.repeated_before = self.transport.repeated();
            }
            let wait = self.fill(at, &mut pace).min(end - at);
            self.transport.turn(wait, &mut self.ended)?;
            at = now();
            self.reap(at);
        }
        if let Some(begin) = self.measuring.take() {
            let end = Mark::new(at);
            let (cpu, waited) = (end.cpu - begin.cpu, end.waited.saturating_sub(begin.waited));
            *marks = Some(Measured { time: at - begin.at, cpu, waited });
        }
        self.drain()
    }

    /// Begins what is due; how long to wait for more.
    fn fill(&mut self, at: Instant, pace: &mut Pace) -> Duration {
        while let Some(&slot) = self.free.last() {
            let due = match pace.due(at) {
                Ok(due) => due,
                Err(due) => return (due - at).saturating_sub(OVERSLEPT).min(LOOK),
            };
            let Some((block, write)) = self.choose() else { break };
            self.free.pop();
            pace.begun();
            self.begin(at, slot, Slot { block, write, due });
        }
        LOOK
    }

    /// The next block that has no request; with a ledger, two of one block could not be judged.
    fn choose(&mut self) -> Option<(u64, bool)> {
        let Some(ledger) = &mut self.plan.ledger else { return Some(self.pattern.next()) };
        let mut tries = (0..TRIES).map(|_| self.pattern.next());
        tries.find(|(block, _)| ledger.take(*block))
    }

    fn begin(&mut self, at: Instant, number: u32, slot: Slot) {
        self.slots[number as usize] = slot;
        let offset = slot.block * u64::from(self.plan.shape.io_bytes);
        let mut data = None;
        if let (Some(ledger), true) = (&mut self.plan.ledger, slot.write) {
            let generation = ledger.begin(slot.block);
            let sector = offset / SECTOR_BYTES as u64;
            stamp::put(&mut self.scratch, sector, ledger.series, generation);
            data = Some(&self.scratch[..]);
        }
        self.transport.submit(at, number, slot.write, offset, data);
    }

    /// Counts and judges what has ended.
    fn reap(&mut self, at: Instant) {
        let mut well = 0;
        for Ended { slot: number, result } in self.ended.drain(..) {
            let slot = self.slots[number as usize];
            self.free.push(number);
            if let Some(ledger) = &mut self.plan.ledger {
                ledger.release(slot.block);
                let offset = slot.block * u64::from(self.plan.shape.io_bytes);
                if result.is_ok() && slot.write {
                    ledger.acknowledge(slot.block);
                } else if result.is_ok() {
                    self.transport.fetch(number, &mut self.scratch);
                    let (sector, known) = (offset / SECTOR_BYTES as u64, ledger.known(slot.block));
                    let judgement = stamp::judge(&self.scratch, sector, ledger.series, known);
                    self.tally.verified.judged(offset, judgement);
                }
            }
            match result {
                Ok(()) => {
                    well += 1;
                    if self.measuring.is_some() {
                        let nanos = u64::try_from((at - slot.due).as_nanos()).unwrap_or(u64::MAX);
                        let tally = &mut self.tally;
                        let side = if slot.write { &mut tally.writes } else { &mut tally.reads };
                        side.count(nanos);
                    }
                }
                Err(why) => self.tally.failed(why),
            }
        }
        self.watch.requests.fetch_add(well, Ordering::Relaxed);
    }

    fn drain(&mut self) -> Result<(), String> {
        let end = now() + DRAIN_MAX;
        while self.free.len() < self.slots.len() {
            self.transport.turn(LOOK, &mut self.ended)?;
            let at = now();
            self.reap(at);
            if at >= end {
                let left = self.slots.len() - self.free.len();
                return Err(format!("{left} requests did not end within {DRAIN_MAX:?}"));
            }
        }
        Ok(())
    }

    /// Reads every block that was ever written, once.
    fn sweep(&mut self) -> Result<(), String> {
        let mut next = self.plan.blocks.start;
        loop {
            let at = now();
            while let Some(&slot) = self.free.last() {
                let ledger = self.plan.ledger.as_mut().expect("swept with a ledger only");
                let Some(block) = ledger.next_written(next) else { break };
                ledger.take(block);
                self.free.pop();
                next = block + 1;
                self.begin(at, slot, Slot { block, write: false, due: at });
            }
            if self.free.len() == self.slots.len() || self.watch.stop.load(Ordering::Relaxed) {
                return self.drain();
            }
            self.transport.turn(LOOK, &mut self.ended)?;
            self.reap(now());
        }
    }
}

#[cfg(test)]
mod tests;
