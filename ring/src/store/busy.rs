//! Who holds a busy store: what the operator would otherwise have to find out.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::facts::Node;

/// Who uses the block device `dev`, in words.
pub(super) fn holder(dev: u64) -> String {
    let node = Node::of(dev);
    let mut found = Vec::new();
    for part in with_partitions(&node) {
        found.extend(stacked_on(&part));
        found.extend(in_mounts(&part));
        found.extend(in_swaps(&part));
    }
    if found.is_empty() {
        return "some process has it open exclusively (another daemon, a running `fsck` or \
                `mkfs`?); `lsof` or `fuser -v` may name it"
            .to_owned();
    }
    found.sort();
    found.dedup();
    found.join("; ")
}

/// The process that holds a lock on the file, from /proc/locks.
pub(super) fn locker(fd: BorrowedFd<'_>) -> Option<String> {
    let stat = rustix::fs::fstat(fd).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let file = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|l| l.split_whitespace().any(|word| word == file))?;
    // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"
    let pid = line.split_whitespace().nth(4)?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} ({}) has locked it", command.trim()))
}

fn with_partitions(node: &Node) -> Vec<Node> {
    let mut all = vec![node.clone()];
    let entries = fs::read_dir(node.path()).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.path().join("partition").exists()) {
        if let Some(dev) = device_number(&entry.path()) {
            all.push(Node::of(dev));
        }
    }
    all
}

fn device_number(sysfs: &Path) -> Option<u64> {
    let text = fs::read_to_string(sysfs.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// md arrays, device-mapper targets, bcache … on top of it.
fn stacked_on(node: &Node) -> Vec<String> {
    let holders = fs::read_dir(node.path().join("holders")).into_iter().flatten().flatten();
    let describe = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let dm = fs::read_to_string(entry.path().join("dm/name")).ok();
        match dm {
            Some(dm) => format!("{} is part of /dev/mapper/{}", node.name(), dm.trim()),
            None if name.starts_with("md") => {
                format!("{} is a member of the array /dev/{name}", node.name())
            }
            None => format!("{} is used by /dev/{name}", node.name()),
        }
    };
    holders.map(describe).collect()
}

fn in_mounts(node: &Node) -> Vec<String> {
    let Some(number) = node.read("dev") else { return Vec::new() };
    // mountinfo names devices by number, so links and renames do not matter.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(2);
        (words.next()? == number).then(|| words.nth(1)).flatten()
    });
    mounts.map(|at| format!("{} is mounted on {at}", node.name())).collect()
}

fn in_swaps(node: &Node) -> Vec<String> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let used = swaps.lines().skip(1).filter_map(|l| l.split_whitespace().next());
    let is_this = |path: &&str| fs::canonicalize(path).is_ok_and(|p| p.ends_with(node.name()));
    used.filter(is_this).map(|_| format!("{} is swap space", node.name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_disk_is_named_as_mounted() {
        let root = rustix::fs::stat("/").unwrap();
        let text = holder(root.st_dev);
        assert!(text.contains("is mounted on /"), "{text}");
    }
}
