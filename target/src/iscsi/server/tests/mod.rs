//! Two shards, a disk that does nothing until told, and initiators that speak bytes.

mod disk;
mod dropped;
mod evict;
mod hostile;
mod members;
mod pings;
mod reassign;
mod recovery;
mod response_fence;
mod steps;
mod task_set;
mod units;

use std::collections::{BTreeMap, VecDeque};

use corbel_proto::iscsi::bhs::{BHS_BYTES, Bhs, FINAL, Lun as WireLun, Opcode, TAG_NONE};
use corbel_proto::iscsi::login::directory::Terms;
use corbel_proto::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage};
use corbel_proto::iscsi::pdu::scsi::{Attribute, ScsiCommand, ScsiResponse};
use corbel_proto::iscsi::pdu::task::{Function, TaskOutcome, TaskRequest, TaskResponse};
use corbel_proto::memory::{Arena, HeapArena, HeapBuffer};

use disk::Disk;

use super::*;
use crate::host::{BlockOp, BlockToken, Message};
use crate::iscsi::model::{Allow, PortalGroup};
use crate::volume::engine::Owner;
use crate::volume::{Facts, Identity, Options, Volume, VolumeId};

struct Machine {
    arena: HeapArena,
    shard: ShardId,
    now: Instant,
    ops: VecDeque<(BlockOp<HeapBuffer>, BlockToken)>,
    posted: VecDeque<(ShardId, Message)>,
    /// State files that are being written.
    files: VecDeque<u64>,
    /// How often the store was to lend what is read; it never does.
    asked_to_lend: usize,
}

impl Arena for Machine {
    type Buf = HeapBuffer;

    fn alloc(&mut self, len: usize) -> Option<HeapBuffer> {
        self.arena.alloc(len)
    }
}

impl Machine {
    /// What a shard says when its AoE commands have ended.
    fn aoe_has_ended(&mut self, asker: ShardId, ask: u64) {
        self.post(asker, Message::Iscsi(crate::iscsi::Message::Cleared { ask }));
    }
}

impl Host for Machine {
    type Memory = HeapBuffer;

    fn now(&self) -> Instant {
        self.now
    }

    fn shard(&self) -> ShardId {
        self.shard
    }

    fn block(&mut self, _: VolumeId, op: BlockOp<HeapBuffer>, token: BlockToken) {
        self.ops.push_back((op, token));
    }

    fn lends(&self, _: VolumeId) -> bool {
        true
    }

    fn lend(&mut self, _: VolumeId, _: u64, _: u32, _: BlockToken) -> Option<HeapBuffer> {
        self.asked_to_lend += 1;
        None
    }

    fn post(&mut self, shard: ShardId, message: Message) {
        self.posted.push_back((shard, message));
    }

    fn shards(&self) -> ShardId {
        2
    }

    fn random(&mut self, bytes: &mut [u8]) {
        bytes.fill(4);
    }

    fn persist(&mut self, _: &str, _: Vec<u8>, token: u64) {
        self.files.push_back(token);
    }
}

struct Shard {
    machine: Machine,
    engine: Engine<HeapBuffer>,
    server: IscsiServer<HeapBuffer, Disk>,
}

struct World {
    shards: Vec<Shard>,
    registry: Arc<Registry>,
    /// AoE commands are at work, and do not end.
    aoe_is_at_work: bool,
    /// Who waits for them.
    fences: Vec<(ShardId, u64)>,
    /// Connections that were handed over: from, to.
    moved: Vec<((usize, ConnId), (usize, ConnId))>,
}

const TARGET: &str = "iqn.2026-11.org.example:disk";

fn targets(allow: Allow) -> Arc<Targets<Disk>> {
    let facts = Facts { volatile_cache: false, ..Facts::volatile(512) };
    let disk = |id| {
        let (identity, options) = (Identity::from_source("t"), Options::default());
        let facts = facts.clone();
        let volume = Volume::new(VolumeId(id), "v".into(), identity, facts, options, 1 << 20);
        Arc::new(Disk(Arc::new(volume)))
    };
    let target = Target {
        name: TARGET.parse().unwrap(),
        alias: None,
        luns: BTreeMap::from([(0, disk(0)), (5, disk(5))]),
        groups: vec![PortalGroup { tag: 1, portals: vec!["0.0.0.0:3260".parse().unwrap()] }],
        allow,
        chap: None,
        sessions_max: 8,
        digests_required: Default::default(),
        terms: Terms { connections_max: 4, recovery_level_max: 2 },
        commands_max: None,
        pings: Some((Duration::from_secs(40), Duration::from_secs(64))),
        redirect: None,
    };
    Arc::new(Targets::new([target], None))
}

