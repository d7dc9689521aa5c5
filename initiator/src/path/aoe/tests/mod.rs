//! Against a server that is told how to behave. Time is what the test says it is.

mod doubt;
mod life;
mod traffic;

use std::collections::BTreeMap;

use corbel_proto::aoe::header::{Error, Packet as HeaderPacket, Repr as HeaderRepr};
use corbel_proto::aoe::{ATA_DATA_OFFSET, Code, ConfigRepr, HEADER_BYTES, config};
use corbel_proto::ata::Identify;
use corbel_proto::ata::command::{TrimRanges, opcode};
use corbel_proto::memory::{HeapBuffer, Slice};

use super::*;
use crate::path::{Facts, Life, Verdict};
use crate::request::{Extent, Operation};

const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 1]);
const REMOTE: Mac = Mac([2, 0, 0, 0, 0, 2]);
const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn identify() -> Identify {
    Identify {
        serial: "3000000000000001".into(),
        firmware: "0001".into(),
        model: "TEST".into(),
        naa: 0x3000_0000_0000_0001,
        sectors: 4096,
        physical_exponent: 3,
        write_cache: false,
        trim_blocks: 1,
        trim_zeroes: true,
        rotational: false,
    }
}

/// A disk behind shelf 7, slot 1.
struct Server {
    mac: Mac,
    identify: Identify,
    sectors: u8,
    data: Vec<u8>,
    /// What it answers to an opcode instead: an AoE error, or status and error register.
    instead: BTreeMap<u8, Result<(u8, u8), Error>>,
    /// Opcodes in the order in which they came, without IDENTIFY.
    seen: Vec<u8>,
    trimmed: Vec<(u64, u32)>,
    /// First sector and count of each read and write.
    extents: Vec<(u64, u8)>,
}

impl Server {
    fn new() -> Self {
        Self {
            mac: REMOTE,
            identify: identify(),
            sectors: 255,
            data: vec![0; 4096 * 512],
            instead: BTreeMap::new(),
            seen: Vec::new(),
            trimmed: Vec::new(),
            extents: Vec::new(),
        }
    }

    fn answer(&mut self, frame: &[u8]) -> Vec<u8> {
        assert!(frame.len() >= 60, "padded");
        let request = HeaderRepr::parse(&HeaderPacket::new_checked(frame).unwrap());
        let mut reply = vec![0; HEADER_BYTES];
        let mut header = request.reply(self.mac, 7, 1, None);
        if request.code == Code::Config {
            reply.extend(self.config());
        } else {
            let command = frame[HEADER_BYTES + 3];
            if command != opcode::IDENTIFY_DEVICE {
                self.seen.push(command);
            }
            reply.extend(&frame[HEADER_BYTES..ATA_DATA_OFFSET]);
            (reply[25], reply[27]) = (0, 0x40);
            match self.instead.get(&command) {
                Some(Err(error)) => header.error = Some(*error),
                Some(Ok(status)) => (reply[27], reply[25]) = *status,
                None => self.execute(command, frame, &mut reply),
            }
        }
        header.emit(&mut HeaderPacket::new_unwritten(&mut reply[..]));
        reply
    }

    fn config(&self) -> Vec<u8> {
        let config = ConfigRepr {
            buffer_count: 16,
            firmware: 1,
            sectors: self.sectors,
            command: config::Command::Read,
            string: b"label",
        };
        let mut bytes = vec![0; config.buffer_len()];
        config.emit(&mut bytes);
        bytes
    }

    fn execute(&mut self, command: u8, frame: &[u8], reply: &mut Vec<u8>) {
        let mut lba = [0; 8];
        lba[..6].copy_from_slice(&frame[28..34]);
        let (first, count) = (u64::from_le_bytes(lba), frame[26]);
        let start = usize::try_from(first).unwrap() * 512;
        let range = start..start + usize::from(count) * 512;
        match command {
            opcode::IDENTIFY_DEVICE => reply.extend(self.identify.emit()),
            opcode::READ_SECTORS_EXT => {
                reply.extend(&self.data[range]);
                self.extents.push((first, count));
            }
            opcode::WRITE_SECTORS_EXT => {
                let bytes = &frame[ATA_DATA_OFFSET..];
                assert_eq!(bytes.len(), range.len());
                self.data[range].copy_from_slice(bytes);
                self.extents.push((first, count));
            }
            opcode::DATA_SET_MANAGEMENT => {
                let ranges = TrimRanges::parse(&frame[ATA_DATA_OFFSET..]).unwrap();
                self.trimmed.extend(ranges.map(|range| (range.lba, range.sectors)));
            }
            opcode::FLUSH_CACHE | opcode::FLUSH_CACHE_EXT => {}
            other => panic!("opcode {other:#x}"),
        }
    }

    /// The server says, unasked, that it is there.
    fn announcement(&self) -> Vec<u8> {
        let mut reply = vec![0; HEADER_BYTES];
        reply.extend(self.config());
        let header = HeaderRepr {
            destination: Mac::BROADCAST,
            source: self.mac,
            version: 1,
            response: true,
            error: None,
            shelf: 7,
            slot: 1,
            code: Code::Config,
            tag: 0,
        };
        header.emit(&mut HeaderPacket::new_unwritten(&mut reply[..]));
        reply
    }
}

/// What becomes of a frame: lost, or so much later.
type Fate = Option<Duration>;

