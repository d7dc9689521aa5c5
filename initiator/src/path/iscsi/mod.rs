//! One iSCSI path: a session of one connection with one logical unit, that comes back.
//!
//! ```text
//! idle ─▶ connecting ─▶ logging in ─▶ identifying ─▶ ready
//!            ▲  ▲                         │  ▲         │ standby, no unit
//!            │  └──── waiting ◀──lost─────┤  └─resting◀┤
//!            └─ redirected                └────────────┴─ leaving (logout)
//! ```
//!
//! ```text
//! config.rs    what an administrator decides; time limits; ISIDs
//! wire.rs      what the owner does on the network
//! login.rs     from a connected stream to a session: login, redirection
//! session.rs   a session: what its connection says, keep-alive, the end
//! identify.rs  asking the unit who it is    asking.rs  what its answers mean for the path
//! unit.rs      what it told                 back.rs    losing a stream, and the way back
//! tries.rs     tries: waiting, sent, aborted, ended
//! commands.rs  a request to SCSI commands
//! judge.rs     the table of what a target may say, and what it means
//! doubt.rs     what may still take effect, and until when
//! proof.rs     proving at another portal that it cannot
//! ```
//!
//! How to drive it: after every call take [`IscsiPath::poll_wire`], [`IscsiPath::transmit`] and
//! [`IscsiPath::poll_event`] until each is `None`, and set one timer to
//! [`IscsiPath::poll_timeout`].
//!
//! Every try ends exactly once. It waits here while the path's depth, the target's window or a
//! question about the unit's identity keeps it from being sent; what was not sent when the path
//! fails ends [`Verdict::Elsewhere`], what changes the device and was sent [`Verdict::InDoubt`].
//! The path is told to be up only after it has said who the unit is, in every session anew.

pub mod config;
pub mod wire;

mod asking;
mod back;
mod commands;
mod doubt;
mod identify;
mod judge;
mod login;
mod proof;
mod random;
mod session;
mod status;
mod tries;
mod unit;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};
use slab::Slab;

use super::{Life, PathEvent, PathFault, Tried, Try, Verdict};
use crate::multipath::status::Limit;
pub use config::{Chap, Config, Digests, Reinstatement, Timers, isid_for};
use doubt::{Doubts, Place};
use login::LoggingIn;
pub(crate) use login::refusal;
pub use proof::Need;
use random::Random;
use session::Session;
use tries::Held;
pub use wire::{Chunk, StreamId, Wire};

/// What the path does.
#[derive(Debug)]
enum Phase<B> {
    /// Nothing: not started, stopped, or the link is down.
    Idle,
    /// It tries again at this time.
    Waiting { until: Instant },
    /// Its owner connects.
    Connecting { stream: StreamId, portal: SocketAddr, aim: Aim, until: Instant, graced: bool },
    /// On a connected stream.
    LoggingIn(Box<LoggingIn<B>>),
    /// In full feature phase.
    Session(Box<Session<B>>),
}

/// What a login is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// A session to work with. `hops`: redirections that led here.
    Session { hops: u8 },
    /// That doubts of sessions at `place`, up to this life, are over; nothing else.
    Proof { place: Place, upto: Life },
}

/// What the engine was last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Ready,
    Down(PathFault),
}

/// One path. See the module's text for how to drive it.
#[derive(Debug)]
pub struct IscsiPath<B> {
    config: Config,
    random: Random,
    last_stream: StreamId,
    /// The portal, or where it has moved for good.
    home: SocketAddr,
    phase: Phase<B>,
    tries: Slab<Held<B>>,
    /// Tries that wait, by their place in `tries`.
    queue: VecDeque<usize>,
    doubts: Doubts,
    life: Life,
    haunted: bool,
    wanted: bool,
    link: bool,
    /// Attempts to come back that failed in a row, and when the last began.
    failures: u32,
    attempted: Instant,
    /// Logins in a row that got no answer in time.
    silent_logins: u32,
    /// No proof was tried since this was last set.
    proof_allowed: bool,
    /// Proofs in a row that were not given in time.
    slow_proofs: u32,
    said: Said,
    fault: PathFault,
    why: Option<String>,
    wires: VecDeque<Wire>,
    events: VecDeque<PathEvent<B>>,
}

