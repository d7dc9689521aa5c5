//! Heads, hosts, cables and storage together: what happens next, and to whom.

use std::collections::BTreeMap;

use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};
use corbel_target::host::{BlockError, BlockOp, BlockToken};
use corbel_target::volume::VolumeId;

use super::agenda::Agenda;
use super::fault::Change;
use super::head::{Head, Inbound, Outbound, State};
use super::net::{Link, Segment, Stream, Way, between};
use super::store::{Flush, Store};
use super::trace::Trace;
use crate::rng::Rng;

/// Something for a host's process.
#[derive(Debug)]
pub enum Input {
    /// A connection stands.
    Connected(u16, u64),
    /// One does not.
    Refused(u16, u64),
    /// Bytes of one.
    Bytes(u16, u64, Vec<u8>),
    /// One is over.
    Closed(u16, u64),
    /// A frame on a link.
    Frame(usize, Vec<u8>),
    /// The carrier of a link came or went.
    Carrier(usize, bool),
    /// A time has come.
    Wake,
}

/// Something that a host's process does.
#[derive(Debug)]
pub enum Output {
    /// Opens a connection over a link.
    Connect(u16, u64, usize),
    /// Closes one.
    Close(u16, u64),
    /// Sends bytes on one.
    Bytes(u16, u64, Vec<u8>),
    /// Sends a frame on a link.
    Frame(usize, Vec<u8>),
    /// Says something to whoever replays a seed.
    Say(String),
}

/// What stands at a host's end of the cables.
pub trait Node {
    /// Something happened.
    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>);

    /// When it wants to be woken.
    fn wake_at(&self) -> Option<Instant>;

    /// The process is gone, and all it knew.
    fn kill(&mut self, now: Instant);

    /// A process starts. `carriers`: its links, and which have one.
    fn start(&mut self, now: Instant, carriers: &[(usize, bool)], out: &mut Vec<Output>);

    /// The application that uses the device asks for no more.
    fn rest(&mut self);
}

/// A machine that uses the storage.
#[derive(Debug)]
pub struct Host<N> {
    /// Its process, and the application.
    pub node: N,
    /// Counts its processes.
    pub life: u32,
    /// There is a process.
    pub alive: bool,
    /// Nothing on the machine runs.
    pub frozen: bool,
    backlog: Vec<Input>,
    wake: Option<Instant>,
}

/// How long a kernel goes on sending what a closed connection left behind. Linux would for minutes:
/// the initiator has to close its connections so that nothing is sent, or set TCP_USER_TIMEOUT.
pub const ORPHAN_MAX: Duration = Duration::from_secs(2);

/// A block operation on its way.
#[derive(Debug)]
struct Work {
    head: usize,
    volume: VolumeId,
    op: BlockOp<HeapBuffer>,
    token: BlockToken,
    flush: Option<Flush>,
    /// It took effect: how it ended, and its number in the store.
    done: Option<(Result<(), BlockError>, Option<u64>)>,
}

#[derive(Debug)]
pub(super) enum Event {
    Pipe(usize, Way),
    Frame(usize, Way, Vec<u8>),
    Effect(u64),
    Landed(u64),
    HeadWake(usize, Instant),
    HostWake(usize, Instant),
    /// The kernel tells what it sees.
    Carrier(usize),
    Change(Change),
}

/// See the module.
#[derive(Debug)]
pub struct Fabric<N> {
    pub(super) agenda: Agenda<Event>,
    pub(super) rng: Rng,
    /// What happened.
    pub trace: Trace,
    /// Targets.
    pub heads: Vec<Head>,
    /// Initiators.
    pub hosts: Vec<Host<N>>,
    /// Cables.
    pub links: Vec<Link>,
    /// Connections, also those that are over.
    pub streams: Vec<Stream>,
    /// The disk, and one that is not ours.
    pub stores: [Store; 2],
    works: BTreeMap<u64, Work>,
    next_work: u64,
    /// Longest time from a block operation's submission to its effect, and to its completion.
    pub disk_delay_max: Duration,
}

