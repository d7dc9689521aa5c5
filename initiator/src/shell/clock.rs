//! The clock that machines are told: it counts on while the host is suspended, so that a write that
//! is too old stays too old.

use corbel_proto::time::Instant;

/// CLOCK_BOOTTIME.
pub(super) fn now() -> Instant {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}
