//! Who has a block device open.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// udev and blkid open a device for moments; who still has it after this uses it.
const OPENERS_WAIT: Duration = Duration::from_millis(300);
const OPENERS_TRIES: u32 = 4;

/// Why the block device of this name in `/dev` should not be taken away; `None` if nothing
/// speaks against it. What was written through its page cache has been written by then. May take as
/// long as that; for a thread that serves no device.
pub fn objection(device: &str) -> Option<String> {
    if let Some(user) = user(device) {
        return Some(user);
    }
    let file = fs::File::open(Path::new("/dev").join(device));
    let written = file.and_then(|file| file.sync_all());
    written.err().map(|error| format!("its page cache could not be written: {error}"))
}

/// Mounts, device mapper, md, swap and every process are seen; a user in the kernel that does not
/// claim the device is not.
fn user(device: &str) -> Option<String> {
    let mut found = look(device);
    for _ in 1..OPENERS_TRIES {
        if found.is_none() {
            break;
        }
        sleep(OPENERS_WAIT);
        found = look(device);
    }
    found
}

fn look(device: &str) -> Option<String> {
    let path = Path::new("/dev").join(device);
    let exclusive = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&path);
    match exclusive {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            return Some("it is mounted, or part of a mapped device, an array or swap".to_owned());
        }
        _ => drop(exclusive),
    }
    opener(&devices(device))
}

/// The device numbers of a device and its partitions.
fn devices(device: &str) -> BTreeSet<u64> {
    let sys = Path::new("/sys/block").join(device);
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
