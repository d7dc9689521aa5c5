//! The SCSI logical unit as a [`Device`] of the iSCSI server.

use std::sync::Arc;

use corbel_proto::iscsi::pdu::scsi::Attribute;
use corbel_proto::iscsi::target::{DataIn, Response, TaskFault};
use corbel_proto::memory::{Buffer, Segments};
use corbel_proto::scsi::copy::List;
use corbel_proto::scsi::sense::Key;
use corbel_proto::scsi::token;
use corbel_proto::scsi::{Condition, Status};
use smallvec::SmallVec;

use super::device::{Ask, Device, Next, View};
use crate::scsi::copy::{Copy, Progress};
use crate::scsi::{self, Action, LogicalUnit, MediaPlan, MissingLun, Nexus, Plan, Reply};
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
    Keep(Box<scsi::Kept>),
    /// A copy that was asked for.
    Copying(Box<List>),
    /// The same, of what a token names, by a list identifier.
    Writing(u32, Box<token::Write>),
    /// A copy under way.
    Copy(Box<Copy>),
}

/// INVALID MESSAGE ERROR. NORMACA is not offered, so there is never an auto contingent allegiance
/// that a command could be meant for (SAM-5 8.6).
const NO_ACA: Condition = Condition { key: Key::IllegalRequest, asc: 0x49, ascq: 0x00 };

/// One relative port and one port group per portal group.
fn scsi_view<'a>(view: &View<'a>) -> scsi::View<'a> {
    scsi::View {
        luns: view.luns,
        luns_generation: view.luns_generation,
        port_name: view.port_name,
        relative_port: view.group,
        port_group: view.group,
        ports: view.groups,
        initiator: view.initiator,
    }
}

/// A reply without payload; `wanted` bytes were the command's aim.
fn respond<B>(reply: Reply, wanted: u64) -> Response<B> {
    let sense = reply.sense.map(|sense| sense.as_slice().into());
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
        Action::Detach(mut media) => {
            let answer = media.answer_first.then(|| respond(Reply::good(Vec::new()), wanted));
            let request = unit.request(&mut media, Segments::new());
            let work = Work { data_out, wanted, step: Step::Media(media) };
            Next::Detach(Box::new((request, work, answer)))
        }
        Action::Copy(list) => {
            Next::Peers(Work { data_out, wanted, step: Step::Copying(Box::new(list)) })
        }
        Action::WriteUsingToken(list_id, order) => {
            Next::Peers(Work { data_out, wanted, step: Step::Writing(list_id, order) })
        }
        Action::Keep { file, bytes, then } => {
            let step = Step::Keep(Box::new(then));
            Next::Keep(file, bytes, Work { data_out, wanted, step })
        }
        Action::Evict(ended) => Next::Evict(ended, respond(Reply::good(Vec::new()), wanted)),
        Action::Parameters(command) => {
            Next::Gather(data_out, Work { data_out, wanted, step: Step::Parameters(command) })
        }
    }
}

impl LogicalUnit {
    /// The initiator announced less data than its own CDB takes. A plain write takes the whole
    /// blocks there are, and the residual count says what is missing (RFC 7143 11.4.5.1); anything
    /// else writes nothing.
    fn short<B: Buffer>(&self, work: Work, data: Segments<B>, given: u64) -> Next<B, Work> {
        let Work { data_out, wanted, step } = work;
        let condition = Condition::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT;
        let refusal = Next::Answer(check(condition, data_out));
        let Step::Media(mut media) = step else { return refusal };
        if !media.shorten(given, self.volume.facts.block_bytes) {
            return refusal;
        }
        if given == 0 {
            return Next::Answer(respond(Reply::good(Vec::new()), wanted));
        }
        let request = self.request(&mut media, data);
        Next::Submit(request, Work { data_out, wanted, step: Step::Media(media) })
    }
}

impl LogicalUnit {
    fn copy_on<B: Buffer>(
        &self,
        copy: Box<Copy>,
        progress: Progress<B>,
        wanted: u64,
    ) -> Next<B, Work> {
        match progress {
            Progress::Submit(request) => {
                Next::Submit(request, Work { data_out: 0, wanted, step: Step::Copy(copy) })
            }
            Progress::Done => Next::Answer(respond(Reply::good(Vec::new()), wanted)),
            Progress::Failed(sense) => {
                Next::Answer(respond(Reply::check(sense, self.descriptor_sense()), wanted))
            }
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
        if ask.attribute == Attribute::Aca {
            return Next::Answer(check(NO_ACA, 0));
        }
        let plan = nexus.begin_with(&scsi_view(&ask.view), ask.cdb, ask.announced);
        next(self, plan, 0)
    }

    fn data(
        &self,
        nexus: &mut Nexus,
        view: &View<'_>,
        work: Work,
        data: Segments<B>,
    ) -> Next<B, Work> {
        let given = segments_bytes(&data);
        if given < work.data_out {
            return self.short(work, data, given);
        }
        let Work { data_out, wanted, step } = work;
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
            Step::Keep(_) | Step::Copying(_) | Step::Writing(..) | Step::Copy(_) => {
                Next::Answer(check(Condition::INTERNAL_TARGET_FAILURE, 0))
            }
        }
    }

