//! The initiator's side of a connection in full feature phase, at error recovery level 0.
//!
//! [`Connection`] is handed stream bytes and the time, and hands back PDUs to send and
//! [`Event`]s. It owns sequence numbers, task tags, the command window, data transfer and the
//! keep-alive ping; login comes before it, and reconnecting is for its owner. Nothing is retried
//! here: when the connection ends, [`Connection::into_unfinished`] says what was in doubt.
//!
//! ```text
//! mod.rs       what can be asked for, what comes of it
//! send.rs      the order in which PDUs leave, and their sequence numbers
//! receive.rs   what each PDU from the target means
//! tags.rs      tasks by their tag
//! ```
//!
//! How to drive it: after every call, take PDUs with [`Connection::poll_transmit`] and events with
//! [`Connection::poll_event`] until there are none, and set one timer to
//! [`Connection::poll_timeout`]. An error from any `handle_*` ends the connection.
//!
//! Memory: what the caller submits, and one data segment. Commands beyond the target's window
//! wait here; how many there may be is for the caller to bound.

mod receive;
mod send;
mod tags;

use std::collections::{BTreeMap, VecDeque};

use thiserror::Error;

use super::bhs::{Bhs, Lun, TAG_NONE};
use super::framer::Framer;
use super::params::{Digest, Negotiated};
use super::pdu::Residual;
use super::pdu::asynchronous::AsyncEvent;
use super::pdu::logout::{LogoutRequest, Reason};
use super::pdu::nop::NopOut;
use super::pdu::reject::RejectReason;
use super::pdu::task::{Function, TaskOutcome, TaskRequest};
use super::pdu::text::TextRequest;
use crate::error::{Malformed, Violation};
use crate::time::{Duration, Instant};
use send::{Burst, Control};
use tags::Tags;

pub use send::Outgoing;

/// The caller's name of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// How login left the connection.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// What was agreed.
    pub agreed: Negotiated,
    /// Connection ID.
    pub cid: u16,
    /// CmdSN of the next command.
    pub cmd_sn: u32,
    /// StatSN expected next.
    pub exp_stat_sn: u32,
    /// MaxCmdSN of the last Login Response.
    pub max_cmd_sn: u32,
}

/// When to look whether the target is still there.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Ping after this long without a byte from the target.
    pub ping_after: Duration,
    /// The connection is dead this long after an unanswered ping.
    pub answer_within: Duration,
}

/// The data of a command: owned while it is under way, handed back at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer<D> {
    /// None.
    None,
    /// From the target, into this memory, which nobody else holds; its length is the Expected Data
    /// Transfer Length.
    Read(D),
    /// To the target; its length is the Expected Data Transfer Length.
    Write(D),
}

/// A SCSI command.
#[derive(Debug, Clone)]
pub struct Command<D> {
    /// The caller's name for it.
    pub id: CommandId,
    /// Where.
    pub lun: Lun,
    /// What.
    pub cdb: [u8; 16],
    /// With which data, below 4 GiB.
    pub transfer: Transfer<D>,
}

/// The target's answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// SCSI status (SAM-5 5.3): 0 is GOOD, 2 CHECK CONDITION.
    pub status: u8,
    /// Sense data, or none.
    pub sense: Vec<u8>,
    /// Difference between the bytes expected and those the command was about.
    pub residual: Residual,
}

/// Why a command has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The target gave it up: iSCSI response code (RFC 7143 11.4.3).
    Target(u8),
    /// The target refused the PDU.
    Rejected(Option<RejectReason>),
    /// It was aborted: the target will not touch the data any more. With
    /// [`TaskOutcome::NoSuchTask`] the target did not know it (any more).
    Aborted(TaskOutcome),
    /// It said it succeeded, but less data came than it owed.
    DataMissing,
    /// The connection ended first. `sent` tells whether the target may have seen any of it.
    Unfinished {
        /// False: the command was never sent; its effect cannot have taken place.
        sent: bool,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<D> {
    /// A command ended.
    Done {
        /// Which.
        id: CommandId,
        /// Its data.
        transfer: Transfer<D>,
        /// How.
        result: Result<Answer, Failure>,
    },
    /// The target answered [`Connection::ping`], after this long.
    Pong(Duration),
    /// A function of [`Connection::manage`] ended so. Tasks it ended at the target end here by
    /// [`Failure::Aborted`], before this event. Or the target refuses an abort: the task goes on,
    /// but is sent no more data; only a reset or the end of the connection helps.
    Managed(Function, TaskOutcome),
    /// The whole answer to [`Connection::text`]: keys and values, each ended by a zero byte.
    Text(Vec<u8>),
    /// The target tells of an event; what to do about it is for the owner.
    Async(AsyncEvent, Vec<u8>),
    /// The target refused something that was not a command.
    Rejected(Option<RejectReason>),
    /// The target took leave (RFC 7143 11.15.1: 0 is success); close the stream.
    LoggedOut(u8),
}

/// Why the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fatal {
    /// The bytes are wrong.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The target's conduct is.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The target did not answer a ping in time.
    #[error("the target does not answer pings")]
    Silent,
}

