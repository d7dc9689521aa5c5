//! What a completion of the kernel means for its operation: go on, try again, or done.
//!
//! Each errno is named where it is decided on. EINTR always means once more. EAGAIN means so
//! too, except for frames, which are tried again after a pause.

use std::time::Duration;

use super::sys::{self, Cqe, Flight, Work};
use super::{Completion, Event, Failure, MESSAGES_SPARE_MAX, OpId, Reactor, files};
use crate::store::Store;

/// Pause before a frame is offered again to a full interface queue.
const FRAME_PAUSE: Duration = Duration::from_micros(500);
/// Pause before trying again when descriptors or memory ran out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

impl Reactor {
    pub(super) fn complete(&mut self, key: u32, cqe: Cqe) {
        let flight = self.flights.get(key);
        if flight.delivered {
            // The kernel's last word on memory sent without copying.
            if !flight.is_busy() {
                self.retire(key);
            }
            return;
        }
        match flight.work() {
            Work::Accept => self.accepted(key, cqe),
            Work::Recv { .. } => self.received(key, cqe),
            Work::RecvPooled { .. } => self.pooled(key, cqe),
            Work::Send { .. } => self.sent(key, cqe),
            Work::Read { .. } | Work::Write { .. } => self.transferred(key, cqe),
            Work::Sync | Work::Fallocate { .. } | Work::PollWritable => match cqe.result {
                0.. => self.finish(key, Ok(0)),
                e => self.again_or_fail(key, e),
            },
            Work::PollReadable | Work::PollRing => self.readable(key, cqe),
        }
    }

    fn accepted(&mut self, key: u32, cqe: Cqe) {
        let (tag, cancelled) = self.tag(key);
        match cqe.result {
            fd @ 0.. => {
                let fd = sys::adopt(fd);
                let file = self.files.insert(files::Held::Descriptor(fd));
                let more = cqe.more() || !cancelled;
                self.deliver(tag, Event::Accepted(Ok(file)), more);
                if cqe.more() {
                    return;
                }
                if cancelled { self.retire(key) } else { self.start(key) }
            }
            _ if cancelled => self.finish_failed(key, libc::ECANCELED),
            e => match -e {
                // The connection died before it was accepted (accept(2) lists its errors): next.
                libc::EINTR
                | libc::EAGAIN
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::ETIMEDOUT
                | libc::EPERM => {
                    self.start(key);
                }
                errno @ (libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    let failure = Failure::new("accept", errno);
                    self.deliver(tag, Event::Accepted(Err(failure)), true);
                    self.start_later(key, EXHAUSTED_PAUSE);
                }
                errno => self.finish_failed(key, errno),
            },
        }
    }

    fn received(&mut self, key: u32, cqe: Cqe) {
        let Ok(n) = u32::try_from(cqe.result) else {
            return self.again_or_fail(key, cqe.result);
        };
        let flight = self.flights.get(key);
        let cancelled = flight.cancelled;
        let Work::Recv { data, done, exact } = flight.work_mut() else {
            unreachable!("dispatched by kind")
        };
        *done += n;
        let (whole, total) = (n == 0 || *done >= data.len || !*exact, *done);
        if whole || cancelled { self.finish(key, Ok(total)) } else { self.start(key) }
    }

    fn pooled(&mut self, key: u32, cqe: Cqe) {
        let bytes = u32::try_from(cqe.result).unwrap_or(0);
        let data = cqe.pool_buffer().map(|id| self.pool.take(id, bytes));
        let (tag, cancelled) = self.tag(key);
        let &Work::RecvPooled { repeat, multishot, .. } = self.flights.get(key).work() else {
            unreachable!("dispatched by kind")
        };
        match cqe.result {
            0 => self.finish(key, Ok(0)),
            1.. => {
                let data = data.expect("a pooled receive brings its buffer");
                let more = cqe.more() || (repeat && !cancelled);
                let (event, waiting) = (Event::Pooled(Ok(Some(data))), cqe.waiting());
                self.ready.push_back(Completion { tag, event, more, waiting });
                match (cqe.more(), more) {
                    (true, _) => {}
                    (false, true) => self.start(key),
                    (false, false) => self.retire(key),
                }
            }
            e if cqe.more() => debug_assert!(e >= 0, "errors end a multishot"),
            _ if cancelled => self.finish_failed(key, libc::ECANCELED),
            e => match -e {
                // The pool is empty: again when a buffer came back.
                libc::ENOBUFS => self.starved.push_back(key),
                // This file cannot receive by multishot: one submission for each piece.
                libc::EINVAL if multishot => {
                    let work = self.flights.get(key).work_mut();
                    if let Work::RecvPooled { multishot, .. } = work {
                        *multishot = false;
                    }
                    self.start(key);
                }
                _ => self.again_or_fail(key, e),
            },
        }
    }

