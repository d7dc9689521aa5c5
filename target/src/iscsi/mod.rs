//! iSCSI targets: who may log in, sessions, and the way from a PDU to a logical unit and back.
//!
//! ```text
//! model.rs      targets, portals, access: what the operator configured, as one snapshot
//! device.rs     what a logical unit must be able to do, said without SCSI
//! unit.rs       the SCSI logical unit as such a device
//! discovery.rs  SendTargets
//! registry.rs   all sessions of the process: handles, limits, who replaces whom
//! server/       one shard's connections, sessions and tasks
//! ```
//!
//! A session lives on the shard that accepted its first connection; others are handed over to it.
//! Shards talk only about what ends work: reinstatement, and task management that reaches other
//! sessions ([`Message`]).

pub mod device;
pub mod discovery;
pub mod model;
pub mod registry;
pub mod server;
mod unit;

use std::sync::Arc;

use corbel_proto::iscsi::name::Name;

use crate::host::ShardId;
use crate::reservation::Registration;
use crate::volume::VolumeId;

/// What shards tell each other about sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// End session `tsih`; answer [`Message::SessionFenced`] once none of its work can reach a
    /// medium any more.
    CloseSession {
        /// Which.
        tsih: u16,
        /// Who waits: its shard, and the new session.
        shard: ShardId,
        /// The new session.
        successor: u16,
    },
    /// The session that `successor` replaces has no effect any more.
    SessionFenced {
        /// The new session.
        successor: u16,
    },
    /// Stop all work on `volume`; answer [`Message::Cleared`] once none of it can reach the medium.
    Clear {
        /// Logical unit.
        volume: VolumeId,
        /// Who waits.
        shard: ShardId,
        /// Its number for this.
        ask: u64,
    },
    /// End all sessions of a target.
    EndTarget {
        /// Its name.
        target: Name,
    },
    /// Stop all work on `volume` of those registered by these; answer [`Message::Cleared`] then.
    Evict {
        /// Whose.
        nexuses: Arc<[Registration]>,
        /// Logical unit.
        volume: VolumeId,
        /// Who waits.
        shard: ShardId,
        /// Its number for this.
        ask: u64,
    },
    /// See [`Message::Clear`].
    Cleared {
        /// The asking shard's number.
        ask: u64,
    },
}
