//! How good each way to a unit is: the access state of each target port group (SPC-4 5.15).
//!
//! The operator's configuration says in which state each group begins; the operator, and if
//! allowed initiators, set another. What was set outlives a restart, until the configuration says
//! something else about that group. A change is worked out, written to stable storage, and only
//! then comes into force; while it is written, another one is told BUSY.
//!
//! A state file holds what was set, group by group:
//!
//! ```text
//! "CAcc"  version 1 (u8)  groups (u16 LE), each: number (u16 LE)  state configured when it was
//!   set (u8)  state (u8)  cause (u8)
//! CRC-32 of all before (u32 LE)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corbel_proto::reader::Reader;
use corbel_proto::scsi::alua::{AccessState, Cause, PortGroup};

use thiserror::Error;

use crate::reservation::NexusName;
use crate::sealed::{Flaw, Form};

const FORM: Form = Form { magic: *b"CAcc", version: 1 };

/// Changes remembered with who asked for them. A nexus that missed more of them is told of a
/// change, be they all its own.
const LOG_MAX: usize = 32;

/// A state file that cannot be believed. Nothing of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// Another file, or another version's.
    #[error("not a unit's access states of version {}", FORM.version)]
    Foreign,
    /// The checksum is wrong, or the file has another length than it says.
    #[error("the unit's access states are damaged")]
    Damaged,
}

/// What becomes of a change of states.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// All is so already.
    Nothing,
    /// Another change is on its way.
    Busy,
    /// Put these bytes on stable storage, then call [`PortGroups::settle`].
    Persist(Vec<u8>),
}

/// What a nexus finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// To look again when this is no more [`PortGroups::generation`].
    pub(super) generation: u64,
    /// Of its own port's group.
    pub(super) state: AccessState,
    /// Others have changed states.
    pub(super) changed: bool,
    /// The target could not change a state as it wanted to.
    pub(super) failed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    configured: AccessState,
    now: AccessState,
    cause: Cause,
    preferred: bool,
}

/// A group that the configuration does not speak of.
const ORDINARY: Group = Group {
    configured: AccessState::Optimized,
    now: AccessState::Optimized,
    cause: Cause::None,
    preferred: false,
};

#[derive(Debug)]
struct Event {
    generation: u64,
    by: Option<NexusName>,
    failed: bool,
}

#[derive(Debug, Default)]
struct Inner {
    groups: BTreeMap<u16, Group>,
    proposed: Option<(BTreeMap<u16, Group>, Option<NexusName>)>,
    log: VecDeque<Event>,
}

/// The groups of one unit, shared by all shards.
#[derive(Debug, Default)]
pub struct PortGroups {
    generation: AtomicU64,
    explicit: AtomicBool,
    inner: Mutex<Inner>,
}

impl PortGroups {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change below is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever a state has, or could not.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Initiators, too, may set states.
    pub(super) fn explicit(&self) -> bool {
        self.explicit.load(Ordering::Relaxed)
    }

    /// Takes up what the configuration says: groups, the state each begins in and whether it is
    /// preferred. Groups it does not name are active/optimized. What
    /// was set stays for groups of which it says what it said before.
    pub fn configure(&self, explicit: bool, configured: &[PortGroup]) {
        self.explicit.store(explicit, Ordering::Relaxed);
        let mut inner = self.lock();
        let mut changed = false;
        for (number, group) in &mut inner.groups {
            let said = configured.iter().find(|one| one.group == *number);
            let state = said.map_or(AccessState::Optimized, |one| one.state);
            group.preferred = said.is_some_and(|one| one.preferred);
            if group.configured != state {
                changed |= group.now != state;
                *group = Group { configured: state, now: state, cause: Cause::Implicit, ..*group };
            }
        }
        for one in configured {
            inner.groups.entry(one.group).or_insert_with(|| {
                changed |= one.state != AccessState::Optimized;
                let (configured, now) = (one.state, one.state);
                Group { configured, now, cause: Cause::None, preferred: one.preferred }
            });
        }
        if changed {
            self.tell(&mut inner, None, false);
        }
    }

