//! What reaches a shard from other threads, and how.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use corbel_ring::{Sender, Store};

use super::StartError;
use super::report::ShardReport;
use crate::aoe::{PortId, ShelfMap};
use crate::host::{BlockError, BlockToken, Extent, Message, ShardId};
use crate::iscsi::model::Targets;
use crate::scsi::LogicalUnit;
use crate::volume::VolumeId;

/// Who is served what, and where. Never changed: a new configuration makes a new one.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) shelves: Arc<ShelfMap>,
    pub(super) targets: Arc<Targets<LogicalUnit>>,
    /// Interfaces by number.
    pub(super) ports: Vec<(PortId, String)>,
    pub(super) portals: Vec<SocketAddr>,
}

/// One thing to tell a shard.
#[derive(Debug)]
pub(super) enum Letter {
    /// From another shard.
    Peer(Message),
    /// A state file is stable, or is not.
    Persisted {
        /// What the shard asked with.
        token: u64,
        /// Whether it is stable.
        kept: bool,
    },
    /// A store told what it holds.
    Extent {
        /// What the shard asked with.
        token: BlockToken,
        /// The answer.
        extent: Result<Extent, BlockError>,
    },
    /// A backing store for a volume, and the first byte that is the volume's.
    Store(VolumeId, Arc<Store>, u64),
    /// A volume is gone.
    Forget(VolumeId),
    /// Serve by this plan from now on.
    Install(Arc<Plan>, mpsc::Sender<Result<(), StartError>>),
    /// Tell clients that a size changed.
    Announce,
    /// A connection whose session lives on the addressed shard, and what it has sent so far.
    Adopt(OwnedFd, Vec<u8>),
    /// Say how things are.
    Report(mpsc::Sender<ShardReport>),
    /// Finish what is in flight, tell initiators, end.
    Stop,
}

/// Every shard's mailbox.
#[derive(Debug)]
pub(super) struct Mailboxes(Vec<Sender<Letter>>);

impl Mailboxes {
    pub(super) fn new(senders: Vec<Sender<Letter>>) -> Self {
        Self(senders)
    }

    pub(super) fn shards(&self) -> ShardId {
        ShardId::try_from(self.0.len()).expect("as many shards as threads")
    }

    pub(super) fn send(&self, shard: ShardId, letter: Letter) {
        self.0[usize::from(shard)].send(letter);
    }

    pub(super) fn send_all(&self, letter: impl Fn() -> Letter) {
        for mailbox in &self.0 {
            mailbox.send(letter());
        }
    }
}