impl World {
    fn new() -> Self {
        Self::allowing(Allow::default())
    }

    fn allowing(allow: Allow) -> Self {
        let (registry, targets) = (Arc::new(Registry::new(16)), targets(allow));
        let config = Config { half_open_max: 4, ..Config::default() };
        let shard = |shard| Shard {
            machine: Machine {
                arena: HeapArena::new(1 << 22),
                shard,
                now: Instant::ZERO,
                ops: VecDeque::new(),
                posted: VecDeque::new(),
                files: VecDeque::new(),
                asked_to_lend: 0,
            },
            engine: Engine::default(),
            server: IscsiServer::new(config.clone(), registry.clone(), targets.clone()),
        };
        Self {
            shards: vec![shard(0), shard(1)],
            registry,
            aoe_is_at_work: false,
            fences: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// Calls the server of a shard.
    fn at<R>(
        &mut self,
        shard: usize,
        call: impl FnOnce(
            &mut IscsiServer<HeapBuffer, Disk>,
            &mut Context<'_, HeapBuffer, Machine>,
        ) -> R,
    ) -> R {
        let Shard { machine, engine, server } = &mut self.shards[shard];
        let result = call(server, &mut Context { host: machine, engine });
        self.settle();
        result
    }

    /// Delivers outcomes and messages until there are none.
    fn settle(&mut self) {
        loop {
            let mut idle = true;
            for from in 0..self.shards.len() {
                let Shard { machine, engine, server } = &mut self.shards[from];
                while let Some((owner, outcome)) = engine.poll() {
                    idle = false;
                    let Owner::Iscsi(tag) = owner else { panic!("only iSCSI is here") };
                    server.complete(tag, outcome, &mut Context { host: machine, engine });
                }
                while let Some((to, message)) = self.shards[from].machine.posted.pop_front() {
                    idle = false;
                    let Shard { machine, engine, server } = &mut self.shards[usize::from(to)];
                    match message {
                        Message::Iscsi(message) => {
                            server.message(message, &mut Context { host: machine, engine });
                        }
                        Message::RangeGranted { waiter } => engine.message(machine, waiter),
                        Message::FenceAoe { shard, ask, .. } if self.aoe_is_at_work => {
                            self.fences.push((shard, ask));
                        }
                        Message::FenceAoe { shard, ask, .. } => machine.aoe_has_ended(shard, ask),
                    }
                }
            }
            idle &= !self.hand_over();
            if idle {
                return;
            }
        }
    }

    /// As the shell does. True if there was something to hand over.
    fn hand_over(&mut self) -> bool {
        let moves = (0..2).flat_map(|from| {
            let server = &mut self.shards[from].server;
            std::iter::from_fn(|| server.poll_move()).map(move |m| (from, m)).collect::<Vec<_>>()
        });
        let moves: Vec<_> = moves.collect();
        for (from, Move { id, shard, bytes }) in &moves {
            let Shard { machine, engine, server } = &mut self.shards[*from];
            server.closed(*id, &mut Context { host: machine, engine });
            let to = usize::from(*shard);
            let Shard { machine, engine, server } = &mut self.shards[to];
            let (peer, local) = ("10.0.0.9:999".parse().unwrap(), "10.0.0.1:3260".parse().unwrap());
            let new = server.accept(peer, local, machine.now).unwrap();
            server.received(new, bytes, &mut Context { host: machine, engine });
            self.moved.push(((*from, *id), (to, new)));
        }
        !moves.is_empty()
    }

    /// The disk of a shard performs everything it was given.
    fn disk(&mut self, shard: usize) {
        let Shard { machine, engine, .. } = &mut self.shards[shard];
        while let Some((op, token)) = machine.ops.pop_front() {
            let data = match op {
                BlockOp::Read { data, .. } | BlockOp::Write { data, .. } => Some(data),
                _ => None,
            };
            engine.block_done(machine, token, Ok(()), data);
        }
        self.settle();
    }

    fn connect(&mut self, shard: usize) -> Result<Client, Refusal> {
        let (peer, local) = ("10.0.0.9:999".parse().unwrap(), "10.0.0.1:3260".parse().unwrap());
        let id = self.at(shard, |server, cx| server.accept(peer, local, cx.host.now()))?;
        Ok(Client { shard, id, cmd_sn: 1 })
    }

    fn login(&mut self, shard: usize, isid: u8) -> Client {
        let client = self.connect(shard).unwrap();
        client.ask_in(self, isid, "Normal");
        client
    }

    fn logged_in(&mut self, shard: usize, isid: u8) -> Client {
        let client = self.login(shard, isid);
        let response = LoginResponse::parse(&client.one(self).0.0).unwrap();
        assert_eq!((response.status.code(), response.next), (0, Some(Stage::FullFeature)));
        assert_ne!(response.tsih, 0);
        client
    }
}

#[derive(Clone, Copy)]
struct Client {
    shard: usize,
    id: ConnId,
    cmd_sn: u32,
}

impl Client {
    fn send(&self, world: &mut World, bhs: Bhs, data: &[u8]) {
        let mut bytes = bhs.with_data_bytes(u32::try_from(data.len()).unwrap()).0.to_vec();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        world.at(self.shard, |server, cx| server.received(self.id, &bytes, cx));
    }

    fn ask_in(&self, world: &mut World, isid: u8, kind: &str) {
        let request = LoginRequest {
            transit: true,
            continues: false,
            current: Stage::Operational,
            next: Some(Stage::FullFeature),
            version_max: 0,
            version_min: 0,
            data_len: 0,
            isid: Isid([0, 0, 0, 0, 0, isid]),
            tsih: 0,
            task_tag: 0,
            cid: 0,
            cmd_sn: 1,
            exp_stat_sn: 0,
        };
        let mut text = format!("InitiatorName=iqn.2026-11.org.example:node\0SessionType={kind}\0");
        if kind == "Normal" {
            text += &format!("TargetName={TARGET}\0");
        }
        self.send(world, Bhs(request.emit()), text.as_bytes());
    }

    fn heard(&self, world: &mut World) -> Vec<(Bhs, Vec<u8>)> {
        let server = &mut world.shards[self.shard].server;
        std::iter::from_fn(|| server.transmit(self.id))
            .map(|out| {
                let header: [u8; BHS_BYTES] = out.header().try_into().unwrap();
                (Bhs(header), out.data.bytes().to_vec())
            })
            .collect()
    }

    fn one(&self, world: &mut World) -> (Bhs, Vec<u8>) {
        let mut heard = self.heard(world);
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// READ, WRITE (with immediate data) or TEST UNIT READY of so many blocks.
    fn command(&mut self, world: &mut World, itt: u32, opcode: u8, blocks: u8) {
        self.command_as(Attribute::Simple, world, (itt, opcode, blocks));
    }

    fn command_as(&mut self, attribute: Attribute, world: &mut World, what: (u32, u8, u8)) {
        self.command_on(0, attribute, world, what);
    }

    fn command_on(
        &mut self,
        lun: u16,
        attribute: Attribute,
        world: &mut World,
        (itt, opcode, blocks): (u32, u8, u8),
    ) {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (opcode, blocks);
        let bytes = u32::from(blocks) * 512;
        let command = ScsiCommand {
            immediate: false,
            is_final: true,
            read: opcode == 0x28,
            write: opcode == 0x2a,
            attribute,
            lun: WireLun::new(lun),
            itt,
            edtl: bytes,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: 0,
            cdb,
        };
        self.cmd_sn += 1;
        let data = if opcode == 0x2a { vec![9; bytes as usize] } else { Vec::new() };
        self.send(world, command.emit(), &data);
    }

    fn function(&self, world: &mut World, function: Function, referenced: u32) {
        let request = TaskRequest {
            immediate: true,
            function,
            lun: WireLun::new(0),
            itt: 0x777,
            referenced,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: 0,
            ref_cmd_sn: 1,
            exp_data_sn: 0,
        };
        self.send(world, request.emit(), &[]);
    }

    fn completes_function(&self, world: &mut World) {
        let (bhs, _) = self.one(world);
        assert_eq!(bhs.opcode(), Some(Opcode::TaskResponse));
        assert_eq!(TaskResponse::parse(&bhs).outcome, TaskOutcome::Complete);
    }
}

#[test]
fn write_and_read_go_to_the_medium_and_back() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 5, 0x2a, 2);
    assert!(client.heard(&mut world).is_empty(), "not before the disk has it");
    world.disk(0);
    assert_eq!(ScsiResponse::parse(&client.one(&mut world).0).unwrap().status, 0);
    client.command(&mut world, 6, 0x28, 2);
    world.disk(0);
    assert_eq!(client.one(&mut world).1.len(), 1024);
    let status = &world.shards[0].server.status()[0];
    assert_eq!((status.commands, status.tasks, status.at_medium), (2, 0, 0));
}

#[test]
fn ping_and_other_commands_are_answered_while_storage_hangs() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 5, 0x2a, 1);
    let nop = Bhs::new(Opcode::NopOut, FINAL).with_immediate(true).put_u32(16, 8);
    client.send(&mut world, nop.put_u32(20, TAG_NONE), b"ping");
    assert_eq!(client.one(&mut world).1, b"ping");
    client.command(&mut world, 6, 0x00, 0);
    assert_eq!(client.one(&mut world).0.itt(), 6);
}

