//! The one system call of the control plane that no crate wraps.
#![allow(unsafe_code)]

use std::io;

/// prctl(2); Linux 5.6 and newer.
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// From now on this thread, and every thread that it makes, never waits for storage when it needs
/// memory (prctl(2), PR_SET_IO_FLUSHER): that storage may be ours. Needs CAP_SYS_RESOURCE.
pub(super) fn set_io_flusher() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    let unused: libc::c_ulong = 0;
    // SAFETY: PR_SET_IO_FLUSHER takes numbers only, and reads or writes no memory of ours.
    let done = unsafe { libc::prctl(PR_SET_IO_FLUSHER, on, unused, unused, unused) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
