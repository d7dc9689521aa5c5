//! Commands that change who may do what: state files first, then the end of others' commands.

use std::sync::Arc;

use corbel_proto::iscsi::target::Response;
use corbel_proto::memory::Buffer;

use super::super::Message as Between;
use super::super::device::{Device, Next};
use super::tmf::Then;
use super::{Context, IscsiServer};
use crate::host::{Host, Message, ShardId};
use crate::reservation::{NexusName, Registration};
use crate::volume::VolumeId;

/// Whose state file is being written.
#[derive(Debug)]
pub(super) struct Keep<D> {
    pub(super) device: Arc<D>,
    pub(super) tsih: u16,
    pub(super) itt: u32,
    pub(super) unit: (u16, u32),
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    pub(super) fn keep<H>(
        &mut self,
        keep: Keep<D>,
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
        let Keep { device, tsih, itt, unit } = known.expect("the host answers each file once");
        let next = device.kept(ok);
        let waits = self.sessions.get_mut(&tsih).and_then(|session| session.tasks.remove(&itt));
        match (waits, next) {
            (Some(_), next) => {
                self.step(tsih, itt, unit, next, cx);
                self.touch_session(tsih);
            }
            // Nobody waits, but the others' commands end all the same.
            (None, Next::Evict(nexuses, response)) => {
                self.evict(nexuses, VolumeId(unit.1), (tsih, itt), response, cx);
            }
            (None, _) => {}
        }
    }

    /// Ends the commands of `nexuses` on `volume` everywhere; `response` is the answer then.
    pub(super) fn evict<H>(
        &mut self,
        nexuses: Vec<Registration>,
        volume: VolumeId,
        task: (u16, u32),
        response: Response<B>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let (shard, shards) = (cx.host.shard(), cx.host.shards());
        let still = self.evict_here(&nexuses, volume, cx);
        let others = usize::from(shards.saturating_sub(1));
        let then = Then::Respond(task.0, task.1);
        self.answers.insert(task, response);
        let Some(ask) = self.drain(still, others, then, cx) else { return };
        let nexuses: Arc<[Registration]> = nexuses.into();
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
    pub(super) fn evicted(&mut self, tsih: u16, itt: u32) {
        let Some(response) = self.answers.remove(&(tsih, itt)) else { return };
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        // Its own initiator may have aborted it meanwhile.
        if session.tasks.remove(&itt).is_none() {
            return;
        }
        if let Some(conn) = session.conn.and_then(|id| self.conns.get_mut(id.key())) {
            conn.wire.respond(itt, response);
        }
        self.touch_session(tsih);
    }

    fn touch_session(&mut self, tsih: u16) {
        if let Some(id) = self.sessions.get(&tsih).and_then(|session| session.conn) {
            self.touch(id);
        }
    }
}
