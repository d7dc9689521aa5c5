//! Readers beside a writer: how much of what is written may be at the device at a time.
//!
//! A device works on what it has in an order of its own. A writer with megabytes under way fills
//! its queue, and each read waits behind all of it, for milliseconds. While a volume is read, its
//! writes are therefore let through by the window; the others wait here, in order. A device is kept
//! busy by less than that. While nobody reads, nothing waits.
//!
//! What waits here waits for a write at the device, so it never waits for ever.

use std::collections::VecDeque;

use corbel_proto::time::{Duration, Instant};

use crate::host::{BlockOp, BlockToken};
use crate::volume::VolumeId;

/// Bytes of writes at the device while somebody reads: a few of the longest writes that clients
/// send, a few hundred microseconds of a fast device's time.
const WINDOW_BYTES: u64 = 1 << 20;

/// A volume is being read for this long after a read.
const READ_LATELY: Duration = Duration::from_millis(50);

/// The writes of one shard.
#[derive(Debug)]
pub(super) struct Paces<B> {
    /// By volume number.
    volumes: Vec<Pace<B>>,
}

#[derive(Debug)]
struct Pace<B> {
    read_at: Option<Instant>,
    /// Writes at the device, and their bytes.
    writes: u32,
    bytes: u64,
    held: VecDeque<(BlockOp<B>, BlockToken)>,
}

impl<B> Default for Paces<B> {
    fn default() -> Self {
        Self { volumes: Vec::new() }
    }
}

/// Tokens of writes are told from others by this bit; pieces are far fewer than 2^30 a request.
const WRITE: u64 = 1 << 62;

/// True if this is a write's token.
pub(super) const fn is_write(token: BlockToken) -> bool {
    token.0 & WRITE != 0
}

/// The token without what marks a write.
pub(super) const fn unmarked(token: BlockToken) -> BlockToken {
    BlockToken(token.0 & !WRITE)
}

impl<B> Paces<B> {
    fn of(&mut self, volume: VolumeId) -> &mut Pace<B> {
        let index = volume.0 as usize;
        if self.volumes.len() <= index {
            let idle = || Pace { read_at: None, writes: 0, bytes: 0, held: VecDeque::new() };
            self.volumes.resize_with(index + 1, idle);
        }
        &mut self.volumes[index]
    }

    /// An operation on its way to the device: it, if it may go now. A write is marked as such.
    pub(super) fn pass(
        &mut self,
        volume: VolumeId,
        op: BlockOp<B>,
        token: BlockToken,
        now: Instant,
    ) -> Option<(BlockOp<B>, BlockToken)> {
        match &op {
            BlockOp::Read { .. } => {
                self.of(volume).read_at = Some(now);
                Some((op, token))
            }
            BlockOp::Write { data, .. } => {
                let (bytes, token) = (u64::from(data.len), BlockToken(token.0 | WRITE));
                let pace = self.of(volume);
                if pace.held.is_empty() && pace.admits(bytes, now) {
                    pace.enter(bytes);
                    return Some((op, token));
                }
                pace.held.push_back((op, token));
                None
            }
            _ => Some((op, token)),
        }
    }

    /// A write of so many bytes is done with.
    pub(super) fn written(&mut self, volume: VolumeId, bytes: u64) {
        let pace = self.of(volume);
        pace.writes = pace.writes.saturating_sub(1);
        pace.bytes = if pace.writes == 0 { 0 } else { pace.bytes.saturating_sub(bytes) };
    }

    /// The next write that may go now.
    pub(super) fn next(
        &mut self,
        volume: VolumeId,
        now: Instant,
    ) -> Option<(BlockOp<B>, BlockToken)> {
        let pace = self.of(volume);
        let BlockOp::Write { data, .. } = &pace.held.front()?.0 else {
            unreachable!("only writes are held")
        };
        let bytes = u64::from(data.len);
        if !pace.admits(bytes, now) {
            return None;
        }
        pace.enter(bytes);
        pace.held.pop_front()
    }
}

impl<B> Pace<B> {
    fn enter(&mut self, bytes: u64) {
        self.writes += 1;
        self.bytes += bytes;
    }

    fn admits(&self, bytes: u64, now: Instant) -> bool {
        let read = self.read_at.is_some_and(|at| now.since(at) < READ_LATELY);
        !read || self.writes == 0 || self.bytes + bytes <= WINDOW_BYTES
    }
}

#[cfg(test)]
mod tests {
    use corbel_proto::memory::{HeapBuffer, Slice};

    use super::*;

    const VOLUME: VolumeId = VolumeId(2);
    const LEN: u32 = 256 << 10;

    fn write(paces: &mut Paces<HeapBuffer>, number: u64, now: Instant) -> bool {
        let data = Slice::whole(HeapBuffer::new(LEN as usize));
        paces.pass(VOLUME, BlockOp::Write { offset: 0, data }, BlockToken(number), now).is_some()
    }

    fn read(paces: &mut Paces<HeapBuffer>, now: Instant) {
        let data = Slice::whole(HeapBuffer::new(4096));
        let passed = paces.pass(VOLUME, BlockOp::Read { offset: 0, data }, BlockToken(7), now);
        assert_eq!(passed.expect("a read never waits").1, BlockToken(7));
    }

    #[test]
    fn without_readers_no_write_waits() {
        let mut paces = Paces::default();
        assert!((0..64).all(|number| write(&mut paces, number, Instant::ZERO)));
    }

    #[test]
    fn beside_a_reader_writes_go_by_the_window_and_in_order() {
        let (mut paces, now) = (Paces::default(), Instant::from_nanos(1 << 40));
        read(&mut paces, now);
        let passed = (0..64).filter(|number| write(&mut paces, *number, now)).count();
        assert_eq!(passed, 4);
        assert!(paces.next(VOLUME, now).is_none());
        for number in 4..64 {
            paces.written(VOLUME, LEN.into());
            let (_, token) = paces.next(VOLUME, now).expect("there is room");
            assert!(is_write(token));
            assert_eq!(unmarked(token), BlockToken(number));
        }
    }

    #[test]
    fn what_waits_goes_once_the_reader_is_gone() {
        let (mut paces, now) = (Paces::default(), Instant::from_nanos(1 << 40));
        read(&mut paces, now);
        assert!(!(0..64).all(|number| write(&mut paces, number, now)));
        (5..64).for_each(|number| assert!(!write(&mut paces, number, now)));
        paces.written(VOLUME, LEN.into());
        let later = now + READ_LATELY;
        assert_eq!(std::iter::from_fn(|| paces.next(VOLUME, later)).count(), 60);
    }

    #[test]
    fn a_write_longer_than_the_window_goes_when_it_is_alone() {
        let (mut paces, now) = (Paces::default(), Instant::from_nanos(1 << 40));
        read(&mut paces, now);
        let data = Slice::whole(HeapBuffer::new(4 << 20));
        let long = BlockOp::Write { offset: 0, data };
        assert!(paces.pass(VOLUME, long, BlockToken(1), now).is_some());
        assert!(!write(&mut paces, 2, now));
    }
}
