//! What comes in: PDUs in wire order, commands in CmdSN order.

use smallvec::SmallVec;

use super::fault::{Answer, Fault, TaskFault};
use super::order::Held;
use super::output::StatSn;
use super::tasks::{self, Place, Task};
use super::{Closed, Command, Connection, Event, Phase, TEXT_BYTES_MAX};
use crate::error::Violation;
use crate::iscsi::ahs::Ahs;
use crate::iscsi::bhs::{Bhs, DATA_BYTES_MAX, Lun, Opcode, TAG_NONE};
use crate::iscsi::framer::Step;
use crate::iscsi::pdu::Numbers;
use crate::iscsi::pdu::data::DataOut;
use crate::iscsi::pdu::login::LoginRequest;
use crate::iscsi::pdu::logout::LogoutRequest;
use crate::iscsi::pdu::nop::{NopIn, NopOut};
use crate::iscsi::pdu::reject::{Reject, RejectReason};
use crate::iscsi::pdu::scsi::ScsiCommand;
use crate::iscsi::pdu::snack::Snack;
use crate::iscsi::pdu::task::TaskRequest;
use crate::iscsi::pdu::text::TextRequest;
use crate::iscsi::sequence::Window;
use crate::iscsi::transfer::Transfer;
use crate::memory::{Arena, Buffer, Slice};
use crate::time::Instant;

/// A request that takes a place in command order.
#[derive(Debug)]
pub(super) enum Request {
    Command(ScsiCommand, SmallVec<[u8; 16]>),
    Task(TaskRequest),
    Text(TextRequest, Vec<u8>),
    Nop(NopOut, Vec<u8>),
    Logout(LogoutRequest),
    /// Rejected, but its number counts.
    Refused,
    /// A command that was aborted, by another connection, before it had its turn.
    Skipped(u32),
}

impl Request {
    pub(super) fn itt(&self) -> u32 {
        match self {
            Self::Command(command, _) => command.itt,
            Self::Task(request) => request.itt,
            Self::Text(request, _) => request.task_tag,
            Self::Nop(nop, _) => nop.itt,
            Self::Logout(request) => request.itt,
            Self::Skipped(itt) => *itt,
            Self::Refused => TAG_NONE,
        }
    }

    /// Its tag, if it is a command on `lun` (or on any).
    pub(super) fn command_on(&self, lun: Option<Lun>) -> Option<u32> {
        match self {
            Self::Command(command, _) if lun.is_none_or(|lun| lun == command.lun) => {
                Some(command.itt)
            }
            _ => None,
        }
    }
}

/// Where the data segment being received goes.
#[derive(Debug)]
enum Sink {
    Discard,
    /// Gathered, up to a length.
    Text(Vec<u8>, usize),
    /// A command's buffer, from here on.
    Place {
        itt: u32,
        offset: u32,
    },
}

/// The PDU being received.
#[derive(Debug)]
pub(super) struct Current {
    sink: Sink,
    /// What its header was judged to be.
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Its number was out of the window, or it is for nobody: as if it never came.
    Ignored,
    Faulty(Fault),
    Login(LoginRequest),
    /// With its length.
    Data(DataOut, u32),
    Snack(Snack),
    /// With CmdSN, or `None` if immediate.
    Numbered(Option<u32>, Request),
}

impl<B: Buffer> Connection<B> {
    /// Takes bytes of the stream. All of them are used up.
    pub fn handle_bytes<A: Arena<Buf = B>>(&mut self, bytes: &[u8], arena: &mut A, now: Instant) {
        let taken = self.handle_some(bytes, usize::MAX, arena, now);
        debug_assert_eq!(taken, bytes.len());
    }

