//! The connections of a session: joining, leaving, and what they share.
//!
//! All connections of a session live on one shard. One that comes in elsewhere is handed over when
//! its first Login Request names the session, before anything was answered: see
//! [`IscsiServer::poll_move`]. So nothing of a session is shared between threads.

use corbel_proto::iscsi::bhs::{BHS_BYTES, Lun};
use corbel_proto::iscsi::framer::padding;
use corbel_proto::iscsi::login::target::Admission;
use corbel_proto::iscsi::params::Negotiated;
use corbel_proto::iscsi::pdu::asynchronous::AsyncEvent;
use corbel_proto::iscsi::pdu::login::{LoginRequest, Status};
use corbel_proto::iscsi::target::{Closed, Connection, Order, Passed};
use corbel_proto::memory::Buffer;
use smallvec::SmallVec;

use super::super::device::Device;
use super::tmf::Then;
use super::{ConnId, Context, IscsiServer};
use crate::host::{Host, ShardId};

/// One connection of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) id: ConnId,
    pub(super) cid: u16,
    link: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: SmallVec<[Member; 1]>,
    /// Where there are several: what they share, unless one of them has it just now.
    order: Option<Order>,
    /// Connections that wait for one that they replace.
    joining: u32,
    links: u32,
}

impl Members {
    pub(super) fn of(id: ConnId, cid: u16) -> Self {
        let all = SmallVec::from_buf([Member { id, cid, link: 0 }]);
        Self { all, order: None, joining: 0, links: 0 }
    }

    /// One of them, if there is any.
    pub(super) fn first(&self) -> Option<ConnId> {
        self.all.first().map(|member| member.id)
    }

