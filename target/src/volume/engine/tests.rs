//! The engine against a disk that does nothing until told.

use std::collections::VecDeque;

use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, Returned, Segments};
use corbel_proto::time::Instant;

use super::*;
use crate::host::ShardId;
use crate::volume::{Erase, Facts, Identity, Kind, Options, VolumeId};

mod cipher;
mod erase;
mod lent;
mod tokens;

type Op = (VolumeId, BlockOp<HeapBuffer>, BlockToken);

/// A host whose disk is a vector and completes an operation only when told.
struct World {
    arena: HeapArena,
    shard: ShardId,
    ops: VecDeque<Op>,
    posted: Vec<(ShardId, Message)>,
    disk: Vec<u8>,
    /// Loans that came back.
    returned: Returned,
    /// How many more times the store lends within the call, if it says that it does.
    loans: Option<usize>,
}

impl World {
    fn new() -> Self {
        let disk = vec![0; 1 << 20];
        let arena = HeapArena::new(1 << 20);
        let (ops, posted, returned) = (VecDeque::new(), Vec::new(), Returned::default());
        Self { arena, shard: 0, ops, posted, disk, returned, loans: None }
    }

    /// Performs the oldest outstanding operation.
    fn complete(&mut self, engine: &mut Engine<HeapBuffer>) {
        let (_, op, token) = self.ops.pop_front().expect("an operation is outstanding");
        let at = |offset: u64, len: u64| {
            let start = usize::try_from(offset).unwrap();
            start..start + usize::try_from(len).unwrap()
        };
        let data = match op {
            BlockOp::Read { offset, mut data } => {
                let range = at(offset, data.len.into());
                data.bytes_mut().copy_from_slice(&self.disk[range]);
                Some(data)
            }
            BlockOp::Write { offset, data } => {
                self.disk[at(offset, data.len.into())].copy_from_slice(data.bytes());
                Some(data)
            }
            BlockOp::Zero { offset, len, .. } | BlockOp::Discard { offset, len } => {
                self.disk[at(offset, len)].fill(0);
                None
            }
            BlockOp::Flush | BlockOp::Status { .. } => None,
        };
        engine.block_done(self, token, Ok(()), data);
    }

    fn fail(&mut self, engine: &mut Engine<HeapBuffer>, error: BlockError) {
        let (_, op, token) = self.ops.pop_front().expect("an operation is outstanding");
        let data = match op {
            BlockOp::Read { data, .. } | BlockOp::Write { data, .. } => Some(data),
            _ => None,
        };
        engine.block_done(self, token, Err(error), data);
    }

    fn run(&mut self, engine: &mut Engine<HeapBuffer>) {
        while !self.ops.is_empty() {
            self.complete(engine);
        }
    }
}

impl Arena for World {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        self.arena.alloc(len)
    }
}

impl Host for World {
    type Memory = HeapBuffer;

