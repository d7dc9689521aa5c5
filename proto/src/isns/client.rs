//! What a target says to an iSNS server, without I/O: that it is there, with its portals and
//! nodes; again when they change, or when the server has forgotten them; and at the end that it
//! is gone.
//!
//! ```text
//!            connected          answered            a third of the period
//!  Waiting ──────────▶ register ────────▶ registered ────────────────────▶ check: still there?
//!     ▲                   │  ▲                ▲ │                               │     │
//!     └───────────────────┘  │                └─┼───────────── yes ─────────────┘     │
//!       closed, refused,     └──────────────────┼───────────── no ────────────────────┘
//!       silent: 1 s to 60 s                     └─ stopped ─▶ deregister ─▶ Over
//! ```
//!
//! One connection, one question at a time. The connection stays, so that the end of a server is
//! noticed at once, and the next one knows of us seconds after it has started.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::message::{
    Attributes, Framer, Header, NODE_TARGET, PAYLOAD_BYTES_MAX, PROTOCOL_ISCSI, Writer, flag,
    function, tag,
};
pub use super::news::{News, Status};
use crate::time::{Duration, Instant};

/// Registration period that is asked for: who has not been heard for so long is forgotten.
const PERIOD: Duration = Duration::from_secs(300);
const PERIOD_SECONDS: u32 = 300;
/// Shortest and longest time between two checks, whatever period the server tells.
const CHECK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// First wait after a failure, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a connection, or an answer, may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Portals that are registered, at most: with these, what belongs together fits a PDU.
pub const PORTALS_MAX: usize = 128;

/// A node and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// iSCSI name; 223 bytes at most.
    pub name: String,
    /// For people; 255 bytes at most.
    pub alias: Option<String>,
    /// Portals with their portal group tags. An unspecified address means the one that the server
    /// is reached from.
    pub portals: Vec<(SocketAddr, u16)>,
}

/// All that is registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registration {
    /// Names this process among all that register with a server; 255 bytes at most.
    pub entity: String,
    /// Targets.
    pub nodes: Vec<Node>,
}

/// What the host has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a connection: then [`Client::connected`] or [`Client::closed`].
    Connect,
    /// Send this.
    Send(Vec<u8>),
    /// Close the connection, open or not yet. [`Client::closed`] need not be called.
    Close,
    /// Tell the operator.
    Tell(News),
}

/// Why something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Register,
    Check,
    Leave,
}

impl Purpose {
    const fn function(self) -> u16 {
        match self {
            Self::Register => function::REGISTER,
            Self::Check => function::QUERY,
            Self::Leave => function::DEREGISTER,
        }
    }
}

#[derive(Debug)]
struct Open {
    /// Our end.
    local: IpAddr,
    framer: Framer,
    /// The question without an answer, and its transaction.
    asked: Option<(Purpose, u16)>,
    left: VecDeque<(Purpose, Vec<u8>)>,
    /// When the answer must be here; without a question, when to check.
    due: Instant,
}

#[derive(Debug)]
enum State {
    /// Nothing to do until then.
    Waiting(Option<Instant>),
    Connecting(Instant),
    Open(Open),
    Over,
}

/// What the server may have of us: under which name we are known to it, and of which entity.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    source: String,
    entity: String,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    registration: Registration,
    known: Option<Known>,
    stopping: bool,
    state: State,
    actions: VecDeque<Action>,
    retry: Duration,
    period: Duration,
    transaction: u16,
    /// The last failure that was told.
    told: Option<News>,
}

impl Client {
    /// Registers as soon as [`Self::handle_timeout`] is called.
    pub fn new(registration: Registration, now: Instant) -> Self {
        Self {
            registration,
            known: None,
            stopping: false,
            state: State::Waiting(Some(now)),
            actions: VecDeque::new(),
            retry: RETRY.0,
            period: PERIOD,
            transaction: 0,
            told: None,
        }
    }

