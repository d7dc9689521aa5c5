//! One shard's iSCSI server: connections, sessions, tasks.
//!
//! The host hands in what the sockets say and asks what to send; block I/O goes through the
//! engine, and its outcomes come back by [`IscsiServer::complete`]. After any call that may have
//! changed something: [`IscsiServer::poll_ready`] names connections to send on or read from again,
//! and [`IscsiServer::poll_close`] those to close.

mod ending;
mod keep;
mod login;
mod members;
mod response_fence;
mod retain;
mod status;
mod task_set;
mod tasks;
#[cfg(test)]
mod tests;
mod tmf;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::exchange::TextExchange;
use corbel_proto::iscsi::login::target::{Admission, Login};
use corbel_proto::iscsi::params::Limits;
use corbel_proto::iscsi::pdu::asynchronous::AsyncEvent;
use corbel_proto::iscsi::target::{Closed, Config as Wire, Connection, Event, Outgoing, Response};
use corbel_proto::memory::{Arena, Buffer, Slice};
use corbel_proto::scsi;
use corbel_proto::table::ShortKeyMap;
use corbel_proto::time::{Duration, Instant};
use slab::Slab;

use super::device::{Device, View};
use super::model::{Target, Targets};
use super::registry::Registry;
use crate::host::{Host, ShardId};
use crate::volume::engine::Engine;
use keep::{Keep, Waiter};
pub use members::Move;
use members::{Joining, Members};
use response_fence::Fenced;
use retain::Lost;
pub use status::SessionStatus;
use task_set::TaskSet;
use tasks::{Task, Work};
use tmf::Drain;

/// Names a connection of this shard. Never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    fn new(key: usize, generation: u32) -> Self {
        let key = u32::try_from(key).expect("connections are bounded");
        Self(u64::from(generation) << 32 | u64::from(key))
    }

    fn key(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("32 bits are left")
    }
}

/// How this server behaves. Limits on connections are per shard.
#[derive(Debug, Clone)]
pub struct Config {
    /// Window, timeouts, pings.
    pub wire: Wire,
    /// What is offered in negotiation.
    pub limits: Limits,
    /// Connections at a time.
    pub connections_max: usize,
    /// Of these, not yet logged in.
    pub half_open_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            wire: Wire::default(),
            limits: Limits {
                // Nothing here needs order: an initiator that does not either may do without.
                data_pdu_in_order: false,
                data_sequence_in_order: false,
                ..Limits::default()
            },
            connections_max: 4096,
            half_open_max: 128,
        }
    }
}

/// Why a connection is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections.
    Full,
    /// Too many that have not logged in.
    HalfOpen,
    /// The server is stopping.
    Stopping,
}

/// What a call may use of its surroundings.
#[derive(Debug)]
pub struct Context<'a, B, H> {
    /// Memory, time, messages.
    pub host: &'a mut H,
    /// Block I/O.
    pub engine: &'a mut Engine<B>,
}

#[derive(Debug)]
struct Conn<B> {
    wire: Connection<B>,
    generation: u32,
    peer: SocketAddr,
    local: SocketAddr,
    login: Login,
    exchange: TextExchange,
    session: Option<u16>,
    /// It waits for the connection that it replaces.
    joining: Option<Box<Joining>>,
    /// It is one of several of its session: what they share is with the session.
    shares: bool,
    /// It has sent a Login Request.
    greeted: bool,
    /// The login is complete.
    full: bool,
    /// It is in the list of [`IscsiServer::poll_ready`].
    queued: bool,
    close_told: bool,
    /// It may be asked to send things again, and keeps them.
    keeps: bool,
    /// Its entry in the table of timers.
    armed: Option<Instant>,
}

#[derive(Debug)]
struct Session<B, D: Device<B>> {
    members: Members,
    /// Connections that are lost, whose tasks wait for another one.
    lost: Vec<Lost<B>>,
    admission: Box<Admission>,
    target: Option<Arc<Target<D>>>,
    reach: Reach,
    /// By LUN and by volume, so that a LUN that is given to another volume starts afresh.
    nexuses: ShortKeyMap<(u16, u32), Nexus<B, D>>,
    tasks: ShortKeyMap<u32, Task<B, D>>,
    /// Requests that the engine has not answered.
    at_medium: usize,
    /// It waits for the session that it replaces.
    fencing: bool,
    /// No connection any more; only what is at the medium is awaited.
    ending: bool,
    /// Sessions that wait for this one's end.
    waiters: Vec<(ShardId, u16)>,
    since: Instant,
    commands: u64,
}

