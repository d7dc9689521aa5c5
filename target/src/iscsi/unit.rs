//! The SCSI logical unit as a [`Device`] of the iSCSI server.

use std::sync::Arc;

use corbel_proto::iscsi::target::{DataIn, Response, TaskFault};
use corbel_proto::memory::{Buffer, Segments};
use corbel_proto::scsi::{Condition, Status};
use smallvec::SmallVec;

use super::device::{Ask, Device, Next, View};
use crate::scsi::{
    self, Action, Attention, LogicalUnit, MediaPlan, MissingLun, Nexus, Plan, Reply,
};
use crate::volume::request::segments_bytes;
use crate::volume::{Outcome, VolumeId};

/// A command between two steps.
#[derive(Debug)]
pub struct Work {
    /// Write data it takes, bytes.
    data_out: u64,
    /// Bytes it is about, in either direction.
    wanted: u64,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Media(MediaPlan),
    Parameters(scsi::ParameterCommand),
}

/// One relative port and one port group per portal group.
fn scsi_view<'a>(view: &View<'a>) -> scsi::View<'a> {
    scsi::View {
        luns: view.luns,
        luns_generation: view.luns_generation,
        port_name: view.port_name,
        relative_port: view.group,
        port_group: view.group,
    }
}

/// A reply without payload; `wanted` bytes were the command's aim.
fn respond<B>(reply: Reply, wanted: u64) -> Response<B> {
    let sense = reply.sense.map(|sense| SmallVec::from_slice(sense.as_slice()));
    let data = if reply.data.is_empty() { DataIn::None } else { reply.data.into() };
    Response { status: reply.status as u8, sense: sense.unwrap_or_default(), data, wanted }
}

fn check<B>(condition: Condition, wanted: u64) -> Response<B> {
    respond(Reply::check(condition.into(), false), wanted)
}

/// What a plan needs next. `taken` bytes of write data were there already.
fn next<B: Buffer>(unit: &LogicalUnit, plan: Plan, taken: u64) -> Next<B, Work> {
    let Plan { data_out, data_in, action } = plan;
    let wanted = data_out.max(data_in).max(taken);
    match action {
        Action::Respond(reply) => {
            // A refusal at once moves nothing.
            let wanted = if reply.status == Status::Good { wanted } else { taken };
            Next::Answer(respond(reply, wanted))
        }
        Action::Media(media) if data_out > 0 => {
            Next::Gather(data_out, Work { data_out, wanted, step: Step::Media(media) })
        }
        Action::Media(mut media) => {
            let request = unit.request(&mut media, Segments::new());
            Next::Submit(request, Work { data_out, wanted, step: Step::Media(media) })
        }
        Action::Parameters(command) => {
            Next::Gather(data_out, Work { data_out, wanted, step: Step::Parameters(command) })
        }
    }
}

impl<B: Buffer> Device<B> for LogicalUnit {
    type Nexus = Nexus;
    type Work = Work;

    fn volume(&self) -> VolumeId {
        self.volume.id
    }

    fn nexus(self: &Arc<Self>, view: &View<'_>) -> Nexus {
        Nexus::new(self.clone(), &scsi_view(view))
    }

    fn begin(&self, nexus: &mut Nexus, ask: &Ask<'_>) -> Next<B, Work> {
        let plan = nexus.begin(&scsi_view(&ask.view), ask.cdb);
        next(self, plan, 0)
    }

    fn data(
        &self,
        nexus: &mut Nexus,
        view: &View<'_>,
        work: Work,
        data: Segments<B>,
    ) -> Next<B, Work> {
        let Work { data_out, wanted, step } = work;
        if segments_bytes(&data) < data_out {
            // The initiator announced less than its own CDB takes: nothing is written.
            let condition = Condition::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT;
            return Next::Answer(check(condition, data_out));
        }
        match step {
            Step::Media(mut media) => {
                let request = self.request(&mut media, data);
                Next::Submit(request, Work { data_out, wanted, step: Step::Media(media) })
            }
            Step::Parameters(command) => {
                // Below 64 KiB, so in one piece.
                let list = data.first().map_or(&[][..], |piece| piece.bytes());
                let plan = nexus.resume(&scsi_view(view), command, list);
                next(self, plan, data_out)
            }
        }
    }

    fn outcome(&self, work: Work, outcome: Outcome<B>) -> Response<B> {
        let Work { data_out, wanted, step } = work;
        let Step::Media(media) = step else {
            return check(Condition::INTERNAL_TARGET_FAILURE, 0);
        };
        let done = self.finish(&media, outcome);
        let sense = done.sense.map(|sense| SmallVec::from_slice(sense.as_slice()));
        let data = if done.data.is_empty() { DataIn::None } else { DataIn::Segments(done.data) };
        // A failed read gives nothing; a failed write took its data.
        let wanted = if done.status == Status::Good { wanted } else { data_out };
        Response { status: done.status as u8, sense: sense.unwrap_or_default(), data, wanted }
    }

    fn cleared(&self, nexus: &mut Nexus) {
        nexus.attend(Attention::CommandsCleared);
    }

    fn reset(&self) {
        Self::reset(self);
    }

    fn missing(ask: &Ask<'_>) -> Response<B> {
        let plan = MissingLun::begin(&scsi_view(&ask.view), ask.cdb);
        match plan.action {
            Action::Respond(reply) => respond(reply, plan.data_in),
            // It never plans anything else.
            Action::Media(_) | Action::Parameters(_) => {
                check(Condition::LOGICAL_UNIT_NOT_SUPPORTED, 0)
            }
        }
    }

    fn faulty(fault: TaskFault) -> Response<B> {
        match fault {
            TaskFault::NoMemory => Response {
                status: Status::TaskSetFull as u8,
                sense: SmallVec::new(),
                data: DataIn::None,
                wanted: 0,
            },
            TaskFault::DataDigest => check(Condition::PROTOCOL_SERVICE_CRC_ERROR, 0),
            TaskFault::Data => check(Condition::NOT_ENOUGH_UNSOLICITED_DATA, 0),
        }
    }
}
