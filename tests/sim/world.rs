//! Virtual time, disks and mailboxes: the surroundings of simulated shards.
//!
//! The test owns the shards. It calls into one with that shard's [`SimHost`], hands what the call
//! queued to the world ([`World::absorb`]), and asks the world what happens next
//! ([`World::step`]). Every delay is drawn from the seed.

use std::cell::{Ref, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, Returned, Slice};
use corbel_proto::time::{Duration, Instant};
use corbel_target::host::{BlockError, BlockOp, BlockToken, Host, Message, ShardId};
use corbel_target::volume::VolumeId;

use crate::disk::{Disk, FlushId, WriteId};
use crate::rng::Rng;

/// How the world behaves.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Longest time from a block operation's submission to its effect, and from that to its
    /// completion.
    pub disk_delay_max: Duration,
    /// Longest time a message between shards takes.
    pub message_delay_max: Duration,
    /// Percent of block operations that fail, without effect or (writes) with part of it.
    pub error_percent: u64,
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            disk_delay_max: Duration::from_millis(5),
            message_delay_max: Duration::from_micros(50),
            error_percent: 0,
        }
    }
}

/// What a shard queued during one call.
#[derive(Debug)]
enum Queued {
    Block(VolumeId, BlockOp<HeapBuffer>, BlockToken),
    Post(ShardId, Message),
    Persist(String, Vec<u8>, u64),
}

/// The host of one shard.
#[derive(Debug)]
pub struct SimHost {
    shard: ShardId,
    shards: ShardId,
    now: Instant,
    arena: HeapArena,
    rng: Rng,
    queued: Vec<Queued>,
    drives: Rc<RefCell<Drives>>,
}

impl SimHost {
    /// Bytes of payload lent now.
    pub fn lent_bytes(&self) -> usize {
        self.arena.in_use()
    }
}

impl Arena for SimHost {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        self.arena.alloc(len)
    }

    fn call_in(&mut self, slice: &mut Slice<HeapBuffer>) {
        self.arena.call_in(slice);
    }
}

impl Host for SimHost {
    type Memory = HeapBuffer;

    fn now(&self) -> Instant {
        self.now
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn shards(&self) -> ShardId {
        self.shards
    }

    fn block(&mut self, volume: VolumeId, op: BlockOp<HeapBuffer>, token: BlockToken) {
        self.queued.push(Queued::Block(volume, op, token));
    }

    fn lends(&self, _: VolumeId) -> bool {
        true
    }

    fn lend(
        &mut self,
        volume: VolumeId,
        offset: u64,
        len: u32,
        token: BlockToken,
    ) -> Option<HeapBuffer> {
        if self.rng.percent(50) {
            return None;
        }
        let drives = &mut *self.drives.borrow_mut();
        let mut bytes = vec![0; len as usize];
        drives.disks.get(&volume)?.read(offset, &mut bytes);
        let (returned, end) = (Returned::default(), offset + u64::from(len));
        let loan = HeapBuffer::loan(bytes, token.0, &returned);
        drives.loans.push(Loan { shard: self.shard, token, volume, start: offset, end, returned });
        Some(loan)
    }

    fn post(&mut self, shard: ShardId, message: Message) {
        self.queued.push(Queued::Post(shard, message));
    }

    fn random(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.rng.next().to_le_bytes()[0];
        }
    }

    fn persist(&mut self, name: &str, bytes: Vec<u8>, token: u64) {
        self.queued.push(Queued::Persist(name.to_owned(), bytes, token));
    }
}

/// What happens next, for the test to hand to the shard it concerns.
#[derive(Debug)]
pub enum Happening {
    /// A block operation completed.
    BlockDone {
        /// Whose it was.
        shard: ShardId,
        /// Its name.
        token: BlockToken,
        /// How it ended.
        result: Result<(), BlockError>,
        /// The payload that was lent with it.
        data: Option<Slice<HeapBuffer>>,
    },
    /// A message from another shard arrived.
    Message(ShardId, Message),
    /// A state file is stable.
    Persisted(ShardId, u64),
    /// A time that the test asked for has come.
    Alarm(u64),
}

