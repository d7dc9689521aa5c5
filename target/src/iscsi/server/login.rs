//! From a Login Request to a session.

use corbel_proto::iscsi::login::target::{Admission, Step};
use corbel_proto::iscsi::params::SessionType;
use corbel_proto::iscsi::pdu::login::{LoginRequest, Status};
use corbel_proto::iscsi::pdu::text::TextRequest;
use corbel_proto::memory::Buffer;
use corbel_proto::scsi::transport_id;
use corbel_proto::table::ShortKeyMap;

use super::super::Message as Between;
use super::super::device::Device;
use super::super::discovery::{self, Asker};
use super::super::model::View;
use super::super::registry::Full;
use super::members::Members;
use super::{ConnId, Context, IscsiServer, Reach, Session};
use crate::host::{Host, Message};

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    pub(super) fn login<H>(
        &mut self,
        id: ConnId,
        request: &LoginRequest,
        text: &[u8],
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let targets = self.targets.clone();
        if self.moves(id, request, text, cx.host.shard()) {
            return;
        }
        let Some(conn) = self.conn(id) else { return };
        let view = View { targets: &targets, peer: conn.peer, local: conn.local };
        let step = conn.login.handle(request, text, &view, &mut |bytes| cx.host.random(bytes));
        match step {
            Step::Reply(reply) => conn.wire.login_response(&reply.response, &reply.text),
            Step::Refuse(reply, fault) => {
                tracing::warn!(peer = %conn.peer, %fault, "login refused");
                conn.wire.login_response(&reply.response, &reply.text);
            }
            Step::Admit(admission) => self.admit(id, admission, cx),
        }
    }

    /// All is agreed: give the session its place, and fence the one it replaces.
    fn admit<H>(&mut self, id: ConnId, admission: Box<Admission>, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let target = admission.target.as_ref().and_then(|name| self.targets.find(name)).cloned();
        if admission.session == SessionType::Normal && target.is_none() {
            return self.turn_away(id, Status::NOT_FOUND);
        }
        if admission.tsih != 0 {
            return self.join(id, &admission, cx);
        }
        let sessions_max = target.as_ref().map_or(u32::MAX, |target| target.sessions_max);
        let entry = match self.registry.enter(&admission, cx.host.shard(), sessions_max) {
            Ok(entry) => entry,
            Err(Full::Process | Full::Target) => {
                return self.turn_away(id, Status::OUT_OF_RESOURCES);
            }
        };
        let luns = target.as_ref().map(|target| target.lun_list()).unwrap_or_default();
        let group = admission.portal_group_tag;
        let port_name =
            target.as_ref().map(|t| format!("{},t,{group:#06x}", t.name)).unwrap_or_default();
        let groups = target.as_ref().map(|t| t.groups.iter().map(|group| group.tag).collect());
        let reach = Reach {
            luns,
            luns_generation: 0,
            port_name,
            group,
            groups: groups.unwrap_or_default(),
            initiator: transport_id::port_name(admission.initiator.as_str(), admission.isid.0),
        };
        let session = Session {
            members: Members::of(id, admission.cid),
            lost: Vec::new(),
            admission,
            target,
            reach,
            nexuses: ShortKeyMap::default(),
            tasks: ShortKeyMap::default(),
            at_medium: 0,
            fencing: entry.replaces.is_some(),
            ending: false,
            waiters: Vec::new(),
            since: cx.host.now(),
            commands: 0,
        };
        self.sessions.insert(entry.tsih, session);
        if let Some(conn) = self.conn(id) {
            conn.session = Some(entry.tsih);
        }
        match entry.replaces {
            None => self.welcome(entry.tsih, cx),
            Some((old, shard)) => {
                let ask = Between::CloseSession {
                    tsih: old,
                    shard: cx.host.shard(),
                    successor: entry.tsih,
                };
                cx.host.post(shard, Message::Iscsi(ask));
            }
        }
    }

    pub(super) fn turn_away(&mut self, id: ConnId, status: Status) {
        let Some(conn) = self.conn(id) else { return };
        tracing::warn!(peer = %conn.peer, status = status.code(), "login refused");
        let reply = conn.login.refuse(status);
        conn.wire.login_response(&reply.response, &reply.text);
    }

    /// The last response of the login: from here on there is a session.
    pub(super) fn welcome<H>(&mut self, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        session.fencing = false;
        let admission = &session.admission;
        let agreed = admission.agreed;
        let Some(id) = session.members.first() else { return };
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        tracing::info!(
            peer = %conn.peer,
            initiator = %admission.initiator,
            target = admission.target.as_ref().map(AsRef::<str>::as_ref),
            tsih,
            "logged in"
        );
        let reply = conn.login.finish(tsih);
        conn.wire.login_response(&reply.response, &reply.text);
        if let Some(target) = &session.target {
            target.tune(&mut conn.wire);
        }
        conn.wire.enter_full_feature(&agreed, cx.host.now());
        conn.full = true;
        conn.keeps = agreed.recovery_level > 0;
        if !agreed.retention().is_zero() {
            // The session's order outlives each of its connections.
            conn.shares = true;
            session.members.share(conn.wire.take_order());
        }
        self.keepers += usize::from(conn.keeps);
        self.half_open -= 1;
        self.arm(id);
        self.touch(id);
    }

    pub(super) fn text(&mut self, id: ConnId, request: &TextRequest, text: &[u8]) {
        let targets = self.targets.clone();
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        let Some(session) = conn.session.and_then(|tsih| self.sessions.get(&tsih)) else { return };
        let asker = Asker {
            initiator: &session.admission.initiator,
            target: session.admission.target.as_ref(),
            peer: conn.peer,
            local: conn.local,
        };
        let bytes_max = conn.wire.agreed().peer_segment_bytes_max as usize;
        let reply = conn.exchange.handle(request, text, bytes_max, |keys, text| {
            discovery::answer(keys, &asker, &targets, text);
        });
        match reply {
            Ok(reply) => conn.wire.text_response(&reply.response, &reply.text),
            Err(fault) => {
                tracing::debug!(peer = %conn.peer, %fault, "text refused");
                conn.wire.text_reject(request);
            }
        }
    }
}
