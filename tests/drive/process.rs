//! The target's process, seen from outside.

use std::fs;
use std::io;

/// Resident memory of a process in KiB, from `/proc/PID/status`.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    field_kib(&status, "VmRSS")
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no VmRSS: the process has ended"))
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A figure at a share of a sorted list: 0.5 is the median.
///
/// # Panics
/// If the list is empty.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub fn at_share(sorted: &[u64], share: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_its_line() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmRSS:\t   512 kB\n";
        assert_eq!(field_kib(status, "VmRSS"), Some(512));
        assert_eq!(field_kib(status, "VmSwap"), None);
    }

    #[test]
    fn median_and_ends() {
        let list: Vec<u64> = (0..=100).collect();
        assert_eq!(
            (at_share(&list, 0.0), at_share(&list, 0.5), at_share(&list, 1.0)),
            (0, 50, 100)
        );
    }
}
