//! The server's end of an NBD connection: any bytes, cut anywhere, with outcomes in any order,
//! memory that comes and goes, and a client that may not read.
//!
//! Whatever comes, the device is asked only for what it has, memory stays bounded, and in the end
//! nothing is held. An orderly client moreover gets one answer to each request, with the bytes of
//! the place it asked for, and what it writes arrives where it belongs.

use std::collections::BTreeMap;

use corbel_initiator::present::nbd::machine::{Bounds, Connection, Export, Mode};
use corbel_initiator::request::{IoError, Operation, Outcome, Request};
use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, SEGMENT_BYTES_MAX};

use super::script::Script;

const SIZE_BYTES: u64 = 4 << 20;
const STEPS_MAX: usize = 300;
const MEMORY_BYTES: usize = 1 << 20;
const ERRORS: [IoError; 5] =
    [IoError::Io, IoError::Medium, IoError::NoSpace, IoError::Unsupported, IoError::Fenced];
const SIMPLE_REPLY: [u8; 4] = [0x67, 0x44, 0x66, 0x98];
const STRUCTURED_REPLY: [u8; 4] = [0x66, 0x8e, 0x33, 0xef];

/// What the device has, and what an orderly client writes, at `offset`.
fn byte_at(offset: u64) -> u8 {
    u8::try_from((offset ^ (offset >> 9)) & 0xff).expect("one byte")
}

/// A request of an orderly client: what a read must bring. The bytes that have come, and whether
/// the last of it was told.
#[derive(Debug)]
struct Wish {
    offset: u64,
    read_bytes: u64,
    came: u64,
    failed: bool,
    over: bool,
}

struct Bench {
    connection: Connection<HeapBuffer>,
    arena: HeapArena,
    bounds: Bounds,
    block: u32,
    hogged: Vec<HeapBuffer>,
    requests: Vec<Request<HeapBuffer>>,
    /// The connection was refused: only what is under way goes on.
    refused: bool,
    orderly: bool,
    /// Bytes of payload that an orderly client owes, and where the next one goes.
    owed: (u64, u64),
    wishes: BTreeMap<u64, Wish>,
    /// Sent to the orderly client and not yet understood.
    said: Vec<u8>,
}

/// See the head of this file.
pub(super) fn nbd_server(input: &[u8]) {
    let mut script = Script::new(input);
    let mode = script.u8();
    let (orderly, structured) = (mode & 1 != 0, mode & 2 != 0);
    let bounds = Bounds {
        requests_max: 1 + u32::from(script.below(16)),
        bytes_max: (1 + u64::from(script.below(16))) << 16,
    };
    let block = if mode & 4 == 0 { 512 } else { 4096 };
    let export = Export {
        name: "disk".to_owned(),
        description: String::new(),
        size_bytes: SIZE_BYTES,
        block_bytes: block,
        physical_block_bytes: 4096,
        read_only: mode & 8 != 0,
        discard: mode & 16 == 0,
        write_zeroes: mode & 32 == 0,
    };
    let begin = if mode & 64 != 0 && !structured { Mode::Transmission } else { Mode::Handshake };
    let mut bench = Bench {
        connection: Connection::new(5, export, begin, bounds),
        arena: HeapArena::new(MEMORY_BYTES),
        bounds,
        block,
        hogged: Vec::new(),
        requests: Vec::new(),
        refused: false,
        orderly,
        owed: (0, 0),
        wishes: BTreeMap::new(),
        said: Vec::new(),
    };
    if orderly && begin == Mode::Handshake {
        bench.shake_hands(structured);
    }
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
        bench.check();
    }
    bench.end();
}

