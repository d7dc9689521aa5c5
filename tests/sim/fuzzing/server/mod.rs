//! The whole iSCSI server: two shards, one disk, several connections that log in, write, read,
//! abort, reset, replace each other and vanish, while the disk and the messages between the
//! shards take as long as the script says.
//!
//! ```text
//! mod.rs     the shards, the disk, and what happens to them
//! client.rs  one connection as its initiator sees it
//! ```
//!
//! Once a session is replaced, or a task is told to be ended, none of its writes is at the disk
//! any more. In the end nothing is left: no session, no task, no lock, no memory.

mod client;

use std::collections::BTreeMap;
use std::sync::Arc;

use corbel_proto::iscsi::login::directory::{DigestsRequired, Terms};
use corbel_proto::iscsi::pdu::task::Function;
use corbel_proto::memory::HeapBuffer;
use corbel_proto::time::Duration;
use corbel_target::host::{BlockError, BlockOp, BlockToken, Host, Message};
use corbel_target::iscsi::model::{Allow, PortalGroup, Target, Targets};
use corbel_target::iscsi::registry::Registry;
use corbel_target::iscsi::server::{Config, Context, IscsiServer, Move};
use corbel_target::scsi::LogicalUnit;
use corbel_target::volume::engine::{Engine, Owner};
use corbel_target::volume::{Options, Volume};

use client::Client;

use super::host::{ERRORS, FuzzHost, Store, volume};
use super::script::Script;

const SIZE_BYTES: u64 = 1 << 20;
const SHARDS: u16 = 2;
const CLIENTS_MAX: usize = 8;
const STEPS_MAX: usize = 300;
const TARGET: &str = "iqn.2026-11.org.example:disk";

struct Shard {
    host: FuzzHost,
    engine: Engine<HeapBuffer>,
    server: IscsiServer<HeapBuffer, LogicalUnit>,
}

struct Bench {
    shards: Vec<Shard>,
    store: Store,
    registry: Arc<Registry>,
    volume: Arc<Volume>,
    unit: Arc<LogicalUnit>,
    clients: Vec<Client>,
    /// Something was taken away from the initiators at some time.
    unexported: bool,
    /// Counts what was sent, on all connections.
    moment: u64,
}

/// A write: client and tag, as its place on the disk tells.
type Writer = (usize, u32);

/// See the head of this file.
pub(super) fn iscsi_server(input: &[u8]) {
    let mut script = Script::new(input);
    let mut bench = Bench::new(script.u8());
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
        bench.settle();
    }
    bench.end();
}

