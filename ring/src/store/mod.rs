//! Backing stores: block devices, image files, and two kinds made of nothing but memory.
//!
//! [`Store::open`] takes the store for this process alone, finds out what it promises
//! ([`Facts`]) and what names it for ever ([`Store::source`]). I/O on it goes through a
//! [`Reactor`](crate::Reactor); one store may be attached to many.

mod busy;
mod facts;
mod inline;
mod loans;
mod memory;
mod open;
mod source;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::Mapping;
pub use facts::{Facts, Kind};
pub(crate) use loans::{Loans, Returned};
use memory::Memory;
pub use open::{OpenError, Options, Spec, SpecError};

/// An open backing store. Shared by all shards that serve it.
#[derive(Debug)]
pub struct Store {
    backing: Backing,
    facts: Facts,
    source: String,
}

#[derive(Debug)]
enum Backing {
    File { fd: OwnedFd, path: PathBuf, lent: Option<Lent> },
    Memory(Memory),
    Null { bytes: u64 },
}

/// A file in memory as the kernel can read it.
#[derive(Debug)]
struct Lent {
    mapping: Arc<Mapping>,
    /// Nothing of the file is missing. Reading a hole through a mapping would fill it.
    whole: AtomicBool,
}

impl Lent {
    /// `None` if it is not in memory, or not whole, or cannot be mapped.
    fn of(fd: &OwnedFd, facts: &Facts) -> Option<Self> {
        let held = rustix::fs::fstat(fd).ok().and_then(|s| u64::try_from(s.st_blocks).ok())?;
        let len = usize::try_from(facts.size_bytes).ok()?;
        let whole = facts.in_memory && held.saturating_mul(512) >= facts.size_bytes;
        let mapping = whole.then(|| Mapping::file(fd.as_fd(), len).ok())??;
        Some(Self { mapping: Arc::new(mapping), whole: AtomicBool::new(true) })
    }
}

/// Room of an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What it takes on its file system.
    pub used_bytes: u64,
    /// What its file system has left for us; for others, too.
    pub free_bytes: u64,
}

impl Drop for Store {
    /// The lock is given back now, not when the last ring that knew the file is torn down: the
    /// kernel does that some time after the process has ended, and the next one wants the lock.
    fn drop(&mut self) {
        if let Backing::File { fd, .. } = &self.backing {
            let _ = rustix::fs::flock(fd, rustix::fs::FlockOperation::Unlock);
        }
    }
}

impl Store {
    /// What it is and promises, as of when it was opened.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What names this store for ever, to derive identities from: the same on every host that
    /// can reach it, except where the text says `host:`.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its size now, in bytes; differs from the one in [`Facts`] after it was resized.
    pub fn current_size(&self) -> io::Result<u64> {
        match &self.backing {
            Backing::File { fd, .. } => Ok(rustix::fs::seek(fd, rustix::fs::SeekFrom::End(0))?),
            Backing::Memory(memory) => Ok(memory.len()),
            Backing::Null { bytes } => Ok(*bytes),
        }
    }

    /// How much room it takes, and how much its file system has left. Only image files can tell.
    ///
    /// # Errors
    /// If the file system could not be asked.
    pub fn usage(&self) -> io::Result<Option<Usage>> {
        let (Backing::File { fd, .. }, Kind::ImageFile) = (&self.backing, self.facts.kind) else {
            return Ok(None);
        };
        let (file, system) = (rustix::fs::fstat(fd)?, rustix::fs::fstatvfs(fd)?);
        // st_blocks counts 512 bytes, whatever the file system's block is.
        let used_bytes = u64::try_from(file.st_blocks).unwrap_or(0).saturating_mul(512);
        let free_bytes = system.f_bavail.saturating_mul(system.f_frsize);
        Ok(Some(Usage { used_bytes, free_bytes }))
    }

    /// Whether there is anything stored at `offset`, and how many bytes from there on are alike.
    /// Only image files and memory can tell; what cannot tell has stored everything. May wait for
    /// the disk.
    ///
    /// # Errors
    /// If the file could not be asked.
    pub fn extent(&self, offset: u64) -> io::Result<(u64, bool)> {
        use rustix::fs::{SeekFrom, seek};
        use rustix::io::Errno;
        let size = self.current_size()?;
        let rest = size.checked_sub(offset).filter(|rest| *rest > 0);
        let rest = rest.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Backing::Memory(memory) = &self.backing {
            return Ok(memory.extent(offset));
        }
        let (Backing::File { fd, .. }, Kind::ImageFile) = (&self.backing, self.facts.kind) else {
            return Ok((rest, true));
        };
        match seek(fd, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Ok(((data - offset).min(rest), false)),
            Ok(_) => match seek(fd, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => Ok(((hole - offset).min(rest), true)),
                // It changed meanwhile.
                Ok(_) | Err(Errno::NXIO) => Ok((1, true)),
                Err(error) => Err(error.into()),
            },
            Err(Errno::NXIO) => Ok((rest, false)), // nothing but a hole up to the end
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((rest, true)),
            Err(error) => Err(error.into()),
        }
    }

