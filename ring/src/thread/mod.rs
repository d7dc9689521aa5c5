//! How the scheduler treats the thread of a shard.

mod sys;

use std::io;
use std::time::Duration;

/// Asks the scheduler for turns of this length on behalf of the calling thread, and of the kernel
/// threads that its ring will start. A thread with shorter turns than the one that runs is let in
/// sooner when it wakes; its share of the core stays the same. Needs no right. Kernels before 6.12
/// take the request and do nothing; threads with a real-time policy are left alone.
///
/// # Errors
/// If the kernel or a seccomp filter does not know the call.
pub fn ask_for_short_turns(turn: Duration) -> io::Result<()> {
    sys::set_slice(turn)
}

/// How often the calling thread was made to give its core to another, although it wanted to run.
pub(crate) fn interruptions() -> i64 {
    sys::involuntary_switches()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_turn_is_kept_where_the_kernel_knows_it() {
        let ours = std::thread::spawn(|| {
            let before = sys::attributes().unwrap();
            ask_for_short_turns(Duration::from_micros(200)).unwrap();
            (before, sys::attributes().unwrap())
        });
        let (before, after) = ours.join().unwrap();
        assert_eq!(
            (before.sched_policy, before.sched_nice),
            (after.sched_policy, after.sched_nice)
        );
        // Kernels before 6.12 tell nothing there.
        assert!([0, 200_000].contains(&after.sched_runtime), "{}", after.sched_runtime);
    }
}
