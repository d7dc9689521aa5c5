//! What a process leaves to the next one, should it die: its caches (`flush.rs`), and how old the
//! changes are that the kernel will ask for again.
//!
//! The kernel does not tell how long a request has waited, so an age limit
//! ([`Policy::write_age_max`](super::policy::Policy::write_age_max)) would begin anew with each
//! process. Therefore it is written down, from time to time, since when the oldest change that has
//! not ended is under way; what the next process is asked in its first seconds is taken to be that
//! old. The price: new changes among them count as older than they are, by the time that the
//! device was without a process, and an eighth of the limit.

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

use super::Engine;

/// How long after a process has taken a device over it may be asked for what the one before owed.
/// The kernel's NBD client looks at each request every five seconds.
const ASKED_AGAIN_MAX: Duration = Duration::from_secs(6);
/// So many times within its limit the age of changes is written down.
const NOTES: u32 = 8;

/// What whoever takes the device over from this process must know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Legacy {
    /// A cache was lost with what it held, and no flush has said so yet.
    pub lost: bool,
    /// Volatile caches that may hold something.
    pub caches: Vec<CacheMark>,
    /// No change under way was asked for before this: nanoseconds of the clock that the engine is
    /// told, which must be the same for both processes. `None`: none is under way, or there is no
    /// limit to their age.
    #[serde(default)]
    pub changes_since: Option<u64>,
}

/// A volatile cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMark {
    /// See [`Facts::cache_domain`](crate::path::Facts::cache_domain).
    pub name: String,
    /// See [`Facts::instance`](crate::path::Facts::instance).
    pub instance: Option<String>,
}

/// How old changes are, before this process and after it.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// Since when changes are under way, as written down, and when that was.
    noted: Option<(Instant, Instant)>,
    version: u64,
    /// What an earlier process was asked for was asked for since then.
    inherited: Option<Instant>,
    /// Until then it may be asked for again; `None`: that has not begun.
    until: Option<Instant>,
}

impl Ages {
    /// When a change that comes now was asked for.
    fn begun(&mut self, now: Instant) -> Instant {
        let Some(since) = self.inherited else { return now };
        if self.until.is_some_and(|until| until <= now) {
            self.inherited = None;
            return now;
        }
        since.min(now)
    }
}

impl<B: Buffer> Engine<B> {
    /// An earlier process that had this device left this: no flush is answered before each of its
    /// caches was flushed, or cannot be reached by any path; and what it was asked for, and did
    /// not do, has waited since. To be called before anything else.
    pub fn inherit(&mut self, legacy: Legacy) {
        self.ages.inherited = legacy.changes_since.map(Instant::from_nanos);
        if self.rules.remember_caches {
            self.domains.remember(legacy);
        }
    }

    /// The kernel has been told that there is a process again: what it asks for from soon on is
    /// new.
    pub fn taken_over(&mut self, now: Instant) {
        self.ages.until.get_or_insert(now + ASKED_AGAIN_MAX);
    }

    /// What the next process is to be told, if this one dies. To be kept before anything is sent,
    /// whenever [`Engine::legacy_version`] has changed.
    pub fn legacy(&self) -> Legacy {
        let nanos = |(since, _): (Instant, Instant)| since.as_nanos();
        Legacy { changes_since: self.ages.noted.map(nanos), ..self.domains.marks() }
    }

    /// Another number for every other answer of [`Engine::legacy`].
    pub const fn legacy_version(&self) -> u64 {
        // Both only grow.
        self.domains.version() + self.ages.version
    }

    /// When a change that comes now was asked for.
    pub(super) fn change_begun(&mut self) -> Instant {
        self.ages.begun(self.now)
    }

    /// When the ages have to be written down anew.
    pub(super) fn ages_due(&self) -> Option<Instant> {
        let (_, at) = self.ages.noted?;
        let limit = self.policy.write_age_max.unwrap_or_default();
        Some(at + limit / NOTES)
    }

    /// Writes down how old changes are: as soon as there is one, and from time to time.
    pub(super) fn note_ages(&mut self) {
        let fresh = self.ages_due().is_some_and(|due| self.now < due);
        if fresh || (self.ages.noted.is_none() && self.policy.write_age_max.is_none()) {
            return;
        }
        let since = self.policy.write_age_max.and_then(|_| self.oldest_change());
        let noted = since.map(|since| (since, self.now));
        if noted != self.ages.noted {
            self.ages.noted = noted;
            self.ages.version += 1;
        }
    }

    fn oldest_change(&self) -> Option<Instant> {
        let changes = self.table.iter().filter(|(_, entry)| entry.operation.changes());
        changes.map(|(_, entry)| entry.submitted).min()
    }
}
