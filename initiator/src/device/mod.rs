//! An engine and its paths together: what the shell and the simulator drive.
//!
//! A [`Device`] is pure. It is handed requests, bytes, frames, link changes and the time; it
//! hands back outcomes, connections to make, bytes and frames to send.
//!
//! How to drive it: after every call that takes `now`, take outcomes with
//! [`Device::poll_outcome`], connections with [`Device::poll_wire`], bytes with
//! [`Device::transmit`], frames with [`Device::transmit_frame`] and notices with
//! [`Device::poll_notice`] until there are none, and set one timer to [`Device::poll_timeout`].

mod admin;
mod held;

use std::collections::{BTreeMap, VecDeque};

use corbel_proto::memory::Arena;
use corbel_proto::time::{Duration, Instant};

use crate::identity::Identity;
use crate::multipath::policy::Policy;
use crate::multipath::rules::Rules;
use crate::multipath::status::{DeviceStatus, Notice};
use crate::multipath::{Engine, Geometry, Legacy, Order};
use crate::path::aoe::{self, Frame, Link};
use crate::path::iscsi::{self, Chunk, StreamId, Wire};
use crate::path::{PathFault, PathId, Tried, Verdict};
use crate::request::{Outcome, Request};
use held::{Held, Machine};

/// How a device begins.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name, for people.
    pub name: String,
    /// What an administrator decided.
    pub policy: Policy,
    /// The safety rules: [`Rules::SOUND`], except in the simulator's own test.
    pub rules: Rules,
    /// The world-wide name that every path must lead to; `None`: that of the first path.
    pub wwid: Option<String>,
}

/// A path, as configured.
#[derive(Debug, Clone)]
pub enum PathConfig {
    /// Over iSCSI.
    Iscsi(Box<iscsi::Config>),
    /// Over AoE, on this interface.
    Aoe(String, Box<aoe::Config>),
}

/// A read that found no memory for its second copy is tried again this much later.
const NO_MEMORY: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub struct Device<A: Arena> {
    name: String,
    engine: Engine<A::Buf>,
    arena: A,
    paths: BTreeMap<PathId, Held<A::Buf>>,
    next_path: u16,
    seed: u64,
    /// Interfaces as last heard of.
    links: BTreeMap<String, Link>,
    wires: VecDeque<(PathId, Wire)>,
    ending: Ending,
    /// [`Rules::prove_at_one_process`].
    one_process: bool,
}

/// How far a device is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    /// Requests end, and what is in doubt is waited for.
    Draining,
    /// The paths take leave.
    Leaving,
}

impl<A: Arena> Device<A> {
    /// A device without paths. `seed` decides every choice that is to look random. `arena` lends
    /// memory for second copies of reads.
    pub fn new(now: Instant, config: Config, arena: A, seed: u64) -> Self {
        let one_process = config.rules.prove_at_one_process;
        let mut engine = Engine::new(now, config.policy, config.rules);
        if let Some(wwid) = config.wwid {
            // Of any size.
            let (serial, model) = (String::new(), String::new());
            let (size_bytes, block_bytes) = (0, 512);
            let wwn = Some(wwid);
            engine.expect(Identity { wwn, serial, model, size_bytes, block_bytes });
        }
        Self {
            name: config.name,
            engine,
            arena,
            paths: BTreeMap::new(),
            next_path: 0,
            seed,
            links: BTreeMap::new(),
            wires: VecDeque::new(),
            ending: Ending::No,
            one_process,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An earlier process left this; see [`Engine::inherit`]. To be called before a path is added.
    pub fn inherit(&mut self, legacy: Legacy) {
        self.engine.inherit(legacy);
    }

    /// Users are served; see [`Engine::taken_over`].
    pub fn taken_over(&mut self, now: Instant) {
        self.engine.taken_over(now);
    }

    /// What this process leaves to the next one, should it die; see [`Engine::legacy`].
    pub fn legacy(&self) -> Legacy {
        self.engine.legacy()
    }

    /// Another number for every other answer of [`Self::legacy`]. To be looked at before bytes and
    /// frames are taken.
    pub const fn legacy_version(&self) -> u64 {
        self.engine.legacy_version()
    }

    /// Asks for something. It ends with exactly one outcome.
    pub fn submit(&mut self, now: Instant, request: Request<A::Buf>) {
        self.engine.submit(now, request);
        self.settle(now);
    }

    /// A request that ended.
    pub fn poll_outcome(&mut self) -> Option<Outcome<A::Buf>> {
        self.engine.poll_outcome()
    }

    /// Something that an administrator may want to know.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.engine.poll_notice()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let paths = self.paths.values().filter_map(|held| held.machine.poll_timeout());
        paths.chain(self.engine.poll_timeout()).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for held in self.paths.values_mut() {
            if held.machine.poll_timeout().is_some_and(|due| due <= now) {
                held.machine.handle_timeout(now);
            }
        }
        // What the paths have to say comes first: it may be what the engine waits for.
        self.settle(now);
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(now);
            self.settle(now);
        }
    }

