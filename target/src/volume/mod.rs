//! A volume: one backing device as everything above it sees it.
//!
//! Transport-blind. AoE slots and SCSI logical units turn their commands into [`Request`]s; the
//! [`Engine`](engine) orders overlapping ones, performs them and keeps the promise that an
//! acknowledged durable write is on stable storage.

pub mod cipher;
pub mod engine;
pub mod identity;
pub mod range_lock;
pub mod request;
pub mod sanitize;
pub mod space;
pub mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::reservation::Reservations;

pub use identity::Identity;
pub use request::{Erase, Kind, Outcome, Request, Segments};

/// The number of a volume in this process; the host finds the backing store by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId(pub u32);

/// What the backing device told us about itself when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Bytes in one logical block: 512 or 4096 (or any power of two between).
    pub block_bytes: u32,
    /// Bytes in one physical block, a power of two, at least `block_bytes`.
    pub physical_bytes: u32,
    /// Preferred transfer length in bytes (md stripe width), 0 if not told.
    pub optimal_bytes: u32,
    /// Smallest efficient transfer in bytes (md chunk), 0 if not told.
    pub granularity_bytes: u32,
    /// Writes can be lost by a power failure until they are flushed.
    pub volatile_cache: bool,
    /// Blocks can be deallocated.
    pub discard: bool,
    /// Smallest unit of deallocation in bytes; 0 if `discard` is false.
    pub discard_granularity_bytes: u32,
    /// Deallocated blocks read as zeros.
    pub discard_zeroes: bool,
    /// The device spins (medium rotation rate).
    pub rotational: bool,
    /// Writes of at most this many bytes are there whole or not at all, whatever happens; 0 if the
    /// device promises nothing.
    pub atomic_bytes: u32,
}

impl Facts {
    /// A device with a volatile cache that can deallocate, and that tells nothing else: what tests
    /// and simulations begin with.
    pub const fn volatile(block_bytes: u32) -> Self {
        Self {
            block_bytes,
            physical_bytes: block_bytes,
            optimal_bytes: 0,
            granularity_bytes: 0,
            volatile_cache: true,
            discard: true,
            discard_granularity_bytes: block_bytes,
            discard_zeroes: true,
            rotational: false,
            atomic_bytes: 0,
        }
    }
}

/// How an export was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Refuse every write.
    pub read_only: bool,
    /// Removable medium (SCSI RMB; START STOP UNIT can eject).
    pub removable: bool,
    /// Thin provisioning is reported and UNMAP deallocates.
    pub thin: bool,
    /// Bytes a second that a sanitize operation writes at most; 0 is no limit.
    pub sanitize_rate: u64,
    /// Initiators of a thin unit are told when less room than this is left; 0 is never.
    pub space_warning: u64,
}

/// What was done on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests that read.
    pub reads: u64,
    /// Requests that wrote.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
}

#[derive(Debug, Default)]
struct AtomicCounters {
    reads: AtomicU64,
    writes: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    errors: AtomicU64,
}

/// One exported device. Shared by all shards; what changes in it is atomic and off the hot path.
#[derive(Debug)]
pub struct Volume {
    /// Its number.
    pub id: VolumeId,
    /// Its name in the configuration.
    pub name: String,
    /// Serial, NAA, model.
    pub identity: Identity,
    /// What the backing device is.
    pub facts: Facts,
    /// What the operator wants.
    pub options: Options,
    /// Who may touch which bytes now.
    pub ranges: range_lock::RangeLock,
    /// Who may touch it at all.
    pub reservations: Reservations,
    /// Whether everything on it is being made unreadable.
    pub sanitization: sanitize::Sanitization,
    /// What its blocks are encrypted with, if they are. The first [`cipher::HEADER_BYTES`] of its
    /// store are then before its first block.
    pub cipher: Option<Arc<cipher::Cipher>>,
    /// How much room it takes and has left, where that is known.
    pub space: space::Space,
    /// Tokens that name blocks of it as they are.
    pub tokens: tokens::Tokens,
    size_bytes: AtomicU64,
    size_generation: AtomicU64,
    flush_failures: AtomicU64,
    counters: AtomicCounters,
    gone: AtomicBool,
}