#[test]
fn abort_is_complete_only_when_the_write_cannot_reach_the_medium_any_more() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 5, 0x2a, 1);
    client.function(&mut world, Function::AbortTask, 5);
    assert!(client.heard(&mut world).is_empty(), "the disk still has the write");
    world.disk(0);
    client.completes_function(&mut world);
    assert!(client.heard(&mut world).is_empty(), "nothing for the aborted command");
}

#[test]
fn write_that_waits_for_its_range_is_cancelled_at_once() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 5, 0x2a, 1);
    client.command(&mut world, 6, 0x2a, 1); // the same blocks: it waits
    client.function(&mut world, Function::AbortTask, 6);
    client.completes_function(&mut world);
    world.disk(0);
    assert_eq!(client.one(&mut world).0.itt(), 5);
    assert!(world.shards[0].machine.ops.is_empty());
}

/// tgt aborted other logical units' tasks and kept no fence against what was submitted.
#[test]
fn reset_waits_for_every_session_on_every_shard() {
    let mut world = World::new();
    let client = world.logged_in(0, 1);
    let mut other = world.logged_in(1, 2);
    other.command(&mut world, 5, 0x2a, 1);
    client.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    world.disk(0);
    assert!(client.heard(&mut world).is_empty(), "the other shard's disk still has a write");
    world.disk(1);
    client.completes_function(&mut world);
    let done = ScsiResponse::parse(&other.one(&mut world).0).unwrap();
    assert_eq!((done.itt, done.status), (5, 0), "it was done before the reset was");
}

