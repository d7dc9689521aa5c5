//! A message to send: headers it owns, payload it shares, in one system call.

use corbel_proto::memory::{Buffer, Slice};

use super::sys::Vector;
use crate::memory::{Arena, Buf};

/// Shortest Ethernet frame that goes on the wire, without its checksum.
const FRAME_BYTES_MIN: usize = 60;

/// Pieces to be sent one after the other. Small pieces (headers, digests, padding) are copied
/// in; payload is shared. Take one from [`Reactor::message`](super::Reactor::message): those
/// reuse memory of messages sent before.
#[derive(Debug, Default)]
pub struct Message {
    pub(super) body: Box<Body>,
}

/// The memory of a message; stays where it is while the kernel reads it.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) inline: Vec<u8>,
    pub(super) parts: Vec<Part>,
    pub(super) len: u64,
    /// Bytes that the kernel has taken.
    pub(super) done: u64,
    pub(super) frame: bool,
    /// Some of it is lent by a store: it is sent at once, or copied.
    pub(super) at_once: bool,
    pub(super) vector: Vector,
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    Inline { start: usize, len: usize },
    Payload(Slice<Buf>),
}

impl Message {
    /// Appends bytes by copying them.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let body = &mut *self.body;
        let start = body.inline.len();
        body.inline.extend_from_slice(bytes);
        body.len += bytes.len() as u64;
        match body.parts.last_mut() {
            Some(Part::Inline { len, .. }) => *len += bytes.len(),
            _ => body.parts.push(Part::Inline { start, len: bytes.len() }),
        }
        self
    }

    /// Appends payload without copying it.
    ///
    /// # Panics
    /// If the slice does not lie inside its buffer.
    pub fn payload(&mut self, slice: Slice<Buf>) -> &mut Self {
        if slice.len > 0 {
            super::check_range(&slice);
            self.body.len += u64::from(slice.len);
            self.body.at_once |= slice.buffer.is_loan();
            self.body.parts.push(Part::Payload(slice));
        }
        self
    }

    /// Makes this one Ethernet frame: padded with zeros to the shortest length that goes on the
    /// wire, and sent again later rather than failed when the interface's queue is full.
    pub fn frame(&mut self) -> &mut Self {
        let len = usize::try_from(self.body.len).unwrap_or(FRAME_BYTES_MIN);
        if len < FRAME_BYTES_MIN {
            self.bytes(&[0; FRAME_BYTES_MIN][len..]);
        }
        self.body.frame = true;
        self
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.body.len
    }

    /// True if there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.body.len == 0
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.body.len - self.body.inline.len() as u64
    }

    /// Forgets everything but keeps the memory for the next message.
    pub(super) fn clear(&mut self) {
        let body = &mut *self.body;
        body.inline.clear();
        body.parts.clear();
        (body.len, body.done, body.frame, body.at_once) = (0, 0, false, false);
    }

    /// The socket has no room: what it has not taken is copied, so that it is not the peer who says
    /// when the store has its memory back. Without memory for that it stays lent.
    ///
    /// # Errors
    /// If the store could not be read (an errno).
    pub(super) fn call_in(&mut self, arena: &Arena) -> Result<(), i32> {
        let body = &mut *self.body;
        body.at_once = false;
        let mut from = 0;
        for part in &mut body.parts {
            let len = part.len() as u64;
            from += len;
            if let Part::Payload(slice) = part
                && from > body.done
            {
                super::call_in(slice, arena)?;
            }
        }
        Ok(())
    }

    /// The kernel could not read what a store has lent.
    pub(super) fn unreadable(&self) {
        for part in &self.body.parts {
            if let Part::Payload(slice) = part {
                slice.buffer.unreadable();
            }
        }
    }

    /// The same pieces once more, for when the kernel still holds the first copy.
    pub(super) fn copy_into(&self, other: &mut Message) {
        let (from, to) = (&*self.body, &mut *other.body);
        to.inline.extend_from_slice(&from.inline);
        to.parts.extend(from.parts.iter().cloned());
        (to.len, to.done) = (from.len, from.done);
        (to.frame, to.at_once) = (from.frame, from.at_once);
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Part::Inline { len, .. } => *len,
            Part::Payload(slice) => slice.len as usize,
        }
    }
}
