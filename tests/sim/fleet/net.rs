//! Cables: Ethernet frames that are lost, late, doubled or overtaken, and TCP streams that stall.
//!
//! A *link* joins one host to one head. A frame goes its way at once or late, or not at all; a
//! frame that is doubled arrives twice at the same moment (against a copy that a switch keeps
//! until newer data was written, no initiator can do anything that does not cost every write).
//! A stream keeps order and loses nothing; it waits while its link does not pass, and tries again
//! as TCP does, later each time.

use std::collections::VecDeque;

use corbel_proto::time::{Duration, Instant};

use crate::rng::Rng;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the initiator to the target.
    ToHead,
    /// Back.
    ToHost,
}

/// How a link treats what goes over it.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Shortest time of a frame.
    pub delay_min: Duration,
    /// Longest, unless it is late.
    pub delay_max: Duration,
    /// Percent of frames lost; of stream segments, sent again.
    pub loss_percent: u64,
    /// Percent of frames doubled.
    pub double_percent: u64,
    /// Percent of frames that are late.
    pub late_percent: u64,
    /// How late they are at most.
    pub late_max: Duration,
    /// Percent of stream segments that arrive in two pieces.
    pub cut_percent: u64,
}

/// One cable.
#[derive(Debug, Clone)]
pub struct Link {
    /// Whose it is.
    pub host: usize,
    /// Where it leads.
    pub head: usize,
    /// The host sees a carrier.
    pub carrier: bool,
    /// Nothing passes to the head, silently.
    pub blocked_to_head: bool,
    /// Nothing passes to the host, silently.
    pub blocked_to_host: bool,
    /// Larger frames are lost, whatever the interfaces say: bytes of payload.
    pub passes_bytes: u32,
    /// What the host's interface says.
    pub mtu: u32,
    /// What it does to what passes.
    pub manners: Manners,
}

impl Link {
    /// True if something that arrives now, arrives.
    pub const fn passes(&self, way: Way) -> bool {
        self.carrier
            && !match way {
                Way::ToHead => self.blocked_to_head,
                Way::ToHost => self.blocked_to_host,
            }
    }

    /// When copies of a frame of `len` bytes (with its 14 of Ethernet) arrive: none, one or two.
    pub fn arrivals(&self, len: usize, rng: &mut Rng) -> Vec<Duration> {
        let manners = &self.manners;
        if len > self.passes_bytes as usize + 14 || rng.percent(manners.loss_percent) {
            return Vec::new();
        }
        let late = rng.percent(manners.late_percent);
        let max = if late { manners.late_max } else { manners.delay_max };
        let delay = manners.delay_min + between(max, rng);
        vec![delay; 1 + usize::from(rng.percent(manners.double_percent))]
    }
}

/// Any time up to `max`.
pub fn between(max: Duration, rng: &mut Rng) -> Duration {
    let nanos = u64::try_from(max.as_nanos()).expect("delays are short");
    Duration::from_nanos(rng.below(nanos + 1))
}

/// What travels in a stream.
#[derive(Debug, Clone)]
pub enum Segment {
    /// May I?
    Syn,
    /// You may.
    SynAck,
    /// Bytes.
    Data(Vec<u8>),
    /// No more bytes.
    Fin,
    /// It is over, and nothing that was under way counts.
    Reset,
}

/// One way of a stream.
#[derive(Debug, Default)]
pub struct Pipe {
    queue: VecDeque<(Instant, Segment)>,
    /// An event for it is on the agenda.
    pub scheduled: bool,
    patience: Duration,
    /// Whoever sent it is gone; from then on nothing is sent again.
    orphaned: Option<Instant>,
}

/// First wait of TCP before it repeats a segment, and its longest here.
const REPEAT_MIN: Duration = Duration::from_millis(200);
const REPEAT_MAX: Duration = Duration::from_millis(1500);

impl Pipe {
    /// Puts in a segment. When to look at the pipe, if nobody will yet.
    pub fn send(
        &mut self,
        now: Instant,
        segment: Segment,
        link: &Link,
        rng: &mut Rng,
    ) -> Option<Instant> {
        if matches!(segment, Segment::Reset) {
            self.queue.clear();
        }
        let delay = link.manners.delay_min + between(link.manners.delay_max, rng);
        let behind = self.queue.back().map_or(now, |(at, _)| *at);
        self.queue.push_back((behind.max(now + delay), segment));
        self.due()
    }

    /// Nobody waits for what is under way any more: it is sent again no longer than this.
    pub const fn orphan(&mut self, until: Instant) {
        self.orphaned = Some(until);
    }

    /// Forgets what is under way: the machine that kept it is gone.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    fn due(&mut self) -> Option<Instant> {
        let due = self.queue.front().map(|(at, _)| *at).filter(|_| !self.scheduled)?;
        self.scheduled = true;
        Some(due)
    }

    /// The pipe's time has come: what arrives, and when to look again.
    pub fn arrive(
        &mut self,
        now: Instant,
        passes: bool,
        manners: &Manners,
        rng: &mut Rng,
    ) -> (Option<Segment>, Option<Instant>) {
        self.scheduled = false;
        if self.queue.is_empty() {
            return (None, None);
        }
        if !passes || rng.percent(manners.loss_percent) {
            if self.orphaned.is_some_and(|until| until <= now) {
                self.queue.clear();
                return (None, None);
            }
            self.patience = (self.patience * 2).clamp(REPEAT_MIN, REPEAT_MAX);
            self.scheduled = true;
            return (None, Some(now + self.patience));
        }
        self.patience = Duration::ZERO;
        let (_, mut segment) = self.queue.pop_front().expect("not empty");
        if let Segment::Data(bytes) = &mut segment
            && bytes.len() > 1
            && rng.percent(manners.cut_percent)
        {
            let cut = 1 + usize::try_from(rng.below(bytes.len() as u64 - 1)).expect("short");
            let rest = bytes.split_off(cut);
            self.queue.push_front((now + between(manners.delay_max, rng), Segment::Data(rest)));
        }
        if let Some((at, _)) = self.queue.front_mut() {
            *at = (*at).max(now);
        }
        (Some(segment), self.due())
    }
}

/// A TCP connection, whatever is left of its ends.
#[derive(Debug)]
pub struct Stream {
    /// The link it goes over.
    pub link: usize,
    /// The host's process, and its name there.
    pub host_end: Option<(u32, u16, u64)>,
    /// The host was told that it stands.
    pub connected: bool,
    /// The head's process that has it.
    pub head_end: Option<u32>,
    /// To the head.
    pub to_head: Pipe,
    /// To the host.
    pub to_host: Pipe,
}

impl Stream {
    /// A stream that is about to be.
    pub fn new(link: usize, life: u32, path: u16, number: u64) -> Self {
        Self {
            link,
            host_end: Some((life, path, number)),
            connected: false,
            head_end: None,
            to_head: Pipe::default(),
            to_host: Pipe::default(),
        }
    }

    /// One way of it.
    pub const fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::ToHead => &mut self.to_head,
            Way::ToHost => &mut self.to_host,
        }
    }
}
