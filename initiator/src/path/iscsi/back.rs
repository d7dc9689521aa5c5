//! Losing a stream, and the way back.

use std::net::SocketAddr;

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::wire::Wire;
use super::{Aim, IscsiPath, PathEvent, PathFault, Phase, Said, Verdict};

/// A target that has moved for good and cannot be reached this often is asked for where it was.
const MOVED_FAILURES_MAX: u32 = 5;

impl<B: Buffer> IscsiPath<B> {
    /// Begins an attempt to have a session.
    pub(super) fn connect(&mut self, now: Instant, portal: SocketAddr, hops: u8) {
        self.attempted = now;
        let until = now + self.config.timers.connect;
        self.open(portal, Aim::Session { hops }, until);
    }

    /// Has a stream opened.
    pub(super) fn open(&mut self, portal: SocketAddr, aim: Aim, until: Instant) {
        self.last_stream.0 += 1;
        let stream = self.last_stream;
        self.wires.push_back(Wire::Connect { stream, portal });
        self.phase = Phase::Connecting { stream, portal, aim, until, graced: false };
    }

    /// The stream is over, by whosever doing: its tries end, and the path comes back later.
    pub(super) fn gone(&mut self, now: Instant, fault: PathFault, why: String) {
        match self.proving() {
            Some(_) => self.proof_failed(now, fault == PathFault::Silent),
            None => self.lose(now, fault, Some(why)),
        }
    }

    /// Everything of the present stream ends. Then the way back begins, if it is wanted.
    pub(super) fn lose(&mut self, now: Instant, fault: PathFault, why: Option<String>) {
        if let Some(stream) = self.stream() {
            self.wires.push_back(Wire::Close { stream });
        }
        self.proof_allowed = true;
        let silent = matches!(self.phase, Phase::LoggingIn(_)) && fault == PathFault::Silent;
        self.silent_logins = if silent { self.silent_logins.saturating_add(1) } else { 0 };
        if let Phase::Session(session) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.end_session(now, *session, fault);
        }
        self.down(fault, why);
        self.come_back(now);
    }

    /// The next attempt to have a session, now or later.
    pub(super) fn come_back(&mut self, now: Instant) {
        if !self.wanted || !self.link {
            return;
        }
        if self.failures >= MOVED_FAILURES_MAX {
            self.home = self.config.portal;
        }
        // From beginning to beginning: who has waited for an answer in vain has waited.
        let until = self.attempted + self.pause();
        if until <= now {
            self.connect(now, self.home, 0);
        } else {
            self.phase = Phase::Waiting { until };
        }
    }

    /// How long after the last attempt the next one is made: not at all, then longer and longer.
    fn pause(&mut self) -> Duration {
        let timers = &self.config.timers;
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = timers.retry_min.saturating_mul(1 << (failures - 1).min(16));
        let longest = doubled.min(timers.retry_max).max(Duration::from_millis(1));
        // Up to a quarter less, so that paths that fell together do not come back together.
        longest - self.random.below(longest / 4)
    }

    /// Says so, once the tries that wait have ended; those that were sent have.
    pub(super) fn down(&mut self, fault: PathFault, why: Option<String>) {
        (self.fault, self.why) = (fault, why);
        while let Some(slot) = self.queue.pop_front() {
            self.end(slot, Verdict::Elsewhere(fault));
        }
        debug_assert!(self.tries.is_empty(), "a try has neither ended nor is it under way");
        if self.said != Said::Down(fault) {
            self.said = Said::Down(fault);
            self.events.push_back(PathEvent::Down(fault));
        }
    }
}
