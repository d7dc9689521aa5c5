//! Commands from their arrival to their answer.

use super::input::Request;
use super::order::Held;
use super::output::{Job, StatSn};
use super::{
    Connection, DataIn, Event, IMMEDIATE_MAX, OPEN_BURSTS_MAX, Phase, Response, TaskFault,
};
use crate::iscsi::bhs::{Lun, Opcode, TAG_NONE};
use crate::iscsi::pdu::Numbers;
use crate::iscsi::pdu::r2t::R2t;
use crate::iscsi::pdu::task::{Function, TaskOutcome, TaskRequest};
use crate::iscsi::sequence;
use crate::iscsi::transfer::Transfer;
use crate::memory::{Arena, Buffer};

/// What a command holds of what is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A place in the command window.
    Window,
    /// One of the immediate commands.
    Immediate,
    /// Nothing: its status was sent before, on a connection that is lost.
    None,
}

/// A command that has no answer yet.
#[derive(Debug)]
pub(super) struct Task<B> {
    pub(super) lun: Lun,
    pub(super) place: Place,
    pub(super) edtl: u32,
    pub(super) read: bool,
    pub(super) write: bool,
    /// Expected Bidirectional Read Data Length, of a command that would read and write.
    pub(super) bidirectional: Option<u32>,
    /// The server has it. Until then a fault travels with the command.
    pub(super) delivered: bool,
    pub(super) fault: Option<TaskFault>,
    /// Boxed, since reads have none and each task moves a few times.
    pub(super) transfer: Option<Box<Transfer<B>>>,
    pub(super) r2ts: u32,
    /// Data-In PDUs that the initiator got on a connection that is lost, where they cannot be sent
    /// again.
    pub(super) data_sn: u32,
    /// The server waits for its data.
    pub(super) awaits_data: bool,
    pub(super) answered: bool,
}

impl<B> Task<B> {
    /// A read of so many bytes whose status was sent on a connection that is lost.
    pub(super) fn resent(edtl: u32) -> Self {
        Self {
            lun: Lun(0),
            place: Place::None,
            edtl,
            read: true,
            write: false,
            bidirectional: None,
            delivered: true,
            fault: None,
            transfer: None,
            r2ts: 0,
            data_sn: 0,
            awaits_data: false,
            answered: false,
        }
    }
}

impl<B: Buffer> Task<B> {
    /// The server wants this much of its data. `spare` are transfers that are over.
    pub(super) fn want(&mut self, wanted: u64, in_order: bool, spare: &mut Vec<Box<Transfer<B>>>) {
        self.awaits_data = true;
        if self.fault.is_some() {
            return;
        }
        let announced = if self.write { self.edtl } else { 0 };
        let fresh = || reuse(spare, Transfer::new(announced, 0, false, 0, in_order));
        self.transfer.get_or_insert_with(fresh).want(wanted);
    }
}

/// Puts a transfer where one was that is over.
pub(super) fn reuse<B>(spare: &mut Vec<Box<Transfer<B>>>, fresh: Transfer<B>) -> Box<Transfer<B>> {
    match spare.pop() {
        Some(mut over) => {
            *over = fresh;
            over
        }
        None => Box::new(fresh),
    }
}

impl<B: Buffer> Connection<B> {
    /// The command `itt` takes `wanted` bytes: gather them. The result is [`Event::DataOut`] or
    /// [`Event::DataFailed`]. No more is gathered than the initiator announced.
    pub fn begin_data_out<A: Arena<Buf = B>>(&mut self, itt: u32, wanted: u64, arena: &mut A) {
        let Some(task) = self.tasks.get_mut(&itt) else { return };
        if let Some(fault) = task.fault {
            self.events.push_back(Event::DataFailed { itt, fault });
            return;
        }
        task.want(wanted, self.agreed.data_pdu_in_order, &mut self.spare_transfers);
        self.pump(itt, arena);
    }

    /// Memory came back: ask for data that waited for it. Call it once per turn.
    pub fn memory_returned<A: Arena<Buf = B>>(&mut self, arena: &mut A) {
        for _ in 0..self.starved.len() {
            let Some(itt) = self.starved.pop_front() else { return };
            let waits_again = self.starved.len();
            self.pump(itt, arena);
            if self.starved.len() > waits_again {
                // Still no memory: it goes back to the front, and so do those behind it.
                self.starved.rotate_right(1);
                return;
            }
        }
    }

