//! Conversations: frames in, frames out, and what reaches the engine between them.

use std::sync::Arc;

use corbel_proto::aoe::*;
use corbel_proto::ata::{Fault, Identify, Registers};
use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, Segments, Slice};
use corbel_proto::time::Instant;
use proptest::prelude::*;

use super::*;
use crate::ata::{Acknowledge, Disk};
use crate::host::{BlockError, BlockOp, BlockToken, Host, Message, ShardId};
use crate::volume::engine::Owner;
use crate::volume::{self, Facts, Identity, Kind, Outcome, Request, Volume, VolumeId};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PORT: PortId = PortId(0);

#[derive(Debug)]
struct TestHost {
    arena: HeapArena,
    persisted: Vec<(String, Vec<u8>, u64)>,
    blocks: Vec<(BlockOp<HeapBuffer>, BlockToken)>,
}

impl Arena for TestHost {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        self.arena.alloc(len)
    }
}

impl Host for TestHost {
    type Memory = HeapBuffer;

    fn now(&self) -> Instant {
        Instant::ZERO
    }

    fn shard(&self) -> ShardId {
        0
    }

    fn block(&mut self, _: VolumeId, op: BlockOp<HeapBuffer>, token: BlockToken) {
        self.blocks.push((op, token));
    }

    fn post(&mut self, _: ShardId, _: Message) {}

    fn shards(&self) -> ShardId {
        1
    }

    fn random(&mut self, bytes: &mut [u8]) {
        bytes.fill(4);
    }

    fn persist(&mut self, name: &str, bytes: Vec<u8>, token: u64) {
        self.persisted.push((name.to_owned(), bytes, token));
    }
}

/// An engine that only takes notes.
#[derive(Debug, Default)]
struct Notes(Vec<(u64, Kind<HeapBuffer>, bool)>);

impl Submit<HeapBuffer, TestHost> for Notes {
    fn submit(&mut self, _: &mut TestHost, owner: Owner, request: Request<HeapBuffer>) {
        let Owner::Aoe(tag) = owner else { panic!("AoE submits as AoE") };
        self.0.push((tag, request.kind, request.durable));
    }
}

struct World {
    server: AoeServer<HeapBuffer>,
    host: TestHost,
    engine: Notes,
    slots: Vec<Arc<Slot>>,
}

fn slot(shelf: u16, number: u8, allow: Vec<Mac>) -> Arc<Slot> {
    let facts = Facts::volatile(512);
    let identity = Identity::from_source("test");
    let options = volume::Options::default();
    let volume = Volume::new(VolumeId(0), "v".into(), identity, facts, options, 1 << 20);
    let disk = Disk::new(Arc::new(volume), Acknowledge::Stable);
    Arc::new(Slot::new(Address::new(shelf, number).unwrap(), disk, allow))
}

fn world_of(slots: Vec<Arc<Slot>>, options: Options) -> World {
    let mut server = AoeServer::new(options);
    let entries = slots.iter().map(|slot| (PORT, slot.clone())).collect();
    server.set_map(&Arc::new(ShelfMap::new(entries).unwrap()));
    server.port_up(PORT, OWN, 1500);
    let host =
        TestHost { arena: HeapArena::new(1 << 20), persisted: Vec::new(), blocks: Vec::new() };
    World { server, host, engine: Notes::default(), slots }
}

/// Shelf 7, slot 1, on a port with an MTU of 1500.
fn world() -> World {
    world_of(vec![slot(7, 1, vec![])], Options::default())
}

fn header(code: Code) -> HeaderRepr {
    HeaderRepr {
        destination: OWN,
        source: CLIENT,
        version: 1,
        response: false,
        error: None,
        shelf: 7,
        slot: 1,
        code,
        tag: 0x1234_5678,
    }
}

fn bytes(header: &HeaderRepr, argument: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    header.emit(&mut HeaderPacket::new_unwritten(&mut frame[..]));
    frame.extend(argument);
    frame
}

fn ata(command: u8, count: u8, lba: u64, data: &[u8]) -> Vec<u8> {
    let registers =
        Registers { command_status: command, count, ..Registers::default() }.with_lba(lba);
    let flags = AtaRepr {
        extended: true,
        device: false,
        asynchronous: false,
        write: !data.is_empty(),
        registers,
    };
    let mut argument = vec![0; 12];
    flags.emit(&mut argument);
    argument.extend(data);
    argument
}