    pub(super) fn ids(&self) -> SmallVec<[ConnId; 4]> {
        self.all.iter().map(|member| member.id).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn by_cid(&self, cid: u16) -> Option<ConnId> {
        self.all.iter().find(|member| member.cid == cid).map(|member| member.id)
    }

    /// What they share from now on.
    pub(super) fn share(&mut self, order: Order) {
        self.order = Some(order);
    }

    /// This many tasks without a connection are over.
    pub(super) fn free_places(&mut self, count: usize) {
        if let Some(order) = &mut self.order {
            (0..count).for_each(|_| order.free_place());
        }
    }

    pub(super) fn cid(&self, id: ConnId) -> Option<u16> {
        self.all.iter().find(|member| member.id == id).map(|member| member.cid)
    }

    /// A connection is gone: its CID.
    pub(super) fn remove(&mut self, id: ConnId) -> Option<u16> {
        let at = self.all.iter().position(|member| member.id == id)?;
        Some(self.all.remove(at).cid)
    }

    /// True if nobody is there and nobody comes.
    pub(super) fn is_over(&self) -> bool {
        self.all.is_empty() && self.joining == 0
    }
}

/// A connection that is about to join.
#[derive(Debug)]
pub(super) struct Joining {
    tsih: u16,
    cid: u16,
    agreed: Negotiated,
}

/// A connection that belongs to another shard.
#[derive(Debug, PartialEq, Eq)]
pub struct Move {
    /// Which; it is to be taken off its socket, and [`IscsiServer::closed`].
    pub id: ConnId,
    /// Where to.
    pub shard: ShardId,
    /// What the connection has received so far: the other shard begins with it.
    pub bytes: Vec<u8>,
}

/// A Login Request as it came.
fn bytes_of(request: &LoginRequest, text: &[u8]) -> Vec<u8> {
    let len = u32::try_from(text.len()).expect("login text is short");
    let mut bytes = Vec::with_capacity(BHS_BYTES + text.len() + 3);
    bytes.extend_from_slice(&LoginRequest { data_len: len, ..*request }.emit());
    bytes.extend_from_slice(text);
    bytes.resize(bytes.len() + padding(len), 0);
    bytes
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    /// The next connection to hand to another shard, with its socket.
    pub fn poll_move(&mut self) -> Option<Move> {
        self.moving.pop_front()
    }

    /// A first Login Request that names a session of another shard. True if the connection goes
    /// there.
    pub(super) fn moves(
        &mut self,
        id: ConnId,
        request: &LoginRequest,
        text: &[u8],
        here: ShardId,
    ) -> bool {
        let Some(conn) = self.conn(id) else { return false };
        if request.tsih == 0 || std::mem::replace(&mut conn.greeted, true) {
            return false;
        }
        let Some(shard) = self.registry.shard_of(request.tsih).filter(|shard| *shard != here)
        else {
            return false;
        };
        self.moving.push_back(Move { id, shard, bytes: bytes_of(request, text) });
        true
    }

    /// Calls a connection, with the order of its session in its hands.
    pub(super) fn wired<R>(
        &mut self,
        id: ConnId,
        call: impl FnOnce(&mut Connection<B>) -> R,
    ) -> Option<R> {
        let conn = self.conns.get_mut(id.key()).filter(|c| c.generation == id.generation())?;
        if !conn.shares {
            return Some(call(&mut conn.wire));
        }
        let session = conn.session.and_then(|tsih| self.sessions.get_mut(&tsih));
        let place = session.map(|session| &mut session.members.order);
        let Some(place) = place.filter(|place| place.is_some()) else {
            return Some(call(&mut conn.wire));
        };
        if let Some(order) = place.take() {
            conn.wire.give_order(order);
        }
        let result = call(&mut conn.wire);
        *place = Some(conn.wire.take_order());
        Some(result)
    }

    /// A login that names a session, all agreed: let it join.
    pub(super) fn join<H>(&mut self, id: ConnId, admission: &Admission, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let session = self.sessions.get_mut(&admission.tsih).filter(|session| {
            let own = &session.admission;
            let key =
                |a: &Admission| (a.initiator.clone(), a.isid, a.target.clone(), a.portal_group_tag);
            let open = !session.ending && !session.fencing && own.target.is_some();
            open && key(own) == key(admission)
        });
        let Some(session) = session else {
            return self.turn_away(id, Status::SESSION_DOES_NOT_EXIST);
        };
        let old = session.members.by_cid(admission.cid);
        let terms = session.admission.agreed;
        let wanted = session.members.len() + session.members.joining as usize;
        if old.is_none() && wanted >= usize::from(terms.connections_max)
            || session.members.joining > 0
        {
            return self.turn_away(id, Status::TOO_MANY_CONNECTIONS);
        }
        // What was agreed with the first login holds for all; these are each connection's own.
        let own = &admission.agreed;
        let agreed = Negotiated {
            header_digest: own.header_digest,
            data_digest: own.data_digest,
            peer_segment_bytes_max: own.peer_segment_bytes_max,
            segment_bytes_max: own.segment_bytes_max,
            ..terms
        };
        session.members.joining += 1;
        let joining = Joining { tsih: admission.tsih, cid: admission.cid, agreed };
        if let Some(conn) = self.conn(id) {
            conn.joining = Some(Box::new(joining));
        }
        match old {
            None => self.joined(id, cx),
            // Its tasks can be reassigned once this one has joined.
            Some(old) if !terms.retention().is_zero() => {
                tracing::info!(tsih = admission.tsih, cid = admission.cid, "reinstated");
                self.end_conn(old, Closed::Replaced, cx);
                self.joined(id, cx);
            }
            Some(old) => {
                tracing::info!(tsih = admission.tsih, cid = admission.cid, "reinstated");
                self.close(old, cx);
                let still = self.stopped_at_medium(admission.tsih);
                self.drain(still, 0, Then::Join(id), cx);
            }
        }
    }

    /// Stopped requests of a session that the engine still has.
    fn stopped_at_medium(&self, tsih: u16) -> Vec<usize> {
        let works = self.works.iter().filter(|(_, work)| work.detached.is_none());
        let stopped = works.filter(|(_, work)| work.tsih == tsih && work.stopped);
        stopped.map(|(key, _)| key).collect()
    }

    /// Nothing stands in the way of a connection any more.
    pub(super) fn joined<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        if conn.generation != id.generation() {
            return;
        }
        let Some(joining) = conn.joining.take() else { return };
        let Joining { tsih, cid, agreed } = *joining;
        let session = self.sessions.get_mut(&tsih).filter(|session| !session.ending);
        let Some(session) = session else {
            return self.turn_away(id, Status::SESSION_DOES_NOT_EXIST);
        };
        let target = session.target.clone();
        let members = &mut session.members;
        members.joining -= 1;
        members.links += 1;
        let link = members.links;
        if members.order.is_none()
            && let Some(leading) = members.all.first().map(|member| member.id)
            && let Some(leading) = self.conns.get_mut(leading.key())
        {
            leading.shares = true;
            members.order = Some(leading.wire.take_order());
        }
        members.all.push(Member { id, cid, link });
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        (conn.session, conn.shares, conn.full) = (Some(tsih), true, true);
        conn.keeps = agreed.recovery_level > 0;
        self.keepers += usize::from(conn.keeps);
        self.half_open -= 1;
        conn.wire.set_link(link);
        if let Some(target) = target {
            target.tune(&mut conn.wire);
        }
        let reply = conn.login.finish(tsih);
        conn.wire.login_response(&reply.response, &reply.text);
        conn.wire.enter_full_feature(&agreed, cx.host.now());
        tracing::info!(peer = %conn.peer, tsih, cid, "joined its session");
        self.removed_for_recovery(tsih, cid, cx.host.now());
        self.arm(id);
        self.touch(id);
    }

