//! Registrations, the reservation, and what each service action makes of them (SPC-4 5.13).

use corbel_proto::scsi::reservation::{Moving, OutAction, OutList, Type};
use corbel_proto::scsi::transport_id::{TransportId, device_of};
use corbel_proto::scsi::{Condition, Sense};

use super::NexusName;

/// Registrations of one volume at most.
pub(super) const REGISTRATIONS_MAX: usize = 256;

/// A key, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Whose.
    pub nexus: NexusName,
    /// ALL_TG_PT: it counts at every target port, not only the nexus's.
    pub all_target_ports: bool,
    /// RESERVATION KEY, never zero.
    pub key: u64,
}

impl Registration {
    /// True if it counts for `who`.
    pub fn is_of(&self, who: &NexusName) -> bool {
        self.nexus.initiator == who.initiator
            && (self.all_target_ports
                || (self.nexus.target == who.target && self.nexus.port == who.port))
    }
}

/// The persistent reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its type; the scope is always the logical unit.
    pub kind: Type,
    /// Who holds it; `None` if all registrants do.
    pub holder: Option<NexusName>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// PRGENERATION; zero after a restart.
    pub generation: u32,
    /// APTPL of the last registration: keep all this through a loss of power.
    pub persists: bool,
    /// In the order they were made.
    pub registrations: Vec<Registration>,
    /// What is reserved.
    pub held: Option<Held>,
}

/// A PERSISTENT RESERVE OUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// SERVICE ACTION.
    pub action: OutAction,
    /// TYPE, for actions that have one.
    pub kind: Option<Type>,
    /// Its parameter list.
    pub list: OutList,
}

/// What a nexus is told at its next command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// RESERVATIONS PREEMPTED.
    ReservationsPreempted,
    /// RESERVATIONS RELEASED.
    ReservationsReleased,
    /// REGISTRATIONS PREEMPTED.
    RegistrationsPreempted,
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION.
    Sense(Sense),
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self::Sense(sense)
    }
}

/// What an order makes of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What is in force then.
    pub next: State,
    /// Who is told what.
    pub notices: Vec<(Registration, Notice)>,
    /// Whose commands end (PREEMPT AND ABORT).
    pub aborted: Vec<Registration>,
}

/// Registered nexuses, those known to the volume, and the ports of the target: what an order may
/// speak of.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Nexuses that there are now, registered or not.
    pub known: &'a [NexusName],
    /// Relative target ports of the sender's target.
    pub ports: &'a [u16],
}

impl State {
    /// The registration that counts for `who`.
    pub fn find(&self, who: &NexusName) -> Option<&Registration> {
        self.registrations.iter().find(|registration| registration.is_of(who))
    }

    /// True if `who` holds the reservation, alone or with all others.
    pub fn holds(&self, who: &NexusName) -> bool {
        let Some(registration) = self.find(who) else { return false };
        self.held.as_ref().is_some_and(|held| match &held.holder {
            Some(holder) => *holder == registration.nexus,
            None => true,
        })
    }

    /// What `order` of `who` makes of this.
    ///
    /// # Errors
    /// If it is refused; nothing changes then.
    pub fn apply(
        &self,
        who: &NexusName,
        order: &Order,
        around: Surroundings<'_>,
    ) -> Result<Change, Refusal> {
        let mut change = Change { next: self.clone(), notices: Vec::new(), aborted: Vec::new() };
        let registered = self.find(who).cloned();
        match (order.action, &registered) {
            (OutAction::Register | OutAction::RegisterAndIgnoreExistingKey, _) => {
                change.register(who, order, around)?;
                return Ok(change);
            }
            (_, None) => return Err(Refusal::Conflict),
            (_, Some(own)) if own.key != order.list.key => return Err(Refusal::Conflict),
            _ => {}
        }
        let own = registered.expect("refused above").nexus;
        match order.action {
            OutAction::Register | OutAction::RegisterAndIgnoreExistingKey => {}
            OutAction::Reserve => change.reserve(&own, kind_of(order)?)?,
            OutAction::Release => change.release(&own, kind_of(order)?)?,
            OutAction::Clear => change.clear(&own),
            OutAction::Preempt => change.preempt(&own, order, false)?,
            OutAction::PreemptAndAbort => change.preempt(&own, order, true)?,
            OutAction::RegisterAndMove => change.move_to(&own, order, around)?,
        }
        Ok(change)
    }
}

