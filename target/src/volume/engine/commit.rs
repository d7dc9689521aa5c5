//! Group commit: one flush for all that wait for one.
//!
//! At most one flush per volume and shard is at the device. Whoever needs one while it flies waits
//! for the *next*: a flush covers only what had completed when it was submitted.

use crate::host::BlockToken;
use crate::volume::VolumeId;

/// The flushes of one shard.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// By volume number.
    volumes: Vec<Commit>,
    spare: Vec<usize>,
}

#[derive(Debug, Default)]
struct Commit {
    flying: bool,
    /// Requests that the flying flush covers.
    riding: Vec<usize>,
    /// Requests that came too late for it.
    waiting: Vec<usize>,
}

/// Tokens of flushes are told from tokens of pieces by the top bit; pieces are far fewer than
/// 2^31 per request.
const FLUSH: u64 = 1 << 63;

impl Commits {
    /// The token that a volume's flush is submitted with.
    pub(super) const fn token(volume: VolumeId) -> BlockToken {
        BlockToken(FLUSH | volume.0 as u64)
    }

    /// The volume, if this is a flush's token.
    #[allow(clippy::cast_possible_truncation)] // `token` put 32 bits there
    pub(super) const fn volume_of(token: BlockToken) -> Option<VolumeId> {
        if token.0 & FLUSH == 0 { None } else { Some(VolumeId(token.0 as u32)) }
    }

    /// `request` needs a flush submitted from now on. True: submit one now.
    pub(super) fn join(&mut self, volume: VolumeId, request: usize) -> bool {
        let index = volume.0 as usize;
        if self.volumes.len() <= index {
            self.volumes.resize_with(index + 1, Commit::default);
        }
        let commit = &mut self.volumes[index];
        if commit.flying {
            commit.waiting.push(request);
            return false;
        }
        commit.flying = true;
        commit.riding.push(request);
        true
    }

    /// The flying flush completed. Gives those it covered, and whether to submit another now.
    pub(super) fn landed(&mut self, volume: VolumeId) -> (Vec<usize>, bool) {
        let spare = std::mem::take(&mut self.spare);
        let commit = &mut self.volumes[volume.0 as usize];
        let riders = std::mem::replace(&mut commit.riding, spare);
        std::mem::swap(&mut commit.riding, &mut commit.waiting);
        commit.flying = !commit.riding.is_empty();
        (riders, commit.flying)
    }

    /// Takes back the list that [`Self::landed`] gave, to be used again.
    pub(super) fn recycle(&mut self, mut riders: Vec<usize>) {
        riders.clear();
        self.spare = riders;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latecomers_wait_for_the_next_flush_and_share_it() {
        let mut commits = Commits::default();
        let volume = VolumeId(3);
        assert!(commits.join(volume, 1));
        assert!(!commits.join(volume, 2));
        assert!(!commits.join(volume, 3));
        let (riders, again) = commits.landed(volume);
        assert_eq!((riders.as_slice(), again), (&[1][..], true));
        let (riders, again) = commits.landed(volume);
        assert_eq!((riders.as_slice(), again), (&[2, 3][..], false));
        assert!(commits.join(volume, 4));
    }

    #[test]
    fn tokens_tell_flushes_from_pieces() {
        assert_eq!(Commits::volume_of(Commits::token(VolumeId(9))), Some(VolumeId(9)));
        assert_eq!(Commits::volume_of(BlockToken(1 << 32 | 7)), None);
    }
}
