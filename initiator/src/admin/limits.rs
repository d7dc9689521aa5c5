//! What the system lets the process use.

use rustix::mm::{MlockAllFlags, mlockall};

/// Keeps the process in memory, stacks and heap to come included. A page that had to be fetched
/// from a disk behind one of our own devices would be waited for, for ever.
pub fn stay_in_memory() {
    if let Err(error) = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        let right = "raise the limit of locked memory (LimitMEMLOCK=), or say lock_memory = false";
        tracing::warn!(%error, "the process is not kept in memory; {right}");
    }
    // Before any other thread is made: it is inherited.
    if let Err(error) = super::sys::set_io_flusher() {
        let cost = "a machine short of memory may wait for itself";
        tracing::warn!(%error, "the kernel is not told that we serve storage: {cost}");
    }
}
