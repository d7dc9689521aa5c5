//! Shelves and slots on the real engine: any frames, ports that come and go, completions and
//! persisted changes in any order, maps that change under way.
//!
//! What leaves is sound: it fits its port, comes from its address, names one of the slots and
//! answers a tag that somebody sent. No frame is answered twice, and in the end nothing is under
//! way, locked, lent, or counted as if it were.

use std::collections::HashMap;
use std::sync::Arc;

use corbel_proto::aoe::{self, AtaRepr, Code, HeaderPacket, HeaderRepr, Mac, config};
use corbel_proto::ata::Registers;
use corbel_proto::ata::command::opcode as op;
use corbel_proto::memory::{HeapBuffer, Slice};
use corbel_target::aoe::{Address, AoeServer, Frame, Options, PortId, ShelfMap, Slot};
use corbel_target::ata::{Acknowledge, Disk};
use corbel_target::host::BlockToken;
use corbel_target::volume::engine::{Engine, Owner};
use corbel_target::volume::{self, Volume};

use super::host::{ERRORS, FuzzHost, Store, volume};
use super::script::Script;

const SIZE_BYTES: u64 = 2 << 20;
const PORTS: u16 = 2;
const MTUS: [u32; 4] = [1500, 9000, 576, 4200];
const ADDRESSES: [(u16, u8); 4] = [(7, 1), (7, 2), (9, 0), (0xffff, 0xff)];
const STEPS_MAX: usize = 400;

/// ATA commands, each with the command byte before it as likely as after.
const COMMANDS: [u8; 16] = [
    op::READ_SECTORS_EXT,
    op::WRITE_SECTORS_EXT,
    op::READ_SECTORS,
    op::WRITE_SECTORS,
    op::FLUSH_CACHE_EXT,
    op::IDENTIFY_DEVICE,
    op::DATA_SET_MANAGEMENT,
    op::READ_VERIFY_SECTORS_EXT,
    op::SMART,
    op::SET_FEATURES,
    op::CHECK_POWER_MODE,
    op::STANDBY_IMMEDIATE,
    op::READ_DMA_EXT,
    op::WRITE_DMA_EXT,
    op::IDLE_IMMEDIATE,
    0xff,
];

struct Bench {
    server: AoeServer<HeapBuffer>,
    engine: Engine<HeapBuffer>,
    host: FuzzHost,
    store: Store,
    volume: Arc<Volume>,
    slots: Vec<Arc<Slot>>,
    mtus: [Option<u32>; PORTS as usize],
    /// Replies that may still come, by tag.
    owed: HashMap<u32, usize>,
}

/// See the head of this file.
pub(super) fn aoe_server(input: &[u8]) {
    let mut script = Script::new(input);
    let mut bench = Bench::new(script.u8());
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
        bench.collect();
    }
    bench.end();
}

fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn own(port: PortId) -> Mac {
    mac(0xa0 + port.0.to_le_bytes()[0])
}

fn slot(volume: &Arc<Volume>, (shelf, slot): (u16, u8), allow: Vec<Mac>) -> Arc<Slot> {
    let address = Address::new(shelf, slot).expect("no broadcast");
    let acknowledge = if slot == 2 { Acknowledge::Cached } else { Acknowledge::Stable };
    Arc::new(Slot::new(address, Disk::new(volume.clone(), acknowledge), allow))
}

impl Bench {
    fn new(mode: u8) -> Self {
        let read_only = mode & 1 == 1;
        let options = volume::Options { read_only, ..volume::Options::default() };
        let volume = Arc::new(volume(SIZE_BYTES, options));
        let outstanding_max = if mode & 2 == 2 { 8 } else { 4096 };
        let slots = vec![
            slot(&volume, ADDRESSES[0], vec![]),
            slot(&volume, ADDRESSES[1], vec![mac(1), mac(3)]),
            slot(&volume, ADDRESSES[2], vec![]),
        ];
        let mut bench = Self {
            server: AoeServer::new(Options { outstanding_max, ..Options::default() }),
            engine: Engine::default(),
            host: FuzzHost::new(0, 1, 1 << 20, SIZE_BYTES),
            store: Store::default(),
            volume,
            slots,
            mtus: [None; 2],
            owed: HashMap::new(),
        };
        bench.set_map(0xff);
        for port in 0..PORTS {
            bench.port_up(PortId(port), MTUS[usize::from(port)]);
        }
        bench
    }

    /// Serves the slots of `mask`'s bits, three on each port.
    fn set_map(&mut self, mask: u8) {
        let places = (0..PORTS).flat_map(|port| self.slots.iter().map(move |s| (port, s.clone())));
        let chosen = places.zip(0..).filter(|(_, bit)| mask >> bit & 1 == 1);
        let entries = chosen.map(|((port, slot), _)| (PortId(port), slot)).collect();
        self.server.set_map(&Arc::new(ShelfMap::new(entries).expect("all addresses differ")));
    }

