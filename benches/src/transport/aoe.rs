//! AoE: one path on a raw Ethernet port. A request that is longer than a frame is several
//! commands.

use corbel_initiator::blocking::aoe::random_tag;
use corbel_proto::aoe::initiator::discover::Found;
use corbel_proto::aoe::initiator::{
    CommandId, Completion as Outcome, Config, Operation, Path, Timeouts,
};
use corbel_proto::aoe::{ATA_DATA_OFFSET, ETHERTYPE, Mac, SECTOR_BYTES, sectors_fitting};
use corbel_proto::memory::Slice;
use corbel_proto::time::{Duration, Instant};
use corbel_ring::packet::{Port, PortConfig};
use corbel_ring::{Arena, Buf, Completion, File, Op, Reactor};

use super::{Ended, Shape, Transport, noise, reactor};
use crate::cpu::now;

/// Frames that the receive ring holds: more than any window of replies.
const RING_FRAMES: usize = 2048;
/// Payload memory beyond what is under way.
const SPARE_BYTES: usize = 1 << 20;
/// A command without an answer for so long has failed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

const READABLE: u64 = 1;
const SENT: u64 = 2;

#[derive(Debug)]
struct Slot {
    /// What is read and told.
    memory: Vec<u8>,
    /// Commands under way.
    left: u32,
    failure: Option<String>,
}

/// See the module.
pub(super) struct Aoe {
    reactor: Reactor,
    arena: Arena,
    port: Port,
    file: File,
    path: Path<Slice<Buf>>,
    shape: Shape,
    /// Bytes of a command, at most.
    frame_bytes: u32,
    /// What every write writes.
    same: Slice<Buf>,
    slots: Vec<Slot>,
    done: Vec<Completion>,
    ready: bool,
}

impl Aoe {
    pub(super) fn open(interface: &str, found: &Found, shape: Shape) -> Result<Self, String> {
        let under_way = shape.slots as usize * shape.io_bytes as usize;
        let mut reactor =
            reactor(if shape.verify { under_way * 2 } else { 0 } + SPARE_BYTES, false, shape)?;
        let config = PortConfig {
            ethertype: ETHERTYPE,
            payload_offset: ATA_DATA_OFFSET,
            frames: RING_FRAMES,
            share: None,
        };
        let port = Port::open(interface, config).map_err(|error| error.to_string())?;
        let file = reactor.attach_port(&port).map_err(|error| error.to_string())?;
        reactor.watch(file, &port, READABLE);
        let fitting = u8::try_from(sectors_fitting(port.interface().mtu)).unwrap_or(u8::MAX);
        let sectors_max = found.sectors.min(fitting).max(1);
        let path = Path::new(Config {
            local: Mac(port.interface().mac),
            remote: found.remote,
            shelf: found.shelf,
            slot: found.slot,
            sectors_max,
            window_max: found.buffer_count.max(1),
            give_up_after: GIVE_UP_AFTER,
            timeouts: Timeouts::DEFAULT,
            first_tag: random_tag(),
        });
        let frame_bytes = (u32::from(sectors_max) * 512).min(shape.io_bytes);
        let arena = reactor.arena();
        let mut same = Slice::whole(arena.lend(frame_bytes as usize).ok_or("no payload memory")?);
        noise(same.bytes_mut());
        let kept = if shape.verify { shape.io_bytes as usize } else { 0 };
        let slot = |_| Slot { memory: vec![0; kept], left: 0, failure: None };
        Ok(Self {
            arena,
            port,
            file,
            path,
            frame_bytes,
            same,
            slots: (0..shape.slots).map(slot).collect(),
            done: Vec::with_capacity(64),
            ready: true,
            shape,
            reactor,
        })
    }

    fn pump(&mut self, now: Instant) {
        while let Some(frame) = self.path.poll_transmit(now) {
            let mut message = self.reactor.message();
            message.bytes(&frame.head);
            if let Some(data) = frame.data {
                message.payload(data.clone());
            }
            message.frame();
            self.reactor.submit(Op::Send { file: self.file, message }, SENT);
        }
    }

