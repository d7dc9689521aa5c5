//! What is told to people.

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::{AoePath, State};
use crate::multipath::status::Limit;

impl<B: Buffer> AoePath<B> {
    /// Why the path does not work, or works less well than it could.
    pub fn why(&self, _now: Instant) -> Option<String> {
        if let Some(complaint) = self.complaint {
            return Some(complaint.to_owned());
        }
        let at = format!("{}.{}", self.config.shelf, self.config.slot);
        let who = self.remote.map_or_else(|| "nobody".to_owned(), |remote| remote.to_string());
        match self.state {
            State::Idle => Some("stopped".to_owned()),
            State::NoLink => Some("the interface is down".to_owned()),
            State::Seeking(_) => Some(format!("{who} does not answer for {at}")),
            State::Identifying => Some(format!("{who} has not said yet what {at} is")),
            State::Probing(_) => Some(format!("{who} has not answered a read yet")),
            State::Ready if self.sectors < self.sectors_full => Some(format!(
                "frames above 1500 bytes do not come through, although the MTU allows them: \
                 {} instead of {} sectors in a command",
                self.sectors, self.sectors_full
            )),
            State::Ready => None,
        }
    }

    /// What the path will do next about it.
    pub fn next(&self, now: Instant) -> Option<String> {
        let seconds = |at: Instant| at.since(now).as_secs_f64();
        match &self.state {
            State::Seeking(seek) => Some(format!("asks again in {:.1} s", seconds(seek.next))),
            State::NoLink => Some("waits for the interface".to_owned()),
            State::Ready if self.sectors < self.sectors_full => Some(format!(
                "tries longer frames again in {:.0} s",
                seconds(self.watch.widen_next)
            )),
            State::Idle | State::Identifying | State::Probing(_) | State::Ready => None,
        }
    }

    /// The server's config string; empty if it has none, or was not heard yet.
    pub fn config_string(&self) -> &[u8] {
        &self.config_string
    }

    /// The time limits in force, by the names that they are configured by.
    pub fn limits(&self) -> Vec<Limit> {
        let ours = &self.config.timers;
        let limits = [
            ("give_up", ours.give_up),
            ("answer_within", ours.silence),
            ("ping_after", ours.check_every),
            ("repeat_min", ours.repeat.min),
            ("repeat_max", ours.repeat.max),
            ("doubt_hold", ours.doubt_hold),
            ("copy_hold", ours.copy_hold),
        ];
        let from = |name| self.config.origins.get(name).cloned();
        let limit = |(name, value): (&'static str, Duration)| Limit {
            name,
            ms: u64::try_from(value.as_millis()).unwrap_or(u64::MAX),
            from: from(name).unwrap_or_else(|| "default".to_owned()),
        };
        limits.into_iter().map(limit).collect()
    }
}