    fn sent(&mut self, key: u32, cqe: Cqe) {
        let flight = self.flights.get(key);
        let (file, held) = (flight.file, flight.is_busy());
        let cancelled = flight.cancelled;
        let Work::Send { message, zero_copy } = flight.work() else {
            unreachable!("dispatched by kind")
        };
        let (zero_copy, frame) = (*zero_copy, message.body.frame);
        let at_once = message.body.at_once;
        let Ok(n) = u64::try_from(cqe.result) else {
            return match -cqe.result {
                libc::EAGAIN if at_once && !cancelled => self.copy_and(key, Self::start),
                libc::EFAULT if at_once => {
                    message.unreadable();
                    self.finish_failed(key, libc::EFAULT);
                }
                // The kernel holds the message although it would not send it.
                libc::EOPNOTSUPP if zero_copy && held && !cancelled => {
                    self.files.forbid_zero_copy(file);
                    self.send_rest(key, 0);
                }
                _ if held => self.hold(key, Event::Sent(Err(Failure::new("send", -cqe.result)))),
                _ if cancelled => self.finish_failed(key, libc::ECANCELED),
                // This socket cannot, or no locked memory is left: copy.
                libc::EOPNOTSUPP | libc::ENOMEM | libc::ENOBUFS if zero_copy => {
                    if cqe.result == -libc::EOPNOTSUPP {
                        self.files.forbid_zero_copy(file);
                    }
                    if let Work::Send { zero_copy, .. } = self.flights.get(key).work_mut() {
                        *zero_copy = false;
                    }
                    self.start(key);
                }
                libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM if frame => {
                    self.copy_and(key, |reactor, key| reactor.start_later(key, FRAME_PAUSE));
                }
                _ => self.again_or_fail(key, cqe.result),
            };
        };
        let (total, done) = (message.body.len, message.body.done + n);
        if done >= total || frame {
            return if held {
                self.hold(key, Event::Sent(Ok(total)));
            } else {
                self.finish(key, Ok(0));
            };
        }
        if !held {
            let Work::Send { message, .. } = self.flights.get(key).work_mut() else {
                unreachable!("dispatched by kind")
            };
            message.body.done = done;
            return match (cancelled, at_once) {
                (true, _) => self.finish_failed(key, libc::ECANCELED),
                (false, true) => self.copy_and(key, Self::start),
                (false, false) => self.start(key),
            };
        }
        // Short, and the kernel still holds the first part.
        self.send_rest(key, done);
    }

    /// The socket has no room: no store waits until it has.
    fn copy_and(&mut self, key: u32, then: impl FnOnce(&mut Self, u32)) {
        let Work::Send { message, .. } = self.flights.get(key).work_mut() else {
            unreachable!("dispatched by kind")
        };
        match message.call_in(&self.arena) {
            Ok(()) => then(self, key),
            Err(errno) => self.finish_failed(key, errno),
        }
    }

    /// Goes on behind the first `done` bytes as a new operation; the kernel holds the old one.
    fn send_rest(&mut self, key: u32, done: u64) {
        let mut rest = self.messages.pop().unwrap_or_default();
        let flight = self.flights.get(key);
        let (tag, file, target, cancelled) =
            (flight.tag, flight.file, flight.target, flight.cancelled);
        if let Work::Send { message, .. } = flight.work() {
            message.copy_into(&mut rest);
        }
        rest.body.done = done;
        flight.delivered = true;
        let work = Work::Send { message: rest, zero_copy: false };
        let next = self.flights.insert(Flight::new(tag, file, target, work));
        if cancelled { self.finish_failed(next.key, libc::ECANCELED) } else { self.start(next.key) }
    }

    fn transferred(&mut self, key: u32, cqe: Cqe) {
        let Ok(n) = u32::try_from(cqe.result) else {
            return self.again_or_fail(key, cqe.result);
        };
        let (total, whole) = match self.flights.get(key).work_mut() {
            Work::Read { data, done, .. } => {
                *done += n;
                (*done, n == 0 || *done >= data.len)
            }
            Work::Write { data, done, .. } => {
                *done += n;
                (*done, *done >= data.len)
            }
            _ => unreachable!("dispatched by kind"),
        };
        match (n, whole) {
            (_, true) => self.finish(key, Ok(total)),
            // A write that takes nothing never will: the end of the device.
            (0, false) => self.finish_failed(key, libc::ENOSPC),
            (_, false) => self.start(key),
        }
    }

