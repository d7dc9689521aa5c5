//! One shelf.slot, shared by all shards.
//!
//! The hot path reads only the generation number. Changes go through a small mutex, one at a
//! time: a change is worked out from what is in force, written to stable storage, and only then
//! in force, so that nobody ever sees a change that a crash could undo. While one is being
//! written, further changes are turned away unanswered; AoE clients repeat what gets no answer.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corbel_proto::aoe::{Mac, SHELF_BROADCAST, SLOT_BROADCAST};
use thiserror::Error;

use super::{Contents, RestoreError};
use crate::ata::Disk;

/// Shelf and slot of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    shelf: u16,
    slot: u8,
}

/// The address means "every shelf" or "every slot".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shelf {shelf} slot {slot} is a broadcast address; shelves end at 65534, slots at 254")]
pub struct AddressError {
    shelf: u16,
    slot: u8,
}

impl Address {
    /// The address, unless it is a broadcast.
    pub const fn new(shelf: u16, slot: u8) -> Result<Self, AddressError> {
        if shelf == SHELF_BROADCAST || slot == SLOT_BROADCAST {
            return Err(AddressError { shelf, slot });
        }
        Ok(Self { shelf, slot })
    }

    /// The shelf.
    pub const fn shelf(self) -> u16 {
        self.shelf
    }

    /// The slot.
    pub const fn slot(self) -> u8 {
        self.slot
    }

    /// The Linux driver ignores shelf 4095 as well as the broadcast; worth a warning.
    pub const fn works_with_linux(self) -> bool {
        self.shelf != 0xfff
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shelf, self.slot)
    }
}

/// A target on the wire.
#[derive(Debug)]
pub struct Slot {
    address: Address,
    disk: Disk,
    /// The operator's allow list, sorted; empty lets everybody in.
    allow: Vec<Mac>,
    /// Instead of [`Options::buffer_count`](super::Options).
    buffers: Option<u16>,
    memory: Arc<Memory>,
}

/// What clients set; outlives a slot that is configured anew.
#[derive(Debug, Default)]
struct Memory {
    /// Counts changes of what is in force.
    generation: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_force: Contents,
    /// On its way to stable storage.
    proposed: Option<Contents>,
}

/// What became of the attempt to change something.
#[derive(Debug)]
pub(super) enum Proposal<E> {
    /// Another change is being written.
    Busy,
    /// Not permitted.
    Refused(E),
    /// It is so already.
    Unchanged,
    /// These bytes must reach stable storage; then call [`Slot::settle`].
    Persist(Vec<u8>),
}

impl Slot {
    /// A slot that remembers nothing yet. `allow` is the operator's list of clients.
    pub fn new(address: Address, disk: Disk, allow: Vec<Mac>) -> Self {
        Self::with(address, disk, allow, Arc::default())
    }

    /// The slot that stands in this one's place after a change of the configuration. What clients
    /// have set, and a change that is just being written, belong to both.
    #[must_use]
    pub fn reconfigured(&self, disk: Disk, allow: Vec<Mac>) -> Self {
        Self::with(self.address, disk, allow, self.memory.clone())
    }

    fn with(address: Address, disk: Disk, mut allow: Vec<Mac>, memory: Arc<Memory>) -> Self {
        allow.sort_unstable();
        allow.dedup();
        Self { address, disk, allow, buffers: None, memory }
    }

    /// Tells clients another number of outstanding messages than the server's; at least 2, since
    /// Linux never brings up a target with less.
    #[must_use]
    pub fn with_buffers(mut self, count: u16) -> Self {
        self.buffers = Some(count.max(2));
        self
    }

    pub(super) const fn buffers(&self) -> Option<u16> {
        self.buffers
    }

    /// Puts the operator's config string in force, over whatever a client has set. Cut after
    /// 1024 bytes.
    pub fn set_config(&self, config: &[u8]) {
        let mut state = self.lock();
        state.in_force.config = config[..config.len().min(1024)].to_vec();
        self.memory.generation.fetch_add(1, Ordering::Release);
    }

    /// Its shelf and slot.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// The disk in it.
    pub const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The operator's allow list, sorted.
    pub fn allow(&self) -> &[Mac] {
        &self.allow
    }

    /// The state file's name.
    pub fn state_name(&self) -> String {
        format!("aoe-{}", self.address)
    }

    /// Takes up what an earlier process wrote down. To be called before it serves.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), RestoreError> {
        let contents = Contents::restore(bytes)?;
        let mut state = self.lock();
        state.in_force = contents;
        self.memory.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// What is in force now.
    pub fn contents(&self) -> Contents {
        self.lock().in_force.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.memory.generation.load(Ordering::Acquire)
    }

    /// What is in force, and its generation.
    pub(super) fn current(&self) -> (u64, Contents) {
        let state = self.lock();
        (self.generation(), state.in_force.clone())
    }

    /// Works out a change from what is in force.
    pub(super) fn propose<E>(
        &self,
        change: impl FnOnce(&Contents) -> Result<Contents, E>,
    ) -> Proposal<E> {
        let mut state = self.lock();
        if state.proposed.is_some() {
            return Proposal::Busy;
        }
        let next = match change(&state.in_force) {
            Ok(next) => next,
            Err(refused) => return Proposal::Refused(refused),
        };
        if next == state.in_force {
            return Proposal::Unchanged;
        }
        let bytes = next.snapshot();
        state.proposed = Some(next);
        Proposal::Persist(bytes)
    }

    /// The proposal reached stable storage and comes into force, or it did not and is forgotten.
    pub(super) fn settle(&self, persisted: bool) {
        let mut state = self.lock();
        if let (Some(next), true) = (state.proposed.take(), persisted) {
            state.in_force = next;
            self.memory.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Contents are replaced whole, so a panic elsewhere leaves none half changed.
        self.memory.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
