//! Did the device, seen from the hosts, behave like one device that keeps its promises?
//!
//! The judge knows what no host knows: every version that every sector ever had, and when. So it
//! can say of each request whether it was done, and of each copy of a write whether it came too
//! late. Beside it, the checker that sees no more than the hosts do looks at every sector.

use std::collections::BTreeMap;

use corbel_initiator::request::{IoError, Operation};
use corbel_proto::time::{Duration, Instant};

use super::load::Record;
use super::store::{Loss, Store, Story};
use crate::checker::{Action, Command, Content, History, WriteId};

/// What a run may do.
#[derive(Debug, Clone)]
pub struct Law {
    /// Errors that were caused on purpose, by host.
    pub errors: Vec<IoError>,
    /// A flush may fail: a cache was lost, or a device's flush failed.
    pub flush_errors: bool,
    /// A write of this host must not take effect later than this after it was asked for.
    pub write_age_max: Option<(usize, Duration)>,
    /// From this moment on, nothing of this host takes effect: another has taken over.
    pub deposed: Option<(usize, Instant)>,
    /// A cable doubles frames. Whoever sent one has seen it answered, and lets a flush be answered,
    /// while its twin may still wait at the disk; no initiator can know. That the twin is not
    /// *stale* is judged all the same.
    pub doubled: bool,
    /// When each host could know first that the device has grown beyond so many sectors.
    pub grown: (u64, Vec<Option<Instant>>),
}

/// A device's no is passed on. Answers that are lost, and copies, explain no more than so many.
const REFUSED_MAX: u32 = 12;

type Records = BTreeMap<u64, Record>;