    /// Commands that wait for memory.
    pub fn starved(&self) -> usize {
        self.starved.len()
    }

    /// Moves a command's data on: done, more R2Ts, or a wait for memory.
    pub(super) fn pump<A: Arena<Buf = B>>(&mut self, itt: u32, arena: &mut A) {
        let Some(task) = self.tasks.get_mut(&itt) else { return };
        let Some(transfer) = &mut task.transfer else { return };
        let Some(wanted) = transfer.wanted() else { return };
        if transfer.is_complete() {
            let mut transfer = task.transfer.take().expect("just looked at");
            let data = transfer.take_segments();
            self.spare_transfers.push(transfer);
            self.events.push_back(Event::DataOut { itt, data });
            return;
        }
        if transfer.held_bytes() < wanted && !transfer.lend(arena, wanted) {
            if transfer.held_bytes() == 0 {
                self.starved.push_back(itt);
            } else {
                // Waiting with memory in hand, many such commands would wait for one another.
                self.fail_task(itt, TaskFault::NoMemory);
            }
            return;
        }
        let open_max = OPEN_BURSTS_MAX.min(usize::from(self.agreed.outstanding_r2t_max));
        loop {
            let ttt = self.new_ttt();
            let task = self.tasks.get_mut(&itt).expect("nothing removes it here");
            let transfer = task.transfer.as_mut().expect("nothing takes it here");
            let Some(ask) = transfer.ask(ttt, self.agreed.burst_bytes_max, open_max) else {
                return;
            };
            task.r2ts = transfer.r2t_count();
            let r2t = R2t {
                lun: task.lun,
                itt,
                ttt,
                numbers: Numbers::default(),
                r2t_sn: ask.r2t_sn,
                offset: ask.offset,
                bytes: ask.bytes,
            };
            self.queue(r2t.emit(), StatSn::Peek, &[], false);
        }
    }

    /// The command cannot go on; the server is told, now or with the command.
    pub(super) fn fail_task(&mut self, itt: u32, fault: TaskFault) {
        let Some(task) = self.tasks.get_mut(&itt) else { return };
        if task.fault.is_some() || task.answered {
            return;
        }
        let gathering = task.transfer.take().is_some_and(|t| t.wanted().is_some());
        task.fault = Some(fault);
        if task.delivered && gathering {
            self.events.push_back(Event::DataFailed { itt, fault });
        }
    }

    /// Answers a command. False if it is not there (any more): then nothing is sent.
    pub fn respond(&mut self, itt: u32, mut response: Response<B>) -> bool {
        let Some(task) = self.tasks.get_mut(&itt).filter(|task| !task.answered) else {
            return false;
        };
        task.answered = true;
        task.transfer = None;
        if !task.read {
            response.data = DataIn::None;
        }
        let ack_tag = if self.recovery.is_some() { self.next_ttt } else { TAG_NONE };
        let job = Job::new(itt, response, task, ack_tag);
        if ack_tag != TAG_NONE {
            self.new_ttt();
        }
        self.starved.retain(|&waiting| waiting != itt);
        self.jobs.push_back(job);
        true
    }

    /// Forgets a command that the server has: nothing is sent for it any more. False if there is
    /// none, or its answer has gone out.
    pub fn abort(&mut self, itt: u32) -> bool {
        if self.tasks.get(&itt).is_none_or(|task| !task.delivered) {
            return false;
        }
        let Some(task) = self.tasks.remove(&itt) else { return false };
        if task.place == Place::Window {
            self.finish_one();
        }
        self.jobs.retain(|job| job.itt != itt);
        if let Some(recovery) = &mut self.recovery {
            recovery.forget(itt);
        }
        self.starved.retain(|&waiting| waiting != itt);
        // R2Ts carry no data, so the count of queued bytes stays right.
        self.control.retain(|pdu| pdu.bhs.opcode() != Some(Opcode::R2t) || pdu.bhs.itt() != itt);
        self.events.retain(|event| match event {
            Event::Command(command) => command.itt != itt,
            Event::DataOut { itt: tag, .. } | Event::DataFailed { itt: tag, .. } => *tag != itt,
            _ => true,
        });
        true
    }

