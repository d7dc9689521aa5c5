//! Proving at another portal that what was sent at a dead one has no effect any more.
//!
//! A path whose link or portal is dead cannot log in again where it was, so no new session proves
//! that its old one is over; until it can, or enough time has passed, every overlapping
//! write waits. But a session belongs to a portal *group* (RFC 7143 4.4.1): where another portal of
//! it can be reached, a login there with the ISID of the dead path replaces the dead session, and
//! the target ends that one's tasks before it lets us in. The login is for that alone: its stream
//! is closed at once, and the path goes on coming back by its own way.
//!
//! One stream at a time: two logins of one ISID would end one another's sessions.

use std::net::SocketAddr;

use corbel_proto::iscsi::name::Name;
use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::config::Reinstatement;
use super::session::Stage;
use super::wire::{StreamId, Wire};
use super::{Aim, IscsiPath, Life, PathEvent, Phase, Place, Said};

/// Who can help a path to prove that its doubts are over. To be shown to other paths.
#[derive(Debug, Clone)]
pub struct Need {
    target: Name,
    place: Place,
    how: Reinstatement,
}

impl<B: Buffer> IscsiPath<B> {
    /// What this path needs to have its doubts ended by somebody else's portal. `None` if it has
    /// none, may do it by itself before long, or has just tried.
    pub fn need(&self) -> Option<Need> {
        let free = match &self.phase {
            Phase::Idle | Phase::Waiting { .. } => true,
            Phase::Connecting { aim, .. } => matches!(aim, Aim::Session { .. }),
            Phase::LoggingIn(_) | Phase::Session(_) => false,
        };
        let (place, _) = self.doubts.span()?;
        let (target, how) = (self.config.target.clone(), self.config.reinstatement);
        (free && self.proof_allowed && self.wanted).then_some(Need { target, place, how })
    }

    /// The portal of this path, if a login there would end what `need` is about: it is in use now,
    /// and leads to the same target, portal group and (unless [`Reinstatement::Group`] says that it
    /// need not) process. `anywhere` is for the simulator's own test: the process is not looked at.
    pub fn can_prove(&self, need: &Need, anywhere: bool) -> Option<SocketAddr> {
        let Phase::Session(session) = &self.phase else { return None };
        if session.stage != Stage::Ready || self.said != Said::Ready {
            return None;
        }
        let how = if anywhere { Reinstatement::Group } else { need.how };
        let same = self.config.target == need.target && session.place().replaces(&need.place, how);
        same.then_some(session.place.portal)
    }

    /// Logs in at `portal`, which [`Self::can_prove`] has given, to end the doubts there are now.
    pub fn prove(&mut self, now: Instant, portal: SocketAddr) {
        let Some((place, upto)) = self.doubts.span() else { return };
        if let Some(stream) = self.stream() {
            self.wires.push_back(Wire::Close { stream });
        }
        self.proof_allowed = false;
        let until = now + self.proof_patience();
        self.open(portal, Aim::Proof { place, upto }, until);
    }

    /// How long one step of it may take. The target may have to wait for its disk.
    pub(super) fn proof_patience(&self) -> Duration {
        let usual = self.config.timers.ping_answer;
        usual.saturating_mul(1 << self.slow_proofs.min(4)).min(self.config.timers.doubt_hold)
    }

    /// Until which life, while one is under way.
    pub(super) fn proving(&self) -> Option<Life> {
        let aim = match &self.phase {
            Phase::Connecting { aim, .. } => *aim,
            Phase::LoggingIn(login) => login.aim,
            Phase::Idle | Phase::Waiting { .. } | Phase::Session(_) => return None,
        };
        match aim {
            Aim::Proof { upto, .. } => Some(upto),
            Aim::Session { .. } => None,
        }
    }

    /// This stream is on its way to where the path itself leads, not to a proof.
    pub fn is_going_home(&self, stream: StreamId) -> bool {
        matches!(&self.phase, Phase::Connecting { stream: ours, aim: Aim::Session { .. }, .. }
            if *ours == stream)
    }

    /// The target has let us in.
    pub(super) fn proven(
        &mut self,
        now: Instant,
        (place, upto): (Place, Life),
        group: Option<u16>,
    ) {
        if place.group != group {
            return self.proof_failed(now, false);
        }
        let last = self.doubts.stood_in(place, upto);
        self.events.extend(last.map(PathEvent::Quiet));
        self.slow_proofs = 0;
        self.proof_over(now);
    }

    /// It came to nothing. `slow`: the target has taken too long; it gets more time once more.
    pub(super) fn proof_failed(&mut self, now: Instant, slow: bool) {
        if slow {
            self.slow_proofs = self.slow_proofs.saturating_add(1);
            self.proof_allowed = true;
        }
        self.proof_over(now);
    }

    /// Back to the way of one's own.
    fn proof_over(&mut self, now: Instant) {
        if let Some(stream) = self.stream() {
            self.wires.push_back(Wire::Close { stream });
        }
        self.phase = Phase::Idle;
        self.come_back(now);
    }

    pub(super) fn proof_words(&self, now: Instant) -> String {
        let (portal, until) = match &self.phase {
            Phase::Connecting { portal, until, .. } => (*portal, *until),
            Phase::LoggingIn(login) => (login.portal, login.until),
            Phase::Idle | Phase::Waiting { .. } | Phase::Session(_) => (self.home, now),
        };
        let left = until.since(now).as_secs_f64();
        format!("proving at {portal} that its old session is over, gives up in {left:.1} s")
    }
}
