//! One target process and the machine it runs on.
//!
//! The process is the target's own code: one shard, AoE on a port for each link, iSCSI on a portal
//! for each link. It can crash (the machine resets its connections), lose its power (silence),
//! hang (its queues fill, and are worked off when it goes on), and come back as somebody else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use corbel_proto::aoe::Mac;
use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};
use corbel_target::aoe::{Address, AoeServer, Options, PortId, ShelfMap, Slot};
use corbel_target::ata::{Acknowledge, Disk as AtaDisk};
use corbel_target::host::{BlockError, BlockOp, BlockToken, Host, Message, ShardId};
use corbel_target::iscsi::model::{Allow, PortalGroup, Target, Targets};
use corbel_target::iscsi::registry::Registry;
use corbel_target::iscsi::server::{Config, ConnId, IscsiServer};
use corbel_target::scsi::{Instance, LogicalUnit};
use corbel_target::shard::Shard;
use corbel_target::volume::{Facts, Identity, Options as VolumeOptions, Volume, VolumeId};

use super::net::Segment;
use super::store::SECTOR_BYTES;
use crate::rng::Rng;

/// The shelf and slot of the disk, on every head.
pub const ADDRESS: (u16, u8) = (7, 1);

/// The disk that is meant, and another that has taken its place.
pub const OURS: VolumeId = VolumeId(0);
/// See [`OURS`].
pub const ALIEN: VolumeId = VolumeId(1);

/// A target's name.
pub fn target_name(name: usize) -> String {
    format!("iqn.2026-11.org.example:head{name}")
}

/// Where a head listens on a link.
pub fn portal(link: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(link).expect("few links")], 3260))
}

/// The link of a portal.
pub fn link_of(portal: SocketAddr) -> Option<usize> {
    match portal {
        SocketAddr::V4(v4) => Some(usize::from(v4.ip().octets()[3])),
        SocketAddr::V6(_) => None,
    }
}

/// A head's address on a link.
pub fn head_mac(link: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, u8::try_from(link).expect("few links")])
}

/// A host's.
pub fn host_mac(link: usize) -> Mac {
    Mac([2, 0, 0, 0, 2, u8::try_from(link).expect("few links")])
}

/// What does not change when a process ends.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The number in its target's name, which another head may have, too.
    pub name: usize,
    /// Its links and their MTUs.
    pub links: Vec<(usize, u32)>,
    /// Bytes of payload memory.
    pub memory_bytes: usize,
    /// Bytes in a logical block.
    pub block_bytes: u32,
    /// It announces itself on AoE when it starts.
    pub announces: bool,
    /// Silence after which a session's initiator is pinged, and how long an answer may take.
    pub ping: (Duration, Duration),
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Serves.
    Up,
    /// The process stands still.
    Hung,
    /// There is no process.
    Dead,
    /// The machine is off.
    Off,
}

/// Something for the process.
#[derive(Debug)]
pub enum Inbound {
    /// A connection on a link; its stream.
    Accept(usize, usize),
    /// Bytes of a stream.
    Bytes(usize, Vec<u8>),
    /// The end of one.
    End(usize),
    /// A frame on a link.
    Frame(usize, Vec<u8>),
    /// A block operation.
    Done(BlockToken, Result<(), BlockError>, Option<Slice<HeapBuffer>>),
    /// A time has come.
    Wake,
}

/// Something from the process.
#[derive(Debug)]
pub enum Outbound {
    /// A frame, on a link.
    Frame(usize, Vec<u8>),
    /// Something on a stream.
    Stream(usize, Segment),
    /// Block I/O.
    Block(VolumeId, BlockOp<HeapBuffer>, BlockToken),
}

/// The surroundings of the shard.
#[derive(Debug)]
struct Surroundings {
    now: Instant,
    arena: HeapArena,
    rng: Rng,
    queued: Vec<(VolumeId, BlockOp<HeapBuffer>, BlockToken)>,
    /// What the one shard has to say to itself.
    posted: Vec<Message>,
}

impl Arena for Surroundings {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        self.arena.alloc(len)
    }
}

impl Host for Surroundings {
    type Memory = HeapBuffer;

    fn now(&self) -> Instant {
        self.now
    }

    fn shard(&self) -> ShardId {
        0
    }

    fn shards(&self) -> ShardId {
        1
    }

    fn block(&mut self, volume: VolumeId, op: BlockOp<HeapBuffer>, token: BlockToken) {
        self.queued.push((volume, op, token));
    }

    fn post(&mut self, _: ShardId, message: Message) {
        self.posted.push(message);
    }

    fn random(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.rng.next().to_le_bytes()[0];
        }
    }

    fn persist(&mut self, name: &str, _: Vec<u8>, _: u64) {
        unreachable!("nobody sets {name}");
    }
}