    fn port_up(&mut self, port: PortId, mtu: u32) {
        self.server.port_up(port, own(port), mtu);
        self.mtus[usize::from(port.0)] = Some(mtu);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.u8();
        let port = PortId(u16::from(operation >> 7));
        match operation & 15 {
            0 => {
                let len = usize::from(script.u8());
                self.deliver(port, script.bytes(len).to_vec());
            }
            1..=4 => self.ata(port, script),
            5..=6 => self.query(port, script),
            7 => match operation >> 4 & 3 {
                0 => {
                    self.server.port_down(port);
                    self.mtus[usize::from(port.0)] = None;
                }
                1 => self.port_up(port, MTUS[script.index(4)]),
                2 => {
                    let mtu = MTUS[script.index(4)];
                    self.server.mtu(port, mtu);
                    self.mtus[usize::from(port.0)].replace(mtu).is_none().then(|| {
                        // A port that is down stays so.
                        self.mtus[usize::from(port.0)] = None;
                    });
                }
                _ => self.announce(port),
            },
            8 => self.persisted(script.u8()),
            9 => self.set_map(script.u8()),
            10 => self.reconfigure(script.u8()),
            _ => {
                let choice = script.u8();
                let error = (script.u8() < 16).then(|| ERRORS[usize::from(choice >> 6)]);
                self.block_done(usize::from(choice & 0x3f), error.map_or(Ok(()), Err));
            }
        }
    }

    fn deliver(&mut self, port: PortId, frame: Vec<u8>) {
        if let Ok(packet) = HeaderPacket::new_checked(&frame[..]) {
            // A broadcast is answered by every slot on the port.
            *self.owed.entry(packet.tag()).or_default() += self.slots.len();
        }
        let frame = Slice::whole(HeapBuffer::from_vec(frame));
        self.server.frame(port, &frame, &mut self.host, &mut self.engine);
    }

    fn header(port: PortId, code: Code, script: &mut Script<'_>) -> HeaderRepr {
        let (to, from) = (script.u8(), script.u8());
        let (shelf, slot) = ADDRESSES[usize::from(to & 3)];
        HeaderRepr {
            destination: if to & 4 == 4 { Mac::BROADCAST } else { own(port) },
            source: mac(1 + from % 4),
            version: if from == 0xff { 2 } else { 1 },
            response: from == 0xfe,
            error: None,
            shelf,
            slot,
            code,
            tag: u32::from(from) << 8 | 1,
        }
    }

    fn ata(&mut self, port: PortId, script: &mut Script<'_>) {
        let header = Self::header(port, Code::Ata, script);
        let (command, count, lba) = (script.u8(), script.u8(), script.u16());
        let write = count & 0x20 == 0x20;
        let count = count & 0x1f;
        // Most of the disk, and a little beyond its end.
        let lba = u64::from(lba) % (SIZE_BYTES / 512 + 16);
        let registers = Registers {
            feature_error: command >> 4,
            count,
            command_status: COMMANDS[usize::from(command & 15)],
            ..Registers::default()
        };
        let ata = AtaRepr {
            extended: true,
            device: false,
            asynchronous: false,
            write,
            registers: registers.with_lba(lba),
        };
        let mut frame = emitted(&header, aoe::ATA_DATA_OFFSET);
        ata.emit(&mut frame[aoe::HEADER_BYTES..]);
        let sectors = if write { usize::from(count) } else { 0 };
        frame.extend(vec![command; sectors * aoe::SECTOR_BYTES]);
        let head = script.bytes(usize::from(command >> 5));
        let data = &mut frame[aoe::ATA_DATA_OFFSET..];
        let len = head.len().min(data.len());
        data[..len].copy_from_slice(&head[..len]);
        self.deliver(port, frame);
    }

    /// Query Config, MAC Mask and Reserve: the fields as they should be, with any lists.
    fn query(&mut self, port: PortId, script: &mut Script<'_>) {
        let (what, count) = (script.u8(), script.u8());
        let code =
            [Code::Config, Code::Mask, Code::Reserve, Code::Other(0xf0)][usize::from(what & 3)];
        let header = Self::header(port, code, script);
        let mut frame = emitted(&header, aoe::HEADER_BYTES);
        let macs = usize::from(count % 8);
        match code {
            Code::Config => {
                let command = config::Command::from(what >> 4);
                let long = vec![b'x'; 1024];
                let string =
                    if count == 0xff { &long[..] } else { script.bytes(usize::from(count & 15)) };
                let repr =
                    aoe::ConfigRepr { buffer_count: 0, firmware: 0, sectors: 0, command, string };
                frame.resize(frame.len() + repr.buffer_len(), 0);
                repr.emit(&mut frame[aoe::HEADER_BYTES..]);
            }
            Code::Mask => {
                frame.extend([0, what >> 4 & 3, 0, count % 8]);
                for _ in 0..macs {
                    let directive = script.u8();
                    frame.extend([0, directive & 3]);
                    frame.extend(mac(directive >> 2 & 7).0);
                }
            }
            _ => {
                frame.extend([what >> 4 & 3, count % 8, 0, 0]);
                (0..macs).for_each(|_| frame.extend(mac(script.u8() & 7).0));
            }
        }
        self.deliver(port, frame);
    }

