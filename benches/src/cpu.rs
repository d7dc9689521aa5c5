//! CPU time and memory of threads and processes, and which core a thread runs on.

use std::fs;
use std::io;

use corbel_proto::time::Instant;
use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

/// USER_HZ is 100 wherever this is built.
const TICK_NANOS: u64 = 10_000_000;

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::from_nanos(clock(ClockId::Monotonic))
}

/// CPU time of the calling thread, nanoseconds.
pub(crate) fn of_thread() -> u64 {
    clock(ClockId::ThreadCPUTime)
}

fn clock(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// CPU time of a process and all its threads, nanoseconds: those that live, by the scheduler's own
/// account; where the kernel keeps none, to a hundredth of a second.
///
/// # Errors
/// If there is no such process.
pub(crate) fn of_process(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has just ended has no account any more.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    if sum > 0 {
        return Ok(sum);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(ticks(&stat).unwrap_or(0) * TICK_NANOS)
}

/// User and system time in `/proc/PID/stat`. The name before them may hold blanks.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    Some(user + fields.next()?.parse::<u64>().ok()?)
}

/// Resident memory of a process, bytes.
///
/// # Errors
/// If there is no such process.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Makes the calling thread, and those and the processes it starts, run on these cores.
///
/// # Errors
/// If there is none of them for this process.
pub(crate) fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(core);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_hides_no_times() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn work_costs_this_process_time() {
        let (thread, process) = (of_thread(), of_process(std::process::id()).unwrap());
        let mut x = 1_u64;
        while of_thread() - thread < 20_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        // The scheduler's account of a running thread lags by a tick.
        assert!(of_process(std::process::id()).unwrap() > process);
        assert!(of_process(u32::MAX).is_err());
    }
}
