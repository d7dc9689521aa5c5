//! One way to an AoE device: one local interface, one server address, one shelf.slot.
//!
//! ```text
//! mod.rs       configuration, what is called from outside
//! timers.rs    how patient a path is
//! seek.rs      who is there, who it is, and whether long frames come through
//! work.rs      tries to commands, completions to verdicts
//! watch.rs     time: silence, checks, a host that stood still
//! tries.rs     requests cut into commands, and put together again
//! doubts.rs    what may still land, and until when
//! judge.rs     what an answer that is not good news means
//! payload.rs   frames, and what is in them
//! words.rs     what is told to people
//! ```
//!
//! How to drive it: after every call that takes `now`, take frames with [`AoePath::transmit`] and
//! events with [`AoePath::poll_event`] until there are none, and set one timer to
//! [`AoePath::poll_timeout`]. What is taken has to be sent at once or dropped: a doubt is counted
//! from the moment a frame was handed out.
//!
//! *Durable.* A write is taken for stable when it is acknowledged, as the Linux client takes it:
//! its protocol knows of no volatile cache. A server that says it has one (IDENTIFY word 85), or of
//! which the configuration says so, is sent flushes.
//!
//! *Doubt.* AoE has no abort and no session, so time is the only proof that a copy of a command is
//! not on its way: [`Timers::doubt_hold`] after a try that was given up, [`Timers::copy_hold`]
//! after one that was answered, but not for each of its copies. The hold ends early if the answers
//! come.

mod doubts;
mod judge;
mod payload;
mod seek;
mod timers;
mod tries;
mod watch;
mod words;
mod work;

use std::collections::{BTreeMap, VecDeque};

use corbel_proto::aoe::Mac;
use corbel_proto::aoe::initiator::Path;
use corbel_proto::ata::Identify;
use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

pub use payload::Frame;
pub use timers::Timers;

use crate::path::{PathEvent, PathFault, Try, TryId};
use doubts::Doubts;
use payload::Payload;
use seek::{Probe, Seek};
use tries::Tries;

/// Other addresses that are told of, at most.
const SIBLINGS_MAX: usize = 8;

/// Frames of discovery that wait to be sent, at most.
const CONTROL_MAX: usize = 8;

/// What a path leads to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Shelf.
    pub shelf: u16,
    /// Slot.
    pub slot: u8,
    /// The server's interface. `None`: the first that answers, from then on.
    pub remote: Option<Mac>,
    /// How patient it is.
    pub timers: Timers,
    /// Where time limits that are not defaults come from, by name.
    pub origins: BTreeMap<&'static str, String>,
    /// Most commands under way; the server's buffer count may allow fewer. At least 1.
    pub depth: u16,
    /// Priority against other paths; 50 if not given.
    pub weight: Option<u32>,
    /// The server acknowledges writes that a power cut may take back, and does not say so: flushes
    /// are sent to it.
    pub server_caches: bool,
    /// An earlier process may have left writes on their way.
    pub recovering: bool,
}

impl Config {
    /// A path to `shelf`.`slot`, by whoever answers, with defaults.
    pub fn new(shelf: u16, slot: u8) -> Self {
        Self {
            shelf,
            slot,
            remote: None,
            timers: Timers::default(),
            origins: BTreeMap::new(),
            depth: 128,
            weight: None,
            server_caches: false,
            recovering: false,
        }
    }

    /// Sets the time limit that an administrator calls `name`; `from` says who wants it. False if
    /// it means nothing to frames, which know no connections.
    pub fn set(&mut self, name: &str, limit: Duration, from: &str) -> bool {
        let (name, field) = match name {
            "ping_after" => ("ping_after", &mut self.timers.check_every),
            "answer_within" => ("answer_within", &mut self.timers.silence),
            "doubt_hold" => ("doubt_hold", &mut self.timers.doubt_hold),
            _ => return false,
        };
        *field = limit;
        self.origins.insert(name, from.to_owned());
        true
    }
}

/// The local interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// It is up and has a carrier.
    pub up: bool,
}

/// Where a path stands.
#[derive(Debug)]
enum State {
    /// Not started, or stopped.
    Idle,
    /// Started; the link is down or not known yet.
    NoLink,
    /// Asks who is there.
    Seeking(Seek),
    /// Asks the server what its device is.
    Identifying,
    /// Tries whether long frames come through.
    Probing(Probe),
    /// Works.
    Ready,
}

/// One path. See the module's text for how to drive it.
#[derive(Debug)]
pub struct AoePath<B> {
    config: Config,
    state: State,
    link: Option<Link>,
    /// The server's interface, once it is known; then it stays.
    remote: Option<Mac>,
    /// Commands to the server. `None` while no server is spoken to.
    wire: Option<Path<Payload<B>>>,
    tries: Tries<B>,
    doubts: Doubts,
    /// What the device said of itself last.
    identify: Option<Identify>,
    /// Config string of the server, as it said it.
    config_string: Vec<u8>,
    /// Sectors of one command: as the server and the link allow, and as many as come through.
    sectors_full: u8,
    sectors: u8,
    /// It does not know FLUSH CACHE EXT.
    flush_short: bool,
    watch: watch::Watch,
    /// Why it is down. `None` if it is ready.
    fault: Option<PathFault>,
    /// What was wrong with the last answer to IDENTIFY, in words.
    complaint: Option<&'static str>,
    siblings: Vec<Mac>,
    siblings_told: usize,
    control: VecDeque<Frame<B>>,
    events: VecDeque<PathEvent<B>>,
    random: Random,
    query_tag: u32,
    last_tag: u32,
    recovered: bool,
    now: Instant,
}

