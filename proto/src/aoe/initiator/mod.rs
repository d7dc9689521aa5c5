//! The client's side of one AoE path: one local interface, one server address, one shelf.slot.
//!
//! A [`Path`] owns tags, copies, round-trip estimate and congestion window of that path. It never
//! decides about other paths: what to do with a command that failed, or how long to hold back a
//! write that overlaps one in doubt, is for its owner to say (see [`Completion::copies_lost`]).
//!
//! ```text
//! mod.rs        commands in, frames out, replies in, completions out
//! estimate.rs   round-trip time and congestion window
//! discover.rs   Query Config: who is there
//! ```
//!
//! How to drive it: after every call that takes `now`, take frames with [`Path::poll_transmit`]
//! until there are none, failed commands with [`Path::poll_failed`] until there are none, and set
//! one timer to [`Path::poll_timeout`].
//!
//! Every copy of a command has its own tag, so a reply says which copy it answers: the round-trip
//! estimate is never fooled, and a reply to any copy completes the command. (AoEr11 2.8; the Linux
//! client does the same.)

pub mod discover;
mod estimate;

use std::collections::{BTreeMap, VecDeque};

use super::ata::{Packet as AtaPacket, Repr as AtaRepr};
use super::header::{Code, Error, Packet as HeaderPacket, Repr as HeaderRepr};
use super::{ATA_DATA_OFFSET, HEADER_BYTES, Mac, SECTOR_BYTES, VERSION};
use crate::ata::command::opcode;
use crate::ata::{Fault, Registers};
use crate::time::{Duration, Instant};
use estimate::Estimate;

/// Tags of user space have this bit; the Linux kernel's client ignores replies that have it, so
/// both can use one interface.
const TAG_USER: u32 = 0x8000_0000;

/// Copies of one command that are remembered. An older copy's reply is not recognised.
const COPIES_MAX: usize = 16;

/// What a path is, and how patient.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Address of the local interface.
    pub local: Mac,
    /// Address of the server's interface.
    pub remote: Mac,
    /// Shelf, as the server's reply named it.
    pub shelf: u16,
    /// Slot.
    pub slot: u8,
    /// Most sectors in one command: the server's, and what fits the interface's MTU.
    pub sectors_max: u8,
    /// Most commands on the wire: the server's buffer count, and the caller's limit. At least 1.
    pub window_max: u16,
    /// A command is repeated until it is this old, then it fails with [`Failure::TimedOut`].
    pub give_up_after: Duration,
    /// First tag, from a random source, so that replies to an earlier life are not taken for ours.
    pub first_tag: u32,
}

/// What a command does. `D` holds the bytes of a write.
#[derive(Debug, Clone)]
pub enum Operation<D> {
    /// READ SECTORS EXT.
    Read {
        /// First sector of 512 bytes.
        lba: u64,
        /// Sectors, 1 to [`Config::sectors_max`].
        sectors: u8,
    },
    /// WRITE SECTORS EXT.
    Write {
        /// First sector of 512 bytes.
        lba: u64,
        /// Whole sectors, 1 to [`Config::sectors_max`].
        data: D,
    },
    /// FLUSH CACHE EXT.
    Flush,
    /// IDENTIFY DEVICE; completes with 512 bytes.
    Identify,
}

/// The caller's name of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub u64);

/// Why a command ended without its effect being known to have taken place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The device says no; definite, another path would say the same.
    Device(Fault),
    /// The server refuses the command (AoE error); definite for this server.
    Refused(Error),
    /// No reply for [`Config::give_up_after`]: the path's fault. The effect may still take place.
    TimedOut,
}

/// How a command ended. `'f` is the frame that ended it.
#[derive(Debug)]
pub struct Completion<'f, D> {
    /// Which command.
    pub id: CommandId,
    /// The command itself, so that its owner may try it elsewhere.
    pub operation: Operation<D>,
    /// What was read (empty for a write or flush), or why it failed.
    pub result: Result<&'f [u8], Failure>,
    /// Copies sent that no reply was seen for. They may still be on the wire, and a write among
    /// them may still land, until the last is older than a frame's maximum life.
    pub copies_lost: u32,
    /// When the last copy was sent.
    pub last_sent: Instant,
    /// When the command was submitted.
    pub submitted: Instant,
}

/// A frame to be sent: `head`, then `data`. Pad it to 60 bytes if it is shorter.
#[derive(Debug)]
pub struct Frame<'a, D> {
    /// Ethernet, AoE and ATA headers.
    pub head: [u8; ATA_DATA_OFFSET],
    /// The bytes of a write.
    pub data: Option<&'a D>,
}

/// Counts since the path was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames sent.
    pub sent: u64,
    /// Of these, copies after the first.
    pub repeated: u64,
    /// Replies to a command that had ended already.
    pub late: u64,
    /// Frames that could not be read or did not fit what they answer.
    pub malformed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Copy {
    tag: u32,
    sent: Instant,
}