/// How a session's initiator reaches the target, and what of it.
#[derive(Debug)]
struct Reach {
    luns: Vec<scsi::lun::Lun>,
    luns_generation: u64,
    port_name: String,
    group: u16,
    groups: Vec<u16>,
    initiator: String,
}

impl Reach {
    fn view(&self) -> View<'_> {
        View {
            luns: &self.luns,
            luns_generation: self.luns_generation,
            port_name: &self.port_name,
            group: self.group,
            groups: &self.groups,
            initiator: &self.initiator,
        }
    }
}

#[derive(Debug)]
struct Nexus<B, D: Device<B>> {
    device: Arc<D>,
    state: D::Nexus,
}

/// One shard's share of the iSCSI server.
#[derive(Debug)]
pub struct IscsiServer<B, D: Device<B>> {
    config: Config,
    registry: Arc<Registry>,
    targets: Arc<Targets<D>>,
    conns: Slab<Conn<B>>,
    generation: u32,
    half_open: usize,
    sessions: ShortKeyMap<u16, Session<B, D>>,
    works: Slab<Work<B, D>>,
    /// Task sets in which order counts.
    task_sets: BTreeMap<task_set::Key, TaskSet>,
    drains: Slab<Drain>,
    /// State files that are being written.
    keeps: Slab<Keep<D, D::Work>>,
    /// What commands are answered that wait for others' to end, by their number.
    answers: HashMap<u64, (Waiter, Response<B>)>,
    /// Commands and answers that have waited so far.
    waiters: u64,
    /// Answers that wait until others have arrived, by number.
    fences: HashMap<u64, Fenced>,
    /// When they go out all the same.
    fence_dues: BTreeSet<(Instant, u64)>,
    timers: BTreeSet<(Instant, ConnId)>,
    starving: HashSet<ConnId>,
    /// Connections that keep what they may have to send again.
    keepers: usize,
    /// Lost connections whose tasks are kept, and their sessions.
    retained: HashMap<ConnId, u16>,
    /// When those tasks end.
    recalls: BTreeSet<(Instant, ConnId)>,
    /// A command found no memory.
    short: bool,
    ready: VecDeque<ConnId>,
    closing: VecDeque<ConnId>,
    moving: VecDeque<Move>,
    stop_at: Option<Instant>,
    stopping: bool,
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    /// A server of no connections.
    pub fn new(config: Config, registry: Arc<Registry>, targets: Arc<Targets<D>>) -> Self {
        Self {
            config,
            registry,
            targets,
            conns: Slab::new(),
            generation: 0,
            half_open: 0,
            sessions: ShortKeyMap::default(),
            works: Slab::new(),
            task_sets: BTreeMap::new(),
            drains: Slab::new(),
            keeps: Slab::new(),
            answers: HashMap::new(),
            waiters: 0,
            fences: HashMap::new(),
            fence_dues: BTreeSet::new(),
            timers: BTreeSet::new(),
            starving: HashSet::new(),
            keepers: 0,
            retained: HashMap::new(),
            recalls: BTreeSet::new(),
            short: false,
            ready: VecDeque::new(),
            closing: VecDeque::new(),
            moving: VecDeque::new(),
            stop_at: None,
            stopping: false,
        }
    }

