//! Mapped memory, and handles to pieces of it.
//!
//! The rule everything here rests on: a piece is lent at most once at a time (its reference
//! count says so), and the kernel writes into a piece only while it is *not* lent (rings of
//! its own), or while the one and only handle to it sits in the reactor's in-flight table.
//! Regions stay mapped until the last handle to any of their pieces is gone.
//!
//! Foreign memory is the exception: others write to it when they like (shards to a store in memory,
//! anybody to a file in memory), so only its address is given out, and only the kernel reads there.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use corbel_proto::memory::Buffer;

/// Memory mapped from the kernel; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory; what may touch it when is decided by who wraps it.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared reference gives out only the address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory of this process.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mapping = Self::map(len, flags, -1)?;
        // SAFETY: the range is ours; a refused hint costs only speed.
        unsafe { libc::madvise(mapping.base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }

    /// Memory that the kernel shares through `fd`.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED, fd.as_raw_fd())
    }

    /// A file, to be read by the kernel: the processor gets SIGBUS where the file was cut short,
    /// the kernel an error.
    pub(crate) fn file(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::map_as(libc::PROT_READ, len, libc::MAP_SHARED, fd.as_raw_fd())
    }

    fn map(len: usize, flags: i32, fd: i32) -> io::Result<Self> {
        Self::map_as(libc::PROT_READ | libc::PROT_WRITE, len, flags, fd)
    }

    fn map_as(prot: i32, len: usize, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: we mapped exactly this, and every user of it holds us.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Where a piece goes when its last handle is dropped.
pub(crate) trait Home: fmt::Debug {
    /// Nobody in this process refers to piece number `slot` any more.
    fn released(&self, slot: u32);

    /// Fills `data` with what foreign memory holds from `offset` on; the error is an errno.
    fn fetch(&self, offset: usize, data: &mut [u8]) -> Result<u32, i32> {
        let _ = (offset, data);
        Err(libc::EOPNOTSUPP)
    }

    /// The kernel could not read foreign memory: it is there no more.
    fn unreadable(&self) {}
}

/// Mapped memory that is lent in numbered pieces.
#[derive(Debug)]
pub(crate) struct Region {
    // Dropped before the mapping it may point into.
    home: Rc<dyn Home>,
    refs: Box<[Cell<u32>]>,
    fixed: Cell<Option<(u64, u16)>>,
    /// Others write to it: see the module.
    foreign: bool,
    mapping: Arc<Mapping>,
}

impl Region {
    /// Zeroed memory with room for `slots` pieces.
    pub(crate) fn anonymous(len: usize, slots: u32, home: Rc<dyn Home>) -> io::Result<Rc<Self>> {
        Ok(Self::over(Arc::new(Mapping::anonymous(len)?), slots, home))
    }

    /// Pieces of memory that is mapped already.
    pub(crate) fn over(mapping: Arc<Mapping>, slots: u32, home: Rc<dyn Home>) -> Rc<Self> {
        Self::of(mapping, slots, home, false)
    }

    /// Pieces of memory that others write to when they like.
    pub(crate) fn foreign(mapping: Arc<Mapping>, slots: u32, home: Rc<dyn Home>) -> Rc<Self> {
        Self::of(mapping, slots, home, true)
    }

    fn of(mapping: Arc<Mapping>, slots: u32, home: Rc<dyn Home>, foreign: bool) -> Rc<Self> {
        let refs = (0..slots).map(|_| Cell::new(0)).collect();
        Rc::new(Self { home, refs, fixed: Cell::new(None), foreign, mapping })
    }

    /// Lends `len` bytes from page number `page`, which is also the piece's number.
    pub(super) fn lend_pages(region: &Rc<Self>, page: u32, page_bytes: usize, len: usize) -> Buf {
        // SAFETY: the buddy allocator hands out a page only while no lent block covers it, and
        // the kernel touches arena memory only through handles in the in-flight table.
        unsafe { Self::lend(region, page, page as usize * page_bytes, len) }
    }

    /// Lends the piece `slot`: `len` bytes from byte `offset`.
    ///
    /// # Safety
    /// The bytes overlap no other lent piece, and the kernel does not write to them until
    /// [`Home::released`] is called for `slot`.
    pub(crate) unsafe fn lend(region: &Rc<Self>, slot: u32, offset: usize, len: usize) -> Buf {
        debug_assert!(!region.foreign, "foreign memory is lent by `lend_foreign`");
        Self::hand_out(region, slot, offset, len)
    }

    /// Lends the piece `slot` of foreign memory: `len` bytes from byte `offset`. It may overlap
    /// others, since nobody but the kernel reads there.
    pub(crate) fn lend_foreign(region: &Rc<Self>, slot: u32, offset: usize, len: usize) -> Buf {
        assert!(region.foreign, "memory of our own is lent by `lend`");
        Self::hand_out(region, slot, offset, len)
    }

    fn hand_out(region: &Rc<Self>, slot: u32, offset: usize, len: usize) -> Buf {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= region.mapping.len),
            "a piece lies inside its region"
        );
        let before = region.refs[slot as usize].replace(1);
        assert_eq!(before, 0, "a piece is lent once at a time");
        let len = u32::try_from(len).expect("pieces are below 4 GiB");
        Buf { region: region.clone(), offset, slot, len }
    }

    /// True if somebody has a handle to piece `slot`.
    pub(crate) fn is_lent(&self, slot: u32) -> bool {
        self.refs[slot as usize].get() > 0
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The fixed-buffer number by which ring number `ring` knows this region.
    pub(crate) fn fixed(&self, ring: u64) -> Option<u16> {
        self.fixed.get().filter(|(of, _)| *of == ring).map(|(_, index)| index)
    }

    /// True if some ring knows this region.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed.get().is_some()
    }

    pub(crate) fn set_fixed(&self, ring: u64, index: u16) {
        self.fixed.set(Some((ring, index)));
    }
}