    fn now(&self) -> Instant {
        Instant::ZERO
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn shards(&self) -> ShardId {
        2
    }

    fn block(&mut self, volume: VolumeId, op: BlockOp<HeapBuffer>, token: BlockToken) {
        self.ops.push_back((volume, op, token));
    }

    fn lends(&self, _: VolumeId) -> bool {
        self.loans.is_some()
    }

    fn lend(
        &mut self,
        _: VolumeId,
        offset: u64,
        len: u32,
        token: BlockToken,
    ) -> Option<HeapBuffer> {
        self.loans = Some(self.loans?.checked_sub(1)?);
        let start = usize::try_from(offset).unwrap();
        let bytes = self.disk[start..start + len as usize].to_vec();
        Some(HeapBuffer::loan(bytes, token.0, &self.returned))
    }

    fn post(&mut self, shard: ShardId, message: Message) {
        self.posted.push((shard, message));
    }

    fn random(&mut self, bytes: &mut [u8]) {
        bytes.fill(4);
    }

    fn persist(&mut self, _: &str, _: Vec<u8>, _: u64) {}
}

fn volume(volatile_cache: bool) -> Arc<Volume> {
    let facts = Facts { physical_bytes: 4096, volatile_cache, ..Facts::volatile(512) };
    let identity = Identity::from_source("test");
    Arc::new(Volume::new(VolumeId(0), "v".into(), identity, facts, Options::default(), 1 << 20))
}

fn data(byte: u8, len: usize) -> Segments<HeapBuffer> {
    [Slice::whole(HeapBuffer::from_vec(vec![byte; len]))].into_iter().collect()
}

fn write(volume: &Arc<Volume>, offset: u64, byte: u8, durable: bool) -> Request<HeapBuffer> {
    let kind = Kind::Write { offset, data: data(byte, 512) };
    Request { volume: volume.clone(), kind, durable, lend: false }
}

fn of(volume: &Arc<Volume>, kind: Kind<HeapBuffer>) -> Request<HeapBuffer> {
    Request { volume: volume.clone(), kind, durable: false, lend: false }
}

/// A read that is only sent.
fn lent(volume: &Arc<Volume>, offset: u64, len: u64) -> Request<HeapBuffer> {
    Request { lend: true, ..of(volume, Kind::Read { offset, len }) }
}

/// Hands the engine what came back.
fn give_back(world: &mut World, engine: &mut Engine<HeapBuffer>) {
    for tag in world.returned.take() {
        engine.returned(world, BlockToken(tag));
    }
}

fn data_of(engine: &mut Engine<HeapBuffer>) -> Segments<HeapBuffer> {
    match engine.poll() {
        Some((_, Outcome::Data(data))) => data,
        other => panic!("{other:?}"),
    }
}

fn owner(number: u64) -> Owner {
    Owner::Iscsi(number)
}

#[test]
fn a_durable_write_is_acknowledged_only_after_a_flush_submitted_after_it() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(true));
    engine.submit(&mut world, owner(1), write(&volume, 0, 1, true));
    engine.submit(&mut world, owner(2), write(&volume, 512, 2, true));
    world.complete(&mut engine);
    assert!(engine.poll().is_none());
    // The first write's flush flies; the second write lands meanwhile and needs another.
    world.ops.rotate_left(1);
    assert!(matches!(world.ops[0].1, BlockOp::Flush));
    world.ops.rotate_left(1);
    world.complete(&mut engine);
    world.complete(&mut engine);
    assert_eq!(engine.poll().unwrap().0, owner(1));
    assert!(engine.poll().is_none());
    world.complete(&mut engine);
    assert_eq!(engine.poll().unwrap().0, owner(2));
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn a_write_through_device_costs_no_flush() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    engine.submit(&mut world, owner(1), write(&volume, 0, 1, true));
    engine.submit(&mut world, owner(2), of(&volume, Kind::Flush));
    assert_eq!(world.ops.len(), 1);
    world.run(&mut engine);
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn a_failed_flush_fails_every_write_that_waited_for_it_and_is_counted() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(true));
    engine.submit(&mut world, owner(1), write(&volume, 0, 1, true));
    world.complete(&mut engine);
    world.fail(&mut engine, BlockError::Medium);
    let (_, outcome) = engine.poll().unwrap();
    assert!(matches!(outcome, Outcome::Failed(BlockError::Medium)));
    assert_eq!(volume.flush_failures(), 1);
}

#[test]
fn overlapping_writes_go_one_after_the_other() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    for byte in 1..=3 {
        engine.submit(&mut world, owner(byte.into()), write(&volume, 0, byte, false));
    }
    assert_eq!(world.ops.len(), 1);
    for byte in 1..=3 {
        world.complete(&mut engine);
        assert_eq!(world.disk[0], byte);
        assert_eq!(engine.poll().unwrap().0, owner(byte.into()));
    }
    assert!(volume.ranges.is_empty());
}

