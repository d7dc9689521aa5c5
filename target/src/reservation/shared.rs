//! The reservations of one volume, shared by all shards and protocols.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corbel_proto::scsi::Sense;
use corbel_proto::scsi::reservation::OutAction;

use super::rights::Rights;
use super::state::{Change, Surroundings};
use super::{NexusName, Notice, Order, Refusal, Registration, RestoreError, State};

/// What becomes of a PERSISTENT RESERVE OUT.
#[derive(Debug)]
pub enum Proposal {
    /// It is not done.
    Refused(Refusal),
    /// It is done; these commands end now.
    Done(Ended),
    /// Put these bytes on stable storage, then call [`Reservations::settle`]. Until then nothing
    /// has changed.
    Persist(Vec<u8>),
    /// Another change is on its way.
    Busy,
}

/// Whose commands a change ends: it is answered once none of them can have an effect any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// Of who was registered by these (PREEMPT AND ABORT).
    pub registered: Vec<Registration>,
    /// Of AoE clients, who cannot register and may change nothing now. Theirs are waited for.
    pub outsiders: bool,
}

impl Ended {
    /// Nobody's.
    pub const fn is_nothing(&self) -> bool {
        self.registered.is_empty() && !self.outsiders
    }
}

/// A nexus that is there now.
#[derive(Debug)]
struct Attached {
    name: NexusName,
    /// By how many sessions and LUNs.
    times: u32,
    /// [`Notice`]s not yet told, a bit each.
    notices: u8,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// With what was ordered.
    proposed: Option<(Change, OutAction)>,
    /// Holder of an SPC-2 reservation.
    legacy: Option<NexusName>,
    attached: Vec<Attached>,
}

/// See the module.
#[derive(Debug)]
pub struct Reservations {
    /// Counts changes, so that a nexus need only look when there was one.
    epoch: AtomicU64,
    /// What who is not registered may do: one bit to read, two to change.
    outsiders: AtomicU8,
    can_persist: AtomicBool,
    inner: Mutex<Inner>,
}

const READ: u8 = 1;
const CHANGE: u8 = 2;

impl Default for Reservations {
    fn default() -> Self {
        Self {
            epoch: AtomicU64::new(0),
            outsiders: AtomicU8::new(READ | CHANGE),
            can_persist: AtomicBool::new(false),
            inner: Mutex::default(),
        }
    }
}

impl Reservations {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change below is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a place for state files: APTPL is offered.
    pub fn enable_persistence(&self) {
        self.can_persist.store(true, Ordering::Relaxed);
    }

    /// See [`Self::enable_persistence`].
    pub fn can_persist(&self) -> bool {
        self.can_persist.load(Ordering::Relaxed)
    }