/// A handle to one piece of payload memory. Clones share the piece, without atomics and without
/// allocating; it can therefore not leave its thread. The last one dropped gives the piece back.
pub struct Buf {
    region: Rc<Region>,
    offset: usize,
    slot: u32,
    len: u32,
}

impl Buf {
    fn refs(&self) -> &Cell<u32> {
        &self.region.refs[self.slot as usize]
    }

    /// True if no other clone of this handle exists.
    pub fn is_unique(&self) -> bool {
        self.refs().get() == 1
    }

    /// First byte, for the kernel.
    pub(crate) fn address(&self) -> *mut u8 {
        self.region.mapping.base().wrapping_add(self.offset)
    }

    /// See [`Region::fixed`].
    pub(crate) fn fixed(&self, ring: u64) -> Option<u16> {
        self.region.fixed(ring)
    }

    /// Fills `data` with what foreign memory holds from byte `start` of this piece on, as far as it
    /// goes: bytes, or an errno.
    pub(crate) fn fetch(&self, start: u32, data: &mut [u8]) -> Result<u32, i32> {
        self.region.home.fetch(self.offset + start as usize, data)
    }

    /// The kernel could not read it: lend it no more.
    pub(crate) fn unreadable(&self) {
        self.region.home.unreadable();
    }
}

impl Clone for Buf {
    fn clone(&self) -> Self {
        let refs = self.refs();
        refs.set(refs.get().checked_add(1).expect("fewer than 2^32 handles"));
        Self { region: self.region.clone(), ..*self }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let refs = self.refs();
        refs.set(refs.get() - 1);
        if refs.get() == 0 {
            self.region.home.released(self.slot);
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf(piece {}, {} bytes, {} handles)", self.slot, self.len, self.refs().get())
    }
}

impl Buffer for Buf {
    fn bytes(&self) -> &[u8] {
        assert!(!self.region.foreign, "memory that a store lends is for the kernel alone");
        // SAFETY: the piece is lent, so it is mapped and initialised (the kernel zeroes pages),
        // disjoint from every other piece, and nobody writes to it: the CPU needs the only
        // handle to do so (`bytes_mut`), and so does the kernel (the reactor takes it away).
        unsafe { std::slice::from_raw_parts(self.address(), self.len as usize) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(self.is_unique() && !self.region.foreign, "shared payload is read-only");
        // SAFETY: as in `bytes`, and this is the only handle, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.len as usize) }
    }

    fn if_alone(&mut self) -> Option<&mut [u8]> {
        if self.is_unique() && !self.region.foreign { Some(self.bytes_mut()) } else { None }
    }

    fn len(&self) -> usize {
        self.len as usize
    }

    fn is_loan(&self) -> bool {
        self.region.foreign
    }
}
