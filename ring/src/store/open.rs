//! Opening a store: for this process alone, and with an error that says what would be right.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::memory::Memory;
use super::{Backing, Facts, Kind, Lent, Store, busy, source};

/// Smallest unit of I/O that is served on an image file.
const BLOCK_BYTES: u64 = 512;

/// How long a device may still be held by a process that has just ended: the kernel takes rings
/// down, and with them their files, some time after that.
const HOLDER_GONE_MAX: Duration = Duration::from_secs(2);
const HOLDER_LOOK: Duration = Duration::from_millis(50);

/// What to open: a path, `mem:SIZE` or `null:SIZE`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Spec {
    /// A block device or a regular file.
    Path(PathBuf),
    /// That many bytes of memory.
    Memory(u64),
    /// That many bytes of nothing.
    Null(u64),
}

/// Text that is no [`Spec`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {why}")]
pub struct SpecError {
    text: String,
    why: &'static str,
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let fail = |why| SpecError { text: text.to_owned(), why };
        let sized = |size: &str| {
            let bytes = bytes_of(size)
                .ok_or_else(|| fail("the size is a number with K, M, G, T or none: mem:512M"))?;
            match bytes % BLOCK_BYTES {
                0 if bytes > 0 => Ok(bytes),
                _ => Err(fail("the size must be a multiple of 512 bytes, and not zero")),
            }
        };
        match text.split_once(':') {
            Some(("mem", size)) => sized(size).map(Spec::Memory),
            Some(("null", size)) => sized(size).map(Spec::Null),
            _ if text.is_empty() => Err(fail("a path, mem:SIZE or null:SIZE is wanted")),
            _ => Ok(Spec::Path(text.into())),
        }
    }
}

/// Powers of 1024: `4096`, `512M`, `2GiB`.
fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Path(path) => write!(f, "{}", path.display()),
            Spec::Memory(bytes) => write!(f, "mem:{bytes}"),
            Spec::Null(bytes) => write!(f, "null:{bytes}"),
        }
    }
}

/// How to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Never write.
    pub read_only: bool,
    /// Go through the page cache although the store could do without.
    pub buffered: bool,
    /// Make a sparse image file of this many bytes if there is nothing at the path.
    pub create_bytes: Option<u64>,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing there.
    #[error("{path}: no such file or device{hint}")]
    Absent {
        /// Where.
        path: String,
        /// What could be done.
        hint: &'static str,
    },
    /// Not allowed.
    #[error("{path}: permission denied; opening it {access} needs {needs}")]
    Permission {
        /// Where.
        path: String,
        /// Reading, or writing too.
        access: &'static str,
        /// Who may.
        needs: &'static str,
    },
    /// Neither a block device nor a regular file.
    #[error("{path} is {what}; a block device or a regular file can be served")]
    Kind {
        /// Where.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// Somebody else uses it.
    #[error("{path} is busy: {holder}")]
    Busy {
        /// Where.
        path: String,
        /// Who has it, as far as the system tells.
        holder: String,
    },
    /// A size that cannot be served.
    #[error("{path}: its size, {bytes} bytes, {why}")]
    Size {
        /// Where.
        path: String,
        /// The size.
        bytes: u64,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// Anything else the system said.
    #[error("{path}: {doing} failed: {error}")]
    Io {
        /// Where.
        path: String,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl Store {
    /// Opens `spec` for this process alone.
    pub fn open(spec: &Spec, options: Options) -> Result<Self, OpenError> {
        match spec {
            Spec::Path(path) => open_soon(path, options),
            Spec::Memory(bytes) => {
                let memory = Memory::new(*bytes)
                    .map_err(|error| io_error(&spec.to_string(), "taking memory", error))?;
                let facts = Facts::memory(Kind::Memory, *bytes, options.read_only);
                let source = source::of_host(&spec.to_string());
                Ok(Self { backing: Backing::Memory(memory), facts, source })
            }
            Spec::Null(bytes) => {
                let facts = Facts::memory(Kind::Null, *bytes, options.read_only);
                let source = source::of_host(&spec.to_string());
                Ok(Self { backing: Backing::Null { bytes: *bytes }, facts, source })
            }
        }
    }
}

/// Opens a path, and asks again for a moment if it is busy.
fn open_soon(path: &Path, options: Options) -> Result<Store, OpenError> {
    let deadline = Instant::now() + HOLDER_GONE_MAX;
    loop {
        match open_path(path, options) {
            Err(OpenError::Busy { .. }) if Instant::now() < deadline => {
                std::thread::sleep(HOLDER_LOOK);
            }
            result => return result,
        }
    }
}

fn open_path(path: &Path, options: Options) -> Result<Store, OpenError> {
    let name = path.display().to_string();
    create_if_absent(path, &name, options)?;
    // Looked at before it is opened: opening a tape or a console does things to it.
    let looked = rustix::fs::stat(path).map_err(|e| refused(&name, options, e))?;
    let block = match FileType::from_raw_mode(looked.st_mode) {
        FileType::BlockDevice => true,
        FileType::RegularFile => false,
        FileType::Directory => return Err(kind(name, "a directory")),
        FileType::CharacterDevice => return Err(kind(name, "a character device")),
        FileType::Fifo => return Err(kind(name, "a pipe")),
        FileType::Socket => return Err(kind(name, "a socket")),
        _ => return Err(kind(name, "something else")),
    };
    let (fd, because) = open_descriptor(path, &name, block, looked.st_rdev, options)?;
    let opened = rustix::fs::fstat(&fd).map_err(|e| io_error(&name, "looking at it", e.into()))?;
    if (opened.st_dev, opened.st_ino) != (looked.st_dev, looked.st_ino) {
        let error = io::Error::other("another file took its place meanwhile");
        return Err(io_error(&name, "opening", error));
    }
    if !block {
        lock_image(&fd, &name)?;
    }
    let size = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))
        .map_err(|e| io_error(&name, "asking its size", e.into()))?;
    let mut facts = if block {
        Facts::block(opened.st_rdev, size, options.read_only)
    } else {
        Facts::image(fd.as_fd(), size, options.read_only)
    };
    facts.buffered_because = because;
    // A device's page cache is not a device's write-through cache.
    facts.volatile_cache |= facts.buffered_because.is_some() && !facts.in_memory;
    check_size(&name, &facts)?;
    let source = if block {
        source::of_device(opened.st_rdev)
    } else {
        source::of_image(fd.as_fd(), path, options.read_only)
    };
    let lent = Lent::of(&fd, &facts);
    Ok(Store { backing: Backing::File { fd, path: path.to_owned(), lent }, facts, source })
}

fn create_if_absent(path: &Path, name: &str, options: Options) -> Result<(), OpenError> {
    let Some(bytes) = options.create_bytes else { return Ok(()) };
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => {
            let sized = rustix::fs::ftruncate(&fd, bytes).and_then(|()| rustix::fs::fsync(&fd));
            sized.map_err(|e| io_error(name, "making the image file", e.into()))
        }
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(io_error(name, "making the image file", e.into())),
    }
}