    /// Takes bytes of the stream until they have brought `events_max` events, and says how many
    /// were taken. A host that answers the first commands of a batch before it looks at the last
    /// ones keeps both ends of the connection at work.
    pub fn handle_some<A: Arena<Buf = B>>(
        &mut self,
        bytes: &[u8],
        events_max: usize,
        arena: &mut A,
        now: Instant,
    ) -> usize {
        assert!(self.lent.is_none(), "the host still receives into payload memory");
        self.hear(now);
        let mut rest = bytes;
        while self.phase != Phase::Closed {
            match self.framer.push(rest) {
                Err(malformed) => self.close(Closed::Fault(Fault::HeaderDigest(malformed))),
                Ok((taken, step)) => {
                    rest = &rest[taken..];
                    match step {
                        Step::More => return bytes.len(),
                        Step::Header => self.header(arena),
                        Step::Data(part) => self.data(part),
                        Step::End { digest_ok } => {
                            self.end(digest_ok, arena);
                            if self.events.len() >= events_max {
                                return bytes.len() - rest.len();
                            }
                        }
                    }
                }
            }
        }
        // Nothing that a closed connection brings matters any more.
        bytes.len()
    }

    /// How many of the next stream bytes are payload that can be received straight to its place:
    /// then use [`Self::take_direct`]. Changes with every call that takes input.
    pub fn direct(&self) -> Option<u32> {
        let Some(Current { sink: Sink::Place { .. }, .. }) = &self.current else { return None };
        (self.lent.is_none() && self.framer.data_left() > 0).then(|| self.framer.data_left())
    }

    /// Lends the place of the next stream bytes: receive at most its length into it, then call
    /// [`Self::direct_done`]. Nothing else may be fed in between.
    pub fn take_direct(&mut self) -> Option<Slice<B>> {
        let left = self.direct()?;
        let Some(Current { sink: Sink::Place { itt, offset }, .. }) = &self.current else {
            return None;
        };
        let transfer = self.tasks.get_mut(itt)?.transfer.as_mut()?;
        let (index, slice) = transfer.take(*offset, left)?;
        self.lent = Some((*itt, index));
        Some(slice)
    }

    /// The slice that [`Self::take_direct`] lent, with its first `len` bytes received (0 if the
    /// host received nothing).
    pub fn direct_done<A: Arena<Buf = B>>(
        &mut self,
        slice: Slice<B>,
        len: u32,
        arena: &mut A,
        now: Instant,
    ) {
        let Some((itt, index)) = self.lent.take() else { return };
        let received = slice.sub(0, len);
        if len > 0 && self.phase != Phase::Closed {
            self.hear(now);
            self.framer.placed(received.bytes());
        }
        drop(received);
        if let Some(transfer) = self.tasks.get_mut(&itt).and_then(|task| task.transfer.as_mut()) {
            transfer.give_back(index, slice.buffer);
        }
        if let Some(Current { sink: Sink::Place { offset, .. }, .. }) = &mut self.current {
            *offset += len;
        }
        if self.framer.data_left() == 0 {
            self.handle_bytes(&[], arena, now);
        }
    }

    fn hear(&mut self, now: Instant) {
        self.heard = self.heard.max(now);
        self.ping = None;
    }

    /// A header is complete: decide what it is and where its data goes.
    fn header<A: Arena<Buf = B>>(&mut self, arena: &mut A) {
        let bhs = self.framer.bhs();
        let current = self
            .judge(&bhs, arena)
            .unwrap_or_else(|fault| Current { sink: Sink::Discard, kind: Kind::Faulty(fault) });
        if let Kind::Faulty(fault) = current.kind
            && fault.answer() == Answer::Drop
        {
            return self.close(Closed::Fault(fault));
        }
        self.current = Some(current);
    }