impl<N: Node> Fabric<N> {
    /// Machines that are off, and cables between them.
    pub fn new(
        rng: Rng,
        trace: Trace,
        heads: Vec<Head>,
        nodes: Vec<N>,
        links: Vec<Link>,
        stores: [Store; 2],
    ) -> Self {
        let host = |node| Host {
            node,
            life: 0,
            alive: false,
            frozen: false,
            backlog: Vec::new(),
            wake: None,
        };
        Self {
            agenda: Agenda::default(),
            rng,
            trace,
            heads,
            hosts: nodes.into_iter().map(host).collect(),
            links,
            streams: Vec::new(),
            stores,
            works: BTreeMap::new(),
            next_work: 0,
            disk_delay_max: Duration::from_millis(2),
        }
    }

    /// The time.
    pub const fn now(&self) -> Instant {
        self.agenda.now()
    }

    /// Puts a change of the world on the agenda.
    pub fn plan(&mut self, at: Instant, change: Change) {
        self.agenda.at(at, Event::Change(change));
    }

    /// Takes every planned change off the agenda.
    pub fn cancel_changes(&mut self) {
        self.agenda.retain(|event| !matches!(event, Event::Change(_)));
    }

    /// Lets everything happen that happens before `end`, or until `over` says so.
    pub fn run_until(&mut self, end: Instant, mut over: impl FnMut(&Self) -> bool) {
        let mut steps = 0_u32;
        while !over(self) {
            let Some(event) = self.agenda.next_before(end) else {
                return self.agenda.pass(end);
            };
            self.trace.note(self.now().as_nanos());
            self.happen(event);
            steps += 1;
            assert!(steps < 3_000_000, "something spins at {:?}", self.now());
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pipe(stream, way) => self.pipe(stream, way),
            Event::Frame(link, way, bytes) => self.frame(link, way, bytes),
            Event::Effect(work) => self.effect(work),
            Event::Landed(work) => self.landed(work),
            Event::HeadWake(head, at) if self.heads[head].wake == Some(at) => {
                self.heads[head].wake = None;
                self.for_head(head, Inbound::Wake);
            }
            Event::HostWake(host, at) if self.hosts[host].wake == Some(at) => {
                self.hosts[host].wake = None;
                self.for_host(host, Input::Wake);
            }
            Event::HeadWake(..) | Event::HostWake(..) => {}
            Event::Carrier(link) => {
                let up = self.links[link].carrier;
                self.for_host(self.links[link].host, Input::Carrier(link, up));
            }
            Event::Change(change) => self.change(change),
        }
    }

    /// Something for a head's process; one that hangs sees it later.
    pub(super) fn for_head(&mut self, head: usize, inbound: Inbound) {
        match self.heads[head].state {
            State::Up => self.head_turn(head, inbound),
            State::Hung => self.heads[head].backlog.push(inbound),
            State::Dead | State::Off => {}
        }
    }

    fn head_turn(&mut self, head: usize, inbound: Inbound) {
        let now = self.now();
        let mut out = Vec::new();
        let process = self.heads[head].process.as_mut().expect("what is up has a process");
        process.handle(now, inbound, &mut out);
        for outbound in out {
            match outbound {
                Outbound::Frame(link, bytes) => self.send_frame(link, Way::ToHost, bytes),
                Outbound::Stream(stream, segment) => {
                    if matches!(segment, Segment::Fin | Segment::Reset) {
                        self.streams[stream].head_end = None;
                    }
                    self.send(stream, Way::ToHost, segment);
                }
                Outbound::Block(volume, op, token) => self.submit(head, volume, op, token),
            }
        }
        self.wake_head(head);
    }

    fn wake_head(&mut self, index: usize) {
        let now = self.now();
        let head = &mut self.heads[index];
        let Some(due) = head.process.as_ref().and_then(super::head::Process::wake_at) else {
            return;
        };
        let due = due.max(now);
        if head.wake.is_none_or(|at| due < at) {
            head.wake = Some(due);
            self.agenda.at(due, Event::HeadWake(index, due));
        }
    }

