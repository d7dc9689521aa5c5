//! Why a login is refused, and the status that says so on the wire.

use thiserror::Error;

use crate::error::{Malformed, Violation};
use crate::iscsi::pdu::login::Status;

/// Why a login is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The text cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The initiator broke the rules of the login phase.
    #[error(transparent)]
    Conduct(#[from] Violation),
    /// More text than we keep.
    #[error("the login text is longer than we keep")]
    TooLong,
    /// More than [`REQUESTS_MAX`](super::REQUESTS_MAX) requests.
    #[error("the login takes too many requests")]
    TooManyRequests,
    /// No common protocol version.
    #[error("the initiator speaks no version that we do")]
    Version,
    /// A key that must come first is missing.
    #[error("the first request lacks {0}")]
    Missing(&'static str),
    /// Neither Normal nor Discovery.
    #[error("the session type is unknown")]
    SessionType,
    /// The directory knows no such target.
    #[error("no such target")]
    NotFound,
    /// The directory forbids this initiator.
    #[error("the initiator is not allowed")]
    Forbidden,
    /// The target is gone.
    #[error("the target was removed")]
    Removed,
    /// Try later.
    #[error("the target cannot serve now")]
    Busy,
    /// Elsewhere.
    #[error("the target is at {address}")]
    Redirect {
        /// Where.
        address: String,
        /// For good.
        permanent: bool,
    },
    /// Not proven, or no common method.
    #[error("authentication failed: {0}")]
    Authentication(&'static str),
    /// The upper layer refused.
    #[error("refused with status {:#06x}", .0.code())]
    Upper(Status),
}

impl Fault {
    /// What goes on the wire (11.13.5).
    pub const fn status(&self) -> Status {
        match self {
            Self::Malformed(_) | Self::Conduct(_) | Self::TooManyRequests => {
                Status::INITIATOR_ERROR
            }
            Self::TooLong => Status::OUT_OF_RESOURCES,
            Self::Version => Status::UNSUPPORTED_VERSION,
            Self::Missing(_) => Status::MISSING_PARAMETER,
            Self::SessionType => Status::SESSION_TYPE_NOT_SUPPORTED,
            Self::NotFound => Status::NOT_FOUND,
            Self::Forbidden => Status::AUTHORIZATION_FAILURE,
            Self::Removed => Status::TARGET_REMOVED,
            Self::Busy => Status::SERVICE_UNAVAILABLE,
            Self::Redirect { permanent: true, .. } => Status::MOVED_PERMANENTLY,
            Self::Redirect { permanent: false, .. } => Status::MOVED_TEMPORARILY,
            Self::Authentication(_) => Status::AUTHENTICATION_FAILURE,
            Self::Upper(status) => *status,
        }
    }
}
