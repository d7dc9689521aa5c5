//! What the transport is told to do with a command.

use corbel_proto::scsi::copy::List;
use corbel_proto::scsi::lun::Lun;
use corbel_proto::scsi::reservation::OutAction;
use corbel_proto::scsi::token;
use corbel_proto::scsi::{Sense, SenseBytes, Status};

use super::MediaPlan;
use crate::reservation::Ended;
use crate::volume::sanitize::Phase;

/// What a unit must know of the way it was reached by.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The units this initiator may see, ascending.
    pub luns: &'a [Lun],
    /// Counts changes of `luns`, so that each nexus can tell its initiator of them.
    pub luns_generation: u64,
    /// The target port's SCSI name: `iqn.….,t,0x0001`.
    pub port_name: &'a str,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub relative_port: u16,
    /// TARGET PORT GROUP.
    pub port_group: u16,
    /// All relative target ports of the target.
    pub ports: &'a [u16],
    /// The initiator port's name: `iqn.….,i,0x400001370000`.
    pub initiator: &'a str,
}

/// One command, understood.
#[derive(Debug)]
pub struct Plan {
    /// Bytes the command takes from the initiator: exactly this many are gathered.
    pub data_out: u64,
    /// Bytes it gives back if all goes well.
    pub data_in: u64,
    /// What to do.
    pub action: Action,
}

/// What to do with a command.
#[derive(Debug)]
pub enum Action {
    /// Send this; it is done.
    Respond(Reply),
    /// Gather [`Plan::data_out`] bytes, then ask
    /// [`LogicalUnit::request`](super::LogicalUnit::request).
    Media(MediaPlan),
    /// The same at once, and whatever becomes of the command: nobody can stop it or waits for its
    /// end, and with [`MediaPlan::answer_first`] it is answered now.
    Detach(MediaPlan),
    /// Gather [`Plan::data_out`] bytes (below 64 KiB) in one piece, then call
    /// [`Nexus::resume`](super::Nexus::resume).
    Parameters(ParameterCommand),
    /// Put the state file of this name and these bytes on stable storage, then ask
    /// [`LogicalUnit::kept`](super::LogicalUnit::kept).
    Keep {
        /// Its name.
        file: String,
        /// What is to stand in it.
        bytes: Vec<u8>,
        /// What it is for.
        then: Kept,
    },
    /// Ask [`Nexus::copy`](super::Nexus::copy), with the units of the target that the initiator
    /// may see, and carry that copy out.
    Copy(List),
    /// The same by [`Nexus::write_using_token`](super::Nexus::write_using_token), which is also
    /// given the list identifier.
    WriteUsingToken(u32, Box<token::Write>),
    /// End these commands on the unit; once none can reach the medium any more, answer GOOD.
    Evict(Ended),
}

/// What a state file is written for.
#[derive(Debug)]
pub enum Kept {
    /// A change of reservations.
    Reservations,
    /// States of target port groups.
    PortGroups,
    /// Mode pages.
    ModePages,
    /// The beginning of work on the whole medium, of SANITIZE or FORMAT UNIT.
    SanitizeBegun {
        /// What it does.
        media: MediaPlan,
        /// What was before.
        before: Phase,
    },
    /// The end of it.
    SanitizeEnded {
        /// It did what it should.
        done: bool,
        /// What its initiator is told, if it waits.
        reply: Reply,
    },
}

/// A command that waits for its parameter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCommand(pub(in crate::scsi) ParameterKind);

/// Whose parameter list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scsi) enum ParameterKind {
    Unmap,
    ReserveOut { action: OutAction, scope_type: u8 },
    ModeSelect { ten: bool, save: bool },
    SetPortGroups,
    ExtendedCopy,
    Sanitize { immediate: bool, unrestricted: bool },
    Format { long: bool },
    Token { list_id: u32, writes: bool },
}

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// SCSI status.
    pub status: Status,
    /// Sense data, with CHECK CONDITION.
    pub sense: Option<SenseBytes>,
    /// Parameter data, already cut to the allocation length.
    pub data: Vec<u8>,
}

impl Reply {
    /// A status that has no data.
    pub fn status(status: Status) -> Self {
        Self { status, sense: None, data: Vec::new() }
    }

    /// GOOD with `data`.
    pub fn good(data: Vec<u8>) -> Self {
        Self { status: Status::Good, sense: None, data }
    }

    /// CHECK CONDITION with `sense`, in descriptor format if `descriptor`.
    pub fn check(sense: Sense, descriptor: bool) -> Self {
        let sense = Some(sense.encode(descriptor));
        Self { status: Status::CheckCondition, sense, data: Vec::new() }
    }
}

impl Plan {
    /// Answer at once.
    pub(super) fn respond(reply: Reply) -> Self {
        Self { data_out: 0, data_in: reply.data.len() as u64, action: Action::Respond(reply) }
    }

    /// Answer GOOD with `data` cut to `allocation`.
    pub(super) fn data(data: Vec<u8>, allocation: u32) -> Self {
        Self::respond(Reply::good(corbel_proto::scsi::truncate(data, allocation)))
    }

    /// Answer GOOD.
    pub(super) fn good() -> Self {
        Self::respond(Reply::good(Vec::new()))
    }

    /// Work on the medium that takes `data_out` bytes and gives `data_in`.
    pub(super) fn media(media: MediaPlan, data_out: u64, data_in: u64) -> Self {
        Self { data_out, data_in, action: Action::Media(media) }
    }

    /// The unit's state has to be dealt with outside before it answers.
    pub(super) fn action(action: Action) -> Self {
        Self { data_out: 0, data_in: 0, action }
    }

    /// Wait for a parameter list of `len` bytes.
    pub(super) fn parameters(kind: ParameterKind, len: u16) -> Self {
        let action = Action::Parameters(ParameterCommand(kind));
        Self { data_out: u64::from(len), data_in: 0, action }
    }
}