/// Opens it; the reason why it goes through the page cache, if it does.
fn open_descriptor(
    path: &Path,
    name: &str,
    block: bool,
    dev: u64,
    options: Options,
) -> Result<(OwnedFd, Option<String>), OpenError> {
    let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY;
    flags |= if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    if block {
        flags |= OFlags::EXCL;
    }
    let open = |flags| match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::BUSY) if block => {
            Err(OpenError::Busy { path: name.to_owned(), holder: busy::holder(dev) })
        }
        Err(Errno::INVAL) if flags.contains(OFlags::DIRECT) => Ok(None),
        Err(e) => Err(refused(name, options, e)),
        Ok(fd) => Ok(Some(fd)),
    };
    let mut because = options.buffered.then(|| "it was asked for".to_owned());
    if because.is_none() {
        match open(flags | OFlags::DIRECT)? {
            None => because = Some("the filesystem has no direct I/O".to_owned()),
            Some(fd) => match direct_unfit(&fd, block) {
                None => {
                    forget_cached(&fd);
                    return Ok((fd, None));
                }
                Some(reason) => because = Some(reason),
            },
        }
    }
    let fd = open(flags)?.ok_or_else(|| refused(name, options, Errno::INVAL))?;
    Ok((fd, because))
}

/// A direct write to where the page cache has something cannot be done by the ring itself: the
/// kernel hands it to a thread of its own, which must first take that out of the cache. An image
/// that was copied here a moment ago is cached whole.
fn forget_cached(fd: &OwnedFd) {
    // What is not written yet stays, and is written; a filesystem without the call keeps it all.
    let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed);
}

/// Why direct I/O on this file would fail at 512-byte blocks.
fn direct_unfit(fd: &OwnedFd, block: bool) -> Option<String> {
    let wanted = StatxFlags::DIOALIGN;
    let told = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, wanted).ok()?;
    if block || told.stx_mask & wanted.bits() == 0 {
        return None;
    }
    match u64::from(told.stx_dio_offset_align) {
        0 => Some("the filesystem has no direct I/O on this file".to_owned()),
        align if align > BLOCK_BYTES => {
            Some(format!("direct I/O on this filesystem needs blocks of {align} bytes"))
        }
        _ => None,
    }
}

/// So that two daemons cannot serve one file by accident.
fn lock_image(fd: &OwnedFd, name: &str) -> Result<(), OpenError> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(OpenError::Busy {
            path: name.to_owned(),
            holder: busy::locker(fd.as_fd())
                .unwrap_or_else(|| "another process has locked it (flock)".to_owned()),
        }),
        // A network filesystem without locks: served as before there were locks.
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOLCK) => {
            tracing::warn!(path = name, "the filesystem has no locks; nothing guards the file");
            Ok(())
        }
        Err(e) => Err(io_error(name, "locking", e.into())),
    }
}

fn check_size(name: &str, facts: &Facts) -> Result<(), OpenError> {
    let (bytes, block) = (facts.size_bytes, u64::from(facts.logical_bytes));
    let why = match bytes {
        0 if facts.kind == Kind::BlockDevice => "means that it has no medium".to_owned(),
        0 => "is nothing to serve; make it larger (truncate -s 10G)".to_owned(),
        _ if !bytes.is_multiple_of(block) => format!(
            "is not a multiple of its {block}-byte block; {} would be right",
            bytes - bytes % block + block
        ),
        _ => return Ok(()),
    };
    Err(OpenError::Size { path: name.to_owned(), bytes, why })
}

fn refused(name: &str, options: Options, error: Errno) -> OpenError {
    let path = name.to_owned();
    match error {
        Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::NOTDIR => {
            OpenError::Absent { path, hint: "; check the path, or create an image file there" }
        }
        Errno::ACCESS | Errno::PERM => OpenError::Permission {
            path,
            access: if options.read_only { "for reading" } else { "for reading and writing" },
            needs: "root, or membership in the group that owns it (`disk` for devices)",
        },
        Errno::ROFS => OpenError::Permission {
            path,
            access: "for writing",
            needs: "a store that is not read-only; or export it read-only",
        },
        error => io_error(&path, "opening", error.into()),
    }
}

fn kind(path: String, what: &'static str) -> OpenError {
    OpenError::Kind { path, what }
}

fn io_error(path: &str, doing: &'static str, error: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), doing, error }
}
