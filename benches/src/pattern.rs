//! Which block is next, and whether it is read or written.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// What is done, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) random: bool,
    /// Percent of the requests that read.
    pub(crate) reads: u8,
}

impl Mix {
    pub(crate) const fn writes(self) -> bool {
        self.reads < 100
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, percent) = match text.split_once('=') {
            Some((kind, percent)) => (kind, Some(percent)),
            None => (text, None),
        };
        let wrong = || {
            format!(
                "`{text}` is no load; write read, write, randread, randwrite, rw=70 or randrw=70 \
                 (percent of reads)"
            )
        };
        let (random, kind) = match kind.strip_prefix("rand") {
            Some(kind) => (true, kind),
            None => (false, kind),
        };
        let reads = match (kind, percent) {
            ("read", None) => 100,
            ("write", None) => 0,
            ("rw", None) => 50,
            ("rw", Some(percent)) => percent.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        };
        if reads > 100 { Err(wrong()) } else { Ok(Self { random, reads }) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rand = if self.random { "rand" } else { "" };
        match self.reads {
            100 => write!(f, "{rand}read"),
            0 => write!(f, "{rand}write"),
            reads => write!(f, "{rand}rw={reads}"),
        }
    }
}

/// SplitMix64: ten lines, and the same seed gives the same blocks for years.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to below `end`, by multiplication: no division on the hot path.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(end);
        u64::try_from(wide >> 64).expect("the upper half of 128 bits")
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

/// The blocks of one job.
#[derive(Debug)]
pub(crate) struct Pattern {
    mix: Mix,
    rng: Rng,
    blocks: Range<u64>,
    next: u64,
}

impl Pattern {
    /// Requests in `blocks`; those in order begin with block `first` and go round.
    ///
    /// # Panics
    /// If there are no blocks.
    pub(crate) fn new(mix: Mix, seed: u64, blocks: Range<u64>, first: u64) -> Self {
        assert!(!blocks.is_empty(), "a job has blocks");
        Self { mix, rng: Rng::new(seed), next: first, blocks }
    }

    /// The next block, and whether it is written.
    pub(crate) fn next(&mut self) -> (u64, bool) {
        let write = match self.mix.reads {
            100 => false,
            0 => true,
            reads => self.rng.below(100) >= u64::from(reads),
        };
        let block = if self.mix.random {
            self.blocks.start + self.rng.below(self.blocks.end - self.blocks.start)
        } else {
            let block = self.next;
            self.next = if block + 1 < self.blocks.end { block + 1 } else { self.blocks.start };
            block
        };
        (block, write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_read_back_as_they_are_shown() {
        for text in ["read", "write", "randread", "randwrite", "rw=50", "randrw=70"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        for bad in ["", "rand", "reads", "randrw=101", "randrw=", "read=50", "randrw=-1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn blocks_in_order_go_round_their_range() {
        let mut pattern = Pattern::new("read".parse().unwrap(), 1, 3..6, 4);
        let blocks: Vec<_> = (0..5).map(|_| pattern.next()).collect();
        assert_eq!(blocks, [(4, false), (5, false), (3, false), (4, false), (5, false)]);
    }

    #[test]
    fn random_blocks_fill_their_range_evenly_and_never_leave_it() {
        let mut pattern = Pattern::new("randrw=70".parse().unwrap(), 7, 100..110, 100);
        let (mut hits, mut writes) = ([0_u32; 10], 0);
        for _ in 0..10_000 {
            let (block, write) = pattern.next();
            hits[usize::try_from(block).unwrap() - 100] += 1;
            writes += u32::from(write);
        }
        assert!(hits.iter().all(|hits| (850..1150).contains(hits)), "{hits:?}");
        assert!((2700..3300).contains(&writes), "{writes}");
    }

    #[test]
    fn a_seed_gives_the_same_blocks_again() {
        let run = || {
            let mut pattern = Pattern::new("randrw=50".parse().unwrap(), 42, 0..1 << 40, 0);
            (0..100).map(|_| pattern.next()).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