/// The fates of a frame to the server, and of its answer.
type Wire = Box<dyn FnMut(&[u8]) -> (Fate, Fate)>;

/// A path, a server and a wire between them.
struct Farm {
    path: AoePath<HeapBuffer>,
    server: Server,
    now: Instant,
    /// Frames to the path.
    coming: Vec<(Instant, Vec<u8>)>,
    fate: Wire,
    sent: Vec<(Instant, Vec<u8>)>,
    events: Vec<(Instant, PathEvent<HeapBuffer>)>,
}

impl Farm {
    /// Nothing has happened yet.
    fn new(config: Config) -> Self {
        Self {
            path: AoePath::new(config, 42),
            server: Server::new(),
            now: at(1000),
            coming: Vec::new(),
            fate: Box::new(|_| (Some(Duration::ZERO), Some(MS))),
            sent: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The path is started, its link up with this MTU.
    fn started(config: Config, mtu: u32) -> Self {
        let mut farm = Self::new(config);
        farm.path.start(farm.now);
        farm.path.link(farm.now, Link { mac: LOCAL, mtu, up: true });
        farm
    }

    /// The path is ready.
    fn ready(config: Config, mtu: u32) -> Self {
        let mut farm = Self::started(config, mtu);
        farm.run(100);
        assert!(farm.took_ready().is_some(), "{:?}", farm.path.why(farm.now));
        farm.forget();
        farm
    }

    fn forget(&mut self) {
        self.events.clear();
        self.sent.clear();
        self.server.seen.clear();
        self.server.extents.clear();
    }

    fn pass(&mut self) {
        while let Some(frame) = self.path.transmit() {
            let mut bytes = frame.head.to_vec();
            bytes.extend(frame.data.as_ref().map_or(&[][..], Slice::bytes));
            let (there, back) = (self.fate)(&bytes);
            self.sent.push((self.now, bytes.clone()));
            if there.is_some() {
                let reply = self.server.answer(&bytes);
                self.coming.extend(back.map(|back| (self.now + back, reply)));
            }
        }
        while let Some(event) = self.path.poll_event() {
            self.events.push((self.now, event));
        }
    }

    /// Lets `ms` milliseconds pass.
    fn run(&mut self, ms: u64) {
        let end = self.now + MS * u32::try_from(ms).unwrap();
        loop {
            self.pass();
            self.coming.sort_by_key(|(moment, _)| *moment);
            let frame = self.coming.first().map(|(moment, _)| *moment);
            let timer = self.path.poll_timeout();
            let Some(next) = [frame, timer].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            if frame == Some(next) {
                let (_, bytes) = self.coming.remove(0);
                self.path.frame(self.now, &bytes);
            } else {
                self.path.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    fn submit(
        &mut self,
        id: u64,
        operation: Operation,
        offset: u64,
        data: Option<Vec<u8>>,
        len: u64,
    ) {
        let data = data.map(|data| Slice::whole(HeapBuffer::from_vec(data)));
        let extent = Extent { offset, len };
        self.path.submit(self.now, Try { id: TryId(id), operation, extent, data });
        self.pass();
    }

    fn write(&mut self, id: u64, offset: u64, data: Vec<u8>) {
        let len = data.len() as u64;
        self.submit(id, Operation::Write { fua: false }, offset, Some(data), len);
    }

    fn read(&mut self, id: u64, offset: u64, len: usize) {
        self.submit(id, Operation::Read, offset, Some(vec![0xee; len]), len as u64);
    }

    /// Tries that ended: name, verdict, and when.
    fn verdicts(&self) -> Vec<(u64, Verdict)> {
        self.tried().map(|(_, tried)| (tried.id.0, tried.verdict)).collect()
    }

    fn tried(&self) -> impl Iterator<Item = (Instant, &crate::path::Tried<HeapBuffer>)> {
        self.events.iter().filter_map(|(moment, event)| match event {
            PathEvent::Tried(tried) => Some((*moment, tried)),
            _ => None,
        })
    }

    fn took_ready(&self) -> Option<(Instant, Facts)> {
        self.events.iter().rev().find_map(|(moment, event)| match event {
            PathEvent::Ready(facts) => Some((*moment, Facts::clone(facts))),
            _ => None,
        })
    }

    fn downs(&self) -> Vec<(Instant, PathFault)> {
        let downs = self.events.iter().filter_map(|(moment, event)| match event {
            PathEvent::Down(fault) => Some((*moment, *fault)),
            _ => None,
        });
        downs.collect()
    }

    fn quiets(&self) -> Vec<(Instant, Life)> {
        let quiets = self.events.iter().filter_map(|(moment, event)| match event {
            PathEvent::Quiet(life) => Some((*moment, *life)),
            _ => None,
        });
        quiets.collect()
    }

    fn settled(&self) -> Vec<u64> {
        let settled = self.events.iter().filter_map(|(_, event)| match event {
            PathEvent::Settled(id) => Some(id.0),
            _ => None,
        });
        settled.collect()
    }
}

/// Everything arrives, in a millisecond.
fn well() -> Wire {
    Box::new(|_| (Some(Duration::ZERO), Some(MS)))
}

/// Nothing arrives.
fn black_hole() -> Wire {
    Box::new(|_| (None, None))
}

fn is_query(frame: &[u8]) -> bool {
    frame[19] == 1
}

/// The frame of an ATA command with this opcode.
fn is_command(frame: &[u8], opcode: u8) -> bool {
    frame[19] == 0 && frame[27] == opcode
}