    /// Takes up what an earlier process wrote down. To be called before the volume is served.
    ///
    /// # Errors
    /// If the bytes cannot be believed; then nothing of them is used.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), RestoreError> {
        let state = State::restore(bytes)?;
        let mut inner = self.lock();
        inner.state = state;
        self.changed(&inner);
        Ok(())
    }

    /// Changes whenever rights or notices may have.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// What those may do who cannot register: AoE clients.
    pub fn outsiders(&self) -> Rights {
        let bits = self.outsiders.load(Ordering::Acquire);
        let (read, change) = (bits & READ != 0, bits & CHANGE != 0);
        // Whoever may read may also ask whether the unit is ready.
        Rights { ready: read || change, read, change }
    }

    /// A nexus came.
    pub fn attach(&self, name: &NexusName) {
        let mut inner = self.lock();
        match inner.attached.iter_mut().find(|one| one.name == *name) {
            Some(known) => known.times += 1,
            None => inner.attached.push(Attached { name: name.clone(), times: 1, notices: 0 }),
        }
    }

    /// A nexus went, and with the last of its name an SPC-2 reservation of its.
    pub fn detach(&self, name: &NexusName) {
        let mut inner = self.lock();
        let Some(at) = inner.attached.iter().position(|one| one.name == *name) else { return };
        inner.attached[at].times -= 1;
        if inner.attached[at].times > 0 {
            return;
        }
        inner.attached.swap_remove(at);
        if inner.legacy.as_ref() == Some(name) {
            inner.legacy = None;
            self.changed(&inner);
        }
    }

    /// What `who` may do, and what it has yet to be told, which it now has been.
    pub fn look(&self, who: &NexusName) -> (Rights, Vec<Notice>) {
        let mut inner = self.lock();
        let rights = match &inner.legacy {
            Some(holder) if holder != who => Rights::NONE,
            _ => inner.state.rights(Some(who)),
        };
        let attached = inner.attached.iter_mut().find(|one| one.name == *who);
        let bits = attached.map_or(0, |one| std::mem::take(&mut one.notices));
        let told = NOTICES.into_iter().filter(|notice| bits & bit(*notice) != 0);
        (rights, told.collect())
    }

    /// What `who` may do. Tells it nothing.
    pub fn rights(&self, who: &NexusName) -> Rights {
        let inner = self.lock();
        match &inner.legacy {
            Some(holder) if holder != who => Rights::NONE,
            _ => inner.state.rights(Some(who)),
        }
    }

    /// What is registered and held, for PERSISTENT RESERVE IN; `None` while there is an SPC-2
    /// reservation, with which it conflicts.
    pub fn state(&self) -> Option<State> {
        let inner = self.lock();
        inner.legacy.is_none().then(|| inner.state.clone())
    }

    /// RESERVE of SPC-2. True if `who` has it, or a persistent reservation that is as good
    /// (SPC-3 5.6.3, CRH).
    pub fn reserve(&self, who: &NexusName) -> bool {
        let mut inner = self.lock();
        if let Some(compatible) = compatible(&inner.state, who) {
            return compatible;
        }
        match &inner.legacy {
            Some(holder) => holder == who,
            None => {
                inner.legacy = Some(who.clone());
                self.changed(&inner);
                true
            }
        }
    }

    /// RELEASE of SPC-2. True unless it conflicts; who has nothing releases nothing.
    pub fn release(&self, who: &NexusName) -> bool {
        let mut inner = self.lock();
        if let Some(compatible) = compatible(&inner.state, who) {
            return compatible;
        }
        if inner.legacy.as_ref() == Some(who) {
            inner.legacy = None;
            self.changed(&inner);
        }
        true
    }

    /// A reset ends an SPC-2 reservation; persistent ones stay.
    pub fn reset(&self) {
        let mut inner = self.lock();
        if inner.legacy.take().is_some() {
            self.changed(&inner);
        }
    }

    /// Works out an order of `who`, whose target has these relative ports.
    pub fn propose(&self, who: &NexusName, order: &Order, ports: &[u16]) -> Proposal {
        let mut inner = self.lock();
        if inner.legacy.is_some() {
            return Proposal::Refused(Refusal::Conflict);
        }
        if inner.proposed.is_some() {
            return Proposal::Busy;
        }
        let known: Vec<_> = inner.attached.iter().map(|one| one.name.clone()).collect();
        let around = Surroundings { known: &known, ports };
        let change = match inner.state.apply(who, order, around) {
            Ok(change) => change,
            Err(refusal) => return Proposal::Refused(refusal),
        };
        if change.next.persists && !self.can_persist() {
            let at = if order.list.moving.is_some() { 17 } else { 20 };
            return Proposal::Refused(Sense::invalid_parameter(at, Some(0)).into());
        }
        let (before, after) = (inner.state.snapshot(), change.next.snapshot());
        if before != after {
            inner.proposed = Some((change, order.action));
            return Proposal::Persist(after);
        }
        Proposal::Done(self.take_up(&mut inner, change, order.action))
    }

    /// The change on its way is on stable storage and comes into force (whose commands end then is
    /// told), or it could not be written, and is not made.
    pub fn settle(&self, kept: bool) -> Ended {
        let mut inner = self.lock();
        match inner.proposed.take() {
            Some((change, action)) if kept => self.take_up(&mut inner, change, action),
            _ => Ended::default(),
        }
    }

    fn take_up(&self, inner: &mut Inner, change: Change, action: OutAction) -> Ended {
        for (of, notice) in &change.notices {
            // Whoever is not there is told of a power on when it comes.
            for one in inner.attached.iter_mut().filter(|one| of.is_of(&one.name)) {
                one.notices |= bit(*notice);
            }
        }
        inner.state = change.next;
        self.changed(inner);
        // Also if they were shut out before: who repeats a command whose answer it did not wait
        // for has the same promise.
        let reserves =
            matches!(action, OutAction::Reserve | OutAction::Preempt | OutAction::PreemptAndAbort);
        let outsiders = reserves && !self.outsiders().change;
        Ended { registered: change.aborted, outsiders }
    }

    fn changed(&self, inner: &Inner) {
        let rights = match &inner.legacy {
            Some(_) => Rights::NONE,
            None => inner.state.rights(None),
        };
        let bits = if rights.read { READ } else { 0 } | if rights.change { CHANGE } else { 0 };
        self.outsiders.store(bits, Ordering::Release);
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}

/// How RESERVE and RELEASE go with persistent reservations: `None` if there are none.
fn compatible(state: &State, who: &NexusName) -> Option<bool> {
    if state.registrations.is_empty() {
        return None;
    }
    let shared = state.held.as_ref().is_some_and(|held| held.kind.admits_registrants());
    Some(state.holds(who) || shared && state.find(who).is_some())
}

const NOTICES: [Notice; 3] =
    [Notice::ReservationsPreempted, Notice::ReservationsReleased, Notice::RegistrationsPreempted];

const fn bit(notice: Notice) -> u8 {
    1 << notice as u8
}