#[test]
fn a_request_of_another_shard_is_told_by_message() {
    let (mut world, volume) = (World::new(), volume(false));
    let (mut ours, mut theirs) = (Engine::default(), Engine::default());
    ours.submit(&mut world, owner(1), write(&volume, 0, 1, false));
    world.shard = 1;
    theirs.submit(&mut world, owner(2), write(&volume, 0, 2, false));
    assert_eq!(world.ops.len(), 1);
    world.shard = 0;
    world.complete(&mut ours);
    let Some((1, Message::RangeGranted { waiter })) = world.posted.pop() else { panic!() };
    world.shard = 1;
    theirs.message(&mut world, waiter);
    world.complete(&mut theirs);
    assert_eq!((world.disk[0], theirs.in_flight()), (2, 0));
}

#[test]
fn a_waiting_request_can_be_cancelled_and_a_late_grant_is_ignored() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    engine.submit(&mut world, owner(1), write(&volume, 0, 1, false));
    let id = engine.submit(&mut world, owner(2), write(&volume, 0, 2, false));
    assert!(engine.cancel(&mut world, id));
    assert!(matches!(engine.poll(), Some((_, Outcome::Cancelled))));
    assert!(!engine.cancel(&mut world, id));
    engine.message(&mut world, id.0);
    world.run(&mut engine);
    assert_eq!(world.disk[0], 1);
    assert!(volume.ranges.is_empty());
}

#[test]
fn a_request_at_the_medium_cannot_be_cancelled() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(true));
    let id = engine.submit(&mut world, owner(1), write(&volume, 0, 1, true));
    assert!(!engine.cancel(&mut world, id));
    world.complete(&mut engine);
    assert!(!engine.cancel(&mut world, id));
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
}

#[test]
fn reads_without_memory_wait_for_it_in_order() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    let all = world.arena.alloc(1).map(|_| HeapBuffer::new(1));
    world.arena = HeapArena::new(1024);
    let held = world.alloc(1024);
    engine.submit(&mut world, owner(1), of(&volume, Kind::Read { offset: 0, len: 1024 }));
    engine.submit(&mut world, owner(2), of(&volume, Kind::Read { offset: 0, len: 512 }));
    engine.tick(&mut world);
    assert_eq!((engine.starved(), world.ops.len()), (2, 0));
    drop((held, all));
    engine.tick(&mut world);
    assert_eq!(engine.starved(), 1);
    world.run(&mut engine);
    let (who, outcome) = engine.poll().unwrap();
    assert_eq!(who, owner(1));
    drop(outcome);
    engine.tick(&mut world);
    world.run(&mut engine);
    assert_eq!(engine.poll().unwrap().0, owner(2));
}

#[test]
fn compare_and_write_writes_only_what_compares_equal() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    let swap = |expected, new| Kind::CompareAndWrite {
        offset: 1024,
        expected: data(expected, 512),
        new: data(new, 512),
    };
    engine.submit(&mut world, owner(1), of(&volume, swap(0, 5)));
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    world.disk[1024 + 7] = 9;
    engine.submit(&mut world, owner(2), of(&volume, swap(5, 6)));
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Miscompare(7)))));
    assert_eq!(world.disk[1024], 5);
}

#[test]
fn write_same_fills_zeroes_and_falls_back_when_the_store_cannot_zero() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    let fill = |block: Option<u8>| Kind::WriteSame {
        offset: 512,
        len: 700 * 512,
        block: block.map(|byte| data(byte, 512)[0].clone()),
        unmap: false,
    };
    engine.submit(&mut world, owner(1), of(&volume, fill(Some(7))));
    world.run(&mut engine);
    assert!(world.disk[512..512 + 700 * 512].iter().all(|b| *b == 7));
    assert_eq!((world.disk[511], world.disk[512 + 700 * 512]), (0, 0));
    engine.submit(&mut world, owner(2), of(&volume, fill(None)));
    world.fail(&mut engine, BlockError::Unsupported);
    world.run(&mut engine);
    assert!(world.disk.iter().all(|b| *b == 0));
    engine.submit(&mut world, owner(3), of(&volume, fill(Some(0))));
    assert!(matches!(world.ops[0].1, BlockOp::Zero { .. }));
    world.run(&mut engine);
    assert_eq!(engine.in_flight(), 0);
    assert!(volume.ranges.is_empty());
}

