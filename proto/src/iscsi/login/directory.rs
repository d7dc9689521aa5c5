//! What the target's login machine asks about access, and the answers.

use crate::iscsi::chap;
use crate::iscsi::name::Name;

/// Who may use what. Where the peer's address counts, the implementation knows it.
pub trait Directory {
    /// May `initiator` ask which targets there are?
    fn discovery(&self, initiator: &Name) -> Access;
    /// May `initiator` use `target`?
    fn target(&self, target: &Name, initiator: &Name) -> Access;
}

/// A [`Directory`]'s word.
#[derive(Debug, Clone)]
pub enum Access {
    /// No such target here.
    NotFound,
    /// Not for this initiator.
    Forbidden,
    /// The target is gone for good.
    Removed,
    /// Not now; the initiator may try again.
    Busy,
    /// Elsewhere.
    Redirect {
        /// `address:port`, IPv6 in brackets, as in TargetAddress without a group tag.
        address: String,
        /// For good, not just for now.
        permanent: bool,
    },
    /// Yes, if the initiator authenticates as asked.
    Granted(Grant),
}

/// The terms of an [`Access::Granted`].
#[derive(Debug, Clone)]
pub struct Grant {
    /// What the initiator must prove; `None` lets it in as it is.
    pub authentication: Option<chap::Policy>,
    /// TargetPortalGroupTag of the portal the initiator came to.
    pub portal_group_tag: u16,
    /// TargetAlias, for people to read.
    pub alias: Option<String>,
    /// Digests without which there is no session.
    pub digests_required: DigestsRequired,
    /// What may be agreed beyond the plainest session.
    pub terms: Terms,
}

/// What a target lets an initiator ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// MaxConnections.
    pub connections_max: u16,
    /// ErrorRecoveryLevel.
    pub recovery_level_max: u8,
}

impl Default for Terms {
    /// One connection, no recovery within a session.
    fn default() -> Self {
        Self { connections_max: 1, recovery_level_max: 0 }
    }
}

/// Digests that a target insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DigestsRequired {
    /// For headers.
    pub header: bool,
    /// For data.
    pub data: bool,
}
