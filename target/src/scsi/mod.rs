//! The logical unit that iSCSI initiators see. Blind to its transport.
//!
//! ```text
//! unit.rs       LogicalUnit: a volume with mode parameters; shared by all shards and nexuses
//! access.rs     what a command needs of reservations
//! port_groups.rs  how good each way to the unit is (ALUA), and what may be asked on a bad one
//! mode_pages.rs  what initiators may set, and what of it was saved
//! nexus.rs      Nexus: one initiator's view of one unit; unit attentions, each told once
//! dispatch.rs   CDB to Plan: what is admitted, and which file under commands/ answers
//! plan.rs       Plan, Action, Reply: what the transport does next
//! media.rs      media work to volume requests, their outcomes to status and sense
//! copy.rs       copies from one volume to another, chunk by chunk
//! limits.rs     how much one command may ask for
//! missing.rs    the unit that is not there
//! ```
//!
//! A command takes one of three ways. [`Nexus::begin`] answers it at once; or hands out a
//! [`MediaPlan`], for which the transport gathers payload, calls [`LogicalUnit::request`], and
//! hands the volume's outcome to [`LogicalUnit::finish`]; or asks for a short parameter list, to
//! be passed to [`Nexus::resume`]. READ and WRITE allocate nothing.

mod access;
mod commands;
pub mod copy;
mod dispatch;
pub mod limits;
mod media;
mod missing;
pub mod mode_pages;
mod nexus;
mod plan;
pub mod port_groups;
#[cfg(test)]
mod tests;
mod unit;

pub use media::{Completion, MediaPlan};
pub use missing::MissingLun;
pub use nexus::{Attention, Nexus};
pub use plan::{Action, Kept, ParameterCommand, Plan, Reply, View};
pub use unit::{Instance, LogicalUnit};