    fn readable(&mut self, key: u32, cqe: Cqe) {
        let (tag, cancelled) = self.tag(key);
        let own = self.flights.get(key).file == self.bell;
        match cqe.result {
            0.. => {
                let more = cqe.more() || !cancelled;
                if !own {
                    self.deliver(tag, Event::Readable(Ok(())), more);
                }
                match (cqe.more(), more) {
                    (true, _) => {}
                    (false, true) => self.start(key),
                    (false, false) => self.retire(key),
                }
            }
            // Without the poll no other thread could wake us.
            _ if own && !cancelled => self.start_later(key, EXHAUSTED_PAUSE),
            e => self.again_or_fail(key, e),
        }
    }

    fn tag(&mut self, key: u32) -> (u64, bool) {
        let flight = self.flights.get(key);
        (flight.tag, flight.cancelled)
    }

    fn deliver(&mut self, tag: u64, event: Event, more: bool) {
        self.ready.push_back(Completion { tag, event, more, waiting: false });
    }

    /// Delivers the result while the kernel still holds the memory.
    fn hold(&mut self, key: u32, event: Event) {
        let flight = self.flights.get(key);
        flight.delivered = true;
        let tag = flight.tag;
        self.deliver(tag, event, false);
    }

    fn again_or_fail(&mut self, key: u32, result: i32) {
        let cancelled = self.flights.get(key).cancelled;
        match -result {
            libc::EINTR | libc::EAGAIN if !cancelled => self.start(key),
            libc::EINTR | libc::EAGAIN => self.finish_failed(key, libc::ECANCELED),
            errno => self.finish_failed(key, errno),
        }
    }

    pub(super) fn finish_failed(&mut self, key: u32, errno: i32) {
        self.finish(key, Err(errno));
    }

    /// Ends an entry: its memory goes back with the completion.
    fn finish(&mut self, key: u32, result: Result<u32, i32>) {
        let flight = self.flights.remove(key);
        let (tag, own) = (flight.tag, flight.file == self.bell);
        if !own {
            let event = self.event(flight.into_work(), result);
            self.deliver(tag, event, false);
        }
    }

    /// Ends an entry that has delivered everything.
    fn retire(&mut self, key: u32) {
        if let Work::Send { message, .. } = self.flights.remove(key).into_work() {
            self.recycle(message);
        }
    }

    pub(super) fn recycle(&mut self, mut message: super::Message) {
        if self.messages.len() < MESSAGES_SPARE_MAX {
            message.clear();
            self.messages.push(message);
        }
    }

    fn event(&mut self, work: Work, result: Result<u32, i32>) -> Event {
        let failed = |operation| move |errno| Failure::new(operation, errno);
        match work {
            Work::Accept => {
                let errno = result.err().unwrap_or(libc::ECANCELED);
                Event::Accepted(Err(Failure::new("accept", errno)))
            }
            Work::Recv { data, .. } => {
                Event::Received { data, result: result.map_err(failed("receive")) }
            }
            Work::RecvPooled { .. } => {
                Event::Pooled(result.map(|_| None).map_err(failed("receive")))
            }
            Work::Send { message, .. } => {
                let len = message.body.len;
                self.recycle(message);
                Event::Sent(result.map(|_| len).map_err(failed("send")))
            }
            Work::Read { data, .. } => Event::Read { data, result: result.map_err(failed("read")) },
            Work::Write { data, .. } => {
                Event::Written { data, result: result.map_err(failed("write")) }
            }
            Work::Sync => Event::Synced(result.map(drop).map_err(failed("sync"))),
            Work::Fallocate { .. } => {
                Event::Deallocated(result.map(drop).map_err(failed("deallocate")))
            }
            Work::PollReadable | Work::PollRing => {
                Event::Readable(result.map(drop).map_err(failed("poll")))
            }
            Work::PollWritable => Event::Writable(result.map(drop).map_err(failed("poll"))),
        }
    }

    /// An operation that never reached the kernel.
    pub(super) fn refuse(&mut self, tag: u64, work: Work, errno: i32) -> OpId {
        let event = self.event(work, Err(errno));
        self.deliver(tag, event, false);
        OpId { key: u32::MAX, generation: 0 }
    }

    /// An operation on memory: done at once, told at the next turn.
    pub(super) fn perform(&mut self, tag: u64, mut work: Work, store: &Store) -> OpId {
        let result = match &mut work {
            Work::Read { data, offset, .. } => store.read_memory(*offset, data.bytes_mut()),
            Work::Write { data, offset, .. } => store.write_memory(*offset, data.bytes()),
            Work::Sync => Ok(0),
            Work::Fallocate { mode, offset, len } => {
                store.clear_memory(*mode, *offset, *len).map(|()| 0)
            }
            _ => Err(libc::EOPNOTSUPP),
        };
        let event = self.event(work, result);
        self.deliver(tag, event, false);
        OpId { key: u32::MAX, generation: 0 }
    }
}
