//! Mode parameters of a unit: those in force, and those that were saved (SPC-4 6.9, 7.5).
//!
//! All initiators share one set of pages. What is saved is in force again after a restart and after
//! a reset. It is written to stable storage first; while that goes on, another change is told BUSY.
//!
//! A state file holds what was saved:
//!
//! ```text
//! "CMod"  version 1 (u8)  WCE 01h, D_SENSE 02h, SWP 04h (u8)  CRC-32 of all before (u32 LE)
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corbel_proto::scsi::mode::Parameters;

use crate::reservation::NexusName;
use crate::sealed::{Flaw, Form};

const FORM: Form = Form { magic: *b"CMod", version: 1 };
const WCE: u8 = 0x01;
const D_SENSE: u8 = 0x02;
const SWP: u8 = 0x04;

/// Changes remembered with who made them. A nexus that missed more of them is told of a change, be
/// they all its own.
const LOG_MAX: usize = 32;

/// What becomes of a change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is made, and was none if both are the same.
    Made {
        /// What was in force.
        before: Parameters,
        /// What is.
        now: Parameters,
    },
    /// Another change is being saved.
    Busy,
    /// Put these bytes on stable storage, then call [`ModePages::settle`].
    Persist(Vec<u8>),
}

#[derive(Debug, Default)]
struct Inner {
    saved: Option<Parameters>,
    proposed: Option<(Parameters, NexusName)>,
    log: VecDeque<(u64, NexusName)>,
}

/// The mode parameters of one unit, shared by all shards.
#[derive(Debug)]
pub struct ModePages {
    defaults: Parameters,
    changeable: Parameters,
    write_cache: AtomicBool,
    descriptor_sense: AtomicBool,
    write_protect: AtomicBool,
    savable: AtomicBool,
    generation: AtomicU64,
    inner: Mutex<Inner>,
}

