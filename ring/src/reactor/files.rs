//! The files a reactor holds, and their places in the kernel's registered table.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::File;
use super::sys::{Ring, Target};
use crate::memory::Buf;
use crate::store::{Loans, Returned, Store};

/// What a handle stands for.
#[derive(Debug)]
pub(super) enum Held {
    Descriptor(OwnedFd),
    Store(Arc<Store>),
}

#[derive(Debug)]
struct Place {
    held: Held,
    generation: u32,
    fixed: bool,
    zero_copy: bool,
    /// Made when it is first asked for.
    loans: Option<Loans>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Files {
    places: Slab<Place>,
    generation: u32,
    /// Places in the kernel's table.
    fixed_max: Option<u32>,
    /// Whether files that operations wait on for ever may stand in it: see
    /// [`Features::prompt_release`](crate::probe::Features::prompt_release).
    register_waiting: bool,
    ring: Rc<Ring>,
}

/// Why there is nothing for the kernel to work on.
pub(super) enum NoTarget {
    Stale,
    Memory(Arc<Store>),
}

/// The kernel allows no larger table than descriptors.
pub(super) fn table_size(wanted: u32) -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|l| u32::try_from(l).ok()).unwrap_or(u32::MAX).min(wanted).max(1)
}

impl Held {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Held::Descriptor(fd) => Some(fd.as_fd()),
            Held::Store(store) => store.descriptor(),
        }
    }
}

impl Files {
    pub(super) fn new(ring: Rc<Ring>, fixed_max: Option<u32>, register_waiting: bool) -> Self {
        Self { places: Slab::new(), generation: 0, fixed_max, register_waiting, ring }
    }

    pub(super) fn insert(&mut self, held: Held) -> File {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let entry = self.places.vacant_entry();
        let key = u32::try_from(entry.key()).expect("files are few");
        let fixed = self.fixed_max.is_some_and(|max| key < max)
            && (self.register_waiting || matches!(held, Held::Store(_)))
            && held.descriptor().is_some_and(|fd| {
                let fds = [fd.as_raw_fd()];
                self.ring.uring().submitter().register_files_update(key, &fds).is_ok()
            });
        entry.insert(Place { held, generation, fixed, zero_copy: true, loans: None });
        File { key, generation }
    }

    fn place(&self, file: File) -> Option<&Place> {
        self.places.get(file.key as usize).filter(|p| p.generation == file.generation)
    }

    pub(super) fn get(&self, file: File) -> Option<&Held> {
        self.place(file).map(|p| &p.held)
    }

    pub(super) fn descriptor(&self, file: File) -> Option<BorrowedFd<'_>> {
        self.get(file)?.descriptor()
    }

    pub(super) fn target(&self, file: File) -> Result<Target, NoTarget> {
        let place = self.place(file).ok_or(NoTarget::Stale)?;
        match (&place.held, place.held.descriptor()) {
            (Held::Store(store), _) if store.is_prompt() => Err(NoTarget::Memory(store.clone())),
            (_, Some(_)) if place.fixed => Ok(Target::Fixed(file.key)),
            (_, Some(fd)) => Ok(Target::Raw(fd.as_raw_fd())),
            (Held::Store(store), None) => Err(NoTarget::Memory(store.clone())),
            (Held::Descriptor(_), None) => Err(NoTarget::Stale),
        }
    }

    /// Memory of a store that ends operations within the call, if it lends it: see
    /// [`Reactor::lend`](super::Reactor::lend).
    pub(super) fn lend(
        &mut self,
        file: File,
        (offset, len): (u64, u32),
        tag: u64,
        returned: &Returned,
    ) -> Option<Buf> {
        let place = self.places.get_mut(file.key as usize);
        let place = place.filter(|p| p.generation == file.generation)?;
        let Held::Store(store) = &place.held else { return None };
        if !store.lends() {
            return None;
        }
        if place.loans.is_none() {
            place.loans = Loans::of(store, returned);
        }
        place.loans.as_ref()?.lend(offset, len, tag)
    }

    /// False once the kernel refused to send from user memory on this socket, or nobody wants it.
    pub(super) fn zero_copy(&self, file: File) -> bool {
        self.place(file).is_some_and(|p| p.zero_copy)
    }

    pub(super) fn forbid_zero_copy(&mut self, file: File) {
        let place = self.places.get_mut(file.key as usize);
        if let Some(place) = place.filter(|p| p.generation == file.generation) {
            place.zero_copy = false;
        }
    }

    /// Makes the handle stale but keeps the place, for good.
    pub(super) fn abandon(&mut self, file: File) {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let place = self.places.get_mut(file.key as usize);
        if let Some(place) = place.filter(|p| p.generation == file.generation) {
            place.generation = generation;
        }
    }

    pub(super) fn remove(&mut self, file: File) {
        let Some(place) = self.place(file) else { return };
        if place.fixed {
            // Nothing to do if it fails: the next holder of the place overwrites it.
            let _ = self.ring.uring().submitter().register_files_update(file.key, &[-1]);
        }
        self.places.remove(file.key as usize);
    }
}
