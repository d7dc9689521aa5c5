//! Several shards' engines on one simulated disk, without a protocol in front.

use std::collections::HashMap;
use std::sync::Arc;

use corbel_proto::memory::{HeapBuffer, Segments, Slice};
use corbel_proto::time::{Duration, Instant};
use corbel_target::host::{Message, ShardId};
use corbel_target::volume::engine::{Engine, Owner};
use corbel_target::volume::{Facts, Identity, Kind, Options, Outcome, Request, Volume, VolumeId};

use crate::disk::{Disk, SECTOR_BYTES};
use crate::rng::Rng;
use crate::world::{Happening, SimHost, Weather, World};

/// The volume's number.
const VOLUME: VolumeId = VolumeId(0);

/// Engines, their hosts, and the world.
#[derive(Debug)]
pub struct Farm {
    /// Time and disk.
    pub world: World,
    /// One per shard.
    pub hosts: Vec<SimHost>,
    engines: Vec<Engine<HeapBuffer>>,
    volumes: Vec<Arc<Volume>>,
}

/// Something the test has to react to.
#[derive(Debug)]
pub enum News {
    /// A request ended.
    Outcome(u64, Outcome<HeapBuffer>),
    /// An alarm that the test set.
    Alarm(u64),
}

/// A volume of `sectors` on a disk with a volatile cache.
pub fn volatile_volume(sectors: usize) -> Arc<Volume> {
    let facts = Facts::volatile(512);
    let identity = Identity::from_source("simulated");
    let bytes = (sectors * SECTOR_BYTES) as u64;
    Arc::new(Volume::new(VOLUME, "sim".into(), identity, facts, Options::default(), bytes))
}

impl Farm {
    /// `shards` engines over a disk of `sectors`.
    pub fn new(mut rng: Rng, shards: ShardId, sectors: usize, weather: Weather) -> Self {
        let mut world = World::new(rng.fork(), weather);
        world.insert_disk(VOLUME, Disk::new(sectors));
        let hosts = (0..shards).map(|shard| world.host(shard, shards, 4 << 20)).collect();
        let engines = (0..shards).map(|_| Engine::default()).collect();
        let volumes = vec![volatile_volume(sectors); usize::from(shards)];
        Self { world, hosts, engines, volumes }
    }

    /// Breaks the target on purpose: every shard orders its own requests, none another's.
    pub fn forget_other_shards(&mut self) {
        for volume in &mut self.volumes {
            *volume = volatile_volume(usize::try_from(volume.blocks()).expect("a small disk"));
        }
    }

    /// Sends a request to a shard. `number` comes back with its outcome.
    pub fn submit(&mut self, shard: ShardId, number: u64, kind: Kind<HeapBuffer>, durable: bool) {
        let index = usize::from(shard);
        let request = Request { volume: self.volumes[index].clone(), kind, durable, lend: false };
        self.engines[index].submit(&mut self.hosts[index], Owner::Iscsi(number), request);
        self.world.absorb(&mut self.hosts[index]);
    }

    /// An alarm `after` from now.
    pub fn alarm(&mut self, after: Duration, number: u64) {
        self.world.alarm(after, number);
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// Goes on until a request ended or an alarm rang. `None`: nothing is left to happen.
    pub fn advance(&mut self) -> Option<News> {
        loop {
            for engine in &mut self.engines {
                if let Some((Owner::Iscsi(number) | Owner::Aoe(number), outcome)) = engine.poll() {
                    return Some(News::Outcome(number, outcome));
                }
            }
            let shard = match self.world.step(&mut self.hosts)? {
                Happening::Alarm(number) => return Some(News::Alarm(number)),
                Happening::Persisted(shard, _) => shard,
                Happening::BlockDone { shard, token, result, data } => {
                    let (engine, host) = self.shard(shard);
                    engine.block_done(host, token, result, data);
                    shard
                }
                Happening::Message(shard, Message::RangeGranted { waiter }) => {
                    let (engine, host) = self.shard(shard);
                    engine.message(host, waiter);
                    shard
                }
                #[allow(unreachable_patterns)] // messages of protocols; engines send none
                Happening::Message(shard, _) => shard,
            };
            let (engine, host) = self.shard(shard);
            engine.tick(host);
            self.world.absorb(&mut self.hosts[usize::from(shard)]);
        }
    }

    /// Requests without an outcome.
    pub fn in_flight(&self) -> usize {
        self.engines.iter().map(Engine::in_flight).sum()
    }

    /// What stands on the disk.
    pub fn read_disk(&self) -> Vec<u8> {
        let disk = self.world.disk(VOLUME).expect("put there by `new`");
        let mut bytes = vec![0; disk.len()];
        disk.read(0, &mut bytes);
        bytes
    }

    fn shard(&mut self, shard: ShardId) -> (&mut Engine<HeapBuffer>, &mut SimHost) {
        (&mut self.engines[usize::from(shard)], &mut self.hosts[usize::from(shard)])
    }
}

/// A write's payload cut into pieces at random block boundaries.
pub fn pieces(bytes: &[u8], rng: &mut Rng) -> Segments<HeapBuffer> {
    let mut segments = Segments::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let blocks = (rest.len() / SECTOR_BYTES) as u64;
        let take = usize::try_from(1 + rng.below(blocks)).expect("few blocks") * SECTOR_BYTES;
        let (piece, tail) = rest.split_at(take);
        segments.push(Slice::whole(HeapBuffer::from_vec(piece.to_vec())));
        rest = tail;
    }
    segments
}

/// What was read, in one piece.
pub fn joined(segments: &Segments<HeapBuffer>) -> Vec<u8> {
    segments.iter().flat_map(|s| s.bytes().iter().copied()).collect()
}

/// Requests by number, for tests that need to remember what they sent.
pub type Sent<T> = HashMap<u64, T>;