    /// Where it was opened; `None` for stores that are not files.
    pub fn path(&self) -> Option<&std::path::Path> {
        match &self.backing {
            Backing::File { path, .. } => Some(path),
            Backing::Memory(_) | Backing::Null { .. } => None,
        }
    }

    /// The descriptor, where there is one.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::File { fd, .. } => Some(fd.as_fd()),
            Backing::Memory(_) | Backing::Null { .. } => None,
        }
    }

    /// Its memory, if what is read may be sent from where it is.
    pub(crate) fn lendable(&self) -> Option<Arc<Mapping>> {
        match &self.backing {
            Backing::File { lent, .. } => Some(lent.as_ref()?.mapping.clone()),
            Backing::Memory(memory) => Some(memory.mapping()),
            Backing::Null { .. } => None,
        }
    }

    /// True if it is in memory and may lend that: see [`Reactor::lend`](crate::Reactor::lend).
    /// False once there are holes in it, or it was cut short.
    pub fn lends(&self) -> bool {
        match &self.backing {
            Backing::File { lent, .. } => {
                lent.as_ref().is_some_and(|lent| lent.whole.load(Ordering::Relaxed))
            }
            Backing::Memory(_) => true,
            Backing::Null { .. } => false,
        }
    }

    pub(crate) fn lend_no_more(&self) {
        if let Backing::File { lent: Some(lent), .. } = &self.backing {
            lent.whole.store(false, Ordering::Relaxed);
        }
    }

    /// True if operations on it end within the call that starts them: memory, or a file in
    /// memory, for which the kernel would wake a thread of its own each time.
    pub(crate) fn is_prompt(&self) -> bool {
        self.facts.in_memory
    }

    fn check(&self, offset: u64, len: u64, read_only: bool) -> Result<(), i32> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.facts.size_bytes);
        match (inside, read_only) {
            (false, _) => Err(libc::EINVAL),
            (true, true) => Err(libc::EROFS),
            (true, false) => Ok(()),
        }
    }

    /// Fills `data` from a store in memory, as far as it goes: bytes, or an errno.
    pub(crate) fn read_memory(&self, offset: u64, data: &mut [u8]) -> Result<u32, i32> {
        if let Backing::File { fd, .. } = &self.backing {
            return inline::whole(data.len(), |done| {
                rustix::io::pread(fd, &mut data[done..], offset + done as u64)
            });
        }
        self.check(offset, data.len() as u64, false)?;
        match &self.backing {
            Backing::Memory(memory) => memory.read(offset, data),
            _ => data.fill(0),
        }
        Ok(inline::count(data.len()))
    }

    /// Puts `data` into a store in memory: bytes, or an errno.
    pub(crate) fn write_memory(&self, offset: u64, data: &[u8]) -> Result<u32, i32> {
        if let Backing::File { fd, .. } = &self.backing {
            let written = inline::whole(data.len(), |done| {
                rustix::io::pwrite(fd, &data[done..], offset + done as u64)
            })?;
            // As with a file on a disk: a write that takes nothing never will.
            return if written as usize == data.len() { Ok(written) } else { Err(libc::ENOSPC) };
        }
        self.check(offset, data.len() as u64, self.facts.read_only)?;
        if let Backing::Memory(memory) = &self.backing {
            memory.write(offset, data);
        }
        Ok(inline::count(data.len()))
    }

    /// Gives up a range of a store in memory (`mode` as in fallocate(2)); the error is an errno.
    pub(crate) fn clear_memory(&self, mode: i32, offset: u64, len: u64) -> Result<(), i32> {
        if let Backing::File { fd, .. } = &self.backing {
            self.lend_no_more();
            let mode = rustix::fs::FallocateFlags::from_bits_retain(mode.cast_unsigned());
            let done = rustix::io::retry_on_intr(|| rustix::fs::fallocate(fd, mode, offset, len));
            return done.map_err(rustix::io::Errno::raw_os_error);
        }
        self.check(offset, len, self.facts.read_only)?;
        if let Backing::Memory(memory) = &self.backing {
            memory.clear(offset, len, mode & libc::FALLOC_FL_PUNCH_HOLE != 0);
        }
        Ok(())
    }
}
