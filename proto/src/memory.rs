//! The memory that payload lives in, as the machines see it.
//!
//! Payload is never copied on its way between the network and the disk. A machine therefore
//! handles *handles*: the host (a ring's registered arena, a packet ring, a plain vector in the
//! simulator) lends a [`Buffer`], the machine passes it on, and dropping the last clone gives
//! the memory back. Handles are cheap to clone and stay on the thread that owns the memory.

use core::cell::{Cell, RefCell};
use core::fmt::Debug;
use core::ops::Range;
use std::rc::Rc;

/// A cheap, reference-counted handle to one contiguous piece of payload memory.
pub trait Buffer: Clone + Debug {
    /// The whole buffer.
    fn bytes(&self) -> &[u8];

    /// The whole buffer, to be written by the CPU.
    ///
    /// # Panics
    /// If another clone of the handle exists: shared payload is read-only.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// The whole buffer, to be written by the CPU, if this is the only handle and the memory may
    /// be written to. `None` is always right: the caller copies then.
    fn if_alone(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// True if a store lends it, and whoever reads there now may read what is written there later.
    /// Only the kernel may look at its bytes: they can be sent, and nothing else.
    fn is_loan(&self) -> bool {
        false
    }

    /// Length in bytes.
    fn len(&self) -> usize {
        self.bytes().len()
    }

    /// True for a buffer of no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Part of a [`Buffer`].
#[derive(Debug, Clone)]
pub struct Slice<B> {
    /// The memory.
    pub buffer: B,
    /// First byte of the part.
    pub start: u32,
    /// Length of the part in bytes.
    pub len: u32,
}

impl<B: Buffer> Slice<B> {
    /// The whole of `buffer`.
    pub fn whole(buffer: B) -> Self {
        let len = u32::try_from(buffer.len()).expect("payload buffers are far below 4 GiB");
        Self { buffer, start: 0, len }
    }

    /// A part of `buffer`.
    ///
    /// # Panics
    /// If the part does not lie inside the buffer.
    pub fn part(buffer: B, start: u32, len: u32) -> Self {
        assert!(start as usize + len as usize <= buffer.len(), "slice outside its buffer");
        Self { buffer, start, len }
    }

    /// A part of this part; offsets count from this part's first byte.
    pub fn sub(&self, start: u32, len: u32) -> Self {
        assert!(start as usize + len as usize <= self.len as usize, "slice outside its parent");
        Self { buffer: self.buffer.clone(), start: self.start + start, len }
    }

    /// Where the part lies in its buffer.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// The bytes of the part.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.bytes()[self.range()]
    }

    /// The bytes of the part, to be written by the CPU. Panics as [`Buffer::bytes_mut`] does.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        &mut self.buffer.bytes_mut()[range]
    }

    /// The bytes of the part, if no other part of the buffer is held. See [`Buffer::if_alone`].
    pub fn if_alone(&mut self) -> Option<&mut [u8]> {
        let range = self.range();
        Some(&mut self.buffer.if_alone()?[range])
    }
}

impl<B: Buffer> AsRef<[u8]> for Slice<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Panics as [`Buffer::bytes_mut`] does.
impl<B: Buffer> AsMut<[u8]> for Slice<B> {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }
}

/// Who lends payload memory.
pub trait Arena {
    /// The handles it lends.
    type Buf: Buffer;

    /// Lends `len` bytes (1 to [`SEGMENT_BYTES_MAX`]), aligned for direct I/O, with undefined
    /// old contents of this process only. `None` when the configured memory is in use; the
    /// caller waits or answers "busy", it never queues without bound.
    fn alloc(&mut self, len: usize) -> Option<Self::Buf>;

    /// Copies the slice into memory of its own if a store has lent it ([`Buffer::is_loan`]), so
    /// that the store has its memory back. Where there is no memory it stays lent.
    fn call_in(&mut self, slice: &mut Slice<Self::Buf>) {
        let _ = slice;
    }
}

/// The payload of one transfer: its pieces in order, each at most [`SEGMENT_BYTES_MAX`] long. One
/// piece needs no allocation: more would make everything larger that a request is handed on in.
pub type Segments<B> = smallvec::SmallVec<[Slice<B>; 1]>;

/// The largest single piece of payload memory. Longer transfers use several.
pub const SEGMENT_BYTES_MAX: usize = 256 * 1024;

/// Plain memory for tests, tools and the simulator.
#[derive(Debug, Clone)]
pub struct HeapBuffer(Rc<Lent>);