/// An initiator whose command ended in silence waited for it until its own time limit.
#[test]
fn commands_that_another_initiator_ends_are_answered_and_its_own_are_not() {
    for function in [Function::LogicalUnitReset, Function::TargetWarmReset] {
        let mut world = World::new();
        let mut client = world.logged_in(0, 1);
        let mut others = [world.logged_in(0, 2), world.logged_in(1, 3)];
        client.command(&mut world, 4, 0x2a, 1);
        for other in &mut others {
            other.command(&mut world, 5, 0x2a, 1);
            other.command(&mut world, 6, 0x2a, 1); // the same blocks: it waits
        }
        client.function(&mut world, function, TAG_NONE);
        world.disk(0);
        world.disk(1);
        client.completes_function(&mut world);
        assert!(client.heard(&mut world).is_empty(), "it knows what it ended");
        for other in &mut others {
            let mut ends: Vec<_> = other
                .heard(&mut world)
                .iter()
                .map(|(bhs, _)| ScsiResponse::parse(bhs).unwrap())
                .map(|response| (response.itt, response.status))
                .collect();
            ends.sort_unstable();
            assert_eq!(ends.iter().map(|(itt, _)| *itt).collect::<Vec<_>>(), [5, 6]);
            assert_eq!(ends[1].1, 0x40, "{function:?}: TASK ABORTED");
        }
        assert!(world.shards.iter().all(|shard| shard.machine.ops.is_empty()));
    }
}

