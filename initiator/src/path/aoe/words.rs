//! What is told to people.

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::{AoePath, State, Timers};
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

    /// The time limits in force.
    pub fn limits(&self) -> Vec<Limit> {
        let (ours, usual) = (&self.config.timers, &Timers::DEFAULT);
        let limit = |name, value: Duration, usual: Duration| {
            let from = if value == usual { "default" } else { "configuration" };
            let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
            Limit { name, ms, from: from.to_owned() }
        };
        vec![
            limit("give-up", ours.give_up, usual.give_up),
            limit("silence", ours.silence, usual.silence),
            limit("check", ours.check_every, usual.check_every),
            limit("repeat-min", ours.repeat.min, usual.repeat.min),
            limit("repeat-max", ours.repeat.max, usual.repeat.max),
            limit("doubt-hold", ours.doubt_hold, usual.doubt_hold),
            limit("copy-hold", ours.copy_hold, usual.copy_hold),
        ]
    }
}
