//! The client's side of one AoE path: one local interface, one server address, one shelf.slot.
//!
//! A [`Path`] owns tags, copies, round-trip estimate and congestion window of that path. It never
//! decides about other paths: what to do with a command that failed, or how long to hold back a
//! write that overlaps one in doubt, is for its owner to say (see [`Completion::copies_lost`]).
//!
//! ```text
//! mod.rs        commands in, frames out, replies in, completions out
//! pending.rs    commands under way, and the order of their timers
//! tags.rs       which copy of which command a tag belongs to
//! wire.rs       what a command looks like in a frame, and what a reply says about it
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
mod pending;
mod tags;
mod wire;

use std::collections::VecDeque;

use smallvec::SmallVec;

pub use estimate::Timeouts;

use super::header::{Code, Error, Packet as HeaderPacket, Repr as HeaderRepr};
use super::{ATA_DATA_OFFSET, HEADER_BYTES, Mac, SECTOR_BYTES, VERSION};
use crate::ata::Fault;
use crate::time::{Duration, Instant};
use estimate::Estimate;
use pending::{Copies, Copy, Key, Pending, Table};
use tags::Tags;

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
    /// How long a copy is waited for.
    pub timeouts: Timeouts,
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
    /// DATA SET MANAGEMENT with TRIM.
    Trim {
        /// Whole blocks of [`TrimRanges`](crate::ata::command::TrimRanges), at most
        /// [`Config::sectors_max`].
        ranges: D,
    },
    /// READ SECTORS EXT that carries as many bytes as it asks for, which a server ignores. An
    /// answer shows that frames of this size come through both ways. (The Linux client does it.)
    Probe {
        /// First sector of 512 bytes.
        lba: u64,
        /// As long as what is read: whole sectors, 1 to [`Config::sectors_max`].
        padding: D,
    },
    /// FLUSH CACHE EXT.
    Flush,
    /// FLUSH CACHE, for servers that do not know the other (vblade).
    FlushShort,
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
    /// Their tags, so that late replies can be told ([`Path::handle_frame`] has forgotten them).
    /// Fewer than `copies_lost` if the oldest were forgotten already.
    pub lost_tags: SmallVec<[u32; 4]>,
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

/// A command that was taken back.
#[derive(Debug)]
pub struct Withdrawn<D> {
    /// Which.
    pub id: CommandId,
    /// The command itself.
    pub operation: Operation<D>,
    /// Copies sent; 0 if it never went out.
    pub copies_lost: u32,
    /// As in [`Completion::lost_tags`].
    pub lost_tags: SmallVec<[u32; 4]>,
    /// When the last copy was sent; when it was submitted, if none was.
    pub last_sent: Instant,
}

/// One path. See the module's text for how to drive it.
#[derive(Debug)]
pub struct Path<D> {
    config: Config,
    estimate: Estimate,
    tags: Tags,
    pending: Table<D>,
    /// Commands that wait for their next copy to be sent, oldest first. Names some that have ended.
    to_send: VecDeque<Key>,
    /// Live commands in `to_send`.
    waiting: usize,
    /// Commands with a copy on the wire.
    on_wire: usize,
    /// Given up, and not yet told. Names some that were answered since.
    failed: VecDeque<Key>,
    /// Commands whose copy was lost in this round. Empty between calls; kept for its memory.
    lost: Vec<Key>,
    /// See [`Self::unanswered`].
    unanswered: u32,
    counters: Counters,
}

impl<D: AsRef<[u8]>> Path<D> {
    /// A path without commands.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            estimate: Estimate::new(config.window_max, config.timeouts),
            tags: Tags::new(config.first_tag),
            pending: Table::new(),
            to_send: VecDeque::new(),
            waiting: 0,
            on_wire: 0,
            failed: VecDeque::new(),
            lost: Vec::new(),
            unanswered: 0,
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

    /// The tag that was used last. A path that takes over from this one starts with it, so that no
    /// tag is used twice.
    pub const fn last_tag(&self) -> u32 {
        self.tags.last()
    }

