//! One shard's share of the AoE server.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use corbel_proto::aoe::{
    ATA_DATA_OFFSET, AtaPacket, AtaRepr, Code, Error, HeaderPacket, HeaderRepr, Mac,
    SHELF_BROADCAST, SLOT_BROADCAST, VERSION, sectors_fitting,
};
use corbel_proto::memory::{Buffer, Segments, Slice};
use corbel_proto::table::ShortKeyMap;
use slab::Slab;

use super::fence::Fence;
use super::local::{Local, Stats};
use super::{Address, Frame, PortId, ShelfMap};
use crate::ata::{Execution, Finished, Pending};
use crate::host::{Host, ShardId};
use crate::reservation::Access;
use crate::volume::engine::{Engine, Owner};
use crate::volume::{Kind, Outcome, Request};

/// Who performs requests: the engine, or a test. The outcome comes back through
/// [`AoeServer::complete`] with the number in [`Owner::Aoe`].
pub trait Submit<B, H> {
    /// Takes on a request.
    fn submit(&mut self, host: &mut H, owner: Owner, request: Request<B>);
}

impl<B: Buffer, H: Host<Memory = B, Buf = B>> Submit<B, H> for Engine<B> {
    fn submit(&mut self, host: &mut H, owner: Owner, request: Request<B>) {
        Self::submit(self, host, owner, request);
    }
}

/// How this server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Outstanding messages that each client is told it may have. Linux opens its window no
    /// further, starts with half of it, and never comes up with less than 2.
    pub buffer_count: u16,
    /// Firmware version in config replies.
    pub firmware: u16,
    /// Commands in work and replies not yet taken, on one port. More are dropped and counted.
    pub outstanding_max: u32,
    /// Commands in work for one slot. More are dropped and counted, so that clients which repeat
    /// what a device that hangs does not answer leave room for those of other devices.
    pub slot_outstanding_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffer_count: 128,
            firmware: 0x0001,
            outstanding_max: 4096,
            slot_outstanding_max: 1024,
        }
    }
}

/// Frames that came to nothing, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Not AoE, or shorter than their fields.
    pub malformed: u64,
    /// Responses, as every target on a shared segment hears them.
    pub responses: u64,
    /// For another station, shelf or slot.
    pub not_ours: u64,
    /// Broadcast commands that must not be.
    pub broadcast_refused: u64,
    /// Dropped because too much was outstanding.
    pub overflow: u64,
    /// Replies without a port to leave by.
    pub lost_port: u64,
}

#[derive(Debug)]
pub(super) struct Port {
    pub(super) mac: Mac,
    pub(super) mtu: u32,
}

/// A command in the engine.
#[derive(Debug)]
pub(super) struct InFlight {
    port: PortId,
    pub(super) local: Rc<Local>,
    pub(super) header: HeaderRepr,
    ata: AtaRepr,
    pending: Pending,
    write_bytes: u64,
}

/// AoE on one shard. Frames and completions go in, requests and frames come out; call
/// [`Self::poll_transmit`] until it is empty after anything else.
#[derive(Debug)]
pub struct AoeServer<B> {
    pub(super) options: Options,
    pub(super) counters: Counters,
    ports: ShortKeyMap<PortId, Port>,
    /// Commands in work and frames in `transmit`, by port.
    outstanding: ShortKeyMap<PortId, u32>,
    by_address: ShortKeyMap<(PortId, u16, u8), Rc<Local>>,
    /// The same, sorted, for broadcasts.
    in_order: Vec<(PortId, Rc<Local>)>,
    pub(super) in_flight: Slab<InFlight>,
    pub(super) fences: Vec<Fence>,
    /// Shards that have waited long enough.
    pub(super) fenced: VecDeque<(ShardId, u64)>,
    pub(super) changes: Slab<super::commands::Change>,
    transmit: VecDeque<Frame<B>>,
}

