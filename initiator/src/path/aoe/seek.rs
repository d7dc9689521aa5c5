//! Who is there, who it is, and whether long frames come through.

use corbel_proto::aoe::initiator::discover::{self, Found};
use corbel_proto::aoe::initiator::{self as proto, Failure, Path};
use corbel_proto::aoe::{Code, HeaderPacket, HeaderRepr, Mac, VERSION, sectors_fitting};
use corbel_proto::ata::Identify;
use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::payload::{Command, Frame, Payload};
use super::work::{IDENTIFY, PROBE_LONG, PROBE_SHORT};
use super::{AoePath, CONTROL_MAX, SIBLINGS_MAX, State, judge};
use crate::identity::Identity;
use crate::path::{Facts, PathEvent, PathFault, Verdict};
use crate::request::Operation;

/// First pause between two queries.
const ASK_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between two queries.
const ASK_MAX: Duration = Duration::from_secs(1);
/// Without an answer for so long, the server is silent.
const ASK_PATIENCE: Duration = Duration::from_secs(1);
/// Of queries to a server that answered once, each such is for everyone: it may have moved.
const ASK_EVERYONE_EVERY: u32 = 4;

/// What fits a frame that every Ethernet carries.
const MTU_PLAIN: u32 = 1500;
/// Copies of a long frame that are lost before short ones are tried.
const LONG_LOST_MAX: u32 = 3;

/// Priority of a path without a weight: that of an active path over iSCSI.
const PRIORITY: u32 = 50;

/// Asking who is there.
#[derive(Debug)]
pub(super) struct Seek {
    pub(super) next: Instant,
    wait: Duration,
    since: Instant,
    asked: u32,
}

impl Seek {
    const fn new(first: Instant) -> Self {
        Self { next: first, wait: ASK_FIRST, since: first, asked: 0 }
    }

    /// Asks soon, but not without end.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = self.next.min(now + ASK_FIRST);
    }
}

/// Trying what comes through. First a long frame; if that is lost, a short one until it is
/// answered, then the long one once more: a server that was only slow is not taken for a narrow
/// way.
#[derive(Debug)]
pub(super) struct Probe {
    /// Sectors of the long frame, if there are longer frames than plain ones.
    long: Option<u8>,
    short_answered: bool,
}

impl<B: Buffer> AoePath<B> {
    /// Looks for the server, from now on.
    pub(super) fn seek(&mut self, now: Instant) {
        self.seek_from(now, now);
    }

    fn seek_from(&mut self, now: Instant, first: Instant) {
        self.state = match self.link {
            Some(link) if link.up => State::Seeking(Seek::new(first)),
            _ => State::NoLink,
        };
        if let State::Seeking(_) = self.state {
            self.ask_on(now);
        }
    }

    /// The server answered, but there is nothing to be had: asks again later.
    fn refused(&mut self, now: Instant, fault: PathFault, complaint: &'static str) {
        self.complaint = Some(complaint);
        self.down(now, fault);
        self.seek_from(now, now + ASK_MAX);
    }

    /// Asks again if it is time.
    pub(super) fn ask_on(&mut self, now: Instant) {
        let State::Seeking(seek) = &mut self.state else { return };
        if seek.next > now {
            return;
        }
        seek.next = now + self.random.around(seek.wait);
        seek.wait = (seek.wait * 3 / 2).min(ASK_MAX);
        seek.asked += 1;
        let everyone =
            self.config.remote.is_none() && seek.asked.is_multiple_of(ASK_EVERYONE_EVERY);
        let silent = now.since(seek.since) >= ASK_PATIENCE;
        self.query(everyone);
        if silent {
            self.set_fault(PathFault::Silent);
        }
    }

    /// Sends a query: to the server, or to everyone if it is not known.
    pub(super) fn query(&mut self, everyone: bool) {
        let Some(link) = self.link else { return };
        let to = self.remote.filter(|_| !everyone).unwrap_or(Mac::BROADCAST);
        let (shelf, slot) = (self.config.shelf, self.config.slot);
        let query = discover::query_to(to, link.mac, shelf, slot, self.query_tag);
        if self.control.len() < CONTROL_MAX {
            self.control.push_back(Frame::short(&query));
        }
    }