    fn judge<A: Arena<Buf = B>>(&mut self, bhs: &Bhs, arena: &mut A) -> Result<Current, Fault> {
        let len = bhs.data_bytes();
        let opcode = bhs.opcode().ok_or(Fault::UnknownOpcode);
        match self.phase {
            Phase::Full => {}
            Phase::Login | Phase::LoginAsked => return self.judge_login(bhs),
            Phase::LogoutAsked | Phase::Closed => {
                return Ok(Current { sink: Sink::Discard, kind: Kind::Ignored });
            }
        }
        self.acknowledge(bhs)?;
        if len > self.agreed.segment_bytes_max {
            let why = "longer than MaxRecvDataSegmentLength";
            return Err(Fault::Violation(Violation::new("data segment", why, "RFC 7143 13.12")));
        }
        let text = |max: u32| Sink::Text(Vec::new(), len.min(max) as usize);
        let numbered = |immediate: bool, sn: u32| (!immediate).then_some(sn);
        let (sink, number, request) = match opcode? {
            Opcode::DataOut => return self.judge_data(&DataOut::parse(bhs), len),
            Opcode::ScsiCommand => return self.judge_command(bhs, len, arena),
            Opcode::TaskRequest => {
                let request = TaskRequest::parse(bhs);
                let number = numbered(request.immediate, request.cmd_sn);
                (Sink::Discard, number, Request::Task(request))
            }
            Opcode::TextRequest => {
                let request = TextRequest::parse(&bhs.0).map_err(Fault::Malformed)?;
                if len > TEXT_BYTES_MAX {
                    let why = "longer than any we take";
                    let violation = Violation::new("Text Request", why, "RFC 7143 11.10");
                    return Err(Fault::Violation(violation));
                }
                let number = numbered(request.immediate, request.cmd_sn);
                (text(TEXT_BYTES_MAX), number, Request::Text(request, Vec::new()))
            }
            Opcode::NopOut => {
                let nop = NopOut::parse(bhs);
                if nop.itt == TAG_NONE {
                    return Ok(Current { sink: Sink::Discard, kind: Kind::Ignored });
                }
                let number = numbered(nop.immediate, nop.cmd_sn);
                (text(self.agreed.peer_segment_bytes_max), number, Request::Nop(nop, Vec::new()))
            }
            Opcode::LogoutRequest => {
                let request = LogoutRequest::parse(bhs).map_err(Fault::Malformed)?;
                let number = numbered(request.immediate, request.cmd_sn);
                (Sink::Discard, number, Request::Logout(request))
            }
            Opcode::Snack if self.recovery.is_some() => {
                return Ok(Current { sink: Sink::Discard, kind: Kind::Snack(Snack::parse(bhs)) });
            }
            Opcode::Snack => return Err(Fault::Snack),
            Opcode::LoginRequest => {
                let why = "the session is logged in";
                return Err(Fault::Violation(Violation::new("Login", why, "RFC 7143 6.3")));
            }
            _ => return Err(Fault::UnknownOpcode),
        };
        if self.is_outside(number) {
            return Ok(Current { sink: Sink::Discard, kind: Kind::Ignored });
        }
        Ok(Current { sink, kind: Kind::Numbered(number, request) })
    }

    /// Every PDU of an initiator has ExpStatSN at the same place.
    fn acknowledge(&mut self, bhs: &Bhs) -> Result<(), Fault> {
        self.exp_stat_sn = bhs.u32_at(28);
        if !self.fences.is_empty() {
            self.pass_fences();
        }
        let Some(recovery) = &mut self.recovery else { return Ok(()) };
        recovery.acknowledged(self.exp_stat_sn, self.stat_sn);
        if recovery.is_overfull() { Err(Fault::Unacknowledged) } else { Ok(()) }
    }

    /// Outside the command window, or there already: silently ignored (RFC 7143 4.2.2.1).
    fn is_outside(&self, number: Option<u32>) -> bool {
        number
            .is_some_and(|sn| !self.order.window.contains(sn) || self.order.held.contains_key(&sn))
    }

    fn judge_login(&mut self, bhs: &Bhs) -> Result<Current, Fault> {
        let len = bhs.data_bytes();
        if self.phase != Phase::Login || len > TEXT_BYTES_MAX {
            return Err(Fault::NotLogin);
        }
        let request = LoginRequest::parse(&bhs.0).map_err(|_| Fault::NotLogin)?;
        let sink = Sink::Text(Vec::new(), len as usize);
        Ok(Current { sink, kind: Kind::Login(request) })
    }

