//! Conversations with a connection, byte by byte.
#![allow(clippy::cast_possible_truncation)] // of small numbers of our own

mod bounds;
mod handshake;
mod requests;

use corbel_proto::memory::{HeapArena, HeapBuffer};

use super::wire::{Command, REQUEST_BYTES, cmd, cmd_flag};
use super::{Bounds, Connection, Export, Mode, Refusal};
use crate::request::{IoError, Operation, Outcome, Request};

const SIZE: u64 = 2 << 20;
const COOKIE: u64 = 0x1122_3344_5566_7788;

fn export() -> Export {
    Export {
        name: "vmstore".to_owned(),
        description: "a disk".to_owned(),
        size_bytes: SIZE,
        block_bytes: 512,
        physical_block_bytes: 4096,
        read_only: false,
        discard: true,
        write_zeroes: true,
    }
}

/// A connection, and the device behind it.
struct Bench {
    connection: Connection<HeapBuffer>,
    arena: HeapArena,
    disk: Vec<u8>,
    requests: Vec<Request<HeapBuffer>>,
    /// What was asked of the device, in words.
    log: Vec<String>,
    fails: Option<IoError>,
}

impl Bench {
    fn new(export: Export, mode: Mode, bounds: Bounds) -> Self {
        Self {
            disk: (0..export.size_bytes).map(|at| (at / 512 % 251) as u8).collect(),
            connection: Connection::new(7, export, mode, bounds),
            arena: HeapArena::new(64 << 20),
            requests: Vec::new(),
            log: Vec::new(),
            fails: None,
        }
    }

    fn kernel(export: Export) -> Self {
        Self::new(export, Mode::Transmission, Bounds::default())
    }

    /// After a handshake like that of libnbd and QEMU.
    fn structured(export: Export) -> Self {
        let mut bench = Self::new(export, Mode::Handshake, Bounds::default());
        bench.sent();
        bench.gets(&3u32.to_be_bytes());
        bench.option(8, &[]);
        bench.option(10, &context_query(b"vmstore", &[b"base:allocation"]));
        bench.option(7, &name_and_infos(b"vmstore", &[3]));
        bench.sent();
        bench
    }

    fn try_gets(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.connection.received(&mut self.arena, bytes)
    }

    fn gets(&mut self, bytes: &[u8]) {
        self.try_gets(bytes).unwrap();
    }

    fn option(&mut self, kind: u32, data: &[u8]) {
        self.gets(&option(kind, data));
    }

    /// Takes the requests that there are.
    fn take_requests(&mut self) {
        self.requests.extend(std::iter::from_fn(|| self.connection.poll_request()));
    }

    /// Performs one request that was taken.
    fn perform(&mut self, at: usize) {
        let mut request = self.requests.remove(at);
        let (start, end) = (request.extent.offset as usize, request.extent.end() as usize);
        self.log.push(format!("{:?} {start}+{}", request.operation, request.extent.len));
        let result = self.fails.map_or(Ok(()), Err);
        if result.is_ok() {
            match (request.operation, &mut request.data) {
                (Operation::Read, Some(data)) => {
                    data.bytes_mut().copy_from_slice(&self.disk[start..end]);
                }
                (Operation::Write { .. }, Some(data)) => {
                    self.disk[start..end].copy_from_slice(data.bytes());
                }
                (Operation::WriteZeroes { .. } | Operation::Discard, None) => {
                    self.disk[start..end].fill(0);
                }
                (Operation::Flush, None) => {}
                other => panic!("no such request: {other:?}"),
            }
        }
        self.connection.complete(Outcome { id: request.id, data: request.data, result });
    }

    /// Everything that can be done without the client.
    fn work(&mut self) {
        self.take_requests();
        while !self.requests.is_empty() {
            self.perform(0);
            if self.connection.wants_resume() {
                self.connection.resume(&mut self.arena).unwrap();
            }
            self.take_requests();
        }
    }

    /// Works, and what the client gets meanwhile.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            self.work();
            let Some(reply) = self.connection.transmit() else { return bytes };
            bytes.extend_from_slice(&reply.head);
            reply.data.iter().for_each(|data| bytes.extend_from_slice(data.bytes()));
            drop(reply);
            if self.connection.wants_resume() {
                self.connection.resume(&mut self.arena).unwrap();
            }
        }
    }

    fn asks(&mut self, kind: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
        self.gets(&request(kind, flags, offset, len));
        self.sent()
    }
}

fn option(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn name_and_infos(name: &[u8], infos: &[u16]) -> Vec<u8> {
    let mut bytes = (name.len() as u32).to_be_bytes().to_vec();
    bytes.extend(name);
    bytes.extend((infos.len() as u16).to_be_bytes());
    bytes.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    bytes
}

fn context_query(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
    let mut bytes = (name.len() as u32).to_be_bytes().to_vec();
    bytes.extend(name);
    bytes.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        bytes.extend((query.len() as u32).to_be_bytes());
        bytes.extend(*query);
    }
    bytes
}

fn request(kind: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(COOKIE.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    assert_eq!(bytes.len(), REQUEST_BYTES);
    assert_eq!(Command::parse(&bytes).unwrap().len, len);
    bytes
}

fn simple(error: u32) -> Vec<u8> {
    let mut bytes = 0x6744_6698u32.to_be_bytes().to_vec();
    bytes.extend(error.to_be_bytes());
    bytes.extend(COOKIE.to_be_bytes());
    bytes
}

/// The chunks of structured replies in `bytes`: flags, type, payload.
fn chunks(mut bytes: &[u8]) -> Vec<(u16, u16, Vec<u8>)> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(bytes[..4], 0x668e_33efu32.to_be_bytes());
        assert_eq!(bytes[8..16], COOKIE.to_be_bytes());
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let len = u32::from_be_bytes(bytes[16..20].try_into().unwrap()) as usize;
        chunks.push((number(4), number(6), bytes[20..20 + len].to_vec()));
        bytes = &bytes[20 + len..];
    }
    chunks
}