    fn outcome(&self, work: Work, outcome: Outcome<B>) -> Next<B, Work> {
        let Work { data_out, wanted, step } = work;
        let media = match step {
            Step::Media(media) => media,
            Step::Copy(mut copy) => {
                let progress = copy.outcome(outcome);
                return self.copy_on(copy, progress, wanted);
            }
            _ => return Next::Answer(check(Condition::INTERNAL_TARGET_FAILURE, 0)),
        };
        let done = self.finish(&media, outcome);
        let reply = Reply { status: done.status, sense: done.sense, data: Vec::new() };
        if let Some(plan) = self.erased(&media, reply) {
            return next(self, plan, wanted);
        }
        let sense = done.sense.map(|sense| sense.as_slice().into());
        // A failed read gives nothing; a failed write took its data.
        let wanted = match done.status {
            Status::Good => wanted.max(done.parameters.len() as u64),
            _ => data_out,
        };
        let data = match (done.data.is_empty(), done.parameters.is_empty()) {
            (false, _) => DataIn::Segments(done.data),
            (_, false) => done.parameters.into(),
            _ => DataIn::None,
        };
        let (status, sense) = (done.status as u8, sense.unwrap_or_default());
        Next::Answer(Response { status, sense, data, wanted })
    }

    fn peers(&self, nexus: &mut Nexus, work: Work, units: &[Arc<Self>]) -> Next<B, Work> {
        let Work { wanted, step, .. } = work;
        let copy = match step {
            Step::Copying(list) => nexus.copy(&list, units),
            Step::Writing(list_id, order) => nexus.write_using_token(list_id, &order, units),
            _ => return Next::Answer(check(Condition::INTERNAL_TARGET_FAILURE, 0)),
        };
        match copy {
            Ok(mut copy) => {
                let progress = copy.next_chunk();
                self.copy_on(Box::new(copy), progress, wanted)
            }
            Err(sense) => {
                Next::Answer(respond(Reply::check(sense, self.descriptor_sense()), wanted))
            }
        }
    }

    fn also_on(work: &Work) -> SmallVec<[VolumeId; 2]> {
        match &work.step {
            Step::Copy(copy) => copy.volumes(),
            _ => SmallVec::new(),
        }
    }

    fn kept(&self, work: Work, ok: bool) -> Next<B, Work> {
        let Work { wanted, step, .. } = work;
        let Step::Keep(then) = step else {
            return Next::Answer(check(Condition::INTERNAL_TARGET_FAILURE, 0));
        };
        next(self, Self::kept(self, *then, ok), wanted)
    }

    fn reset(&self) {
        Self::reset(self);
    }

    fn missing(ask: &Ask<'_>) -> Response<B> {
        let plan = MissingLun::begin(&scsi_view(&ask.view), ask.cdb);
        match plan.action {
            Action::Respond(reply) => respond(reply, plan.data_in),
            // It never plans anything else.
            Action::Media(_)
            | Action::Detach(_)
            | Action::Copy(_)
            | Action::WriteUsingToken(..)
            | Action::Parameters(_)
            | Action::Keep { .. }
            | Action::Evict(_) => check(Condition::LOGICAL_UNIT_NOT_SUPPORTED, 0),
        }
    }

    fn aborted() -> Response<B> {
        Response {
            status: Status::TaskAborted as u8,
            sense: Box::default(),
            data: DataIn::None,
            wanted: 0,
        }
    }