/// Tags of loans that came back.
pub type Returned = Rc<RefCell<Vec<u64>>>;

/// Bytes, and the account they are booked on.
#[derive(Debug)]
struct Lent {
    bytes: Vec<u8>,
    account: Rc<Cell<usize>>,
    loan: Option<(u64, Returned)>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.account.set(self.account.get() - self.bytes.len());
        if let Some((tag, returned)) = &self.loan {
            returned.borrow_mut().push(*tag);
        }
    }
}

impl HeapBuffer {
    /// `len` zeroed bytes.
    pub fn new(len: usize) -> Self {
        Self::from_vec(vec![0; len])
    }

    /// Takes over `bytes`.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self::booked(bytes, Rc::default())
    }

    fn booked(bytes: Vec<u8>, account: Rc<Cell<usize>>) -> Self {
        account.set(account.get() + bytes.len());
        Self(Rc::new(Lent { bytes, account, loan: None }))
    }

    /// What a store lends ([`Buffer::is_loan`]); `returned` gets `tag` with the last handle to it.
    pub fn loan(bytes: Vec<u8>, tag: u64, returned: &Returned) -> Self {
        let account = Rc::new(Cell::new(bytes.len()));
        Self(Rc::new(Lent { bytes, account, loan: Some((tag, returned.clone())) }))
    }

    /// The bytes as a network sees them, lent by a store or not.
    pub fn sent(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Buffer for HeapBuffer {
    fn bytes(&self) -> &[u8] {
        assert!(!self.is_loan(), "memory that a store lends can only be sent");
        &self.0.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.if_alone().expect("shared payload is read-only")
    }

    fn if_alone(&mut self) -> Option<&mut [u8]> {
        let own = Rc::get_mut(&mut self.0).filter(|lent| lent.loan.is_none());
        own.map(|lent| &mut lent.bytes[..])
    }

    fn len(&self) -> usize {
        self.0.bytes.len()
    }

    fn is_loan(&self) -> bool {
        self.0.loan.is_some()
    }
}

/// An arena that lends [`HeapBuffer`]s until `budget` bytes are out.
#[derive(Debug)]
pub struct HeapArena {
    budget: usize,
    account: Rc<Cell<usize>>,
}

impl HeapArena {
    /// Lends at most `budget` bytes at a time.
    pub fn new(budget: usize) -> Self {
        Self { budget, account: Rc::default() }
    }

    /// Bytes lent now.
    pub fn in_use(&self) -> usize {
        self.account.get()
    }
}

impl Arena for HeapArena {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        assert!(len > 0 && len <= SEGMENT_BYTES_MAX, "segments are 1 B to 256 KiB, not {len}");
        if self.in_use() + len > self.budget {
            return None;
        }
        Some(HeapBuffer::booked(vec![0; len], self.account.clone()))
    }

    fn call_in(&mut self, slice: &mut Slice<HeapBuffer>) {
        if slice.buffer.is_loan()
            && let Some(mut own) = self.alloc(slice.len as usize)
        {
            own.bytes_mut().copy_from_slice(&slice.buffer.sent()[slice.range()]);
            *slice = Slice::whole(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arena_lends_no_more_than_its_budget_and_takes_back() {
        let mut arena = HeapArena::new(1000);
        let first = arena.alloc(600).unwrap();
        assert!(arena.alloc(600).is_none());
        drop(first);
        assert!(arena.alloc(600).is_some());
    }

    #[test]
    fn a_loan_is_called_in_where_there_is_memory_and_tells_when_it_is_back() {
        let (mut arena, returned) = (HeapArena::new(4), Returned::default());
        let mut slice = Slice::part(HeapBuffer::loan((0..10).collect(), 7, &returned), 2, 5);
        arena.call_in(&mut slice);
        assert!(slice.buffer.is_loan() && slice.if_alone().is_none());
        slice = slice.sub(1, 4);
        arena.call_in(&mut slice);
        assert_eq!((slice.bytes(), &returned.borrow()[..]), (&[3, 4, 5, 6][..], &[7][..]));
        arena.call_in(&mut slice);
        assert_eq!(arena.in_use(), 4);
    }

    #[test]
    fn slices_nest() {
        let mut whole = Slice::whole(HeapBuffer::from_vec((0..10).collect()));
        whole.bytes_mut()[9] = 99;
        let part = whole.sub(4, 6).sub(2, 4);
        assert_eq!(part.bytes(), [6, 7, 8, 99]);
    }
}
