//! A shard's surroundings, in which nothing happens until the script says so.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, Returned, Slice};
use corbel_proto::time::Instant;
use corbel_target::host::{BlockError, BlockOp, BlockToken, Host, Message, ShardId};
use corbel_target::volume::{Facts, Identity, Options, Volume, VolumeId};

use crate::rng::Rng;

pub(super) const SECTOR: usize = 512;

/// A disk that remembers only what is not zero.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Store(BTreeMap<u64, [u8; SECTOR]>);

impl Store {
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        for (at, sector) in (offset / SECTOR as u64..).zip(into.chunks_exact_mut(SECTOR)) {
            sector.copy_from_slice(self.0.get(&at).unwrap_or(&[0; SECTOR]));
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        assert!(data.len().is_multiple_of(SECTOR) && offset.is_multiple_of(SECTOR as u64));
        for (at, sector) in (offset / SECTOR as u64..).zip(data.chunks_exact(SECTOR)) {
            if sector.iter().all(|byte| *byte == 0) {
                self.0.remove(&at);
            } else {
                self.0.insert(at, sector.try_into().expect("a whole sector"));
            }
        }
    }

    pub(super) fn zero(&mut self, offset: u64, len: u64) {
        let (first, end) = (offset / SECTOR as u64, (offset + len) / SECTOR as u64);
        self.0.retain(|at, _| !(first..end).contains(at));
    }
}

/// A store that lends within the call: what it has lent so far, as token, first byte and end.
#[derive(Debug, Default)]
pub(super) struct Lender {
    pub(super) store: Rc<RefCell<Store>>,
    pub(super) lent: Vec<(BlockToken, u64, u64)>,
    /// It says that it lends, and then does not.
    pub(super) refuses: bool,
}

/// A block operation that a machine has handed over.
pub(super) type Submitted = (VolumeId, BlockOp<HeapBuffer>, BlockToken);

/// What a machine gets back for one: token, result, the payload it lent.
pub(super) type Completed = (BlockToken, Result<(), BlockError>, Option<Slice<HeapBuffer>>);

#[derive(Debug)]
pub(super) struct FuzzHost {
    shard: ShardId,
    shards: ShardId,
    pub(super) now: Instant,
    pub(super) arena: HeapArena,
    rng: Rng,
    pub(super) blocks: Vec<Submitted>,
    pub(super) posts: VecDeque<(ShardId, Message)>,
    pub(super) persists: Vec<(String, Vec<u8>, u64)>,
    /// Loans that came back.
    pub(super) returned: Returned,
    pub(super) lender: Option<Lender>,
    /// Ends of volumes, beyond which nobody may ask.
    pub(super) size_bytes: u64,
}

impl FuzzHost {
    pub(super) fn new(shard: ShardId, shards: ShardId, budget: usize, size_bytes: u64) -> Self {
        Self {
            shard,
            shards,
            now: Instant::from_nanos(1),
            arena: HeapArena::new(budget),
            rng: Rng::new(u64::from(shard)),
            blocks: Vec::new(),
            posts: VecDeque::new(),
            persists: Vec::new(),
            returned: Returned::default(),
            lender: None,
            size_bytes,
        }
    }

    /// Ends the `index`th block operation, with its effect on `store` if it succeeds.
    pub(super) fn complete(
        &mut self,
        index: usize,
        result: Result<(), BlockError>,
        store: &mut Store,
    ) -> Completed {
        let (_, op, token) = self.blocks.remove(index);
        let data = match op {
            BlockOp::Read { offset, mut data } => {
                if result.is_ok() {
                    store.read(offset, data.bytes_mut());
                }
                Some(data)
            }
            BlockOp::Write { offset, data } => {
                if result.is_ok() {
                    store.write(offset, data.bytes());
                }
                Some(data)
            }
            BlockOp::Flush | BlockOp::Status { .. } => None,
            BlockOp::Discard { offset, len } | BlockOp::Zero { offset, len, .. } => {
                if result.is_ok() {
                    store.zero(offset, len);
                }
                None
            }
        };
        (token, result, data)
    }
}

impl Arena for FuzzHost {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        self.arena.alloc(len)
    }

    fn call_in(&mut self, slice: &mut Slice<HeapBuffer>) {
        self.arena.call_in(slice);
    }
}

impl Host for FuzzHost {
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
        let (offset, len) = match &op {
            BlockOp::Read { offset, data } | BlockOp::Write { offset, data } => {
                (*offset, u64::from(data.len))
            }
            BlockOp::Discard { offset, len } | BlockOp::Zero { offset, len, .. } => (*offset, *len),
            BlockOp::Status { offset } => (*offset, SECTOR as u64),
            BlockOp::Flush => (0, SECTOR as u64),
        };
        assert!(len > 0 && offset + len <= self.size_bytes, "outside the volume: {op:?}");
        assert!((offset | len).is_multiple_of(SECTOR as u64), "not whole blocks: {op:?}");
        self.blocks.push((volume, op, token));
    }

    fn lends(&self, _: VolumeId) -> bool {
        self.lender.is_some()
    }

    fn lend(
        &mut self,
        _: VolumeId,
        offset: u64,
        len: u32,
        token: BlockToken,
    ) -> Option<HeapBuffer> {
        let lender = self.lender.as_mut().filter(|lender| !lender.refuses)?;
        let mut bytes = vec![0; len as usize];
        lender.store.borrow().read(offset, &mut bytes);
        lender.lent.push((token, offset, offset + u64::from(len)));
        Some(HeapBuffer::loan(bytes, token.0, &self.returned))
    }

    fn post(&mut self, shard: ShardId, message: Message) {
        self.posts.push_back((shard, message));
    }

    fn random(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.rng.next().to_le_bytes()[0];
        }
    }

    fn persist(&mut self, name: &str, bytes: Vec<u8>, token: u64) {
        self.persists.push((name.to_owned(), bytes, token));
    }
}

/// How a block operation may fail.
pub(super) const ERRORS: [BlockError; 4] =
    [BlockError::Medium, BlockError::NoSpace, BlockError::Unsupported, BlockError::Gone];

/// A volume of `bytes` that can do everything.
pub(super) fn volume(bytes: u64, options: Options) -> Volume {
    let facts = Facts { physical_bytes: 4096, ..Facts::volatile(512) };
    let identity = Identity::from_source("fuzzed");
    Volume::new(VolumeId(0), "fuzzed".into(), identity, facts, options, bytes)
}
