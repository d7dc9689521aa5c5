//! What people want to know about sessions.

use std::net::SocketAddr;

use corbel_proto::iscsi::params::Negotiated;
use corbel_proto::iscsi::pdu::login::Isid;
use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use super::super::device::Device;
use super::IscsiServer;

/// One session, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// Its handle.
    pub tsih: u16,
    /// InitiatorName.
    pub initiator: String,
    /// InitiatorAlias.
    pub initiator_alias: Option<String>,
    /// TargetName; `None` for discovery.
    pub target: Option<String>,
    /// CHAP name that was proven.
    pub user: Option<String>,
    /// Where the initiator is; `None` once the connection is gone.
    pub peer: Option<SocketAddr>,
    /// What it reached.
    pub local: Option<SocketAddr>,
    /// The terms.
    pub agreed: Negotiated,
    /// Initiator's part of its identity.
    pub isid: Isid,
    /// When it began.
    pub since: Instant,
    /// Logical units it can see.
    pub luns: Vec<u16>,
    /// Commands taken so far.
    pub commands: u64,
    /// Commands without an answer.
    pub tasks: usize,
    /// Requests at the medium.
    pub at_medium: usize,
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    /// All sessions of this shard, by handle.
    pub fn status(&self) -> Vec<SessionStatus> {
        let mut all: Vec<_> = self
            .sessions
            .iter()
            .map(|(&tsih, session)| {
                let conn = session.members.first().and_then(|id| self.conns.get(id.key()));
                let admission = &session.admission;
                SessionStatus {
                    tsih,
                    initiator: admission.initiator.to_string(),
                    initiator_alias: admission.initiator_alias.clone(),
                    target: admission.target.as_ref().map(ToString::to_string),
                    user: admission.authenticated_as.clone(),
                    peer: conn.map(|conn| conn.peer),
                    local: conn.map(|conn| conn.local),
                    agreed: admission.agreed,
                    isid: admission.isid,
                    since: session.since,
                    luns: session
                        .target
                        .as_ref()
                        .map_or_else(Vec::new, |target| target.luns.keys().copied().collect()),
                    commands: session.commands,
                    tasks: session.tasks.len(),
                    at_medium: session.at_medium,
                }
            })
            .collect();
        all.sort_by_key(|status| status.tsih);
        all
    }

    /// Connections of this shard, and how many of them have not logged in.
    pub fn connections(&self) -> (usize, usize) {
        (self.conns.len(), self.half_open)
    }
}
