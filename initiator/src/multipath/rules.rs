//! The safety rules, each with a switch.
//!
//! Production keeps them all ([`Rules::SOUND`]). The simulator breaks one at a time to prove that
//! its checkers would notice.

/// Which rules are kept. Each field says what is lost without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// A change waits for doubts of others that it overlaps. Else an old write lands over a newer.
    pub hold_overlap: bool,
    /// A flush is not answered before the doubts end that stood when it came. Else a cluster hands
    /// a disk over while an old write is still on its way.
    pub hold_flush: bool,
    /// A device's error goes to the asker. Else it is tried again on every path.
    pub keep_device_errors: bool,
    /// A change older than the limit is not sent. Else it lands after the lease is gone.
    pub respect_age: bool,
    /// With `Cache::Multi` every domain written to is flushed. Else one is, and others lose data.
    pub flush_all_domains: bool,
    /// A path's error is hidden by another path. Else the asker sees every path failure.
    pub retry_path_errors: bool,
    /// Only paths of the same device are used. Else data goes to somebody else's disk.
    pub check_identity: bool,
    /// Overlapping changes keep their order. Else the one that overtakes is overwritten.
    pub order_overlaps: bool,
    /// The flush after a target's restart fails if acknowledged writes were in its cache. Else
    /// their loss is silent.
    pub fail_lost_cache: bool,
    /// A process that takes over flushes what the one before may have written. Else its first flush
    /// promises too much.
    pub remember_caches: bool,
    /// A change in doubt is sent again. Else it is taken for done.
    pub reissue_after_doubt: bool,
    /// What a login at another portal proves is believed only where one process of the target
    /// answers at both. Else another node's word is taken for it.
    pub prove_at_one_process: bool,
    /// Reads and writes end inside the device. Else a request may reach what is behind it.
    pub check_bounds: bool,
}

impl Rules {
    /// All of them.
    pub const SOUND: Self = Self {
        hold_overlap: true,
        hold_flush: true,
        keep_device_errors: true,
        respect_age: true,
        flush_all_domains: true,
        retry_path_errors: true,
        check_identity: true,
        order_overlaps: true,
        fail_lost_cache: true,
        remember_caches: true,
        reissue_after_doubt: true,
        prove_at_one_process: true,
        check_bounds: true,
    };
}

impl Default for Rules {
    fn default() -> Self {
        Self::SOUND
    }
}
