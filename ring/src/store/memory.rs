//! A store in this process's memory, for measuring and for throw-away disks.
//!
//! Shards race on it as hosts race on a disk: who writes the same bytes at the same time may
//! leave a mixture, as on a disk, but nothing worse (see `sys.rs`).

use std::io;

use super::sys::Shared;

#[derive(Debug)]
pub(super) struct Memory(Shared);

/// Long ranges are cleared this much at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl Memory {
    /// `bytes` of zeros; pages are taken from the system as they are first written.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Shared::new(len).map(Self)
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The range was checked by the caller, here and below.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        self.0.copy_out(index(offset), data);
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) {
        self.0.copy_in(index(offset), data);
    }

    pub(super) fn clear(&self, offset: u64, len: u64) {
        let (mut at, mut left) = (index(offset), index(len));
        while left > 0 {
            let step = left.min(ZEROS.len());
            self.0.copy_in(at, &ZEROS[..step]);
            (at, left) = (at + step, left - step);
        }
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("inside a mapping")
}