impl Bench {
    fn shake_hands(&mut self, structured: bool) {
        self.receive(&3u32.to_be_bytes());
        if structured {
            self.receive(&option(8, &[]));
            self.receive(&option(10, b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation"));
        }
        self.receive(&option(7, b"\0\0\0\0\0\0"));
        while self.connection.transmit().is_some() {}
    }

    fn receive(&mut self, bytes: &[u8]) {
        if self.connection.wants_read() && !self.refused {
            let refused = self.connection.received(&mut self.arena, bytes).is_err();
            assert!(!(refused && self.orderly), "an orderly client is refused");
            self.refused |= refused;
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(12) {
            0 | 1 if self.orderly => self.ask(script),
            0 => self.receive(script.bytes(40)),
            1 => {
                let kind = u32::from(script.below(12));
                let len = usize::from(script.below(64));
                let data = option(kind, script.bytes(len));
                self.receive(&data);
            }
            2 if self.orderly => self.pay(script),
            2 => {
                let request = self.request(script, 77).0;
                self.receive(&request);
            }
            3 if !self.orderly => self.receive(&vec![script.u8(); usize::from(script.u16()) * 8]),
            3 | 4 => self.perform(script, None),
            5 => {
                let error = ERRORS[script.index(ERRORS.len())];
                self.perform(script, Some(error));
            }
            6 | 7 => self.transmit(),
            8 => self.fill(script),
            9 => match script.below(3) {
                0 if !self.orderly => {
                    self.connection.resized(u64::from(script.u8()) * u64::from(self.block) * 64);
                }
                0 | 1 => {
                    let len = (1 + script.index(SEGMENT_BYTES_MAX >> 10)) << 10;
                    self.hogged.extend(self.arena.alloc(len));
                }
                _ => self.hogged.clear(),
            },
            10 => self.resume(),
            _ if script.below(64) == 0 && !self.orderly => self.connection.drain(),
            _ => {}
        }
        while let Some(request) = self.connection.poll_request() {
            self.judge(&request);
            self.requests.push(request);
        }
    }

    /// A request in the right form: its bytes, and command, offset and length.
    fn request(&self, script: &mut Script<'_>, cookie: u64) -> (Vec<u8>, u16, u64, u32) {
        let kind = u16::from(script.below(8));
        let flags = if script.below(4) == 0 { u16::from(script.below(32)) } else { 0 };
        let offset = u64::from(script.u16()) * u64::from(self.block);
        let blocks = if script.below(2) == 0 { script.u8().into() } else { script.u16() };
        let len = u32::from(blocks) * self.block;
        let mut bytes = vec![0x25, 0x60, 0x95, 0x13];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        (bytes, kind, offset, len)
    }

    fn ask(&mut self, script: &mut Script<'_>) {
        let cookie = self.wishes.len() as u64 + 1;
        let (bytes, kind, offset, len) = self.request(script, cookie);
        // An orderly client says goodbye in the end, and finishes what it has begun.
        if kind == 2 || self.owed.0 > 0 || !self.connection.wants_read() {
            return;
        }
        if kind == 1 {
            self.owed = (len.into(), offset);
        }
        let read_bytes = if kind == 0 { len.into() } else { 0 };
        let wish = Wish { offset, read_bytes, came: 0, failed: false, over: false };
        self.wishes.insert(cookie, wish);
        let cut = script.index(bytes.len());
        self.receive(&bytes[..cut]);
        // What is cut is taken even where the next message would have to wait.
        let refused = self.connection.received(&mut self.arena, &bytes[cut..]).is_err();
        assert!(!refused, "an orderly client is refused");
    }

    fn pay(&mut self, script: &mut Script<'_>) {
        let len = self.owed.0.min(u64::from(script.u16()) * 8);
        if len > 0 && self.connection.wants_read() {
            let bytes: Vec<_> = (self.owed.1..self.owed.1 + len).map(byte_at).collect();
            self.owed = (self.owed.0 - len, self.owed.1 + len);
            self.receive(&bytes);
        }
    }

    fn fill(&mut self, script: &mut Script<'_>) {
        let Some(mut place) = self.connection.poll_fill(&mut self.arena) else { return };
        assert!(!self.connection.wants_read(), "two ways into one piece of memory");
        let mut len = place.len.min(u32::from(script.u16()) * 8);
        if self.orderly {
            len = len.min(u32::try_from(self.owed.0).unwrap_or(u32::MAX));
            for (byte, at) in place.bytes_mut().iter_mut().zip(self.owed.1..).take(len as usize) {
                *byte = byte_at(at);
            }
            self.owed = (self.owed.0 - u64::from(len), self.owed.1 + u64::from(len));
        }
        self.connection.filled(place, len);
    }

    /// As its owner sees it: also one that waits for nothing but memory.
    fn waits(&self) -> bool {
        self.connection.wants_resume() || self.connection.is_starved()
    }

    fn resume(&mut self) {
        if self.waits() && !self.refused {
            self.refused |= self.connection.resume(&mut self.arena).is_err();
        }
    }

    fn judge(&self, request: &Request<HeapBuffer>) {
        let (extent, export) = (request.extent, self.connection.export());
        let block = u64::from(self.block);
        assert!(extent.offset.is_multiple_of(block) && extent.len.is_multiple_of(block));
        assert!(extent.end() <= SIZE_BYTES.max(export.size_bytes), "past the end: {extent:?}");
        assert!((extent.len == 0) == (request.operation == Operation::Flush), "{extent:?}");
        assert!(!(export.read_only && request.operation.changes()), "writes to a read-only device");
        let transfers = matches!(request.operation, Operation::Read | Operation::Write { .. });
        let len = request.data.as_ref().map(|data| u64::from(data.len));
        assert_eq!(len, transfers.then_some(extent.len));
        assert!(self.requests.iter().all(|other| other.id != request.id), "one name for two");
    }

    fn perform(&mut self, script: &mut Script<'_>, error: Option<IoError>) {
        if self.requests.is_empty() {
            return;
        }
        let at = script.index(self.requests.len());
        self.perform_at(at, error);
    }

    fn perform_at(&mut self, at: usize, error: Option<IoError>) {
        let mut request = self.requests.swap_remove(at);
        match (request.operation, &mut request.data) {
            (Operation::Read, Some(data)) if error.is_none() => {
                for (byte, at) in data.bytes_mut().iter_mut().zip(request.extent.offset..) {
                    *byte = byte_at(at);
                }
            }
            (Operation::Write { .. }, Some(data)) if self.orderly => {
                let zeroes = data.bytes().iter().all(|byte| *byte == 0);
                let sound = |(byte, at): (&u8, u64)| *byte == byte_at(at);
                let sound = data.bytes().iter().zip(request.extent.offset..).all(sound);
                assert!(zeroes || sound, "written where it does not belong");
            }
            _ => {}
        }
        let result = error.map_or(Ok(()), Err);
        self.connection.complete(Outcome { id: request.id, data: request.data, result });
    }

    fn transmit(&mut self) {
        let Some(reply) = self.connection.transmit() else { return };
        if self.orderly {
            self.said.extend_from_slice(&reply.head);
            reply.data.iter().for_each(|data| self.said.extend_from_slice(data.bytes()));
            self.hear();
        }
    }

    /// Understands replies that are whole.
    fn hear(&mut self) {
        while self.said.len() >= 16 {
            let cookie = u64::from_be_bytes(self.said[8..16].try_into().expect("eight bytes"));
            let wish = self.wishes.get_mut(&cookie).expect("an answer to what nobody asked");
            assert!(!wish.over, "answered twice");
            let structured = self.said[..4] == STRUCTURED_REPLY;
            assert!(structured || self.said[..4] == SIMPLE_REPLY);
            let (head, len, place) = if structured {
                let Some(len) = self.said.get(16..20) else { return };
                let len = u32::from_be_bytes(len.try_into().expect("four bytes")) as usize;
                if self.said.len() < 20 + len {
                    return;
                }
                wish.over = self.said[5] & 1 != 0;
                wish.failed |= self.said[6] & 0x80 != 0;
                if self.said[6..8] == [0, 1] {
                    let place = self.said[20..28].try_into().expect("eight bytes");
                    (28, len - 8, u64::from_be_bytes(place))
                } else {
                    (20 + len, 0, 0)
                }
            } else {
                wish.failed = self.said[4..8] != [0; 4];
                let len = if wish.failed { 0 } else { wish.read_bytes };
                let len = usize::try_from(len).expect("reads are short");
                if self.said.len() < 16 + len {
                    return;
                }
                wish.over = true;
                (16, len, wish.offset)
            };
            let data = &self.said[head..head + len];
            assert!(data.iter().zip(place..).all(|(byte, at)| *byte == byte_at(at)), "other bytes");
            wish.came += len as u64;
            let whole = wish.came == wish.read_bytes;
            assert!(!wish.over || wish.failed || whole, "{} of {wish:?}", wish.came);
            self.said.drain(..head + len);
        }
    }

    fn check(&self) {
        let held = self.connection.memory_bytes();
        let most = self.bounds.bytes_max.max(self.block.into());
        assert!(held <= most, "{held} bytes of memory, {most} agreed");
        let lent = self.arena.in_use() as u64;
        let hogged: u64 = self.hogged.iter().map(memory_len).sum();
        assert!(lent <= held + hogged, "{lent} bytes lent, {held} known");
        assert!(self.connection.in_flight() <= self.bounds.requests_max as usize);
    }

    /// Everything ends well.
    fn end(&mut self) {
        self.hogged.clear();
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 10_000, "it never ends");
            while let Some(request) = self.connection.poll_request() {
                self.judge(&request);
                self.requests.push(request);
            }
            if !self.requests.is_empty() {
                self.perform_at(0, None);
            }
            while self.connection.in_flight() < 1000 {
                let before = self.said.len();
                let Some(reply) = self.connection.transmit() else { break };
                if self.orderly {
                    self.said.extend_from_slice(&reply.head);
                    reply.data.iter().for_each(|data| self.said.extend_from_slice(data.bytes()));
                    assert!(self.said.len() > before, "a reply of nothing");
                    self.hear();
                }
            }
            let waited = self.waits();
            self.resume();
            let more = self.connection.poll_request();
            self.requests.extend(more);
            // What it went on with may have been answered at once.
            let idle = self.requests.is_empty() && !waited && !self.waits();
            if self.orderly && self.owed.0 > 0 && self.connection.wants_read() {
                let len = self.owed.0.min(100_000);
                let bytes: Vec<_> = (self.owed.1..self.owed.1 + len).map(byte_at).collect();
                self.owed = (self.owed.0 - len, self.owed.1 + len);
                self.receive(&bytes);
            } else if idle || self.refused && self.requests.is_empty() {
                break;
            }
            self.check();
        }
        if self.orderly {
            assert!(self.said.is_empty(), "half a reply");
            let silent = self.wishes.iter().find(|(_, wish)| !wish.over);
            assert!(silent.is_none(), "never answered: {silent:?}");
        }
        self.connection.drain();
        while self.connection.transmit().is_some() {}
        assert!(self.connection.is_over(), "still something under way");
        assert_eq!((self.connection.memory_bytes(), self.arena.in_use()), (0, 0));
    }
}

fn memory_len(memory: &HeapBuffer) -> u64 {
    use corbel_proto::memory::Buffer;
    memory.len() as u64
}

fn option(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).expect("short").to_be_bytes());
    bytes.extend(data);
    bytes
}
