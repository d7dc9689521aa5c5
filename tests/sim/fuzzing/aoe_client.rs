//! The initiator's whole AoE path: tries come, frames come, some of them answers, time passes, the
//! link comes and goes.

use std::collections::BTreeSet;

use corbel_initiator::path::aoe::{AoePath, Config, Link, Timers};
use corbel_initiator::path::{Life, PathEvent, PathFault, Try, TryId, Verdict};
use corbel_initiator::request::{Extent, Operation};
use corbel_proto::aoe::header::Error;
use corbel_proto::aoe::{
    ATA_DATA_OFFSET, Code, ConfigRepr, HEADER_BYTES, HeaderPacket, HeaderRepr, Mac, config,
};
use corbel_proto::ata::Identify;
use corbel_proto::ata::command::opcode;
use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_proto::time::{Duration, Instant};

use super::script::Script;

const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SECTORS: u64 = 4096;
/// Frames that are on the wire at a time, at most; older ones are lost.
const ON_WIRE_MAX: usize = 64;

/// A path, and what is known of it from its events.
struct Bench {
    path: AoePath<HeapBuffer>,
    now: Instant,
    /// Frames of the path that were not answered.
    on_wire: Vec<Vec<u8>>,
    open: BTreeSet<TryId>,
    tries: u64,
    /// Lives of tries that ended in doubt, and of what was there before.
    doubts: BTreeSet<Life>,
    quiet: Option<Life>,
    ready: bool,
    siblings: usize,
}

pub(super) fn aoe_client(input: &[u8]) {
    let mut script = Script::new(input);
    let mut bench = Bench::new(&mut script);
    while !script.is_over() {
        bench.step(&mut script);
        bench.drain();
    }
    bench.finish();
}

impl Bench {
    fn new(script: &mut Script<'_>) -> Self {
        let mode = script.u8();
        let config = Config {
            remote: (mode & 1 == 1).then_some(remote(0)),
            depth: u16::from(script.u8()),
            server_caches: mode & 2 == 2,
            recovering: mode & 4 == 4,
            timers: if mode & 8 == 8 { Timers::QUICK } else { Timers::DEFAULT },
            ..Config::new(7, 1)
        };
        Self {
            path: AoePath::new(config, u64::from(script.u32())),
            now: Instant::from_nanos(1),
            on_wire: Vec::new(),
            open: BTreeSet::new(),
            tries: 0,
            doubts: BTreeSet::new(),
            quiet: None,
            ready: false,
            siblings: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let (now, what) = (self.now, script.u8());
        let path = &mut self.path;
        match what & 15 {
            0..=2 if self.open.len() < 64 => self.submit(what >> 4, script),
            3..=7 if !self.on_wire.is_empty() => {
                let index = script.index(self.on_wire.len());
                // A copy of a frame may be answered twice.
                let request = if what & 0x80 == 0 {
                    self.on_wire.remove(index)
                } else {
                    self.on_wire[index].clone()
                };
                let reply = answer(&request, what >> 4 & 7, script);
                path.frame(now, &reply);
            }
            8 => path.frame(now, script.bytes(usize::from(what >> 4) * 8)),
            9 => {
                let mtu = [500, 1500, 4200, 9000][usize::from(what >> 4 & 3)];
                path.link(now, Link { mac: LOCAL, mtu, up: what & 0x40 == 0 });
            }
            10 => path.abort(now, TryId(u64::from(script.u8()))),
            11 if what & 0x80 == 0 => path.check(now),
            11 if what & 0x40 == 0 => path.start(now),
            11 => path.stop(now, PathFault::Disabled),
            12 => self.pass(Duration::from_millis(u64::from(script.u16()))),
            _ => self.pass(Duration::from_millis(u64::from(what >> 4))),
        }
    }

    fn submit(&mut self, what: u8, script: &mut Script<'_>) {
        let offset = u64::from(script.u16()) * 512;
        let len = u64::from(script.u8()) * 512;
        let operation = match what & 7 {
            0 | 1 => Operation::Read,
            2..=4 => Operation::Write { fua: what & 8 == 8 },
            5 => Operation::Flush,
            6 => Operation::Discard,
            _ => Operation::WriteZeroes { unmap: true, fua: false },
        };
        let has_data = matches!(operation, Operation::Read | Operation::Write { .. });
        let memory = usize::try_from(len).expect("a byte's worth of sectors");
        let data = has_data.then(|| Slice::whole(HeapBuffer::new(memory)));
        let extent =
            if operation == Operation::Flush { Extent::NONE } else { Extent { offset, len } };
        let id = TryId(self.tries);
        self.tries += 1;
        self.open.insert(id);
        self.path.submit(self.now, Try { id, operation, extent, data });
    }

    /// Time passes, and the timer is served in between, sometimes late.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.path.handle_timeout(self.now);
        self.drain();
        let next = self.path.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "the timer would spin");
    }

    fn drain(&mut self) {
        while let Some(frame) = self.path.transmit() {
            let mut bytes = frame.head.to_vec();
            bytes.extend(frame.data.as_ref().map_or(&[][..], Slice::bytes));
            assert!(bytes.len() >= 60 && bytes.len() <= 9014, "{}", bytes.len());
            self.on_wire.push(bytes);
        }
        let lost = self.on_wire.len().saturating_sub(ON_WIRE_MAX);
        self.on_wire.drain(..lost);
        while let Some(event) = self.path.poll_event() {
            self.note(event);
        }
        self.siblings += std::iter::from_fn(|| self.path.poll_sibling()).count();
        assert!(self.siblings <= 8);
    }

    fn note(&mut self, event: PathEvent<HeapBuffer>) {
        match event {
            PathEvent::Ready(facts) => {
                assert!(facts.identity.size_bytes > 0);
                self.ready = true;
            }
            PathEvent::Down(_) => {
                assert!(self.open.is_empty(), "down, but {:?} have not ended", self.open);
                self.ready = false;
            }
            PathEvent::Tried(tried) => {
                assert!(self.open.remove(&tried.id), "{:?} ends twice", tried.id);
                if let Verdict::DoneInDoubt(life)
                | Verdict::InDoubt(_, life)
                | Verdict::DeviceInDoubt(_, life) = tried.verdict
                {
                    assert!(self.quiet < Some(life), "in doubt, and quiet already");
                    self.doubts.insert(life);
                }
            }
            PathEvent::Haunted(life) => {
                self.doubts.insert(life);
            }
            PathEvent::Quiet(life) => {
                assert!(self.quiet < Some(life), "lives end in their order");
                self.quiet = Some(life);
                self.doubts.retain(|doubt| *doubt > life);
            }
            PathEvent::Settled(id) => assert!(!self.open.contains(&id)),
            PathEvent::Checked => assert!(self.ready),
        }
    }

    /// Without answers, every try ends and every doubt as well.
    fn finish(&mut self) {
        for _ in 0..500 {
            self.pass(Duration::from_millis(50));
        }
        assert!(self.open.is_empty(), "{:?} hang", self.open);
        self.path.stop(self.now, PathFault::Disabled);
        self.drain();
        while let Some(next) = self.path.poll_timeout() {
            self.now = self.now.max(next);
            self.path.handle_timeout(self.now);
            self.drain();
        }
        assert!(self.path.is_quiet() && self.doubts.is_empty(), "{:?}", self.doubts);
    }
}