    /// A connection from `peer` to our `local` address.
    pub fn accept(
        &mut self,
        peer: SocketAddr,
        local: SocketAddr,
        now: Instant,
    ) -> Result<ConnId, Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        if self.conns.len() >= self.config.connections_max {
            return Err(Refusal::Full);
        }
        if self.half_open >= self.config.half_open_max {
            return Err(Refusal::HalfOpen);
        }
        self.generation = self.generation.wrapping_add(1);
        self.half_open += 1;
        let key = self.conns.insert(Conn {
            wire: Connection::new(self.config.wire, now),
            generation: self.generation,
            peer,
            local,
            login: Login::new(self.config.limits.clone(), self.config.wire.window),
            exchange: TextExchange::default(),
            session: None,
            joining: None,
            shares: false,
            greeted: false,
            full: false,
            queued: false,
            close_told: false,
            keeps: false,
            armed: None,
        });
        let id = ConnId::new(key, self.generation);
        self.arm(id);
        Ok(id)
    }

    /// Stream bytes came. All of them are taken; heed [`Self::wants_read`] before reading more.
    pub fn received<H>(&mut self, id: ConnId, bytes: &[u8], cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        self.received_some(id, bytes, usize::MAX, cx);
    }

    /// Like [`Self::received`], but stops after `commands_max` commands. Returns how many bytes
    /// were taken: all of them if the connection is gone.
    pub fn received_some<H>(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        commands_max: usize,
        cx: &mut Context<'_, B, H>,
    ) -> usize
    where
        H: Host<Memory = B, Buf = B>,
    {
        let now = cx.host.now();
        let take = |wire: &mut Connection<B>| wire.handle_some(bytes, commands_max, cx.host, now);
        let Some(taken) = self.wired(id, take) else { return bytes.len() };
        self.drive(id, cx);
        taken
    }

    /// How many of the next stream bytes are write data, and can be received straight to their
    /// place: see [`Self::take_direct`].
    pub fn direct(&self, id: ConnId) -> Option<u32> {
        self.conn_ref(id)?.wire.direct()
    }

    /// Lends the place of the next stream bytes. Give it back with [`Self::direct_done`]; nothing
    /// else may be received in between. `None`: receive as usual.
    pub fn take_direct(&mut self, id: ConnId) -> Option<Slice<B>> {
        self.conn(id)?.wire.take_direct()
    }

    /// The first `len` bytes of what [`Self::take_direct`] lent were received.
    pub fn direct_done<H>(
        &mut self,
        id: ConnId,
        slice: Slice<B>,
        len: u32,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let now = cx.host.now();
        if self.wired(id, |wire| wire.direct_done(slice, len, cx.host, now)).is_some() {
            self.drive(id, cx);
        }
    }

    /// The next PDU to send on a connection.
    pub fn transmit(&mut self, id: ConnId) -> Option<Outgoing<B>> {
        self.wired(id, |wire| wire.poll_transmit())?
    }

    /// What is queued on a connection has to wait for its peer: no store waits with it.
    pub fn call_in<A: Arena<Buf = B>>(&mut self, id: ConnId, arena: &mut A) {
        if let Some(conn) = self.conn(id) {
            conn.wire.call_in(arena);
        }
    }

    /// False while a connection should not be read.
    pub fn wants_read(&self, id: ConnId) -> bool {
        self.conn_ref(id).is_some_and(|conn| conn.wire.wants_read())
    }

    /// The next connection that may have something to send, or may be read again.
    pub fn poll_ready(&mut self) -> Option<ConnId> {
        loop {
            let id = self.ready.pop_front()?;
            if let Some(conn) = self.conn(id) {
                conn.queued = false;
                return Some(id);
            }
        }
    }

    /// The next connection to close, once everything [`Self::transmit`] gives was sent (or that
    /// has taken too long). Then call [`Self::closed`].
    pub fn poll_close(&mut self) -> Option<ConnId> {
        self.closing.pop_front()
    }

    /// The socket of a connection is closed, or lost.
    pub fn closed<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        if self.conn(id).is_none() {
            return;
        }
        self.end_conn(id, Closed::Lost, cx);
        self.closing.retain(|other| *other != id);
        self.moving.retain(|moving| moving.id != id);
        let conn = self.conns.remove(id.key());
        if let Some(at) = conn.armed {
            self.timers.remove(&(at, id));
        }
        if !conn.full {
            self.half_open -= 1;
        }
        self.keepers -= usize::from(conn.keeps);
    }

    /// Memory may have come back: commands that wait for it go on. Call it once per turn.
    pub fn turn<H>(&mut self, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let short = std::mem::take(&mut self.short) || cx.engine.starved() > 0;
        if short || !self.starving.is_empty() {
            // What is kept in case it must be sent again is the first to go.
            if self.keepers > 0 {
                self.conns.iter_mut().for_each(|(_, conn)| conn.wire.forget_reads());
            }
            self.give_up_orphans_data();
        }
        if !self.task_sets.is_empty() && (short || !self.starving.is_empty()) {
            self.shed_dormant();
        }
        if self.starving.is_empty() {
            return;
        }
        for id in self.starving.drain().collect::<Vec<_>>() {
            let Some(conn) = self.conn(id) else { continue };
            conn.wire.memory_returned(cx.host);
            self.drive(id, cx);
        }
    }

    /// True if a command waits for memory: [`Self::turn`] should come again soon.
    pub fn is_starved(&self) -> bool {
        !self.starving.is_empty()
    }

    /// When [`Self::timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let recall = self.recalls.first().map(|(at, _)| *at);
        let fence = self.fence_dues.first().map(|(at, _)| *at);
        [timer, recall, fence, self.stop_at].into_iter().flatten().min()
    }

    /// Time passed.
    pub fn timeout<H>(&mut self, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let now = cx.host.now();
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if self.wired(id, |wire| wire.handle_timeout(now)).is_none() {
                continue;
            }
            self.arm(id);
            self.drive(id, cx);
        }
        while let Some(&(at, id)) = self.recalls.first().filter(|(at, _)| *at <= now) {
            self.recalls.remove(&(at, id));
            self.expire(id, cx);
        }
        self.old_fences(now, cx);
        if self.stop_at.is_some_and(|at| at <= now) {
            self.stop_at = None;
            for tsih in self.sessions.keys().copied().collect::<Vec<_>>() {
                self.drop_session(tsih, cx);
            }
            for id in self.all() {
                self.close(id, cx);
            }
        }
    }

    /// Asks every initiator to log out, and closes what is left after `grace`. Nothing new is
    /// accepted. The server is down when [`Self::is_idle`] says so.
    pub fn shutdown(&mut self, grace: Duration, now: Instant) {
        self.stopping = true;
        self.stop_at = Some(now + grace);
        let within_s = u16::try_from(grace.as_secs()).unwrap_or(u16::MAX);
        for id in self.all() {
            if let Some(conn) = self.conn(id) {
                conn.wire.send_async(Lun(0), AsyncEvent::LogoutRequest { within_s }, &[]);
            }
            self.touch(id);
        }
    }

    /// No connection, no session and no work is left.
    pub fn is_idle(&self) -> bool {
        let works = self.works.is_empty() && self.keeps.is_empty();
        works && self.conns.is_empty() && self.sessions.is_empty()
    }

    fn all(&self) -> Vec<ConnId> {
        self.conns.iter().map(|(key, conn)| ConnId::new(key, conn.generation)).collect()
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn<B>> {
        self.conns.get_mut(id.key()).filter(|conn| conn.generation == id.generation())
    }

    fn conn_ref(&self, id: ConnId) -> Option<&Conn<B>> {
        self.conns.get(id.key()).filter(|conn| conn.generation == id.generation())
    }

    fn arm(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        let due = conn.wire.poll_timeout();
        let old = std::mem::replace(&mut conn.armed, due);
        if let Some(at) = old {
            self.timers.remove(&(at, id));
        }
        if let Some(at) = due {
            self.timers.insert((at, id));
        }
    }

    /// The host should look at this connection.
    fn touch(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(id);
        }
    }

    /// Deals with everything a connection has to say.
    fn drive<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        self.events(id, cx);
        // What was ended may have been another session's.
        self.go_on(None, cx);
        self.attended(id);
    }

    fn attended(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id) else { return };
        if conn.wire.starved() > 0 {
            self.starving.insert(id);
        }
        self.touch(id);
    }

    fn events<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        while let Some(event) = self.conn(id).and_then(|conn| conn.wire.poll()) {
            match event {
                Event::Login(request, text) => self.login(id, &request, &text, cx),
                Event::Text(request, text) => self.text(id, &request, &text),
                Event::Command(command) => self.command(id, &command, cx),
                Event::DataOut { itt, data } => self.data_out(id, itt, data, cx),
                Event::DataFailed { itt, fault } => self.data_failed(id, itt, fault),
                Event::Task(request) => self.function(id, &request, cx),
                Event::Elsewhere(link, passed) => self.elsewhere(id, link, passed, cx),
                Event::Logout(request) => self.logout(id, &request, cx),
                Event::Passed(number) => self.passed(id, number, cx),
                Event::Closed(why) => self.wire_closed(id, why, cx),
            }
        }
    }
}
