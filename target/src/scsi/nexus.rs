//! One initiator's view of one unit: what it has been told, and what it has yet to be told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use corbel_proto::scsi::alua::AccessState;
use corbel_proto::scsi::{Condition, Sense};

use super::commands::token;
use super::copy::Account;
use super::{LogicalUnit, View};
use crate::reservation::{Access, NexusName, Notice, Rights};

/// What an initiator is told at its next command (SAM-5 5.14), most pressing first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Attention {
    /// A new nexus: nothing is known about what came before.
    PowerOn = 0,
    /// The unit was reset.
    Reset = 1,
    /// A medium was loaded.
    MediumLoaded = 2,
    /// The volume has another size.
    CapacityChanged = 3,
    /// Another initiator changed mode parameters.
    ModeChanged = 4,
    /// REPORT LUNS has something new.
    LunsChanged = 5,
    /// Another initiator ended the reservation and all registrations.
    ReservationsPreempted = 6,
    /// Another initiator gave the reservation up.
    ReservationsReleased = 7,
    /// Another initiator took this one's registration.
    RegistrationsPreempted = 8,
    /// A target port group has another state.
    AccessChanged = 9,
    /// The target could not give a target port group the state it wanted to.
    AccessChangeFailed = 10,
    /// Little room is left for a thin unit.
    SpaceLow = 11,
}

/// All, in the order they are told.
const ORDER: [Attention; 12] = [
    Attention::PowerOn,
    Attention::Reset,
    Attention::MediumLoaded,
    Attention::ReservationsPreempted,
    Attention::ReservationsReleased,
    Attention::RegistrationsPreempted,
    Attention::AccessChanged,
    Attention::AccessChangeFailed,
    Attention::CapacityChanged,
    Attention::ModeChanged,
    Attention::SpaceLow,
    Attention::LunsChanged,
];

impl Attention {
    /// Its sense.
    pub const fn condition(self) -> Condition {
        match self {
            Self::PowerOn => Condition::POWER_ON_OR_RESET_OCCURRED,
            Self::Reset => Condition::BUS_DEVICE_RESET_FUNCTION_OCCURRED,
            Self::MediumLoaded => Condition::NOT_READY_TO_READY_CHANGE,
            Self::CapacityChanged => Condition::CAPACITY_DATA_HAS_CHANGED,
            Self::SpaceLow => Condition::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED,
            Self::ModeChanged => Condition::MODE_PARAMETERS_CHANGED,
            Self::LunsChanged => Condition::REPORTED_LUNS_DATA_HAS_CHANGED,
            Self::ReservationsPreempted => Condition::RESERVATIONS_PREEMPTED,
            Self::ReservationsReleased => Condition::RESERVATIONS_RELEASED,
            Self::RegistrationsPreempted => Condition::REGISTRATIONS_PREEMPTED,
            Self::AccessChanged => Condition::ASYMMETRIC_ACCESS_STATE_CHANGED,
            Self::AccessChangeFailed => {
                Condition::IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED
            }
        }
    }
}

/// Generations this initiator knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) size: u64,
    pub(super) mode: u64,
    pub(super) medium: u64,
    pub(super) reset: u64,
    pub(super) luns: u64,
    pub(super) reservations: u64,
    pub(super) access: u64,
    pub(super) space: u64,
}

/// One initiator (session) and one unit. Owned by the session; pending attentions are a set, so
/// they are bounded and never doubled.
#[derive(Debug)]
pub struct Nexus {
    pub(super) lu: Arc<LogicalUnit>,
    pub(super) seen: Seen,
    /// What reservations call it by.
    pub(super) name: NexusName,
    rights: Rights,
    /// State of the target port group it comes in by.
    pub(super) access: AccessState,
    pending: u16,
    prevents: bool,
    /// Its copies by their list identifiers, oldest first.
    pub(super) copies: Vec<(u8, Arc<Account>)>,
    /// Its commands with tokens, the same way.
    pub(super) tokens: Vec<(u32, token::Outcome)>,
    /// Failed flushes of the volume that this initiator has been told of.
    flush_failures: u64,
}

impl Nexus {
    /// A new nexus, whose first attention is power on.
    pub fn new(lu: Arc<LogicalUnit>, view: &View<'_>) -> Self {
        let seen = Self::current(&lu, view);
        let flush_failures = lu.volume.flush_failures();
        let name = NexusName::new(view.initiator, view.port_name, view.relative_port);
        lu.volume.reservations.attach(&name);
        let (rights, _) = lu.volume.reservations.look(&name);
        let access = lu.port_groups.look(seen.access, &name, view.port_group).state;
        let mut nexus = Self {
            lu,
            seen,
            name,
            rights,
            access,
            pending: 0,
            prevents: false,
            copies: Vec::new(),
            tokens: Vec::new(),
            flush_failures,
        };
        nexus.attend(Attention::PowerOn);
        nexus
    }