/// The process.
#[derive(Debug)]
pub struct Process {
    shard: Shard<HeapBuffer>,
    surroundings: Surroundings,
    volume: Arc<Volume>,
    conns: BTreeMap<usize, ConnId>,
    streams: BTreeMap<ConnId, usize>,
    unread: BTreeMap<usize, Vec<u8>>,
}

impl Process {
    /// The process number `process` of head `index`, just started in its machine's boot number
    /// `boot`: which device it serves, and how large.
    pub fn start(
        index: usize,
        plan: &Plan,
        (boot, process): (u32, u32),
        (alien, sectors): (bool, usize),
        rng: Rng,
    ) -> Self {
        let volume = volume(plan, alien, sectors);
        let (shelf, slot) = ADDRESS;
        let address = Address::new(shelf, slot).expect("an address like any other");
        let disk = AtaDisk::new(volume.clone(), Acknowledge::Stable);
        let slot = Arc::new(Slot::new(address, disk, Vec::new()));
        let ports = plan.links.iter().map(|(link, _)| (port(*link), slot.clone())).collect();
        let shelves = Arc::new(ShelfMap::new(ports).expect("one slot"));
        let mut aoe = AoeServer::new(Options::default());
        aoe.set_map(&shelves);
        for (link, mtu) in &plan.links {
            aoe.port_up(port(*link), head_mac(*link), *mtu);
            if plan.announces {
                aoe.announce(port(*link));
            }
        }
        let id = |number: usize, life: u32| {
            let number = u128::try_from(number).expect("few heads");
            (number << 32 | u128::from(life)).to_be_bytes()
        };
        // Heads of one name are two processes on one machine, as far as caches go.
        let instance = Instance { boot: id(plan.name, boot), process: id(index, process) };
        let unit = LogicalUnit::new(volume.clone()).with_instance(Some(instance));
        let portals = plan.links.iter().map(|(link, _)| portal(*link)).collect();
        let targets = Arc::new(Targets::new([target(plan.name, unit, portals)], None));
        let mut config = Config::default();
        (config.wire.ping_interval, config.wire.ping_timeout) = plan.ping;
        let iscsi = IscsiServer::new(config, Arc::new(Registry::new(64)), targets);
        Self {
            shard: Shard::new(aoe, iscsi),
            surroundings: Surroundings {
                now: Instant::ZERO,
                arena: HeapArena::new(plan.memory_bytes),
                rng,
                queued: Vec::new(),
                posted: Vec::new(),
            },
            volume,
            conns: BTreeMap::new(),
            streams: BTreeMap::new(),
            unread: BTreeMap::new(),
        }
    }

    /// The device has another size from now on.
    pub fn resize(&self, sectors: usize) {
        self.volume.resize((sectors * SECTOR_BYTES) as u64);
    }

    /// When it wants to be woken.
    pub fn wake_at(&self) -> Option<Instant> {
        if self.shard.wants_tick() {
            return Some(self.surroundings.now + Duration::from_micros(100));
        }
        self.shard.next_timeout()
    }

    /// Bytes of payload memory in use.
    pub fn lent_bytes(&self) -> usize {
        self.surroundings.arena.in_use()
    }

    /// Something happened. What the process does about it comes into `out`.
    pub fn handle(&mut self, now: Instant, inbound: Inbound, out: &mut Vec<Outbound>) {
        self.surroundings.now = now;
        let host = &mut self.surroundings;
        match inbound {
            Inbound::Accept(link, stream) => {
                let peer = SocketAddr::from(([10, 0, 1, 1], 1000));
                match self.shard.accept(host, portal(link), peer) {
                    Ok(conn) => {
                        self.conns.insert(stream, conn);
                        self.streams.insert(conn, stream);
                    }
                    Err(_) => out.push(Outbound::Stream(stream, Segment::Reset)),
                }
            }
            Inbound::Bytes(stream, bytes) => {
                if self.conns.contains_key(&stream) {
                    self.unread.entry(stream).or_default().extend(bytes);
                    self.read(stream);
                } else {
                    out.push(Outbound::Stream(stream, Segment::Reset));
                }
            }
            Inbound::End(stream) => {
                if let Some(conn) = self.conns.remove(&stream) {
                    self.forget(stream, conn);
                    let host = &mut self.surroundings;
                    self.shard.closed(host, conn);
                }
            }
            Inbound::Frame(link, bytes) => {
                let frame = Slice::whole(HeapBuffer::from_vec(bytes));
                self.shard.frame(host, port(link), &frame);
            }
            Inbound::Done(token, result, data) => self.shard.block_done(host, token, result, data),
            Inbound::Wake => {}
        }
        self.turn(out);
    }

    fn forget(&mut self, stream: usize, conn: ConnId) {
        self.conns.remove(&stream);
        self.streams.remove(&conn);
        self.unread.remove(&stream);
    }