/// Tags of exchanges have this bit, those of tasks have not.
const EXCHANGE: u32 = 0x8000_0000;

#[derive(Debug)]
struct Task<D> {
    command: Command<D>,
    /// CmdSN it was sent with.
    cmd_sn: u32,
    /// Bytes of read data so far.
    received: u32,
    /// DataSN of the next Data-In.
    data_sn: u32,
    /// R2TSN of the next R2T.
    r2t_sn: u32,
    /// R2Ts not yet satisfied.
    r2t_open: u16,
    /// An abort is under way: no more data is sent for it.
    aborting: bool,
}

/// What a tag stands for, apart from SCSI commands.
#[derive(Debug, Clone, Copy)]
enum Exchange {
    Ping { sent: Instant, keep_alive: bool },
    Manage { function: Function, lun: Lun, referenced: u32 },
    Text,
    Logout,
}

/// One connection. See the module's text for how to drive it.
#[derive(Debug)]
pub struct Connection<D> {
    agreed: Negotiated,
    cid: u16,
    cmd_sn: u32,
    exp_stat_sn: u32,
    max_cmd_sn: u32,
    next_tag: u32,
    waiting: VecDeque<Command<D>>,
    tasks: Tags<Task<D>>,
    exchanges: BTreeMap<u32, Exchange>,
    control: VecDeque<Control>,
    bursts: VecDeque<Burst>,
    /// Data of the control PDU being sent.
    scratch: Vec<u8>,
    framer: Framer,
    /// Data segment being received, unless it goes to a task's buffer.
    gathered: Vec<u8>,
    /// Where the data segment being received goes: a task's tag, and the offset in its buffer.
    placing: Option<(u32, usize)>,
    /// Text gathered over several responses.
    text: Vec<u8>,
    events: VecDeque<Event<D>>,
    keep_alive: Option<KeepAlive>,
    heard: Instant,
}

impl<D: AsRef<[u8]> + AsMut<[u8]>> Connection<D> {
    /// A connection that has just left login.
    pub fn new(now: Instant, start: Start, keep_alive: Option<KeepAlive>) -> Self {
        let agreed = start.agreed;
        let mut framer = Framer::new();
        framer.set_digests(
            agreed.header_digest == Digest::Crc32c,
            agreed.data_digest == Digest::Crc32c,
        );
        Self {
            agreed,
            cid: start.cid,
            cmd_sn: start.cmd_sn,
            exp_stat_sn: start.exp_stat_sn,
            max_cmd_sn: start.max_cmd_sn,
            next_tag: 0,
            waiting: VecDeque::new(),
            tasks: Tags::new(),
            exchanges: BTreeMap::new(),
            control: VecDeque::new(),
            bursts: VecDeque::new(),
            scratch: Vec::new(),
            framer,
            gathered: Vec::new(),
            placing: None,
            text: Vec::new(),
            events: VecDeque::new(),
            keep_alive,
            heard: now,
        }
    }

    /// What login agreed on.
    pub const fn agreed(&self) -> &Negotiated {
        &self.agreed
    }

    /// Commands that have not ended, sent or not.
    pub fn len(&self) -> usize {
        self.tasks.len() + self.waiting.len()
    }

    /// No command is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a command. It ends with [`Event::Done`].
    ///
    /// # Panics
    /// If its data is 4 GiB or more.
    pub fn submit(&mut self, command: Command<D>) {
        let bytes = match &command.transfer {
            Transfer::None => 0,
            Transfer::Read(buffer) => buffer.as_ref().len(),
            Transfer::Write(data) => data.as_ref().len(),
        };
        assert!(u32::try_from(bytes).is_ok(), "a command moves less than 4 GiB");
        self.waiting.push_back(command);
    }

    /// Sends a ping; the answer is [`Event::Pong`].
    pub fn ping(&mut self, now: Instant) {
        self.send_ping(now, false);
    }

    fn send_ping(&mut self, now: Instant, keep_alive: bool) {
        let itt = self.take_tag();
        self.exchanges.insert(itt, Exchange::Ping { sent: now, keep_alive });
        let (cmd_sn, exp_stat_sn) = (0, 0);
        let nop = NopOut { immediate: true, lun: Lun(0), itt, ttt: TAG_NONE, cmd_sn, exp_stat_sn };
        self.control.push_back(Control::new(nop.emit(), Vec::new()));
    }

    /// Ends one command at the target. Its end is [`Event::Done`], as ever: with the target's
    /// answer if that was on its way, else with [`Failure::Aborted`].
    pub fn abort(&mut self, id: CommandId) {
        if let Some(place) = self.waiting.iter().position(|command| command.id == id) {
            let command = self.waiting.remove(place).expect("its place was just found");
            let result = Err(Failure::Unfinished { sent: false });
            self.events.push_back(Event::Done { id, transfer: command.transfer, result });
            return;
        }
        let found = self.tasks.iter().find(|(_, task)| task.command.id == id).map(|(tag, _)| tag);
        let Some((tag, task)) = found.and_then(|tag| Some((tag, self.tasks.get_mut(tag)?))) else {
            return;
        };
        task.aborting = true;
        let (lun, cmd_sn) = (task.command.lun, task.cmd_sn);
        self.bursts.retain(|burst| burst.itt != tag);
        self.send_function(Function::AbortTask, lun, tag, cmd_sn);
    }