    /// A frame of any kind came in.
    pub(super) fn hear(&mut self, now: Instant, frame: &[u8]) {
        let (Some(link), Ok(packet)) = (self.link, HeaderPacket::new_checked(frame)) else {
            return;
        };
        let header = HeaderRepr::parse(&packet);
        let ours = (header.shelf, header.slot) == (self.config.shelf, self.config.slot);
        if !(header.response && header.version == VERSION && ours) {
            return;
        }
        let from_server = Some(header.source) == self.remote;
        match header.code {
            Code::Config => {
                if let Some(found) = discover::parse(link.mac, frame) {
                    let asked = header.tag & !TAG_USER == self.query_tag;
                    self.hear_of(now, &found, asked);
                }
            }
            Code::Ata if from_server => {
                self.watch.heard = now;
                match self.wire.as_mut().and_then(|wire| wire.handle_frame(now, frame)) {
                    Some(done) => {
                        self.watch.answered = now;
                        self.dispatch(now, done);
                    }
                    None => {
                        let settled = self.doubts.answered(header.tag);
                        self.events.extend(settled.map(PathEvent::Settled));
                    }
                }
            }
            _ => {}
        }
    }

    /// Somebody says that it serves our shelf and slot; because we `asked`, or on its own. Who is
    /// not known yet is believed only if it could hear us ask.
    fn hear_of(&mut self, now: Instant, found: &Found, asked: bool) {
        let seeking = matches!(self.state, State::Seeking(_));
        match self.remote {
            Some(remote) if remote == found.remote => {}
            None if seeking && asked => self.remote = Some(found.remote),
            Some(_) if asked => return self.sibling(found.remote),
            _ => return,
        }
        self.watch.heard = now;
        if self.config_string != found.config {
            self.config_string.clone_from(&found.config);
        }
        match self.state {
            State::Seeking(_) => self.begin(now, found),
            State::Ready => {
                // An announcement: it was started again, or has changed.
                if !asked {
                    self.ask_identity(now);
                }
            }
            State::Idle | State::NoLink | State::Identifying | State::Probing(_) => {}
        }
    }

    fn sibling(&mut self, remote: Mac) {
        let wanted = self.config.remote.is_none() && self.remote.is_some();
        if wanted && self.siblings.len() < SIBLINGS_MAX && !self.siblings.contains(&remote) {
            self.siblings.push(remote);
        }
    }

    /// A conversation with the server begins: it is asked what it is.
    fn begin(&mut self, now: Instant, found: &Found) {
        let Some(link) = self.link else { return };
        let fitting = u8::try_from(sectors_fitting(link.mtu)).unwrap_or(u8::MAX);
        let most = fitting.min(found.sectors);
        if most == 0 {
            let small = "the MTU of the interface is too small for a sector";
            return self.refused(now, PathFault::LinkDown, small);
        }
        // Above 4 KiB, commands keep to its boundaries.
        self.sectors_full = if most >= 8 { most - most % 8 } else { most };
        self.sectors = self.sectors_full;
        let config = proto::Config {
            local: link.mac,
            remote: found.remote,
            shelf: self.config.shelf,
            slot: self.config.slot,
            sectors_max: self.sectors_full,
            window_max: self.config.depth.min(found.buffer_count).max(1),
            give_up_after: self.config.timers.give_up,
            timeouts: self.config.timers.repeat,
            first_tag: self.last_tag,
        };
        self.wire = Some(Path::new(config));
        self.flush_short = false;
        self.complaint = None;
        self.state = State::Identifying;
        self.watch.talk(now);
        self.command(now, IDENTIFY, Command::Identify);
    }

    /// Submits a command of the path's own. There is none of that number.
    pub(super) fn command(&mut self, now: Instant, id: proto::CommandId, command: Command<B>) {
        self.busy(now);
        if let Some(wire) = self.wire.as_mut() {
            wire.submit(now, id, command);
        }
    }

    /// The server is asked once more what its device is.
    pub(super) fn ask_identity(&mut self, now: Instant) {
        self.watch.check_next = Some(now + self.config.timers.check_every);
        if !self.watch.identifying {
            self.watch.identifying = true;
            self.command(now, IDENTIFY, Command::Identify);
        }
    }

    /// What the device says it is, or why it does not.
    pub(super) fn identified(&mut self, now: Instant, result: Result<&[u8], Failure>) {
        self.watch.identifying = false;
        let bytes = match result {
            Ok(bytes) => bytes,
            Err(Failure::TimedOut) => {
                if matches!(self.state, State::Identifying) {
                    self.down(now, PathFault::Silent);
                    self.seek(now);
                }
                return;
            }
            Err(failure) => {
                let fault = match judge::verdict(Operation::Read, failure) {
                    Verdict::Elsewhere(fault) => fault,
                    _ => PathFault::NoDevice,
                };
                return self.refused(now, fault, "the server refuses IDENTIFY DEVICE");
            }
        };
        match Identify::parse(bytes) {
            Err(_) => self.refused(now, PathFault::Protocol, "the IDENTIFY data is damaged"),
            Ok(identify) if identify.sectors == 0 => {
                self.refused(now, PathFault::NoDevice, "the device has no sectors");
            }
            Ok(identify) => self.known(now, identify),
        }
    }

