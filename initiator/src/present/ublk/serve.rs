//! Requests out of the driver and their ends back into it, all on one thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use corbel_proto::memory::{Buffer, Slice};
use corbel_ring::{Arena, Buf};

use super::Why;
use super::abi::{self, Descriptor};
use super::pool::Pool;
use super::sys::Queue;
use crate::request::{Extent, Operation, Outcome, Request, RequestId};

/// Bits of a request's number that are its tag's.
const TAG_BITS: u32 = 16;

/// Where a tag is.
#[derive(Debug)]
enum Tag {
    /// With the driver, not yet fetched, or over.
    Away,
    /// With the asker.
    Lent(Lent),
    /// Ended, but there is no memory for the tag's next request.
    Short(Ended),
}

#[derive(Debug)]
struct Lent {
    id: RequestId,
    len: u32,
    /// The tag's memory; `None` for a read, which must have the only handle to it.
    buffer: Option<Buf>,
}

#[derive(Debug)]
struct Ended {
    result: i32,
    /// A read's bytes that did not come in memory of ours.
    data: Option<Slice<Buf>>,
}

/// A device's queue at work.
#[derive(Debug)]
pub(super) struct Serving {
    queue: Queue,
    arena: Arena,
    pool: Option<Pool>,
    io_bytes: u32,
    tags: Vec<Tag>,
    short: VecDeque<u16>,
    sequence: u64,
    /// The driver refused a command: with which errno.
    refused: Option<i32>,
}

impl Serving {
    pub(super) fn new(depth: u16, arena: Arena) -> Result<Self, Why> {
        let queue = Queue::new(depth).map_err(|error| Why::IoUring(error.to_string()))?;
        Ok(Self {
            queue,
            arena,
            pool: None,
            io_bytes: 0,
            tags: Vec::new(),
            short: VecDeque::new(),
            sequence: 0,
            refused: None,
        })
    }

    pub(super) fn ring(&self) -> io::Result<OwnedFd> {
        self.queue.ring()
    }

    /// Fetches every tag of a device, with memory for `depth + spare` requests.
    pub(super) fn open(
        &mut self,
        node: OwnedFd,
        depth: u16,
        spare: u16,
        io_bytes: u32,
    ) -> Result<(), Why> {
        let count = usize::from(depth) + usize::from(spare);
        let pool = Pool::new(self.arena.clone(), io_bytes as usize, count);
        let mut pool = pool.ok_or(Why::NoMemory { count, io_bytes })?;
        self.queue.open(node, depth).map_err(|error| Why::kernel("map descriptors", &error))?;
        self.io_bytes = io_bytes;
        for tag in 0..depth {
            let buffer = pool.take().expect("one for each tag");
            let queued = self.queue.fetch(tag, buffer);
            queued.map_err(|error| Why::kernel("FETCH_REQ", &error))?;
            self.tags.push(Tag::Away);
        }
        self.pool = Some(pool);
        Ok(())
    }

    /// True once the driver holds nothing of ours and we nothing of its.
    pub(super) fn is_over(&self) -> bool {
        self.queue.fetches() == 0 && self.tags.iter().all(|tag| matches!(tag, Tag::Away))
    }

    /// Lets go of the device.
    pub(super) fn close(&mut self) {
        self.queue.close();
        self.pool = None;
    }

    /// The errno with which the driver refused a command, once.
    pub(super) fn refused(&mut self) -> Option<i32> {
        self.refused.take()
    }

    /// Appends the requests that have come.
    pub(super) fn take(&mut self, out: &mut Vec<Request<Buf>>) {
        while let Some(fetched) = self.queue.reap() {
            let (tag, buffer) = (fetched.tag, fetched.buffer);
            let descriptor = match fetched.errno {
                0 => self.queue.descriptor(tag),
                libc::ENODEV => None,
                errno => {
                    tracing::error!(tag, errno, "the driver refuses a command");
                    self.refused = Some(errno);
                    None
                }
            };
            match descriptor {
                Some(descriptor) => self.request(tag, descriptor, buffer, out),
                None => self.give(buffer),
            }
        }
    }

    fn request(
        &mut self,
        tag: u16,
        descriptor: Descriptor,
        buffer: Buf,
        out: &mut Vec<Request<Buf>>,
    ) {
        let bytes = u64::from(descriptor.sectors) * abi::SECTOR_BYTES;
        let offset = descriptor.sector.saturating_mul(abi::SECTOR_BYTES);
        let payload = u32::try_from(bytes).ok().filter(|len| *len > 0 && *len <= self.io_bytes);
        let (operation, len) = match (operation(descriptor), payload) {
            (Some(operation @ (Operation::Read | Operation::Write { .. })), Some(len)) => {
                (operation, len)
            }
            (Some(Operation::Read | Operation::Write { .. }), None) | (None, _) => {
                tracing::error!(?descriptor, "a request that we did not say we could do");
                return self.commit(tag, -libc::EOPNOTSUPP, buffer);
            }
            (Some(operation), _) => (operation, 0),
        };
        self.sequence += 1;
        let id = RequestId(self.sequence << TAG_BITS | u64::from(tag));
        let (kept, data) = match operation {
            Operation::Read => (None, Some(Slice::part(buffer, 0, len))),
            Operation::Write { .. } => (Some(buffer.clone()), Some(Slice::part(buffer, 0, len))),
            _ => (Some(buffer), None),
        };
        let extent = match operation {
            Operation::Flush => Extent::NONE,
            _ => Extent { offset, len: bytes },
        };
        self.tags[usize::from(tag)] = Tag::Lent(Lent { id, len, buffer: kept });
        out.push(Request { id, operation, extent, data });
    }