    /// Everything that lies in the receive ring.
    fn receive(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        while self.ready {
            let Some(frame) = self.port.receive(&self.arena) else {
                self.ready = self.port.next_time().is_some();
                return;
            };
            if let Some(outcome) = self.path.handle_frame(now, frame.bytes()) {
                end(&mut self.slots, self.shape.verify, self.frame_bytes, outcome, ended);
            }
        }
    }

    fn memory(&self, data: &[u8]) -> Slice<Buf> {
        // The arena holds all slots twice: once as told, once in frames not yet sent.
        let mut slice =
            Slice::whole(self.arena.lend(data.len()).expect("the arena is large enough"));
        slice.bytes_mut().copy_from_slice(data);
        slice
    }
}

/// One command of a request has ended.
fn end(
    slots: &mut [Slot],
    verify: bool,
    frame_bytes: u32,
    outcome: Outcome<'_, Slice<Buf>>,
    ended: &mut Vec<Ended>,
) {
    let part = usize::try_from(outcome.id.0 & 0xffff_ffff).expect("32 bits");
    let number = u32::try_from(outcome.id.0 >> 32).expect("32 bits");
    let slot = &mut slots[number as usize];
    match outcome.result {
        Ok(data) if verify && !data.is_empty() => {
            let at = part * frame_bytes as usize;
            let wanted = slot.memory.len().min(at + frame_bytes as usize) - at;
            slot.memory[at..at + wanted].copy_from_slice(&data[..wanted]);
        }
        Ok(_) => {}
        Err(failure) => slot.failure = Some(format!("{failure:?}")),
    }
    slot.left -= 1;
    if slot.left == 0 {
        let result = slot.failure.take().map_or(Ok(()), Err);
        ended.push(Ended { slot: number, result });
    }
}

impl Transport for Aoe {
    fn submit(&mut self, now: Instant, slot: u32, write: bool, offset: u64, data: Option<&[u8]>) {
        let (whole, longest) = (self.shape.io_bytes, self.frame_bytes);
        let mut at = 0;
        let mut part = 0;
        while at < whole {
            let bytes = longest.min(whole - at);
            let lba = (offset + u64::from(at)) / SECTOR_BYTES as u64;
            let operation = match (write, data) {
                (false, _) => {
                    let sectors = u8::try_from(bytes / 512).expect("a frame's worth");
                    Operation::Read { lba, sectors }
                }
                (true, None) => Operation::Write { lba, data: self.same.sub(0, bytes) },
                (true, Some(data)) => {
                    let data = self.memory(&data[at as usize..(at + bytes) as usize]);
                    Operation::Write { lba, data }
                }
            };
            self.path.submit(now, CommandId(u64::from(slot) << 32 | part), operation);
            (at, part) = (at + bytes, part + 1);
        }
        self.slots[slot as usize].left = u32::try_from(part).expect("fewer than bytes");
    }

    fn turn(&mut self, wait: Duration, ended: &mut Vec<Ended>) -> Result<(), String> {
        let before = now();
        self.pump(before);
        let due = self.path.poll_timeout().map_or(wait, |due| due.since(before).min(wait));
        let wait = if self.ready { Duration::ZERO } else { due };
        let mut done = std::mem::take(&mut self.done);
        self.reactor.turn(Some(wait), &mut done).map_err(|error| error.to_string())?;
        self.ready |= done.drain(..).any(|completion| completion.tag == READABLE);
        self.done = done;
        let at = now();
        self.receive(at, ended);
        if self.path.poll_timeout().is_some_and(|due| due <= at) {
            self.path.handle_timeout(at);
        }
        while let Some(failed) = self.path.poll_failed() {
            end(&mut self.slots, self.shape.verify, self.frame_bytes, failed, ended);
        }
        Ok(())
    }

    fn fetch(&self, slot: u32, into: &mut [u8]) {
        into.copy_from_slice(&self.slots[slot as usize].memory);
    }

    fn repeated(&self) -> u64 {
        self.path.counters().repeated
    }

    fn leave(&mut self) {
        // AoE knows no sessions.
        self.reactor.close(self.file);
    }
}
