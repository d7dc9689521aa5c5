//! Whether a volume is being sanitized, and what became of the last attempt (SBC-3 4.11).
//!
//! While it is, nobody else touches the medium, over any protocol: what was asked before waits for
//! nothing and fails, so that nothing old is written over what was made unreadable. A state file
//! tells before it begins and after it ended; a process that ended in between leaves a volume that
//! nobody reads until it is sanitized anew. FORMAT UNIT goes the same way where it has something to
//! do, and says so.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};

use crate::sealed::{Flaw, Form};

/// What may be done with the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Everything.
    Open = 0,
    /// It is being sanitized.
    Running = 1,
    /// That failed, and only another attempt can open it.
    Restricted = 2,
    /// That failed, and the initiator may open it as it is (AUSE).
    Unrestricted = 3,
}

impl Phase {
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Open,
            1 => Self::Running,
            2 => Self::Restricted,
            3 => Self::Unrestricted,
            _ => return None,
        })
    }
}

const FORM: Form = Form { magic: *b"CrSz", version: 1 };

/// What is done to the medium, as initiators are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// SANITIZE. With AUSE, the initiator may let a failure be.
    Sanitize {
        /// AUSE.
        unrestricted: bool,
    },
    /// FORMAT UNIT.
    Format,
}

impl Purpose {
    const fn code(self) -> u8 {
        match self {
            Self::Sanitize { unrestricted: false } => 0,
            Self::Sanitize { unrestricted: true } => 1,
            Self::Format => 2,
        }
    }
}

/// See the module. Part of a volume.
#[derive(Debug, Default)]
pub struct Sanitization {
    phase: AtomicU8,
    /// What the last attempt was for, by its code.
    purpose: AtomicU8,
    progress: AtomicU16,
    /// Attempts so far.
    attempts: AtomicU32,
}

impl Sanitization {
    /// What may be done.
    pub fn phase(&self) -> Phase {
        Phase::from_code(self.phase.load(Ordering::Acquire)).unwrap_or(Phase::Restricted)
    }

