//! What a logical unit must be able to do, said without SCSI.
//!
//! A command is begun, perhaps given its write data, perhaps sent to the medium, and answered. The
//! server owns the order of these and everything about the wire; the device owns all meaning.

use core::fmt::Debug;
use std::sync::Arc;

use corbel_proto::iscsi::pdu::scsi::Attribute;
use corbel_proto::iscsi::target::{Response, TaskFault};
use corbel_proto::memory::Segments;
use corbel_proto::scsi::lun::Lun;
use smallvec::SmallVec;

use crate::reservation::Ended;
use crate::volume::{Outcome, Request, VolumeId};

/// What a unit must know of the way it was reached by.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// All logical units this initiator may see, ascending (for REPORT LUNS).
    pub luns: &'a [Lun],
    /// Counts changes of `luns`.
    pub luns_generation: u64,
    /// SCSI name of the target port: target name, `,t,0x`, group tag.
    pub port_name: &'a str,
    /// TargetPortalGroupTag.
    pub group: u16,
    /// All portal group tags of the target.
    pub groups: &'a [u16],
    /// Name of the initiator port: `NAME,i,0xISID`.
    pub initiator: &'a str,
}

/// A command, as far as a logical unit needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The CDB; at least 16 bytes, padded with zeros.
    pub cdb: &'a [u8],
    /// Task attribute.
    pub attribute: Attribute,
    /// Bytes of write data that the initiator announced.
    pub announced: u64,
    /// The way it was reached by.
    pub view: View<'a>,
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
    /// The medium, whatever becomes of the command: no abort, reset or end of the session stops
    /// the request, and nobody waits for it. With a response the command is answered at once.
    /// (Boxed, as it is rare and would be the largest of all.)
    Detach(Box<(Request<B>, W, Option<Response<B>>)>),
    /// The units of the target that the initiator may see: then [`Device::peers`].
    Peers(W),
    /// A small state file, of this name and with these bytes, on stable storage: then
    /// [`Device::kept`].
    Keep(String, Vec<u8>, W),
    /// The end of every command that those registered by these have on the unit, on whatever
    /// session; once none of them can reach the medium any more, this is the answer.
    Evict(Ended, Response<B>),
}

/// One logical unit. Shared by all sessions; what belongs to one I_T nexus is in `Nexus`.
pub trait Device<B>: Debug {
    /// What it keeps per session.
    type Nexus: Debug;
    /// What it keeps per command between two steps.
    type Work: Debug;

    /// What task management acts on.
    fn volume(&self) -> VolumeId;

    /// A session's first command to it came.
    fn nexus(self: &Arc<Self>, view: &View<'_>) -> Self::Nexus;

    /// A command came.
    fn begin(&self, nexus: &mut Self::Nexus, ask: &Ask<'_>) -> Next<B, Self::Work>;

    /// The data it asked for is here: less than it asked for, if the initiator announced less.
    fn data(
        &self,
        nexus: &mut Self::Nexus,
        view: &View<'_>,
        work: Self::Work,
        data: Segments<B>,
    ) -> Next<B, Self::Work>;

    /// The units that it asked for are `units`, by [`Next::Peers`].
    fn peers(
        &self,
        nexus: &mut Self::Nexus,
        work: Self::Work,
        units: &[Arc<Self>],
    ) -> Next<B, Self::Work>;

    /// Other volumes that the command works on: who ends what is done on them ends it too.
    fn also_on(_: &Self::Work) -> SmallVec<[VolumeId; 2]> {
        SmallVec::new()
    }

    /// The medium is done with this step. For a detached request also if nobody waits any more;
    /// then nothing but [`Next::Keep`] is done.
    fn outcome(&self, work: Self::Work, outcome: Outcome<B>) -> Next<B, Self::Work>;

    /// The state file of [`Next::Keep`] is stable, or could not be written. Called once for each,
    /// also if nobody waits for the answer any more: then an answer is dropped, and the rest is
    /// done.
    fn kept(&self, work: Self::Work, ok: bool) -> Next<B, Self::Work>;

    /// LOGICAL UNIT RESET: called once, whatever the number of sessions and shards; every nexus
    /// finds out by itself.
    fn reset(&self);

    /// The answer of a logical unit that is not there (INQUIRY and REPORT LUNS still are).
    fn missing(ask: &Ask<'_>) -> Response<B>;

    /// The answer to a command that another initiator's task management ended.
    fn aborted() -> Response<B>;

    /// The answer to a command that the wire spoilt.
    fn faulty(fault: TaskFault) -> Response<B>;
}
