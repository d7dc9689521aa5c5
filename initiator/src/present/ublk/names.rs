//! A device's surroundings: its stable name, its queue's settings, and who has it open.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use crate::present::link;

/// udev and blkid open a device for moments; who still has it after this uses it.
const OPENERS_WAIT: Duration = Duration::from_millis(300);
const OPENERS_TRIES: u32 = 4;

/// The block device of that number.
pub(super) fn block_path(id: u32) -> PathBuf {
    format!("/dev/ublkb{id}").into()
}

/// Why `name` cannot be a name in a folder.
pub(super) fn name_fault(name: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:+".contains(c);
    let good = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
    (!good || name.len() > 200).then(|| format!("`{name}` cannot be a name in {}", link::FOLDER))
}

/// The least that the kernel takes for `nr_requests`.
pub(super) const REQUESTS_MIN: u16 = 4;

/// Sets the queue up for a device behind a network; what this kernel does not take stays as it is.
///
/// Targets order requests better than we could; throttling by latency would mistake a path that is
/// being replaced for a slow disk. And one tag of the queue is kept free: drivers before Linux
/// 6.16 learn that a server died by the end of a fetch, and if every tag has a request under way,
/// and so none is being fetched, only by the requests' timeout after 30 s.
pub(super) fn tune(id: u32, io_bytes: u32, tags: u16) {
    let queue = PathBuf::from(format!("/sys/block/ublkb{id}/queue"));
    let ahead = (io_bytes / 512).max(128).to_string();
    let requests = tags.saturating_sub(1).max(REQUESTS_MIN).to_string();
    let settings = [
        ("scheduler", "none"),
        // After the scheduler, which sets it as well.
        ("nr_requests", requests.as_str()),
        ("wbt_lat_usec", "0"),
        ("read_ahead_kb", ahead.as_str()),
    ];
    for (name, value) in settings {
        let now = fs::read_to_string(queue.join(name)).unwrap_or_default();
        if now.trim() == value || now.contains(&format!("[{value}]")) {
            // A write would make requests wait for those under way, also if it changed nothing.
            continue;
        }
        if let Err(error) = fs::write(queue.join(name), value) {
            tracing::debug!(id, name, value, %error, "a queue setting stays as it is");
        }
    }
}

/// Who uses the device, in words; `None` if nobody that can be seen does. Mounts, device mapper,
/// md, swap and every process are seen; a kernel user that does not claim the device is not.
pub(super) fn user(id: u32) -> Option<String> {
    let mut found = look(id);
    for _ in 1..OPENERS_TRIES {
        if found.is_none() {
            break;
        }
        sleep(OPENERS_WAIT);
        found = look(id);
    }
    found
}

fn look(id: u32) -> Option<String> {
    let path = block_path(id);
    let exclusive = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&path);
    match exclusive {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            return Some("it is mounted, or part of a mapped device, an array or swap".to_owned());
        }
        _ => drop(exclusive),
    }
    opener(&devices(id))
}

/// The device numbers of a device and its partitions.
fn devices(id: u32) -> BTreeSet<u64> {
    let sys = PathBuf::from(format!("/sys/block/ublkb{id}"));
    let parts = fs::read_dir(&sys).into_iter().flatten().flatten().map(|entry| entry.path());
    let numbers = std::iter::once(sys.clone()).chain(parts).filter_map(|folder| {
        let text = fs::read_to_string(folder.join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
    });
    numbers.collect()
}

/// A process that has one of `devices` open.
fn opener(devices: &BTreeSet<u64>) -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes.filter(|p| p.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        let open = files.filter_map(|file| fs::metadata(file.path()).ok());
        let mut ours = open.filter(|m| m.file_type().is_block_device());
        if ours.any(|m| devices.contains(&m.rdev())) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let pid = process.file_name();
            return Some(format!(
                "process {} ({}) has it open",
                pid.to_string_lossy(),
                name.trim_end()
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        assert_eq!(name_fault("vg0-data.1"), None);
        let faulty = ["", ".", "..", "a/b", "a b", ".hidden"];
        assert!(faulty.iter().all(|name| name_fault(name).is_some()));
    }
}