    fn judge_data(&mut self, data: &DataOut, len: u32) -> Result<Current, Fault> {
        let ignored = Current { sink: Sink::Discard, kind: Kind::Ignored };
        // Data for a command that was answered or aborted is still on its way: let it pass.
        let Some(task) = self.tasks.get_mut(&data.itt) else { return Ok(ignored) };
        if task.fault.is_some() || task.answered {
            return Ok(ignored);
        }
        let nobody = Violation::new("Data-Out", "nobody asked for it", "RFC 7143 11.7.4");
        let transfer = task.transfer.as_mut().ok_or(Fault::Data(nobody));
        transfer.and_then(|t| t.accept(data, len).map_err(Fault::Data))?;
        let sink = Sink::Place { itt: data.itt, offset: data.offset };
        Ok(Current { sink, kind: Kind::Data(*data, len) })
    }

    fn judge_command<A: Arena<Buf = B>>(
        &mut self,
        bhs: &Bhs,
        len: u32,
        arena: &mut A,
    ) -> Result<Current, Fault> {
        let command = ScsiCommand::parse(bhs).map_err(Fault::Malformed)?;
        let ahs = Ahs::parse(self.framer.ahs()).map_err(Fault::Malformed)?;
        let number = (!command.immediate).then_some(command.cmd_sn);
        if self.is_outside(number) {
            return Ok(Current { sink: Sink::Discard, kind: Kind::Ignored });
        }
        if command.immediate && !self.has_immediate_room() {
            return Err(Fault::TooManyImmediate);
        }
        let violation =
            |why| Fault::Violation(Violation::new("SCSI Command", why, "RFC 7143 11.3"));
        if command.itt == TAG_NONE || self.tasks.contains_key(&command.itt) {
            return Err(violation("its task tag is in use"));
        }
        let unasked = self.agreed.first_burst_bytes_max.min(command.edtl);
        if len > 0 && (!self.agreed.immediate_data || !command.write || len > unasked) {
            return Err(violation("more immediate data than agreed"));
        }
        if command.write && !command.is_final && self.agreed.initial_r2t {
            return Err(violation("unsolicited data was not agreed"));
        }
        let more = command.write && !command.is_final;
        let back = ahs.read_bytes.unwrap_or(0);
        let both = command.read && command.write && (command.edtl > 0 || back > 0);
        if let Some(recovery) = &mut self.recovery {
            recovery.forget(command.itt);
        }
        let mut task = Task {
            lun: command.lun,
            place: if command.immediate { Place::Immediate } else { Place::Window },
            edtl: command.edtl,
            read: command.read && !both,
            write: command.write,
            bidirectional: both.then_some(back),
            delivered: false,
            fault: both.then_some(TaskFault::Bidirectional),
            transfer: None,
            r2ts: 0,
            data_sn: 0,
            awaits_data: false,
            answered: false,
        };
        let mut sink = Sink::Discard;
        if !both && (len > 0 || more) {
            let (first, in_order) =
                (self.agreed.first_burst_bytes_max, self.agreed.data_pdu_in_order);
            let mut transfer = Transfer::new(command.edtl, len, more, first, in_order);
            if transfer.lend(arena, if more { unasked } else { len }) {
                task.transfer = Some(tasks::reuse(&mut self.spare_transfers, transfer));
                sink = Sink::Place { itt: command.itt, offset: 0 };
            } else {
                task.fault = Some(TaskFault::NoMemory);
            }
        }
        self.tasks.insert(command.itt, task);
        let mut cdb = SmallVec::from_buf(command.cdb);
        cdb.extend_from_slice(ahs.cdb_tail);
        Ok(Current { sink, kind: Kind::Numbered(number, Request::Command(command, cdb)) })
    }