    /// The unit.
    pub fn unit(&self) -> &Arc<LogicalUnit> {
        &self.lu
    }

    /// Tell the initiator at its next command.
    pub fn attend(&mut self, attention: Attention) {
        self.pending |= 1 << attention as u8;
    }

    /// The initiator knows of it: after REPORT LUNS on any unit of the target, that the list has
    /// changed is news no more (SPC-4 6.33).
    pub fn forget(&mut self, attention: Attention) {
        self.pending &= !(1 << attention as u8);
    }

    /// True if the next ordinary command will be answered by a unit attention.
    pub fn has_attention(&mut self, view: &View<'_>) -> bool {
        self.refresh(view);
        self.pending != 0
    }

    fn current(lu: &LogicalUnit, view: &View<'_>) -> Seen {
        Seen {
            size: lu.volume.size_generation(),
            mode: lu.mode.generation(),
            medium: lu.medium_generation.load(Ordering::Acquire),
            reset: lu.reset_generation.load(Ordering::Acquire),
            luns: view.luns_generation,
            reservations: lu.volume.reservations.epoch(),
            access: lu.port_groups.generation(),
            space: lu.volume.space.generation(),
        }
    }

    /// Notices what has changed since this initiator was last served.
    pub(super) fn refresh(&mut self, view: &View<'_>) {
        let mut now = Self::current(&self.lu, view);
        if now == self.seen {
            return;
        }
        let changed = [
            (now.reset != self.seen.reset, Attention::Reset),
            (now.medium != self.seen.medium, Attention::MediumLoaded),
            (now.size != self.seen.size, Attention::CapacityChanged),
            (now.luns != self.seen.luns, Attention::LunsChanged),
            (now.space != self.seen.space, Attention::SpaceLow),
        ];
        for (_, attention) in changed.iter().filter(|(changed, _)| *changed) {
            self.attend(*attention);
        }
        if now.mode != self.seen.mode && self.lu.mode.changed_by_others(self.seen.mode, &self.name)
        {
            self.attend(Attention::ModeChanged);
        }
        if now.reservations != self.seen.reservations {
            self.look_at_reservations();
        }
        if now.access != self.seen.access {
            now.access = self.look_at_access(view.port_group);
        }
        if now.reset != self.seen.reset {
            self.prevents = false; // the reset has cleared it
        }
        self.seen = now;
    }

    fn look_at_reservations(&mut self) {
        let (rights, notices) = self.lu.volume.reservations.look(&self.name);
        self.rights = rights;
        for notice in notices {
            self.attend(match notice {
                Notice::ReservationsPreempted => Attention::ReservationsPreempted,
                Notice::ReservationsReleased => Attention::ReservationsReleased,
                Notice::RegistrationsPreempted => Attention::RegistrationsPreempted,
            });
        }
    }

    /// Gives the generation it has seen.
    fn look_at_access(&mut self, group: u16) -> u64 {
        let look = self.lu.port_groups.look(self.seen.access, &self.name, group);
        self.access = look.state;
        for (told, attention) in
            [(look.changed, Attention::AccessChanged), (look.failed, Attention::AccessChangeFailed)]
        {
            if told {
                self.attend(attention);
            }
        }
        look.generation
    }

    /// True if no reservation of others forbids what needs `access`. As of the last refresh.
    pub(super) const fn may(&self, access: Access) -> bool {
        self.rights.allow(access)
    }

    /// True once after a flush of the volume failed, whoever asked for it: what this initiator
    /// wrote may be lost with the rest, and its own flush, which succeeds, would not say so.
    pub(super) fn writes_were_lost(&mut self) -> bool {
        let failures = self.lu.volume.flush_failures();
        std::mem::replace(&mut self.flush_failures, failures) != failures
    }

    /// Takes the attention to be told now.
    pub(super) fn take_attention(&mut self) -> Option<Sense> {
        let attention = ORDER.into_iter().find(|a| self.pending & 1 << *a as u8 != 0)?;
        self.forget(attention);
        if attention == Attention::PowerOn {
            self.forget(Attention::Reset); // says the same, and less
        }
        Some(attention.condition().into())
    }

    /// PREVENT ALLOW MEDIUM REMOVAL by this initiator.
    pub(super) fn set_prevent(&mut self, prevent: bool) {
        match (self.prevents, prevent) {
            (false, true) => self.lu.prevent(),
            (true, false) => self.lu.allow(),
            _ => {}
        }
        self.prevents = prevent;
    }
}

impl Drop for Nexus {
    /// An initiator that went away prevents nothing (SBC-3 5.9), and has no SPC-2 reservation.
    fn drop(&mut self) {
        self.lu.volume.reservations.detach(&self.name);
        if self.prevents && self.lu.reset_generation.load(Ordering::Acquire) == self.seen.reset {
            self.lu.allow();
        }
    }
}