#[derive(Debug)]
struct Pending<D> {
    operation: Operation<D>,
    submitted: Instant,
    copies: Vec<Copy>,
    sent_count: u32,
    /// When the last copy is given up; `None` while one waits to be sent.
    due: Option<Instant>,
}

/// One path. See the module's text for how to drive it.
#[derive(Debug)]
pub struct Path<D> {
    config: Config,
    estimate: Estimate,
    next_tag: u32,
    pending: BTreeMap<CommandId, Pending<D>>,
    by_tag: BTreeMap<u32, CommandId>,
    /// Commands that wait for their next copy to be sent, oldest first.
    to_send: VecDeque<CommandId>,
    /// Commands with a copy on the wire.
    on_wire: usize,
    failed: VecDeque<CommandId>,
    counters: Counters,
}

impl<D: AsRef<[u8]>> Path<D> {
    /// A path without commands.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            estimate: Estimate::new(config.window_max),
            next_tag: config.first_tag,
            pending: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            to_send: VecDeque::new(),
            on_wire: 0,
            failed: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// What the path was made from.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Counts since the path was made.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Smoothed round-trip time; `None` before the first reply.
    pub const fn round_trip(&self) -> Option<Duration> {
        self.estimate.round_trip()
    }

    /// Commands submitted and not ended.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// No command is submitted.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many more commands can go to the wire at once. More may be submitted; they wait.
    pub fn room(&self) -> usize {
        self.estimate.window().saturating_sub(self.on_wire + self.to_send.len())
    }

    /// Takes a command.
    ///
    /// # Panics
    /// If `id` is in use, or the command does not keep to [`Operation`]'s limits.
    pub fn submit(&mut self, now: Instant, id: CommandId, operation: Operation<D>) {
        let sectors = match &operation {
            Operation::Read { sectors, .. } => usize::from(*sectors),
            Operation::Write { data, .. } => {
                assert!(data.as_ref().len().is_multiple_of(SECTOR_BYTES), "whole sectors");
                data.as_ref().len() / SECTOR_BYTES
            }
            Operation::Flush | Operation::Identify => 1,
        };
        assert!((1..=usize::from(self.config.sectors_max)).contains(&sectors), "a frame's worth");
        let pending =
            Pending { operation, submitted: now, copies: Vec::new(), sent_count: 0, due: None };
        assert!(self.pending.insert(id, pending).is_none(), "a command has its own number");
        self.to_send.push_back(id);
    }

    /// Takes a command back, whatever became of it: the operation, and its copies on the wire.
    pub fn withdraw(&mut self, id: CommandId) -> Option<(Operation<D>, u32)> {
        self.failed.retain(|&failed| failed != id);
        self.remove(id).map(|pending| (pending.operation, pending.sent_count))
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Frame<'_, D>> {
        if self.on_wire >= self.estimate.window() {
            return None;
        }
        let id = self.to_send.pop_front()?;
        let tag = self.take_tag();
        let pending = self.pending.get_mut(&id).expect("what waits to be sent is pending");
        if pending.copies.len() == COPIES_MAX {
            self.by_tag.remove(&pending.copies.remove(0).tag);
        }
        pending.copies.push(Copy { tag, sent: now });
        pending.sent_count += 1;
        pending.due = Some(now + self.estimate.timeout(pending.sent_count));
        self.by_tag.insert(tag, id);
        self.on_wire += 1;
        self.counters.sent += 1;
        self.counters.repeated += u64::from(pending.sent_count > 1);
        let data = match &pending.operation {
            Operation::Write { data, .. } => Some(data),
            _ => None,
        };
        Some(Frame { head: head(&self.config, tag, &pending.operation), data })
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let give_up = self.config.give_up_after;
        self.pending
            .values()
            .map(|p| {
                let end = p.submitted + give_up;
                p.due.map_or(end, |due| due.min(end))
            })
            .min()
    }

