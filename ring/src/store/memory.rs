//! A store in this process's memory, for measuring and for throw-away disks.
//!
//! Shards race on it as hosts race on a disk: who writes the same bytes at the same time may
//! leave a mixture, as on a disk, but nothing worse (see `sys.rs`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sys::Shared;
use crate::memory::Mapping;

#[derive(Debug)]
pub(super) struct Memory {
    bytes: Shared,
    /// By page: something was written there since it was last deallocated.
    held: Box<[AtomicBool]>,
}

/// Unit of deallocation.
pub(super) const PAGE_BYTES: usize = 4096;

/// Long ranges are cleared this much at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl Memory {
    /// `bytes` of zeros; pages are taken from the system as they are first written.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let held = (0..len.div_ceil(PAGE_BYTES)).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { bytes: Shared::new(len)?, held })
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where it is, for the kernel.
    pub(super) fn mapping(&self) -> Arc<Mapping> {
        self.bytes.mapping()
    }

    /// The range was checked by the caller, here and below.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        self.bytes.copy_out(index(offset), data);
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        let at = index(offset);
        self.hold(at, data.len());
        self.bytes.copy_in(at, data);
    }

    /// Zeros; with `unmap` the pages that lie wholly inside are given back.
    pub(super) fn clear(&self, offset: u64, len: u64, unmap: bool) {
        let (at, end) = (index(offset), index(offset + len));
        let (first, last) = (at.next_multiple_of(PAGE_BYTES), end / PAGE_BYTES * PAGE_BYTES);
        if !unmap || first >= last {
            return self.fill(at, end, !unmap);
        }
        self.fill(at, first, false);
        self.bytes.give_back(first, last - first);
        for page in &self.held[first / PAGE_BYTES..last / PAGE_BYTES] {
            page.store(false, Ordering::Relaxed);
        }
        self.fill(last, end, false);
    }

    /// How many bytes from `offset` on are alike: held, or not.
    pub(super) fn extent(&self, offset: u64) -> (u64, bool) {
        let at = index(offset);
        let pages = &self.held[at / PAGE_BYTES..];
        let held = pages.first().is_some_and(|page| page.load(Ordering::Relaxed));
        let alike = pages.iter().take_while(|page| page.load(Ordering::Relaxed) == held).count();
        let end = ((at / PAGE_BYTES + alike) * PAGE_BYTES).min(self.bytes.len());
        ((end - at) as u64, held)
    }

    fn fill(&self, mut at: usize, end: usize, hold: bool) {
        if hold {
            self.hold(at, end - at);
        }
        while at < end {
            let step = (end - at).min(ZEROS.len());
            self.bytes.copy_in(at, &ZEROS[..step]);
            at += step;
        }
    }

    /// Most pages are held already, and then their neighbours' cache lines are not disturbed.
    fn hold(&self, at: usize, len: usize) {
        for page in &self.held[at / PAGE_BYTES..(at + len).div_ceil(PAGE_BYTES)] {
            if !page.load(Ordering::Relaxed) {
                page.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("inside a mapping")
}