/// Judges a run.
///
/// # Errors
/// Everything that was wrong, in words.
pub fn judge(
    store: &Store,
    alien: &Store,
    records: &Records,
    law: &Law,
) -> Result<(), Vec<String>> {
    let mut faults = store.garbage.clone();
    for (sector, story) in alien.stories.iter().enumerate() {
        if let Some(version) = story.versions.get(1) {
            let id = version.id;
            faults.push(format!("another device's sector {sector} was given write {id:#x}"));
        }
    }
    for ((sector, id), times) in store.refused.iter().filter(|(_, times)| **times > REFUSED_MAX) {
        faults.push(format!("sector {sector} refused write {id:#x} {times} times, and again"));
    }
    for (number, record) in records {
        if let Err(fault) = answered(store, *number, record, law) {
            faults.push(fault);
        }
    }
    let flushes: Vec<(u64, Instant, Instant)> = good_flushes(records).collect();
    for (sector, story) in store.stories.iter().enumerate() {
        let of_sector = Sector { sector: sector as u64, story, records };
        let checks = [
            of_sector.stale(),
            if law.doubled { Ok(()) } else { of_sector.restless(&flushes) },
            of_sector.late(law),
            of_sector.linear(),
        ];
        faults.extend(checks.into_iter().filter_map(Result::err));
    }
    for loss in &store.losses {
        faults.extend(durable(store, loss, records).err());
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// The request was done as it says.
fn answered(store: &Store, number: u64, record: &Record, law: &Law) -> Result<(), String> {
    let Some((ended, result)) = record.ended else { return Ok(()) };
    let tell = |what: &str| Err(format!("{number:#x} ({record:?}) {what}"));
    let outside = record.sectors.end > law.grown.0;
    let grown = law.grown.1.get(record.host).copied().flatten();
    if outside && result.is_ok() && grown.is_none_or(|at| ended < at) {
        return tell("is outside the device");
    }
    if let Err(error) = result {
        let flush = matches!(record.operation, Operation::Flush);
        let allowed = (outside && error == IoError::Invalid)
            || law.errors.contains(&error)
            || (flush && law.flush_errors);
        return if allowed { Ok(()) } else { tell("failed without a reason") };
    }
    let wanted = match record.operation {
        Operation::Read => return read(store, number, record, ended),
        Operation::Write { .. } => number,
        Operation::WriteZeroes { .. } => 0,
        Operation::Flush | Operation::Discard => return Ok(()),
    };
    for sector in record.sectors.clone() {
        let story = &store.stories[place(sector)];
        let done =
            story.versions.iter().any(|v| v.id == wanted && (record.began..=ended).contains(&v.at));
        if !done {
            return tell(&format!("is acknowledged, but sector {sector} was not written"));
        }
    }
    Ok(())
}

fn place(sector: u64) -> usize {
    usize::try_from(sector).expect("a small disk")
}

fn read(store: &Store, number: u64, record: &Record, ended: Instant) -> Result<(), String> {
    for (sector, content) in record.sectors.clone().zip(&record.seen) {
        let story = &store.stories[place(sector)];
        let right = match content {
            Content::Of(id) => story.could_be_seen(record.began, ended).any(|seen| seen == *id),
            Content::Broken => false,
        };
        if !right {
            let could: Vec<_> = story.could_be_seen(record.began, ended).collect();
            return Err(format!(
                "{number:#x} ({record:?}) read {content:x?} in sector {sector}, which held \
                 {could:x?}"
            ));
        }
    }
    Ok(())
}

/// One sector's story, and everybody who wanted something there.
struct Sector<'a> {
    sector: u64,
    story: &'a Story,
    records: &'a Records,
}

impl Sector<'_> {
    fn of(&self, wanted: impl Fn(&Operation) -> bool) -> impl Iterator<Item = (u64, &Record)> {
        self.records
            .iter()
            .filter(move |(_, r)| r.sectors.contains(&self.sector) && wanted(&r.operation))
            .map(|(number, record)| (*number, record))
    }

    fn zeroing(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.of(|op| matches!(op, Operation::Discard | Operation::WriteZeroes { .. }))
    }

    /// Changes took effect in the order in which a host asked for them, and none again over a
    /// later one. Of two hosts': none over one that was asked for after it had been answered.
    fn stale(&self) -> Result<(), String> {
        let mut newest: Vec<u64> = Vec::new();
        for version in self.story.versions.iter().skip(1) {
            // Who wrote zeroes cannot be told: whoever may have done it without a fault.
            let may: Vec<u64> = if version.id == 0 {
                let asked = self.zeroing().filter(|(_, r)| r.began <= version.at);
                asked.map(|(number, _)| number).collect()
            } else {
                self.record(version.id)?;
                vec![version.id]
            };
            let right = |number: &&u64| newest.iter().all(|other| !self.beats(*other, **number));
            let Some(&number) = may.iter().find(right) else {
                return Err(format!(
                    "sector {}: a copy of write {:#x} took effect at {:?}, over the newer of \
                     {newest:#x?}",
                    self.sector, version.id, version.at
                ));
            };
            newest.retain(|other| other >> 40 != number >> 40);
            newest.push(number);
        }
        Ok(())
    }

    /// `newer` has taken effect; `older` must not any more.
    fn beats(&self, newer: u64, older: u64) -> bool {
        if newer >> 40 == older >> 40 {
            return newer > older;
        }
        let ended = self.records[&older].ended;
        ended.is_some_and(|(ended, _)| ended < self.records[&newer].began)
    }

    fn record(&self, id: WriteId) -> Result<&Record, String> {
        let known = self.records.get(&id).filter(|r| r.sectors.contains(&self.sector));
        known.ok_or_else(|| format!("sector {} was given {id:#x}, a stray", self.sector))
    }

    /// Once a flush is answered, no copy of anything that was answered before it came takes effect
    /// any more: a cluster may hand the disk over.
    fn restless(&self, flushes: &[(u64, Instant, Instant)]) -> Result<(), String> {
        for version in self.story.versions.iter().skip(1).filter(|version| version.id != 0) {
            let Some((answered, _)) = self.record(version.id)?.ended else { continue };
            let after = flushes.iter().find(|(host, began, ended)| {
                version.id >> 40 == *host && answered < *began && *ended < version.at
            });
            if let Some((_, began, ended)) = after {
                return Err(format!(
                    "sector {}: a copy of write {:#x} took effect at {:?}, after a flush from \
                     {began:?} to {ended:?}",
                    self.sector, version.id, version.at
                ));
            }
        }
        Ok(())
    }

    /// Nothing took effect past its time.
    fn late(&self, law: &Law) -> Result<(), String> {
        for version in self.story.versions.iter().skip(1) {
            let late = |record: &Record| {
                let asked = record.began;
                let aged = law
                    .write_age_max
                    .is_some_and(|(h, max)| h == record.host && asked + max < version.at);
                let deposed =
                    law.deposed.is_some_and(|(h, at)| h == record.host && at < version.at);
                aged || deposed
            };
            let is_late = if version.id == 0 {
                self.zeroing().filter(|(_, r)| r.began <= version.at).all(|(_, r)| late(r))
            } else {
                late(self.record(version.id)?)
            };
            if is_late {
                return Err(format!(
                    "sector {}: write {:#x} took effect at {:?}, past its time",
                    self.sector, version.id, version.at
                ));
            }
        }
        Ok(())
    }

    /// What the hosts saw of this sector has an order. Sectors that a lost cache set back are left
    /// out.
    fn linear(&self) -> Result<(), String> {
        let back = self.story.visible.windows(2).any(|pair| pair[1].1 < pair[0].1);
        if back {
            return Ok(());
        }
        let zeroed = self.zeroing().next().is_some();
        let mut history = History::new();
        for (number, record) in self.of(|op| !matches!(op, Operation::Flush)) {
            let good = record.ended.filter(|(_, result)| result.is_ok());
            let action = match record.operation {
                Operation::Write { .. } => Action::Write(number),
                Operation::Read if good.is_some() => {
                    let seen = record.seen[place(self.sector - record.sectors.start)];
                    if zeroed && seen == Content::Of(0) {
                        continue;
                    }
                    Action::Read(vec![seen])
                }
                _ => continue,
            };
            history.push(Command {
                client: u32::try_from(record.host).expect("few"),
                blocks: self.sector..self.sector + 1,
                began: record.began.as_nanos(),
                ended: good.map(|(ended, _)| ended.as_nanos()),
                action,
            });
        }
        history.check().map_err(|fault| format!("sector {}: {fault}", self.sector))
    }
}

