//! The multipath engine: any requests, on paths that fail in every way their contract allows, with
//! any policy, at any time.
//!
//! Every request is answered exactly once. What is sent is judged by `judge.rs`. In the end paths
//! are well, doubts are over, and nothing is left.

mod judge;

use corbel_initiator::identity::Identity;
use corbel_initiator::multipath::policy::{
    Cache, Failback, Flap, Grouping, Hedge, NoPath, Policy, Selector,
};
use corbel_initiator::multipath::rules::Rules;
use corbel_initiator::multipath::{Engine, Order, PathSpec};
use corbel_initiator::path::{Facts, PathEvent, PathFault, PathId, Tried, TryId, Verdict};
use corbel_initiator::request::{Extent, IoError, Operation, Request, RequestId};
use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};

use self::judge::{Judge, PATHS, Running};
use super::script::Script;

const BLOCK: u64 = 512;
const BLOCKS: u64 = 40;
const REQUESTS_MAX: u64 = 200;
const MINUTE: Duration = Duration::from_secs(60);

/// Wake-ups while time passes, for each request and path: more is a loop.
const WAKES_MAX: usize = 20_000;

struct World {
    engine: Engine<HeapBuffer>,
    now: Instant,
    judge: Judge,
    requests: u64,
}

/// See the head of this file.
pub(super) fn multipath_engine(input: &[u8]) {
    let mut script = Script::new(input);
    let shape = script.u8();
    let cache = [Cache::Trust, Cache::Multi, Cache::Fua][usize::from(shape >> 4) % 3];
    let policy = Policy { cache, ..policy(shape, script.u8()) };
    let now = Instant::from_nanos(1);
    let mut world = World {
        engine: Engine::new(now, policy, Rules::SOUND),
        now,
        judge: Judge::new(cache),
        requests: 0,
    };
    world.engine.expect(identity("this"));
    for path in 0..PATHS {
        let spec = PathSpec { name: format!("path-{path}"), ..PathSpec::default() };
        world.engine.add_path(now, id(path), spec);
    }
    if shape & 8 == 0 {
        (0..PATHS).for_each(|path| world.up(path, 0));
    }
    while !script.is_over() {
        world.step(&mut script);
        world.pump();
    }
    world.settle();
}

fn id(path: usize) -> PathId {
    PathId(u16::try_from(path).expect("a few paths"))
}

fn identity(wwn: &str) -> Identity {
    Identity {
        wwn: Some(wwn.to_owned()),
        serial: String::new(),
        model: String::new(),
        size_bytes: BLOCKS * BLOCK,
        block_bytes: 512,
    }
}

