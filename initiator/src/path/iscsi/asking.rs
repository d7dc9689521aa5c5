//! What the answers to questions about the unit mean for the path: ready, resting, another unit.

use corbel_proto::iscsi::initiator::{Answer, Failure, Transfer};
use corbel_proto::iscsi::pdu::Residual;
use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use super::identify::{Probe, Progress};
use super::session::{BUSY, Stage};
use super::wire::Memory;
use super::{IscsiPath, PathEvent, PathFault, Phase, Said};

impl<B: Buffer> IscsiPath<B> {
    pub(super) fn probe_answered(
        &mut self,
        now: Instant,
        transfer: Transfer<Memory<B>>,
        result: Result<Answer, Failure>,
    ) {
        let Some(session) = self.session() else { return };
        session.asked = false;
        let Some(probe) = &mut session.probe else { return };
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => {
                let why = format!("a question about the unit failed: {failure:?}");
                return self.gone(now, PathFault::CommandsFail, why);
            }
        };
        let data = match &transfer {
            Transfer::Read(Memory::Own(bytes)) => &bytes[..],
            _ => &[],
        };
        let missing = match answer.residual {
            Residual::Underflow(bytes) => bytes as usize,
            _ => 0,
        };
        let whole_round = probe.needs.all;
        let progress = probe.answer(&answer, &data[..data.len().saturating_sub(missing)]);
        let finished = probe.question().is_none();
        match progress {
            Progress::Next if finished => self.probed(now),
            Progress::Next => {}
            Progress::Busy => session.probe_at = Some(now + BUSY),
            Progress::Unfit(fault, why) => {
                session.probe = None;
                self.unfit(now, fault, why);
            }
        }
        // In a whole round everything is asked anyway.
        if !whole_round && answer.status == 2 {
            self.attend(now, &answer);
        }
    }

    /// A round of questions is over.
    fn probed(&mut self, now: Instant) {
        let (target, weight) = (self.config.target.as_str().to_owned(), self.config.weight);
        let Some(session) = self.session() else { return };
        let Some(Probe { needs, mut unit, .. }) = session.probe.take() else { return };
        if let Some(old) = &session.unit {
            if !old.same_as(&unit) {
                let why = "another unit answers in the place of the one that was there";
                return self.gone(now, PathFault::Mismatch, why.to_owned());
            }
            (unit.refuses_discard, unit.refuses_zeroes) = (old.refuses_discard, old.refuses_zeroes);
        }
        if unit.is_standing_by() {
            let why = "its target port group does not take commands".to_owned();
            return self.unfit(now, PathFault::Standby, why);
        }
        let news = session.unit.as_ref() != Some(&unit);
        session.unit = Some(unit);
        if !matches!(session.stage, Stage::Identifying | Stage::Ready) {
            return;
        }
        if session.stage == Stage::Identifying {
            session.stage = Stage::Ready;
            session.ready_since = Some(now);
        }
        let is_new = self.said != Said::Ready;
        if news || is_new {
            self.announce(&target, weight);
        }
        if needs.check {
            self.events.push_back(PathEvent::Checked);
        }
    }

    /// Tells the engine what the unit is now.
    pub(super) fn announce(&mut self, target: &str, weight: Option<u32>) {
        let Phase::Session(session) = &mut self.phase else { return };
        let Some(unit) = &session.unit else { return };
        // The target's node is its portal group; every node has a cache of its own.
        let domain = match session.place.group {
            Some(group) => format!("{target},{group}"),
            None => format!("{target}@{}", session.place.portal),
        };
        let facts = unit.facts(domain, weight);
        (self.said, self.why) = (Said::Ready, None);
        self.events.push_back(PathEvent::Ready(Box::new(facts)));
    }

    /// The unit cannot be used now. Tries that were sent are waited for.
    pub(super) fn unfit(&mut self, now: Instant, fault: PathFault, why: String) {
        let Some(session) = self.session() else { return };
        match session.stage {
            Stage::Ready => {
                session.stage = Stage::Draining(fault);
                self.why = Some(why);
                self.fail_waiting(fault);
            }
            Stage::Identifying | Stage::Resting { .. } => self.rest(now, fault, Some(why)),
            Stage::Draining(_) | Stage::Leaving { .. } => {}
        }
    }

    /// Nothing is under way any more; the unit is asked again before long.
    pub(super) fn rest(&mut self, now: Instant, fault: PathFault, why: Option<String>) {
        let again = now + self.config.timers.retry_max;
        let why = why.or_else(|| self.why.take());
        let Some(session) = self.session() else { return };
        session.stage = Stage::Resting { again };
        session.unit = None;
        self.down(fault, why);
    }
}
