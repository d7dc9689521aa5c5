//! What a shard tells of itself for `status` and metrics.

use corbel_proto::time::Instant;
use corbel_ring::memory::ArenaStats;

use super::ports::PortReport;
use crate::host::ShardId;
use crate::iscsi::server::SessionStatus;
use crate::volume::VolumeId;

/// One shard's figures.
#[derive(Debug)]
pub(super) struct ShardReport {
    pub(super) shard: ShardId,
    pub(super) now: Instant,
    pub(super) ports: Vec<PortReport>,
    pub(super) sessions: Vec<SessionStatus>,
    pub(super) arena: ArenaStats,
    /// Requests without an outcome, by volume.
    pub(super) in_flight: Vec<(VolumeId, u64)>,
}