    /// The next thing to do. Ask again after every call.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(due) => *due,
            State::Connecting(due) | State::Open(Open { due, .. }) => Some(*due),
            State::Over => None,
        }
    }

    /// True once it has nothing more to say, after [`Self::stop`].
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// This is what there is now.
    pub fn register(&mut self, registration: Registration, now: Instant) {
        if self.registration != registration && !self.stopping {
            self.registration = registration;
            self.begin_anew(now);
        }
    }

    /// The target goes: what the server has of it is taken back.
    pub fn stop(&mut self, now: Instant) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        if self.known.is_none() {
            self.hang_up();
            self.state = State::Over;
        } else {
            self.begin_anew(now);
        }
    }

    /// Says all that there is to say now, over the connection that there is.
    fn begin_anew(&mut self, now: Instant) {
        self.retry = RETRY.0;
        match &self.state {
            State::Open(open) => {
                let left = self.questions(open.local);
                let State::Open(open) = &mut self.state else { return };
                open.left = left;
                if open.asked.is_none() {
                    self.ask_next(now);
                }
            }
            State::Connecting(_) | State::Over => {}
            State::Waiting(_) => {
                self.state = State::Waiting(Some(now));
                self.handle_timeout(now);
            }
        }
    }

    fn hang_up(&mut self) {
        self.actions.retain(|action| matches!(action, Action::Tell(_)));
        if matches!(self.state, State::Connecting(_) | State::Open(_)) {
            self.actions.push_back(Action::Close);
        }
    }

    /// The connection is there; `local` is our end of it.
    pub fn connected(&mut self, local: IpAddr, now: Instant) {
        if matches!(self.state, State::Connecting(_)) {
            let left = self.questions(local.to_canonical());
            let (local, framer) = (local.to_canonical(), Framer::default());
            self.state = State::Open(Open { local, framer, asked: None, left, due: now });
            self.ask_next(now);
        }
    }

    /// Bytes came.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        let State::Open(open) = &mut self.state else { return };
        open.framer.push(bytes);
        loop {
            let State::Open(open) = &mut self.state else { return };
            match open.framer.next_message() {
                Ok(Some((header, payload))) => self.message(&header, &payload, now),
                Ok(None) => return,
                Err(_) => return self.fail(News::Senseless, now),
            }
        }
    }

    fn message(&mut self, header: &Header, payload: &[u8], now: Instant) {
        let State::Open(Open { asked, local, left, .. }) = &mut self.state else { return };
        let Some((purpose, transaction)) = *asked else { return };
        if (header.function, header.transaction)
            != (purpose.function() | function::RESPONSE, transaction)
        {
            // Not what we asked: a server may ask things of its own.
            return;
        }
        let Some((status, rest)) = payload.split_first_chunk::<4>() else {
            return self.fail(News::Senseless, now);
        };
        let status = Status(u32::from_be_bytes(*status));
        let Ok(answer) = Answer::read(rest, &self.registration.entity) else {
            return self.fail(News::Senseless, now);
        };
        match (purpose, status) {
            (Purpose::Register, Status::OK) => {
                // Zero is what servers say that never forget.
                let seconds = answer.period.filter(|seconds| *seconds > 0);
                self.period = seconds.map_or(PERIOD, |s| Duration::from_secs(s.into()));
            }
            (Purpose::Check, Status::OK) if answer.knows_us => self.retry = RETRY.0,
            (Purpose::Check, _) if left.is_empty() => {
                // It has forgotten us.
                let local = *local;
                let left = self.questions(local);
                if let State::Open(open) = &mut self.state {
                    open.left = left;
                }
            }
            // Something new is to be said anyway.
            (Purpose::Check, _) => {}
            // It had forgotten us before.
            (Purpose::Leave, Status::OK | Status::SOURCE_UNKNOWN | Status::NO_SUCH_ENTRY) => {}
            (_, status) => return self.fail(News::Refused(status), now),
        }
        self.ask_next(now);
    }

    /// No connection could be made, or it is lost.
    pub fn closed(&mut self, now: Instant) {
        if matches!(self.state, State::Connecting(_) | State::Open(_)) {
            self.fail(News::Unreachable, now);
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match &mut self.state {
            State::Waiting(_) if self.registration.nodes.is_empty() && self.known.is_none() => {
                self.state = State::Waiting(None);
            }
            State::Waiting(_) => {
                self.state = State::Connecting(now + ANSWER_MAX);
                self.actions.push_back(Action::Connect);
            }
            State::Connecting(_) => self.fail(News::Unreachable, now),
            State::Open(Open { asked: Some(_), .. }) => self.fail(News::Silent, now),
            State::Open(open) => {
                if let Some(known) = &self.known {
                    open.left.push_back((Purpose::Check, check(known)));
                }
                self.ask_next(now);
            }
            State::Over => {}
        }
    }

    fn fail(&mut self, news: News, now: Instant) {
        self.hang_up();
        if self.told != Some(news) {
            self.told = Some(news);
            self.actions.push_back(Action::Tell(news));
        }
        if self.stopping {
            // It will be forgotten when its period is over.
            self.state = State::Over;
            return;
        }
        self.state = State::Waiting(Some(now + self.retry));
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// The next question, or what follows the last answer.
    fn ask_next(&mut self, now: Instant) {
        let State::Open(open) = &mut self.state else { return };
        let last = open.asked.take().map(|(purpose, _)| purpose);
        if let Some((purpose, mut message)) = open.left.pop_front() {
            self.transaction = self.transaction.wrapping_add(1);
            Header::set_transaction(&mut message, self.transaction);
            open.asked = Some((purpose, self.transaction));
            open.due = now + ANSWER_MAX;
            self.actions.push_back(Action::Send(message));
            return;
        }
        match last {
            Some(Purpose::Register | Purpose::Check) => {
                open.due = now + (self.period / 3).clamp(CHECK.0, CHECK.1);
                if last == Some(Purpose::Register) {
                    self.told = None;
                    self.actions.push_back(Action::Tell(News::Registered));
                }
            }
            Some(Purpose::Leave) | None => {
                self.hang_up();
                self.known = None;
                self.told = None;
                let news = if last.is_some() { News::Gone } else { News::Nothing };
                self.actions.push_back(Action::Tell(news));
                self.state = if self.stopping { State::Over } else { State::Waiting(None) };
            }
        }
    }

    /// All that there is to say. What the server has of us under other names goes first.
    fn questions(&mut self, local: IpAddr) -> VecDeque<(Purpose, Vec<u8>)> {
        let Registration { entity, nodes } = &self.registration;
        let nodes: Vec<Reached<'_>> = match self.stopping {
            true => Vec::new(),
            false => nodes.iter().filter_map(|node| Reached::new(node, local)).collect(),
        };
        let now_known = nodes
            .first()
            .map(|first| Known { source: first.node.name.clone(), entity: entity.clone() });
        let mut questions = VecDeque::new();
        if let Some(known) = &self.known
            && self.known != now_known
        {
            questions.push_back((Purpose::Leave, deregistration(known)));
        }
        if let Some(known) = now_known {
            let messages = registrations(&known, &nodes);
            questions.extend(messages.into_iter().map(|message| (Purpose::Register, message)));
            self.known = Some(known);
        }
        questions
    }
}

