//! What names a store for ever, so that its identity survives restarts and moves.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::XattrFlags;

use super::facts::Node;

/// Where an image file keeps its own UUID.
const XATTR: &str = "user.corbel.id";

/// Something that exists on this host only: its machine-id and a name.
pub(super) fn of_host(name: &str) -> String {
    let id = fs::read_to_string("/etc/machine-id")
        .or_else(|_| fs::read_to_string("/proc/sys/kernel/hostname"));
    format!("host:{}:{name}", id.unwrap_or_default().trim())
}

/// A block device: the most durable name it has.
pub(super) fn of_device(dev: u64) -> String {
    let node = Node::of(dev);
    let disk = node.disk();
    let whole = of_disk(&disk);
    match (node.is_partition(), partition_uuid(&node)) {
        (false, _) => whole.unwrap_or_else(|| of_host(&node.name())),
        (true, Some(uuid)) => format!("partuuid:{uuid}"),
        (true, None) => {
            let number = node.read("partition").unwrap_or_default();
            let whole = whole.unwrap_or_else(|| of_host(&disk.name()));
            format!("{whole}:part:{number}")
        }
    }
}

fn of_disk(disk: &Node) -> Option<String> {
    let try_all = [
        ("dm", "dm/uuid"),
        ("md", "md/uuid"),
        ("wwid", "wwid"),
        ("wwid", "device/wwid"),
        ("nguid", "nguid"),
        ("serial", "device/serial"),
        ("serial", "serial"),
    ];
    let found = try_all.iter().find_map(|(kind, at)| Some((kind, disk.read(at)?)));
    if let Some((kind, value)) = found {
        return Some(format!("{kind}:{value}"));
    }
    let udev = udev_property(disk, &["MD_UUID", "ID_SERIAL", "ID_WWN"]);
    udev.map(|value| format!("udev:{value}"))
}

fn partition_uuid(node: &Node) -> Option<String> {
    let uevent = node.read("uevent")?;
    let line = uevent.lines().find_map(|l| l.strip_prefix("PARTUUID="));
    line.map(str::to_owned).or_else(|| udev_property(node, &["ID_PART_ENTRY_UUID"]))
}

/// What udev stored about the device, where the kernel itself does not tell.
fn udev_property(node: &Node, keys: &[&str]) -> Option<String> {
    let dev = node.read("dev")?;
    let text = fs::read_to_string(format!("/run/udev/data/b{dev}")).ok()?;
    let value = |key: &&str| {
        let prefix = format!("E:{key}=");
        text.lines().find_map(|l| l.strip_prefix(&prefix)).map(str::to_owned)
    };
    keys.iter().find_map(value)
}

/// An image file: its own UUID, made now if it has none; else where it lies on this host.
pub(super) fn of_image(fd: BorrowedFd<'_>, path: &Path, read_only: bool) -> String {
    let mut id = [0u8; 64];
    let told = rustix::fs::fgetxattr(fd, XATTR, &mut id).ok();
    if let Some(text) = told.and_then(|len| std::str::from_utf8(&id[..len]).ok()) {
        return format!("image:{text}");
    }
    let made = fs::read_to_string("/proc/sys/kernel/random/uuid").ok();
    if let Some(uuid) = made.filter(|_| !read_only) {
        let uuid = uuid.trim();
        // CREATE: never replaces one that another head wrote meanwhile.
        let set = rustix::fs::fsetxattr(fd, XATTR, uuid.as_bytes(), XattrFlags::CREATE);
        if set.is_ok() && rustix::fs::fsync(fd).is_ok() {
            return format!("image:{uuid}");
        }
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    tracing::info!(path = %path.display(), "no extended attributes: identity is host and path");
    of_host(&path.to_string_lossy())
}
