//! Trials of what no probe call tells.
#![allow(unsafe_code)]

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, cqueue, opcode, types::Fd};

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
