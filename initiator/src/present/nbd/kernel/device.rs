//! What sysfs tells of `/dev/nbdN`, and the one setting that netlink has no word for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its name in `/dev` and `/sys/block`.
pub fn name(index: u32) -> String {
    format!("nbd{index}")
}

/// The device's file.
pub fn path(index: u32) -> PathBuf {
    format!("/dev/nbd{index}").into()
}

fn sysfs(index: u32) -> PathBuf {
    format!("/sys/block/nbd{index}").into()
}

/// The device that was connected with this backend identifier and still is. That is how a daemon
/// finds after a restart what it served before. Kernels tell since 5.14.
pub fn find(backend: &str) -> io::Result<Option<u32>> {
    find_in(Path::new("/sys/block"), backend)
}

fn find_in(folder: &Path, backend: &str) -> io::Result<Option<u32>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("nbd"));
        let Some(index) = number.and_then(|number| number.parse().ok()) else { continue };
        // No file: not connected, or without an identifier.
        let Ok(found) = fs::read_to_string(entry.path().join("backend")) else { continue };
        if found.trim_end_matches('\n') == backend {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Its size in bytes, as the kernel sees it; 0 if it is not connected.
pub fn size_bytes(index: u32) -> io::Result<u64> {
    let sectors = fs::read_to_string(sysfs(index).join("size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(sectors.saturating_mul(512))
}

/// How often the kernel looks at requests that are under way: `queue/io_timeout`. Requests that
/// began before keep what they began with, and newer kernels wait for all of them here: only for a
/// device whose requests are answered.
pub(super) fn set_tick(index: u32, tick: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(tick.as_millis().max(1)).unwrap_or(u32::MAX);
    fs::write(sysfs(index).join("queue/io_timeout"), milliseconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_backend_and_not_by_another_file() {
        let folder = tempfile::tempdir().unwrap();
        for (name, backend) in
            [("nbd0", "corbel:a\n"), ("nbd12", "corbel:b\n"), ("nbdx", "corbel:c\n")]
        {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("backend"), backend).unwrap();
        }
        fs::create_dir(folder.path().join("nbd1")).unwrap();
        assert_eq!(find_in(folder.path(), "corbel:b").unwrap(), Some(12));
        assert_eq!(find_in(folder.path(), "corbel:c").unwrap(), None);
        assert_eq!(find_in(folder.path(), "").unwrap(), None);
    }
}
