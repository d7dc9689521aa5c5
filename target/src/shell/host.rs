//! The surroundings of a shard in production: its ring, its mailbox, the other shards.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use corbel_proto::memory::Slice;
use corbel_proto::time::Instant;
use corbel_ring::{Arena, Buf, Failure, FailureKind, File, Hole, Op, Reactor, Store};

use super::letter::{Letter, Mailboxes};
use super::state::StateWriter;
use super::survey::Surveyor;
use crate::host::{BlockError, BlockOp, BlockToken, Host, Message, ShardId};
use crate::volume::VolumeId;

/// A volume's store, attached to the ring.
#[derive(Debug, Clone)]
pub(super) struct Backing {
    pub(super) store: Arc<Store>,
    pub(super) file: File,
    /// First byte that is the volume's.
    pub(super) base: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct RingHost {
    pub(super) reactor: Reactor,
    arena: Arena,
    pub(super) now: Instant,
    shard: ShardId,
    /// Backing stores by volume number, and the first byte that is the volume's.
    stores: Vec<Option<Backing>>,
    mailboxes: Arc<Mailboxes>,
    state: StateWriter,
    surveyor: Surveyor,
    /// Operations on stores that are gone; they complete in the next turn.
    refused: Vec<(BlockToken, Option<Slice<Buf>>)>,
}

impl RingHost {
    pub(super) fn new(
        reactor: Reactor,
        shard: ShardId,
        mailboxes: Arc<Mailboxes>,
        state: StateWriter,
        surveyor: Surveyor,
    ) -> Self {
        let arena = reactor.arena();
        Self {
            reactor,
            arena,
            now: Instant::ZERO,
            shard,
            stores: Vec::new(),
            mailboxes,
            state,
            surveyor,
            refused: Vec::new(),
        }
    }

    /// Puts a store under a volume, or takes it away.
    pub(super) fn set_store(&mut self, volume: VolumeId, store: Option<Backing>) {
        let index = volume.0 as usize;
        if self.stores.len() <= index {
            self.stores.resize(index + 1, None);
        }
        if let Some(old) = std::mem::replace(&mut self.stores[index], store) {
            self.reactor.close(old.file);
        }
    }

    fn backing(&self, volume: VolumeId) -> Option<&Backing> {
        self.stores.get(volume.0 as usize)?.as_ref()
    }

    /// Hands a connection to the shard that has its session.
    pub(super) fn hand_over(&self, shard: ShardId, fd: OwnedFd, received: Vec<u8>) {
        self.mailboxes.send(shard, Letter::Adopt(fd, received));
    }

    /// The next operation that found no store.
    pub(super) fn next_refused(&mut self) -> Option<(BlockToken, Option<Slice<Buf>>)> {
        self.refused.pop()
    }

    /// True if [`Self::next_refused`] has something: do not wait.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }
}

impl corbel_proto::memory::Arena for RingHost {
    type Buf = Buf;

    fn alloc(&mut self, len: usize) -> Option<Buf> {
        self.arena.alloc(len)
    }

    fn call_in(&mut self, slice: &mut Slice<Buf>) {
        // If the store cannot be read, the send fails with what it holds.
        let _ = corbel_ring::call_in(slice, &self.arena);
    }
}

impl Host for RingHost {
    type Memory = Buf;

    fn now(&self) -> Instant {
        self.now
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn shards(&self) -> ShardId {
        self.mailboxes.shards()
    }

    fn block(&mut self, volume: VolumeId, op: BlockOp<Buf>, token: BlockToken) {
        let Some(Some(Backing { store, file, base })) = self.stores.get(volume.0 as usize) else {
            let data = match op {
                BlockOp::Read { data, .. } | BlockOp::Write { data, .. } => Some(data),
                _ => None,
            };
            self.refused.push((token, data));
            return;
        };
        let (file, base) = (*file, *base);
        let op = match op {
            BlockOp::Read { offset, data } => Op::Read { file, offset: base + offset, data },
            BlockOp::Write { offset, data } => {
                Op::Write { file, offset: base + offset, data, durable: false }
            }
            BlockOp::Flush => Op::Sync { file },
            BlockOp::Discard { offset, len } => {
                Op::Fallocate { file, mode: Hole::Punch, offset: base + offset, len }
            }
            BlockOp::Zero { offset, len, unmap } => {
                let mode = if unmap { Hole::Punch } else { Hole::Zero };
                Op::Fallocate { file, mode, offset: base + offset, len }
            }
            BlockOp::Status { offset } => {
                let (mailboxes, shard) = (self.mailboxes.clone(), self.shard);
                let answer = move |extent| mailboxes.send(shard, Letter::Extent { token, extent });
                self.surveyor.ask(store.clone(), base + offset, answer);
                return;
            }
        };
        self.reactor.submit(op, token.0);
    }

    fn lends(&self, volume: VolumeId) -> bool {
        self.backing(volume).is_some_and(|backing| backing.store.lends())
    }

    fn lend(&mut self, volume: VolumeId, offset: u64, len: u32, token: BlockToken) -> Option<Buf> {
        let &Backing { file, base, .. } = self.backing(volume)?;
        self.reactor.lend(file, (base + offset, len), token.0)
    }

    fn post(&mut self, shard: ShardId, message: Message) {
        self.mailboxes.send(shard, Letter::Peer(message));
    }

    fn random(&mut self, bytes: &mut [u8]) {
        // The kernel's generator answers without fail once the machine has booted.
        getrandom::fill(bytes).expect("the kernel gives random bytes");
    }

    fn persist(&mut self, name: &str, bytes: Vec<u8>, token: u64) {
        let (mailboxes, shard) = (self.mailboxes.clone(), self.shard);
        self.state.replace(name, bytes, move |kept| {
            mailboxes.send(shard, Letter::Persisted { token, kept });
        });
    }
}

/// What a failed block operation means to a client.
pub(super) fn block_error(failure: Failure) -> BlockError {
    match failure.kind() {
        FailureKind::NoSpace => BlockError::NoSpace,
        FailureKind::Unsupported => BlockError::Unsupported,
        FailureKind::Gone => BlockError::Gone,
        FailureKind::Medium
        | FailureKind::Conflict
        | FailureKind::Disconnected
        | FailureKind::Cancelled
        | FailureKind::Exhausted
        | FailureKind::Invalid
        | FailureKind::Other => BlockError::Medium,
    }
}
