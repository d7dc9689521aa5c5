//! A device's surroundings: its stable name and its queue's settings.

use std::fs;
use std::path::PathBuf;

use crate::present::link;

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