impl<B: Buffer> AoeServer<B> {
    /// A server without ports or slots.
    pub fn new(options: Options) -> Self {
        let options = Options { buffer_count: options.buffer_count.max(2), ..options };
        Self {
            options,
            counters: Counters::default(),
            ports: ShortKeyMap::default(),
            outstanding: ShortKeyMap::default(),
            by_address: ShortKeyMap::default(),
            in_order: Vec::new(),
            in_flight: Slab::new(),
            fences: Vec::new(),
            fenced: VecDeque::new(),
            changes: Slab::new(),
            transmit: VecDeque::new(),
        }
    }

    /// From now on these slots are served. Addresses that stay keep their figures; commands of
    /// slots that go are finished and answered.
    pub fn set_map(&mut self, map: &Arc<ShelfMap>) {
        let mut known: HashMap<*const super::Slot, Rc<Local>> = HashMap::new();
        let mut figures: HashMap<Address, Stats> = HashMap::new();
        for (_, local) in self.in_order.drain(..) {
            figures.insert(local.slot.address(), local.stats());
            known.insert(Arc::as_ptr(&local.slot), local);
        }
        self.by_address.clear();
        for (port, slot) in map.entries() {
            let before = figures.get(&slot.address()).copied().unwrap_or_default();
            let fresh = || Rc::new(Local::new(slot.clone(), before));
            let local = known.entry(Arc::as_ptr(slot)).or_insert_with(fresh).clone();
            let key = (*port, slot.address().shelf(), slot.address().slot());
            self.by_address.insert(key, local.clone());
            self.in_order.push((*port, local));
        }
    }

    /// A port is there, with this address and MTU (bytes), or has changed them. Announcing is the
    /// caller's to order, on one shard.
    pub fn port_up(&mut self, port: PortId, mac: Mac, mtu: u32) {
        self.ports.insert(port, Port { mac, mtu });
    }