    /// Commands submitted and not ended.
    pub const fn len(&self) -> usize {
        self.pending.len()
    }

    /// No command is submitted.
    pub const fn is_empty(&self) -> bool {
        self.pending.len() == 0
    }

    /// How many more commands can go to the wire at once. More may be submitted; they wait.
    pub const fn room(&self) -> usize {
        self.estimate.window().saturating_sub(self.on_wire + self.waiting)
    }

    /// Of the commands that lost a copy since the last reply, how many copies the worst has lost. A
    /// path with several is dead, or its server very slow.
    pub const fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Most sectors in one command from now on. Commands under way stay as they are.
    pub const fn set_sectors_max(&mut self, sectors_max: u8) {
        self.config.sectors_max = sectors_max;
    }

    /// Takes a command. Its `id` is in no use.
    ///
    /// # Panics
    /// If the command does not keep to [`Operation`]'s limits.
    pub fn submit(&mut self, now: Instant, id: CommandId, operation: Operation<D>) {
        debug_assert!(self.pending.find(|other| other == id).is_none(), "{id:?} is in use");
        let sectors = match &operation {
            Operation::Read { sectors, .. } => usize::from(*sectors),
            Operation::Write { data, .. }
            | Operation::Trim { ranges: data }
            | Operation::Probe { padding: data, .. } => {
                assert!(data.as_ref().len().is_multiple_of(SECTOR_BYTES), "whole sectors");
                data.as_ref().len() / SECTOR_BYTES
            }
            Operation::Flush | Operation::FlushShort | Operation::Identify => 1,
        };
        assert!((1..=usize::from(self.config.sectors_max)).contains(&sectors), "a frame's worth");
        let key = self.pending.insert(Pending {
            id,
            operation,
            submitted: now,
            expires: now + self.config.give_up_after,
            copies: Copies::new(),
            sent_count: 0,
            due: None,
            failed: false,
        });
        self.to_send.push_back(key);
        self.waiting += 1;
    }

    /// Takes a command back, whatever became of it: the operation, and its copies on the wire.
    /// Looks at every command; for when things go wrong.
    pub fn withdraw(&mut self, id: CommandId) -> Option<(Operation<D>, u32)> {
        let withdrawn = self.withdraw_any(|other| other == id)?;
        Some((withdrawn.operation, withdrawn.copies_lost))
    }

    /// Takes back the first command that `wanted` says yes to, in no order. Looks at every command.
    pub fn withdraw_any(&mut self, wanted: impl FnMut(CommandId) -> bool) -> Option<Withdrawn<D>> {
        let key = self.pending.find(wanted)?;
        let pending = self.remove(key).expect("found just now");
        Some(Withdrawn {
            id: pending.id,
            copies_lost: pending.sent_count,
            lost_tags: pending.copies.iter().map(|copy| copy.tag).collect(),
            last_sent: pending.copies.last().map_or(pending.submitted, |copy| copy.sent),
            operation: pending.operation,
        })
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Frame<'_, D>> {
        if self.on_wire >= self.estimate.window() {
            return None;
        }
        let key = loop {
            let key = self.to_send.pop_front()?;
            if self.pending.get(key).is_some_and(|pending| !pending.failed) {
                break key;
            }
        };
        self.waiting -= 1;
        let tag = self.tags.take(key);
        let pending = self.pending.get_mut(key).expect("looked at above");
        if pending.copies.len() == COPIES_MAX {
            self.tags.release(pending.copies.remove(0).tag);
        }
        pending.copies.push(Copy { tag, sent: now });
        pending.sent_count += 1;
        self.counters.sent += 1;
        self.counters.repeated += u64::from(pending.sent_count > 1);
        let due = now + self.estimate.timeout(pending.sent_count);
        self.pending.wait_for(key, due);
        self.on_wire += 1;
        let operation = &self.pending.get(key).expect("looked at above").operation;
        let data = match operation {
            Operation::Write { data, .. }
            | Operation::Trim { ranges: data }
            | Operation::Probe { padding: data, .. } => Some(data),
            _ => None,
        };
        Some(Frame { head: wire::head(&self.config, tag, operation), data })
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pending.next()
    }

