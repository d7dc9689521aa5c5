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

/// What the scheduler knows of a thread or process, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// It ran.
    pub(crate) ran: u64,
    /// It was ready to run, and something else ran.
    pub(crate) waited: u64,
}

impl Account {
    fn read(path: &std::path::Path) -> Option<Self> {
        // A thread that has just ended has no account any more.
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.split(' ').map(|word| word.parse::<u64>().ok());
        Some(Self { ran: words.next()??, waited: words.next()?? })
    }

    /// What came to it since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        let ran = self.ran.saturating_sub(before.ran);
        Self { ran, waited: self.waited.saturating_sub(before.waited) }
    }
}

/// How long the calling thread was ready and did not run, nanoseconds.
pub(crate) fn waited_by_thread() -> u64 {
    Account::read("/proc/thread-self/schedstat".as_ref()).map_or(0, |account| account.waited)
}

/// The account of a process and all its threads that live; where the kernel keeps none, its CPU
/// time to a hundredth of a second.
///
/// # Errors
/// If there is no such process.
pub(crate) fn of_process(pid: u32) -> io::Result<Account> {
    let mut sum = Account::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let account = Account::read(&task?.path().join("schedstat")).unwrap_or_default();
        sum = Account { ran: sum.ran + account.ran, waited: sum.waited + account.waited };
    }
    if sum.ran > 0 {
        return Ok(sum);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(Account { ran: ticks(&stat).unwrap_or(0) * TICK_NANOS, waited: 0 })
}

/// What cores did, all together, nanoseconds in steps of a hundredth of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cores {
    /// Ran processes.
    pub(crate) busy: u64,
    /// Were kept from running by the host of this virtual machine.
    pub(crate) stolen: u64,
}

/// What the cores that process `pid` may use have done so far.
pub(crate) fn of_cores(pid: u32) -> Option<Cores> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    let set = rustix::thread::sched_getaffinity(Some(pid)).ok()?;
    Some(cores_in(&fs::read_to_string("/proc/stat").ok()?, |core| {
        core < CpuSet::MAX_CPU && set.is_set(core)
    }))
}

fn cores_in(stat: &str, wanted: impl Fn(usize) -> bool) -> Cores {
    let mut sum = Cores::default();
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let core = words.next().and_then(|word| word.strip_prefix("cpu")?.parse().ok());
        let Some(true) = core.map(&wanted) else { continue };
        // user nice system idle iowait irq softirq steal
        let times: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
        let time = |index: usize| times.get(index).copied().unwrap_or(0) * TICK_NANOS;
        sum.busy += time(0) + time(1) + time(2);
        sum.stolen += time(7);
    }
    sum
}

/// User and system time in `/proc/PID/stat`. The name before them may hold blanks.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    Some(user + fields.next()?.parse::<u64>().ok()?)
}

/// The real-time priority of this process, if it has one.
pub(crate) fn real_time_priority() -> Option<u32> {
    of_real_time(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// `rt_priority` in `/proc/PID/stat`: 0 of ordinary processes.
fn of_real_time(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    // The 40th field; the name is the second.
    let priority = rest.split_whitespace().nth(37)?.parse().ok()?;
    (priority > 0).then_some(priority)
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
    fn the_fortieth_field_is_the_real_time_priority() {
        let stat = |priority| format!("12 (a) b) S {}{priority} 1 0", "7 ".repeat(36));
        assert_eq!((of_real_time(&stat(5)), of_real_time(&stat(0))), (Some(5), None));
    }

    #[test]
    fn only_the_cores_that_are_asked_for_are_counted() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 50 60 7 8 4 0 0\ncpu1 5 5 5 5 5 5 5 5 0 0";
        let found = cores_in(stat, |core| core == 0);
        assert_eq!(found, Cores { busy: 6 * TICK_NANOS, stolen: 4 * TICK_NANOS });
        assert_eq!(cores_in(stat, |_| true).busy, 21 * TICK_NANOS);
        assert!(of_cores(std::process::id()).unwrap().busy > 0);
    }

    #[test]
    fn work_costs_time() {
        let before = of_thread();
        let mut x = 1_u64;
        while of_thread() - before < 1_000_000 {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        // A process of its own: threads of this one come and go with the other tests.
        let mut busy =
            std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let began = of_process(busy.id()).unwrap().ran;
        while of_process(busy.id()).unwrap().ran < began + 20_000_000 {
            std::thread::yield_now();
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(of_process(u32::MAX).is_err());
    }
}
