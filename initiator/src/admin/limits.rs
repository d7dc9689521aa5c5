//! What the system lets the process use.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limits of open files and of locked memory as far as this process may. Payload
/// memory is locked by the kernel when it is registered; every connection is a file.
pub fn raise_limits() {
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: files.maximum, ..files };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays");
    }
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_ok() {
        return;
    }
    let locked = getrlimit(Resource::Memlock);
    let raised = Rlimit { current: locked.maximum, ..locked };
    if let Err(error) = setrlimit(Resource::Memlock, raised) {
        tracing::debug!(%error, "the limit of locked memory stays");
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        raise_limits();
        let files = getrlimit(Resource::Nofile);
        assert_eq!(files.current, files.maximum);
    }
}