    /// Ends a request.
    pub(super) fn complete(&mut self, outcome: Outcome<Buf>) {
        let Outcome { id, data, result } = outcome;
        let tag = u16::try_from(id.0 & ((1 << TAG_BITS) - 1)).expect("masked");
        let slot = self.tags.get_mut(usize::from(tag));
        let Some(slot) = slot.filter(|slot| matches!(slot, Tag::Lent(lent) if lent.id == id))
        else {
            tracing::error!(?id, "the end of a request that is not there");
            return;
        };
        let Tag::Lent(lent) = std::mem::replace(slot, Tag::Away) else {
            unreachable!("matched above")
        };
        let moved = i32::try_from(lent.len).expect("requests are short");
        let result = result.map_or_else(|error| -abi::errno(error), |()| moved);
        match lent.buffer {
            Some(buffer) => {
                drop(data);
                self.end(tag, result, buffer);
            }
            None => self.end_read(tag, result, lent.len, data),
        }
    }

    fn end_read(&mut self, tag: u16, mut result: i32, len: u32, data: Option<Slice<Buf>>) {
        let Some(data) = data else {
            if result >= 0 {
                tracing::error!(tag, "a read that ended well without its bytes");
                result = -libc::EIO;
            }
            self.pool().lost();
            return self.end_short(tag, Ended { result, data: None });
        };
        if result < 0 {
            return self.end(tag, result, data.buffer);
        }
        if data.len != len {
            tracing::error!(tag, "a read that ended well with another length");
            return self.end(tag, -libc::EIO, data.buffer);
        }
        if data.start == 0 && self.pool().fits(&data.buffer) {
            return self.commit(tag, result, data.buffer);
        }
        self.end_short(tag, Ended { result, data: Some(data) });
    }

    /// Ends the request of `tag`, whose memory is `buffer`; perhaps others still hold it.
    fn end(&mut self, tag: u16, result: i32, buffer: Buf) {
        if self.pool().fits(&buffer) {
            return self.commit(tag, result, buffer);
        }
        self.give(buffer);
        self.end_short(tag, Ended { result, data: None });
    }

    /// Ends the request of `tag` with other memory, or leaves it until there is some.
    fn end_short(&mut self, tag: u16, ended: Ended) {
        let Some(mut buffer) = self.pool().take() else {
            self.tags[usize::from(tag)] = Tag::Short(ended);
            self.short.push_back(tag);
            return;
        };
        if let Some(data) = ended.data {
            buffer.bytes_mut()[..data.len as usize].copy_from_slice(data.bytes());
            self.give(data.buffer);
        }
        self.commit(tag, ended.result, buffer);
    }

    fn commit(&mut self, tag: u16, result: i32, buffer: Buf) {
        if let Err(error) = self.queue.commit(tag, result, buffer) {
            tracing::error!(tag, %error, "the end of a request cannot be told");
            self.refused = Some(error.raw_os_error().unwrap_or(libc::EIO));
        }
    }

    fn pool(&mut self) -> &mut Pool {
        self.pool.as_mut().expect("there while tags are")
    }

    fn give(&mut self, buffer: Buf) {
        self.pool().give(buffer);
    }

    /// Hands everything to the driver. False: call again in some milliseconds.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        if let Some(pool) = &mut self.pool {
            pool.refill();
        }
        for _ in 0..self.short.len() {
            let Some(tag) = self.short.pop_front() else { break };
            let slot = &mut self.tags[usize::from(tag)];
            if let Tag::Short(ended) = std::mem::replace(slot, Tag::Away) {
                self.end_short(tag, ended);
            }
        }
        Ok(self.queue.submit()? && self.short.is_empty())
    }
}

fn operation(descriptor: Descriptor) -> Option<Operation> {
    let fua = descriptor.fua;
    Some(match descriptor.op {
        abi::OP_READ => Operation::Read,
        abi::OP_WRITE => Operation::Write { fua },
        abi::OP_FLUSH => Operation::Flush,
        abi::OP_DISCARD => Operation::Discard,
        abi::OP_WRITE_ZEROES => Operation::WriteZeroes { unmap: !descriptor.no_unmap, fua },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_words() {
        let request =
            |op, fua, no_unmap| operation(Descriptor { op, fua, no_unmap, sectors: 8, sector: 0 });
        assert_eq!(request(abi::OP_WRITE, true, false), Some(Operation::Write { fua: true }));
        let keep = Operation::WriteZeroes { unmap: false, fua: false };
        assert_eq!(request(abi::OP_WRITE_ZEROES, false, true), Some(keep));
        let free = Operation::WriteZeroes { unmap: true, fua: false };
        assert_eq!(request(abi::OP_WRITE_ZEROES, false, false), Some(free));
        assert_eq!(request(9, false, false), None);
    }
}
