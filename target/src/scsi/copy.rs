//! Copies under way: chunk by chunk from one volume to another.
//!
//! A copy holds one chunk of memory, asks for reading rights before each chunk and for writing
//! rights after it was read, and takes its turn among all other requests on either volume. Who
//! ends the commands on either, ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use corbel_proto::memory::{Buffer, Segments};
use corbel_proto::scsi::copy::{self as wire, List, Place, Standing};
use corbel_proto::scsi::vpd::Designator;
use corbel_proto::scsi::{Condition, Sense};
use smallvec::{SmallVec, smallvec};

use super::LogicalUnit;
use super::commands::{port_groups, rw, sanitize};
use crate::reservation::{Access, NexusName};
use crate::volume::identity::VENDOR;
use crate::volume::request::segments_bytes;
use crate::volume::tokens::Named;
use crate::volume::{Kind, Outcome, Request, VolumeId};

/// Bytes that are copied at a time: what one copy has of the payload memory.
const CHUNK_BYTES: u64 = 1 << 20;

/// How far a copy is, for who asks by its list identifier.
#[derive(Debug)]
pub(super) struct Account {
    standing: AtomicU8,
    segments: AtomicU16,
    bytes: AtomicU64,
}

impl Account {
    fn new() -> Arc<Self> {
        let (standing, segments) = (AtomicU8::new(0), AtomicU16::new(0));
        Arc::new(Self { standing, segments, bytes: AtomicU64::new(0) })
    }

    pub(super) fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            0 => Standing::Running,
            1 => Standing::Done,
            _ => Standing::Failed,
        }
    }

    /// Bytes that were copied.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// COPY STATUS.
    pub(super) fn tell(&self) -> Vec<u8> {
        let segments = self.segments.load(Ordering::Acquire);
        wire::status(self.standing(), segments, self.bytes.load(Ordering::Acquire))
    }
}

/// One segment, checked.
#[derive(Debug)]
struct Span {
    source: Arc<LogicalUnit>,
    destination: Arc<LogicalUnit>,
    from: u64,
    to: u64,
    len: u64,
    /// Where it begins in the list.
    at: u16,
}

impl Span {
    /// The end first, where the beginning would be written over before it is read.
    fn backwards(&self) -> bool {
        let same = self.source.volume.id == self.destination.volume.id;
        same && self.from < self.to && self.to - self.from < self.len
    }

    /// Where in the span its next chunk is, with `done` bytes copied, and how long it is.
    fn chunk(&self, done: u64) -> (u64, u64) {
        let len = (self.len - done).min(CHUNK_BYTES);
        (if self.backwards() { self.len - done - len } else { done }, len)
    }
}

/// A copy between two chunks, or within one.
#[derive(Debug)]
pub struct Copy {
    who: NexusName,
    spans: Vec<Span>,
    current: usize,
    /// Bytes of the current span.
    done: u64,
    account: Arc<Account>,
    using: Option<Using>,
}

/// A token that says what is copied. As long as it is valid, its blocks are what they were.
#[derive(Debug)]
pub(super) struct Using {
    pub(super) named: Arc<Named>,
    /// Whose it is.
    pub(super) source: Arc<LogicalUnit>,
    /// Its number.
    pub(super) token: u64,
    /// It ends with the copy.
    pub(super) delete: bool,
}

/// What a copy does next.
#[derive(Debug)]
pub enum Progress<B> {
    /// This request.
    Submit(Request<B>),
    /// It is done.
    Done,
    /// It cannot go on.
    Failed(Sense),
}

/// A segment could not be processed: COPY ABORTED, with where it stands in the list.
fn aborted(condition: Condition, at: u16) -> Sense {
    let pointer = Sense::invalid_parameter(at, None).pointer;
    Sense { pointer, ..Sense::from(condition) }
}