#[test]
fn discards_take_their_ranges_one_by_one_and_tolerate_a_store_that_cannot() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(true));
    world.disk.fill(1);
    let ranges = vec![(0, 512), (4096, 0), (8192, 1024)];
    let request =
        Request { volume: volume.clone(), kind: Kind::Discard(ranges), durable: true, lend: false };
    engine.submit(&mut world, owner(1), request);
    assert_eq!(world.ops.len(), 1);
    world.fail(&mut engine, BlockError::Unsupported);
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    assert_eq!((world.disk[0], world.disk[8192], world.disk[9216]), (1, 0, 1));
}

#[test]
fn or_and_verify_see_whole_payloads_in_any_pieces() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    world.disk[..512].fill(0b01);
    let halves = || data(0b10, 256).into_iter().chain(data(0b10, 256)).collect();
    engine.submit(&mut world, owner(1), of(&volume, Kind::Or { offset: 0, data: halves() }));
    world.run(&mut engine);
    assert!(world.disk[..512].iter().all(|b| *b == 0b11));
    let expected = Some(data(0b11, 256).into_iter().chain(data(0b10, 256)).collect());
    let kind = Kind::Verify { offset: 0, len: 512, expected };
    engine.submit(&mut world, owner(2), of(&volume, kind));
    world.run(&mut engine);
    let outcomes: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
    assert!(matches!(outcomes[1].1, Outcome::Miscompare(256)));
}

#[test]
fn a_volume_that_is_gone_fails_at_once() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    volume.mark_gone();
    engine.submit(&mut world, owner(1), write(&volume, 0, 1, false));
    assert!(matches!(engine.poll(), Some((_, Outcome::Failed(BlockError::Gone)))));
}

#[test]
fn write_and_verify_flushes_before_it_reads_back_and_tells_what_differs() {
    let (mut engine, mut world) = (Engine::default(), World::new());
    let volume = volume(true);
    let kind = || Kind::WriteAndVerify { offset: 0, data: data(7, 4096), compare: true };
    engine.submit(&mut world, owner(1), of(&volume, kind()));
    world.complete(&mut engine);
    assert!(matches!(world.ops[0].1, BlockOp::Flush));
    world.complete(&mut engine);
    world.disk[100] = 8; // the medium is worse than its cache
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Miscompare(100)))));
    engine.submit(&mut world, owner(2), of(&volume, kind()));
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
}

#[test]
fn status_joins_alike_extents_and_counts_a_partly_held_block_as_held() {
    let (mut engine, mut world) = (Engine::default(), World::new());
    let volume = volume(true);
    let block = u64::from(volume.facts.block_bytes);
    let kind = Kind::Status { offset: 0, extents_max: 2 };
    engine.submit(&mut world, owner(1), of(&volume, kind));
    for (len, mapped) in [(block, true), (block, true), (block / 2, false), (3 * block, false)] {
        let (_, op, token) = world.ops.pop_front().unwrap();
        assert!(matches!(op, BlockOp::Status { .. }));
        engine.status_done(&mut world, token, Extent { len, mapped });
    }
    let Some((_, Outcome::Extents(extents))) = engine.poll() else { panic!("it has its answer") };
    let held = Extent { len: 3 * block, mapped: true };
    assert_eq!(extents, [held, Extent { len: 3 * block, mapped: false }]);
    let kind = Kind::Status { offset: block, extents_max: 9 };
    engine.submit(&mut world, owner(1), of(&volume, kind));
    world.fail(&mut engine, BlockError::Unsupported);
    let Some((_, Outcome::Extents(extents))) = engine.poll() else { panic!("it has its answer") };
    assert_eq!(extents, [Extent { len: volume.size_bytes() - block, mapped: true }]);
}
