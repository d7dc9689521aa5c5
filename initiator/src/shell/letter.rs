//! What other threads tell a device's thread.

use std::fmt;

use corbel_proto::time::Duration;

use crate::admin::{Command, Reply};

/// A message to a device's thread.
pub(super) enum Letter {
    /// A question or an order.
    Call(Command, Reply),
    /// End, whoever uses the device; requests under way may take so long.
    Stop(Duration),
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(command, _) => f.debug_tuple("Call").field(command).finish(),
            Self::Stop(patience) => f.debug_tuple("Stop").field(patience).finish(),
        }
    }
}