    /// True if another immediate command can be held.
    pub(super) fn has_immediate_room(&self) -> bool {
        let tasks = self.tasks.values().filter(|task| task.place == Place::Immediate).count();
        let functions = self.functions.iter().filter(|(_, immediate)| *immediate).count();
        tasks + functions < IMMEDIATE_MAX
    }

    /// Takes a task management request. What concerns commands that have not had their turn is
    /// settled here (RFC 7143 11.5.5); the rest is the server's.
    pub(super) fn take_function(&mut self, request: &TaskRequest) {
        debug_assert_eq!(self.phase, Phase::Full);
        self.functions.push((request.itt, request.immediate));
        if !request.immediate {
            self.order.active += 1;
        }
        match request.function {
            Function::AbortTask => {
                if self.tasks.get(&request.referenced).is_some_and(|task| task.delivered) {
                    self.events.push_back(Event::Task(*request));
                    return;
                }
                if self.skip(request) {
                    self.task_response(request.itt, TaskOutcome::Complete);
                } else if self.agreed.recovery_level == 2 {
                    // It may be one that a lost connection left.
                    self.events.push_back(Event::Task(*request));
                } else {
                    self.task_response(request.itt, TaskOutcome::NoSuchTask);
                }
            }
            Function::AbortTaskSet | Function::ClearTaskSet | Function::LogicalUnitReset => {
                self.skip_held(request, Some(request.lun));
                self.events.push_back(Event::Task(*request));
            }
            Function::TargetWarmReset | Function::TargetColdReset => {
                self.skip_held(request, None);
                self.events.push_back(Event::Task(*request));
            }
            Function::TaskReassign if self.agreed.recovery_level == 2 => {
                self.events.push_back(Event::Task(*request));
            }
            Function::TaskReassign => {
                self.task_response(request.itt, TaskOutcome::ReassignUnsupported);
            }
            Function::ClearAca | Function::Unknown(_) => {
                self.task_response(request.itt, TaskOutcome::Unsupported);
            }
        }
    }

    /// The referenced command has not had its turn: it never gets it.
    fn skip(&mut self, request: &TaskRequest) -> bool {
        let sn = request.ref_cmd_sn;
        let ahead = self.order.window.contains(sn) && sequence::before(sn, request.cmd_sn);
        if request.referenced == TAG_NONE || !ahead {
            return false;
        }
        // A tag whose command came under another number is not this command's: that one would
        // lose its task and still get its turn.
        let held = self.order.held.get(&sn);
        let meant = match held.and_then(|held| held.request.as_ref()) {
            Some(held) => held.command_on(None) == Some(request.referenced),
            None => !self.tasks.contains_key(&request.referenced),
        };
        if !meant {
            return false;
        }
        let link = held.map_or(self.link, |held| held.link);
        self.order.held.insert(sn, Held { link, request: None });
        self.skip_at(sn, request.referenced);
        self.run_held();
        true
    }

    /// The request of this number never gets its turn; the connection it came on forgets it.
    fn skip_at(&mut self, sn: u32, itt: u32) {
        let Some(held) = self.order.held.get_mut(&sn) else { return };
        if held.link == self.link {
            held.request = None;
            self.tasks.remove(&itt);
        } else {
            held.request = Some(Request::Skipped(itt));
        }
    }

    /// Held commands before the request's own number, on `lun` or on all, never get their turn.
    fn skip_held(&mut self, request: &TaskRequest, lun: Option<Lun>) {
        let before = |sn: u32| sequence::before(sn, request.cmd_sn);
        let held = self.order.held.iter().filter(|(sn, _)| before(**sn));
        let commands = held.filter_map(|(&sn, held)| {
            let itt = held.request.as_ref()?.command_on(lun)?;
            Some((sn, itt))
        });
        for (sn, itt) in commands.collect::<Vec<_>>() {
            self.skip_at(sn, itt);
        }
    }
}