/// Flushes that were answered well: whose, from when to when.
fn good_flushes(records: &Records) -> impl Iterator<Item = (u64, Instant, Instant)> {
    let flushes = records.iter().filter(|(_, record)| record.operation == Operation::Flush);
    flushes.filter_map(|(number, record)| match record.ended {
        Some((ended, Ok(()))) => Some((number >> 40, record.began, ended)),
        _ => None,
    })
}

/// What had been promised when a cache was lost is still there.
fn durable(store: &Store, loss: &Loss, records: &Records) -> Result<(), String> {
    let flushes: Vec<&Record> =
        records.values().filter(|r| matches!(r.operation, Operation::Flush)).collect();
    for (number, record) in records {
        let (wanted, fua) = match record.operation {
            Operation::Write { fua } => (*number, fua),
            Operation::WriteZeroes { fua, .. } => (0, fua),
            _ => continue,
        };
        let Some((ended, Ok(()))) = record.ended.filter(|(ended, _)| *ended < loss.at) else {
            continue;
        };
        let promised = fua || flushes.iter().any(|flush| covers(flush, &flushes, record, loss));
        if !promised {
            continue;
        }
        for sector in record.sectors.clone() {
            let versions = &store.stories[place(sector)].versions;
            let first = versions
                .iter()
                .position(|v| v.id == wanted && (record.began..=ended).contains(&v.at));
            if let Some(first) = first
                && loss.left[place(sector)] < first
                && versions[loss.left[place(sector)]].id != wanted
            {
                return Err(format!(
                    "write {number:#x} ({record:?}) was promised to be stable; a lost cache at \
                     {:?} left sector {sector} with version {} of {first}",
                    loss.at,
                    loss.left[place(sector)],
                ));
            }
        }
    }
    Ok(())
}

/// The flush promises the write: it began after the write was answered, and ended well before the
/// loss; and none had failed in between, which tells the application that writes may be lost.
fn covers(flush: &Record, all: &[&Record], write: &Record, loss: &Loss) -> bool {
    let (Some((written, _)), Some((flushed, Ok(())))) = (write.ended, flush.ended) else {
        return false;
    };
    let warned = all.iter().any(|other| {
        other.ended.is_some_and(|(at, result)| result.is_err() && written <= at && at <= flushed)
    });
    flush.host == write.host && written < flush.began && flushed < loss.at && !warned
}