fn query(command: config::Command, string: &[u8]) -> Vec<u8> {
    let repr = ConfigRepr { buffer_count: 0, firmware: 0, sectors: 0, command, string };
    let mut argument = vec![0; repr.buffer_len()];
    repr.emit(&mut argument);
    argument[5] &= 0x0f; // as Linux sends it
    argument.resize(argument.len().max(36), 0);
    argument
}

fn mask_edit(directives: Vec<mask::Directive>) -> Vec<u8> {
    let repr = MaskRepr::List(mask::Command::Edit, directives);
    let mut argument = vec![0; repr.buffer_len()];
    repr.emit(&mut argument);
    argument
}

fn reservation(command: reserve::Command, macs: &[Mac]) -> Vec<u8> {
    let repr = ReserveRepr { command, macs: macs.to_vec() };
    let mut argument = vec![0; repr.buffer_len()];
    repr.emit(&mut argument);
    argument
}

impl World {
    fn send(&mut self, header: &HeaderRepr, argument: &[u8]) {
        self.raw(bytes(header, argument));
    }

    fn raw(&mut self, bytes: Vec<u8>) {
        let frame = Slice::whole(HeapBuffer::from_vec(bytes));
        self.server.frame(PORT, &frame, &mut self.host, &mut self.engine);
    }

    /// The next frame as it would stand on the wire.
    fn recv(&mut self) -> Option<Vec<u8>> {
        let frame = self.server.poll_transmit()?;
        let mut bytes = [frame.header(), &frame.body].concat();
        frame.payload.iter().for_each(|slice| bytes.extend(slice.bytes()));
        Some(bytes)
    }

    fn ask(&mut self, header: &HeaderRepr, argument: &[u8]) -> (HeaderRepr, Vec<u8>) {
        self.send(header, argument);
        self.reply()
    }

    fn reply(&mut self) -> (HeaderRepr, Vec<u8>) {
        let bytes = self.recv().expect("an answer");
        let packet = HeaderPacket::new_checked(&bytes[..]).unwrap();
        let header = HeaderRepr::parse(&packet);
        assert!(header.response);
        (header, packet.argument().to_vec())
    }

    fn silent(&mut self, header: &HeaderRepr, argument: &[u8]) {
        self.send(header, argument);
        assert_eq!(self.recv(), None);
        assert!(self.engine.0.is_empty());
    }

    fn persisted(&mut self, ok: bool) {
        let (_, _, token) = self.host.persisted.remove(0);
        self.server.persisted(token, ok);
    }

    fn change(&mut self, header: &HeaderRepr, argument: &[u8]) -> (HeaderRepr, Vec<u8>) {
        self.send(header, argument);
        assert!(self.recv().is_none(), "answered before it was stable");
        self.persisted(true);
        self.reply()
    }
}

fn status(argument: &[u8]) -> Registers {
    AtaPacket::new_checked(argument).unwrap().registers()
}

fn config_string(argument: &[u8]) -> Vec<u8> {
    ConfigPacket::new_checked(argument).unwrap().string().to_vec()
}

mod fences;
mod lists;
mod transfers;

#[test]
fn a_discovery_byte_for_byte() {
    let mut world = world();
    let mut request = vec![0xff; 6];
    request.extend(CLIENT.0);
    request.extend([0x88, 0xa2, 0x10, 0, 0xff, 0xff, 0xff, 1, 0, 0, 0, 9]);
    request.resize(60, 0);
    world.raw(request);
    let mut reply = CLIENT.0.to_vec();
    reply.extend(OWN.0);
    reply.extend([0x88, 0xa2, 0x18, 0, 0, 7, 1, 1, 0, 0, 0, 9]);
    reply.extend([0, 128, 0, 1, 2, 0x10, 0, 0]);
    assert_eq!(world.recv(), Some(reply));
}

#[test]
fn responses_strangers_and_other_stations_frames_are_never_answered() {
    let mut world = world();
    let base = header(Code::Config);
    let argument = query(config::Command::Read, b"");
    world.silent(&HeaderRepr { response: true, ..base }, &argument);
    world.silent(&HeaderRepr { shelf: 8, ..base }, &argument);
    world.silent(&HeaderRepr { slot: 2, ..base }, &argument);
    world.silent(&HeaderRepr { destination: OTHER, ..base }, &argument);
    world.silent(&HeaderRepr { source: Mac::BROADCAST, ..base }, &argument);
    let counters = world.server.counters();
    assert_eq!((counters.responses, counters.not_ours), (1, 4));
}

