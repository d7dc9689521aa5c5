//! What was sent and never answered, and when it can no longer take effect.
//!
//! A write that was on the wire when its session ended may still reach the medium. Two things prove
//! that it cannot any more:
//!
//! - A **new session in its place**: a login with the same initiator name, ISID and TSIH 0, at the
//!   same portal and with the same portal group, that came to the full feature phase. RFC 7143
//!   6.3.5 obliges the target to have ended the old session and its tasks by then. The same login
//!   at *another* portal of that group proves it too, where one process answers at both: see
//!   `proof.rs`. For whom that holds: [`Reinstatement`](super::config::Reinstatement).
//! - **Time**: [`Timers::doubt_hold`](super::config::Timers::doubt_hold) since the stream was
//!   given up, after which nothing of it leaves this host.
//!
//! Memory is no part of the doubt: a try's memory is handed back when the try ends, and whoever
//! still sends from it holds a handle of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;

use corbel_proto::time::{Duration, Instant};

use super::config::Reinstatement;
use crate::path::Life;

/// A target's port, as far as a new session must meet the same one to replace an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) portal: SocketAddr,
    /// `None`: not told, or not known of an earlier process.
    pub(super) group: Option<u16>,
    /// Which process of the target answers there, if it tells.
    pub(super) process: Option<[u8; 16]>,
}

impl Place {
    /// A session there replaces one at `old`, wherever in the portal group it is.
    pub(super) fn replaces(&self, old: &Self, how: Reinstatement) -> bool {
        let group = old.group.is_some() && old.group == self.group;
        let one = old.process.is_some() && old.process == self.process;
        match how {
            Reinstatement::Nothing => false,
            Reinstatement::Portal => group && one,
            Reinstatement::Group => group,
        }
    }
}

#[derive(Debug)]
struct Doubt {
    life: Life,
    place: Place,
    /// When nothing of it left this host any more.
    since: Instant,
}

/// The lives that are not over, oldest first.
#[derive(Debug, Default)]
pub(super) struct Doubts(VecDeque<Doubt>);

impl Doubts {
    /// Commands of `life` are in doubt, sent to `place` before now.
    pub(super) fn add(&mut self, now: Instant, life: Life, place: Place) {
        self.0.push_back(Doubt { life, place, since: now });
    }

    /// A session at `place` has replaced the one before it. Each session has replaced the one
    /// before, so all doubts of this place are over; those of other places are not. A life is said
    /// to be over only with all lives before it.
    pub(super) fn replaced(&mut self, place: Place) -> Option<Life> {
        let same = |doubt: &Doubt| {
            let group = doubt.place.group.is_none() || doubt.place.group == place.group;
            doubt.place.portal == place.portal && group
        };
        self.take_while(same)
    }

    /// Time has passed.
    pub(super) fn expire(&mut self, now: Instant, hold: Duration) -> Option<Life> {
        self.take_while(|doubt| doubt.since + hold <= now)
    }

    /// A session that stood in for the one at `place` has replaced it, and no life after `upto` had
    /// begun.
    pub(super) fn stood_in(&mut self, place: Place, upto: Life) -> Option<Life> {
        self.take_while(|doubt| doubt.place == place && doubt.life <= upto)
    }

    /// Where the oldest was, and the newest life in doubt.
    pub(super) fn span(&self) -> Option<(Place, Life)> {
        Some((self.0.front()?.place, self.0.back()?.life))
    }

    fn take_while(&mut self, over: impl Fn(&Doubt) -> bool) -> Option<Life> {
        let mut last = None;
        while self.0.front().is_some_and(&over) {
            last = self.0.pop_front().map(|doubt| doubt.life);
        }
        last
    }