    /// A connection to make or to close.
    pub fn poll_wire(&mut self) -> Option<(PathId, Wire)> {
        self.wires.pop_front()
    }

    /// The next bytes of a path's stream. Ask again until there are none.
    pub fn transmit(&mut self, path: PathId) -> Option<(StreamId, Chunk<A::Buf>)> {
        match &mut self.paths.get_mut(&path)?.machine {
            Machine::Iscsi(machine) => machine.transmit(),
            Machine::Aoe(..) => None,
        }
    }

    /// Every path that has streams.
    pub fn stream_paths(&self) -> impl Iterator<Item = PathId> {
        let streams = |held: &&Held<_>| matches!(held.machine, Machine::Iscsi(_));
        self.paths.iter().filter(move |(_, held)| streams(held)).map(|(id, _)| *id)
    }

    /// A stream is connected, over this interface if that is known.
    pub fn connected(
        &mut self,
        now: Instant,
        path: PathId,
        stream: StreamId,
        interface: Option<String>,
    ) {
        if let Some(held) = self.paths.get_mut(&path)
            && matches!(&held.machine, Machine::Iscsi(machine) if machine.is_going_home(stream))
        {
            held.interface = interface.or_else(|| held.interface.take());
        }
        self.iscsi(now, path, |machine| machine.connected(now, stream));
    }

    /// A stream could not be connected.
    pub fn connect_failed(&mut self, now: Instant, path: PathId, stream: StreamId, why: String) {
        self.iscsi(now, path, |machine| machine.connect_failed(now, stream, why));
    }

    /// Bytes came.
    pub fn received(&mut self, now: Instant, path: PathId, stream: StreamId, bytes: &[u8]) {
        self.iscsi(now, path, |machine| machine.received(now, stream, bytes));
    }

    /// A stream has ended.
    pub fn closed(&mut self, now: Instant, path: PathId, stream: StreamId, why: String) {
        self.iscsi(now, path, |machine| machine.closed(now, stream, why));
    }

    fn iscsi(
        &mut self,
        now: Instant,
        path: PathId,
        act: impl FnOnce(&mut iscsi::IscsiPath<A::Buf>),
    ) {
        if let Some(Held { machine: Machine::Iscsi(machine), .. }) = self.paths.get_mut(&path) {
            act(machine);
            self.settle(now);
        }
    }

    /// An AoE frame came in on an interface.
    pub fn frame(&mut self, now: Instant, interface: &str, frame: &[u8]) {
        for held in self.paths.values_mut() {
            if let Machine::Aoe(machine) = &mut held.machine
                && held.interface.as_deref() == Some(interface)
            {
                machine.frame(now, frame);
            }
        }
        self.settle(now);
    }

    /// The next frame to send on an interface. Ask again until there is none.
    pub fn transmit_frame(&mut self, interface: &str) -> Option<Frame<A::Buf>> {
        self.paths.values_mut().find_map(|held| match &mut held.machine {
            Machine::Aoe(machine) if held.interface.as_deref() == Some(interface) => {
                machine.transmit()
            }
            _ => None,
        })
    }

    /// Something happened to an interface; also to be told of each at the start.
    pub fn link(&mut self, now: Instant, interface: &str, link: Link) {
        self.links.insert(interface.to_owned(), link);
        for held in self.paths.values_mut() {
            if held.interface.as_deref() == Some(interface) {
                match &mut held.machine {
                    Machine::Iscsi(machine) => machine.link(now, link.up),
                    Machine::Aoe(machine) => machine.link(now, link),
                }
            }
        }
        self.settle(now);
    }

