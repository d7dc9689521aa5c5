//! How sessions end: logout, loss of the connection, replacement by a new login. In each case a
//! session is over only when nothing of it can reach a medium any more.

use std::sync::Arc;

use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::pdu::logout::{self, LogoutRequest, Reason};
use corbel_proto::iscsi::target::Closed;
use corbel_proto::memory::Buffer;

use super::super::Message as Between;
use super::super::device::Device;
use super::super::model::{Allow, Target, Targets};
use super::tmf::Then;
use super::{Conn, ConnId, Context, IscsiServer};
use crate::host::{Host, Message, ShardId};

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    /// Another shard, or this one, says something about sessions.
    pub fn message<H>(&mut self, message: Between, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        match message {
            Between::CloseSession { tsih, shard, successor } => {
                self.fence(tsih, shard, successor, cx);
            }
            Between::SessionFenced { successor } => self.fenced(successor, cx),
            Between::Clear { volume, shard, ask } => {
                self.clear_for(volume, (shard, ask), cx);
            }
            Between::EndTarget { target } => self.end_target(&target, cx),
            Between::Evict { nexuses, volume, shard, ask } => {
                self.evict_for(&nexuses, volume, (shard, ask), cx);
            }
            Between::Cleared { ask } => {
                if let Ok(key) = usize::try_from(ask) {
                    self.drained(key, cx);
                }
            }
        }
        self.go_on(None, cx);
    }

    pub(super) fn logout<H>(
        &mut self,
        id: ConnId,
        request: &LogoutRequest,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(tsih) = self.conn(id).and_then(|conn| conn.session) else { return };
        let Some(session) = self.sessions.get(&tsih) else { return };
        let (level, cid) = (session.admission.agreed.recovery_level, request.cid);
        let keeps = !session.admission.agreed.retention().is_zero();
        let victim = session.members.by_cid(cid).or_else(|| session.lost_by_cid(cid));
        let refusal = match (request.reason, victim) {
            (Reason::CloseSession, _) => {
                return self.stop_all(tsih, Then::Logout(id, request.itt), cx);
            }
            (Reason::CloseConnection, Some(victim)) => {
                return self.log_out_one((id, request.itt), tsih, victim, cx);
            }
            (Reason::RemoveForRecovery, _) if level < 2 => logout::RECOVERY_UNSUPPORTED,
            (Reason::RemoveForRecovery, Some(victim)) if keeps => {
                return self.log_out_for_recovery((id, request.itt), (tsih, cid), victim, cx);
            }
            (Reason::RemoveForRecovery, Some(victim)) => {
                return self.log_out_one((id, request.itt), tsih, victim, cx);
            }
            (Reason::CloseConnection | Reason::RemoveForRecovery, None) => logout::CID_NOT_FOUND,
        };
        self.wired(id, |wire| wire.logout_response(request.itt, refusal));
    }

    pub(super) fn logged_out<H>(&mut self, id: ConnId, itt: u32, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        if self.wired(id, |wire| wire.logout_response(itt, logout::CLOSED)).is_some() {
            self.drive(id, cx);
        }
    }

    /// A connection is over, for whatever reason.
    pub(super) fn wire_closed<H>(&mut self, id: ConnId, why: Closed, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(conn) = self.conn(id) else { return };
        tracing::info!(peer = %conn.peer, ?why, "connection ends");
        if !conn.close_told {
            conn.close_told = true;
            self.closing.push_back(id);
        }
        self.gives_up_joining(id, cx);
        let Some(conn) = self.conn(id) else { return };
        let orphans = conn.wire.take_orphans();
        let Some(tsih) = conn.session.take() else { return };
        let cid = self.sessions.get(&tsih).and_then(|session| session.members.cid(id));
        let kept = match orphans {
            Some(orphans) => self.retain(id, tsih, (orphans, why == Closed::Recovery), cx),
            None => false,
        };
        if kept || !self.leave(id, tsih, cx) {
            let unasked = matches!(why, Closed::Fault(_) | Closed::PeerDead | Closed::Lost);
            if let Some(cid) = cid.filter(|_| unasked) {
                self.tell_dropped(tsih, cid, kept);
            }
            return self.resume_others(id, tsih, cx);
        }
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        session.ending = true;
        self.finish_session(tsih, cx);
    }

    /// Forgets a session that is ending, if nothing of it is left; tells those who wait for that.
    pub(super) fn finish_session<H>(&mut self, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let over = |s: &super::Session<B, D>| s.ending && s.at_medium == 0 && !s.fencing;
        if !self.sessions.get(&tsih).is_some_and(over) {
            return;
        }
        let Some(session) = self.sessions.remove(&tsih) else { return };
        self.task_sets.retain(|key, _| key.0 != tsih);
        self.registry.leave(tsih);
        for (shard, successor) in session.waiters {
            cx.host.post(shard, Message::Iscsi(Between::SessionFenced { successor }));
        }
    }

    /// A new login replaces session `tsih`: end it, and say so when it is over.
    fn fence<H>(&mut self, tsih: u16, shard: ShardId, successor: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get_mut(&tsih) else {
            cx.host.post(shard, Message::Iscsi(Between::SessionFenced { successor }));
            return;
        };
        session.waiters.push((shard, successor));
        tracing::info!(tsih, successor, "session is replaced");
        session.ending = true;
        for id in session.members.ids() {
            self.close(id, cx);
        }
        self.expire_all(tsih, cx);
        self.finish_session(tsih, cx);
    }

    /// The session that `tsih` replaces is over.
    fn fenced<H>(&mut self, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        session.fencing = false;
        if session.ending {
            self.finish_session(tsih, cx);
        } else {
            self.welcome(tsih, cx);
        }
    }

    /// Ends every session of the target that this connection belongs to, on all shards.
    pub(super) fn end_target_of<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let session = self.conn_ref(id).and_then(|conn| self.sessions.get(&conn.session?));
        let Some(target) = session.and_then(|session| session.admission.target.clone()) else {
            return;
        };
        let shard = cx.host.shard();
        for other in (0..cx.host.shards()).filter(|other| *other != shard) {
            let end = Between::EndTarget { target: target.clone() };
            cx.host.post(other, Message::Iscsi(end));
        }
        self.end_target(&target, cx);
    }

    /// This shard's share of it.
    fn end_target<H>(&mut self, target: &Name, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let of_target =
            self.sessions.iter().filter(|(_, s)| s.admission.target.as_ref() == Some(target));
        let sessions: Vec<_> = of_target.map(|(&tsih, _)| tsih).collect();
        tracing::warn!(%target, sessions = sessions.len(), "cold reset: sessions end");
        sessions.into_iter().for_each(|tsih| self.drop_session(tsih, cx));
    }

    /// From now on these are the targets. Sessions of targets that are gone, or closed to their
    /// initiator, end; the others learn of changed logical units.
    pub fn set_targets<H>(&mut self, targets: Arc<Targets<D>>, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        self.targets = targets;
        let (mut lost, mut gone) = (Vec::new(), Vec::new());
        for (&tsih, session) in &mut self.sessions {
            let Some(name) = &session.admission.target else { continue };
            let target = self.targets.find(name);
            let ids = session.members.ids();
            let stays = |id: &ConnId| {
                let conn = self.conns.get(id.key());
                let initiator = &session.admission.initiator;
                let admits =
                    |allow: &Allow, conn: &Conn<B>| allow.admits(initiator, conn.peer.ip());
                target.zip(conn).is_some_and(|(target, conn)| admits(&target.allow, conn))
            };
            let leave: Vec<_> = ids.iter().copied().filter(|id| !stays(id)).collect();
            if target.is_none() || !ids.is_empty() && leave.len() == ids.len() {
                gone.push(tsih);
            } else {
                lost.extend(leave.into_iter().map(|id| (tsih, id)));
            }
            let Some(target) = target else { continue };
            let same = |old: &Arc<Target<D>>| {
                old.luns.len() == target.luns.len()
                    && old
                        .luns
                        .iter()
                        .zip(&target.luns)
                        .all(|((a, x), (b, y))| a == b && x.volume() == y.volume())
            };
            if !session.target.as_ref().is_some_and(same) {
                session.reach.luns_generation += 1;
            }
            session.reach.luns = target.lun_list();
            session.reach.groups = target.groups.iter().map(|group| group.tag).collect();
            session.target = Some(target.clone());
        }
        for tsih in gone {
            tracing::info!(tsih, "target is gone: session ends");
            self.drop_session(tsih, cx);
        }
        for (tsih, id) in lost {
            tracing::info!(tsih, conn = id.0, "target is closed to it: connection ends");
            self.drop_member(id, tsih, cx);
        }
    }
}
