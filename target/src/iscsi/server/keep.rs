//! Commands that change who may do what: state files first, then the end of others' commands.

use std::sync::Arc;

use corbel_proto::iscsi::target::Response;
use corbel_proto::memory::Buffer;
use smallvec::SmallVec;

use super::super::Message as Between;
use super::super::device::{Device, Next};
use super::tasks::{State, Task};
use super::tmf::Then;
use super::{ConnId, Context, IscsiServer};
use crate::host::{Host, Message, ShardId};
use crate::reservation::{Ended, NexusName, Registration};
use crate::volume::VolumeId;

/// A command that waits for something other than its data and the medium. Its initiator may have
/// aborted it meanwhile, and have given its tag to another; so it has a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) tsih: u16,
    pub(super) itt: u32,
    pub(super) unit: (u16, u32),
    pub(super) number: u64,
}

/// Whose state file is being written.
#[derive(Debug)]
pub(super) struct Keep<D, W> {
    pub(super) device: Arc<D>,
    pub(super) waiter: Waiter,
    pub(super) work: W,
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    pub(super) fn keep<H>(
        &mut self,
        keep: Keep<D, D::Work>,
        name: &str,
        bytes: Vec<u8>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let token = self.keeps.insert(keep) as u64;
        cx.host.persist(name, bytes, crate::shard::persist_token(token));
    }

    /// The file that was handed to [`Host::persist`] for `token` is stable, or was not written.
    pub fn persisted<H>(&mut self, token: u64, ok: bool, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let known = usize::try_from(token).ok().and_then(|key| self.keeps.try_remove(key));
        let Keep { device, waiter, work } = known.expect("the host answers each file once");
        let next = device.kept(work, ok);
        match (self.take_waiter(waiter), next) {
            (Some(id), next) => {
                self.step(id, waiter.tsih, waiter.itt, waiter.unit, next, cx);
                self.touch(id);
            }
            // Nobody waits, but the others' commands end all the same.
            (None, Next::Evict(ended, response)) => {
                self.evict(ended, waiter, response, cx);
            }
            (None, Next::Detach(detached)) => {
                let (request, work, _) = *detached;
                self.detach(waiter.tsih, waiter.itt, waiter.unit, (device, request, work), cx);
            }
            (None, _) => {}
        }
        self.go_on(Some(waiter.tsih), cx);
    }

    /// A command of a session waits from now on.
    pub(super) fn waiter(&mut self, conn: ConnId, tsih: u16, itt: u32, unit: (u16, u32)) -> Waiter {
        let waiter = self.nobody(tsih, itt, unit);
        if let Some(session) = self.sessions.get_mut(&tsih) {
            let (also, state) = (SmallVec::new(), State::Waiting(waiter.number));
            session.tasks.insert(itt, Task { conn, unit, also, state });
        }
        waiter
    }

    /// A number for what no command waits for.
    pub(super) fn nobody(&mut self, tsih: u16, itt: u32, unit: (u16, u32)) -> Waiter {
        self.waiters += 1;
        Waiter { tsih, itt, unit, number: self.waiters }
    }

    /// Takes the task of a command that waited, and says whose it was, if it still waits.
    fn take_waiter(&mut self, waiter: Waiter) -> Option<ConnId> {
        let session = self.sessions.get_mut(&waiter.tsih)?;
        let waits = session.tasks.get(&waiter.itt).is_some_and(
            |task| matches!(task.state, State::Waiting(number) if number == waiter.number),
        );
        let task = if waits { session.tasks.remove(&waiter.itt) } else { None };
        task.map(|task| task.conn)
    }

    /// Ends these commands on the waiter's unit everywhere; `response` is its answer. Every shard
    /// acknowledges twice where AoE clients are meant too: for its sessions, and for its slots.
    pub(super) fn evict<H>(
        &mut self,
        ended: Ended,
        waiter: Waiter,
        response: Response<B>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let (shard, shards) = (cx.host.shard(), cx.host.shards());
        let volume = VolumeId(waiter.unit.1);
        let still = self.evict_here(&ended.registered, volume, cx);
        let slots = if ended.outsiders { usize::from(shards) } else { 0 };
        let others = usize::from(shards.saturating_sub(1)) + slots;
        let then = Then::Respond(waiter.number);
        self.answers.insert(waiter.number, (waiter, response));
        let Some(ask) = self.drain(still, others, then, cx) else { return };
        for one in (0..shards).filter(|_| ended.outsiders) {
            cx.host.post(one, Message::FenceAoe { volume, shard, ask: ask as u64 });
        }
        let nexuses: Arc<[Registration]> = ended.registered.into();
        for other in (0..shards).filter(|other| *other != shard) {
            let nexuses = nexuses.clone();
            let evict = Between::Evict { nexuses, volume, shard, ask: ask as u64 };
            cx.host.post(other, Message::Iscsi(evict));
        }
    }

    /// The share of this shard. Returns what is still at the medium.
    fn evict_here<H>(
        &mut self,
        nexuses: &[Registration],
        volume: VolumeId,
        cx: &mut Context<'_, B, H>,
    ) -> Vec<usize>
    where
        H: Host<Memory = B, Buf = B>,
    {
        let theirs = |session: &super::Session<B, D>| {
            let reach = &session.reach;
            let name = NexusName::new(&reach.initiator, &reach.port_name, reach.group);
            nexuses.iter().any(|one| one.is_of(&name))
        };
        let victims: Vec<u16> =
            self.sessions.iter().filter(|(_, s)| theirs(s)).map(|(&tsih, _)| tsih).collect();
        for &tsih in &victims {
            self.end_for_another(tsih, |unit| unit.1 == volume.0, cx);
            self.touch_session(tsih);
        }
        self.at_medium(|tsih, unit| unit.1 == volume.0 && victims.contains(&tsih))
    }

    /// Another shard asks for [`Self::evict`].
    pub(super) fn evict_for<H>(
        &mut self,
        nexuses: &[Registration],
        volume: VolumeId,
        then: (ShardId, u64),
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let still = self.evict_here(nexuses, volume, cx);
        self.drain(still, 0, Then::Acknowledge(then.0, then.1), cx);
    }

    /// All others' commands have ended.
    pub(super) fn evicted(&mut self, number: u64) {
        let Some((waiter, response)) = self.answers.remove(&number) else { return };
        let Some(id) = self.take_waiter(waiter) else { return };
        self.reply(id, waiter.tsih, waiter.itt, response);
        self.touch(id);
    }

    pub(super) fn touch_session(&mut self, tsih: u16) {
        let members = self.sessions.get(&tsih).map(|session| session.members.ids());
        for id in members.unwrap_or_default() {
            self.touch(id);
        }
    }
}