    /// Something for a host's process; a frozen machine sees it later.
    pub(super) fn for_host(&mut self, host: usize, input: Input) {
        let slot = &mut self.hosts[host];
        if slot.frozen {
            slot.backlog.push(input);
        } else {
            self.host_turn(host, input);
        }
    }

    fn host_turn(&mut self, host: usize, input: Input) {
        let now = self.now();
        let mut out = Vec::new();
        self.hosts[host].node.handle(now, input, &mut out);
        self.host_did(host, out);
    }

    pub(super) fn host_did(&mut self, host: usize, out: Vec<Output>) {
        let life = self.hosts[host].life;
        for output in out {
            match output {
                Output::Connect(path, number, link) => {
                    self.streams.push(Stream::new(link, life, path, number));
                    self.send(self.streams.len() - 1, Way::ToHead, Segment::Syn);
                }
                Output::Close(path, number) => {
                    if let Some(stream) = self.stream_of(host, path, number) {
                        self.close(stream);
                    }
                }
                Output::Bytes(path, number, bytes) => {
                    if let Some(stream) = self.stream_of(host, path, number) {
                        self.send(stream, Way::ToHead, Segment::Data(bytes));
                    }
                }
                Output::Frame(link, bytes) => self.send_frame(link, Way::ToHead, bytes),
                Output::Say(words) => {
                    self.trace.say(self.now(), || format!("host {host}: {words}"))
                }
            }
        }
        let now = self.now();
        let slot = &mut self.hosts[host];
        if let Some(due) = slot.node.wake_at().map(|due| due.max(now))
            && slot.wake.is_none_or(|at| due < at)
        {
            slot.wake = Some(due);
            self.agenda.at(due, Event::HostWake(host, due));
        }
    }

    fn stream_of(&self, host: usize, path: u16, number: u64) -> Option<usize> {
        let end = Some((self.hosts[host].life, path, number));
        let here = |stream: &Stream| self.links[stream.link].host == host;
        // The youngest are asked for most.
        self.streams.iter().rposition(|stream| stream.host_end == end && here(stream))
    }

    /// The host's kernel closes a stream: it resets it, or it sends what is queued, for a while.
    pub(super) fn close(&mut self, stream: usize) {
        let until = self.now() + ORPHAN_MAX;
        self.streams[stream].host_end = None;
        self.streams[stream].to_head.orphan(until);
        let abrupt = self.rng.percent(50);
        self.send(stream, Way::ToHead, if abrupt { Segment::Reset } else { Segment::Fin });
    }

    /// The streams of a host's process that are not over.
    pub(super) fn streams_of_host(&self, host: usize) -> Vec<usize> {
        let here = |stream: &Stream| stream.host_end.is_some() && self.of_host(stream, host);
        (0..self.streams.len()).filter(|&at| here(&self.streams[at])).collect()
    }

    fn of_host(&self, stream: &Stream, host: usize) -> bool {
        self.links[stream.link].host == host
    }

    pub(super) fn send(&mut self, stream: usize, way: Way, segment: Segment) {
        let now = self.now();
        let link = &self.links[self.streams[stream].link];
        let due = self.streams[stream].pipe(way).send(now, segment, link, &mut self.rng);
        if let Some(due) = due {
            self.agenda.at(due, Event::Pipe(stream, way));
        }
    }

    fn pipe(&mut self, index: usize, way: Way) {
        let now = self.now();
        let stream = &mut self.streams[index];
        let link = &self.links[stream.link];
        let off = way == Way::ToHead && self.heads[link.head].state == State::Off;
        let passes = link.passes(way) && !off;
        let (segment, again) = stream.pipe(way).arrive(now, passes, &link.manners, &mut self.rng);
        if let Some(again) = again {
            self.agenda.at(again, Event::Pipe(index, way));
        }
        let Some(segment) = segment else { return };
        if let Segment::Data(bytes) = &segment {
            self.trace.bytes(bytes);
        }
        match way {
            Way::ToHead => self.arrive_at_head(index, segment),
            Way::ToHost => self.arrive_at_host(index, segment),
        }
    }

