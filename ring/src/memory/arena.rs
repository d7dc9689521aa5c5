//! The arena: payload memory of one shard, grown by chunks up to a configured maximum.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use corbel_proto::memory::SEGMENT_BYTES_MAX;

use super::buddy::{Buddy, PAGE_BYTES, order_of};
use super::sys::{Buf, Home, Region};

/// Memory is taken from the system, and registered with the ring, this much at a time.
pub const CHUNK_BYTES: usize = 8 << 20;

/// 64 GiB; the kernel registers at most 16384 buffers, and packet rings want some of them.
const CHUNKS_MAX: usize = 8192;

/// How much payload memory one shard may use.
#[derive(Debug, Clone, Copy)]
pub struct ArenaConfig {
    /// Upper bound in bytes; rounded up to whole chunks of [`CHUNK_BYTES`].
    pub bytes_max: usize,
}

impl Default for ArenaConfig {
    fn default() -> Self {
        Self { bytes_max: 64 << 20 }
    }
}

/// How full an arena is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaStats {
    /// Bytes taken from the system so far.
    pub bytes_mapped: usize,
    /// Bytes lent now, each request rounded up to its block.
    pub bytes_lent: usize,
    /// Upper bound of `bytes_mapped`.
    pub bytes_max: usize,
    /// Requests that found no memory.
    pub refused: u64,
    /// Chunks that the kernel would not register; I/O on them costs a page-table walk each.
    pub chunks_unregistered: usize,
}

/// Who tells the kernel about a new chunk.
pub(crate) trait Registrar: std::fmt::Debug {
    /// Makes `region` the fixed buffer number `index`, and tells the region so.
    fn register(&self, index: u16, region: &Region) -> io::Result<()>;
}

/// A handle to one shard's payload memory. Cheap to clone; stays on its thread.
#[derive(Debug, Clone)]
pub struct Arena(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    chunks: RefCell<Vec<Chunk>>,
    /// The chunk that answered last, and so most likely answers next.
    hint: Cell<usize>,
    chunks_max: usize,
    refused: Cell<u64>,
    registrar: Option<Rc<dyn Registrar>>,
}

#[derive(Debug)]
struct Chunk {
    region: Rc<Region>,
    buddy: Rc<Buddy>,
}

impl Home for Buddy {
    fn released(&self, slot: u32) {
        self.give_back(slot);
    }
}

impl Arena {
    /// An arena whose memory no ring knows: for tests and for code that runs before its ring.
    pub fn unregistered(config: ArenaConfig) -> Self {
        Self::new(config, None)
    }

    pub(crate) fn new(config: ArenaConfig, registrar: Option<Rc<dyn Registrar>>) -> Self {
        Self(Rc::new(Shared {
            chunks: RefCell::default(),
            hint: Cell::new(0),
            chunks_max: config.bytes_max.div_ceil(CHUNK_BYTES).clamp(1, CHUNKS_MAX),
            refused: Cell::new(0),
            registrar,
        }))
    }

    /// Lends `len` bytes, page-aligned; `None` when the configured memory is in use or the
    /// system has no more.
    ///
    /// # Panics
    /// If `len` is zero or above [`SEGMENT_BYTES_MAX`].
    pub fn lend(&self, len: usize) -> Option<Buf> {
        assert!(len > 0 && len <= SEGMENT_BYTES_MAX, "segments are 1 B to 256 KiB, not {len}");
        let order = order_of(len);
        let lent = self.0.take(order, len).or_else(|| {
            self.0.grow().ok()?;
            self.0.take(order, len)
        });
        if lent.is_none() {
            self.0.refused.set(self.0.refused.get() + 1);
        }
        lent
    }

    /// How full it is.
    pub fn stats(&self) -> ArenaStats {
        let chunks = self.0.chunks.borrow();
        let free: usize = chunks.iter().map(|c| c.buddy.pages_free() as usize * PAGE_BYTES).sum();
        ArenaStats {
            bytes_mapped: chunks.len() * CHUNK_BYTES,
            bytes_lent: chunks.len() * CHUNK_BYTES - free,
            bytes_max: self.0.chunks_max * CHUNK_BYTES,
            refused: self.0.refused.get(),
            chunks_unregistered: chunks.iter().filter(|c| !c.region.is_fixed()).count(),
        }
    }
}

impl Shared {
    fn take(&self, order: usize, len: usize) -> Option<Buf> {
        let chunks = self.chunks.borrow();
        let hint = self.hint.get();
        let all = (hint..chunks.len()).chain(0..hint.min(chunks.len()));
        for index in all {
            let chunk = &chunks[index];
            if let Some(page) = chunk.buddy.take(order) {
                self.hint.set(index);
                return Some(Region::lend_pages(&chunk.region, page, PAGE_BYTES, len));
            }
        }
        None
    }

    fn grow(&self) -> io::Result<()> {
        let mut chunks = self.chunks.borrow_mut();
        if chunks.len() == self.chunks_max {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let pages = u32::try_from(CHUNK_BYTES / PAGE_BYTES).expect("a chunk is small");
        let buddy = Rc::new(Buddy::new(pages));
        let region = Region::anonymous(CHUNK_BYTES, pages, buddy.clone())?;
        if let Some(registrar) = &self.registrar {
            let index = u16::try_from(chunks.len()).expect("chunks_max fits");
            if let Err(error) = registrar.register(index, &region) {
                tracing::warn!(%error, "payload memory is not registered with the kernel");
            }
        }
        self.hint.set(chunks.len());
        chunks.push(Chunk { region, buddy });
        Ok(())
    }
}

impl corbel_proto::memory::Arena for Arena {
    type Buf = Buf;

    fn alloc(&mut self, len: usize) -> Option<Buf> {
        self.lend(len)
    }
}