/// SPC-4 6.16.2: a type that does not exist is an invalid field in the CDB.
fn kind_of(order: &Order) -> Result<Type, Refusal> {
    order.kind.ok_or_else(|| Sense::invalid_cdb(2, Some(3)).into())
}

impl Change {
    /// SPC-4 5.13.7, table 68.
    fn register(
        &mut self,
        who: &NexusName,
        order: &Order,
        around: Surroundings<'_>,
    ) -> Result<(), Refusal> {
        let list = &order.list;
        let own = self.next.registrations.iter().position(|one| one.is_of(who));
        if order.action == OutAction::Register {
            let key = own.map_or(0, |at| self.next.registrations[at].key);
            if list.key != key {
                return Err(Refusal::Conflict);
            }
        }
        if own.is_some() && !list.others.is_empty() {
            return Err(Sense::invalid_parameter(20, Some(3)).into());
        }
        match (own, list.action_key) {
            (None, 0) => return Ok(()),
            (Some(at), 0) => self.unregister(at),
            (Some(at), key) => self.next.registrations[at].key = key,
            (None, key) => {
                self.add(who.clone(), list.all_target_ports, key)?;
                for id in &list.others {
                    // Whoever is registered already keeps the key of its own.
                    let fresh = named(id, who, around.known);
                    for other in fresh {
                        if self.next.find(&other).is_none() {
                            self.add(other, list.all_target_ports, key)?;
                        }
                    }
                }
            }
        }
        self.next.persists = list.persist;
        self.next.generation = self.next.generation.wrapping_add(1);
        Ok(())
    }

    /// One more registration, or another key for one that is there.
    fn add(&mut self, nexus: NexusName, all: bool, key: u64) -> Result<(), Refusal> {
        let registrations = &mut self.next.registrations;
        if let Some(known) = registrations.iter_mut().find(|one| one.is_of(&nexus)) {
            known.key = key;
            return Ok(());
        }
        if registrations.len() >= REGISTRATIONS_MAX {
            return Err(Sense::from(Condition::INSUFFICIENT_REGISTRATION_RESOURCES).into());
        }
        if all {
            // One for every port stands in place of those for single ones.
            registrations.retain(|one| one.nexus.initiator != nexus.initiator);
        }
        registrations.push(Registration { nexus, all_target_ports: all, key });
        Ok(())
    }

    /// SPC-4 5.13.11.2: what the last holder held is released.
    fn unregister(&mut self, at: usize) {
        let gone = self.next.registrations.remove(at);
        let Some(held) = &self.next.held else { return };
        let over = match &held.holder {
            Some(holder) => *holder == gone.nexus,
            None => self.next.registrations.is_empty(),
        };
        if !over {
            return;
        }
        let kind = held.kind;
        self.next.held = None;
        if kind.admits_registrants() {
            self.tell_registered(&gone.nexus, Notice::ReservationsReleased);
        }
    }

    /// SPC-4 5.13.9.
    fn reserve(&mut self, own: &NexusName, kind: Type) -> Result<(), Refusal> {
        match &self.next.held {
            Some(held) if held.kind == kind && self.next.holds(own) => Ok(()),
            Some(_) => Err(Refusal::Conflict),
            None => {
                self.hold(own, kind);
                Ok(())
            }
        }
    }

    fn hold(&mut self, own: &NexusName, kind: Type) {
        let holder = (!kind.held_by_all()).then(|| own.clone());
        self.next.held = Some(Held { kind, holder });
    }

    /// SPC-4 5.13.11.2.2: who does not hold it releases nothing, which is no error.
    fn release(&mut self, own: &NexusName, kind: Type) -> Result<(), Refusal> {
        let Some(held) = self.next.held.clone() else { return Ok(()) };
        if !self.next.holds(own) {
            return Ok(());
        }
        if held.kind != kind {
            let wrong = Condition::INVALID_RELEASE_OF_PERSISTENT_RESERVATION;
            return Err(Sense::from(wrong).into());
        }
        self.next.held = None;
        if kind.admits_registrants() {
            self.tell_registered(own, Notice::ReservationsReleased);
        }
        Ok(())
    }

    /// SPC-4 5.13.11.2.6.
    fn clear(&mut self, own: &NexusName) {
        self.tell_registered(own, Notice::ReservationsPreempted);
        self.next.registrations.clear();
        self.next.held = None;
        self.next.generation = self.next.generation.wrapping_add(1);
    }

