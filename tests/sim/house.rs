//! The whole target in the simulated world: shards with AoE and iSCSI in front of one disk, and
//! clients on the other side of a network that delays, repeats and reorders frames.
//!
//! TCP streams arrive in order, cut anywhere; AoE frames arrive when an alarm says so. The clients
//! are those of corbel-proto.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use corbel_proto::aoe::{self, AtaPacket, AtaRepr, HeaderPacket, HeaderRepr, Mac};
use corbel_proto::ata::Registers;
use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::framer::{Framer, Step, trailer};
use corbel_proto::iscsi::initiator::{Command, CommandId, Connection, Event, Transfer};
use corbel_proto::iscsi::login::initiator as login;
use corbel_proto::iscsi::params::Limits;
use corbel_proto::iscsi::pdu::login::{Isid, LoginResponse};
use corbel_proto::iscsi::target::Payload;
use corbel_proto::memory::{Buffer, HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};
use corbel_target::aoe::{Address, AoeServer, Options, PortId, ShelfMap, Slot};
use corbel_target::ata::{Acknowledge, Disk as AtaDisk};
use corbel_target::host::ShardId;
use corbel_target::iscsi::model::{Allow, PortalGroup, Target, Targets};
use corbel_target::iscsi::registry::Registry;
use corbel_target::iscsi::server::{Config, ConnId, IscsiServer};
use corbel_target::scsi::LogicalUnit;
use corbel_target::shard::Shard;
use corbel_target::volume::VolumeId;

use crate::disk::Disk;
use crate::farm::volatile_volume;
use crate::rng::Rng;
use crate::world::{Happening, SimHost, Weather, World};

const VOLUME: VolumeId = VolumeId(0);
const PORT: PortId = PortId(0);
const SERVER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 2]);
const TARGET: &str = "iqn.2026-11.org.example:sim";

/// Alarms from here on are the house's own.
const OWN_ALARMS: u64 = 1 << 40;

/// A command of an iSCSI session, done.
#[derive(Debug)]
pub struct Done {
    /// The session's number.
    pub session: usize,
    /// The command's.
    pub id: u64,
    /// GOOD, and nothing lost.
    pub good: bool,
    /// What was read.
    pub data: Vec<u8>,
}

/// Something a client saw.
#[derive(Debug)]
pub enum News {
    /// A reply to an AoE command.
    Aoe {
        /// The command's tag.
        tag: u32,
        /// No error.
        good: bool,
        /// What was read.
        data: Vec<u8>,
    },
    /// An answer to a SCSI command.
    Iscsi(Done),
    /// An alarm that the test set.
    Alarm(u64),
}

#[derive(Debug)]
struct Session {
    shard: usize,
    conn: ConnId,
    client: Connection<Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub struct House {
    /// Time and disk.
    pub world: World,
    rng: Rng,
    hosts: Vec<SimHost>,
    shards: Vec<Shard<HeapBuffer>>,
    sessions: Vec<Session>,
    /// What disks have lent, on its way to clients, by alarm.
    lent: HashMap<u64, (usize, Slice<HeapBuffer>)>,
    /// Frames on their way, by alarm.
    frames: HashMap<u64, (usize, Vec<u8>)>,
    next_alarm: u64,
    news: std::collections::VecDeque<News>,
}

impl House {
    /// `shards` shards over a disk of `sectors` with a volatile cache. AoE writes are acknowledged
    /// as `acknowledge` says.
    pub fn new(
        mut rng: Rng,
        shards: ShardId,
        sectors: usize,
        weather: Weather,
        acknowledge: Acknowledge,
    ) -> Self {
        let mut world = World::new(rng.fork(), weather);
        world.insert_disk(VOLUME, Disk::new(sectors));
        let volume = volatile_volume(sectors);
        let address = Address::new(0, 0).expect("an address like any other");
        let slot = Slot::new(address, AtaDisk::new(volume.clone(), acknowledge), Vec::new());
        let shelves = ShelfMap::new(vec![(PORT, Arc::new(slot))]).expect("one slot");
        let shelves = Arc::new(shelves);
        let targets = Arc::new(Targets::new([target(LogicalUnit::new(volume))], None));
        let registry = Arc::new(Registry::new(64));
        let hosts = (0..shards).map(|shard| world.host(shard, shards, 8 << 20)).collect();
        let shards = (0..shards)
            .map(|_| {
                let mut aoe = AoeServer::new(Options::default());
                aoe.set_map(&shelves);
                aoe.port_up(PORT, SERVER, 9000);
                let iscsi = IscsiServer::new(Config::default(), registry.clone(), targets.clone());
                Shard::new(aoe, iscsi)
            })
            .collect();
        Self {
            world,
            rng,
            hosts,
            shards,
            sessions: Vec::new(),
            lent: HashMap::new(),
            frames: HashMap::new(),
            next_alarm: OWN_ALARMS,
            news: std::collections::VecDeque::new(),
        }
    }

