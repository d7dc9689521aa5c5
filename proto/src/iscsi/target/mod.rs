//! The target's end of one connection (RFC 7143), without I/O.
//!
//! ```text
//! bytes  ──▶ handle_bytes ─┐                       ┌─▶ poll          events for the server
//! payload ─▶ direct_done ──┤ framing, window, R2Ts ├─▶ poll_transmit PDUs to send
//! time   ──▶ handle_timeout┘                       └─▶ poll_timeout
//! ```
//!
//! The server answers events: [`Connection::login_response`], [`Connection::respond`],
//! [`Connection::task_response`] and so on. Write data is gathered in memory the server's arena
//! lends; where the host can receive straight into it, [`Connection::take_direct`] says where.
//!
//! What it holds is bounded: tasks by the command window, memory by the arena, output by
//! [`Connection::wants_read`], which the host must heed.

mod fault;
mod fence;
mod input;
mod order;
mod orphans;
mod output;
mod recovery;
mod tasks;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

pub use fault::{Answer, Fault, TaskFault};
use fence::Fence;
use input::Current;
pub use order::{Order, Passed};
pub use orphans::{Orphan, Orphans};
use output::{Control, Job, StatSn};
use recovery::{REPLAYS_MAX, Recovery};
use tasks::Task;

use super::bhs::{BHS_BYTES, Bhs, Lun, TAG_NONE};
use super::digest::DIGEST_BYTES;
use super::framer::Framer;
use super::params::{Digest, Negotiated};
use super::pdu::Numbers;
use super::pdu::asynchronous::{Async, AsyncEvent};
use super::pdu::login::{LoginRequest, LoginResponse};
use super::pdu::logout::{LogoutRequest, LogoutResponse};
use super::pdu::nop::NopIn;
use super::pdu::scsi::Attribute;
use super::pdu::task::{TaskOutcome, TaskRequest, TaskResponse};
use super::pdu::text::{TextRequest, TextResponse};
use super::sequence::Window;
use super::transfer::Transfer;
use crate::memory::{Buffer, Segments, Slice};
use crate::table::ShortKeyMap;
use crate::time::{Duration, Instant};

/// What the operator decides about every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Commands an initiator may have outstanding; at least 1.
    pub window: u32,
    /// How long a login may take.
    pub login_timeout: Duration,
    /// Silence after which the initiator is pinged; zero: never.
    pub ping_interval: Duration,
    /// Silence after a ping for which it is taken for dead.
    pub ping_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: 128,
            login_timeout: Duration::from_secs(15),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(30),
        }
    }
}

/// Immediate commands held at a time, beyond the window.
const IMMEDIATE_MAX: usize = 8;
/// Queued PDUs and bytes above which nothing more is read.
const QUEUE_PDUS_MAX: usize = 64;
const QUEUE_BYTES_MAX: usize = 128 * 1024;
/// R2Ts we keep open per command, if the initiator takes as many.
const OPEN_BURSTS_MAX: usize = 4;
/// Login and text PDUs carry no more than this (RFC 7143 13.12 default).
const TEXT_BYTES_MAX: u32 = 8192;

/// Data that goes to the initiator.
#[derive(Debug, Clone, Default)]
pub enum DataIn<B> {
    /// None.
    #[default]
    None,
    /// Short parameter data.
    Bytes(Bytes),
    /// Payload.
    Segments(Segments<B>),
}

/// The answer to a command.
#[derive(Debug)]
pub struct Response<B> {
    /// SCSI status.
    pub status: u8,
    /// Sense data; empty unless the status is CHECK CONDITION. 252 bytes at most.
    pub sense: Box<[u8]>,
    /// Read data.
    pub data: DataIn<B>,
    /// Bytes the command is about, in either direction: what the residual is counted from.
    pub wanted: u64,
}

/// One PDU to send: header, data, trailer, in this order.
#[derive(Debug)]
pub struct Outgoing<B> {
    header: [u8; BHS_BYTES + DIGEST_BYTES],
    header_len: usize,
    /// The data segment.
    pub data: Payload<B>,
    trailer: [u8; 7],
    trailer_len: usize,
}

/// A data segment.
#[derive(Debug)]
pub enum Payload<B> {
    /// Empty.
    None,
    /// Short.
    Small(SmallVec<[u8; 32]>),
    /// Part of parameter data.
    Bytes(Bytes),
    /// Payload memory, sent from where it is.
    Shared(Slice<B>),
}

