//! An engine, and everything round it in the test's hands.

use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};

use crate::identity::Identity;
use crate::multipath::policy::Policy;
use crate::multipath::rules::Rules;
use crate::multipath::status::{DeviceStatus, Notice};
use crate::multipath::{Engine, Order, PathSpec};
use crate::path::{Facts, Life, PathEvent, PathFault, PathId, Tried, Try, TryId, Verdict};
use crate::request::{Extent, IoError, Operation, Outcome, Request, RequestId};

pub(super) const BLOCK: u64 = 512;
pub(super) const SIZE: u64 = 1 << 30;
pub(super) const WRITE: Operation = Operation::Write { fua: false };

pub(super) type Ended = (u64, Result<(), IoError>);

/// An order to start, as a test wants to see it: path, request's first byte, operation.
pub(super) type Sent = (u16, u64, Operation);

pub(super) struct Bench {
    pub(super) engine: Engine<HeapBuffer>,
    pub(super) now: Instant,
    /// Tries on paths, in the order they were started.
    pub(super) under_way: Vec<(PathId, Try<HeapBuffer>)>,
    pub(super) aborts: Vec<TryId>,
    pub(super) checks: Vec<PathId>,
    sent: Vec<Sent>,
    pub(super) outcomes: Vec<Outcome<HeapBuffer>>,
    pub(super) notices: Vec<Notice>,
}

pub(super) fn identity() -> Identity {
    Identity {
        wwn: Some("3000000000000001".into()),
        serial: "1".into(),
        model: "CORBEL VOLUME".into(),
        size_bytes: SIZE,
        block_bytes: 512,
    }
}

pub(super) fn facts() -> Facts {
    Facts {
        identity: identity(),
        physical_block_bytes: 4096,
        optimal_bytes: 0,
        read_only: false,
        volatile_cache: true,
        discard: true,
        write_zeroes: true,
        cache_domain: "node-a".into(),
        instance: Some("first".into()),
        priority: 50,
        group_serial: String::new(),
    }
}

pub(super) fn blocks(first: u64, count: u64) -> Extent {
    Extent { offset: first * BLOCK, len: count * BLOCK }
}

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Bench {
    /// A device with paths 0 and 1, both down.
    pub(super) fn with(policy: Policy, rules: Rules) -> Self {
        let now = Instant::from_nanos(1);
        let mut bench = Self {
            engine: Engine::new(now, policy, rules),
            now,
            under_way: Vec::new(),
            aborts: Vec::new(),
            checks: Vec::new(),
            sent: Vec::new(),
            outcomes: Vec::new(),
            notices: Vec::new(),
        };
        (0..2).for_each(|id| bench.add(id, false));
        bench
    }

    /// A device with two ready paths.
    pub(super) fn ready(policy: Policy) -> Self {
        let mut bench = Self::with(policy, Rules::SOUND);
        bench.up(0);
        bench.up(1);
        bench.notices.clear();
        bench
    }

    pub(super) fn add(&mut self, id: u16, allow_weak: bool) {
        let spec = PathSpec { name: format!("path-{id}"), limits: Vec::new(), allow_weak };
        self.engine.add_path(self.now, PathId(id), spec);
        self.pump();
    }

    pub(super) fn up(&mut self, path: u16) {
        self.up_with(path, facts());
    }

    pub(super) fn up_with(&mut self, path: u16, facts: Facts) {
        self.event(path, PathEvent::Ready(Box::new(facts)));
    }

    pub(super) fn down(&mut self, path: u16) {
        self.event(path, PathEvent::Down(PathFault::Closed));
    }

    pub(super) fn quiet(&mut self, path: u16, life: u64) {
        self.event(path, PathEvent::Quiet(Life(life)));
    }

    pub(super) fn event(&mut self, path: u16, event: PathEvent<HeapBuffer>) {
        self.engine.path_event(self.now, PathId(path), event);
        self.pump();
    }

    pub(super) fn submit(&mut self, id: u64, operation: Operation, extent: Extent) {
        let moves = matches!(operation, Operation::Read | Operation::Write { .. });
        let len = usize::try_from(extent.len).unwrap();
        let data = moves.then(|| Slice::whole(HeapBuffer::new(len)));
        let request = Request { id: RequestId(id), operation, extent, data };
        self.engine.submit(self.now, request);
        self.pump();
    }

    pub(super) fn write(&mut self, id: u64, extent: Extent) {
        self.submit(id, WRITE, extent);
    }

    pub(super) fn read(&mut self, id: u64, extent: Extent) {
        self.submit(id, Operation::Read, extent);
    }

    pub(super) fn flush(&mut self, id: u64) {
        self.submit(id, Operation::Flush, Extent::NONE);
    }

    pub(super) fn pump(&mut self) {
        while let Some(order) = self.engine.poll_order() {
            match order {
                Order::Start { path, attempt } => {
                    self.sent.push((path.0, attempt.extent.offset / BLOCK, attempt.operation));
                    self.under_way.push((path, attempt));
                }
                Order::Abort { id, .. } => self.aborts.push(id),
                Order::Check { path } => self.checks.push(path),
            }
        }
        self.outcomes.extend(std::iter::from_fn(|| self.engine.poll_outcome()));
        self.notices.extend(std::iter::from_fn(|| self.engine.poll_notice()));
    }

    /// What was sent since the last call: path and first block.
    pub(super) fn sent(&mut self) -> Vec<(u16, u64)> {
        self.sent_whole().into_iter().map(|(path, block, _)| (path, block)).collect()
    }

    pub(super) fn sent_whole(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// What ended since the last call.
    pub(super) fn ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.outcomes).into_iter().map(|o| (o.id.0, o.result)).collect()
    }

    /// Ends the oldest try on a path.
    pub(super) fn end(&mut self, path: u16, verdict: Verdict) {
        let at = self.under_way.iter().position(|(on, _)| *on == PathId(path));
        let (_, attempt) = self.under_way.remove(at.expect("something is under way there"));
        let tried = Tried { id: attempt.id, data: attempt.data, verdict };
        self.event(path, PathEvent::Tried(tried));
    }

    pub(super) fn done(&mut self, path: u16) {
        self.end(path, Verdict::Done);
    }

    pub(super) fn doubt(&mut self, path: u16, life: u64) {
        self.end(path, Verdict::InDoubt(PathFault::Silent, Life(life)));
    }

    pub(super) fn elsewhere(&mut self, path: u16) {
        self.end(path, Verdict::Elsewhere(PathFault::CommandsFail));
    }

    /// Lets time pass, with every wake-up the engine asks for on the way.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            match self.engine.poll_timeout() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.engine.handle_timeout(self.now);
                    self.pump();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the engine wakes without end");
    }

    pub(super) fn set(&mut self, change: impl FnOnce(&mut Policy)) {
        let mut policy = self.engine.policy().clone();
        change(&mut policy);
        self.engine.set_policy(self.now, policy);
        self.pump();
    }

    pub(super) fn status(&self) -> DeviceStatus {
        self.engine.status(self.now, "md3".into())
    }
}
