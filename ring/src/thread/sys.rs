//! sched_setattr(2) and getrusage(2), which have no wrappers.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// The attributes of the calling thread.
pub(super) fn attributes() -> io::Result<libc::sched_attr> {
    // SAFETY: all zeros is a valid value of these plain integers.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&attributes);
    // SAFETY: the kernel writes at most `size` bytes to `attributes`.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes) }
}

pub(super) fn set_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH].map(i32::cast_unsigned);
    if !ordinary.contains(&attributes.sched_policy) {
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // Flags beyond this one (such as utilisation hints) are of no use to set again.
    attributes.sched_flags &= RESET_ON_FORK;
    // SAFETY: the kernel reads `attributes`, whose size is its first field.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Of the calling thread, since it began.
pub(super) fn involuntary_switches() -> i64 {
    // SAFETY: all zeros is a valid value of these plain integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `usage` alone. It cannot fail: the arguments are good.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_nivcsw
}

/// SCHED_FLAG_RESET_ON_FORK.
const RESET_ON_FORK: u64 = 1;