    /// Reads what a stream has, if it is wanted.
    fn read(&mut self, stream: usize) {
        let Some(&conn) = self.conns.get(&stream) else { return };
        if self.shard.iscsi.wants_read(conn)
            && let Some(bytes) = self.unread.remove(&stream)
        {
            self.shard.received(&mut self.surroundings, conn, &bytes);
        }
    }

    fn turn(&mut self, out: &mut Vec<Outbound>) {
        self.shard.tick(&mut self.surroundings);
        while !self.surroundings.posted.is_empty() {
            for message in std::mem::take(&mut self.surroundings.posted) {
                self.shard.message(&mut self.surroundings, message);
            }
        }
        while let Some(conn) = self.shard.iscsi.poll_ready() {
            let Some(&stream) = self.streams.get(&conn) else { continue };
            self.send(stream, conn, out);
            self.read(stream);
        }
        while let Some(conn) = self.shard.iscsi.poll_close() {
            let Some(&stream) = self.streams.get(&conn) else { continue };
            self.send(stream, conn, out);
            out.push(Outbound::Stream(stream, Segment::Fin));
            self.forget(stream, conn);
            self.shard.closed(&mut self.surroundings, conn);
        }
        while let Some(frame) = self.shard.aoe.poll_transmit() {
            let mut bytes = frame.header().to_vec();
            bytes.extend_from_slice(&frame.body);
            frame.payload.iter().for_each(|piece| bytes.extend_from_slice(piece.bytes()));
            bytes.resize(bytes.len().max(60), 0);
            out.push(Outbound::Frame(usize::from(frame.port.0), bytes));
        }
        let queued = std::mem::take(&mut self.surroundings.queued);
        out.extend(queued.into_iter().map(|(v, op, token)| Outbound::Block(v, op, token)));
    }

    fn send(&mut self, stream: usize, conn: ConnId, out: &mut Vec<Outbound>) {
        while let Some(pdu) = self.shard.iscsi.transmit(conn) {
            let mut bytes = pdu.header().to_vec();
            bytes.extend_from_slice(pdu.data.bytes());
            bytes.extend_from_slice(pdu.trailer());
            out.push(Outbound::Stream(stream, Segment::Data(bytes)));
        }
    }
}

fn port(link: usize) -> PortId {
    PortId(u16::try_from(link).expect("few links"))
}

/// The world-wide name of the device, or of the one that takes its place.
pub fn wwid(alien: bool) -> String {
    format!("{:016x}", Identity::from_source(source(alien)).naa)
}

const fn source(alien: bool) -> &'static str {
    if alien { "alien" } else { "ours" }
}

fn volume(plan: &Plan, alien: bool, sectors: usize) -> Arc<Volume> {
    let facts = Facts::volatile(plan.block_bytes);
    let id = if alien { ALIEN } else { OURS };
    let identity = Identity::from_source(source(alien));
    let options = VolumeOptions { thin: true, ..VolumeOptions::default() };
    let bytes = (sectors * SECTOR_BYTES) as u64;
    Arc::new(Volume::new(id, "fleet".into(), identity, facts, options, bytes))
}

fn target(name: usize, unit: LogicalUnit, portals: Vec<SocketAddr>) -> Target<LogicalUnit> {
    Target {
        name: target_name(name).parse().expect("a name"),
        alias: None,
        luns: [(0, Arc::new(unit))].into_iter().collect(),
        groups: vec![PortalGroup { tag: 1, portals }],
        allow: Allow::default(),
        chap: None,
        sessions_max: 64,
        digests_required: Default::default(),
        terms: Default::default(),
        commands_max: None,
        pings: None,
        redirect: None,
    }
}

/// A machine with a process, or without.
#[derive(Debug)]
pub struct Head {
    /// What does not change.
    pub plan: Plan,
    /// What it does.
    pub state: State,
    /// Counts its processes.
    pub life: u32,
    /// Counts how often the machine lost its power.
    pub boot: u32,
    /// The process.
    pub process: Option<Process>,
    /// What a process that hangs has not seen yet.
    pub backlog: Vec<Inbound>,
    /// The wake-up that is on the agenda.
    pub wake: Option<Instant>,
    /// Its disk does nothing before this.
    pub disk_hangs_until: Instant,
    /// The cache that its writes land in.
    pub domain: usize,
    /// It serves another device, or this one in another size.
    pub alien: bool,
    /// How large the device is here.
    pub sectors: usize,
}

impl Head {
    /// A machine that is off.
    pub const fn new(plan: Plan, domain: usize, sectors: usize) -> Self {
        Self {
            plan,
            state: State::Off,
            life: 0,
            boot: 0,
            process: None,
            backlog: Vec::new(),
            wake: None,
            disk_hangs_until: Instant::ZERO,
            domain,
            alien: false,
            sectors,
        }
    }
}
