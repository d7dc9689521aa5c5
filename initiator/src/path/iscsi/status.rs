//! A path in words, for people.

use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use super::session::Stage;
use super::{Aim, IscsiPath, Phase, Said};

impl<B: Buffer> IscsiPath<B> {
    /// Why it is not ready, with what the target said.
    pub fn why(&self) -> Option<String> {
        if self.said == Said::Ready { None } else { self.why.clone() }
    }

    /// What happens next on its own, and when.
    pub fn next(&self, now: Instant) -> Option<String> {
        let in_s = |at: Instant| format!("{:.1} s", at.since(now).as_secs_f64());
        match &self.phase {
            Phase::Idle if !self.wanted => None,
            Phase::Idle => Some("connects when the link is up".to_owned()),
            Phase::Waiting { until } => Some(format!("connects again in {}", in_s(*until))),
            Phase::Connecting { aim: Aim::Proof { .. }, .. } => Some(self.proof_words(now)),
            Phase::LoggingIn(login) if matches!(login.aim, Aim::Proof { .. }) => {
                Some(self.proof_words(now))
            }
            Phase::Connecting { portal, until, .. } => {
                Some(format!("connecting to {portal}, gives up in {}", in_s(*until)))
            }
            Phase::LoggingIn(login) => {
                Some(format!("logging in, gives up in {}", in_s(login.until)))
            }
            Phase::Session(session) => match session.stage {
                Stage::Identifying => Some("asking the unit who it is".to_owned()),
                Stage::Ready => None,
                Stage::Draining(_) => Some("waiting for commands under way".to_owned()),
                Stage::Resting { again } => Some(format!("asks again in {}", in_s(again))),
                Stage::Leaving { until, .. } => {
                    Some(format!("logging out, gives up in {}", in_s(until)))
                }
            },
        }
    }
}