    /// Opens an iSCSI session on a shard; its number.
    pub fn log_in(&mut self, shard: usize) -> usize {
        let number = self.sessions.len();
        let peer = SocketAddr::from(([10, 0, 0, 2], 1000));
        let local = portal();
        let host = &mut self.hosts[shard];
        let conn = self.shards[shard].accept(host, local, peer).expect("there is room");
        let isid = [0x80, 0, 0, 0, 0, u8::try_from(number).expect("few sessions")];
        let mut login = login::Login::new(login::Config {
            initiator: "iqn.2026-11.org.example:client".parse().expect("a name"),
            alias: None,
            target: Some(TARGET.parse().expect("a name")),
            isid: Isid(isid),
            tsih: 0,
            cid: 0,
            cmd_sn: 1,
            limits: Limits::default(),
            chap: None,
        })
        .expect("a login that can be sent");
        let mut ask = login.start();
        let mut framer = Framer::new();
        let outcome = loop {
            let mut bytes = ask.request.emit().to_vec();
            bytes.extend_from_slice(&ask.text);
            let (tail, len) = trailer(ask.request.data_len, None);
            bytes.extend_from_slice(&tail[..len]);
            self.shards[shard].received(&mut self.hosts[shard], conn, &bytes);
            let (response, text) = login_response(&mut framer, &self.sent(shard, conn));
            match login.handle(&response, &text, &mut |bytes| bytes.fill(7)).expect("it goes well")
            {
                login::Step::Ask(next) => ask = next,
                login::Step::Done(outcome) => break outcome,
                other => panic!("the login ended as {other:?}"),
            }
        };
        let client = Connection::new(self.world.now(), outcome.start(), None);
        self.sessions.push(Session { shard, conn, client });
        self.absorb(shard);
        // The first command hears of the power-on (SPC-4 5.14, 29h/00h), whatever it is.
        self.iscsi(number, u64::MAX, [0; 16], Ok(Vec::new()));
        let heard = self.news.pop_back();
        assert!(matches!(heard, Some(News::Iscsi(Done { good: false, .. }))), "{heard:?}");
        number
    }

    /// Sends a SCSI command: `Ok` is data to write, `Err` the number of bytes to read.
    pub fn iscsi(&mut self, session: usize, id: u64, cdb: [u8; 16], data: Result<Vec<u8>, usize>) {
        let transfer = match data {
            Ok(data) if data.is_empty() => Transfer::None,
            Ok(data) => Transfer::Write(data),
            Err(bytes) => Transfer::Read(vec![0; bytes]),
        };
        let command = Command { id: CommandId(id), lun: Lun::new(0), cdb, transfer };
        self.sessions[session].client.submit(command);
        self.converse(session);
    }

    /// Sends copies of an AoE READ or WRITE SECTORS EXT with the given tags, to shards drawn at
    /// random. They arrive together: against a copy that a switch keeps until newer data was
    /// written, no target can do anything; against one that waits in the target, it must.
    pub fn aoe(&mut self, tags: &[u32], lba: u64, sectors: u8, write: Option<&[u8]>) {
        let delay = Duration::from_nanos(1 + self.rng.below(8_000_000));
        for &tag in tags {
            let frame = ata_frame(tag, lba, sectors, write);
            let shard = usize::try_from(self.rng.below(self.shards.len() as u64)).expect("few");
            let alarm = self.next_alarm;
            self.next_alarm += 1;
            self.frames.insert(alarm, (shard, frame));
            self.world.alarm(delay, alarm);
        }
    }

