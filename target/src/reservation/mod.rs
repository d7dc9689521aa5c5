//! Who may touch a volume: persistent reservations (SPC-4 5.13) and RESERVE and RELEASE (SPC-2).
//!
//! Decided here for every protocol. A volume has one [`Reservations`]; SCSI nexuses ask it by name,
//! and AoE clients, which cannot register, are outsiders to all that SCSI initiators reserve.
//!
//! ```text
//! state.rs      what is registered and held, and what PERSISTENT RESERVE OUT makes of it; pure
//! rights.rs     what a nexus may do then
//! snapshot.rs   how it is written down (APTPL)
//! shared.rs     the one of a volume: the state in force, a change on its way, what is to be told
//! ```
//!
//! A change that must outlive a loss of power is worked out, written to stable storage, and only
//! then comes into force and is answered; while it is written, another one is told BUSY. The hot
//! path reads one number, and looks closer only when it has changed.

mod rights;
mod shared;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

pub use rights::{Access, Rights};
pub use shared::{Ended, Proposal, Reservations};
pub use snapshot::RestoreError;
pub use state::{Held, Notice, Order, Refusal, Registration, State};

/// One initiator port at one target port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NexusName {
    /// Initiator port: `NAME,i,0xISID`.
    pub initiator: String,
    /// Target, without its port.
    pub target: String,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub port: u16,
}

impl NexusName {
    /// The nexus of an initiator port and a target port, `NAME,t,0xTAG`.
    pub fn new(initiator: &str, target_port: &str, port: u16) -> Self {
        let target = target_port.split_once(",t,").map_or(target_port, |(target, _)| target);
        Self { initiator: initiator.to_owned(), target: target.to_owned(), port }
    }
}