impl Bench {
    fn new(mode: u8) -> Self {
        let volume = Arc::new(volume(SIZE_BYTES, Options { thin: true, ..Options::default() }));
        let unit = Arc::new(LogicalUnit::new(volume.clone()));
        let registry = Arc::new(Registry::new(if mode & 1 == 1 { 2 } else { 16 }));
        let budget = if mode & 2 == 2 { 16 << 10 } else { 4 << 20 };
        let mut config = Config::default();
        (config.wire.window, config.half_open_max) = (4, 3);
        let shard = |shard| Shard {
            host: FuzzHost::new(shard, SHARDS, budget, SIZE_BYTES),
            engine: Engine::default(),
            server: IscsiServer::new(config.clone(), registry.clone(), targets(&unit, 0xff)),
        };
        let shards = (0..SHARDS).map(shard).collect();
        let store = Store::default();
        Self {
            shards,
            store,
            registry,
            volume,
            unit,
            clients: Vec::new(),
            unexported: false,
            moment: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.u8();
        let shard = usize::from(operation >> 7);
        match operation & 15 {
            0 => self.connect(shard),
            1 => self.block_done(shard, script.u8(), script.u8()),
            2 => self.message(shard),
            3 => {
                let gone = Duration::from_millis(u64::from(script.u16()) << 4);
                self.shards.iter_mut().for_each(|s| s.host.now = s.host.now + gone);
                self.at(shard, |server, cx| server.timeout(cx));
            }
            4 => {
                let mask = script.u8();
                self.unexported |= mask & 7 != 7;
                let targets = targets(&self.unit, mask);
                self.at(shard, |server, cx| server.set_targets(targets, cx));
            }
            5 => {
                if let Some(id) = self.shards[shard].server.poll_close() {
                    self.at(shard, |server, cx| server.closed(id, cx));
                }
            }
            6 if operation & 0x70 == 0x70 => {
                self.at(shard, |server, cx| server.shutdown(Duration::from_secs(1), cx.host.now));
            }
            7 => self.at(shard, |server, cx| server.turn(cx)),
            _ if self.clients.is_empty() => self.connect(shard),
            _ => {
                let index = usize::from(operation >> 4) % self.clients.len();
                self.client(index, script);
            }
        }
    }

    fn connect(&mut self, shard: usize) {
        if self.clients.len() >= CLIENTS_MAX {
            return;
        }
        let (peer, local) = (([10, 0, 0, 9], 999).into(), ([10, 0, 0, 1], 3260).into());
        let id = self.at(shard, |server, cx| server.accept(peer, local, cx.host.now));
        if let Ok(id) = id {
            self.clients.push(Client::new(shard, id, self.clients.len()));
        }
    }

    /// One thing that an initiator does.
    fn client(&mut self, index: usize, script: &mut Script<'_>) {
        self.moment += 1;
        let client = &mut self.clients[index];
        let (shard, id) = (client.shard, client.id);
        let Some(bytes) = client.act(script, self.moment) else {
            return self.at(shard, |server, cx| server.closed(id, cx));
        };
        if self.shards[shard].server.wants_read(id) {
            self.at(shard, |server, cx| server.received(id, &bytes, cx));
        }
    }

    fn at<R>(
        &mut self,
        shard: usize,
        call: impl FnOnce(
            &mut IscsiServer<HeapBuffer, LogicalUnit>,
            &mut Context<'_, HeapBuffer, FuzzHost>,
        ) -> R,
    ) -> R {
        let Shard { host, engine, server } = &mut self.shards[shard];
        call(server, &mut Context { host, engine })
    }

    fn block_done(&mut self, shard: usize, choice: u8, error: u8) {
        let Shard { host, engine, .. } = &mut self.shards[shard];
        if host.blocks.is_empty() {
            return;
        }
        let index = usize::from(choice) % host.blocks.len();
        let result: Result<(), BlockError> = match error {
            1..=8 => Err(ERRORS[usize::from(error) % 4]),
            _ => Ok(()),
        };
        let (token, result, data) = host.complete(index, result, &mut self.store);
        engine.block_done(host, token, result, data);
    }

    /// The oldest message of a shard arrives.
    fn message(&mut self, from: usize) {
        let Some((to, message)) = self.shards[from].host.posts.pop_front() else { return };
        let Shard { host, engine, server } = &mut self.shards[usize::from(to)];
        match message {
            Message::RangeGranted { waiter } => engine.message(host, waiter),
            // There are no slots.
            Message::FenceAoe { shard, ask, .. } => {
                host.post(shard, Message::Iscsi(corbel_target::iscsi::Message::Cleared { ask }));
            }
            Message::Iscsi(message) => server.message(message, &mut Context { host, engine }),
        }
    }

    /// Hands outcomes on, and lets initiators hear what is sent to them.
    fn settle(&mut self) {
        for shard in 0..self.shards.len() {
            self.hand_over(shard);
            let Shard { host, engine, server } = &mut self.shards[shard];
            for tag in host.returned.take() {
                engine.returned(host, BlockToken(tag));
            }
            engine.tick(host);
            while let Some((owner, outcome)) = engine.poll() {
                let Owner::Iscsi(tag) = owner else { panic!("only iSCSI is here") };
                server.complete(tag, outcome, &mut Context { host, engine });
            }
            while self.shards[shard].server.poll_ready().is_some() {}
        }
        for index in 0..self.clients.len() {
            let (shard, id) = (self.clients[index].shard, self.clients[index].id);
            if index % 2 == 1 {
                // As if the client did not read.
                self.at(shard, |server, cx| server.call_in(id, cx.host));
            }
            while let Some(out) = self.shards[shard].server.transmit(id) {
                self.hear(index, &out);
            }
        }
    }

    fn hear(&mut self, index: usize, out: &corbel_proto::iscsi::target::Outgoing<HeapBuffer>) {
        let writers = self.writers();
        match self.clients[index].hear(out) {
            client::Heard::Nothing => {}
            client::Heard::LoggedIn => {
                let isid = self.clients[index].isid;
                self.replaced(index, &writers, |other| other.isid == isid);
            }
            client::Heard::Joined => {
                let (isid, cid) = (self.clients[index].isid, self.clients[index].cid);
                if self.clients.iter().any(|client| client.isid == isid && client.level_2) {
                    // Its tasks go on, and wait to be reassigned.
                    return;
                }
                self.replaced(index, &writers, |other| (other.isid, other.cid) == (isid, cid));
            }
            client::Heard::Ended { function, referenced, asked } => {
                let met = |&(who, itt): &Writer| match function {
                    Function::AbortTask => (who, itt) == (index, referenced),
                    Function::AbortTaskSet | Function::ClearTaskSet => who == index,
                    _ => true,
                };
                let before = |&&(who, itt): &&Writer| {
                    // ABORT TASK, ABORT TASK SET and CLEAR TASK SET are about LUN 0 here.
                    let narrow =
                        [Function::AbortTask, Function::AbortTaskSet, Function::ClearTaskSet];
                    let wide = !narrow.contains(&function);
                    let sent = self.clients[who].sent.get(&itt);
                    // A reset reaches what is no longer exported only of its own session.
                    let reached = who == index || !self.unexported;
                    sent.is_some_and(|(at, lun, _)| *at < asked && (wide || *lun == 0) && reached)
                };
                let left = writers.iter().filter(|writer| met(writer)).find(before);
                assert!(left.is_none(), "{function:?} is done but {left:?} still writes");
            }
        }
    }

    /// Client `index` has the place of those that fit: nothing of theirs may be written any more.
    fn replaced(&mut self, index: usize, writers: &[Writer], fits: impl Fn(&Client) -> bool) {
        for (older, other) in self.clients.iter_mut().enumerate() {
            if older != index && other.logged_in && fits(other) {
                other.logged_in = false;
                let left = writers.iter().any(|writer| writer.0 == older);
                assert!(!left, "{older} is replaced but still writes: {writers:?}");
            }
        }
    }

    /// Connections go to the shards that have their sessions.
    fn hand_over(&mut self, from: usize) {
        while let Some(Move { id, shard, bytes }) = self.shards[from].server.poll_move() {
            self.at(from, |server, cx| server.closed(id, cx));
            let to = usize::from(shard);
            let (peer, local) = (([10, 0, 0, 9], 999).into(), ([10, 0, 0, 1], 3260).into());
            let new = self.at(to, |server, cx| server.accept(peer, local, cx.host.now));
            let client = self.clients.iter_mut().find(|c| (c.shard, c.id) == (from, id));
            if let (Ok(new), Some(client)) = (new, client) {
                (client.shard, client.id) = (to, new);
                self.at(to, |server, cx| server.received(new, &bytes, cx));
            }
        }
    }

    /// Whose writes are at the disk.
    fn writers(&self) -> Vec<Writer> {
        let blocks = self.shards.iter().flat_map(|shard| &shard.host.blocks);
        blocks
            .filter_map(|(_, op, _)| match op {
                BlockOp::Write { offset, .. } => Some(client::writer(*offset)),
                _ => None,
            })
            .collect()
    }

    /// Everybody leaves, everything ends.
    fn end(&mut self) {
        for index in 0..self.clients.len() {
            let (shard, id) = (self.clients[index].shard, self.clients[index].id);
            self.at(shard, |server, cx| server.closed(id, cx));
        }
        self.settle();
        for shard in 0..self.shards.len() {
            // Nobody comes back for what waits.
            let host = &mut self.shards[shard].host;
            host.now = host.now + Duration::from_secs(3600);
            self.at(shard, |server, cx| server.timeout(cx));
        }
        for _ in 0..10_000 {
            for shard in 0..self.shards.len() {
                self.block_done(shard, 0, 0);
                self.message(shard);
                self.at(shard, |server, cx| server.turn(cx));
            }
            self.settle();
            let idle = |s: &Shard| {
                let host = &s.host;
                let returned = !host.returned.borrow().is_empty();
                host.blocks.is_empty() && host.posts.is_empty() && !returned
            };
            if self.shards.iter().all(|s| idle(s) && s.engine.in_flight() == 0) {
                break;
            }
        }
        for Shard { host, engine, server } in &self.shards {
            assert_eq!(engine.in_flight(), 0, "a request hangs");
            assert!(server.is_idle(), "the server is not idle: {:?}", server.status());
            assert_eq!(host.arena.in_use(), 0, "memory is still lent");
        }
        assert_eq!(self.registry.count(), 0, "a session is still known");
        assert_eq!(self.volume.ranges.len(), 0, "a range is still locked");
    }
}

/// The disk, as far as `mask` lets it be seen: target, LUN 0, LUN 1.
fn targets(unit: &Arc<LogicalUnit>, mask: u8) -> Arc<Targets<LogicalUnit>> {
    let luns = [0, 1].into_iter().filter(|lun| mask >> lun & 2 == 2);
    let target = Target {
        name: TARGET.parse().expect("a sound name"),
        alias: None,
        luns: luns.map(|lun| (lun, unit.clone())).collect::<BTreeMap<_, _>>(),
        groups: vec![PortalGroup { tag: 1, portals: vec![([0, 0, 0, 0], 3260).into()] }],
        allow: Allow::default(),
        chap: None,
        sessions_max: 8,
        digests_required: DigestsRequired::default(),
        terms: Terms { connections_max: 4, recovery_level_max: 2 },
        commands_max: None,
        pings: None,
        redirect: None,
    };
    Arc::new(Targets::new((mask & 1 == 1).then_some(target), None))
}
