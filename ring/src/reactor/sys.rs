//! The ring itself, and the table of operations in flight.
//!
//! The table owns all memory of an operation from before the kernel learns its address until
//! after the kernel has said its last word about it (a completion without IORING_CQE_F_MORE).
//! While an entry is busy, nobody outside this file can take its memory out or change it; and
//! if the table must go while entries are busy, their memory is leaked, not freed.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corbel_proto::memory::{Buffer, Slice};
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use slab::Slab;

use super::message::{Body, Message, Part};
use crate::memory::Buf;
use crate::memory::{Region, Registrar};

/// Completions that belong to no entry.
const NOBODY: u64 = u64::MAX;

/// An io_uring and what we know of it.
#[derive(Debug)]
pub(crate) struct Ring {
    uring: Uring,
    id: u64,
}

struct Uring(IoUring);

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "io_uring {}", self.0.as_raw_fd())
    }
}

/// One completion, as the kernel wrote it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cqe {
    user_data: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Cqe {
    pub(super) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// A receive: the socket holds more.
    pub(super) fn waiting(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }

    pub(super) fn pool_buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

impl Ring {
    pub(crate) fn new(uring: IoUring) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { uring: Uring(uring), id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn uring(&self) -> &IoUring {
        &self.uring.0
    }

    /// Queues `entry`; submits what is queued when there is no room.
    ///
    /// # Safety
    /// All memory that `entry` names stays valid until its last completion was taken.
    unsafe fn push(&self, entry: &squeue::Entry) -> io::Result<()> {
        for _ in 0..2 {
            // SAFETY: a ring never leaves its thread, and no other queue handle is alive: each
            // lives for one expression inside this file.
            if unsafe { self.uring().submission_shared().push(entry) }.is_ok() {
                return Ok(());
            }
            self.enter(false, Some(Duration::ZERO))?;
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Submits everything queued; waits for one completion at most `wait` (`None`: for ever).
    pub(super) fn enter(&self, events: bool, wait: Option<Duration>) -> io::Result<()> {
        let submitter = self.uring().submitter();
        let entered = match wait {
            Some(Duration::ZERO) => {
                // IORING_ENTER_GETEVENTS: also run completions that the kernel has put off.
                let flags = if events { 1 } else { 0 };
                let queued = self.queued();
                // SAFETY: no argument is passed.
                unsafe { submitter.enter::<libc::sigset_t>(queued, 0, flags, None) }
            }
            Some(wait) => {
                let wait = Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&wait))
            }
            None => submitter.submit_and_wait(1),
        };
        match entered {
            Ok(_) => Ok(()),
            // Nothing in time; a signal; completions must be taken first; no memory for requests
            // just now. In each case what was not submitted stays queued for the next time.
            Err(e) => match e.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Submissions the kernel has not seen.
    pub(super) fn queued(&self) -> u32 {
        // SAFETY: see `push`.
        let queued = unsafe { self.uring().submission_shared().len() };
        u32::try_from(queued).expect("rings are small")
    }

    /// True if completions wait for an enter that asks for them.
    pub(super) fn has_put_off(&self) -> bool {
        // SAFETY: see `push`.
        let queue = unsafe { self.uring().submission_shared() };
        queue.taskrun() || queue.cq_overflow()
    }

    /// True if completions can be taken.
    pub(super) fn has_completions(&self) -> bool {
        // SAFETY: see `push`; the same holds for the completion queue.
        unsafe { !self.uring().completion_shared().is_empty() }
    }

    /// Takes one completion.
    pub(super) fn reap(&self) -> Option<Cqe> {
        // SAFETY: see `push`; the same holds for the completion queue.
        let cqe = unsafe { self.uring().completion_shared().next() }?;
        Some(Cqe { user_data: cqe.user_data(), result: cqe.result(), flags: cqe.flags() })
    }
}

/// Registers arena chunks as fixed buffers.
impl Registrar for Ring {
    fn register(&self, index: u16, region: &Region) -> io::Result<()> {
        let mapping = region.mapping();
        let vector = libc::iovec { iov_base: mapping.base().cast(), iov_len: mapping.len() };
        // SAFETY: the kernel pins the pages; operations reach them only through `Buf`s, which
        // keep the region mapped.
        unsafe {
            self.uring().submitter().register_buffers_update(index.into(), &[vector], None)?;
        }
        region.set_fixed(self.id, index);
        Ok(())
    }
}

/// Where an operation goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Fixed(u32),
    Raw(RawFd),
}

/// What an operation is, with its memory and how far it got.
#[derive(Debug)]
pub(super) enum Work {
    Accept,
    Recv { data: Slice<Buf>, done: u32, exact: bool },
    RecvPooled { len_max: u32, repeat: bool, multishot: bool },
    Send { message: Message, zero_copy: bool },
    Read { data: Slice<Buf>, done: u32, offset: u64 },
    Write { data: Slice<Buf>, done: u32, offset: u64, durable: bool },
    Sync,
    Fallocate { mode: i32, offset: u64, len: u64 },
    PollReadable,
    PollRing,
    PollWritable,
}

impl Work {
    /// True if what it waits for is the peer's to do.
    pub(super) fn is_receive(&self) -> bool {
        matches!(self, Self::Recv { .. } | Self::RecvPooled { .. } | Self::Accept)
    }
}

/// One operation.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) tag: u64,
    pub(super) file: super::File,
    pub(super) target: Target,
    pub(super) cancelled: bool,
    /// Its result was delivered; only the kernel's last word on the memory is missing.
    pub(super) delivered: bool,
    work: Work,
    busy: bool,
    generation: u32,
}

impl Flight {
    pub(super) fn new(tag: u64, file: super::File, target: Target, work: Work) -> Self {
        let (cancelled, delivered, busy, generation) = (false, false, false, 0);
        Self { tag, file, target, cancelled, delivered, work, busy, generation }
    }

    pub(super) fn work(&self) -> &Work {
        &self.work
    }

    /// # Panics
    /// While the kernel may touch the memory.
    pub(super) fn work_mut(&mut self) -> &mut Work {
        assert!(!self.busy, "the kernel holds this memory");
        &mut self.work
    }

    pub(super) fn into_work(self) -> Work {
        self.work
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}

/// All operations in flight on one ring.
#[derive(Debug)]
pub(super) struct Flights {
    // Option only so that a drop with busy entries can leak it.
    slab: Option<Slab<Flight>>,
    ring: Rc<Ring>,
    generation: u32,
    pub(super) pool_group: u16,
}

impl Flights {
    pub(super) fn new(ring: Rc<Ring>, capacity: usize, pool_group: u16) -> Self {
        Self { slab: Some(Slab::with_capacity(capacity)), ring, generation: 0, pool_group }
    }

    fn slab(&self) -> &Slab<Flight> {
        self.slab.as_ref().expect("present until dropped")
    }

    fn slab_mut(&mut self) -> &mut Slab<Flight> {
        self.slab.as_mut().expect("present until dropped")
    }

    pub(super) fn insert(&mut self, mut flight: Flight) -> super::OpId {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        flight.generation = generation;
        let key = self.slab_mut().insert(flight);
        super::OpId { key: u32::try_from(key).expect("flights are few"), generation }
    }

    /// True if operation `id` has not ended.
    pub(super) fn contains(&self, id: super::OpId) -> bool {
        self.slab().get(id.key as usize).is_some_and(|f| f.generation == id.generation)
    }

    /// True if there is an entry `key` that was asked to end.
    pub(super) fn is_cancelled(&self, key: u32) -> bool {
        self.slab().get(key as usize).is_some_and(|f| f.cancelled)
    }

    pub(super) fn get(&mut self, key: u32) -> &mut Flight {
        &mut self.slab_mut()[key as usize]
    }

    /// Takes an entry out.
    ///
    /// # Panics
    /// While the kernel may touch its memory.
    pub(super) fn remove(&mut self, key: u32) -> Flight {
        assert!(!self.slab()[key as usize].busy, "the kernel holds this memory");
        self.slab_mut().remove(key as usize)
    }

    /// Entries of `file` (all with `None`), with their keys.
    pub(super) fn keys(&self, file: Option<super::File>) -> Vec<u32> {
        let of_file = |f: &Flight| file.is_none_or(|file| f.file == file);
        let keys = self.slab().iter().filter(|(_, f)| of_file(f)).map(|(k, _)| k);
        keys.map(|k| u32::try_from(k).expect("flights are few")).collect()
    }

    /// Sockets whose peers have not acknowledged what was sent from our memory.
    pub(super) fn held(&self) -> Vec<super::File> {
        self.slab().iter().filter(|(_, f)| f.delivered).map(|(_, f)| f.file).collect()
    }

    pub(super) fn busy(&self) -> usize {
        self.slab().iter().filter(|(_, f)| f.busy).count()
    }

    pub(super) fn len(&self) -> usize {
        self.slab().len()
    }

    /// Hands entry `key` to the kernel as it now stands. `Err`: no room now, try again later.
    pub(super) fn start(&mut self, key: u32) -> io::Result<()> {
        let (ring, group) = (self.ring.clone(), self.pool_group);
        let flight = &mut self.slab_mut()[key as usize];
        assert!(!flight.busy, "started twice");
        let user_data = u64::from(flight.generation) << 32 | u64::from(key);
        let mut entry = flight.entry(ring.id(), group).user_data(user_data);
        if let Target::Fixed(_) = flight.target {
            entry = entry.flags(squeue::Flags::FIXED_FILE);
        }
        // SAFETY: the entry names memory of this slab entry's `work` only, which stays where it
        // is (heap or arena) and is neither changed nor freed while `busy`: `remove` and
        // `work_mut` refuse, `drop` leaks. `busy` ends with the kernel's last completion.
        unsafe { ring.push(&entry)? };
        flight.busy = true;
        Ok(())
    }

    /// Asks the kernel to give up entry `key`; it still completes.
    pub(super) fn cancel(&mut self, key: u32) -> io::Result<()> {
        let generation = self.slab()[key as usize].generation;
        let user_data = u64::from(generation) << 32 | u64::from(key);
        let entry = opcode::AsyncCancel::new(user_data).build().user_data(NOBODY);
        // SAFETY: a cancellation names no memory.
        unsafe { self.ring.push(&entry) }
    }

    /// Whose completion this is; `None` for answers to cancellations.
    pub(super) fn owner(&mut self, cqe: &Cqe) -> Option<u32> {
        if cqe.user_data == NOBODY {
            return None;
        }
        let key = u32::try_from(cqe.user_data & u64::from(u32::MAX)).expect("masked");
        let flight = self.slab_mut().get_mut(key as usize).expect("entries outlive their CQEs");
        assert_eq!(u64::from(flight.generation), cqe.user_data >> 32, "a CQE of this entry");
        flight.busy = cqe.more();
        Some(key)
    }
}

impl Drop for Flights {
    fn drop(&mut self) {
        if self.busy() > 0 {
            tracing::error!(busy = self.busy(), "leaking memory that the kernel still holds");
            std::mem::forget(self.slab.take());
            std::mem::forget(self.ring.clone());
        }
    }
}

impl Flight {
    /// The submission for this operation from where it stands.
    fn entry(&mut self, ring: u64, group: u16) -> squeue::Entry {
        let fd = match self.target {
            Target::Fixed(slot) => Fd(i32::try_from(slot).expect("file tables are small")),
            Target::Raw(fd) => Fd(fd),
        };
        match &mut self.work {
            Work::Accept => opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build(),
            Work::Recv { data, done, exact } => {
                let flags = if *exact { libc::MSG_WAITALL } else { 0 };
                let (at, len) = rest(data, *done);
                opcode::Recv::new(fd, at, len).flags(flags).build()
            }
            Work::RecvPooled { multishot: true, .. } => opcode::RecvMulti::new(fd, group).build(),
            Work::RecvPooled { len_max, .. } => {
                opcode::Recv::new(fd, std::ptr::null_mut(), *len_max)
                    .buf_group(group)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            }
            Work::Send { message, zero_copy } => {
                let body = &mut *message.body;
                let flags = send_flags(body);
                let message = Vector::fill(body);
                if *zero_copy {
                    opcode::SendMsgZc::new(fd, message).flags(flags).build()
                } else {
                    opcode::SendMsg::new(fd, message).flags(flags).build()
                }
            }
            Work::Read { data, done, offset } => {
                let (at, len) = rest(data, *done);
                let offset = *offset + u64::from(*done);
                match data.buffer.fixed(ring) {
                    Some(index) => {
                        opcode::ReadFixed::new(fd, at, len, index).offset(offset).build()
                    }
                    None => opcode::Read::new(fd, at, len).offset(offset).build(),
                }
            }
            Work::Write { data, done, offset, durable } => {
                let (at, len) = rest(data, *done);
                let offset = *offset + u64::from(*done);
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                match data.buffer.fixed(ring) {
                    Some(index) => opcode::WriteFixed::new(fd, at, len, index)
                        .offset(offset)
                        .rw_flags(flags)
                        .build(),
                    None => opcode::Write::new(fd, at, len).offset(offset).rw_flags(flags).build(),
                }
            }
            Work::Sync => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
            Work::Fallocate { mode, offset, len } => {
                opcode::Fallocate::new(fd, *len).offset(*offset).mode(*mode).build()
            }
            Work::PollReadable => {
                let events = u32::from(libc::POLLIN.unsigned_abs());
                opcode::PollAdd::new(fd, events).multi(true).build()
            }
            Work::PollRing => {
                let events = u32::from(libc::POLLIN.unsigned_abs());
                opcode::PollAdd::new(fd, events).build()
            }
            Work::PollWritable => {
                let events = u32::from(libc::POLLOUT.unsigned_abs());
                opcode::PollAdd::new(fd, events).build()
            }
        }
    }
}

/// A frame goes as one, a stream's message whole, and what a store lends is not left with a socket
/// that has no room.
fn send_flags(body: &Body) -> u32 {
    let how = match (body.at_once, body.frame) {
        (true, _) => libc::MSG_DONTWAIT,
        (false, true) => 0,
        (false, false) => libc::MSG_WAITALL,
    };
    u32::try_from(how | libc::MSG_NOSIGNAL).expect("positive")
}

/// Address and length of what is left of `data`.
fn rest(data: &Slice<Buf>, done: u32) -> (*mut u8, u32) {
    debug_assert!(data.start as usize + data.len as usize <= data.buffer.len());
    (data.buffer.address().wrapping_add((data.start + done) as usize), data.len - done)
}

/// The kernel's view of a message: addresses of its pieces.
pub(super) struct Vector {
    header: libc::msghdr,
    pieces: Vec<libc::iovec>,
}

/// UIO_MAXIOV: the kernel takes no more pieces at once.
const PIECES_MAX: usize = 1024;

impl Default for Vector {
    fn default() -> Self {
        // SAFETY: all zeros is a valid, empty msghdr.
        Self { header: unsafe { std::mem::zeroed() }, pieces: Vec::new() }
    }
}

impl std::fmt::Debug for Vector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vector({} pieces)", self.pieces.len())
    }
}

impl Vector {
    /// Points the vector at what is left of the message around it.
    fn fill(body: &mut Body) -> *const libc::msghdr {
        let Body { inline, parts, done, vector, .. } = body;
        vector.pieces.clear();
        let mut skip = *done;
        for part in parts.iter() {
            let (base, len) = match part {
                Part::Inline { start, len } => {
                    (inline[*start..*start + *len].as_ptr().cast_mut(), *len)
                }
                Part::Payload(slice) => {
                    let (base, len) = rest(slice, 0);
                    (base, len as usize)
                }
            };
            if skip >= len as u64 {
                skip -= len as u64;
                continue;
            }
            let from = usize::try_from(skip).expect("below a length");
            skip = 0;
            let base = base.wrapping_add(from).cast();
            vector.pieces.push(libc::iovec { iov_base: base, iov_len: len - from });
            if vector.pieces.len() == PIECES_MAX {
                break;
            }
        }
        vector.header.msg_iov = vector.pieces.as_mut_ptr();
        vector.header.msg_iovlen = vector.pieces.len();
        &raw const vector.header
    }
}

/// Takes over a descriptor that a completion brought.
pub(super) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: called once per accepted connection, with the descriptor the kernel made for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
