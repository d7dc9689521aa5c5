//! The provided-buffer ring: free buffers are put on it by us and taken off by the kernel.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use corbel_proto::memory::Slice;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::PoolConfig;
use crate::memory::{Buf, Home, Mapping, Region};

const ENTRY_BYTES: usize = size_of::<BufRingEntry>();
const PAGE_BYTES: usize = 4096;

/// The shared receive memory of one ring.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    region: Rc<Region>,
    free: Rc<Free>,
}

/// The ring of free buffers. One mapping holds the ring and, after it, the buffers.
#[derive(Debug)]
struct Free {
    mapping: Arc<Mapping>,
    entries: u16,
    buffer_bytes: u32,
    tail: Cell<u16>,
    count: Cell<u32>,
}

impl Pool {
    /// Maps a pool and registers it as buffer group `group`.
    pub(crate) fn new(uring: &IoUring, group: u16, config: PoolConfig) -> io::Result<Self> {
        let entries = config.buffers.clamp(1, 1 << 15).next_power_of_two();
        let ring_bytes = (usize::from(entries) * ENTRY_BYTES).next_multiple_of(PAGE_BYTES);
        let len = ring_bytes + usize::from(entries) * config.buffer_bytes as usize;
        let mapping = Arc::new(Mapping::anonymous(len)?);
        let address = mapping.base() as u64;
        // SAFETY: `ring_bytes` from the page-aligned address are ours for this ring alone. The
        // mapping lives while a `Pool` or a `Buf` of it does; the reactor keeps its `Pool` until
        // no operation is in flight, or leaks it.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(address, entries, group, 0)?;
        }
        let free = Rc::new(Free {
            mapping: mapping.clone(),
            entries,
            buffer_bytes: config.buffer_bytes,
            tail: Cell::new(0),
            count: Cell::new(0),
        });
        for slot in 0..entries {
            free.released(slot.into());
        }
        let region = Region::over(mapping, entries.into(), free.clone());
        Ok(Self { region, free })
    }

    /// Buffers the kernel can take.
    pub(crate) fn free(&self) -> u32 {
        self.free.count.get()
    }

    /// The buffer that a completion of this ring brought, with `len` bytes in it.
    pub(crate) fn take(&self, id: u16, len: u32) -> Slice<Buf> {
        self.free.count.set(self.free.count.get() - 1);
        let offset = self.free.buffer_at(id);
        let bytes = self.free.buffer_bytes;
        // SAFETY: buffers are disjoint; the kernel took this one off the ring and is done with
        // it, for its completion is here. It learns of it again in `released`.
        let buf = unsafe { Region::lend(&self.region, id.into(), offset, bytes as usize) };
        Slice::part(buf, 0, len.min(bytes))
    }
}

impl Free {
    fn buffer_at(&self, slot: u16) -> usize {
        let ring_bytes = (usize::from(self.entries) * ENTRY_BYTES).next_multiple_of(PAGE_BYTES);
        ring_bytes + usize::from(slot) * self.buffer_bytes as usize
    }
}

impl Home for Free {
    fn released(&self, slot: u32) {
        let slot = u16::try_from(slot).expect("at most 32768 buffers");
        let address = self.mapping.base().wrapping_add(self.buffer_at(slot)) as u64;
        let tail = self.tail.get();
        let ring = self.mapping.base().cast::<BufRingEntry>();
        // SAFETY: the entry at `tail` is ours until the tail below passes it: there are as many
        // entries as buffers, and this buffer is not on the ring. Fields are written one by one
        // since the tail shares the first entry's padding.
        unsafe {
            let entry = &mut *ring.add(usize::from(tail & (self.entries - 1)));
            entry.set_addr(address);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(slot);
        }
        self.tail.set(tail.wrapping_add(1));
        // SAFETY: the tail is an aligned u16 in our mapping, which the kernel only reads.
        let shared = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(ring).cast_mut()) };
        shared.store(self.tail.get(), Ordering::Release);
        self.count.set(self.count.get() + 1);
    }
}
