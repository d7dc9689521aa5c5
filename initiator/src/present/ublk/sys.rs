//! The rings that carry commands to the driver, and the descriptors it shares with us.
//!
//! The driver writes to our memory only while this thread is inside a system call: a write's
//! bytes are copied by task work of the thread that fetched. What it may write to is named by a
//! fetch, and kept here, unreachable for anybody, until the fetch has ended.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use corbel_proto::memory::Buffer;
use corbel_ring::Buf;
use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use rustix::mm::{MapFlags, ProtFlags};

use super::abi::{self, DEPTH_MAX, DESCRIPTOR_BYTES, Descriptor};

/// Pages of the driver's descriptors.
const PAGE_BYTES: usize = 4096;

/// A ring for commands to `/dev/ublk-control`, one at a time.
pub(super) struct ControlRing(IoUring<squeue::Entry128, cqueue::Entry>);

impl ControlRing {
    pub(super) fn new() -> io::Result<Self> {
        IoUring::builder().build(1).map(Self)
    }

    /// Sends a command and waits for its end. `data` is what the command reads or fills.
    pub(super) fn execute(
        &mut self,
        control: BorrowedFd<'_>,
        code: u32,
        id: u32,
        inline: u64,
        data: &mut [u8],
    ) -> io::Result<i32> {
        let len = u16::try_from(data.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut memory: Box<[u8]> = data.into();
        let address = if len == 0 { 0 } else { memory.as_mut_ptr() as u64 };
        let entry = opcode::UringCmd80::new(Fd(control.as_raw_fd()), code)
            .cmd(abi::control(id, inline, address, len))
            .build();
        // SAFETY: `memory` lives until the command has ended: it is freed below that point, and
        // leaked where the command's end is not known.
        unsafe { self.0.submission().push(&entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
        let cqe = loop {
            if let Some(cqe) = self.0.completion().next() {
                break cqe;
            }
            match self.0.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
                Err(error) => {
                    Box::leak(memory);
                    return Err(error);
                }
            }
        };
        data.copy_from_slice(&memory);
        if cqe.result() < 0 {
            return Err(io::Error::from_raw_os_error(-cqe.result()));
        }
        Ok(cqe.result())
    }
}

/// A fetch that has ended.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) tag: u16,
    /// 0: a request; else an errno, and no request.
    pub(super) errno: i32,
    /// The memory that was named by the fetch.
    pub(super) buffer: Buf,
}

/// The one queue of a device: its ring, its descriptors, and the memory the driver may write to.
pub(super) struct Queue {
    uring: IoUring,
    /// By tag: what the driver may write to until the tag's fetch has ended.
    held: Vec<Option<Buf>>,
    device: Option<Device>,
}

struct Device {
    fd: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: we mapped exactly this, and references into it end with each `descriptor` call.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue(io_uring {}, {} fetches)", self.uring.as_raw_fd(), self.fetches())
    }
}