#[derive(Debug)]
enum Event {
    Effect(ShardId, VolumeId, BlockOp<HeapBuffer>, BlockToken, Option<FlushId>),
    Complete(VolumeId, Option<WriteId>, Option<FlushId>, Happening),
    Happen(Happening),
}

/// What a disk has lent to a read, and where that comes back to.
#[derive(Debug)]
struct Loan {
    shard: ShardId,
    token: BlockToken,
    volume: VolumeId,
    start: u64,
    end: u64,
    returned: Returned,
}

/// The disks, and memory that they have lent to reads. Nothing is written there meanwhile.
#[derive(Debug, Default)]
struct Drives {
    disks: BTreeMap<VolumeId, Disk>,
    loans: Vec<Loan>,
}

/// Time, disks and mailboxes.
#[derive(Debug)]
pub struct World {
    now: Instant,
    rng: Rng,
    weather: Weather,
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    drives: Rc<RefCell<Drives>>,
    /// State files as the shards had them persisted.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl World {
    /// A world that `rng` decides about.
    pub fn new(rng: Rng, weather: Weather) -> Self {
        Self {
            now: Instant::from_nanos(1),
            rng,
            weather,
            order: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            drives: Rc::default(),
            files: BTreeMap::new(),
        }
    }

    /// The host of shard `shard` of `shards`, with `memory_bytes` of payload memory.
    pub fn host(&mut self, shard: ShardId, shards: ShardId, memory_bytes: usize) -> SimHost {
        SimHost {
            shard,
            shards,
            now: self.now,
            arena: HeapArena::new(memory_bytes),
            rng: self.rng.fork(),
            queued: Vec::new(),
            drives: self.drives.clone(),
        }
    }

    /// Puts a disk under volume `id`.
    pub fn insert_disk(&mut self, id: VolumeId, disk: Disk) {
        self.drives.borrow_mut().disks.insert(id, disk);
    }