impl<B: Buffer> AoePath<B> {
    /// A path that does nothing yet. `seed` is best random: tags start from it.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut random = Random(seed);
        let (query_tag, last_tag) = (random.tag(), random.tag());
        Self {
            remote: config.remote,
            recovered: !config.recovering,
            config,
            state: State::Idle,
            link: None,
            wire: None,
            tries: Tries::new(),
            doubts: Doubts::default(),
            identify: None,
            config_string: Vec::new(),
            sectors_full: 0,
            sectors: 0,
            flush_short: false,
            watch: watch::Watch::default(),
            fault: Some(PathFault::Starting),
            complaint: None,
            siblings: Vec::new(),
            siblings_told: 0,
            control: VecDeque::new(),
            events: VecDeque::new(),
            random,
            query_tag,
            last_tag,
            now: Instant::ZERO,
        }
    }

    /// What it was made from.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The server's interface, if it is known.
    pub const fn remote(&self) -> Option<Mac> {
        self.remote
    }

    /// Begins, or begins again after [`Self::stop`].
    pub fn start(&mut self, now: Instant) {
        self.now = now;
        if !matches!(self.state, State::Idle) {
            return;
        }
        if !self.recovered {
            self.recovered = true;
            let life = self.doubts.until(now + self.config.timers.doubt_hold);
            self.events.push_back(PathEvent::Haunted(life));
        }
        self.fault = Some(PathFault::Starting);
        self.seek(now);
    }

    /// Ends every try and falls silent. Doubts are still seen to their end.
    pub fn stop(&mut self, now: Instant, fault: PathFault) {
        self.now = now;
        self.down(now, fault);
        self.state = State::Idle;
        self.control.clear();
    }

    /// Takes a try. It ends at once if the path is not fit for work.
    pub fn submit(&mut self, now: Instant, attempt: Try<B>) {
        self.now = now;
        self.take(attempt);
        self.feed(now);
    }

    /// Ends a try, if it has not ended.
    pub fn abort(&mut self, now: Instant, id: TryId) {
        self.now = now;
        self.give_back(now, id);
        self.feed(now);
    }

    /// Checks the path now: [`PathEvent::Checked`] or [`PathEvent::Down`] follows, if it is ready;
    /// else it asks who is there.
    pub fn check(&mut self, now: Instant) {
        self.now = now;
        match &mut self.state {
            State::Ready => self.ask_identity(now),
            State::Seeking(seek) => seek.hurry(now),
            State::Idle | State::NoLink | State::Identifying | State::Probing(_) => {}
        }
    }

    /// The interface is like this now.
    pub fn link(&mut self, now: Instant, link: Link) {
        self.now = now;
        let before = self.link.replace(link);
        if before == Some(link) || matches!(self.state, State::Idle) {
            return;
        }
        let known = self.fault.unwrap_or(PathFault::LinkDown);
        self.down(now, if link.up { known } else { PathFault::LinkDown });
        self.control.clear();
        self.seek(now);
    }

    /// A frame came in. Those that are not for this path change nothing.
    pub fn frame(&mut self, now: Instant, frame: &[u8]) {
        self.now = now;
        self.hear(now, frame);
        self.feed(now);
    }

    /// The next frame to be sent.
    pub fn transmit(&mut self) -> Option<Frame<B>> {
        if let Some(frame) = self.control.pop_front() {
            return Some(frame);
        }
        let wire = self.wire.as_mut()?;
        wire.poll_transmit(self.now).map(Frame::from)
    }

    /// The next thing to be told.
    pub fn poll_event(&mut self) -> Option<PathEvent<B>> {
        self.events.pop_front()
    }

    /// Another address that answers for this shelf.slot; each is told once, eight at most.
    pub fn poll_sibling(&mut self) -> Option<Mac> {
        let sibling = self.siblings.get(self.siblings_told)?;
        self.siblings_told += 1;
        Some(*sibling)
    }

    /// Nothing of this path is in doubt, and no try is under way.
    pub fn is_quiet(&self) -> bool {
        self.doubts.is_empty() && self.tries.is_empty()
    }

    /// The path does not work, and this is why. Tells it if it is news.
    fn set_fault(&mut self, fault: PathFault) {
        if self.fault != Some(fault) {
            self.fault = Some(fault);
            self.events.push_back(PathEvent::Down(fault));
        }
    }
}

/// SplitMix64: for tags and jitter, never for secrets.
#[derive(Debug)]
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Any 31 bits.
    const fn tag(&mut self) -> u32 {
        (self.next() >> 33) as u32
    }

    /// `time`, more or less a quarter.
    fn around(&mut self, time: Duration) -> Duration {
        let per_mille = 750 + u32::try_from(self.next() % 500).expect("below 500");
        time * per_mille / 1000
    }
}

#[cfg(test)]
mod tests;