    fn faulty(fault: TaskFault) -> Response<B> {
        match fault {
            TaskFault::NoMemory => Response {
                status: Status::TaskSetFull as u8,
                sense: Box::default(),
                data: DataIn::None,
                wanted: 0,
            },
            TaskFault::DataDigest => check(Condition::PROTOCOL_SERVICE_CRC_ERROR, 0),
            TaskFault::ReadGone => check(Condition::FAILED_RETRANSMISSION_REQUEST, 0),
            TaskFault::Bidirectional => check(Condition::INVALID_COMMAND_OPERATION_CODE, 0),
            TaskFault::Data => check(Condition::NOT_ENOUGH_UNSOLICITED_DATA, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Facts, Identity, Kind, Options, Volume};
    use corbel_proto::memory::{HeapBuffer, Slice};
    use corbel_proto::scsi::lun::Lun;
    use proptest::prelude::*;

    const VIEW: View<'static> = View {
        luns: &[Lun::ZERO],
        luns_generation: 0,
        port_name: "iqn.x,t,0x0001",
        group: 1,
        groups: &[1],
        initiator: "iqn.y,i,0x400000000000",
    };

    fn unit() -> Arc<LogicalUnit> {
        let facts = Facts::volatile(512);
        let options = Options { thin: true, ..Options::default() };
        let identity = Identity::from_source("t");
        let volume = Volume::new(VolumeId(0), "v".into(), identity, facts, options, 1 << 20);
        Arc::new(LogicalUnit::new(Arc::new(volume)))
    }

    fn begin(unit: &Arc<LogicalUnit>, nexus: &mut Nexus, cdb: &[u8; 16]) -> Next<HeapBuffer, Work> {
        begin_with(unit, nexus, cdb, 1024)
    }

    fn begin_with(
        unit: &Arc<LogicalUnit>,
        nexus: &mut Nexus,
        cdb: &[u8; 16],
        announced: usize,
    ) -> Next<HeapBuffer, Work> {
        let announced = announced as u64;
        let ask = Ask { cdb, attribute: Attribute::Simple, announced, view: VIEW };
        unit.begin(nexus, &ask)
    }

    fn fresh(unit: &Arc<LogicalUnit>) -> Nexus {
        Device::<HeapBuffer>::nexus(unit, &VIEW)
    }

    fn outcome(
        unit: &LogicalUnit,
        work: Work,
        outcome: Outcome<HeapBuffer>,
    ) -> Response<HeapBuffer> {
        match unit.outcome(work, outcome) {
            Next::Answer(response) => response,
            next => panic!("not an answer: {next:?}"),
        }
    }

    fn payload(len: usize) -> Segments<HeapBuffer> {
        let pieces = (len > 0).then(|| Slice::whole(HeapBuffer::new(len)));
        pieces.into_iter().collect()
    }

    fn cdb(bytes: &[u8]) -> [u8; 16] {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        cdb
    }

    const WRITE_TWO_BLOCKS: [u8; 9] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 2];

    #[test]
    fn first_command_learns_of_power_on_and_the_next_writes() {
        let unit = unit();
        let mut nexus = fresh(&unit);
        let first = begin(&unit, &mut nexus, &cdb(&WRITE_TWO_BLOCKS));
        assert!(matches!(first, Next::Answer(answer) if answer.sense[2] & 0xf == 6));
        let Next::Gather(1024, work) = begin(&unit, &mut nexus, &cdb(&WRITE_TWO_BLOCKS)) else {
            panic!("two blocks of data are wanted");
        };
        let Next::Submit(request, work) = unit.data(&mut nexus, &VIEW, work, payload(1024)) else {
            panic!("it goes to the medium");
        };
        assert!(matches!(request.kind, Kind::Write { offset: 0, .. }));
        let done = outcome(&unit, work, Outcome::Done);
        assert_eq!((done.status, done.wanted), (0, 1024));
    }

    #[test]
    fn a_command_of_attribute_aca_is_refused_and_touches_nothing() {
        let unit = unit();
        let mut nexus = fresh(&unit);
        begin(&unit, &mut nexus, &[0; 16]);
        let write = cdb(&WRITE_TWO_BLOCKS);
        let ask = Ask { cdb: &write, attribute: Attribute::Aca, announced: 1024, view: VIEW };
        let next: Next<HeapBuffer, Work> = unit.begin(&mut nexus, &ask);
        let Next::Answer(answer) = next else { panic!("it is refused") };
        assert_eq!((answer.status, answer.sense[2] & 0xf), (2, 5));
        assert_eq!((answer.sense[12], answer.sense[13]), (0x49, 0));
        for attribute in [Attribute::Ordered, Attribute::HeadOfQueue, Attribute::Untagged] {
            let ask = Ask { attribute, ..ask };
            let next: Next<HeapBuffer, Work> = unit.begin(&mut nexus, &ask);
            assert!(matches!(next, Next::Gather(1024, _)));
        }
    }

    /// What becomes of `cdb` when only `announced` bytes come with it.
    fn with_data(cdb: &[u8; 16], announced: usize) -> Next<HeapBuffer, Work> {
        let unit = unit();
        let mut nexus = fresh(&unit);
        begin(&unit, &mut nexus, &[0; 16]);
        let Next::Gather(_, work) = begin_with(&unit, &mut nexus, cdb, announced) else {
            panic!("data is wanted");
        };
        unit.data(&mut nexus, &VIEW, work, payload(announced))
    }