    fn data(&mut self, part: &[u8]) {
        let Some(current) = &mut self.current else { return };
        match &mut current.sink {
            Sink::Discard => {}
            Sink::Text(text, max) => {
                let room = max.saturating_sub(text.len());
                text.extend_from_slice(&part[..part.len().min(room)]);
            }
            Sink::Place { itt, offset } => {
                let transfer = self.tasks.get_mut(itt).and_then(|task| task.transfer.as_mut());
                if let Some(transfer) = transfer {
                    transfer.place(*offset, part);
                }
                *offset += u32::try_from(part.len()).expect("a data segment is below 16 MiB");
            }
        }
    }

    fn end<A: Arena<Buf = B>>(&mut self, digest_ok: bool, arena: &mut A) {
        let Some(Current { sink, kind }) = self.current.take() else { return };
        let fault = match (&kind, digest_ok) {
            (&Kind::Faulty(fault), _) => Some(fault),
            (Kind::Ignored, _) => None,
            (_, false) => Some(Fault::DataDigest),
            _ => None,
        };
        if let Some(fault) = fault {
            return self.refuse(fault, kind, arena);
        }
        let text = match sink {
            Sink::Text(text, _) => text,
            Sink::Discard | Sink::Place { .. } => Vec::new(),
        };
        match kind {
            Kind::Ignored | Kind::Faulty(_) => {}
            Kind::Login(request) => self.take_login(request, text),
            Kind::Snack(snack) => self.take_snack(&snack),
            Kind::Data(data, _) => {
                let task = self.tasks.get_mut(&data.itt);
                if let Some(transfer) = task.and_then(|task| task.transfer.as_mut()) {
                    transfer.arrived(&data);
                }
                self.pump(data.itt, arena);
            }
            Kind::Numbered(number, mut request) => {
                match &mut request {
                    Request::Text(_, data) | Request::Nop(_, data) => *data = text,
                    _ => {}
                }
                self.take_numbered(number, request);
            }
        }
    }

    fn take_login(&mut self, request: LoginRequest, text: Vec<u8>) {
        if !self.greeted {
            self.stat_sn = request.exp_stat_sn;
            self.greeted = true;
        }
        self.order.window = Window::new(request.cmd_sn, 1);
        self.phase = Phase::LoginAsked;
        self.events.push_back(Event::Login(request, text));
    }

    /// Answers a fault, once the faulty PDU has passed.
    fn refuse<A: Arena<Buf = B>>(&mut self, fault: Fault, kind: Kind, arena: &mut A) {
        let reason = match fault.answer() {
            Answer::Drop => return self.close(Closed::Fault(fault)),
            Answer::Reject(reason) | Answer::RejectAndFail(reason) => reason,
        };
        self.reject(reason);
        match kind {
            Kind::Data(data, len) => {
                if !self.lose(&data, len) {
                    self.fail_task(data.itt, TaskFault::DataDigest);
                }
                self.pump(data.itt, arena);
            }
            // As if it never came: the initiator sends it again (7.2.1).
            Kind::Numbered(_, request) if self.recovery.is_some() => {
                if let Request::Command(..) = request {
                    self.tasks.remove(&request.itt());
                }
            }
            Kind::Numbered(number, request @ Request::Command(..)) => {
                self.fail_task(request.itt(), TaskFault::DataDigest);
                self.take_numbered(number, request);
            }
            Kind::Numbered(number, _) => self.take_numbered(number, Request::Refused),
            // Only now, so that the Reject goes out before the command's answer: an initiator that
            // finds a Reject of a command it has done with takes the connection for broken.
            Kind::Faulty(Fault::Data(_)) => {
                let itt = DataOut::parse(&self.framer.bhs()).itt;
                self.fail_task(itt, TaskFault::Data);
            }
            Kind::Faulty(_) => self.count_refused(),
            Kind::Ignored | Kind::Login(_) | Kind::Snack(_) => {}
        }
    }

