//! Second chances for slow reads.

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::Engine;
use super::select::Candidates;
use super::table::{Key, Watch};

/// Steps for each doubling of the time.
const STEPS: u32 = 4;
const BUCKETS: usize = 40 * STEPS as usize;

/// After so many reads the older half of the weight is forgotten.
const MEMORY: u32 = 8192;

/// Fewer reads say nothing about the slowest of a thousand.
const READS_MIN: u32 = 100;

/// Second copies under way at most, beside a tenth of the reads.
const COPIES_MIN: usize = 8;

/// How long reads take, in steps of a fifth.
#[derive(Debug)]
pub(super) struct Latencies {
    counts: Vec<u32>,
    total: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

fn bucket(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(u64::from(STEPS));
    let doublings = nanos.ilog2();
    // The two bits below the highest.
    let step = (nanos >> (doublings - 2)) & u64::from(STEPS - 1);
    let at = u64::from(doublings * STEPS) + step;
    usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let at = bucket as u64 + 1;
    let (doublings, step) = (at / u64::from(STEPS), at % u64::from(STEPS));
    let nanos = if doublings < 2 { 1 << 2 } else { (u64::from(STEPS) + step) << (doublings - 2) };
    Duration::from_nanos(nanos)
}

impl Latencies {
    pub(super) fn add(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        self.total += 1;
        if self.total >= MEMORY {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// The time within which this share of reads is done; `None` before enough were seen.
    pub(super) fn quantile(&self, per_mille: u16) -> Option<Duration> {
        if self.total < READS_MIN {
            return None;
        }
        let wanted = u64::from(self.total) * u64::from(per_mille.min(1000));
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count) * 1000;
            if seen >= wanted {
                return Some(upper_end(at));
            }
        }
        None
    }
}

impl<B: Buffer> Engine<B> {
    /// How old a read's first copy gets before there is a second.
    fn hedge_after(&self) -> Option<Duration> {
        let hedge = self.policy.hedge?;
        if self.groups.working.len() < 2 {
            return None;
        }
        let slow = self.latencies.quantile(hedge.per_mille)?;
        Some(slow.max(hedge.after_min))
    }

    fn started(&self, key: Key) -> Option<Instant> {
        let first = self.table[key].tries.first()?;
        self.tries.get(*first).map(|attempt| attempt.started)
    }

    /// When the next read is slow.
    pub(super) fn hedge_at(&self) -> Option<Instant> {
        let head = self.table.reads.head()?;
        Some(self.started(head)? + self.hedge_after()?)
    }

    /// Asks once more for reads that take too long.
    pub(super) fn hedge(&mut self) {
        let Some(after) = self.hedge_after() else { return };
        while let Some(key) = self.table.reads.head() {
            match self.started(key) {
                Some(started) if started + after > self.now => return,
                _ => self.table.watch(key, Watch::None),
            }
            if self.table[key].dying.is_none() {
                self.second_copy(key);
            }
        }
    }

    fn second_copy(&mut self, key: Key) {
        let Some(first) = self.table[key].tries.first().and_then(|id| self.tries.get(*id)) else {
            return;
        };
        let slow = first.path;
        let failed = &self.table[key].failed;
        let other = |index: &usize| {
            let id = self.paths[*index].id;
            id != slow && !failed.contains(&id)
        };
        let group: Candidates = self.groups.members.iter().copied().filter(other).collect();
        let any = || self.groups.working.iter().copied().filter(other).collect();
        let candidates: Candidates = if group.is_empty() { any() } else { group };
        let copies_max = COPIES_MIN.max(self.tries.len() / 10);
        if candidates.is_empty() || self.copies() >= copies_max {
            return;
        }
        let index = self.select(&candidates, self.table[key].extent.len);
        self.counters.hedged += 1;
        self.start(key, index, true);
        if let Some(slow) = self.index_of(slow) {
            self.check(slow);
        }
    }

    /// Second copies under way.
    fn copies(&self) -> usize {
        self.table.iter().filter(|(_, entry)| entry.tries.len() > 1).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_a_step_of_the_truth() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(999), None);
        for n in 1..=1000u64 {
            latencies.add(Duration::from_micros(n));
        }
        for per_mille in [500, 900, 990, 999] {
            let truth = Duration::from_micros(u64::from(per_mille));
            let told = latencies.quantile(per_mille).unwrap();
            assert!(told >= truth && told <= truth * 5 / 4, "{per_mille}: {told:?}");
        }
    }

    #[test]
    fn old_reads_are_forgotten() {
        let mut latencies = Latencies::default();
        (0..8000).for_each(|_| latencies.add(Duration::from_millis(100)));
        (0..60_000).for_each(|_| latencies.add(Duration::from_micros(100)));
        assert!(latencies.quantile(990).unwrap() < Duration::from_millis(1));
    }

    #[test]
    fn no_time_is_too_short_or_too_long() {
        let mut latencies = Latencies::default();
        (0..200).for_each(|_| latencies.add(Duration::ZERO));
        assert!(latencies.quantile(1000).unwrap() < Duration::from_nanos(10));
        (0..200).for_each(|_| latencies.add(Duration::MAX));
        assert!(latencies.quantile(1000).unwrap() > Duration::from_secs(100));
    }
}