    /// An alarm `after` from now.
    pub fn alarm(&mut self, after: Duration, number: u64) {
        assert!(number < OWN_ALARMS, "that number is ours");
        self.world.alarm(after, number);
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// Requests without an outcome.
    pub fn in_flight(&self) -> usize {
        self.shards.iter().map(|shard| shard.engine.in_flight()).sum()
    }

    /// What stands on the disk.
    pub fn read_disk(&self) -> Vec<u8> {
        let disk = self.world.disk(VOLUME).expect("put there by `new`");
        let mut bytes = vec![0; disk.len()];
        disk.read(0, &mut bytes);
        bytes
    }

    /// Goes on until a client saw something. `None`: nothing is left to happen.
    pub fn advance(&mut self) -> Option<News> {
        loop {
            if let Some(news) = self.news.pop_front() {
                return Some(news);
            }
            for shard in 0..self.shards.len() {
                if self.returned(shard) {
                    self.settle(shard);
                }
            }
            let shard = match self.world.step(&mut self.hosts)? {
                Happening::Alarm(alarm) if self.lent.contains_key(&alarm) => {
                    self.lent.remove(&alarm).expect("it is there").0
                }
                Happening::Alarm(alarm) => match self.frames.remove(&alarm) {
                    None => return Some(News::Alarm(alarm)),
                    Some((shard, frame)) => {
                        let frame = Slice::whole(HeapBuffer::from_vec(frame));
                        self.shards[shard].frame(&mut self.hosts[shard], PORT, &frame);
                        shard
                    }
                },
                Happening::Persisted(shard, _) => usize::from(shard),
                Happening::BlockDone { shard, token, result, data } => {
                    let shard = usize::from(shard);
                    let host = &mut self.hosts[shard];
                    self.shards[shard].block_done(host, token, result, data);
                    shard
                }
                Happening::Message(shard, message) => {
                    let shard = usize::from(shard);
                    self.shards[shard].message(&mut self.hosts[shard], message);
                    shard
                }
            };
            self.settle(shard);
        }
    }

    /// What a shard has to say after something happened to it.
    fn settle(&mut self, shard: usize) {
        self.shards[shard].tick(&mut self.hosts[shard]);
        self.replies(shard);
        for session in 0..self.sessions.len() {
            if self.sessions[session].shard == shard {
                self.converse(session);
            }
        }
        self.absorb(shard);
    }

    fn absorb(&mut self, shard: usize) {
        self.world.absorb(&mut self.hosts[shard]);
    }

    /// True if disks have memory back that a shard was lent.
    fn returned(&mut self, shard: usize) -> bool {
        let tokens = self.world.returned(ShardId::try_from(shard).expect("few shards"));
        for token in &tokens {
            self.shards[shard].returned(&mut self.hosts[shard], *token);
        }
        !tokens.is_empty()
    }

    /// A piece of an answer: the kernel has it for a while.
    fn leave(&mut self, shard: usize, piece: Slice<HeapBuffer>, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&piece.buffer.sent()[piece.range()]);
        if piece.buffer.is_loan() {
            let alarm = self.next_alarm;
            self.next_alarm += 1;
            self.lent.insert(alarm, (shard, piece));
            self.world.alarm(Duration::from_nanos(1 + self.rng.below(2_000_000)), alarm);
        }
    }

    /// AoE replies reach the client at once.
    fn replies(&mut self, shard: usize) {
        while let Some(frame) = self.shards[shard].aoe.poll_transmit() {
            let mut bytes = frame.header().to_vec();
            bytes.extend_from_slice(&frame.body);
            for piece in frame.payload {
                self.leave(shard, piece, &mut bytes);
            }
            let header = HeaderPacket::new_checked(&bytes[..]).expect("we send frames");
            let ata = AtaPacket::new_checked(header.argument()).expect("only ATA was asked");
            // ACS-3 6.1: BSY, DF, DRQ, ERR.
            let good = header.error().is_none() && ata.registers().command_status & 0xa9 == 0;
            let (tag, data) = (header.tag(), ata.data().to_vec());
            self.news.push_back(News::Aoe { tag, good, data });
        }
    }

