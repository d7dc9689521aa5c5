//! What an operator learns of a registration.

use std::fmt;

use thiserror::Error;

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum News {
    /// All is registered.
    #[error("registered")]
    Registered,
    /// The registration was taken back.
    #[error("registration taken back")]
    Gone,
    /// No target has a portal that those who ask this server could reach.
    #[error("no target has a portal that can be reached from there; nothing is registered")]
    Nothing,
    /// The server refused.
    #[error("refused: {0}")]
    Refused(Status),
    /// No connection, or it was lost.
    #[error("not reachable, or the connection was lost")]
    Unreachable,
    /// No answer came in time.
    #[error("no answer")]
    Silent,
    /// The answer makes no sense.
    #[error("an answer that makes no sense")]
    Senseless,
}

impl News {
    /// True if something is wrong; it is tried again.
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unreachable | Self::Silent | Self::Senseless)
    }
}

/// A status code (RFC 4171 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// Done.
    pub const OK: Self = Self(0);
    /// The server does not know who speaks.
    pub const SOURCE_UNKNOWN: Self = Self(6);
    /// The server does not know what it is asked about.
    pub const NO_SUCH_ENTRY: Self = Self(9);

    const fn meaning(self) -> &'static str {
        match self.0 {
            0 => "successful",
            1 => "unknown error",
            2 => "message format error",
            3 => "invalid registration",
            5 => "invalid query",
            6 => "source unknown",
            7 => "source absent",
            8 => "source unauthorized",
            9 => "no such entry",
            10 => "version not supported",
            11 => "internal error",
            12 => "busy",
            13 => "option not understood",
            14 => "invalid update",
            15 => "message not supported",
            18 => "attribute not implemented",
            22 => "invalid deregistration",
            23 => "registration feature not supported",
            _ => "a status that registrations do not have",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (status {}, RFC 4171 5.4)", self.meaning(), self.0)
    }
}
