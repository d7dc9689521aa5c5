//! Receive memory that all connections of a shard share: a connection holds some only while it
//! has bytes to hand over, so ten thousand idle ones hold none.

mod sys;

pub(crate) use sys::Pool;

/// Size of a shared receive pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// Number of buffers; rounded up to a power of two, at most 32768.
    pub buffers: u16,
    /// Bytes in each.
    pub buffer_bytes: u32,
}

impl Default for PoolConfig {
    /// 32 buffers of 64 KiB: 2 MiB a shard, and one receive takes what TCP brings in one packet.
    fn default() -> Self {
        Self { buffers: 32, buffer_bytes: 64 * 1024 }
    }
}