    /// Time has passed: copies not answered are repeated, commands too old fail.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((key, waited)) = self.pending.take_expired(now) {
            if waited {
                self.on_wire -= 1;
            } else {
                self.waiting -= 1;
            }
            self.failed.push_back(key);
        }
        while let Some(key) = self.pending.take_due(now) {
            self.on_wire -= 1;
            self.lost.push(key);
        }
        if self.lost.is_empty() {
            return;
        }
        // What is to be repeated goes first, the oldest before the others.
        for key in self.lost.drain(..).rev() {
            let lost = self.pending.get(key).map_or(0, |pending| pending.sent_count);
            self.unanswered = self.unanswered.max(lost);
            self.to_send.push_front(key);
            self.waiting += 1;
        }
        self.estimate.lost(now);
    }

    /// The host stood still: whatever is waited for gets this much more time.
    pub fn postpone(&mut self, by: Duration) {
        self.pending.postpone(by);
    }

    /// A command that was given up.
    pub fn poll_failed(&mut self) -> Option<Completion<'static, D>> {
        loop {
            let key = self.failed.pop_front()?;
            if let Some(pending) = self.remove(key) {
                return Some(completion(pending, Err(Failure::TimedOut), None));
            }
        }
    }

    /// A frame came in. The completion of the command it answers, if it does.
    pub fn handle_frame<'f>(&mut self, now: Instant, frame: &'f [u8]) -> Option<Completion<'f, D>> {
        let packet = HeaderPacket::new_checked(frame).ok()?;
        let header = HeaderRepr::parse(&packet);
        let ours = header.response
            && header.version == VERSION
            && header.source == self.config.remote
            && header.destination == self.config.local
            && (header.shelf, header.slot) == (self.config.shelf, self.config.slot)
            && header.code == Code::Ata;
        if !ours {
            return None;
        }
        let Some(key) = self.tags.get(header.tag) else {
            self.counters.late += u64::from(header.tag & TAG_USER != 0);
            return None;
        };
        let pending = self.pending.get(key).expect("a tag's command is under way");
        let judged = wire::judge(&pending.operation, header.error, &frame[HEADER_BYTES..]);
        let Some(result) = judged else {
            self.counters.malformed += 1;
            return None;
        };
        let copy = pending.copies.iter().find(|copy| copy.tag == header.tag);
        let sent = copy.expect("a tag belongs to a copy").sent;
        self.estimate.sample(now.since(sent));
        self.unanswered = 0;
        let pending = self.remove(key).expect("found above");
        Some(completion(pending, result, Some(header.tag)))
    }

    fn remove(&mut self, key: Key) -> Option<Pending<D>> {
        let pending = self.pending.remove(key)?;
        for copy in &pending.copies {
            self.tags.release(copy.tag);
        }
        if pending.due.is_some() {
            self.on_wire -= 1;
        } else if !pending.failed {
            self.waiting -= 1;
        }
        self.forget_stale();
        Some(pending)
    }

    /// Ended commands in `to_send` are few.
    fn forget_stale(&mut self) {
        if self.to_send.len() > 2 * self.waiting + 64 {
            let pending = &self.pending;
            self.to_send.retain(|&key| pending.get(key).is_some_and(|p| !p.failed));
        }
    }
}

fn completion<D>(
    pending: Pending<D>,
    result: Result<&[u8], Failure>,
    answered: Option<u32>,
) -> Completion<'_, D> {
    let lost = pending.copies.iter().map(|copy| copy.tag).filter(|tag| Some(*tag) != answered);
    Completion {
        id: pending.id,
        result,
        copies_lost: pending.sent_count - u32::from(answered.is_some()),
        lost_tags: lost.collect(),
        last_sent: pending.copies.last().map_or(pending.submitted, |copy| copy.sent),
        submitted: pending.submitted,
        operation: pending.operation,
    }
}

#[cfg(test)]
mod tests;