    /// Time has passed: copies not answered are repeated, commands too old fail.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut lost = false;
        for (&id, pending) in &mut self.pending {
            if self.failed.contains(&id) {
                continue;
            }
            if pending.submitted + self.config.give_up_after <= now {
                self.failed.push_back(id);
            } else if pending.due.is_some_and(|due| due <= now) {
                pending.due = None;
                self.on_wire -= 1;
                self.to_send.push_front(id);
                lost = true;
            }
        }
        if lost {
            self.estimate.lost(now);
        }
    }

    /// A command that was given up.
    pub fn poll_failed(&mut self) -> Option<Completion<'static, D>> {
        let id = self.failed.pop_front()?;
        let pending = self.remove(id).expect("what failed is still pending");
        Some(completion(id, pending, Err(Failure::TimedOut), 0))
    }

    /// A frame came in. The completion of the command it answers, if it does.
    pub fn handle_frame<'f>(&mut self, now: Instant, frame: &'f [u8]) -> Option<Completion<'f, D>> {
        let packet = HeaderPacket::new_checked(frame).ok()?;
        let header = HeaderRepr::parse(&packet);
        let ours = header.response
            && header.version == VERSION
            && header.source == self.config.remote
            && (header.shelf, header.slot) == (self.config.shelf, self.config.slot)
            && header.code == Code::Ata;
        if !ours {
            return None;
        }
        let Some(&id) = self.by_tag.get(&header.tag) else {
            self.counters.late += u64::from(header.tag & TAG_USER != 0);
            return None;
        };
        let pending = &self.pending[&id];
        let Some(result) = judge(&pending.operation, header.error, &frame[HEADER_BYTES..]) else {
            self.counters.malformed += 1;
            return None;
        };
        let copy = pending.copies.iter().find(|copy| copy.tag == header.tag);
        let sent = copy.expect("a tag belongs to a copy").sent;
        self.estimate.sample(now.since(sent));
        let pending = self.remove(id).expect("found above");
        self.failed.retain(|&failed| failed != id);
        Some(completion(id, pending, result, 1))
    }

    fn remove(&mut self, id: CommandId) -> Option<Pending<D>> {
        let pending = self.pending.remove(&id)?;
        for copy in &pending.copies {
            self.by_tag.remove(&copy.tag);
        }
        if pending.due.is_some() {
            self.on_wire -= 1;
        } else {
            self.to_send.retain(|&waiting| waiting != id);
        }
        Some(pending)
    }

    fn take_tag(&mut self) -> u32 {
        loop {
            self.next_tag = self.next_tag.wrapping_add(1);
            let tag = self.next_tag | TAG_USER;
            if !self.by_tag.contains_key(&tag) {
                return tag;
            }
        }
    }
}

fn completion<D>(
    id: CommandId,
    pending: Pending<D>,
    result: Result<&[u8], Failure>,
    answered: u32,
) -> Completion<'_, D> {
    Completion {
        id,
        result,
        copies_lost: pending.sent_count - answered,
        last_sent: pending.copies.last().map_or(pending.submitted, |copy| copy.sent),
        submitted: pending.submitted,
        operation: pending.operation,
    }
}

/// What a reply says about the operation it answers; `None` if it cannot be the answer.
fn judge<'f, D>(
    operation: &Operation<D>,
    error: Option<Error>,
    argument: &'f [u8],
) -> Option<Result<&'f [u8], Failure>> {
    if let Some(error) = error {
        return Some(Err(Failure::Refused(error)));
    }
    let ata = AtaPacket::new_checked(argument).ok()?;
    if let Some(fault) = Fault::from_registers(&ata.registers()) {
        return Some(Err(Failure::Device(fault)));
    }
    let wanted = match operation {
        Operation::Read { sectors, .. } => usize::from(*sectors) * SECTOR_BYTES,
        Operation::Identify => SECTOR_BYTES,
        Operation::Write { .. } | Operation::Flush => 0,
    };
    let data = &argument[super::ata::ARGUMENT_BYTES..];
    data.get(..wanted).map(Ok)
}

fn head<D: AsRef<[u8]>>(
    config: &Config,
    tag: u32,
    operation: &Operation<D>,
) -> [u8; ATA_DATA_OFFSET] {
    let (command, lba, count, write) = match operation {
        Operation::Read { lba, sectors } => (opcode::READ_SECTORS_EXT, *lba, *sectors, false),
        Operation::Write { lba, data } => {
            let sectors = u8::try_from(data.as_ref().len() / SECTOR_BYTES);
            (opcode::WRITE_SECTORS_EXT, *lba, sectors.expect("checked when submitted"), true)
        }
        Operation::Flush => (opcode::FLUSH_CACHE_EXT, 0, 0, false),
        Operation::Identify => (opcode::IDENTIFY_DEVICE, 0, 1, false),
    };
    let registers = Registers { count, command_status: command, ..Registers::default() };
    let ata = AtaRepr {
        extended: !matches!(operation, Operation::Identify),
        device: false,
        asynchronous: false,
        write,
        registers: registers.with_lba(lba),
    };
    let header = HeaderRepr {
        destination: config.remote,
        source: config.local,
        version: VERSION,
        response: false,
        error: None,
        shelf: config.shelf,
        slot: config.slot,
        code: Code::Ata,
        tag,
    };
    let mut bytes = [0; ATA_DATA_OFFSET];
    header.emit(&mut HeaderPacket::new_unwritten(&mut bytes[..]));
    ata.emit(&mut bytes[HEADER_BYTES..]);
    bytes
}

#[cfg(test)]
mod tests;