impl<B: Buffer> IscsiPath<B> {
    /// A path that does nothing yet. `seed`: unpredictable to others.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            last_stream: StreamId(0),
            home: config.portal,
            phase: Phase::Idle,
            tries: Slab::new(),
            queue: VecDeque::new(),
            doubts: Doubts::default(),
            life: Life(u64::from(config.recovering)),
            haunted: config.recovering,
            wanted: false,
            link: true,
            failures: 0,
            attempted: Instant::ZERO,
            silent_logins: 0,
            proof_allowed: false,
            slow_proofs: 0,
            said: Said::Nothing,
            fault: PathFault::Starting,
            why: None,
            wires: VecDeque::new(),
            events: VecDeque::new(),
            config,
        }
    }

    /// As it was made.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Connects, and comes back whenever it is lost.
    pub fn start(&mut self, now: Instant) {
        self.wanted = true;
        if std::mem::take(&mut self.haunted) {
            // The earlier process is gone; its kernel may have had bytes to send until now.
            let place = Place { portal: self.config.portal, group: None, process: None };
            self.doubts.add(now, Life(0), place);
            self.events.push_back(PathEvent::Haunted(Life(0)));
        }
        if matches!(self.phase, Phase::Idle) && self.link {
            self.failures = 0;
            self.connect(now, self.home, 0);
        }
    }

    /// Leaves, for this reason: with a logout where there is a session, for which the target has
    /// [`Timers::logout`](config::Timers::logout). Doubts still end by time.
    pub fn stop(&mut self, now: Instant, fault: PathFault) {
        self.wanted = false;
        match self.phase {
            Phase::Session(_) => self.leave(now, fault, None),
            _ => self.lose(now, fault, None),
        }
    }

    /// Takes a try. It ends with [`PathEvent::Tried`].
    pub fn submit(&mut self, now: Instant, attempt: Try<B>) {
        let Try { id, operation, extent, data } = attempt;
        if self.said != Said::Ready {
            let verdict = Verdict::Elsewhere(self.fault);
            self.events.push_back(PathEvent::Tried(Tried { id, data, verdict }));
            return;
        }
        let slot = self.tries.insert(Held::new(id, operation, extent, data));
        self.queue.push_back(slot);
        self.settle(now);
    }

    /// Ends a try early: at once if it was not sent, else when the target has answered for it.
    pub fn abort(&mut self, now: Instant, id: super::TryId) {
        let found = self.tries.iter().find(|(_, held)| held.id == id).map(|(slot, _)| slot);
        if let Some(slot) = found {
            self.abort_slot(now, slot, PathFault::CommandTimeout);
            self.settle(now);
        }
    }

    /// Looks now what it would have looked at later: whether the unit still answers
    /// ([`PathEvent::Checked`]), or whether the target is back.
    pub fn check(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Waiting { .. } => self.connect(now, self.home, 0),
            Phase::Session(session) => {
                session.check(now);
                self.session_timeout(now);
            }
            _ => {}
        }
    }

    /// The local interface has a carrier, or has lost it.
    pub fn link(&mut self, now: Instant, up: bool) {
        if up == std::mem::replace(&mut self.link, up) {
            return;
        }
        if self.proving().is_some() {
            // That goes another way, and is not this one's attempt to come back.
            if !up {
                self.down(PathFault::LinkDown, None);
            }
            self.failures = 0;
        } else if !up {
            self.lose(now, PathFault::LinkDown, None);
        } else if self.wanted {
            self.failures = 0;
            self.connect(now, self.home, 0);
        }
    }

    /// The stream is connected.
    pub fn connected(&mut self, now: Instant, stream: StreamId) {
        match self.phase {
            Phase::Connecting { stream: ours, portal, aim, .. } if ours == stream => {
                self.log_in(now, stream, portal, aim);
            }
            _ => {}
        }
    }

    /// The stream could not be connected.
    pub fn connect_failed(&mut self, now: Instant, stream: StreamId, why: String) {
        if matches!(self.phase, Phase::Connecting { stream: ours, .. } if ours == stream) {
            self.gone(now, PathFault::Unreachable, why);
        }
    }

    /// Bytes came in.
    pub fn received(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        match &mut self.phase {
            Phase::LoggingIn(login) if login.stream == stream => self.login_bytes(now, bytes),
            Phase::Session(session) if session.stream == stream => self.session_bytes(now, bytes),
            _ => {}
        }
    }

    /// The stream has ended, or broken.
    pub fn closed(&mut self, now: Instant, stream: StreamId, why: String) {
        if self.stream() == Some(stream) {
            self.gone(now, PathFault::Closed, why);
        }
    }

    /// What to do with a stream.
    pub fn poll_wire(&mut self) -> Option<Wire> {
        self.wires.pop_front()
    }

    /// What to send next, and on which stream.
    pub fn transmit(&mut self) -> Option<(StreamId, Chunk<B>)> {
        match &mut self.phase {
            Phase::LoggingIn(login) => Some((login.stream, login.out.pop_front()?)),
            Phase::Session(session) => {
                let pdu = session.connection.poll_transmit()?;
                Some((session.stream, Chunk::of(&pdu)))
            }
            _ => None,
        }
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<PathEvent<B>> {
        self.events.pop_front()
    }

    /// No stream, and none wanted.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Every doubt of this path has been proven over.
    pub fn is_quiet(&self) -> bool {
        self.doubts.is_empty()
    }

    /// Time limits in force.
    pub fn limits(&self) -> Vec<Limit> {
        self.config.timers.limits()
    }

    fn stream(&self) -> Option<StreamId> {
        match &self.phase {
            Phase::Connecting { stream, .. } => Some(*stream),
            Phase::LoggingIn(login) => Some(login.stream),
            Phase::Session(session) => Some(session.stream),
            Phase::Idle | Phase::Waiting { .. } => None,
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.phase {
            Phase::Idle => None,
            Phase::Waiting { until } | Phase::Connecting { until, .. } => Some(*until),
            Phase::LoggingIn(login) => Some(login.until),
            Phase::Session(session) => Some(session.due(&self.config.timers)),
        };
        let doubt = self.doubts.due(self.config.timers.doubt_hold);
        own.into_iter().chain(doubt).min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(due) = self.poll_timeout().filter(|due| *due <= now) else { return };
        if let Some(life) = self.doubts.expire(now, self.config.timers.doubt_hold) {
            self.events.push_back(PathEvent::Quiet(life));
        }
        let late = now.since(due);
        if late > self.config.timers.freeze {
            self.stood_still(now, late);
        }
        match &self.phase {
            Phase::Waiting { until } if *until <= now => self.connect(now, self.home, 0),
            Phase::Connecting { until, portal, .. } if *until <= now => {
                let waited = self.config.timers.connect;
                let why = format!("{portal} has not answered within {waited:?}");
                self.gone(now, PathFault::Unreachable, why);
            }
            Phase::LoggingIn(login) if login.until <= now => {
                let why = format!("no login within {:?}", self.login_patience(login.aim));
                self.gone(now, PathFault::Silent, why);
            }
            Phase::Session(_) => self.session_timeout(now),
            _ => {}
        }
    }

    /// The timer came this much late: it was us who did not listen, so nobody is judged by the time
    /// that has passed. Once in a row only, or a host that is always late would notice nothing.
    fn stood_still(&mut self, now: Instant, late: Duration) {
        let grace = now + self.config.timers.ping_answer;
        match &mut self.phase {
            Phase::Connecting { until, graced, .. } if !*graced => {
                *graced = true;
                *until = (*until).max(grace);
            }
            Phase::LoggingIn(login) if !login.graced => {
                login.graced = true;
                login.until = login.until.max(grace);
            }
            Phase::Session(session) if !session.graced => {
                session.graced = true;
                session.shift(now, late);
                self.tries.iter_mut().for_each(|(_, held)| held.deadline = held.deadline + late);
            }
            _ => {}
        }
    }
}