fn remote(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, number])
}

/// An answer to `request`, more or less: `kind` says what goes wrong.
fn answer(request: &[u8], kind: u8, script: &mut Script<'_>) -> Vec<u8> {
    let packet = HeaderPacket::new_checked(request).expect("we emit what we parse");
    let asked = HeaderRepr::parse(&packet);
    let from = if kind == 1 { script.u8() % 12 } else { 0 };
    let mut header = asked.reply(remote(from), 7, 1, None);
    let mut reply = vec![0; HEADER_BYTES];
    if asked.code == Code::Config {
        if kind == 2 {
            (header.destination, header.tag) = (Mac::BROADCAST, 0);
        }
        reply.extend(self_description(script));
    } else {
        if kind == 2 {
            header.error = Error::from_wire(script.u8() % 8);
        }
        reply.extend(&request[HEADER_BYTES..ATA_DATA_OFFSET]);
        let status = if kind == 3 { [script.u8(), script.u8()] } else { [0, 0x40] };
        (reply[25], reply[27]) = (status[0], status[1]);
        match request[HEADER_BYTES + 3] {
            opcode::IDENTIFY_DEVICE => reply.extend(identity(kind == 4, script)),
            opcode::READ_SECTORS_EXT => reply.resize(36 + usize::from(request[26]) * 512, kind),
            _ => {}
        }
    }
    header.emit(&mut HeaderPacket::new_unwritten(&mut reply[..]));
    if kind == 5 {
        let at = script.index(reply.len());
        reply[at] ^= script.u8();
    }
    if kind == 6 {
        reply.truncate(usize::from(script.u8()));
    }
    reply
}

fn self_description(script: &mut Script<'_>) -> Vec<u8> {
    let repr = ConfigRepr {
        buffer_count: u16::from(script.u8()),
        firmware: 1,
        sectors: script.u8(),
        command: config::Command::Read,
        string: b"label",
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut bytes);
    bytes
}

fn identity(changes: bool, script: &mut Script<'_>) -> [u8; 512] {
    let change = if changes { script.u8() } else { 0 };
    let identify = Identify {
        serial: "3000000000000001".to_owned(),
        firmware: "0001".to_owned(),
        model: "FUZZ".to_owned(),
        naa: 0x3000_0000_0000_0001 + u64::from(change & 1),
        sectors: if change & 2 == 2 { u64::from(change >> 4) } else { SECTORS },
        physical_exponent: change >> 5,
        write_cache: change & 4 == 4,
        trim_blocks: u16::from(change & 8 == 0),
        trim_zeroes: false,
        rotational: false,
    };
    identify.emit()
}
