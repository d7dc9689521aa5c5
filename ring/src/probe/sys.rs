//! Trials of what no probe call tells.
#![allow(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode};

use crate::pool::{Pool, PoolConfig};

/// Receives one byte by a multishot receive into a provided buffer. `Err`: not even the
/// provided-buffer ring is there.
pub(super) fn multishot_recv_works() -> io::Result<bool> {
    let mut uring = IoUring::new(4)?;
    let pool = Pool::new(&uring, 0, PoolConfig { buffers: 2, buffer_bytes: 4096 })?;
    let (mut near, far) = UnixStream::pair()?;
    near.write_all(b"x")?;
    let entry = opcode::RecvMulti::new(Fd(far.as_raw_fd()), 0).build();
    // SAFETY: the entry names no memory but the pool's.
    unsafe { uring.submission().push(&entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
    uring.submit_and_wait(1)?;
    let cqe = uring.completion().next().ok_or(io::ErrorKind::UnexpectedEof)?;
    let works = cqe.result() == 1 && cqueue::more(cqe.flags());
    // The receive ends, and says so, before the pool's memory goes.
    drop(near);
    if works {
        uring.submit_and_wait(1)?;
    }
    drop(pool);
    Ok(works)
}

/// Takes a file out of the table of registered files while another's poll waits, and looks whether
/// it was closed.
pub(super) fn files_are_released_promptly() -> io::Result<bool> {
    let mut uring = IoUring::new(4)?;
    let (waited_for, mut poked) = UnixStream::pair()?;
    let (mut end, taken_out) = UnixStream::pair()?;
    let table = [waited_for.as_raw_fd(), taken_out.as_raw_fd()];
    uring.submitter().register_files(&table)?;
    let entry = opcode::PollAdd::new(Fixed(0), libc::POLLIN as u32).build();
    // SAFETY: the entry names no memory.
    unsafe { uring.submission().push(&entry) }.map_err(|_| io::ErrorKind::WouldBlock)?;
    uring.submit()?;
    uring.submitter().register_files_update(1, &[-1])?;
    drop(taken_out);
    // What the kernel puts off until this thread returns from a system call happens on the way.
    end.set_nonblocking(true)?;
    let prompt = matches!(end.read(&mut [0]), Ok(0));
    poked.write_all(b"x")?;
    uring.submit_and_wait(1)?;
    Ok(prompt)
}
