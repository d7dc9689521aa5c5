//! What a backing store is and promises.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// tmpfs and ramfs, by the numbers that statfs(2) gives them.
const MEMORY_FILESYSTEMS: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6];

/// Kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A disk, partition, md array, logical volume …
    BlockDevice,
    /// A regular file.
    ImageFile,
    /// Memory of this process.
    Memory,
    /// Discards writes, reads zeros.
    Null,
}

/// What a store told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Size in bytes, when it was opened.
    pub size_bytes: u64,
    /// Smallest unit of I/O: offsets and lengths are multiples of it.
    pub logical_bytes: u32,
    /// Unit that the medium writes without reading first.
    pub physical_bytes: u32,
    /// Smallest efficient transfer (md chunk); 0 if not told.
    pub io_min_bytes: u32,
    /// Best transfer length (md stripe); 0 if not told.
    pub io_opt_bytes: u32,
    /// The medium spins.
    pub rotational: bool,
    /// Longest single deallocation; 0 if there is none.
    pub discard_max_bytes: u64,
    /// Unit of deallocation; 0 if there is none.
    pub discard_granularity_bytes: u32,
    /// Deallocated bytes read as zeros.
    pub discard_zeroes: bool,
    /// Longest single zeroing that the device does itself; 0 if it cannot.
    pub write_zeroes_max_bytes: u64,
    /// Acknowledged writes can be lost by a power failure until they are synced.
    pub volatile_cache: bool,
    /// Nothing but memory, also as a file (tmpfs): no operation waits for a device.
    pub in_memory: bool,
    /// Persistent memory, mapped by its filesystem or driver.
    pub dax: bool,
    /// It refuses writes, or was opened so.
    pub read_only: bool,
    /// Why I/O goes through the page cache; `None`: it does not.
    pub buffered_because: Option<String>,
}

impl Facts {
    /// Facts of something without a medium.
    pub(super) fn memory(kind: Kind, size_bytes: u64, read_only: bool) -> Self {
        Self {
            kind,
            size_bytes,
            logical_bytes: 512,
            physical_bytes: 512,
            io_min_bytes: 0,
            io_opt_bytes: 0,
            rotational: false,
            discard_max_bytes: 1 << 30,
            discard_granularity_bytes: 4096,
            discard_zeroes: true,
            write_zeroes_max_bytes: 1 << 30,
            // Lost with the process, synced or not: syncing cannot help.
            volatile_cache: false,
            in_memory: true,
            dax: false,
            read_only,
            buffered_because: None,
        }
    }

    /// Facts of a regular file. Its writes reach the disk's cache at best, and its metadata
    /// only the page cache, so it counts as volatile until synced. One in memory stays there.
    pub(super) fn image(fd: BorrowedFd<'_>, size_bytes: u64, read_only: bool) -> Self {
        let hole = rustix::fs::fstat(fd).map_or(4096, |s| s.st_blksize);
        let hole = u32::try_from(hole).unwrap_or(4096).clamp(512, 1 << 20);
        let kind = rustix::fs::fstatfs(fd).map_or(0, |s| s.f_type);
        let in_memory = MEMORY_FILESYSTEMS.contains(&kind);
        Self {
            physical_bytes: 4096,
            discard_granularity_bytes: hole,
            volatile_cache: !in_memory,
            in_memory,
            ..Self::memory(Kind::ImageFile, size_bytes, read_only)
        }
    }

    /// Facts of the block device `dev`, from sysfs.
    pub(super) fn block(dev: u64, size_bytes: u64, read_only: bool) -> Self {
        let node = Node::of(dev);
        let queue = |name: &str| node.queue(name);
        let number = |name: &str| queue(name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let small = |name: &str| u32::try_from(number(name)).unwrap_or(0);
        let logical = small("logical_block_size").max(512);
        let write_zeroes_max = number("write_zeroes_max_bytes");
        // We deallocate by FALLOC_FL_PUNCH_HOLE. The kernel makes that a zeroing that may unmap,
        // never a bare discard: so it takes both abilities, and what it leaves reads as zeros.
        let discard_max = number("discard_max_bytes").min(write_zeroes_max);
        Self {
            kind: Kind::BlockDevice,
            size_bytes,
            logical_bytes: logical,
            physical_bytes: small("physical_block_size").max(logical),
            io_min_bytes: small("minimum_io_size"),
            io_opt_bytes: small("optimal_io_size"),
            rotational: number("rotational") == 1,
            discard_max_bytes: discard_max,
            discard_granularity_bytes: match discard_max {
                0 => 0,
                _ => small("discard_granularity").max(logical),
            },
            discard_zeroes: discard_max > 0,
            write_zeroes_max_bytes: write_zeroes_max,
            // A device that does not say is trusted with nothing.
            in_memory: false,
            volatile_cache: queue("write_cache").is_none_or(|v| v != "write through"),
            dax: number("dax") == 1,
            read_only: read_only || node.read("ro").is_some_and(|v| v == "1"),
            buffered_because: None,
        }
    }
}

/// A block device in sysfs.
#[derive(Debug, Clone)]
pub(super) struct Node(PathBuf);

impl Node {
    pub(super) fn of(dev: u64) -> Self {
        let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
        let link = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        Self(fs::canonicalize(&link).unwrap_or(link))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The kernel's name: `sda1`, `dm-3`.
    pub(super) fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn is_partition(&self) -> bool {
        self.0.join("partition").exists()
    }

    /// The whole disk, for a partition.
    pub(super) fn disk(&self) -> Self {
        match self.0.parent() {
            Some(parent) if self.is_partition() => Self(parent.to_owned()),
            _ => self.clone(),
        }
    }

    /// An attribute, trimmed; `None` if absent or empty.
    pub(super) fn read(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(name)).ok()?;
        Some(text.trim().to_owned()).filter(|t| !t.is_empty())
    }

    /// An attribute of the queue, which a partition shares with its disk.
    fn queue(&self, name: &str) -> Option<String> {
        self.disk().read(&format!("queue/{name}"))
    }
}