    fn arrive_at_head(&mut self, index: usize, segment: Segment) {
        let link = self.streams[index].link;
        let number = self.links[link].head;
        let head = &self.heads[number];
        let listens = matches!(head.state, State::Up | State::Hung);
        let known = listens && self.streams[index].head_end == Some(head.life);
        match segment {
            Segment::Syn if listens => {
                self.streams[index].head_end = Some(head.life);
                self.send(index, Way::ToHost, Segment::SynAck);
                self.for_head(number, Inbound::Accept(link, index));
            }
            Segment::Data(bytes) if known => self.for_head(number, Inbound::Bytes(index, bytes)),
            Segment::Syn | Segment::Data(_) => self.send(index, Way::ToHost, Segment::Reset),
            Segment::Fin | Segment::Reset if known => {
                self.streams[index].head_end = None;
                self.for_head(number, Inbound::End(index));
            }
            Segment::Fin | Segment::Reset | Segment::SynAck => {}
        }
    }

    fn arrive_at_host(&mut self, index: usize, segment: Segment) {
        let stream = &mut self.streams[index];
        let host = self.links[stream.link].host;
        let life = self.hosts[host].life;
        let Some((_, path, number)) = stream.host_end.filter(|end| end.0 == life) else {
            if matches!(segment, Segment::Data(_) | Segment::SynAck) {
                self.send(index, Way::ToHead, Segment::Reset);
            }
            return;
        };
        let input = match segment {
            Segment::Data(bytes) => Input::Bytes(path, number, bytes),
            Segment::SynAck => {
                stream.connected = true;
                Input::Connected(path, number)
            }
            Segment::Fin | Segment::Reset => {
                stream.host_end = None;
                if stream.connected {
                    Input::Closed(path, number)
                } else {
                    Input::Refused(path, number)
                }
            }
            Segment::Syn => return,
        };
        self.for_host(host, input);
    }

    pub(super) fn send_frame(&mut self, link: usize, way: Way, bytes: Vec<u8>) {
        let cable = &self.links[link];
        if !cable.passes(way) {
            return;
        }
        for delay in cable.arrivals(bytes.len(), &mut self.rng) {
            self.agenda.after(delay, Event::Frame(link, way, bytes.clone()));
        }
    }

    fn frame(&mut self, link: usize, way: Way, bytes: Vec<u8>) {
        if !self.links[link].passes(way) {
            return;
        }
        self.trace.bytes(&bytes);
        match way {
            Way::ToHead => self.for_head(self.links[link].head, Inbound::Frame(link, bytes)),
            Way::ToHost if self.hosts[self.links[link].host].alive => {
                self.for_host(self.links[link].host, Input::Frame(link, bytes));
            }
            Way::ToHost => {}
        }
    }

    /// A frozen machine goes on: first with what came, or first with what is due.
    pub(super) fn thaw(&mut self, host: usize) {
        self.hosts[host].frozen = false;
        let backlog = std::mem::take(&mut self.hosts[host].backlog);
        if self.rng.percent(50) {
            self.host_turn(host, Input::Wake);
        }
        for input in backlog {
            self.host_turn(host, input);
        }
        self.host_turn(host, Input::Wake);
    }

    /// A head's process that hung goes on.
    pub(super) fn resume(&mut self, head: usize) {
        self.heads[head].state = State::Up;
        for inbound in std::mem::take(&mut self.heads[head].backlog) {
            self.head_turn(head, inbound);
        }
        self.head_turn(head, Inbound::Wake);
    }

    fn submit(
        &mut self,
        head: usize,
        volume: VolumeId,
        op: BlockOp<HeapBuffer>,
        token: BlockToken,
    ) {
        let domain = self.heads[head].domain;
        let flush = matches!(op, BlockOp::Flush)
            .then(|| self.stores[volume.0 as usize].flush_submitted(domain));
        let number = self.next_work;
        self.next_work += 1;
        self.works.insert(number, Work { head, volume, op, token, flush, done: None });
        let delay = between(self.disk_delay_max, &mut self.rng);
        self.agenda.after(delay, Event::Effect(number));
    }