fn policy(shape: u8, more: u8) -> Policy {
    let groupings =
        [Grouping::Failover, Grouping::Multibus, Grouping::GroupByPrio, Grouping::GroupBySerial];
    let selectors = [Selector::RoundRobin, Selector::QueueLength, Selector::ServiceTime];
    let failbacks =
        [Failback::Immediate, Failback::Manual, Failback::After(Duration::from_secs(3))];
    let no_paths = [NoPath::Queue, NoPath::Fail, NoPath::For(Duration::from_secs(20))];
    let hedge = Hedge { per_mille: 900, after_min: Duration::from_millis(3) };
    let flap = Flap {
        failures: u32::from(more >> 6),
        window: MINUTE,
        hold: Duration::from_secs(2),
        hold_max: Duration::from_secs(9),
    };
    Policy {
        grouping: groupings[usize::from(shape & 3)],
        selector: selectors[usize::from(more) % 3],
        failback: failbacks[usize::from(more >> 2) % 3],
        no_path: no_paths[usize::from(more >> 3) % 3],
        write_age_max: (shape & 4 != 0).then_some(Duration::from_secs(30)),
        hedge: (more & 32 != 0).then_some(hedge),
        flap,
        ..Policy::default()
    }
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.u8();
        let path = usize::from(operation >> 4) % PATHS;
        match operation & 15 {
            0..=3 => self.submit(script),
            4..=7 => self.end(path, script),
            8 => self.up(path, script.u8()),
            9 => self.down(path, script.u8()),
            10 => self.quiet(path, script.u8()),
            11 => self.pass(Duration::from_millis(1 << (operation >> 4))),
            12 => self.haunt(path),
            13 => self.settle_one(script),
            14 => self.administer(path, script),
            _ => self.event(path, PathEvent::Checked),
        }
    }

    fn submit(&mut self, script: &mut Script<'_>) {
        if self.requests == REQUESTS_MAX {
            return;
        }
        let (shape, place) = (script.u8(), script.u8());
        let first = u64::from(place) % BLOCKS;
        let count = (u64::from(shape >> 4) + 1).min(BLOCKS - first);
        let (mut extent, fua) = (Extent { offset: first * BLOCK, len: count * BLOCK }, place > 200);
        let operation = match shape & 15 {
            0..=7 => Operation::Write { fua },
            8..=10 => Operation::Read,
            11 => Operation::Discard,
            12 => Operation::WriteZeroes { unmap: false, fua },
            _ => Operation::Flush,
        };
        if operation == Operation::Flush {
            extent = Extent::NONE;
        }
        let name = RequestId(self.requests);
        self.requests += 1;
        let moves = matches!(operation, Operation::Read | Operation::Write { .. });
        let data = moves.then(|| {
            let len = usize::try_from(extent.len).expect("a few blocks");
            // A write carries its name.
            let mut bytes = vec![0; len];
            bytes[..8].copy_from_slice(&name.0.to_be_bytes());
            Slice::whole(HeapBuffer::from_vec(bytes))
        });
        self.judge.submitted(self.now, name, operation, extent);
        self.engine.submit(self.now, Request { id: name, operation, extent, data });
    }

    fn event(&mut self, path: usize, event: PathEvent<HeapBuffer>) {
        self.engine.path_event(self.now, id(path), event);
        self.pump();
    }

    /// A try ends, in any way.
    fn end(&mut self, path: usize, script: &mut Script<'_>) {
        let (which, how) = (script.u8(), script.u8());
        let of_path = self.judge.running.iter().filter(|running| running.path == path);
        let tries: Vec<TryId> = of_path.map(|running| running.attempt.id).collect();
        if tries.is_empty() {
            return;
        }
        let life = self.judge.life(path, how >> 6);
        let verdict = match how & 15 {
            0..=6 => Verdict::Done,
            7 => Verdict::DoneInDoubt(life),
            8 => Verdict::Device(IoError::Medium),
            9 => Verdict::Later(Duration::from_millis(u64::from(how >> 4))),
            10 => Verdict::DeviceInDoubt(IoError::Medium, life),
            11 => Verdict::Elsewhere(PathFault::CommandsFail),
            _ => Verdict::InDoubt(PathFault::Silent, life),
        };
        self.end_try(tries[usize::from(which) % tries.len()], verdict);
    }

    fn end_try(&mut self, name: TryId, verdict: Verdict) {
        let Running { path, mut attempt, .. } = self.judge.ended(name, verdict);
        if attempt.operation == Operation::Read && attempt.data.is_none() {
            let len = usize::try_from(attempt.extent.len).expect("a few blocks");
            attempt.data = Some(Slice::whole(HeapBuffer::new(len)));
        }
        let tried = Tried { id: name, data: attempt.data, verdict };
        self.event(path, PathEvent::Tried(tried));
    }

    fn up(&mut self, path: usize, kind: u8) {
        let facts = self.facts(path, kind);
        self.judge.up(path, &facts);
        self.event(path, PathEvent::Ready(Box::new(facts)));
    }

    fn facts(&mut self, path: usize, kind: u8) -> Facts {
        let (wwn, restarted) = match kind & 31 {
            31 => ("another", false),
            _ => ("this", kind & 32 != 0),
        };
        // The last path has no volatile cache.
        let volatile_cache = path + 1 < PATHS;
        Facts {
            identity: identity(wwn),
            physical_block_bytes: 4096,
            optimal_bytes: 0,
            read_only: false,
            volatile_cache,
            discard: true,
            write_zeroes: true,
            cache_domain: format!("node-{}", path / 2),
            instance: Some(self.judge.instance(path, restarted).to_string()),
            priority: if kind & 64 == 0 { 50 } else { 10 },
            group_serial: format!("{}", path % 2),
        }
    }

    /// Everything on a path ends; then the path is down.
    fn down(&mut self, path: usize, how: u8) {
        let of_path = self.judge.running.iter().filter(|running| running.path == path);
        let tries: Vec<TryId> = of_path.map(|running| running.attempt.id).collect();
        for (number, name) in tries.into_iter().enumerate() {
            let verdict = if how >> (number % 8) & 1 == 0 {
                Verdict::InDoubt(PathFault::Closed, self.judge.life(path, 0))
            } else {
                Verdict::Elsewhere(PathFault::Closed)
            };
            self.end_try(name, verdict);
            // The path is still taken for well: what comes now ends too.
            self.pump();
        }
        while let Some(name) = self.judge.first_on(path) {
            self.end_try(name, Verdict::Elsewhere(PathFault::Closed));
        }
        self.judge.down(path);
        self.event(path, PathEvent::Down(PathFault::Closed));
    }

    fn quiet(&mut self, path: usize, how: u8) {
        let life = self.judge.quiet(path, how & 1 == 0);
        self.event(path, PathEvent::Quiet(life));
    }

    fn haunt(&mut self, path: usize) {
        let life = self.judge.haunt(path);
        self.event(path, PathEvent::Haunted(life));
    }

    fn settle_one(&mut self, script: &mut Script<'_>) {
        if let Some((path, name)) = self.judge.settle_one(script.u8()) {
            self.event(path, PathEvent::Settled(name));
        }
    }

    fn administer(&mut self, path: usize, script: &mut Script<'_>) {
        let (what, more) = (script.u8(), script.u8());
        match what & 7 {
            0 => {
                self.judge.disabled[path] = true;
                self.engine.disable_path(self.now, id(path));
            }
            1 | 2 => {
                self.judge.disabled[path] = false;
                self.engine.enable_path(self.now, id(path));
            }
            3 => {
                self.judge.fenced = true;
                self.engine.fence(self.now);
            }
            4 | 5 => {
                self.judge.fenced = false;
                self.engine.unfence(self.now);
            }
            6 => {
                let policy = Policy { cache: self.judge.cache, ..policy(what >> 3, more) };
                self.engine.set_policy(self.now, policy);
            }
            _ => _ = self.engine.switch_group(self.now, usize::from(more) % PATHS),
        }
    }

    /// Lets time pass, with every wake-up on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..WAKES_MAX {
            match self.engine.poll_timeout() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.engine.handle_timeout(self.now);
                    self.pump();
                }
                _ => return self.now = end,
            }
        }
        panic!("the engine wakes without end at {:?}", self.now);
    }

    /// Takes everything the engine has to say.
    fn pump(&mut self) {
        self.judge.age_max = self.engine.policy().write_age_max;
        self.judge.waits = self.engine.policy().no_path == NoPath::Queue;
        // What is answered frees what is sent after it.
        while let Some(outcome) = self.engine.poll_outcome() {
            self.judge.answered(&outcome);
        }
        while let Some(order) = self.engine.poll_order() {
            match order {
                Order::Start { path, attempt } => {
                    self.judge.started(self.now, usize::from(path.0), attempt);
                }
                Order::Abort { path, id } => self.judge.aborted(usize::from(path.0), id),
                Order::Check { .. } => {}
            }
        }
        while self.engine.poll_notice().is_some() {}
    }

    /// Paths are well and doubts end: everything is answered, and nothing is left.
    fn settle(&mut self) {
        let calm = Policy { cache: self.judge.cache, ..Policy::default() };
        self.engine.set_policy(self.now, calm);
        self.judge.fenced = false;
        self.engine.unfence(self.now);
        for path in 0..PATHS {
            self.judge.disabled[path] = false;
            self.engine.enable_path(self.now, id(path));
            self.up(path, 0);
        }
        for _ in 0..10 * REQUESTS_MAX {
            for path in 0..PATHS {
                self.quiet(path, 0);
                while let Some(name) = self.judge.first_on(path) {
                    self.end_try(name, Verdict::Done);
                }
            }
            self.pass(Duration::from_secs(2));
            if self.judge.open() == 0 && self.judge.running.is_empty() {
                break;
            }
        }
        assert_eq!(self.judge.open(), 0, "requests are left: {:?}", self.judge);
        let status = self.engine.status(self.now, String::new());
        assert_eq!((status.doubts, status.in_flight, status.queued_requests), (0, 0, 0));
        assert_eq!(status.counters.completed + status.counters.failed, self.requests);
        self.engine.detach(self.now, MINUTE);
        assert!(self.engine.is_drained());
    }
}