    /// It is the turn of a request of another connection of the session.
    pub(super) fn elsewhere<H>(
        &mut self,
        id: ConnId,
        link: u32,
        passed: Passed,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let session = self.conn_ref(id).and_then(|conn| self.sessions.get(&conn.session?));
        let member = session.and_then(|s| s.members.all.iter().find(|m| m.link == link));
        let Some(other) = member.map(|member| member.id) else { return };
        self.wired(other, |wire| wire.take_passed(passed));
        self.drive(other, cx);
    }

    /// A connection takes no more commands: those of the others that waited behind it go on.
    pub(super) fn resume_others<H>(&mut self, id: ConnId, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let others = self.sessions.get(&tsih).map(|session| session.members.ids());
        for other in others.unwrap_or_default().into_iter().filter(|other| *other != id) {
            self.wired(other, |wire| wire.resume());
            self.drive(other, cx);
        }
    }

    /// A connection leaves its session, with its tasks. True if it was the last one.
    pub(super) fn leave<H>(&mut self, id: ConnId, tsih: u16, cx: &mut Context<'_, B, H>) -> bool
    where
        H: Host<Memory = B, Buf = B>,
    {
        self.stop_tasks_of(id, tsih, cx);
        let Some(session) = self.sessions.get_mut(&tsih) else { return false };
        session.members.remove(id);
        session.is_over()
    }

    pub(super) fn stop_tasks_of<H>(&mut self, id: ConnId, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get(&tsih) else { return };
        let tasks = session.tasks.iter().filter(|(_, task)| task.conn == id);
        for itt in tasks.map(|(&itt, _)| itt).collect::<Vec<_>>() {
            self.stop(tsih, itt, cx);
        }
    }

    /// A connection that wanted to join is gone.
    pub(super) fn gives_up_joining<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(joining) = self.conn(id).and_then(|conn| conn.joining.take()) else { return };
        let Some(session) = self.sessions.get_mut(&joining.tsih) else { return };
        session.members.joining -= 1;
        if session.is_over() {
            session.ending = true;
            self.finish_session(joining.tsih, cx);
        }
    }

