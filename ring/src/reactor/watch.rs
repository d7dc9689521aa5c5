//! Packet ports, looked at as long as frames come fast, and polled only by a reactor that sleeps.
//!
//! The kernel says in the ring itself that a frame is there. A poll that waits for the same costs
//! the *sender* of each frame, who wakes it, and us a completion; so there is none while looking
//! finds frames in time. Before it sleeps, the reactor begins one. The kernel then says at once
//! what came since the last look: no frame is slept over.

use super::op::{Event, Op};
use super::{Completion, File, OpId, Reactor};
use crate::packet::{Ahead, Port};

/// So many times frames were there without a sleep, and the poll is given up.
const FOUND_OFTEN: u32 = 16;

/// One port.
#[derive(Debug)]
pub(super) struct Watch {
    file: File,
    tag: u64,
    ahead: Ahead,
    poll: Option<OpId>,
    /// How often frames were found since the last sleep.
    found: u32,
}

impl Watch {
    pub(super) fn is_of(&self, file: File) -> bool {
        self.file == file
    }
}

impl Reactor {
    /// Completes, as [`Op::PollReadable`] does, whenever `port` has frames, until `file` (which
    /// [`Self::attach_port`] gave for it) is closed or [unwatched](Self::unwatch). There is
    /// no waiting while frames are left.
    pub fn watch(&mut self, file: File, port: &Port, tag: u64) {
        self.watches.push(Watch { file, tag, ahead: port.ahead(), poll: None, found: 0 });
    }

    /// Frames of `file` matter no more; it may still send.
    pub fn unwatch(&mut self, file: File) {
        for watch in self.watches.extract_if(.., |watch| watch.file == file).collect::<Vec<_>>() {
            watch.poll.into_iter().for_each(|poll| self.cancel(poll));
        }
    }

    /// True if some port has frames.
    pub(super) fn sees_frames(&self) -> bool {
        self.watches.iter().any(|watch| watch.ahead.has_frame())
    }

    /// Tells of ports that have frames.
    pub(super) fn tell_frames(&mut self) {
        for at in 0..self.watches.len() {
            let watch = &mut self.watches[at];
            if !watch.ahead.has_frame() {
                continue;
            }
            watch.found = watch.found.saturating_add(1);
            let poll = watch.poll.take_if(|_| watch.found > FOUND_OFTEN);
            let (tag, event) = (watch.tag, Event::Readable(Ok(())));
            self.ready.push_back(Completion { tag, event, more: true, waiting: false });
            poll.into_iter().for_each(|poll| self.cancel(poll));
        }
    }

    /// Sees to it that a frame ends a sleep. False if there is no room for that just now.
    pub(super) fn poll_ports(&mut self) -> bool {
        for at in 0..self.watches.len() {
            self.watches[at].found = 0;
            let Watch { file, tag, poll, .. } = self.watches[at];
            if !poll.is_some_and(|poll| self.flights.contains(poll)) {
                self.watches[at].poll = Some(self.submit(Op::PollReadable { file }, tag));
            }
        }
        self.backlog.is_empty()
    }
}
