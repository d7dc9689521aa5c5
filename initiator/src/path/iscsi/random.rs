//! What is drawn from a path's seed.

use corbel_proto::iscsi::chap::{Algorithm, Secret, respond};
use corbel_proto::time::Duration;

/// A stream of numbers that cannot be told from those before by who does not know the seed: CHAP
/// challenges come from it.
#[derive(Debug)]
pub(super) struct Random {
    seed: Secret,
    drawn: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed: Secret::new(seed.to_be_bytes().to_vec()), drawn: 0 }
    }

    /// The next 32 bytes: SHA-256 of the seed and a count.
    fn next(&mut self) -> Vec<u8> {
        self.drawn += 1;
        respond(Algorithm::Sha256, 0, &self.seed, &self.drawn.to_be_bytes())
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(32) {
            part.copy_from_slice(&self.next()[..part.len()]);
        }
    }

    /// Less than `limit`, or zero.
    pub(super) fn below(&mut self, limit: Duration) -> Duration {
        let mut bytes = [0; 2];
        self.fill(&mut bytes);
        limit.mul_f64(f64::from(u16::from_be_bytes(bytes)) / 65_536.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_again_and_another_seed_others() {
        let draw = |seed| {
            let mut bytes = [0; 70];
            Random::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(1)[..32], draw(1)[32..64]);
    }

    #[test]
    fn durations_stay_below_their_limit() {
        let mut random = Random::new(7);
        let limit = Duration::from_millis(100);
        assert!((0..1000).all(|_| random.below(limit) < limit));
        assert_eq!(random.below(Duration::ZERO), Duration::ZERO);
    }
}