impl Volume {
    /// A volume of `size_bytes`, rounded down to whole logical blocks.
    pub fn new(
        id: VolumeId,
        name: String,
        identity: Identity,
        facts: Facts,
        options: Options,
        size_bytes: u64,
    ) -> Self {
        let whole = size_bytes - size_bytes % u64::from(facts.block_bytes);
        Self {
            id,
            name,
            identity,
            facts,
            options,
            ranges: range_lock::RangeLock::default(),
            reservations: Reservations::default(),
            sanitization: sanitize::Sanitization::default(),
            cipher: None,
            space: space::Space::default(),
            tokens: tokens::Tokens::default(),
            size_bytes: AtomicU64::new(whole),
            size_generation: AtomicU64::new(0),
            flush_failures: AtomicU64::new(0),
            counters: AtomicCounters::default(),
            gone: AtomicBool::new(false),
        }
    }

    /// The same, encrypted. What was deallocated on it reads as noise, so only SANITIZE does it.
    #[must_use]
    pub fn encrypted(mut self, cipher: cipher::Cipher) -> Self {
        self.facts.discard_zeroes = false;
        self.cipher = Some(Arc::new(cipher));
        self
    }

    /// True if clients may have blocks deallocated one by one.
    pub const fn deallocates(&self) -> bool {
        self.facts.discard && self.cipher.is_none()
    }

    /// The name of the file that keeps its reservations: the device's own, not the export's.
    pub fn state_name(&self) -> String {
        format!("scsi-{:016x}", self.identity.naa)
    }

    /// The name of the file that tells of a sanitize operation.
    pub fn sanitize_state_name(&self) -> String {
        format!("sanitize-{:016x}", self.identity.naa)
    }

    /// Size in bytes, a multiple of the logical block.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes.load(Ordering::Acquire)
    }

    /// Size in logical blocks.
    pub fn blocks(&self) -> u64 {
        self.size_bytes() / u64::from(self.facts.block_bytes)
    }

    /// Counts size changes, so that each nexus can notice one it has not reported yet.
    pub fn size_generation(&self) -> u64 {
        self.size_generation.load(Ordering::Acquire)
    }

    /// The backing device has a new size.
    pub fn resize(&self, size_bytes: u64) {
        let whole = size_bytes - size_bytes % u64::from(self.facts.block_bytes);
        if self.size_bytes.swap(whole, Ordering::AcqRel) != whole {
            self.size_generation.fetch_add(1, Ordering::AcqRel);
            // Who changed the size may have changed more.
            self.tokens.written(0, u64::MAX);
        }
    }

    /// The export was removed; what still refers to it answers "not there".
    pub fn mark_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// See [`Self::mark_gone`].
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// A request ended.
    pub(crate) fn count(&self, read: bool, bytes: u64, failed: bool) {
        let counters = &self.counters;
        if failed {
            counters.errors.fetch_add(1, Ordering::Relaxed);
        } else if bytes > 0 {
            let (commands, sum) = if read {
                (&counters.reads, &counters.read_bytes)
            } else {
                (&counters.writes, &counters.written_bytes)
            };
            commands.fetch_add(1, Ordering::Relaxed);
            sum.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// What was done so far, over all protocols and shards.
    pub fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            reads: get(&self.counters.reads),
            writes: get(&self.counters.writes),
            read_bytes: get(&self.counters.read_bytes),
            written_bytes: get(&self.counters.written_bytes),
            errors: get(&self.counters.errors),
        }
    }

    /// Flushes that failed so far. After one, acknowledged writes of *anybody* may be lost, and a
    /// later flush that succeeds proves nothing about them (the kernel reports a write-back error
    /// once). So every nexus that sees the number change reports an error of its own, once.
    pub fn flush_failures(&self) -> u64 {
        self.flush_failures.load(Ordering::Acquire)
    }

    /// A flush failed.
    pub fn count_flush_failure(&self) {
        self.flush_failures.fetch_add(1, Ordering::AcqRel);
    }

    /// True if `len` bytes from `offset` lie inside the volume.
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.size_bytes())
    }
}
