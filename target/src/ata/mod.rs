//! The ATA disk that AoE clients see: commands to volume requests, outcomes to status.
//!
//! AoE counts in sectors of 512 bytes. On a volume with larger logical blocks, reads that are not
//! aligned are widened to whole blocks and cut back afterwards, so that clients can look at
//! partition tables and boot; writes that are not aligned are refused with ABRT. Patching the
//! rest of the block here would make a torn block possible where the device promises none.
//! IDENTIFY word 106 tells the physical sector, for clients that align by it.

mod disk;
mod smart;
#[cfg(test)]
mod tests;

pub use disk::{Disk, Execution, Finished, Pending};

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acknowledge {
    /// When it is on stable storage. The Linux client never flushes: an acknowledged write is
    /// all that its file systems can trust.
    #[default]
    Stable,
    /// When the device has it; a power failure loses what was not flushed. IDENTIFY says so.
    Cached,
}