    fn known(&mut self, now: Instant, identify: Identify) {
        let before = self.identify.replace(identify);
        let after = self.identify.as_ref().expect("put there above");
        match self.state {
            State::Identifying => self.probe(now),
            State::Ready => {
                self.events.push_back(PathEvent::Checked);
                let Some(before) = before.filter(|before| before != after) else { return };
                let name = |identify: &Identify| (identify.naa, identify.serial.clone());
                if name(&before) == name(after) {
                    self.events.push_back(PathEvent::Ready(Box::new(self.facts())));
                } else {
                    // Another device stands there now. Nothing goes to it before it was looked at.
                    self.down(now, PathFault::Mismatch);
                    self.seek(now);
                }
            }
            State::Idle | State::NoLink | State::Seeking(_) | State::Probing(_) => {}
        }
    }

    /// Tries what comes through, before anything depends on it.
    fn probe(&mut self, now: Instant) {
        let device = self.identify.as_ref().map_or(0, |identify| identify.sectors);
        let most = u8::try_from(device).unwrap_or(u8::MAX).min(self.sectors_full);
        let long = (u32::from(most) > sectors_fitting(MTU_PLAIN)).then_some(most);
        self.state = State::Probing(Probe { long, short_answered: false });
        match long {
            Some(sectors) => self.send_long(now, sectors),
            None => self.command(now, PROBE_SHORT, Command::Read { lba: 0, sectors: 1 }),
        }
    }

    fn send_long(&mut self, now: Instant, sectors: u8) {
        let padding = Payload::Padding(sectors);
        self.command(now, PROBE_LONG, Command::Probe { lba: 0, padding });
    }

    /// A probe was answered, or given up.
    pub(super) fn probed(&mut self, now: Instant, id: proto::CommandId, answered: bool) {
        match (&mut self.state, id) {
            (State::Probing(_), PROBE_LONG) if answered => self.ready(now),
            (State::Probing(_), PROBE_LONG) => self.long_lost(now),
            (State::Probing(_), _) if !answered => {
                // It may have gone silent since it said who it is, and another may speak next.
                self.down(now, PathFault::Silent);
                self.seek(now);
            }
            (State::Probing(probe), _) => {
                probe.short_answered = true;
                match probe.long {
                    Some(sectors) => self.send_long(now, sectors),
                    None => self.ready(now),
                }
            }
            (State::Ready, PROBE_LONG) if answered => self.sectors = self.sectors_full,
            _ => {}
        }
    }

    /// The long frame is taken for lost if enough copies of it were.
    pub(super) fn watch_probe(&mut self, now: Instant) {
        let lost = self.wire.as_ref().map_or(0, |wire| wire.unanswered()) >= LONG_LOST_MAX;
        if lost && self.withdraw_own(PROBE_LONG) {
            self.long_lost(now);
        }
    }

    fn long_lost(&mut self, now: Instant) {
        let State::Probing(probe) = &self.state else { return };
        if probe.short_answered {
            let plain = u8::try_from(sectors_fitting(MTU_PLAIN)).expect("a small constant");
            self.sectors = plain.min(self.sectors_full);
            self.ready(now);
        } else {
            self.command(now, PROBE_SHORT, Command::Read { lba: 0, sectors: 1 });
        }
    }

    /// Tries again what did not come through.
    pub(super) fn widen(&mut self, now: Instant) {
        let device = self.identify.as_ref().map_or(0, |identify| identify.sectors);
        let most = u8::try_from(device).unwrap_or(u8::MAX).min(self.sectors_full);
        self.withdraw_own(PROBE_LONG);
        self.send_long(now, most);
    }

    fn ready(&mut self, now: Instant) {
        self.state = State::Ready;
        self.fault = None;
        self.watch.work(now, &self.config.timers);
        self.events.push_back(PathEvent::Ready(Box::new(self.facts())));
    }

    fn facts(&self) -> Facts {
        let identify = self.identify.as_ref().expect("a device that is ready was identified");
        let at = format!("{}.{}", self.config.shelf, self.config.slot);
        let remote = self.remote.expect("a device that is ready has an address");
        Facts {
            identity: Identity::from_ata(identify),
            physical_block_bytes: 512 << identify.physical_exponent.min(15),
            optimal_bytes: 0,
            read_only: false,
            volatile_cache: self.has_cache(),
            discard: identify.trim_blocks > 0,
            write_zeroes: false,
            cache_domain: format!("aoe {at} {remote}"),
            instance: None,
            priority: self.config.weight.unwrap_or(PRIORITY),
            group_serial: format!("{at} {remote}"),
        }
    }
}

/// Set by whoever makes a query's frame.
const TAG_USER: u32 = 0x8000_0000;