    /// Takes up what an earlier process wrote down, after [`Self::configure`] and before the unit
    /// is served.
    ///
    /// # Errors
    /// If the bytes cannot be believed; then nothing of them is used.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), RestoreError> {
        let content = FORM.open(bytes).map_err(|flaw| match flaw {
            Flaw::Foreign => RestoreError::Foreign,
            Flaw::Damaged => RestoreError::Damaged,
        })?;
        let set = read(content).ok_or(RestoreError::Damaged)?;
        let mut inner = self.lock();
        for (number, Group { configured, now, cause, .. }) in set {
            let group = inner.groups.entry(number).or_insert(ORDINARY);
            if group.configured == configured {
                (group.now, group.cause) = (now, cause);
            }
        }
        Ok(())
    }

    /// What a restart needs to know.
    pub fn snapshot(&self) -> Vec<u8> {
        write(&self.lock().groups)
    }

    /// Works out a change `by` a nexus, or by the target itself.
    pub fn propose(&self, orders: &[(u16, AccessState)], by: Option<&NexusName>) -> Change {
        let mut inner = self.lock();
        if inner.proposed.is_some() {
            return Change::Busy;
        }
        let cause = if by.is_some() { Cause::Explicit } else { Cause::Implicit };
        let mut next = inner.groups.clone();
        let mut differs = false;
        for (number, state) in orders {
            let group = next.entry(*number).or_insert(ORDINARY);
            if group.now != *state {
                (group.now, group.cause) = (*state, cause);
                differs = true;
            }
        }
        if !differs {
            return Change::Nothing;
        }
        let bytes = write(&next);
        inner.proposed = Some((next, by.cloned()));
        Change::Persist(bytes)
    }

    /// The change on its way is on stable storage and comes into force, or could not be written
    /// and is not made.
    pub fn settle(&self, kept: bool) {
        let mut inner = self.lock();
        match inner.proposed.take() {
            Some((next, by)) if kept => {
                // A configuration that was taken up meanwhile has the last word.
                for (number, group) in next {
                    let known = inner.groups.entry(number).or_insert(ORDINARY);
                    if known.configured == group.configured {
                        (known.now, known.cause) = (group.now, group.cause);
                    }
                }
                self.tell(&mut inner, by, false);
            }
            Some((_, None)) => self.tell(&mut inner, None, true),
            // Who asked for it is told by its own answer; for others nothing has happened.
            Some((_, Some(_))) | None => {}
        }
    }

    fn tell(&self, inner: &mut Inner, by: Option<NexusName>, failed: bool) {
        let generation = self.generation() + 1;
        inner.log.push_back(Event { generation, by, failed });
        if inner.log.len() > LOG_MAX {
            inner.log.pop_front();
        }
        self.generation.store(generation, Ordering::Release);
    }

    /// What there is for `who`, of `group`, that looked last at generation `since`.
    pub(super) fn look(&self, since: u64, who: &NexusName, group: u16) -> Look {
        let inner = self.lock();
        let news = || inner.log.iter().filter(|event| event.generation > since);
        let generation = self.generation();
        let forgotten = generation - since > news().count() as u64;
        let others = |event: &Event| !event.failed && event.by.as_ref() != Some(who);
        Look {
            generation,
            state: inner.groups.get(&group).unwrap_or(&ORDINARY).now,
            changed: forgotten || news().any(others),
            failed: news().any(|event| event.failed),
        }
    }

    /// State of a group, and why it is in it.
    pub fn of(&self, group: u16) -> (PortGroup, Cause) {
        let Group { now, cause, preferred, .. } =
            *self.lock().groups.get(&group).unwrap_or(&ORDINARY);
        (PortGroup { group, state: now, preferred }, cause)
    }
}

/// Only what differs from the configuration needs to be kept.
fn write(groups: &BTreeMap<u16, Group>) -> Vec<u8> {
    let set: Vec<_> = groups.iter().filter(|(_, group)| group.now != group.configured).collect();
    let mut out = FORM.begin();
    let count = u16::try_from(set.len()).unwrap_or(u16::MAX);
    out.extend(count.to_le_bytes());
    for (number, group) in set.into_iter().take(usize::from(count)) {
        out.extend(number.to_le_bytes());
        out.extend([group.configured as u8, group.now as u8, group.cause as u8]);
    }
    FORM.seal(out)
}

fn read(content: &[u8]) -> Option<Vec<(u16, Group)>> {
    let mut reader = Reader::new(content, "access states", "port_groups.rs");
    let count = u16::from_le_bytes(reader.array().ok()?);
    let mut group = || -> Option<(u16, Group)> {
        let number = u16::from_le_bytes(reader.array().ok()?);
        let [configured, now, cause] = reader.array().ok()?;
        let configured = AccessState::from_code(configured)?;
        let now = AccessState::from_code(now)?;
        let cause = if cause == Cause::Explicit as u8 { Cause::Explicit } else { Cause::Implicit };
        Some((number, Group { configured, now, cause, preferred: false }))
    };
    let groups: Option<Vec<_>> = (0..count).map(|_| group()).collect();
    reader.finish().ok()?;
    groups
}
