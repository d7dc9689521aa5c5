//! What a logical unit must be able to do, said without SCSI.
//!
//! A command is begun, perhaps given its write data, perhaps sent to the medium, and answered. The
//! server owns the order of these and everything about the wire; the device owns all meaning.

use core::fmt::Debug;

use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::login::target::Admission;
use corbel_proto::iscsi::pdu::scsi::Attribute;
use corbel_proto::iscsi::target::{Response, TaskFault};
use corbel_proto::memory::Segments;

use crate::volume::{Outcome, Request, VolumeId};

/// A command, as far as a logical unit needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The CDB; at least 16 bytes, padded with zeros.
    pub cdb: &'a [u8],
    /// Which logical unit was addressed.
    pub lun: Lun,
    /// All logical units this initiator may see, ascending (for REPORT LUNS).
    pub luns: &'a [Lun],
    /// Task attribute.
    pub attribute: Attribute,
}

/// What a command needs next.
#[derive(Debug)]
pub enum Next<B, W> {
    /// Nothing: this is the answer.
    Answer(Response<B>),
    /// Its write data, this many bytes (or as many as the initiator sends).
    Gather(u64, W),
    /// The medium.
    Submit(Request<B>, W),
}

/// What happened to a session's tasks that its initiator did not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Another initiator cleared them (2Fh/00h).
    Cleared,
    /// The logical unit was reset (29h/03h).
    Reset,
    /// The set of logical units changed (3Fh/0Eh).
    LunsChanged,
}

/// One logical unit. Shared by all sessions; what belongs to one I_T nexus is in `Nexus`.
pub trait Device<B>: Debug {
    /// What it keeps per session.
    type Nexus: Debug;
    /// What it keeps per command between two steps.
    type Work: Debug;

    /// What task management acts on.
    fn volume(&self) -> VolumeId;

    /// A session began.
    fn nexus(&self, admission: &Admission) -> Self::Nexus;

    /// A session is over.
    fn detach(&self, nexus: Self::Nexus);

    /// A command came.
    fn begin(&self, nexus: &mut Self::Nexus, ask: &Ask<'_>) -> Next<B, Self::Work>;

    /// The data it asked for is here.
    fn data(
        &self,
        nexus: &mut Self::Nexus,
        work: Self::Work,
        data: Segments<B>,
    ) -> Next<B, Self::Work>;

    /// The medium is done.
    fn outcome(
        &self,
        nexus: &mut Self::Nexus,
        work: Self::Work,
        outcome: Outcome<B>,
    ) -> Next<B, Self::Work>;

    /// Something to tell the session's initiator with its next command.
    fn attention(&self, nexus: &mut Self::Nexus, attention: Attention);

    /// The answer of a logical unit that is not there (INQUIRY and REPORT LUNS still are).
    fn missing(ask: &Ask<'_>) -> Response<B>;

    /// The answer to a command that the wire spoilt.
    fn faulty(fault: TaskFault) -> Response<B>;
}