/// A SCSI command to perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Names it in every answer.
    pub itt: u32,
    /// Logical unit.
    pub lun: Lun,
    /// The whole CDB: 16 bytes padded with zeros, or as long as it says.
    pub cdb: SmallVec<[u8; 16]>,
    /// Task attribute.
    pub attribute: Attribute,
    /// Expected Data Transfer Length.
    pub edtl: u32,
    /// R bit.
    pub read: bool,
    /// W bit.
    pub write: bool,
    /// It cannot be performed: answer accordingly.
    pub fault: Option<TaskFault>,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The initiator broke the rules so that nothing else was left.
    Fault(Fault),
    /// The login was refused, or ended by our side.
    LoginRefused,
    /// The login took too long.
    LoginTimeout,
    /// It no longer answers.
    PeerDead,
    /// It logged out.
    LoggedOut,
    /// It logged out so that its tasks can be taken over by another connection.
    Recovery,
    /// Its transport is gone.
    Lost,
    /// The initiator gives it up: another connection takes its place, or has logged it out.
    Replaced,
    /// The server wanted it.
    ByServer,
}

impl Closed {
    /// The initiator may want to go on with the tasks on another connection.
    const fn leaves_tasks(self) -> bool {
        match self {
            Self::Fault(Fault::Unacknowledged) => false,
            Self::Fault(_) | Self::PeerDead | Self::Recovery | Self::Lost | Self::Replaced => true,
            Self::LoginRefused | Self::LoginTimeout | Self::LoggedOut | Self::ByServer => false,
        }
    }
}

