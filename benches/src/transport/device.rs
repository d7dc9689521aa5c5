//! A block device or a file of this machine, by io_uring and without the page cache where it can
//! do without. Whatever presents a block device can so be compared: ublk, the kernel's AoE
//! initiator, dm-multipath.

use std::sync::Arc;

use corbel_proto::memory::Slice;
use corbel_proto::time::{Duration, Instant};
use corbel_ring::{Buf, Completion, Event, Failure, File, Op, Reactor, Store};

use super::{Durable, Ended, Shape, Transport, noise, pieces, reactor};

/// Payload memory beyond what is under way.
const SPARE_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Slot {
    /// Its memory, in pieces; those under way are absent.
    memory: Vec<Option<Slice<Buf>>>,
    left: u32,
    failure: Option<String>,
}

/// See the module.
pub(super) struct Local {
    reactor: Reactor,
    file: File,
    slots: Vec<Slot>,
    done: Vec<Completion>,
    /// Writes are on stable storage when they end.
    durable: bool,
}

impl Local {
    pub(super) fn open(store: Arc<Store>, shape: Shape) -> Result<Self, String> {
        // Memory is lent in powers of two.
        let each = pieces(shape.io_bytes).map(|len| len.next_power_of_two() as usize);
        let bytes = each.sum::<usize>() * shape.slots as usize + SPARE_BYTES;
        let mut reactor = reactor(bytes, false, shape)?;
        let file = reactor.attach_store(store);
        let arena = reactor.arena();
        let slot = |_| {
            let piece = |len: u32| {
                let mut piece = Slice::whole(arena.lend(len as usize).ok_or("no payload memory")?);
                noise(piece.bytes_mut());
                Ok(Some(piece))
            };
            let memory = pieces(shape.io_bytes).map(piece).collect::<Result<_, String>>()?;
            Ok(Slot { memory, left: 0, failure: None })
        };
        let slots = (0..shape.slots).map(slot).collect::<Result<_, String>>()?;
        let durable = shape.durable != Durable::AsAnswered;
        Ok(Self { reactor, file, slots, done: Vec::with_capacity(64), durable })
    }

    /// One piece of a request has ended.
    fn end(
        &mut self,
        tag: u64,
        data: Slice<Buf>,
        result: Result<u32, Failure>,
        ended: &mut Vec<Ended>,
    ) {
        let number = u32::try_from(tag >> 32).expect("32 bits");
        let piece = usize::try_from(tag & 0xffff_ffff).expect("32 bits");
        let slot = &mut self.slots[number as usize];
        match result {
            Ok(bytes) if bytes == data.len => {}
            Ok(bytes) => slot.failure = Some(format!("{bytes} bytes instead of {}", data.len)),
            Err(failure) => slot.failure = Some(failure.to_string()),
        }
        slot.memory[piece] = Some(data);
        slot.left -= 1;
        if slot.left == 0 {
            let result = slot.failure.take().map_or(Ok(()), Err);
            ended.push(Ended { slot: number, result });
        }
    }
}

impl Transport for Local {
    fn submit(
        &mut self,
        _now: Instant,
        slot: u32,
        write: bool,
        mut offset: u64,
        told: Option<&[u8]>,
    ) {
        let (file, durable) = (self.file, self.durable);
        let at = &mut self.slots[slot as usize];
        let mut rest = told;
        for (piece, memory) in (0_u64..).zip(&mut at.memory) {
            let mut data = memory.take().expect("the slot is free");
            let len = data.len;
            if let Some(told) = rest {
                let (these, others) = told.split_at(len as usize);
                data.bytes_mut().copy_from_slice(these);
                rest = Some(others);
            }
            let op = if write {
                Op::Write { file, offset, data, durable }
            } else {
                Op::Read { file, offset, data }
            };
            self.reactor.submit(op, u64::from(slot) << 32 | piece);
            offset += u64::from(len);
            at.left += 1;
        }
    }

    fn turn(&mut self, wait: Duration, ended: &mut Vec<Ended>) -> Result<(), String> {
        let mut done = std::mem::take(&mut self.done);
        self.reactor.turn(Some(wait), &mut done).map_err(|error| error.to_string())?;
        for completion in done.drain(..) {
            if let Event::Read { data, result } | Event::Written { data, result } = completion.event
            {
                self.end(completion.tag, data, result, ended);
            }
        }
        self.done = done;
        Ok(())
    }

    fn fetch(&self, slot: u32, mut into: &mut [u8]) {
        for piece in &self.slots[slot as usize].memory {
            let piece = piece.as_ref().expect("its request has ended");
            let (here, rest) = into.split_at_mut(piece.len as usize);
            here.copy_from_slice(piece.bytes());
            into = rest;
        }
    }

    fn repeated(&self) -> u64 {
        0
    }

    fn leave(&mut self) {
        self.reactor.close(self.file);
    }
}