    fn announce(&mut self, port: PortId) {
        self.server.announce(port);
    }

    fn persisted(&mut self, choice: u8) {
        if !self.host.persists.is_empty() {
            let index = usize::from(choice >> 1) % self.host.persists.len();
            let (name, bytes, token) = self.host.persists.remove(index);
            let slot = self.slots.iter().find(|slot| slot.state_name() == name);
            let address = slot.expect("a slot's own file").address();
            // What is written must be what a later life can read.
            super::wire::restores(&self.volume, address, &bytes);
            self.server.persisted(token, choice & 1 == 0);
        }
    }

    fn reconfigure(&mut self, choice: u8) {
        let at = usize::from(choice) % self.slots.len();
        let disk = Disk::new(self.volume.clone(), Acknowledge::Stable);
        let allow = if choice & 0x80 == 0 { vec![] } else { vec![mac(1)] };
        self.slots[at] = Arc::new(self.slots[at].reconfigured(disk, allow));
        self.set_map(0xff);
    }

    fn block_done(&mut self, index: usize, result: Result<(), corbel_target::host::BlockError>) {
        if self.host.blocks.is_empty() {
            return;
        }
        let index = index % self.host.blocks.len();
        let (token, result, data) = self.host.complete(index, result, &mut self.store);
        self.engine.block_done(&mut self.host, token, result, data);
    }

    fn collect(&mut self) {
        loop {
            self.engine.tick(&mut self.host);
            while let Some((owner, outcome)) = self.engine.poll() {
                let Owner::Aoe(tag) = owner else { panic!("AoE submits as AoE") };
                self.server.complete(tag, outcome);
            }
            while let Some(frame) = self.server.poll_transmit() {
                self.check(&frame);
            }
            // What the store lent has left with the frames.
            let returned = self.host.returned.take();
            if returned.is_empty() {
                return;
            }
            for tag in returned {
                self.engine.returned(&mut self.host, BlockToken(tag));
            }
        }
    }

    fn check(&mut self, frame: &Frame<HeapBuffer>) {
        let mut bytes = [frame.header(), &frame.body[..]].concat();
        for slice in &frame.payload {
            bytes.extend_from_slice(&slice.buffer.sent()[slice.range()]);
        }
        let packet = HeaderPacket::new_checked(&bytes[..]).expect("what we send can be read");
        let header = HeaderRepr::parse(&packet);
        let mtu =
            self.mtus[usize::from(frame.port.0)].expect("nothing leaves by a port that is down");
        // A read was measured by the MTU of its time.
        let mtu = if frame.payload.is_empty() { mtu } else { 9000 };
        assert!(bytes.len() <= 14 + mtu as usize, "{} bytes on an MTU of {mtu}", bytes.len());
        assert!(header.response && header.source == own(frame.port), "{header:?}");
        assert!(ADDRESSES[..3].contains(&(header.shelf, header.slot)), "{header:?}");
        if header.tag != 0 {
            let owed = self.owed.get_mut(&header.tag).filter(|owed| **owed > 0);
            *owed.unwrap_or_else(|| panic!("nobody asked for {header:?}")) -= 1;
        }
    }

    fn end(&mut self) {
        while !self.host.blocks.is_empty() {
            self.block_done(0, Ok(()));
            self.collect();
        }
        while !self.host.persists.is_empty() {
            self.persisted(0);
            self.collect();
        }
        assert_eq!(self.engine.in_flight() + self.server.in_flight(), 0, "a command hangs");
        assert_eq!(self.volume.ranges.len(), 0, "a range is still locked");
        assert_eq!(self.host.arena.in_use(), 0, "memory is still lent");
        // Whatever happened, there is room for a question and its answer.
        self.slots.push(slot(&self.volume, (11, 1), vec![]));
        self.set_map(0xff);
        for port in 0..PORTS {
            let port = PortId(port);
            self.port_up(port, 1500);
            let query = aoe::initiator::discover::query(mac(1), 11, 1, 77);
            let frame = Slice::whole(HeapBuffer::from_vec(query.to_vec()));
            self.server.frame(port, &frame, &mut self.host, &mut self.engine);
            let answer = self.server.poll_transmit();
            assert!(answer.is_some(), "port {port:?} no longer answers");
        }
    }
}

fn emitted(header: &HeaderRepr, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    header.emit(&mut HeaderPacket::new_unwritten(&mut frame[..aoe::HEADER_BYTES]));
    frame
}