impl Copy {
    /// The copy that `who` asks for by `list`, which reaches no units but `units` and `here`.
    /// Everything is checked before anything is copied.
    pub(super) fn new(
        list: &List,
        who: NexusName,
        here: &Arc<LogicalUnit>,
        units: &[Arc<LogicalUnit>],
    ) -> Result<Self, Sense> {
        let find = |place: Place, at: u16| -> Result<Arc<LogicalUnit>, Sense> {
            let Place::Listed(index) = place else { return Ok(here.clone()) };
            let name = list.units.get(usize::from(index)).and_then(|cscd| cscd.name.as_ref());
            let unit = units.iter().find(|unit| name.is_some_and(|name| unit.is_called(name)));
            // The port that the command came in by must serve the unit (SPC-4 5.15.2). As with all
            // commands, one that was taken before the state changed runs to its end.
            unit.filter(|unit| serves(unit, &who))
                .cloned()
                .ok_or_else(|| aborted(Condition::COPY_TARGET_DEVICE_NOT_REACHABLE, at))
        };
        let mut spans = Vec::with_capacity(list.segments.len());
        for segment in &list.segments {
            let source = find(segment.source, segment.at)?;
            let destination = find(segment.destination, segment.at)?;
            let block = |unit: &LogicalUnit| u64::from(unit.volume.facts.block_bytes);
            let counted = if segment.by_destination { &destination } else { &source };
            let len = u64::from(segment.blocks) * block(counted);
            if len % block(&source) != 0 || len % block(&destination) != 0 {
                return Err(aborted(Condition::UNEXPECTED_INEXACT_SEGMENT, segment.at));
            }
            let start = |unit: &LogicalUnit, lba: u64| {
                let offset = lba.checked_mul(block(unit))?;
                unit.volume.contains(offset, len).then_some(offset)
            };
            let from = start(&source, segment.source_lba);
            let to = start(&destination, segment.destination_lba);
            let (Some(from), Some(to)) = (from, to) else {
                return Err(aborted(Condition::COPY_ABORTED, segment.at));
            };
            let span = Span { source, destination, from, to, len, at: segment.at };
            span.may_read(&who)?;
            span.may_write(&who)?;
            spans.push(span);
        }
        Ok(Self { who, spans, current: 0, done: 0, account: Account::new(), using: None })
    }

    /// A copy of what a token names, beyond its first `skip` bytes, to ranges of
    /// `here`, which are no longer than that.
    pub(super) fn of_token(
        who: NexusName,
        here: &Arc<LogicalUnit>,
        (mut skip, to): (u64, &[(u64, u64)]),
        using: Using,
    ) -> Result<Self, Sense> {
        let source = &using.source;
        let mut spans = Vec::with_capacity(to.len());
        let mut places = to.iter().copied();
        let mut place = places.next();
        'ranges: for &(from, len) in &using.named.ranges {
            let mut at = skip.min(len);
            skip -= at;
            while at < len {
                let Some((to, room)) = place else { break 'ranges };
                let part = room.min(len - at);
                let (source, destination) = (source.clone(), here.clone());
                spans.push(Span { source, destination, from: from + at, to, len: part, at: 0 });
                at += part;
                place = if part < room { Some((to + part, room - part)) } else { places.next() };
            }
        }
        for span in &spans {
            if !span.serves(&who) || !source.volume.contains(span.from, span.len) {
                return Err(aborted(Condition::COPY_TARGET_DEVICE_NOT_REACHABLE, 0));
            }
            span.may_read(&who)?;
            span.may_write(&who)?;
        }
        let (account, using) = (Account::new(), Some(using));
        Ok(Self { who, spans, current: 0, done: 0, account, using })
    }

    /// What a token names has been changed.
    fn is_revoked(&self) -> bool {
        self.using.as_ref().is_some_and(|using| !using.named.is_valid())
    }

    pub(super) fn account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// The volumes that it works on now or later.
    pub fn volumes(&self) -> SmallVec<[VolumeId; 2]> {
        let mut out: SmallVec<[VolumeId; 2]> = smallvec![];
        for span in &self.spans[self.current.min(self.spans.len())..] {
            for volume in [span.source.volume.id, span.destination.volume.id] {
                if !out.contains(&volume) {
                    out.push(volume);
                }
            }
        }
        out
    }