    /// SPC-4 5.13.11.2.4 and 5.13.11.2.5.
    fn preempt(&mut self, own: &NexusName, order: &Order, abort: bool) -> Result<(), Refusal> {
        let victim = order.list.action_key;
        let held = self.next.held.clone();
        let takes_over = match &held {
            Some(Held { holder: None, .. }) => victim == 0,
            Some(Held { holder: Some(holder), .. }) => {
                let key = self.next.find(holder).map(|registration| registration.key);
                key == Some(victim)
            }
            None => false,
        };
        if takes_over {
            let kind = kind_of(order)?;
            let all = held.as_ref().is_some_and(|held| held.holder.is_none());
            let gone = self.remove(|one| (all || one.key == victim) && one.nexus != *own);
            self.hold(own, kind);
            if held.is_some_and(|held| held.kind != kind) {
                self.tell_registered(own, Notice::ReservationsReleased);
            }
            self.preempted(&gone, own, abort);
        } else {
            if victim == 0 {
                return Err(Sense::invalid_parameter(8, None).into());
            }
            let gone = self.remove(|one| one.key == victim);
            if gone.is_empty() {
                return Err(Refusal::Conflict);
            }
            if self.next.registrations.is_empty() {
                self.next.held = None; // all registrants held it, and there are none
            }
            self.preempted(&gone, own, abort);
        }
        self.next.generation = self.next.generation.wrapping_add(1);
        Ok(())
    }

    fn remove(&mut self, fits: impl Fn(&Registration) -> bool) -> Vec<Registration> {
        let registrations = std::mem::take(&mut self.next.registrations);
        let (gone, left) = registrations.into_iter().partition(|one| fits(one));
        self.next.registrations = left;
        gone
    }

    fn preempted(&mut self, gone: &[Registration], own: &NexusName, abort: bool) {
        for one in gone.iter().filter(|one| one.nexus != *own) {
            self.notices.push((one.clone(), Notice::RegistrationsPreempted));
            if abort {
                self.aborted.push(one.clone());
            }
        }
    }

    /// SPC-4 5.13.8.
    fn move_to(
        &mut self,
        own: &NexusName,
        order: &Order,
        around: Surroundings<'_>,
    ) -> Result<(), Refusal> {
        let Some(Moving { unregister, target_port, to }) = &order.list.moving else {
            return Err(Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR).into());
        };
        let kind = match &self.next.held {
            Some(held) if held.holder.as_ref() == Some(own) => held.kind,
            _ => return Err(Refusal::Conflict),
        };
        if order.list.action_key == 0 {
            return Err(Sense::invalid_parameter(8, None).into());
        }
        if !around.ports.contains(target_port) {
            return Err(Sense::invalid_parameter(18, None).into());
        }
        let TransportId::Port(initiator) = to else {
            return Err(Sense::invalid_parameter(24, None).into());
        };
        let target = own.target.clone();
        let other = NexusName { initiator: initiator.clone(), target, port: *target_port };
        if self.next.find(&other).is_some_and(|one| one.nexus == *own) {
            return Err(Sense::invalid_parameter(24, None).into());
        }
        self.add(other.clone(), false, order.list.action_key)?;
        let holder = self.next.find(&other).map_or(other, |one| one.nexus.clone());
        self.next.held = Some(Held { kind, holder: Some(holder) });
        if *unregister {
            self.next.registrations.retain(|one| one.nexus != *own);
        }
        self.next.persists = order.list.persist;
        self.next.generation = self.next.generation.wrapping_add(1);
        Ok(())
    }

    /// All who are registered now, but `except`.
    fn tell_registered(&mut self, except: &NexusName, notice: Notice) {
        let others = self.next.registrations.iter().filter(|one| one.nexus != *except);
        self.notices.extend(others.map(|one| (one.clone(), notice)));
    }
}

/// The nexuses that a TransportID names, at the sender's target port: a port whether it is there or
/// not, of a device those ports that are.
fn named(id: &TransportId, who: &NexusName, known: &[NexusName]) -> Vec<NexusName> {
    let here = |initiator: &str| NexusName { initiator: initiator.to_owned(), ..who.clone() };
    match id {
        TransportId::Port(port) => vec![here(port)],
        TransportId::Device(device) => {
            let of_it = known.iter().filter(|one| device_of(&one.initiator) == device);
            of_it.map(|one| here(&one.initiator)).collect()
        }
    }
}