    /// Passes bytes between a session's client and its shard until both have nothing to say.
    fn converse(&mut self, number: usize) {
        let now = self.world.now();
        loop {
            let session = &mut self.sessions[number];
            let (shard, conn) = (session.shard, session.conn);
            let mut bytes = Vec::new();
            while let Some(pdu) = session.client.poll_transmit() {
                pdu.write_to(&mut bytes);
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let cut = 1 + self.rng.below(rest.len() as u64);
                let (piece, tail) = rest.split_at(usize::try_from(cut).expect("a short stream"));
                self.shards[shard].received(&mut self.hosts[shard], conn, piece);
                rest = tail;
            }
            let answer = self.sent(shard, conn);
            if bytes.is_empty() && answer.is_empty() {
                break;
            }
            let client = &mut self.sessions[number].client;
            client.handle_bytes(now, &answer).expect("the target keeps to the standard");
            while let Some(event) = client.poll_event() {
                let Event::Done { id: CommandId(id), transfer, result } = event else { continue };
                let good = result.is_ok_and(|answer| answer.status == 0);
                let data = match transfer {
                    Transfer::Read(data) => data,
                    Transfer::None | Transfer::Write(_) => Vec::new(),
                };
                self.news.push_back(News::Iscsi(Done { session: number, id, good, data }));
            }
            self.absorb(shard);
        }
    }

    /// What a shard has to send on a connection.
    fn sent(&mut self, shard: usize, conn: ConnId) -> Vec<u8> {
        if self.rng.percent(10) {
            // As if the client did not read.
            self.shards[shard].iscsi.call_in(conn, &mut self.hosts[shard]);
        }
        let mut bytes = Vec::new();
        while let Some(pdu) = self.shards[shard].iscsi.transmit(conn) {
            bytes.extend_from_slice(pdu.header());
            match pdu.data {
                Payload::Shared(ref piece) => self.leave(shard, piece.clone(), &mut bytes),
                ref data => bytes.extend_from_slice(data.bytes()),
            }
            bytes.extend_from_slice(pdu.trailer());
        }
        bytes
    }
}

fn portal() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 3260))
}

fn target(unit: LogicalUnit) -> Target<LogicalUnit> {
    Target {
        name: TARGET.parse().expect("a name"),
        alias: None,
        luns: [(0, Arc::new(unit))].into_iter().collect(),
        groups: vec![PortalGroup { tag: 1, portals: vec![portal()] }],
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

fn login_response(framer: &mut Framer, mut bytes: &[u8]) -> (LoginResponse, Vec<u8>) {
    let mut text = Vec::new();
    loop {
        let (taken, step) = framer.push(bytes).expect("the target sends PDUs");
        bytes = &bytes[taken..];
        match step {
            Step::Header => {}
            Step::Data(part) => text.extend_from_slice(part),
            Step::More => panic!("a login response is answered at once, and whole"),
            Step::End { .. } => {
                let response = LoginResponse::parse(&framer.bhs().0).expect("a login response");
                return (response, text);
            }
        }
    }
}

fn ata_frame(tag: u32, lba: u64, sectors: u8, write: Option<&[u8]>) -> Vec<u8> {
    let header = HeaderRepr {
        destination: SERVER,
        source: CLIENT,
        version: aoe::VERSION,
        response: false,
        error: None,
        shelf: 0,
        slot: 0,
        code: aoe::Code::Ata,
        tag,
    };
    let command_status = if write.is_some() { 0x34 } else { 0x24 };
    let registers = Registers { count: sectors, command_status, ..Registers::default() };
    let ata = AtaRepr {
        extended: true,
        device: false,
        asynchronous: false,
        write: write.is_some(),
        registers: registers.with_lba(lba),
    };
    let mut frame = vec![0; aoe::ATA_DATA_OFFSET];
    header.emit(&mut HeaderPacket::new_unwritten(&mut frame[..]));
    ata.emit(&mut frame[aoe::HEADER_BYTES..]);
    frame.extend_from_slice(write.unwrap_or_default());
    frame
}