    /// The next chunk, to be read.
    pub fn next_chunk<B: Buffer>(&mut self) -> Progress<B> {
        while let Some(span) = self.spans.get(self.current) {
            if self.done < span.len {
                if self.is_revoked() {
                    return self.fail(Condition::TOKEN_REVOKED.into());
                }
                if let Err(sense) = span.may_read(&self.who) {
                    return self.fail(sense);
                }
                let (at, len) = span.chunk(self.done);
                let kind = Kind::Read { offset: span.from + at, len };
                let volume = span.source.volume.clone();
                return Progress::Submit(Request { volume, kind, durable: false, lend: false });
            }
            (self.current, self.done) = (self.current + 1, 0);
            self.account.segments.fetch_add(1, Ordering::AcqRel);
        }
        if let Some(using) = self.using.as_ref().filter(|using| using.delete) {
            using.source.volume.tokens.delete(using.token);
        }
        self.account.standing.store(1, Ordering::Release);
        Progress::Done
    }

    /// What follows the end of a chunk's read or write.
    pub fn outcome<B: Buffer>(&mut self, outcome: Outcome<B>) -> Progress<B> {
        match outcome {
            Outcome::Data(data) => self.write(data),
            Outcome::Done => {
                let Some(span) = self.spans.get(self.current) else { return self.next_chunk() };
                let (_, len) = span.chunk(self.done);
                self.done += len;
                self.account.bytes.fetch_add(len, Ordering::AcqRel);
                self.next_chunk()
            }
            _ => {
                let at = self.spans.get(self.current).map_or(0, |span| span.at);
                self.fail(aborted(Condition::THIRD_PARTY_DEVICE_FAILURE, at))
            }
        }
    }

    fn write<B: Buffer>(&mut self, data: Segments<B>) -> Progress<B> {
        let Some(span) = self.spans.get(self.current) else { return self.next_chunk() };
        let (at, len) = span.chunk(self.done);
        if segments_bytes(&data) != len {
            return self.fail(aborted(Condition::THIRD_PARTY_DEVICE_FAILURE, span.at));
        }
        // Who changes it afterwards comes too late for what was read.
        if self.is_revoked() {
            return self.fail(Condition::TOKEN_REVOKED.into());
        }
        // It may have been fenced off while the chunk was read.
        if let Err(sense) = span.may_write(&self.who) {
            return self.fail(sense);
        }
        let durable = rw::durable(&span.destination, false);
        let kind = Kind::Write { offset: span.to + at, data };
        let volume = span.destination.volume.clone();
        Progress::Submit(Request { volume, kind, durable, lend: false })
    }

    fn fail<B>(&self, sense: Sense) -> Progress<B> {
        self.account.standing.store(2, Ordering::Release);
        Progress::Failed(sense)
    }
}

impl Drop for Copy {
    /// One that was aborted has failed.
    fn drop(&mut self) {
        let end = self.account.standing.compare_exchange(0, 2, Ordering::AcqRel, Ordering::Relaxed);
        let _ = end; // it had ended before
    }
}

/// True if the port that `who` comes in by serves the unit.
fn serves(unit: &LogicalUnit, who: &NexusName) -> bool {
    let (group, _) = unit.port_groups.of(who.port);
    port_groups::unready(group.state).is_none()
}

impl Span {
    fn serves(&self, who: &NexusName) -> bool {
        serves(&self.source, who)
    }

    fn may_read(&self, who: &NexusName) -> Result<(), Sense> {
        self.may(&self.source, who, Access::Reads)
    }

    fn may_write(&self, who: &NexusName) -> Result<(), Sense> {
        self.may(&self.destination, who, Access::Changes)?;
        match self.destination.protection() {
            Some(_) => Err(aborted(Condition::THIRD_PARTY_DEVICE_FAILURE, self.at)),
            None => Ok(()),
        }
    }

    fn may(&self, unit: &LogicalUnit, who: &NexusName, access: Access) -> Result<(), Sense> {
        let there =
            !unit.volume.is_gone() && unit.unready().is_none() && sanitize::refusal(unit).is_none();
        if there && unit.volume.reservations.rights(who).allow(access) {
            return Ok(());
        }
        Err(aborted(Condition::COPY_TARGET_DEVICE_NOT_REACHABLE, self.at))
    }
}

impl LogicalUnit {
    /// True if `name` is one that VPD page 83 tells of the unit.
    fn is_called(&self, name: &Designator) -> bool {
        let identity = &self.volume.identity;
        match name {
            Designator::Naa(naa) => *naa == identity.naa,
            Designator::T10Vendor { vendor, id } => vendor == VENDOR && *id == identity.serial,
            _ => false,
        }
    }
}