    /// Attempts begun so far. A request that sees another number than when it was submitted must
    /// not touch the medium.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Acquire)
    }

    /// How much is done, in 65,536ths.
    pub fn progress(&self) -> u16 {
        self.progress.load(Ordering::Relaxed)
    }

    pub(super) fn set_progress(&self, done: u64, of: u64) {
        let part = u128::from(done) * 65_536 / u128::from(of.max(1));
        self.progress.store(u16::try_from(part).unwrap_or(u16::MAX), Ordering::Relaxed);
    }

    /// Nobody else touches the medium from now on. Gives the phase before, for
    /// [`Self::abandon`]; `None` if somebody sanitizes it already.
    pub fn begin(&self, purpose: Purpose) -> Option<Phase> {
        let free = |code| (code != Phase::Running as u8).then_some(Phase::Running as u8);
        let before = self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        self.purpose.store(purpose.code(), Ordering::Release);
        self.progress.store(0, Ordering::Relaxed);
        self.attempts.fetch_add(1, Ordering::AcqRel);
        Phase::from_code(before)
    }

    /// A failed attempt is let be: nobody else begins until [`Self::end`] is called, when that is
    /// recorded. False if there is no failed attempt (any more).
    pub fn begin_reopening(&self) -> bool {
        let failed = |code| {
            let failed = [Phase::Restricted as u8, Phase::Unrestricted as u8].contains(&code);
            failed.then_some(Phase::Running as u8)
        };
        self.phase.fetch_update(Ordering::AcqRel, Ordering::Acquire, failed).is_ok()
    }

    /// What [`Self::begin`] began could not be recorded, and nothing was done.
    pub fn abandon(&self, before: Phase) {
        self.phase.store(before as u8, Ordering::Release);
    }

    /// The attempt is over.
    pub fn end(&self, done: bool) {
        self.phase.store(self.after(done) as u8, Ordering::Release);
    }

    fn after(&self, done: bool) -> Phase {
        match (done, self.purpose()) {
            (true, _) => Phase::Open,
            (false, Purpose::Sanitize { unrestricted: true }) => Phase::Unrestricted,
            (false, _) => Phase::Restricted,
        }
    }

    /// What is, or was, done to the medium. Means nothing while it is open.
    pub fn purpose(&self) -> Purpose {
        match self.purpose.load(Ordering::Acquire) {
            2 => Purpose::Format,
            code => Purpose::Sanitize { unrestricted: code == 1 },
        }
    }

    /// The state file, as things are.
    pub fn snapshot(&self) -> Vec<u8> {
        self.sealed(self.phase())
    }

    /// The state file as it is to be before [`Self::end`] is called.
    pub fn snapshot_after(&self, done: bool) -> Vec<u8> {
        self.sealed(self.after(done))
    }

    fn sealed(&self, phase: Phase) -> Vec<u8> {
        let mut out = FORM.begin();
        out.push(phase as u8);
        out.push(self.purpose().code());
        FORM.seal(out)
    }

    /// What the state file says. An attempt that was running when the process ended has failed.
    ///
    /// # Errors
    /// Why it cannot be believed.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), &'static str> {
        let damaged = "it is damaged";
        let content = FORM.open(bytes).map_err(|flaw| match flaw {
            Flaw::Foreign => "it is none that this version wrote",
            Flaw::Damaged => damaged,
        })?;
        let &[phase, purpose @ 0..=2] = content else { return Err(damaged) };
        let phase = Phase::from_code(phase).ok_or(damaged)?;
        self.purpose.store(purpose, Ordering::Release);
        match phase {
            Phase::Running => self.end(false),
            phase => self.phase.store(phase as u8, Ordering::Release),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_attempt_at_a_time_and_its_failure_is_as_it_was_asked_for() {
        let volume = Sanitization::default();
        let [plain, ause] = [false, true].map(|unrestricted| Purpose::Sanitize { unrestricted });
        assert_eq!(volume.begin(plain), Some(Phase::Open));
        assert_eq!(volume.begin(ause), None);
        volume.end(false);
        assert_eq!(volume.phase(), Phase::Restricted);
        assert_eq!(volume.begin(ause), Some(Phase::Restricted));
        volume.abandon(Phase::Restricted);
        assert_eq!(volume.phase(), Phase::Restricted);
        assert!(volume.begin(ause).is_some());
        volume.end(false);
        assert_eq!(volume.phase(), Phase::Unrestricted);
        assert!(volume.begin(ause).is_some());
        volume.end(true);
        assert_eq!(volume.phase(), Phase::Open);
    }

    #[test]
    fn attempt_that_its_process_did_not_outlive_has_failed() {
        for (purpose, after) in [
            (Purpose::Sanitize { unrestricted: false }, Phase::Restricted),
            (Purpose::Sanitize { unrestricted: true }, Phase::Unrestricted),
            (Purpose::Format, Phase::Restricted),
        ] {
            let before = Sanitization::default();
            assert!(before.begin(purpose).is_some());
            let volume = Sanitization::default();
            volume.restore(&before.snapshot()).unwrap();
            assert_eq!((volume.phase(), volume.purpose()), (after, purpose));
            before.end(true);
            volume.restore(&before.snapshot()).unwrap();
            assert_eq!(volume.phase(), Phase::Open);
        }
    }

    #[test]
    fn state_file_with_any_bit_wrong_is_not_believed() {
        let good = Sanitization::default().snapshot();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Sanitization::default().restore(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn progress_never_says_done() {
        let volume = Sanitization::default();
        volume.set_progress(1, 2);
        assert_eq!(volume.progress(), 32_768);
        volume.set_progress(u64::MAX, u64::MAX);
        assert_eq!(volume.progress(), u16::MAX);
    }
}