    /// The disk under volume `id`, for a checker.
    pub fn disk(&self, id: VolumeId) -> Option<Ref<'_, Disk>> {
        Ref::filter_map(self.drives.borrow(), |drives| drives.disks.get(&id)).ok()
    }

    /// The reads of a shard whose loans have come back since it was asked last.
    pub fn returned(&mut self, shard: ShardId) -> Vec<BlockToken> {
        let back = |loan: &mut Loan| loan.shard == shard && !loan.returned.borrow().is_empty();
        let mut drives = self.drives.borrow_mut();
        drives.loans.extract_if(.., back).map(|loan| loan.token).collect()
    }

    /// The time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Everything that is on its way is lost; the disks keep what they must and may.
    pub fn power_cut(&mut self) {
        self.order.clear();
        self.events.clear();
        let mut drives = self.drives.borrow_mut();
        drives.loans.clear();
        let disks = std::mem::take(&mut drives.disks);
        for (id, disk) in disks {
            drives.disks.insert(id, disk.power_cut(&mut self.rng));
        }
    }

    /// An alarm `after` from now.
    pub fn alarm(&mut self, after: Duration, number: u64) {
        self.schedule(self.now + after, Event::Happen(Happening::Alarm(number)));
    }

    /// Takes over what a shard queued.
    pub fn absorb(&mut self, host: &mut SimHost) {
        let queued = std::mem::take(&mut host.queued);
        for queued in queued {
            match queued {
                Queued::Block(volume, op, token) => {
                    let drives = self.drives.clone();
                    let flush = match (&op, drives.borrow_mut().disks.get_mut(&volume)) {
                        (BlockOp::Flush, Some(disk)) => Some(disk.flush_submitted()),
                        _ => None,
                    };
                    let at = self.now + self.delay(self.weather.disk_delay_max);
                    self.schedule(at, Event::Effect(host.shard, volume, op, token, flush));
                }
                Queued::Post(shard, message) => {
                    let at = self.now + self.delay(self.weather.message_delay_max);
                    self.schedule(at, Event::Happen(Happening::Message(shard, message)));
                }
                Queued::Persist(name, bytes, token) => {
                    self.files.insert(name, bytes);
                    let at = self.now + self.delay(self.weather.disk_delay_max);
                    self.schedule(at, Event::Happen(Happening::Persisted(host.shard, token)));
                }
            }
        }
    }

    /// Goes on to the next thing that concerns a shard or the test, and sets the clocks of
    /// `hosts`. `None` when nothing is on its way any more.
    pub fn step(&mut self, hosts: &mut [SimHost]) -> Option<Happening> {
        loop {
            let Reverse((at, number)) = self.order.pop()?;
            self.now = at;
            for host in &mut *hosts {
                host.now = at;
            }
            let event = self.events.remove(&number).expect("scheduled events exist once");
            match event {
                Event::Happen(happening) => return Some(happening),
                Event::Effect(shard, volume, op, token, flush) => {
                    self.take_effect(shard, volume, op, token, flush);
                }
                Event::Complete(volume, write, flush, happening) => {
                    if let Some(disk) = self.drives.borrow_mut().disks.get_mut(&volume) {
                        if let Some(write) = write {
                            disk.complete(write);
                        }
                        if let Some(flush) = flush {
                            disk.flush_completed(flush);
                        }
                    }
                    return Some(happening);
                }
            }
        }
    }

    fn take_effect(
        &mut self,
        shard: ShardId,
        volume: VolumeId,
        op: BlockOp<HeapBuffer>,
        token: BlockToken,
        flush: Option<FlushId>,
    ) {
        let fails = self.rng.percent(self.weather.error_percent);
        let mut write = None;
        let mut result = if fails { Err(BlockError::Medium) } else { Ok(()) };
        let drives = self.drives.clone();
        let drives = &mut *drives.borrow_mut();
        drives.check_loans(volume, &op);
        let disk = drives.disks.get_mut(&volume).expect("shards use disks that exist");
        let data = match op {
            BlockOp::Read { offset, mut data } => {
                disk.read(offset, data.bytes_mut());
                Some(data)
            }
            BlockOp::Write { offset, data } => {
                // A write that fails may still have reached the medium.
                if !fails || self.rng.percent(50) {
                    write = Some(disk.write(offset, data.bytes()));
                }
                Some(data)
            }
            BlockOp::Flush => None,
            BlockOp::Status { .. } => {
                result = Err(BlockError::Unsupported);
                None
            }
            BlockOp::Discard { offset, len } | BlockOp::Zero { offset, len, .. } => {
                let zeros = vec![0; usize::try_from(len).expect("a small disk")];
                write = Some(disk.write(offset, &zeros));
                result = Ok(());
                None
            }
        };
        let happening = Happening::BlockDone { shard, token, result, data };
        let flush = if fails { None } else { flush };
        let at = self.now + self.delay(self.weather.disk_delay_max);
        self.schedule(at, Event::Complete(volume, write, flush, happening));
    }

    fn delay(&mut self, max: Duration) -> Duration {
        let nanos = u64::try_from(max.as_nanos()).expect("delays are short").max(1);
        Duration::from_nanos(self.rng.below(nanos))
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        self.events.insert(number, event);
        self.order.push(Reverse((at, number)));
    }
}

impl Drives {
    /// What is on its way to a client is not changed behind its back.
    fn check_loans(&self, volume: VolumeId, op: &BlockOp<HeapBuffer>) {
        let (start, end) = match op {
            BlockOp::Write { offset, data } => (*offset, *offset + u64::from(data.len)),
            BlockOp::Discard { offset, len } | BlockOp::Zero { offset, len, .. } => {
                (*offset, *offset + *len)
            }
            BlockOp::Read { .. } | BlockOp::Flush | BlockOp::Status { .. } => return,
        };
        let clash = |loan: &&Loan| loan.volume == volume && loan.start < end && start < loan.end;
        let clash = self.loans.iter().find(clash);
        assert!(clash.is_none(), "{start} to {end} is written under {clash:?}");
    }
}