    /// A port's MTU changed.
    pub fn mtu(&mut self, port: PortId, mtu: u32) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.mtu = mtu;
        }
    }

    /// A port is gone. What waits to leave by it is dropped; clients have other paths or repeat.
    pub fn port_down(&mut self, port: PortId) {
        self.ports.remove(&port);
        let before = self.transmit.len();
        self.transmit.retain(|frame| frame.port != port);
        let lost = before - self.transmit.len();
        self.counters.lost_port += lost as u64;
        for _ in 0..lost {
            self.release(port);
        }
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Frame<B>> {
        let frame = self.transmit.pop_front()?;
        self.release(frame.port);
        Some(frame)
    }

    /// Commands in the engine.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Frames that came to nothing.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What this shard did for each slot. A slot on several ports comes once.
    pub fn stats(&self) -> Vec<(Address, Stats)> {
        let mut seen = std::collections::HashSet::new();
        let mine = self.in_order.iter().map(|(_, local)| local);
        mine.filter(|local| seen.insert(Rc::as_ptr(local)))
            .map(|local| (local.slot.address(), local.stats()))
            .collect()
    }

    /// A frame came in on `port`, `frame` covering it from the destination address on. The data
    /// of a write are handed on from where they lie.
    pub fn frame<H: Host<Memory = B, Buf = B>>(
        &mut self,
        port: PortId,
        frame: &Slice<B>,
        host: &mut H,
        engine: &mut impl Submit<B, H>,
    ) {
        let Ok(packet) = HeaderPacket::new_checked(frame.bytes()) else {
            self.counters.malformed += 1;
            return;
        };
        let header = HeaderRepr::parse(&packet);
        if header.response {
            self.counters.responses += 1;
            return;
        }
        let Some(own) = self.ports.get(&port).map(|port| port.mac) else {
            self.counters.lost_port += 1;
            return;
        };
        let to_group = header.destination.0[0] & 1 == 1;
        let from_group = header.source.0[0] & 1 == 1;
        if from_group || !(to_group || header.destination == own) {
            self.counters.not_ours += 1;
            return;
        }
        if header.shelf == SHELF_BROADCAST || header.slot == SLOT_BROADCAST {
            return self.broadcast(port, &header, packet.argument());
        }
        let Some(local) = self.by_address.get(&(port, header.shelf, header.slot)).cloned() else {
            self.counters.not_ours += 1;
            return;
        };
        if !local.admits(header.source) {
            return local.count(|s| s.shut_out += 1);
        }
        if header.version != VERSION {
            return self.refuse(port, &local, &header, Error::UnsupportedVersion);
        }
        match header.code {
            Code::Ata => self.ata(port, local, header, frame, host, engine),
            Code::Config => self.config(port, &local, &header, packet.argument(), host),
            Code::Mask => self.mask(port, &local, &header, packet.argument(), host),
            Code::Reserve => self.reserve(port, &local, &header, packet.argument(), host),
            Code::Other(_) => self.refuse(port, &local, &header, Error::UnrecognizedCommand),
        }
    }

    /// A question to more than one slot. Only questions: see the head of this folder.
    fn broadcast(&mut self, port: PortId, header: &HeaderRepr, argument: &[u8]) {
        if header.version != VERSION || !super::commands::is_question(header.code, argument) {
            self.counters.broadcast_refused += 1;
            return;
        }
        for local in self.on_port(port) {
            let address = local.slot.address();
            let shelf = header.shelf == SHELF_BROADCAST || header.shelf == address.shelf();
            let slot = header.slot == SLOT_BROADCAST || header.slot == address.slot();
            if !(shelf && slot) {
                continue;
            }
            if local.admits(header.source) {
                self.answer_question(port, &local, header, argument);
            } else {
                local.count(|s| s.shut_out += 1);
            }
        }
    }

    /// The slots on a port, by address.
    pub(super) fn on_port(&self, port: PortId) -> Vec<Rc<Local>> {
        let start = self.in_order.partition_point(|(p, _)| *p < port);
        let end = self.in_order.partition_point(|(p, _)| *p <= port);
        self.in_order[start..end].iter().map(|(_, local)| local.clone()).collect()
    }

    fn ata<H: Host<Memory = B, Buf = B>>(
        &mut self,
        port: PortId,
        local: Rc<Local>,
        header: HeaderRepr,
        frame: &Slice<B>,
        host: &mut H,
        engine: &mut impl Submit<B, H>,
    ) {
        let argument = &frame.bytes()[corbel_proto::aoe::HEADER_BYTES..];
        let Ok(packet) = AtaPacket::new_checked(argument) else {
            return self.refuse(port, &local, &header, Error::BadArgument);
        };
        let ata = AtaRepr::parse(&packet);
        // IDENTIFY stays open to all, so that clients find a reserved target and its name.
        let identify = corbel_proto::ata::command::opcode::IDENTIFY_DEVICE;
        let exempt = ata.registers.command_status == identify;
        if !exempt && local.reserved_against(header.source) {
            local.count(|s| s.conflicts += 1);
            return self.refuse(port, &local, &header, Error::TargetReserved);
        }
        if local.in_flight() >= self.options.slot_outstanding_max {
            self.counters.overflow += 1;
            return;
        }
        if !self.has_room(port) {
            return;
        }
        let start = u32::try_from(ATA_DATA_OFFSET).expect("a small constant");
        let payload = frame.sub(start, frame.len - start);
        let sectors_max = self.ports.get(&port).map_or(0, |port| sectors_fitting(port.mtu));
        match local.slot.disk().execute(ata.registers, &payload, sectors_max) {
            Execution::BadFrame => self.refuse(port, &local, &header, Error::BadArgument),
            Execution::Respond { registers, data } => {
                let failed = corbel_proto::ata::Fault::from_registers(&registers).is_some();
                local.count(|s| if failed { s.faults += 1 } else { s.others += 1 });
                let body = data.map_or_else(Vec::new, |data| data.to_vec());
                let ata = AtaRepr { registers, ..ata };
                self.reply_ata(port, &local, &header, &ata, body, Segments::new());
            }
            Execution::Request(request, pending) => {
                // Initiators that SCSI reserved the volume for are never AoE clients.
                let outsiders = request.volume.reservations.outsiders();
                let reads = matches!(request.kind, Kind::Read { .. } | Kind::Verify { .. });
                if !outsiders.allow(if reads { Access::Reads } else { Access::Changes }) {
                    local.count(|s| s.conflicts += 1);
                    return self.refuse(port, &local, &header, Error::TargetReserved);
                }
                let write_bytes = match &request.kind {
                    Kind::Write { .. } => u64::from(payload.len),
                    _ => 0,
                };
                local.began();
                let command = InFlight { port, local, header, ata, pending, write_bytes };
                let tag = self.in_flight.insert(command) as u64;
                *self.outstanding.entry(port).or_default() += 1;
                engine.submit(host, Owner::Aoe(tag), request);
            }
        }
    }

    /// The outcome of a request that was submitted with `tag`.
    pub fn complete(&mut self, tag: u64, outcome: Outcome<B>) {
        let known = usize::try_from(tag).ok().and_then(|key| self.in_flight.try_remove(key));
        let command = known.expect("the engine answers each request once");
        let InFlight { port, local, header, ata, pending, write_bytes } = command;
        self.release(port);
        local.ended();
        let Finished { registers, data, fault } = pending.finish(outcome);
        let read_bytes: u64 = data.iter().map(|slice| u64::from(slice.len)).sum();
        local.count(|s| match (fault, read_bytes, write_bytes) {
            (Some(_), ..) => s.faults += 1,
            (None, 0, 0) => s.others += 1,
            (None, 0, _) => (s.writes, s.write_bytes) = (s.writes + 1, s.write_bytes + write_bytes),
            (None, ..) => (s.reads, s.read_bytes) = (s.reads + 1, s.read_bytes + read_bytes),
        });
        let ata = AtaRepr { registers, ..ata };
        self.reply_ata(port, &local, &header, &ata, Vec::new(), data);
        if !self.fences.is_empty() {
            self.passed(tag);
        }
    }

    fn reply_ata(
        &mut self,
        port: PortId,
        local: &Local,
        header: &HeaderRepr,
        ata: &AtaRepr,
        body: Vec<u8>,
        payload: Segments<B>,
    ) {
        let Some(reply) = self.reply_header(port, local, header, None) else { return };
        self.send(Frame::ata(port, &reply, ata, body, payload));
    }

    /// The header of a reply, if its port is still there.
    pub(super) fn reply_header(
        &mut self,
        port: PortId,
        local: &Local,
        request: &HeaderRepr,
        error: Option<Error>,
    ) -> Option<HeaderRepr> {
        let Some(Port { mac, .. }) = self.ports.get(&port) else {
            self.counters.lost_port += 1;
            return None;
        };
        let address = local.slot.address();
        Some(request.reply(*mac, address.shelf(), address.slot(), error))
    }

    /// Answers with an AoE error.
    pub(super) fn refuse(
        &mut self,
        port: PortId,
        local: &Local,
        request: &HeaderRepr,
        error: Error,
    ) {
        local.count(|s| s.refused += 1);
        let Some(reply) = self.reply_header(port, local, request, Some(error)) else { return };
        self.send(Frame::plain(port, &reply, Vec::new()));
    }

    /// Queues a frame, or drops it if too much is queued already.
    pub(super) fn send(&mut self, frame: Frame<B>) {
        if self.has_room(frame.port) {
            *self.outstanding.entry(frame.port).or_default() += 1;
            self.transmit.push_back(frame);
        }
    }

    pub(super) fn port_mtu(&self, port: PortId) -> Option<(Mac, u32)> {
        self.ports.get(&port).map(|port| (port.mac, port.mtu))
    }

    /// Is there room for one more on this port? If not, that is counted.
    fn has_room(&mut self, port: PortId) -> bool {
        let outstanding = self.outstanding.get(&port).copied().unwrap_or(0);
        let room = outstanding < self.options.outstanding_max;
        self.counters.overflow += u64::from(!room);
        room
    }

    fn release(&mut self, port: PortId) {
        if let Some(outstanding) = self.outstanding.get_mut(&port) {
            *outstanding -= 1;
        }
    }
}