#[test]
fn a_bad_version_is_error_5_and_an_unknown_command_error_1() {
    let mut world = world();
    let newer = HeaderRepr { version: 2, ..header(Code::Config) };
    let (reply, _) = world.ask(&newer, &query(config::Command::Read, b""));
    assert_eq!((reply.error, reply.version), (Some(Error::UnsupportedVersion), 1));
    for code in [4, 100, 240, 255] {
        let (reply, _) = world.ask(&header(Code::Other(code)), &[0; 36]);
        assert_eq!(reply.error, Some(Error::UnrecognizedCommand));
        assert_eq!((reply.code, reply.tag), (Code::Other(code), 0x1234_5678));
    }
}

#[test]
fn short_arguments_are_error_2() {
    let mut world = world();
    for (code, len) in [(Code::Ata, 11), (Code::Config, 7), (Code::Mask, 3), (Code::Reserve, 1)] {
        let (reply, _) = world.ask(&header(code), &vec![0; len]);
        assert_eq!(reply.error, Some(Error::BadArgument), "{code:?}");
    }
}

#[test]
fn broadcasts_ask_but_never_strike() {
    let slots = vec![slot(7, 1, vec![]), slot(7, 2, vec![]), slot(8, 1, vec![])];
    let mut world = world_of(slots, Options::default());
    let all = |code| HeaderRepr { shelf: 0xffff, slot: 0xff, ..header(code) };
    for command in [0x20, 0x30, 0xec] {
        world.silent(&all(Code::Ata), &ata(command, 1, 0, &[0; 512]));
    }
    world.silent(&all(Code::Config), &query(config::Command::ForceSet, b"x"));
    world.silent(&all(Code::Mask), &mask_edit(vec![mask::Directive::Add(OTHER)]));
    world.silent(&all(Code::Reserve), &reservation(reserve::Command::ForceSet, &[OTHER]));
    world.silent(&all(Code::Other(4)), &[0; 36]);
    assert_eq!(world.server.counters().broadcast_refused, 7);
    assert!(world.host.persisted.is_empty());

    world.send(&all(Code::Config), &query(config::Command::Read, b""));
    let found: Vec<_> = (0..3).map(|_| world.reply().0).map(|h| (h.shelf, h.slot)).collect();
    assert_eq!(found, [(7, 1), (7, 2), (8, 1)]);
    let shelf = HeaderRepr { shelf: 7, ..all(Code::Config) };
    world.send(&shelf, &query(config::Command::Read, b""));
    assert_eq!((world.reply().0.slot, world.reply().0.slot), (1, 2));
    assert_eq!(world.recv(), None);
}

#[test]
fn announcements_go_to_all_or_to_those_who_may_know() {
    let slots = vec![slot(7, 1, vec![]), slot(7, 2, vec![CLIENT, OTHER])];
    let mut world = world_of(slots, Options::default());
    world.server.port_up(PORT, OWN, 9000);
    world.server.announce(PORT);
    let (first, argument) = world.reply();
    assert_eq!((first.destination, first.slot, first.tag), (Mac::BROADCAST, 1, 0));
    assert_eq!(ConfigPacket::new_checked(&argument[..]).unwrap().sectors(), 16);
    assert_eq!((world.reply().0.destination, world.reply().0.destination), (CLIENT, OTHER));
    assert_eq!(world.recv(), None);
}

#[test]
fn an_address_twice_on_a_port_is_refused_and_broadcast_is_no_address() {
    let twice = ShelfMap::new(vec![(PORT, slot(1, 1, vec![])), (PORT, slot(1, 1, vec![]))]);
    assert!(twice.is_err());
    assert!(
        ShelfMap::new(vec![(PORT, slot(1, 1, vec![])), (PortId(1), slot(1, 1, vec![]))]).is_ok()
    );
    assert!(Address::new(0xffff, 0).is_err());
    assert!(Address::new(0, 0xff).is_err());
    assert!(!Address::new(0xfff, 0).unwrap().works_with_linux());
}

proptest! {
    #[test]
    fn any_frame_is_survived_and_answered_at_most_once(
        code in 0u8..6, version in 0u8..3, whole: bool,
        argument in proptest::collection::vec(any::<u8>(), 0..1200),
    ) {
        let mut world = world();
        let header = HeaderRepr { version, ..header(code.into()) };
        let mut frame = bytes(&header, &argument);
        if !whole {
            frame.truncate(argument.len() % 40);
        }
        world.raw(frame);
        let answers = std::iter::from_fn(|| world.recv()).count();
        let pending = world.engine.0.len() + world.host.persisted.len();
        prop_assert!(answers + pending <= 1);
    }
}
