//! Reads that a store in memory lends at once.

use super::*;

/// A host whose store lends so many more times what it says it does.
struct Lender {
    world: World,
    loans: usize,
    lent: Vec<BlockToken>,
}

impl Lender {
    fn new(loans: usize) -> Self {
        Self::over(World::new(), loans)
    }

    fn over(world: World, loans: usize) -> Self {
        Self { world, loans, lent: Vec::new() }
    }

    /// Takes all memory there is.
    fn exhaust(&mut self) -> Vec<HeapBuffer> {
        let all: Vec<_> = std::iter::from_fn(|| self.world.alloc(256 << 10)).collect();
        assert_eq!(all.len(), 4);
        all
    }

    fn give_back(&mut self, engine: &mut Engine<HeapBuffer>) {
        for token in std::mem::take(&mut self.lent) {
            engine.returned(self, token);
        }
    }
}

impl Arena for Lender {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        self.world.alloc(len)
    }
}

impl Host for Lender {
    type Memory = HeapBuffer;

    fn now(&self) -> Instant {
        self.world.now()
    }

    fn shard(&self) -> ShardId {
        self.world.shard()
    }

    fn shards(&self) -> ShardId {
        self.world.shards()
    }

    fn block(&mut self, volume: VolumeId, op: BlockOp<HeapBuffer>, token: BlockToken) {
        self.world.block(volume, op, token);
    }

    fn lends(&self, _: VolumeId) -> bool {
        true
    }

    fn lend(
        &mut self,
        _: VolumeId,
        offset: u64,
        len: u32,
        token: BlockToken,
    ) -> Option<HeapBuffer> {
        self.loans = self.loans.checked_sub(1)?;
        self.lent.push(token);
        let start = usize::try_from(offset).unwrap();
        Some(HeapBuffer::from_vec(self.world.disk[start..start + len as usize].to_vec()))
    }

    fn post(&mut self, shard: ShardId, message: Message) {
        self.world.post(shard, message);
    }

    fn random(&mut self, bytes: &mut [u8]) {
        self.world.random(bytes);
    }

    fn persist(&mut self, name: &str, bytes: Vec<u8>, token: u64) {
        self.world.persist(name, bytes, token);
    }
}

fn read(volume: &Arc<Volume>, offset: u64, len: u64) -> Request<HeapBuffer> {
    Request { lend: true, ..of(volume, Kind::Read { offset, len }) }
}

fn data_of(engine: &mut Engine<HeapBuffer>) -> Segments<HeapBuffer> {
    match engine.poll() {
        Some((_, Outcome::Data(data))) => data,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_borrowed_read_is_answered_at_once_without_memory_and_keeps_its_range() {
    let (mut host, mut engine, volume) = (Lender::new(2), Engine::default(), volume(false));
    let all = host.exhaust();
    host.world.disk[512..1024].fill(3);
    let id = engine.submit(&mut host, owner(1), read(&volume, 512, 512));
    assert_eq!(data_of(&mut engine)[0].bytes(), [3; 512]);
    assert!(host.world.ops.is_empty() && !engine.cancel(&mut host, id));
    engine.submit(&mut host, owner(2), read(&volume, 0, 1024));
    assert_eq!(data_of(&mut engine)[0].bytes()[512..], [3; 512]);
    engine.submit(&mut host, owner(3), write(&volume, 512, 9, false));
    assert!(host.world.ops.is_empty(), "it would tear what is being sent");
    host.give_back(&mut engine);
    assert_eq!((host.world.ops.len(), engine.in_flight()), (1, 1));
    host.world.run(&mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len()), (0, 0));
    assert_eq!(volume.counters().reads, 2);
    drop(all);
}

#[test]
fn a_borrowed_read_waits_for_the_write_before_it_and_has_what_that_wrote() {
    let (mut host, mut engine, volume) = (Lender::new(1), Engine::default(), volume(false));
    engine.submit(&mut host, owner(1), write(&volume, 0, 7, false));
    engine.submit(&mut host, owner(2), read(&volume, 0, 512));
    let cancelled = engine.submit(&mut host, owner(3), read(&volume, 0, 512));
    assert!(engine.poll().is_none() && host.lent.is_empty());
    assert!(engine.cancel(&mut host, cancelled));
    let (_, op, token) = host.world.ops.pop_front().unwrap();
    let BlockOp::Write { data, .. } = op else { panic!("{op:?}") };
    host.world.disk[..512].copy_from_slice(data.bytes());
    engine.block_done(&mut host, token, Ok(()), Some(data));
    assert!(matches!(engine.poll(), Some((_, Outcome::Cancelled))));
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    assert_eq!(data_of(&mut engine)[0].bytes(), [7; 512]);
    assert_eq!(host.lent.len(), 1, "what was cancelled is not lent");
    host.give_back(&mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len()), (0, 0));
}

#[test]
fn what_the_store_does_not_lend_after_all_is_read_and_waits_for_memory_without_a_range() {
    let (mut host, mut engine, volume) = (Lender::new(0), Engine::default(), volume(false));
    let all = host.exhaust();
    engine.submit(&mut host, owner(1), read(&volume, 0, 512));
    assert_eq!((engine.starved(), volume.ranges.len()), (1, 0));
    engine.submit(&mut host, owner(2), read(&volume, 512, 512));
    assert_eq!(engine.starved(), 2);
    drop(all);
    engine.tick(&mut host);
    assert_eq!((engine.starved(), host.world.ops.len()), (0, 2));
    host.world.run(&mut engine);
    drop((data_of(&mut engine), data_of(&mut engine)));
    for tag in host.world.returned.take() {
        engine.returned(&mut host, BlockToken(tag));
    }
    assert_eq!((engine.in_flight(), volume.ranges.len(), host.world.arena.in_use()), (0, 0, 0));
}

#[test]
fn a_long_read_is_borrowed_whole_and_handed_on_in_pieces() {
    let (mut host, mut engine, volume) = (Lender::new(1), Engine::default(), volume(false));
    host.world.disk[(512 << 10) + 5] = 1;
    engine.submit(&mut host, owner(1), read(&volume, 0, 600 << 10));
    let data = data_of(&mut engine);
    let lens: Vec<_> = data.iter().map(|piece| piece.len).collect();
    assert_eq!(lens, [256 << 10, 256 << 10, 88 << 10]);
    assert_eq!(data[2].bytes()[5], 1);
    host.give_back(&mut engine);
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn an_encrypted_volume_borrows_nothing() {
    let (world, mut engine, volume) = cipher::encrypted();
    let mut host = Lender::over(world, 1);
    engine.submit(&mut host, owner(1), read(&volume, 0, 512));
    assert_eq!((host.lent.len(), host.world.ops.len()), (0, 1));
}