/// What an answer says beside its status.
#[derive(Debug, Default)]
struct Answer {
    period: Option<u32>,
    knows_us: bool,
}

impl Answer {
    fn read(attributes: &[u8], entity: &str) -> Result<Self, crate::error::Malformed> {
        let (mut answer, mut in_key) = (Self::default(), true);
        for attribute in Attributes::new(attributes) {
            let attribute = attribute?;
            match attribute.tag {
                tag::DELIMITER => in_key = false,
                tag::PERIOD => answer.period = attribute.number(),
                // In the key of an answer stands what was asked about, there or not.
                tag::ENTITY if !in_key => {
                    answer.knows_us |= attribute.text().is_some_and(|text| text == entity);
                }
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// A node with those of its portals that those who ask the server can reach.
#[derive(Debug)]
struct Reached<'a> {
    node: &'a Node,
    portals: Vec<(SocketAddr, u16)>,
}

impl<'a> Reached<'a> {
    /// None if there is no such portal.
    fn new(node: &'a Node, local: IpAddr) -> Option<Self> {
        let portals: Vec<_> = node
            .portals
            .iter()
            .filter_map(|&(portal, group)| Some((reached(portal, local)?, group)))
            .collect();
        (!portals.is_empty()).then_some(Self { node, portals })
    }
}

/// Where a portal is reached: a wildcard at the address that the server is reached from, if that
/// is of its family; one on loopback only if the server is there, too.
fn reached(portal: SocketAddr, local: IpAddr) -> Option<SocketAddr> {
    let ip = match portal.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() != local.is_ipv4() => return None,
        ip if ip.is_unspecified() => local,
        ip if ip.is_loopback() && !local.is_loopback() => return None,
        ip => ip,
    };
    Some(SocketAddr::new(ip, portal.port()))
}

/// DevAttrReg (5.6.5.1), one message or more: the first replaces what the server has and brings
/// entity and portals, each brings some of the nodes.
fn registrations(known: &Known, nodes: &[Reached<'_>]) -> Vec<Vec<u8>> {
    let all = nodes.iter().flat_map(|node| node.portals.iter().map(|(portal, _)| *portal));
    let mut portals: Vec<SocketAddr> = all.collect();
    portals.sort_unstable();
    portals.dedup();
    portals.truncate(PORTALS_MAX);
    let begin = || {
        let mut writer = about(known);
        writer.text(tag::ENTITY, &known.entity).number(tag::PROTOCOL, PROTOCOL_ISCSI);
        writer.number(tag::PERIOD, PERIOD_SECONDS);
        writer
    };
    let mut writer = begin();
    for portal in &portals {
        writer.portal((tag::PORTAL_ADDRESS, tag::PORTAL_PORT), *portal);
    }
    let mut messages = Vec::new();
    let mut flags = flag::CLIENT | flag::REPLACE;
    for node in nodes {
        let one = storage_node(node, &portals);
        if writer.len() + one.len() > PAYLOAD_BYTES_MAX {
            messages.push(writer.message(function::REGISTER, flags));
            (writer, flags) = (begin(), flag::CLIENT);
        }
        writer.append(&one);
    }
    messages.push(writer.message(function::REGISTER, flags));
    messages
}

/// A storage node (6.4) and its portal groups (6.5). A server takes a node to be reached by every
/// portal of its entity, unless a portal group without a tag says that it is not (3.4).
fn storage_node(Reached { node, portals }: &Reached<'_>, all: &[SocketAddr]) -> Writer {
    let mut writer = Writer::default();
    writer.text(tag::NAME, &node.name).number(tag::NODE_TYPE, NODE_TARGET);
    if let Some(alias) = &node.alias {
        writer.text(tag::ALIAS, alias);
    }
    for portal in all {
        writer.text(tag::GROUP_NAME, &node.name);
        writer.portal((tag::GROUP_ADDRESS, tag::GROUP_PORT), *portal);
        match portals.iter().find(|(own, _)| own == portal) {
            Some((_, group)) => writer.number(tag::GROUP_TAG, (*group).into()),
            None => writer.put(tag::GROUP_TAG, &[]),
        };
    }
    writer
}

/// Who speaks, and about which entity.
fn about(known: &Known) -> Writer {
    let mut writer = Writer::default();
    writer.text(tag::NAME, &known.source);
    writer.text(tag::ENTITY, &known.entity).put(tag::DELIMITER, &[]);
    writer
}

/// DevAttrQry (5.6.5.2): is the entity still there? That renews its registration, too (6.2.6).
fn check(known: &Known) -> Vec<u8> {
    let mut writer = about(known);
    writer.put(tag::ENTITY, &[]);
    writer.message(function::QUERY, flag::CLIENT)
}

/// DevDereg (5.6.5.4).
fn deregistration(known: &Known) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.text(tag::NAME, &known.source).put(tag::DELIMITER, &[]);
    writer.text(tag::ENTITY, &known.entity);
    writer.message(function::DEREGISTER, flag::CLIENT)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
