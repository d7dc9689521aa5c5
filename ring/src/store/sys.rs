//! Memory that several threads copy to and from without a lock.
#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;

use crate::memory::Mapping;

/// Shared bytes. No reference into them is ever made, so there is nothing that a racing write
/// could invalidate; copies are made by means for which the language defines a race.
#[derive(Debug)]
pub(super) struct Shared(Arc<Mapping>);

impl Shared {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        Mapping::anonymous(len.max(1)).map(Arc::new).map(Self)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Its address, for a kernel that reads it while others write: as with any copy here, it gets
    /// bytes of before or after.
    pub(super) fn mapping(&self) -> Arc<Mapping> {
        self.0.clone()
    }

    /// # Panics
    /// If the range is outside, here and below.
    pub(super) fn copy_out(&self, at: usize, data: &mut [u8]) {
        self.check(at, data.len());
        // SAFETY: the source lies in the mapping, which lives as long as we; the destination is
        // exclusively ours; they cannot overlap, since nobody has a reference into the mapping.
        unsafe { copy_racing(self.0.base().add(at), data.as_mut_ptr(), data.len()) };
    }

    pub(super) fn copy_in(&self, at: usize, data: &[u8]) {
        self.check(at, data.len());
        // SAFETY: as above, the other way round.
        unsafe { copy_racing(data.as_ptr(), self.0.base().add(at), data.len()) };
    }

    /// Gives memory back to the system; it reads as zeros.
    pub(super) fn give_back(&self, at: usize, len: usize) {
        self.check(at, len);
        // SAFETY: no memory is involved.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
        let pages = page > 0 && (at | len).is_multiple_of(page);
        // SAFETY: the range lies in our private anonymous mapping, where the advice does nothing
        // but replace pages by zeros; nobody has a reference into it, and copies that race with it
        // see bytes of before or after.
        let advised = pages
            && unsafe {
                let start = self.0.base().add(at).cast();
                libc::madvise(start, len, libc::MADV_DONTNEED) == 0
            };
        if !advised {
            let zeros = [0; 4096];
            for from in (at..at + len).step_by(zeros.len()) {
                self.copy_in(from, &zeros[..zeros.len().min(at + len - from)]);
            }
        }
    }

    fn check(&self, at: usize, len: usize) {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len()), "outside the store");
    }
}

/// Copies `len` bytes that other threads may be writing or reading.
///
/// # Safety
/// Both ranges are mapped, do not overlap, and `to` is writable.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_racing(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: given by the caller. One instruction, opaque to the compiler: a race gives mixed
    // bytes, as the processor defines, and no assumption of the compiler is broken.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

/// As above, with relaxed atomics: word by word where both sides are aligned alike.
///
/// # Safety
/// Both ranges are mapped, do not overlap, and `to` is writable.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_racing(from: *const u8, to: *mut u8, len: usize) {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
    let mut at = 0;
    let words = (from as usize | to as usize).is_multiple_of(8);
    // SAFETY: every access is inside the caller's ranges, aligned, and atomic, so races are
    // defined. Atomic loads through a shared source need no write access.
    unsafe {
        while words && at + 8 <= len {
            let word = (*from.add(at).cast::<AtomicU64>()).load(Relaxed);
            (*to.add(at).cast::<AtomicU64>()).store(word, Relaxed);
            at += 8;
        }
        while at < len {
            let byte = (*from.add(at).cast::<AtomicU8>()).load(Relaxed);
            (*to.add(at).cast::<AtomicU8>()).store(byte, Relaxed);
            at += 1;
        }
    }
}
