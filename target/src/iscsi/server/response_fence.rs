//! The answer to a function that ended other commands is seen after their answers (RFC 7143
//! 4.2.2.3): what went out before it on the session's other connections is acknowledged first.

use corbel_proto::iscsi::pdu::task::TaskOutcome;
use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};
use smallvec::SmallVec;

use super::super::device::Device;
use super::{ConnId, Context, IscsiServer};
use crate::host::Host;

/// How long an answer waits for acknowledgements on other connections. One that is dead is noticed
/// later than this, and its responses will not be seen anyway.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// The answer "function complete".
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) id: ConnId,
    pub(super) itt: u32,
    /// After it every session of the target ends.
    pub(super) ends_sessions: bool,
}

/// An answer that waits.
#[derive(Debug)]
pub(super) struct Fenced {
    /// Connections that have not acknowledged.
    left: SmallVec<[ConnId; 4]>,
    due: Instant,
    answer: Answer,
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    /// Answers once the responses before it have arrived.
    pub(super) fn answer_after_others<H>(&mut self, answer: Answer, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let conn = self.conn_ref(answer.id);
        let session = conn.and_then(|conn| self.sessions.get(&conn.session?));
        let others = session.map(|session| session.members.ids()).unwrap_or_default();
        let number = self.waiters + 1;
        let mut left = SmallVec::new();
        for other in others.into_iter().filter(|other| *other != answer.id) {
            if self.conn(other).is_some_and(|conn| conn.wire.raise_fence(number)) {
                left.push(other);
                self.touch(other);
            }
        }
        if left.is_empty() {
            return self.conclude(answer, cx);
        }
        self.waiters = number;
        let due = cx.host.now() + WAIT_MAX;
        self.fence_dues.insert((due, number));
        self.fences.insert(number, Fenced { left, due, answer });
    }

    /// A connection has acknowledged what came before a fence, or is over.
    pub(super) fn passed<H>(&mut self, id: ConnId, number: u64, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(fence) = self.fences.get_mut(&number) else { return };
        fence.left.retain(|left| *left != id);
        if fence.left.is_empty() {
            self.fall(number, cx);
        }
    }

    /// Fences that have stood too long fall.
    pub(super) fn old_fences<H>(&mut self, now: Instant, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        while let Some(&(_, number)) = self.fence_dues.first().filter(|(due, _)| *due <= now) {
            self.fall(number, cx);
        }
    }

    fn fall<H>(&mut self, number: u64, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(Fenced { left, due, answer }) = self.fences.remove(&number) else { return };
        self.fence_dues.remove(&(due, number));
        for id in left {
            tracing::info!(conn = id.0, "responses are not acknowledged: others go on");
            if let Some(conn) = self.conn(id) {
                conn.wire.lower_fence(number);
            }
        }
        self.conclude(answer, cx);
    }

    fn conclude<H>(&mut self, answer: Answer, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        self.answer(answer.id, answer.itt, TaskOutcome::Complete);
        if answer.ends_sessions {
            self.end_target_of(answer.id, cx);
        }
    }
}
