//! One core's share of the server: its requests, its AoE ports, its iSCSI sessions.
//!
//! Everything that happens comes in by a method, with the host at hand. What is to be sent is
//! asked for afterwards ([`AoeServer::poll_transmit`], `IscsiServer::transmit`).

use std::net::SocketAddr;
use std::sync::Arc;

use corbel_proto::memory::{Buffer, Slice};
use corbel_proto::time::{Duration, Instant};

use crate::aoe::{AoeServer, PortId};
use crate::host::{BlockError, BlockToken, Extent, Host, Message};
use crate::iscsi;
use crate::iscsi::model::Targets;
use crate::iscsi::server::{ConnId, Context, IscsiServer, Refusal};
use crate::scsi::LogicalUnit;
use crate::volume::engine::{Engine, Owner};

/// Marks tokens of state files that iSCSI asked for; AoE's are small numbers.
const OF_ISCSI: u64 = 1 << 63;

/// The token for [`Host::persist`] of iSCSI's own `number`.
pub(crate) const fn persist_token(number: u64) -> u64 {
    number | OF_ISCSI
}

/// See the module.
#[derive(Debug)]
pub struct Shard<B: Buffer> {
    /// Requests in flight.
    pub engine: Engine<B>,
    /// Shelves and slots.
    pub aoe: AoeServer<B>,
    /// Sessions.
    pub iscsi: IscsiServer<B, LogicalUnit>,
}

impl<B: Buffer> Shard<B> {
    /// A shard without requests.
    pub fn new(aoe: AoeServer<B>, iscsi: IscsiServer<B, LogicalUnit>) -> Self {
        Self { engine: Engine::default(), aoe, iscsi }
    }

    /// A frame came in.
    pub fn frame<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        port: PortId,
        frame: &Slice<B>,
    ) {
        self.aoe.frame(port, frame, host, &mut self.engine);
        self.settle(host);
    }

    /// A connection came in.
    ///
    /// # Errors
    /// If it is one too many.
    pub fn accept<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Result<ConnId, Refusal> {
        self.iscsi.accept(peer, local, host.now())
    }

    /// Bytes of a connection's stream.
    pub fn received<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        id: ConnId,
        bytes: &[u8],
    ) {
        self.received_some(host, id, bytes, usize::MAX);
    }

    /// Like [`Self::received`], but stops after `commands_max` commands. Returns how many bytes
    /// were taken.
    pub fn received_some<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        id: ConnId,
        bytes: &[u8],
        commands_max: usize,
    ) -> usize {
        let mut context = Context { host, engine: &mut self.engine };
        let taken = self.iscsi.received_some(id, bytes, commands_max, &mut context);
        self.settle(host);
        taken
    }

    /// The place that was lent for payload, with its first `len` bytes received.
    pub fn direct_done<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        id: ConnId,
        slice: Slice<B>,
        len: u32,
    ) {
        let mut context = Context { host, engine: &mut self.engine };
        self.iscsi.direct_done(id, slice, len, &mut context);
        self.settle(host);
    }

    /// A connection is over.
    pub fn closed<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, id: ConnId) {
        self.iscsi.closed(id, &mut Context { host, engine: &mut self.engine });
        self.settle(host);
    }

    /// A block operation completed.
    pub fn block_done<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        token: BlockToken,
        result: Result<(), BlockError>,
        data: Option<Slice<B>>,
    ) {
        self.engine.block_done(host, token, result, data);
        self.settle(host);
    }

    /// A store has its memory back: see [`Engine::returned`].
    pub fn returned<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, token: BlockToken) {
        self.engine.returned(host, token);
        self.settle(host);
    }

    /// A store told what it holds, as [`BlockOp::Status`](crate::host::BlockOp::Status) asked.
    pub fn status_done<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        token: BlockToken,
        extent: Extent,
    ) {
        self.engine.status_done(host, token, extent);
        self.settle(host);
    }

    /// A state file is stable, or could not be written.
    pub fn persisted<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        token: u64,
        kept: bool,
    ) {
        if token & OF_ISCSI == 0 {
            return self.aoe.persisted(token, kept);
        }
        let mut context = Context { host, engine: &mut self.engine };
        self.iscsi.persisted(token & !OF_ISCSI, kept, &mut context);
        self.settle(host);
    }

    /// Another shard said something.
    pub fn message<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, message: Message) {
        match message {
            Message::RangeGranted { waiter } => self.engine.message(host, waiter),
            Message::FenceAoe { volume, shard, ask } => self.aoe.fence(volume, (shard, ask)),
            Message::Iscsi(message) => {
                self.iscsi.message(message, &mut Context { host, engine: &mut self.engine });
            }
        }
        self.settle(host);
    }

    /// Other targets are served from now on.
    pub fn set_targets<H: Host<Memory = B, Buf = B>>(
        &mut self,
        host: &mut H,
        targets: &Arc<Targets<LogicalUnit>>,
    ) {
        let mut context = Context { host, engine: &mut self.engine };
        self.iscsi.set_targets(targets.clone(), &mut context);
        self.settle(host);
    }

    /// Tells initiators that the target goes, and takes no more of them.
    pub fn stop<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H, grace: Duration) {
        self.iscsi.shutdown(grace, host.now());
        self.settle(host);
    }

    /// Once per turn: what waited for memory or for a time.
    pub fn tick<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H) {
        let due = self.engine.next_timeout().is_some_and(|due| due <= host.now());
        if due || self.engine.starved() > 0 {
            self.engine.tick(host);
        }
        self.iscsi.turn(&mut Context { host, engine: &mut self.engine });
        if self.iscsi.next_timeout().is_some_and(|due| due <= host.now()) {
            self.iscsi.timeout(&mut Context { host, engine: &mut self.engine });
        }
        self.settle(host);
    }

    /// True if [`Self::tick`] should come again soon.
    pub fn wants_tick(&self) -> bool {
        self.engine.starved() > 0 || self.iscsi.is_starved()
    }

    /// When [`Self::tick`] is due at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.iscsi.next_timeout(), self.engine.next_timeout()].into_iter().flatten().min()
    }

    /// Hands outcomes to whoever asked, until there are none left.
    fn settle<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H) {
        while let Some((owner, outcome)) = self.engine.poll() {
            match owner {
                Owner::Aoe(tag) => self.aoe.complete(tag, outcome),
                Owner::Iscsi(tag) => {
                    let mut context = Context { host, engine: &mut self.engine };
                    self.iscsi.complete(tag, outcome, &mut context);
                }
            }
        }
        while let Some((shard, ask)) = self.aoe.poll_fenced() {
            host.post(shard, Message::Iscsi(iscsi::Message::Cleared { ask }));
        }
    }
}