    /// A task management function that names no task: resets, ABORT TASK SET, CLEAR TASK SET. The
    /// answer is [`Event::Managed`].
    ///
    /// # Panics
    /// If the function names a task.
    pub fn manage(&mut self, function: Function, lun: Lun) {
        let names_task = matches!(function, Function::AbortTask | Function::TaskReassign);
        assert!(!names_task, "this function names a task");
        self.send_function(function, lun, TAG_NONE, 0);
    }

    fn send_function(&mut self, function: Function, lun: Lun, referenced: u32, ref_cmd_sn: u32) {
        let itt = self.take_tag();
        self.exchanges.insert(itt, Exchange::Manage { function, lun, referenced });
        let request = TaskRequest {
            immediate: true,
            function,
            lun,
            itt,
            referenced,
            cmd_sn: 0,
            exp_stat_sn: 0,
            ref_cmd_sn,
            exp_data_sn: 0,
        };
        self.control.push_back(Control::new(request.emit(), Vec::new()));
    }

    /// Sends keys and values, each ended by a zero byte, such as `SendTargets=All`. The answer is
    /// [`Event::Text`]. One at a time (RFC 7143 11.10).
    ///
    /// # Panics
    /// If the text is longer than the target takes in one PDU.
    pub fn text(&mut self, text: Vec<u8>) {
        assert!(text.len() <= self.agreed.peer_segment_bytes_max as usize, "a text of one PDU");
        let task_tag = self.take_tag();
        self.exchanges.insert(task_tag, Exchange::Text);
        self.text.clear();
        self.send_text(task_tag, TAG_NONE, 0, text);
    }

    fn send_text(&mut self, task_tag: u32, transfer_tag: u32, lun: u64, text: Vec<u8>) {
        let request = TextRequest {
            immediate: true,
            last: true,
            continues: false,
            data_len: 0,
            lun,
            task_tag,
            transfer_tag,
            cmd_sn: 0,
            exp_stat_sn: 0,
        };
        self.control.push_back(Control::new(Bhs(request.emit()), text));
    }

    /// Takes leave: closes the session. Submit nothing after it. The answer is
    /// [`Event::LoggedOut`].
    pub fn logout(&mut self) {
        let itt = self.take_tag();
        self.exchanges.insert(itt, Exchange::Logout);
        let request = LogoutRequest {
            immediate: true,
            reason: Reason::CloseSession,
            itt,
            cid: self.cid,
            cmd_sn: 0,
            exp_stat_sn: 0,
        };
        self.control.push_back(Control::new(request.emit(), Vec::new()));
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event<D>> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let keep_alive = self.keep_alive?;
        Some(match self.unanswered_ping() {
            Some(sent) => sent + keep_alive.answer_within,
            None => self.heard + keep_alive.ping_after,
        })
    }

    /// Time has passed.
    ///
    /// # Errors
    /// [`Fatal::Silent`] if the target has not answered a ping in time.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Fatal> {
        let Some(keep_alive) = self.keep_alive else { return Ok(()) };
        match self.unanswered_ping() {
            Some(sent) if sent + keep_alive.answer_within <= now => Err(Fatal::Silent),
            None if self.heard + keep_alive.ping_after <= now => {
                self.send_ping(now, true);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn unanswered_ping(&self) -> Option<Instant> {
        self.exchanges.values().find_map(|exchange| match exchange {
            Exchange::Ping { sent, keep_alive: true } => Some(*sent),
            _ => None,
        })
    }

    /// The connection is over: every command that has not ended, oldest first, and whether the
    /// target may have seen it. Those that have ended are in [`Connection::poll_event`] only: take
    /// them from there first.
    pub fn into_unfinished(self) -> impl Iterator<Item = (Command<D>, bool)> {
        let mut sent: Vec<_> = self.tasks.into_values().collect();
        sent.sort_by(|a, b| super::sequence::compare(a.cmd_sn, b.cmd_sn));
        let sent = sent.into_iter().map(|task| (task.command, true));
        sent.chain(self.waiting.into_iter().map(|command| (command, false)))
    }

    /// A tag for what is no SCSI command.
    fn take_tag(&mut self) -> u32 {
        loop {
            let tag = EXCHANGE | self.next_tag;
            self.next_tag = self.next_tag.wrapping_add(1) & !EXCHANGE;
            if tag != TAG_NONE && !self.exchanges.contains_key(&tag) {
                return tag;
            }
        }
    }

    fn finish(&mut self, tag: u32, result: Result<Answer, Failure>) {
        if let Some(task) = self.tasks.remove(tag) {
            self.bursts.retain(|burst| burst.itt != tag);
            let Command { id, transfer, .. } = task.command;
            self.events.push_back(Event::Done { id, transfer, result });
        }
    }
}

#[cfg(test)]
mod tests;
