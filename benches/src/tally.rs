//! Counts and latencies of one job, and of all together.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::stamp::Wrong;

/// Longest latency that is told apart, nanoseconds: ten minutes.
const LATENCY_MAX: u64 = 600 * 1_000_000_000;
/// Findings of `--verify`, and errors, that are kept word for word.
const KEPT_MAX: usize = 20;

/// One direction.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) requests: u64,
    latency: Histogram<u64>,
}

impl Side {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("valid bounds");
        Self { requests: 0, latency }
    }

    /// A request ended well after so many nanoseconds.
    pub(crate) fn count(&mut self, nanos: u64) {
        self.requests += 1;
        self.latency.saturating_record(nanos);
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.latency.add(&other.latency).expect("same bounds");
    }

    /// Latencies, or `None` if nothing was done.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        (self.requests > 0).then(|| Latency {
            min: self.latency.min(),
            mean: self.latency.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: self.latency.max(),
        })
    }
}

/// Nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) min: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p99_9: u64,
    pub(crate) max: u64,
}

/// What `--verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// Blocks read and judged.
    pub(crate) checked: u64,
    /// Blocks read that nothing was known of.
    pub(crate) unknown: u64,
    /// Blocks that were not what they should be.
    pub(crate) wrong: u64,
    pub(crate) stale: u64,
    pub(crate) torn: u64,
    pub(crate) misplaced: u64,
    pub(crate) damaged: u64,
    pub(crate) lost: u64,
    pub(crate) never_made: u64,
    /// The first findings, in words.
    pub(crate) findings: Vec<String>,
}

impl Verified {
    /// Takes in what became of one block.
    pub(crate) fn judged(&mut self, offset: u64, judgement: Result<bool, (u64, Wrong)>) {
        match judgement {
            Ok(true) => self.checked += 1,
            Ok(false) => self.unknown += 1,
            Err((sector, wrong)) => {
                self.checked += 1;
                self.wrong += 1;
                *match wrong {
                    Wrong::Stale { .. } => &mut self.stale,
                    Wrong::Torn { .. } => &mut self.torn,
                    Wrong::Misplaced { .. } => &mut self.misplaced,
                    Wrong::Damaged => &mut self.damaged,
                    Wrong::Lost { .. } => &mut self.lost,
                    Wrong::Unknown { .. } => &mut self.never_made,
                } += 1;
                if self.findings.len() < KEPT_MAX {
                    self.findings.push(format!("byte {offset}, sector {sector}: {wrong}"));
                }
            }
        }
    }

    fn add(&mut self, other: &Self) {
        self.checked += other.checked;
        self.unknown += other.unknown;
        self.wrong += other.wrong;
        self.stale += other.stale;
        self.torn += other.torn;
        self.misplaced += other.misplaced;
        self.damaged += other.damaged;
        self.lost += other.lost;
        self.never_made += other.never_made;
        let room = KEPT_MAX.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.iter().take(room).cloned());
    }
}

/// Everything that is counted.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) reads: Side,
    pub(crate) writes: Side,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// The first errors, in words.
    pub(crate) errors: Vec<String>,
    /// Commands sent again: the target was busy, or a frame was lost.
    pub(crate) repeated: u64,
    pub(crate) verified: Verified,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            reads: Side::new(),
            writes: Side::new(),
            failed: 0,
            errors: Vec::new(),
            repeated: 0,
            verified: Verified::default(),
        }
    }

    pub(crate) fn failed(&mut self, why: String) {
        self.failed += 1;
        if self.errors.len() < KEPT_MAX && !self.errors.contains(&why) {
            self.errors.push(why);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.failed += other.failed;
        self.repeated += other.repeated;
        self.verified.add(&other.verified);
        for error in &other.errors {
            if self.errors.len() < KEPT_MAX && !self.errors.contains(error) {
                self.errors.push(error.clone());
            }
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.reads.requests + self.writes.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_add_up_and_percentiles_are_those_of_all() {
        let (mut a, mut b) = (Tally::new(), Tally::new());
        for nanos in 1..=50 {
            a.reads.count(nanos);
            b.reads.count(nanos + 50);
        }
        b.writes.count(7);
        a.add(&b);
        let latency = a.reads.latency().unwrap();
        assert_eq!((a.requests(), latency.min, latency.max), (101, 1, 100));
        assert_eq!((latency.p50, latency.p90, latency.p99), (50, 90, 99));
        assert_eq!(Tally::new().reads.latency(), None);
    }

    #[test]
    fn each_kind_of_wrong_is_counted_and_told() {
        let mut verified = Verified::default();
        verified.judged(0, Ok(true));
        verified.judged(0, Ok(false));
        verified.judged(4096, Err((8, Wrong::Stale { found: 1, wanted: 2 })));
        verified.judged(4096, Err((9, Wrong::Damaged)));
        assert_eq!((verified.checked, verified.unknown, verified.wrong), (3, 1, 2));
        assert_eq!((verified.stale, verified.damaged), (1, 1));
        assert!(verified.findings[0].starts_with("byte 4096, sector 8: stale"));
    }

    #[test]
    fn a_flood_of_findings_is_counted_but_not_kept() {
        let mut verified = Verified::default();
        (0..1000).for_each(|_| verified.judged(0, Err((0, Wrong::Damaged))));
        assert_eq!((verified.wrong, verified.findings.len()), (1000, KEPT_MAX));
    }
}
