//! Everything on a volume made unreadable, step by step.

use corbel_proto::memory::Buffer;

use super::cipher::Renewal;
use super::{FILL_DEPTH, Job, Progress, Step};
use crate::host::BlockOp;
use crate::volume::{Erase, Kind};

/// Bytes that one deallocation covers at most, so that there is progress to tell of.
const DEALLOCATE_BYTES_MAX: u64 = 1 << 30;

/// How far an erasure is.
#[derive(Debug, Default)]
pub(super) struct Erased {
    /// Bytes of the volume now.
    size: u64,
    /// Passes that are stable.
    passes: u8,
    /// The store cannot deallocate: it zeroes in another way.
    keeps_room: bool,
    /// The replacement of the media key, until it is done.
    pub(super) renewal: Option<Box<Renewal>>,
    /// It is done.
    pub(super) renewed: bool,
}

impl<B: Buffer> Job<B> {
    /// Makes the volume's size known, which may have grown.
    pub(in crate::volume::engine) const fn measure(&mut self, size: u64) {
        self.erased.size = size;
    }

    pub(in crate::volume::engine) const fn is_erasure(&self) -> bool {
        matches!(self.kind, Kind::Erase(_))
    }

    /// Bytes that are done, of how many.
    pub(in crate::volume::engine) fn erasure(&self) -> (u64, u64) {
        let size = u128::from(self.erased.size);
        let done = size * u128::from(self.erased.passes) + u128::from(self.cursor);
        let all = size * u128::from(self.passes());
        // In units that fit: more than 2^64 bytes in 31 passes are told by their upper part.
        let unit = |bytes: u128| u64::try_from(bytes >> 8).unwrap_or(u64::MAX);
        (unit(done), unit(all))
    }

    /// Bytes that the operations issued last are about.
    pub(in crate::volume::engine) const fn batch(&self) -> u64 {
        match self.step {
            Step::Filling if self.cipher.is_some() => {
                corbel_proto::memory::SEGMENT_BYTES_MAX as u64
            }
            Step::Filling => FILL_DEPTH * corbel_proto::memory::SEGMENT_BYTES_MAX as u64,
            _ => 0,
        }
    }

    fn passes(&self) -> u8 {
        match &self.kind {
            Kind::Erase(Erase::Overwrite { passes, .. }) => *passes,
            _ => 1,
        }
    }

    /// The store cannot zero in the way it was asked to. True if there is another one.
    pub(super) const fn zero_otherwise(&mut self) -> bool {
        self.cursor = 0;
        !core::mem::replace(&mut self.erased.keeps_room, true)
    }

    pub(super) fn erase(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        if matches!(self.kind, Kind::Erase(Erase::NewKey)) {
            return Progress::Finished;
        }
        if self.cursor < self.erased.size {
            return match &self.kind {
                Kind::Erase(Erase::Deallocate) => self.deallocate(issue),
                _ => self.overwrite(issue),
            };
        }
        if self.step == Step::Settling {
            self.erased.passes += 1;
            if self.erased.passes >= self.passes() {
                return Progress::Finished;
            }
            self.cursor = 0;
            return self.overwrite(issue);
        }
        // Or the store's cache would write the last pass alone.
        self.step = Step::Settling;
        issue(BlockOp::Flush);
        Progress::Wait
    }

    /// Zeros by deallocation, or written where the store has nothing better.
    fn deallocate(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        let offset = self.cursor;
        let len = (self.erased.size - offset).min(DEALLOCATE_BYTES_MAX);
        self.step = Step::Zeroing;
        self.cursor += len;
        issue(BlockOp::Zero { offset, len, unmap: !self.erased.keeps_room });
        Progress::Wait
    }

    fn overwrite(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        if self.cipher.is_some() {
            return self.fill_encrypted(0, self.erased.size, issue);
        }
        if self.step != Step::Filling {
            self.step = Step::Filling;
            self.lay_pattern();
        }
        let pattern = self.scratch[0].clone().expect("a fill's pattern is never lent out");
        for _ in 0..FILL_DEPTH {
            let left = self.erased.size - self.cursor;
            if left == 0 {
                break;
            }
            let bytes = u32::try_from(left).unwrap_or(u32::MAX).min(pattern.len);
            issue(BlockOp::Write { offset: self.cursor, data: pattern.sub(0, bytes) });
            self.cursor += u64::from(bytes);
        }
        Progress::Wait
    }

    /// Repeats the block, as this pass has it, over the pattern buffer.
    pub(super) fn lay_pattern(&mut self) {
        let Kind::Erase(Erase::Overwrite { block, invert, .. }) = &self.kind else { return };
        let Some(pattern) = &mut self.scratch[0] else { unreachable!("lent at the first gate") };
        let flip = if *invert && self.erased.passes % 2 == 1 { 0xff } else { 0 };
        for copy in pattern.bytes_mut().chunks_mut(block.len()) {
            for (to, from) in copy.iter_mut().zip(block) {
                *to = from ^ flip;
            }
        }
    }
}