    /// When [`Self::expire`] has something to say.
    pub(super) fn due(&self, hold: Duration) -> Option<Instant> {
        self.0.front().map(|doubt| doubt.since + hold)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(10);

    fn at(second: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(second)
    }

    fn place(port: u16, group: Option<u16>) -> Place {
        Place { portal: ([10, 0, 0, 1], port).into(), group, process: None }
    }

    #[test]
    fn a_session_at_the_same_place_ends_all_doubts_of_it() {
        let mut doubts = Doubts::default();
        doubts.add(at(0), Life(0), place(3260, None));
        doubts.add(at(1), Life(2), place(3260, Some(1)));
        assert_eq!(doubts.replaced(place(3260, Some(1))), Some(Life(2)));
        assert!(doubts.is_empty());
        assert_eq!(doubts.replaced(place(3260, Some(1))), None);
    }

    #[test]
    fn a_session_at_another_portal_or_group_proves_nothing() {
        let mut doubts = Doubts::default();
        doubts.add(at(0), Life(0), place(3260, Some(1)));
        assert_eq!(doubts.replaced(place(3261, Some(1))), None);
        assert_eq!(doubts.replaced(place(3260, Some(2))), None);
        assert_eq!(doubts.replaced(place(3260, None)), None);
    }

    #[test]
    fn a_later_life_is_not_over_before_an_earlier_one() {
        let mut doubts = Doubts::default();
        doubts.add(at(0), Life(0), place(3260, Some(1)));
        doubts.add(at(1), Life(1), place(3261, Some(1)));
        assert_eq!(doubts.replaced(place(3261, Some(1))), None);
        assert_eq!(doubts.expire(at(10), HOLD), Some(Life(0)));
        assert_eq!(doubts.replaced(place(3261, Some(1))), Some(Life(1)));
    }

    #[test]
    fn time_ends_each_doubt_on_its_own() {
        let mut doubts = Doubts::default();
        doubts.add(at(0), Life(0), place(3260, Some(1)));
        doubts.add(at(5), Life(1), place(3260, Some(1)));
        assert_eq!(doubts.due(HOLD), Some(at(10)));
        assert_eq!(doubts.expire(at(9), HOLD), None);
        assert_eq!(doubts.expire(at(10), HOLD), Some(Life(0)));
        assert_eq!(doubts.due(HOLD), Some(at(15)));
        assert_eq!(doubts.expire(at(20), HOLD), Some(Life(1)));
    }

    #[test]
    fn another_portal_replaces_a_session_only_where_one_process_answers_at_both() {
        let here = |port, process| Place { process, ..place(port, Some(1)) };
        let old = here(3260, Some([1; 16]));
        let replaces = |new: Place, how| new.replaces(&old, how);
        assert!(replaces(here(3261, Some([1; 16])), Reinstatement::Portal));
        assert!(!replaces(here(3261, Some([2; 16])), Reinstatement::Portal));
        assert!(!replaces(here(3261, None), Reinstatement::Portal));
        assert!(!here(3261, None).replaces(&here(3260, None), Reinstatement::Portal));
        let other = Place { group: Some(2), ..here(3261, Some([1; 16])) };
        assert!(!replaces(other, Reinstatement::Portal));
        assert!(!replaces(other, Reinstatement::Group));
        assert!(replaces(here(3261, None), Reinstatement::Group));
        assert!(!replaces(here(3261, Some([1; 16])), Reinstatement::Nothing));
    }

    #[test]
    fn a_stand_in_ends_no_life_that_began_after_it_was_sent() {
        let mut doubts = Doubts::default();
        doubts.add(at(0), Life(0), place(3260, Some(1)));
        doubts.add(at(1), Life(1), place(3260, Some(1)));
        assert_eq!(doubts.span(), Some((place(3260, Some(1)), Life(1))));
        assert_eq!(doubts.stood_in(place(3260, Some(1)), Life(0)), Some(Life(0)));
        assert_eq!(doubts.stood_in(place(3261, Some(1)), Life(1)), None);
        assert_eq!(doubts.span(), Some((place(3260, Some(1)), Life(1))));
    }
}