    /// A refused command still uses up its number (RFC 7143 4.2.2.1), or the window would stall.
    fn count_refused(&mut self) {
        let bhs = self.framer.bhs();
        let counts = matches!(
            bhs.opcode(),
            Some(
                Opcode::ScsiCommand
                    | Opcode::TaskRequest
                    | Opcode::TextRequest
                    | Opcode::LogoutRequest
                    | Opcode::NopOut
            )
        );
        let sn = bhs.u32_at(24);
        if counts && !bhs.immediate() && !self.is_outside(Some(sn)) {
            self.take_numbered(Some(sn), Request::Refused);
        }
    }

    /// A damaged Data-Out is asked for again, where that was agreed. False if it is not.
    fn lose(&mut self, data: &DataOut, len: u32) -> bool {
        let transfer = self.tasks.get_mut(&data.itt).and_then(|task| task.transfer.as_mut());
        self.recovery.is_some() && transfer.is_some_and(|transfer| transfer.lose(data, len))
    }

    /// The connection is lost, and with it what has not come whole.
    pub(super) fn lose_current(&mut self) {
        let Some(Current { kind: Kind::Data(data, len), .. }) = self.current.take() else { return };
        let task = self.tasks.get_mut(&data.itt);
        if let Some(transfer) = task.and_then(|task| task.transfer.as_mut()) {
            transfer.cut_off(&data, len);
        }
    }

    pub(super) fn reject(&mut self, reason: RejectReason) {
        let reject = Reject { reason: Some(reason), numbers: Numbers::default(), data_sn: 0 };
        let offender = self.framer.bhs();
        self.queue(reject.emit(), StatSn::Consume, &offender.0, false);
    }

    /// In its turn now, or held until then.
    fn take_numbered(&mut self, number: Option<u32>, request: Request) {
        let Some(sn) = number else { return self.take(request) };
        let order = &mut self.order;
        if order.held.is_empty() && sn == order.window.expected() && self.phase == Phase::Full {
            order.window.advance();
            return self.take(request);
        }
        self.order.held.insert(sn, Held { link: self.link, request: Some(request) });
        self.run_held();
    }

    pub(super) fn take(&mut self, request: Request) {
        match request {
            Request::Command(command, cdb) => self.take_command(&command, cdb),
            Request::Task(request) => {
                if request.immediate && !self.has_immediate_room() {
                    self.reject(RejectReason::ImmediateCommandReject);
                    return;
                }
                self.take_function(&request);
            }
            Request::Text(request, text) => {
                self.reopen();
                self.events.push_back(Event::Text(request, text));
            }
            Request::Nop(nop, data) => {
                self.reopen();
                let numbers = Numbers::default();
                let answer = NopIn { lun: Lun(0), itt: nop.itt, ttt: TAG_NONE, numbers };
                self.queue(answer.emit(), StatSn::Consume, &data, false);
            }
            Request::Logout(request) => {
                self.phase = Phase::LogoutAsked;
                self.events.push_back(Event::Logout(request));
            }
            Request::Refused => self.reopen(),
            Request::Skipped(itt) => {
                self.tasks.remove(&itt);
                self.reopen();
            }
        }
    }

    fn take_command(&mut self, command: &ScsiCommand, cdb: SmallVec<[u8; 16]>) {
        if !command.immediate {
            self.order.active += 1;
        }
        let Some(task) = self.tasks.get_mut(&command.itt) else { return };
        task.delivered = true;
        self.events.push_back(Event::Command(Command {
            itt: command.itt,
            lun: command.lun,
            cdb,
            attribute: command.attribute,
            edtl: command.edtl,
            read: command.read,
            write: command.write,
            fault: task.fault,
        }));
    }

    /// Rejects a text request that makes no sense.
    pub fn text_reject(&mut self, request: &TextRequest) {
        let numbers = Numbers::default();
        let reason = Some(RejectReason::ProtocolError);
        let reject = Reject { reason, numbers, data_sn: 0 };
        self.queue(reject.emit(), StatSn::Consume, &request.emit(), false);
    }
}

const _: () = assert!(TEXT_BYTES_MAX < DATA_BYTES_MAX);