    fn effect(&mut self, number: u64) {
        let now = self.now();
        let Some(work) = self.works.get(&number) else { return };
        let hangs_until = self.heads[work.head].disk_hangs_until;
        let delay = between(self.disk_delay_max, &mut self.rng);
        if hangs_until > now {
            return self.agenda.at(hangs_until + delay, Event::Effect(number));
        }
        self.take_effect(number);
        self.agenda.after(delay, Event::Landed(number));
    }

    fn take_effect(&mut self, number: u64) {
        let now = self.now();
        let Some(work) = self.works.get_mut(&number) else { return };
        let domain = self.heads[work.head].domain;
        let store = &mut self.stores[work.volume.0 as usize];
        let mut fails = false;
        let operation = match &mut work.op {
            BlockOp::Read { offset, data } => {
                fails = store.fails(*offset, u64::from(data.len));
                store.read(*offset, data.bytes_mut());
                None
            }
            BlockOp::Write { offset, data } => {
                fails = store.fails(*offset, u64::from(data.len));
                if fails {
                    store.refuse(*offset, data.bytes());
                }
                // A write that fails may still have reached the medium.
                let there = !fails || self.rng.percent(50);
                there.then(|| store.write(now, domain, *offset, data.bytes()))
            }
            BlockOp::Discard { offset, len } | BlockOp::Zero { offset, len, .. } => {
                Some(store.zero(now, domain, *offset, *len))
            }
            BlockOp::Flush | BlockOp::Status { .. } => None,
        };
        let result = match &work.op {
            BlockOp::Status { .. } => Err(BlockError::Unsupported),
            _ if fails => Err(BlockError::Medium),
            _ => Ok(()),
        };
        let (volume, head) = (work.volume.0, work.head);
        work.done = Some((result, operation));
        self.trace.say(now, || format!("head {head}: volume {volume} {}", words(&work.op, result)));
    }

    fn landed(&mut self, number: u64) {
        let Some(work) = self.works.remove(&number) else { return };
        let (result, operation) = work.done.expect("it took effect before");
        let store = &mut self.stores[work.volume.0 as usize];
        if let Some(operation) = operation {
            store.complete(self.heads[work.head].domain, operation);
        }
        if let Some(flush) = work.flush {
            store.flush_completed(flush);
        }
        let data: Option<Slice<HeapBuffer>> = match work.op {
            BlockOp::Read { data, .. } | BlockOp::Write { data, .. } => Some(data),
            _ => None,
        };
        self.for_head(work.head, Inbound::Done(work.token, result, data));
    }

    /// A process ends: what it had at the disk takes effect now or never. Nothing completes.
    pub(super) fn abandon_works(&mut self, head: usize) {
        let of_head: Vec<u64> =
            self.works.iter().filter(|(_, w)| w.head == head).map(|(n, _)| *n).collect();
        for number in of_head {
            let pending = self.works[&number].done.is_none();
            let write = !matches!(self.works[&number].op, BlockOp::Read { .. } | BlockOp::Flush);
            if pending && write && self.rng.percent(50) {
                self.take_effect(number);
            }
            self.works.remove(&number);
        }
    }
}

fn words(op: &BlockOp<HeapBuffer>, result: Result<(), BlockError>) -> String {
    let block = |offset: &u64| offset / 512;
    let what = match op {
        BlockOp::Read { offset, data } => format!("reads {}+{}", block(offset), data.len / 512),
        BlockOp::Write { offset, data } => {
            let id = data
                .bytes()
                .get(8..16)
                .map_or(0, |id| u64::from_be_bytes(id.try_into().expect("eight bytes")));
            format!("writes {}+{} of {id:#x}", block(offset), data.len / 512)
        }
        BlockOp::Flush => "flushes".to_owned(),
        BlockOp::Status { offset } => format!("tells what is at {}", block(offset)),
        BlockOp::Discard { offset, len } => format!("discards {}+{}", block(offset), len / 512),
        BlockOp::Zero { offset, len, .. } => format!("zeroes {}+{}", block(offset), len / 512),
    };
    if result.is_ok() { what } else { format!("{what}: medium error") }
}