impl ModePages {
    /// The pages of a unit that has a volatile cache, or has none and cannot get one.
    pub(super) fn new(volatile_cache: bool) -> Self {
        let defaults = Parameters {
            write_cache: volatile_cache,
            descriptor_sense: false,
            software_write_protect: false,
        };
        let changeable = Parameters {
            write_cache: volatile_cache,
            descriptor_sense: true,
            software_write_protect: true,
        };
        Self {
            defaults,
            changeable,
            write_cache: AtomicBool::new(volatile_cache),
            descriptor_sense: AtomicBool::new(false),
            write_protect: AtomicBool::new(false),
            savable: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change below is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// State files are kept, so pages can be saved.
    pub fn enable_saving(&self) {
        self.savable.store(true, Ordering::Relaxed);
    }

    /// See [`Self::enable_saving`].
    pub(super) fn savable(&self) -> bool {
        self.savable.load(Ordering::Relaxed)
    }

    /// Takes up what an earlier process saved, before the unit is served.
    ///
    /// # Errors
    /// Why the bytes cannot be believed; then nothing of them is used.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), &'static str> {
        let damaged = "it is damaged";
        let content = FORM.open(bytes).map_err(|flaw| match flaw {
            Flaw::Foreign => "it is none that this version wrote",
            Flaw::Damaged => damaged,
        })?;
        let &[bits] = content else { return Err(damaged) };
        if bits & !(WCE | D_SENSE | SWP) != 0 {
            return Err(damaged);
        }
        let saved = Parameters {
            // The device may be another kind now.
            write_cache: bits & WCE != 0 && self.changeable.write_cache,
            descriptor_sense: bits & D_SENSE != 0,
            software_write_protect: bits & SWP != 0,
        };
        self.lock().saved = Some(saved);
        self.put(&saved);
        Ok(())
    }

    /// Counts changes.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// True if others than `who` have changed something since generation `since`.
    pub(super) fn changed_by_others(&self, since: u64, who: &NexusName) -> bool {
        let inner = self.lock();
        let news = || inner.log.iter().filter(|(generation, _)| *generation > since);
        let forgotten = self.generation() - since > news().count() as u64;
        forgotten || news().any(|(_, by)| by != who)
    }

    /// WCE.
    pub(super) fn write_cache(&self) -> bool {
        self.write_cache.load(Ordering::Acquire)
    }

    /// D_SENSE.
    pub(super) fn descriptor_sense(&self) -> bool {
        self.descriptor_sense.load(Ordering::Relaxed)
    }

    /// SWP.
    pub(super) fn write_protect(&self) -> bool {
        self.write_protect.load(Ordering::Acquire)
    }

    /// Those in force.
    pub(super) fn current(&self) -> Parameters {
        Parameters {
            write_cache: self.write_cache(),
            descriptor_sense: self.descriptor_sense(),
            software_write_protect: self.write_protect(),
        }
    }

    /// Those in force if nothing was ever set.
    pub(super) const fn defaults(&self) -> Parameters {
        self.defaults
    }

    /// What may be set: a cache can be switched off where there is one.
    pub(super) const fn changeable(&self) -> Parameters {
        self.changeable
    }

    /// Those in force after a reset or a restart.
    pub(super) fn saved(&self) -> Parameters {
        self.lock().saved.unwrap_or(self.defaults)
    }

    fn put(&self, parameters: &Parameters) {
        self.write_cache.store(parameters.write_cache, Ordering::Release);
        self.descriptor_sense.store(parameters.descriptor_sense, Ordering::Release);
        self.write_protect.store(parameters.software_write_protect, Ordering::Release);
    }

    /// LOGICAL UNIT RESET. A cache that is on stays on: nothing is made stable by a reset, and who
    /// reads WCE=0 may rely on every write acknowledged before.
    pub(super) fn reset(&self) {
        let inner = self.lock();
        let mut back = inner.saved.unwrap_or(self.defaults);
        back.write_cache |= self.write_cache();
        self.put(&back);
    }

    /// `who` saw `seen` and wants `wanted` in force, and saved if `save`. What it leaves alone
    /// stays as another initiator may have set it meanwhile.
    pub(super) fn propose(
        &self,
        seen: &Parameters,
        wanted: &Parameters,
        save: bool,
        who: &NexusName,
    ) -> Change {
        let mut inner = self.lock();
        if inner.proposed.is_some() {
            return Change::Busy;
        }
        let wanted = merged(seen, wanted, &self.current());
        if save && inner.saved != Some(wanted) {
            inner.proposed = Some((wanted, who.clone()));
            return Change::Persist(sealed(&wanted));
        }
        Change::Made { before: self.change(&mut inner, wanted, who.clone()), now: wanted }
    }

    /// What was proposed is on stable storage and comes into force, or could not be written and
    /// does not. Gives what was in force before, and what is.
    pub(super) fn settle(&self, kept: bool) -> (Parameters, Parameters) {
        let mut inner = self.lock();
        let now = self.current();
        match inner.proposed.take() {
            Some((wanted, who)) if kept => {
                inner.saved = Some(wanted);
                (self.change(&mut inner, wanted, who), wanted)
            }
            _ => (now, now),
        }
    }

    fn change(&self, inner: &mut Inner, wanted: Parameters, who: NexusName) -> Parameters {
        let before = self.current();
        if before != wanted {
            self.put(&wanted);
            let generation = self.generation() + 1;
            inner.log.push_back((generation, who));
            if inner.log.len() > LOG_MAX {
                inner.log.pop_front();
            }
            self.generation.store(generation, Ordering::Release);
        }
        before
    }
}

/// `now` with what differs between `seen` and `wanted`.
fn merged(seen: &Parameters, wanted: &Parameters, now: &Parameters) -> Parameters {
    let bit = |seen, wanted, now| if seen == wanted { now } else { wanted };
    Parameters {
        write_cache: bit(seen.write_cache, wanted.write_cache, now.write_cache),
        descriptor_sense: bit(seen.descriptor_sense, wanted.descriptor_sense, now.descriptor_sense),
        software_write_protect: bit(
            seen.software_write_protect,
            wanted.software_write_protect,
            now.software_write_protect,
        ),
    }
}

fn sealed(parameters: &Parameters) -> Vec<u8> {
    let bits = [
        (parameters.write_cache, WCE),
        (parameters.descriptor_sense, D_SENSE),
        (parameters.software_write_protect, SWP),
    ];
    let mut out = FORM.begin();
    out.push(bits.iter().filter(|(set, _)| *set).fold(0, |sum, (_, bit)| sum | bit));
    FORM.seal(out)
}