    /// Interfaces that AoE paths use.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let aoe = |held: &&Held<_>| matches!(held.machine, Machine::Aoe(_));
        self.paths.values().filter(aoe).filter_map(|held| held.interface.as_deref())
    }

    /// What the device looks like, once a path has told.
    pub fn geometry(&self) -> Option<Geometry> {
        self.engine.geometry()
    }

    /// True if nothing of what was ever sent can take effect any more.
    pub fn is_quiet(&self) -> bool {
        self.engine.is_quiet() && self.paths.values().all(|held| held.machine.is_quiet())
    }

    /// For people and scripts.
    pub fn status(&mut self, now: Instant) -> DeviceStatus {
        for (id, held) in &self.paths {
            self.engine.path_words(*id, held.machine.why(now), held.machine.next(now));
        }
        self.engine.status(now, self.name.clone())
    }

    /// Passes on what path clients and engine have to say to each other.
    fn settle(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            for (id, held) in &mut self.paths {
                while let Some(event) = held.machine.poll_event() {
                    quiet = false;
                    self.engine.path_event(now, *id, event);
                }
                while let Some(wire) = held.machine.poll_wire() {
                    self.wires.push_back((*id, wire));
                }
            }
            while let Some(order) = self.engine.poll_order() {
                quiet = false;
                self.obey(now, order);
            }
            if quiet && !self.help_prove(now) {
                break;
            }
        }
        self.adopt_siblings(now);
        self.bury(now);
    }

    /// A path that is dead, with writes in doubt, may have that ended at another one's portal. True
    /// if one begins to.
    fn help_prove(&mut self, now: Instant) -> bool {
        let need = |machine: &Machine<_>| match machine {
            Machine::Iscsi(machine) => machine.need(),
            Machine::Aoe(_) => None,
        };
        let needs = self.paths.iter().filter_map(|(id, held)| Some((*id, need(&held.machine)?)));
        let found = needs.into_iter().find_map(|(id, need)| {
            let portal = self.paths.values().find_map(|held| match &held.machine {
                Machine::Iscsi(helper) => helper.can_prove(&need, !self.one_process),
                Machine::Aoe(_) => None,
            });
            Some((id, portal?))
        });
        let Some((id, portal)) = found else { return false };
        if let Some(Held { machine: Machine::Iscsi(machine), .. }) = self.paths.get_mut(&id) {
            machine.prove(now, portal);
        }
        true
    }

    fn obey(&mut self, now: Instant, order: Order<A::Buf>) {
        match order {
            Order::Start { path, mut attempt } => {
                let reads = attempt.operation == crate::request::Operation::Read;
                if reads && attempt.data.is_none() {
                    let bytes = usize::try_from(attempt.extent.len).ok();
                    let lent = bytes.and_then(|bytes| self.arena.alloc(bytes));
                    attempt.data = lent.map(corbel_proto::memory::Slice::whole);
                    if attempt.data.is_none() {
                        let verdict = Verdict::Later(NO_MEMORY);
                        let tried = Tried { id: attempt.id, data: None, verdict };
                        return self.engine.path_event(
                            now,
                            path,
                            crate::path::PathEvent::Tried(tried),
                        );
                    }
                }
                match self.paths.get_mut(&path) {
                    Some(held) => held.machine.submit(now, attempt),
                    None => unreachable!("the engine knows no paths but ours"),
                }
            }
            Order::Abort { path, id } => {
                if let Some(held) = self.paths.get_mut(&path) {
                    held.machine.abort(now, id);
                }
            }
            Order::Check { path } => {
                if let Some(held) = self.paths.get_mut(&path) {
                    held.machine.check(now);
                }
            }
        }
    }

    /// Paths that were taken away go once nothing of theirs can land any more.
    fn bury(&mut self, now: Instant) {
        let gone: Vec<_> = self
            .paths
            .iter()
            .filter(|(_, held)| held.leaving && held.machine.is_quiet())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.engine.remove_path(now, id);
            self.paths.remove(&id);
        }
        if self.ending == Ending::Draining && self.engine.is_drained() {
            self.ending = Ending::Leaving;
            let all: Vec<_> = self.paths.keys().copied().collect();
            for id in all {
                self.stop_path(now, id, PathFault::Disabled);
            }
        }
    }
}
