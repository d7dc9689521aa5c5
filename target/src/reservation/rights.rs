//! What a nexus may do (SPC-4 table 65 and 66, SBC-3 table 13).

use super::NexusName;
use super::state::State;

/// What a command needs of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing: it is allowed to everybody.
    Free,
    /// It asks whether the unit is ready: only an SPC-2 reservation keeps that secret.
    Ready,
    /// It tells what a persistent reservation may keep secret.
    Reads,
    /// It changes the medium, or the unit for others.
    Changes,
}

/// What a nexus may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// [`Access::Ready`].
    pub ready: bool,
    /// [`Access::Reads`].
    pub read: bool,
    /// [`Access::Changes`].
    pub change: bool,
}

impl Rights {
    /// Nobody has reserved anything.
    pub const ALL: Self = Self { ready: true, read: true, change: true };
    /// Another has it to itself.
    pub const NONE: Self = Self { ready: false, read: false, change: false };

    /// True if a command that needs `access` may run.
    pub const fn allow(self, access: Access) -> bool {
        match access {
            Access::Free => true,
            Access::Ready => self.ready,
            Access::Reads => self.read,
            Access::Changes => self.change,
        }
    }
}

impl State {
    /// What `who` may do under the persistent reservation; `None` is somebody without a name, who
    /// cannot be registered.
    pub fn rights(&self, who: Option<&NexusName>) -> Rights {
        let Some(held) = &self.held else { return Rights::ALL };
        let registered = who.is_some_and(|who| self.find(who).is_some());
        let holds = who.is_some_and(|who| self.holds(who));
        if holds || registered && held.kind.admits_registrants() {
            return Rights::ALL;
        }
        Rights { ready: true, read: held.kind.admits_readers(), change: false }
    }
}