impl Queue {
    /// A ring without a device. Stays on this thread, which the driver takes for the server.
    pub(super) fn new(depth: u16) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            // A device that outlived another configuration may be deeper than `depth`.
            .setup_cqsize(DEPTH_MAX.into())
            .build(u32::from(depth).next_power_of_two())?;
        Ok(Self { uring, held: Vec::new(), device: None })
    }

    /// Becomes the queue of the device behind `fd` (`/dev/ublkcN`).
    pub(super) fn open(&mut self, fd: OwnedFd, depth: u16) -> io::Result<()> {
        let len = (usize::from(depth) * DESCRIPTOR_BYTES).next_multiple_of(PAGE_BYTES);
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, &fd, 0)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        self.held = (0..depth).map(|_| None).collect();
        self.device = Some(Device { fd, base, len });
        Ok(())
    }

    /// Lets go of the device; the ring stays. Only once no fetch is under way.
    pub(super) fn close(&mut self) {
        assert_eq!(self.fetches(), 0, "the driver still holds memory");
        self.device = None;
    }

    /// Readable while [`Self::reap`] has something.
    pub(super) fn ring(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// Fetches of which the end is not known.
    pub(super) fn fetches(&self) -> usize {
        self.held.iter().filter(|buffer| buffer.is_some()).count()
    }

    /// Queues the first fetch of `tag`.
    ///
    /// # Panics
    /// If `buffer` is shared or `tag` is being fetched.
    pub(super) fn fetch(&mut self, tag: u16, buffer: Buf) -> io::Result<()> {
        self.command(abi::FETCH_REQ, tag, 0, buffer)
    }

    /// Queues the end of the request of `tag`, which also fetches the next. A read's bytes are
    /// taken from `buffer`, the next write's go there. Panics as [`Self::fetch`].
    pub(super) fn commit(&mut self, tag: u16, result: i32, buffer: Buf) -> io::Result<()> {
        self.command(abi::COMMIT_AND_FETCH_REQ, tag, result, buffer)
    }

    fn command(&mut self, code: u32, tag: u16, result: i32, mut buffer: Buf) -> io::Result<()> {
        let device = self.device.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let slot = &mut self.held[usize::from(tag)];
        assert!(slot.is_none(), "a tag is fetched once at a time");
        let address = buffer.bytes_mut().as_mut_ptr() as u64;
        let entry = opcode::UringCmd16::new(Fd(device.fd.as_raw_fd()), code)
            .cmd(abi::io(tag, result, address))
            .build()
            .user_data(tag.into());
        *slot = Some(buffer);
        // SAFETY: the memory is in `held`, the only handle to it, until the fetch's completion
        // was taken by `reap`; a drop before that leaks it. It is as long as the device's longest
        // request: the caller lends no other.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.uring.submit()?;
        }
        Ok(())
    }

    /// Hands what is queued to the driver. False: the kernel had no memory for all of it; try
    /// again soon.
    pub(super) fn submit(&mut self) -> io::Result<bool> {
        while !self.uring.submission().is_empty() {
            match self.uring.submit() {
                Ok(_) => {}
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => return Ok(false),
                    _ => return Err(e),
                },
            }
        }
        Ok(true)
    }

    /// Takes a fetch that has ended.
    pub(super) fn reap(&mut self) -> Option<Fetched> {
        let cqe = self.uring.completion().next()?;
        let tag = u16::try_from(cqe.user_data()).expect("tags are put in by `command`");
        let buffer = self.held[usize::from(tag)].take().expect("a completion per fetch");
        Some(Fetched { tag, errno: -cqe.result(), buffer })
    }

    /// The request of `tag`, if its fetch has ended.
    pub(super) fn descriptor(&self, tag: u16) -> Option<Descriptor> {
        let device = self.device.as_ref()?;
        if self.held.get(usize::from(tag))?.is_some() {
            return None;
        }
        let at = usize::from(tag) * DESCRIPTOR_BYTES;
        // SAFETY: inside the mapping, which `open` made for `held.len()` descriptors, and aligned
        // for bytes. The driver writes to a tag's descriptor only while the tag is fetched, and
        // the fetch's completion, which says that it has, was read with acquire order.
        let bytes = unsafe {
            device.base.as_ptr().add(at).cast::<[u8; DESCRIPTOR_BYTES]>().read_volatile()
        };
        Some(Descriptor::parse(&bytes))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let held: Vec<_> = self.held.drain(..).flatten().collect();
        if !held.is_empty() {
            // The ring's end cancels them, but not before we return.
            tracing::error!(fetches = held.len(), "leaking memory that the driver may write to");
            std::mem::forget(held);
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor is open as long as the ring, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corbel_ring::{Config, Event, Op, Reactor, Waker};

    use super::*;

    const TURN: Duration = Duration::from_secs(5);

    impl Queue {
        fn complete_nothing(&mut self) {
            // SAFETY: the entry names no memory.
            unsafe { self.uring.submission().push(&opcode::Nop::new().build()) }.unwrap();
            self.submit().unwrap();
        }

        fn drain(&mut self) -> usize {
            self.uring.completion().count()
        }
    }

    fn readable(reactor: &mut Reactor, wait: Duration) -> bool {
        let mut done = Vec::new();
        reactor.turn(Some(wait), &mut done).unwrap();
        done.iter().any(|completion| matches!(completion.event, Event::Readable(Ok(()))))
    }

    #[test]
    fn every_completion_of_the_ring_wakes_the_reactor() {
        let mut reactor = Reactor::new(Config::default(), Waker::new().unwrap()).unwrap();
        let mut queue = Queue::new(4).unwrap();
        let file = reactor.attach(queue.ring().unwrap());
        reactor.submit(Op::PollRing { file }, 0);
        for round in 0..100 {
            if round % 2 == 0 {
                // The poll waits when the completion comes.
                assert!(!readable(&mut reactor, Duration::ZERO));
            }
            queue.complete_nothing();
            assert!(readable(&mut reactor, TURN), "round {round}");
            assert_eq!(queue.drain(), 1);
        }
    }

    #[test]
    fn a_poll_whose_completion_was_taken_before_it_looked_goes_on() {
        let mut reactor = Reactor::new(Config::default(), Waker::new().unwrap()).unwrap();
        let mut queue = Queue::new(4).unwrap();
        let file = reactor.attach(queue.ring().unwrap());
        reactor.submit(Op::PollRing { file }, 0);
        assert!(!readable(&mut reactor, Duration::ZERO));
        for _ in 0..100 {
            queue.complete_nothing();
            assert_eq!(queue.drain(), 1);
            readable(&mut reactor, Duration::ZERO);
        }
        queue.complete_nothing();
        assert!(readable(&mut reactor, TURN));
    }
}
