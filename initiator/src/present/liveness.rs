//! What a process that block devices live in owes the system: to go on when memory is short.

use std::fs;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::configure_io_flusher_behavior;

/// Makes this process fit to serve block devices. Call it in `main`, before any thread is made:
/// threads inherit the first of the three.
///
/// - Its allocations never wait for I/O, which might be its own (PR_SET_IO_FLUSHER).
/// - Its memory stays resident, what it maps later included (mlockall).
/// - The OOM killer takes everybody else first.
///
/// Each that is refused is a warning in the result, in words for an administrator; all of them are
/// matters of privilege.
pub fn prepare() -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(error) = configure_io_flusher_behavior(true) {
        warnings.push(format!(
            "memory for this process may wait for its own writes (PR_SET_IO_FLUSHER: {error}; \
             CAP_SYS_RESOURCE is needed)"
        ));
    }
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        warnings.push(format!(
            "this process may be paged out (mlockall: {error}; CAP_IPC_LOCK or a higher \
             RLIMIT_MEMLOCK is needed)"
        ));
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        warnings.push(format!(
            "this process may be killed when memory is short (oom_score_adj: {error}; \
             CAP_SYS_RESOURCE is needed)"
        ));
    }
    warnings
}
