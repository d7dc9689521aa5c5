//! What the system lets the process use.

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