    /// Logout of one connection (RFC 7143 11.14.1): its tasks end first.
    pub(super) fn log_out_one<H>(
        &mut self,
        (id, itt): (ConnId, u32),
        tsih: u16,
        victim: ConnId,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        self.stop_tasks_of(victim, tsih, cx);
        let still = self.stopped_at_medium(tsih);
        self.drain(still, 0, Then::LogoutOne { id, itt, victim }, cx);
    }

    /// Nothing of `victim` can reach the medium any more.
    pub(super) fn logged_out_one<H>(
        &mut self,
        (id, itt): (ConnId, u32),
        victim: ConnId,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        if victim == id {
            return self.logged_out(id, itt, cx);
        }
        self.close(victim, cx);
        self.expire(victim, cx);
        self.wired(id, |wire| wire.logout_of_another(itt));
        self.drive(id, cx);
    }

    /// Ends every connection of a session but `id`.
    pub(super) fn close_others<H>(&mut self, id: ConnId, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let all = self.sessions.get(&tsih).map(|session| session.members.ids());
        for other in all.unwrap_or_default().into_iter().filter(|other| *other != id) {
            self.close(other, cx);
        }
    }

    /// Ends a connection for a reason, if it is there.
    pub(super) fn end_conn<H>(&mut self, id: ConnId, why: Closed, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        if self.wired(id, |wire| wire.close(why)).is_some() {
            self.drive(id, cx);
        }
    }

    /// Logout of one connection for recovery: its tasks wait for another one.
    pub(super) fn log_out_for_recovery<H>(
        &mut self,
        (id, itt): (ConnId, u32),
        (tsih, cid): (u16, u16),
        victim: ConnId,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        if victim == id {
            self.wired(id, |wire| wire.logout_for_recovery(itt));
            return;
        }
        self.end_conn(victim, Closed::Replaced, cx);
        self.removed_for_recovery(tsih, cid, cx.host.now());
        self.wired(id, |wire| wire.logout_of_another(itt));
        self.drive(id, cx);
    }

    /// Ends a connection for good, if it is there.
    pub(super) fn close<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        self.end_conn(id, Closed::ByServer, cx);
    }

    /// Ends a connection that its initiator did not want to end, and tells it so.
    pub(super) fn drop_member<H>(&mut self, id: ConnId, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let cid = self.sessions.get(&tsih).and_then(|session| session.members.cid(id));
        self.close(id, cx);
        if let Some(cid) = cid {
            self.tell_dropped(tsih, cid, false);
        }
    }

    /// Tells the initiator, on another connection of the session, that this one is gone (RFC 7143
    /// 11.9.1, event 2), and whether its tasks are kept: it may not have noticed.
    pub(super) fn tell_dropped(&mut self, tsih: u16, cid: u16, kept: bool) {
        let session = self.sessions.get(&tsih).filter(|session| !session.ending);
        let Some((other, agreed)) =
            session.and_then(|s| Some((s.members.first()?, s.admission.agreed)))
        else {
            return;
        };
        let event = AsyncEvent::DropConnection {
            cid,
            time_to_wait_s: agreed.time2wait_s,
            time_to_retain_s: if kept { agreed.time2retain_s } else { 0 },
        };
        self.tell(other, event);
    }

    /// Ends a session that its initiator did not want to end, and tells it so (event 3).
    pub(super) fn drop_session<H>(&mut self, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get(&tsih) else { return };
        let (conns, time_to_wait_s) = (session.members.ids(), session.admission.agreed.time2wait_s);
        if let Some(&first) = conns.first() {
            self.tell(first, AsyncEvent::DropSession { time_to_wait_s, time_to_retain_s: 0 });
        }
        conns.into_iter().for_each(|id| self.close(id, cx));
        self.expire_all(tsih, cx);
    }

    fn tell(&mut self, id: ConnId, event: AsyncEvent) {
        if let Some(conn) = self.conn(id) {
            conn.wire.send_async(Lun(0), event, &[]);
        }
        self.touch(id);
    }
}