/// tgt let the old session's writes land after the new login.
#[test]
fn new_login_waits_until_the_replaced_session_has_no_write_in_flight() {
    let mut world = World::new();
    let mut old = world.logged_in(0, 1);
    old.command(&mut world, 5, 0x2a, 1);
    let new = world.login(1, 1);
    assert!(new.heard(&mut world).is_empty(), "the old write may still land");
    assert_eq!(world.shards[0].server.poll_close(), Some(old.id));
    // A third login replaces the second, and has to wait for the first one's write all the same.
    let third = world.login(0, 1);
    assert_eq!(world.shards[1].server.poll_close(), Some(new.id));
    assert!(third.heard(&mut world).is_empty());
    world.disk(0);
    let response = LoginResponse::parse(&third.one(&mut world).0.0).unwrap();
    assert_eq!(response.status.code(), 0);
    assert!(new.heard(&mut world).is_empty());
    assert_eq!(world.registry.count(), 1);
}

#[test]
fn another_isid_is_another_session() {
    let mut world = World::new();
    let mut first = world.logged_in(0, 1);
    world.logged_in(1, 2);
    first.command(&mut world, 5, 0x00, 0);
    assert_eq!(first.one(&mut world).0.itt(), 5);
    assert_eq!(world.registry.count(), 2);
}

#[test]
fn lost_connection_keeps_its_session_until_its_writes_are_done() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 5, 0x2a, 1);
    world.at(0, |server, cx| server.closed(client.id, cx));
    assert_eq!(world.registry.count(), 1);
    world.disk(0);
    assert_eq!(world.registry.count(), 0);
    assert!(world.shards[0].server.is_idle());
    assert_eq!(world.shards[0].machine.arena.in_use(), 0);
}

#[test]
fn logout_is_answered_after_the_last_write() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 5, 0x2a, 1);
    let logout = Bhs::new(Opcode::LogoutRequest, FINAL).with_immediate(true).put_u32(16, 3);
    client.send(&mut world, logout, &[]);
    assert!(client.heard(&mut world).is_empty());
    world.disk(0);
    assert_eq!(client.one(&mut world).0.opcode(), Some(Opcode::LogoutResponse));
    assert_eq!(world.shards[0].server.poll_close(), Some(client.id));
    world.at(0, |server, cx| server.closed(client.id, cx));
    assert!(world.shards[0].server.is_idle());
}

#[test]
fn half_open_logins_are_bounded_and_time_out() {
    let mut world = World::new();
    for _ in 0..4 {
        world.connect(0).unwrap();
    }
    assert_eq!(world.connect(0).err(), Some(Refusal::HalfOpen));
    world.shards[0].machine.now = world.shards[0].server.next_timeout().unwrap();
    world.at(0, |server, cx| {
        server.timeout(cx);
        while let Some(id) = server.poll_close() {
            server.closed(id, cx);
        }
    });
    assert!(world.shards[0].server.is_idle());
    assert!(world.connect(0).is_ok());
}

#[test]
fn discovery_tells_only_what_the_initiator_may_use() {
    let other = Allow { initiators: vec!["iqn.2026-11.org.other:*".into()], ..Allow::default() };
    for (allow, seen) in [(Allow::default(), true), (other, false)] {
        let mut world = World::allowing(allow);
        let client = world.connect(0).unwrap();
        client.ask_in(&mut world, 1, "Discovery");
        client.one(&mut world);
        let text = Bhs::new(Opcode::TextRequest, FINAL).put_u32(20, TAG_NONE).put_u32(24, 1);
        client.send(&mut world, text, b"SendTargets=All\0");
        let (_, answer) = client.one(&mut world);
        let expected = format!("TargetName={TARGET}\0TargetAddress=10.0.0.1:3260,1\0");
        assert_eq!(answer, if seen { expected.into_bytes() } else { Vec::new() });
    }
}

#[test]
fn forbidden_initiator_is_told_so() {
    let allow = Allow { initiators: vec!["iqn.2026-11.org.other:*".into()], ..Allow::default() };
    let mut world = World::allowing(allow);
    let client = world.login(0, 1);
    let response = LoginResponse::parse(&client.one(&mut world).0.0).unwrap();
    assert_eq!(response.status.code(), 0x0202);
}