/// What the server has to know or do.
#[derive(Debug)]
pub enum Event<B> {
    /// Answer with [`Connection::login_response`].
    Login(LoginRequest, Vec<u8>),
    /// Answer with [`Connection::text_response`] (or [`Connection::text_reject`]).
    Text(TextRequest, Vec<u8>),
    /// Answer with [`Connection::respond`], after [`Connection::begin_data_out`] if it takes data.
    Command(Command),
    /// The data asked for by [`Connection::begin_data_out`] is complete.
    DataOut {
        /// Whose.
        itt: u32,
        /// The data.
        data: Segments<B>,
    },
    /// Gathering a command's data failed; answer it with [`Connection::respond`].
    DataFailed {
        /// Whose.
        itt: u32,
        /// Why.
        fault: TaskFault,
    },
    /// Answer with [`Connection::task_response`] once it is so.
    Task(TaskRequest),
    /// It is the turn of a request that came on another connection of the session: hand it to
    /// [`Connection::take_passed`] of the one with this link.
    Elsewhere(u32, Passed),
    /// Answer with [`Connection::logout_response`].
    Logout(LogoutRequest),
    /// The initiator has all that came before the fence of this number, or never will: see
    /// [`Connection::raise_fence`].
    Passed(u64),
    /// The connection is over; nothing more comes in or goes out, except what is queued.
    Closed(Closed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for a Login Request.
    Login,
    /// A Login Request is with the server.
    LoginAsked,
    /// Logged in.
    Full,
    /// A Logout was taken; nothing more is.
    LogoutAsked,
    Closed,
}

/// The target's end of one connection.
#[derive(Debug)]
pub struct Connection<B> {
    config: Config,
    phase: Phase,
    agreed: Negotiated,
    framer: Framer,
    current: Option<Current>,
    /// The piece that the host is receiving into: task, index.
    lent: Option<(u32, usize)>,
    order: Order,
    /// Which connection of its session this is.
    link: u32,
    stat_sn: u32,
    /// The last ExpStatSN that came.
    exp_stat_sn: u32,
    fences: Vec<Fence>,
    tasks: ShortKeyMap<u32, Task<B>>,
    /// Transfers that are over, for the next ones: as many as there were at a time, so no more than
    /// the window.
    spare_transfers: Vec<Box<Transfer<B>>>,
    /// Task management requests without an answer: tag, immediate.
    functions: Vec<(u32, bool)>,
    /// Tasks whose R2Ts wait for memory, in order.
    starved: VecDeque<u32>,
    next_ttt: u32,
    control: VecDeque<Control>,
    queued_bytes: usize,
    jobs: VecDeque<Job<B>>,
    /// At recovery level 1 and above.
    recovery: Option<Box<Recovery<B>>>,
    /// Header and data digests of what we send.
    digests: (bool, bool),
    events: VecDeque<Event<B>>,
    /// Why it is over, until the server was told.
    ended: Option<Closed>,
    /// It is over, and its tasks wait for another connection.
    orphaned: bool,
    /// The first Login Request was seen.
    greeted: bool,
    heard: Instant,
    ping: Option<u32>,
    started: Instant,
}

impl<B: Buffer> Connection<B> {
    /// A connection that was just accepted.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            phase: Phase::Login,
            agreed: Negotiated::default(),
            framer: Framer::new(),
            current: None,
            lent: None,
            order: Order::new(Window::new(0, 1)),
            link: 0,
            stat_sn: 0,
            exp_stat_sn: 0,
            fences: Vec::new(),
            tasks: ShortKeyMap::default(),
            spare_transfers: Vec::new(),
            functions: Vec::new(),
            starved: VecDeque::new(),
            next_ttt: 1,
            control: VecDeque::new(),
            queued_bytes: 0,
            jobs: VecDeque::new(),
            recovery: None,
            digests: (false, false),
            events: VecDeque::new(),
            ended: None,
            orphaned: false,
            greeted: false,
            heard: now,
            ping: None,
            started: now,
        }
    }

    /// What the login agreed on, for this connection.
    pub const fn agreed(&self) -> &Negotiated {
        &self.agreed
    }

    /// The next event. Ask again after every call that takes input.
    pub fn poll(&mut self) -> Option<Event<B>> {
        // The end comes last: what came before it was taken.
        self.events.pop_front().or_else(|| self.ended.take().map(Event::Closed))
    }

    /// False while the host should leave what comes in the socket: too much output is waiting, a
    /// login is being judged, or the connection is over.
    pub fn wants_read(&self) -> bool {
        matches!(self.phase, Phase::Login | Phase::Full)
            && self.control.len() < QUEUE_PDUS_MAX
            && self.queued_bytes < QUEUE_BYTES_MAX
            && self.recovery.as_ref().is_none_or(|recovery| recovery.replays() < REPLAYS_MAX)
    }

    /// True once the host should close the socket, after sending what [`Self::poll_transmit`] has.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Tasks that have no answer yet, with their logical units.
    pub fn tasks(&self) -> impl Iterator<Item = (u32, Lun)> + '_ {
        let delivered = self.tasks.iter().filter(|(_, task)| task.delivered);
        delivered.map(|(&itt, task)| (itt, task.lun))
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Login | Phase::LoginAsked => Some(self.started + self.config.login_timeout),
            Phase::Full if self.config.ping_interval.is_zero() => None,
            Phase::Full if self.ping.is_some() => {
                Some(self.heard + self.config.ping_interval + self.config.ping_timeout)
            }
            Phase::Full => Some(self.heard + self.config.ping_interval),
            Phase::LogoutAsked | Phase::Closed => None,
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.phase {
            Phase::Login | Phase::LoginAsked => self.close(Closed::LoginTimeout),
            Phase::Full if self.ping.is_some() => self.close(Closed::PeerDead),
            Phase::Full => {
                let ttt = self.new_ttt();
                self.ping = Some(ttt);
                let numbers = Numbers::default();
                let ping = NopIn { lun: Lun(0), itt: TAG_NONE, ttt, numbers };
                self.queue(ping.emit(), StatSn::Peek, &[], false);
            }
            Phase::LogoutAsked | Phase::Closed => {}
        }
    }

    /// Answers [`Event::Login`]. The counters of `response` are filled in here.
    pub fn login_response(&mut self, response: &LoginResponse, text: &[u8]) {
        if self.phase != Phase::LoginAsked {
            return;
        }
        let mut response = *response;
        response.data_len = 0;
        self.queue(Bhs(response.emit()), StatSn::Consume, text, false);
        if response.status.class() == 0 {
            self.phase = Phase::Login;
        } else {
            self.close(Closed::LoginRefused);
        }
    }

    /// Another number of commands than configured may be outstanding. Before the login completes.
    pub fn set_window(&mut self, commands: u32) {
        self.config.window = commands.max(1);
    }

    /// Another silence than configured before a ping, and after it. Before the login completes.
    pub fn set_pings(&mut self, interval: Duration, timeout: Duration) {
        (self.config.ping_interval, self.config.ping_timeout) = (interval, timeout);
    }

    /// The login is complete: call it right after the last [`Self::login_response`].
    pub fn enter_full_feature(&mut self, agreed: &Negotiated, now: Instant) {
        if self.phase != Phase::Login {
            return;
        }
        self.agreed = *agreed;
        self.phase = Phase::Full;
        self.heard = now;
        self.digests =
            (agreed.header_digest == Digest::Crc32c, agreed.data_digest == Digest::Crc32c);
        self.framer.set_digests(self.digests.0, self.digests.1);
        self.recovery = (agreed.recovery_level > 0).then(Box::default);
        let expected = self.order.window.expected();
        self.order.window = Window::new(expected, self.config.window.max(1));
        // The login is not fenced.
        self.exp_stat_sn = self.next_unqueued();
    }

    /// Answers [`Event::Text`]. The counters of `response` are filled in here.
    pub fn text_response(&mut self, response: &TextResponse, text: &[u8]) {
        let mut response = *response;
        response.data_len = 0;
        self.queue(Bhs(response.emit()), StatSn::Consume, text, false);
    }

    /// Answers [`Event::Task`]. False if it was not asked.
    pub fn task_response(&mut self, itt: u32, outcome: TaskOutcome) -> bool {
        let Some(at) = self.functions.iter().position(|&(tag, _)| tag == itt) else {
            return false;
        };
        let (_, immediate) = self.functions.remove(at);
        let response = TaskResponse { outcome, itt, numbers: Numbers::default() };
        self.queue(response.emit(), StatSn::Consume, &[], !immediate);
        true
    }

    /// Answers [`Event::Logout`] with one of the codes of [`crate::iscsi::pdu::logout`].
    pub fn logout_response(&mut self, itt: u32, code: u8) {
        let response = LogoutResponse {
            response: code,
            itt,
            numbers: Numbers::default(),
            time_to_wait: self.agreed.time2wait_s,
            time_to_retain: self.agreed.time2retain_s,
        };
        self.queue(response.emit(), StatSn::Consume, &[], false);
        if code == super::pdu::logout::CLOSED {
            self.close(Closed::LoggedOut);
        } else if self.phase == Phase::LogoutAsked {
            self.phase = Phase::Full;
            self.reopen();
        }
    }

    /// Answers an [`Event::Logout`] that closed another connection of the session: this one stays.
    pub fn logout_of_another(&mut self, itt: u32) {
        self.say_logged_out(itt);
        if self.phase == Phase::LogoutAsked {
            self.phase = Phase::Full;
            self.reopen();
            self.run_held();
        }
    }

    /// Answers an [`Event::Logout`] for recovery of this connection, which is over then: its tasks
    /// are [`Self::take_orphans`].
    pub fn logout_for_recovery(&mut self, itt: u32) {
        self.say_logged_out(itt);
        self.close(Closed::Recovery);
    }

    /// Logged out, and whether its tasks can be taken over. At once: no wait is needed here.
    fn say_logged_out(&mut self, itt: u32) {
        let keeps = !self.agreed.retention().is_zero();
        let gone = self.agreed.recovery_level == 2 && !keeps;
        let response = LogoutResponse {
            response: super::pdu::logout::CLOSED,
            itt,
            numbers: Numbers::default(),
            time_to_wait: if keeps { 0 } else { self.agreed.time2wait_s },
            time_to_retain: if gone { 0 } else { self.agreed.time2retain_s },
        };
        self.queue(response.emit(), StatSn::Consume, &[], false);
    }

    /// Tells the initiator of something, unless it does not take what it was told before. `sense`
    /// goes with [`AsyncEvent::Scsi`] only.
    pub fn send_async(&mut self, lun: Lun, event: AsyncEvent, sense: &[u8]) {
        let full = self.control.len() >= QUEUE_PDUS_MAX
            || self.recovery.as_ref().is_some_and(|recovery| recovery.is_overfull());
        if self.phase != Phase::Full || full {
            return;
        }
        let mut data = Vec::new();
        if !sense.is_empty() {
            data.extend(u16::try_from(sense.len()).unwrap_or(u16::MAX).to_be_bytes());
            data.extend_from_slice(sense);
        }
        let message = Async { lun, event, numbers: Numbers::default() };
        self.queue(message.emit(), StatSn::Consume, &data, false);
    }

    /// Ends the connection. Its tasks are forgotten; the server deals with what they started. At
    /// recovery level 2 a connection that is lost leaves them: see [`Self::take_orphans`].
    pub fn close(&mut self, why: Closed) {
        if self.phase == Phase::Closed {
            return;
        }
        self.orphaned = why.leaves_tasks() && !self.agreed.retention().is_zero();
        self.phase = Phase::Closed;
        self.leave_order();
        if !self.orphaned {
            self.tasks.clear();
            self.starved.clear();
            self.jobs.clear();
            self.recovery = None;
        }
        self.functions.clear();
        self.drop_fences();
        self.ended = Some(why);
    }

    fn new_ttt(&mut self) -> u32 {
        let ttt = self.next_ttt;
        self.next_ttt = if ttt == TAG_NONE - 1 { 1 } else { ttt + 1 };
        ttt
    }
}