    /// libiscsi's residual tests; a residual overflow tells the initiator what is missing.
    #[test]
    fn write_with_too_little_data_announced_writes_the_whole_blocks_there_are() {
        let step = with_data(&cdb(&WRITE_TWO_BLOCKS), 512);
        let Next::Submit(request, work) = step else { panic!("it goes to the medium") };
        let Kind::Write { offset: 0, data } = request.kind else { panic!("it writes") };
        assert_eq!(segments_bytes(&data), 512);
        let done = outcome(&unit(), work, Outcome::Done);
        assert_eq!((done.status, done.wanted), (0, 1024));
        let Next::Answer(answer) = with_data(&cdb(&WRITE_TWO_BLOCKS), 0) else {
            panic!("there is nothing to write");
        };
        assert_eq!((answer.status, answer.wanted), (0, 1024));
    }

    #[test]
    fn part_of_a_block_or_of_anything_but_a_write_reaches_no_medium() {
        let write_same = cdb(&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let write = cdb(&WRITE_TWO_BLOCKS);
        for (cdb, announced) in [(write, 200), (write, 712), (write_same, 0)] {
            let Next::Answer(answer) = with_data(&cdb, announced) else { panic!("{cdb:02x?}") };
            assert_eq!((answer.status, answer.sense[2] & 0xf), (2, 5));
            assert_eq!((answer.sense[12], answer.sense[13]), (0x0e, 3));
        }
    }

    /// libiscsi says 256 blocks in a count of one byte, and expects to be told.
    #[test]
    fn compare_and_write_and_write_same_of_another_length_than_announced_are_refused_at_once() {
        let caw = |blocks| cdb(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, blocks]);
        let same = cdb(&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let no_data = cdb(&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for (cdb, announced, asc) in [
            (caw(0), 512 * 512, 0x24),
            (caw(1), 512, 0x24),
            (caw(1), 2048, 0x24),
            (same, 1024, 0x0e),
            (no_data, 512, 0x0e),
        ] {
            let unit = unit();
            let mut nexus = fresh(&unit);
            begin(&unit, &mut nexus, &[0; 16]);
            let Next::Answer(answer) = begin_with(&unit, &mut nexus, &cdb, announced) else {
                panic!("{cdb:02x?} with {announced} bytes")
            };
            assert_eq!((answer.status, answer.sense[2] & 0xf, answer.sense[12]), (2, 5, asc));
        }
    }

    /// The list was taken: there is no residual, whenever the answer comes.
    #[test]
    fn reservations_that_are_kept_are_answered_with_all_data_taken() {
        let unit = unit();
        unit.volume.reservations.enable_persistence();
        let mut nexus = fresh(&unit);
        begin(&unit, &mut nexus, &[0; 16]);
        let register = cdb(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
        let Next::Gather(24, work) = begin_with(&unit, &mut nexus, &register, 24) else {
            panic!("a list is wanted");
        };
        let mut list = vec![0; 24];
        (list[15], list[20]) = (1, 1); // a key, APTPL
        let list = [Slice::whole(HeapBuffer::from_vec(list))].into_iter().collect();
        let Next::Keep(_, _, work) = unit.data(&mut nexus, &VIEW, work, list) else {
            panic!("it is written first");
        };
        let next = <LogicalUnit as Device<HeapBuffer>>::kept(&unit, work, true);
        let Next::Answer(answer) = next else { panic!("that is all") };
        assert_eq!((answer.status, answer.wanted), (0, 24));
    }

    #[test]
    fn no_memory_for_immediate_data_is_task_set_full() {
        let answer: Response<HeapBuffer> =
            <LogicalUnit as Device<HeapBuffer>>::faulty(TaskFault::NoMemory);
        assert_eq!(answer.status, 0x28);
    }

    proptest! {
        #[test]
        fn no_cdb_and_no_data_makes_it_panic(
            bytes: [u8; 16],
            opcode in prop::sample::select(&[
                0x00u8, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x25, 0x28, 0x2a, 0x2f, 0x34,
                0x35, 0x41, 0x42, 0x55, 0x5a, 0x88, 0x89, 0x8a, 0x8b, 0x8f, 0x93, 0x9e, 0xa0,
                0xa3, 0xa8, 0xaa, 0xff,
            ][..]),
            small: bool,
            announced in 0usize..5000,
        ) {
            let unit = unit();
            let mut nexus = fresh(&unit);
            begin(&unit, &mut nexus, &[0; 16]);
            let mut cdb = bytes;
            cdb[0] = opcode;
            if small {
                cdb[2..8].fill(0);
            }
            let mut step = begin(&unit, &mut nexus, &cdb);
            while let Next::Gather(wanted, work) = step {
                let len = announced.min(usize::try_from(wanted).unwrap());
                step = unit.data(&mut nexus, &VIEW, work, payload(len));
            }
            if let Next::Submit(_, work) = step {
                outcome(&unit, work, Outcome::Done);
            }
            let ask = Ask { cdb: &cdb, attribute: Attribute::Simple, announced: 0, view: VIEW };
            let missing = <LogicalUnit as Device<HeapBuffer>>::missing(&ask);
            prop_assert!(missing.sense.len() <= 252);
        }
    }
}
