//! What each kind of request does at the medium, step by step.
//!
//! A [`Job`] is asked for its [`next`](Job::next) block operations when none of its own is
//! outstanding; it issues at least one and waits, or says what comes after.

mod cipher;
mod erase;

use std::sync::Arc;

use corbel_proto::memory::{Buffer, SEGMENT_BYTES_MAX, Slice};
use smallvec::SmallVec;

use self::erase::Erased;
use super::{Access, access};
use crate::host::{BlockError, BlockOp, Extent, Host};
use crate::volume::cipher::{Cipher, HEADER_BYTES, SLOT_BYTES};
use crate::volume::request::segments_bytes;
use crate::volume::{Erase, Kind, Outcome, Segments};

/// Block operations that one fill keeps at the device.
const FILL_DEPTH: u64 = 8;

/// Questions that one status asks the store at most.
const STATUS_ASKS_MAX: u32 = 64;

/// What the request does after the operations that it issued last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Operations are outstanding.
    Wait,
    /// Give the range back and ask for the next one.
    NextRange,
    /// The medium is done with.
    Finished,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Fresh,
    Reading,
    Writing,
    /// Between the write and the reading back of WRITE AND VERIFY.
    Flushing,
    /// The store is asked what it holds.
    Asking,
    /// A fill in one operation of the store's own.
    Zeroing,
    /// A fill by writing a pattern.
    Filling,
    /// A pass of an erasure is being made stable.
    Settling,
    /// The media key is being replaced.
    Renewing,
}

/// A request's kind and how far it is.
#[derive(Debug)]
pub(super) struct Job<B> {
    kind: Kind<B>,
    step: Step,
    /// Lent memory: what is read into, or the pattern of a fill. A piece is out while the store
    /// has it.
    scratch: SmallVec<[Option<Slice<B>>; 1]>,
    /// Bytes filled, or ranges discarded, so far.
    cursor: u64,
    miscompare: Option<u64>,
    /// What the store holds, as far as it was asked; how often it was; whether that is all.
    extents: Vec<Extent>,
    asks: u32,
    ended: bool,
    bytes: u64,
    erased: Erased,
    /// What the volume's blocks are encrypted with, if they are.
    cipher: Option<Arc<Cipher>>,
    /// The payload of a write cannot be encrypted where it is.
    copies: bool,
    /// The store is asked to lend it at once, before there is memory for it.
    borrows: bool,
}

impl<B: Buffer> Job<B> {
    /// `borrows`: what is only read has the store lend it.
    pub(super) fn new(mut kind: Kind<B>, borrows: bool, cipher: Option<Arc<Cipher>>) -> Self {
        let bytes = match &kind {
            Kind::Read { len, .. } | Kind::Verify { len, .. } | Kind::WriteSame { len, .. } => *len,
            Kind::Write { data, .. }
            | Kind::Or { data, .. }
            | Kind::WriteAndVerify { data, .. } => segments_bytes(data),
            Kind::CompareAndWrite { new, .. } => segments_bytes(new),
            Kind::Flush | Kind::Discard(_) | Kind::Status { .. } | Kind::Erase(_) => 0,
        };
        let copies = cipher.is_some() && !cipher::is_own(&mut kind);
        let borrows = borrows && matches!(kind, Kind::Read { .. }) && cipher.is_none();
        let (step, scratch, extents) = (Step::Fresh, SmallVec::new(), Vec::new());
        Self {
            kind,
            step,
            scratch,
            cursor: 0,
            miscompare: None,
            extents,
            asks: 0,
            ended: false,
            bytes,
            erased: Erased::default(),
            cipher,
            copies,
            borrows,
        }
    }

    /// True if it needs no memory, but has yet to [`Self::borrow`] what it reads.
    pub(super) const fn borrows(&self) -> bool {
        self.borrows
    }

    /// Has what it reads lent by the store. False: it will not, and memory is needed.
    pub(super) fn borrow(&mut self, lend: impl FnOnce(u64, u32) -> Option<B>) -> bool {
        self.borrows = false;
        let Kind::Read { offset, len } = self.kind else { unreachable!("only reads are lent") };
        let Some((len, buffer)) =
            u32::try_from(len).ok().and_then(|len| Some((len, lend(offset, len)?)))
        else {
            return false;
        };
        let mut left = Slice::part(buffer, 0, len);
        while left.len as usize > SEGMENT_BYTES_MAX {
            let piece = u32::try_from(SEGMENT_BYTES_MAX).expect("256 KiB");
            self.scratch.push(Some(left.sub(0, piece)));
            left = left.sub(piece, left.len - piece);
        }
        self.scratch.push(Some(left));
        true
    }

    pub(super) fn is_flush(&self) -> bool {
        matches!(self.kind, Kind::Flush)
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self.kind, Kind::Read { .. } | Kind::Verify { .. } | Kind::Status { .. })
    }

    /// Its flush of its own is at the store.
    pub(super) fn is_flushing(&self) -> bool {
        self.step == Step::Flushing
    }

    /// Bytes that the request is about; 0 for a flush.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn changes_medium(&self) -> bool {
        !(self.is_read() || self.is_flush()) && self.miscompare.is_none()
    }

    pub(super) fn touched_medium(&self) -> bool {
        self.step != Step::Fresh || self.cursor > 0
    }

    pub(super) fn needs_memory(&self) -> bool {
        self.scratch_bytes() > 0
    }

    fn scratch_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Read { .. } if self.borrows => 0,
            Kind::Read { len, .. } | Kind::Verify { len, .. } => *len,
            Kind::CompareAndWrite { expected, .. } => segments_bytes(expected),
            Kind::Or { data, .. } | Kind::WriteAndVerify { data, .. } => segments_bytes(data),
            Kind::WriteSame { len, .. } => (*len).min(SEGMENT_BYTES_MAX as u64),
            Kind::Write { data, .. } if self.copies => segments_bytes(data),
            Kind::Erase(Erase::Overwrite { .. }) => SEGMENT_BYTES_MAX as u64,
            Kind::Erase(_) if self.cipher.is_some() => SLOT_BYTES as u64,
            Kind::Write { .. }
            | Kind::Flush
            | Kind::Discard(_)
            | Kind::Status { .. }
            | Kind::Erase(_) => 0,
        }
    }

    /// Takes all the memory the job needs from `host`, or none and false.
    pub(super) fn lend<H: Host<Memory = B, Buf = B>>(&mut self, host: &mut H) -> bool {
        let mut left = self.scratch_bytes();
        while left > 0 {
            let len = left.min(SEGMENT_BYTES_MAX as u64);
            let Some(buffer) = host.alloc(usize::try_from(len).expect("at most a segment")) else {
                self.scratch.clear();
                return false;
            };
            let len = u32::try_from(len).expect("at most a segment");
            self.scratch.push(Some(Slice::part(buffer, 0, len)));
            left -= u64::from(len);
        }
        true
    }

    /// The bytes that must be the job's own for its next step: start, end, how.
    pub(super) fn range(&self) -> Option<(u64, u64, Access)> {
        let (offset, len, exclusive) = match &self.kind {
            Kind::Read { offset, len } | Kind::Verify { offset, len, .. } => (*offset, *len, false),
            Kind::Write { offset, data }
            | Kind::Or { offset, data }
            | Kind::WriteAndVerify { offset, data, .. } => (*offset, segments_bytes(data), true),
            Kind::WriteSame { offset, len, .. } => (*offset, *len, true),
            Kind::CompareAndWrite { offset, expected, .. } => {
                (*offset, segments_bytes(expected), true)
            }
            Kind::Discard(ranges) => {
                let (offset, len) = *ranges.get(usize::try_from(self.cursor).ok()?)?;
                (offset, len, true)
            }
            // All there is, and what it may grow by.
            Kind::Erase(_) => (0, u64::MAX, true),
            // A status is old when it arrives, with or without a range held.
            Kind::Flush | Kind::Status { .. } => return None,
        };
        (len > 0).then(|| (offset, offset + len, access(exclusive)))
    }

    /// One operation came back. What it failed with, if that fails the request.
    pub(super) fn piece_done(
        &mut self,
        piece: usize,
        result: Result<(), BlockError>,
        data: Option<Slice<B>>,
        volume_end: u64,
    ) -> Result<(), BlockError> {
        match (self.step, result) {
            // Where the store cannot tell, it holds everything.
            (Step::Asking, Err(BlockError::Unsupported)) => {
                let extent = Extent { len: u64::MAX, mapped: true };
                self.extent(extent, 1, volume_end);
                Ok(())
            }
            (Step::Reading, _) => {
                self.scratch[piece] = data;
                if self.cipher.is_some() && result.is_ok() {
                    self.decrypt(piece);
                }
                result
            }
            // A store that cannot deallocate keeps the data: allowed for a hint.
            (Step::Zeroing, Err(BlockError::Unsupported)) => {
                if self.is_erasure() {
                    // Here it is more than a hint.
                    return if self.zero_otherwise() { Ok(()) } else { result };
                }
                if matches!(self.kind, Kind::WriteSame { .. }) {
                    self.step = Step::Fresh;
                    self.cursor = 0;
                    self.start_filling();
                }
                Ok(())
            }
            _ => result,
        }
    }

    /// Issues the next operations. Only called while none is outstanding.
    pub(super) fn next(
        &mut self,
        failed: Option<BlockError>,
        issue: &mut dyn FnMut(BlockOp<B>),
    ) -> Progress {
        if failed.is_some() {
            return Progress::Finished;
        }
        if self.cipher.is_some() {
            if let Some(progress) = self.renew_key(issue) {
                return progress;
            }
            return self.go_on(&mut |op| issue(op.further(HEADER_BYTES)));
        }
        self.go_on(issue)
    }

    fn go_on(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        match (&self.kind, self.step) {
            (Kind::Flush, _) => Progress::Finished,
            (Kind::Discard(_), _) => self.discard(issue),
            (Kind::Status { .. }, _) => self.ask(issue),
            (Kind::WriteAndVerify { .. }, _) => self.write_and_verify(issue),
            (Kind::WriteSame { .. }, _) => self.fill(issue),
            (Kind::Erase(_), _) => self.erase(issue),
            (Kind::Write { offset, .. }, Step::Fresh) => {
                let offset = *offset;
                let Kind::Write { data, .. } = &mut self.kind else { unreachable!() };
                let data = std::mem::take(data);
                self.write(offset, data, issue)
            }
            (Kind::Read { offset, .. }, Step::Fresh)
            | (Kind::Verify { offset, .. }, Step::Fresh)
            | (Kind::CompareAndWrite { offset, .. }, Step::Fresh)
            | (Kind::Or { offset, .. }, Step::Fresh) => {
                let offset = *offset;
                self.read(offset, issue)
            }
            (_, Step::Reading) => self.after_reading(issue),
            _ => Progress::Finished,
        }
    }

    fn read(&mut self, mut offset: u64, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        self.step = Step::Reading;
        if self.scratch.is_empty() {
            return Progress::Finished;
        }
        for piece in &mut self.scratch {
            let data = piece.take().expect("lent, and no operation is outstanding");
            let len = u64::from(data.len);
            issue(BlockOp::Read { offset, data });
            offset += len;
        }
        Progress::Wait
    }

    fn write(
        &mut self,
        mut offset: u64,
        data: Segments<B>,
        issue: &mut dyn FnMut(BlockOp<B>),
    ) -> Progress {
        self.step = Step::Writing;
        if data.is_empty() {
            return Progress::Finished;
        }
        if self.cipher.is_some() {
            return self.write_encrypted(offset, data, issue);
        }
        for data in data {
            let len = u64::from(data.len);
            issue(BlockOp::Write { offset, data });
            offset += len;
        }
        Progress::Wait
    }

    fn after_reading(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        let read = self.scratch.iter().flatten();
        match &mut self.kind {
            Kind::Verify { expected: Some(expected), .. } => {
                self.miscompare = first_difference(read, expected.iter());
                Progress::Finished
            }
            Kind::CompareAndWrite { offset, expected, new } => {
                self.miscompare = first_difference(read, expected.iter());
                if self.miscompare.is_some() {
                    return Progress::Finished;
                }
                let (offset, new) = (*offset, std::mem::take(new));
                self.write(offset, new, issue)
            }
            Kind::Or { offset, data } => {
                let offset = *offset;
                let mut ones = data.iter().flat_map(|s| s.bytes().iter());
                for byte in self.scratch.iter_mut().flatten().flat_map(|s| s.bytes_mut()) {
                    *byte |= ones.next().expect("as much was read as there is to OR in");
                }
                let new = self.scratch.iter_mut().filter_map(Option::take).collect();
                self.write(offset, new, issue)
            }
            _ => Progress::Finished,
        }
    }

    fn write_and_verify(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        let Kind::WriteAndVerify { offset, data, compare } = &self.kind else {
            unreachable!("only called for one")
        };
        let (offset, compare) = (*offset, *compare);
        match self.step {
            Step::Fresh => {
                // Handles, not bytes, are copied.
                let data = data.clone();
                self.write(offset, data, issue)
            }
            Step::Writing => {
                self.step = Step::Flushing;
                issue(BlockOp::Flush);
                Progress::Wait
            }
            Step::Flushing => self.read(offset, issue),
            _ => {
                if compare {
                    self.miscompare = first_difference(self.scratch.iter().flatten(), data.iter());
                }
                Progress::Finished
            }
        }
    }

    /// Asks for the next extent.
    fn ask(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        let Kind::Status { offset, .. } = &self.kind else { unreachable!("only called for one") };
        let at = *offset + self.cursor;
        if self.step == Step::Fresh || self.step == Step::Asking && !self.knows_enough() {
            self.step = Step::Asking;
            issue(BlockOp::Status { offset: at });
            return Progress::Wait;
        }
        Progress::Finished
    }

    fn knows_enough(&self) -> bool {
        let Kind::Status { extents_max, .. } = &self.kind else { return true };
        // Alike neighbours became one, so that the count alone does not bound the work.
        self.extents.len() >= *extents_max || self.asks >= STATUS_ASKS_MAX || self.ended
    }

    /// The store's answer: `extent` from the cursor on. A block is deallocated only if all of it
    /// is.
    pub(super) fn extent(&mut self, extent: Extent, block: u64, volume_end: u64) {
        let Kind::Status { offset, .. } = &self.kind else { return };
        self.asks += 1;
        let at = offset + self.cursor;
        let left = volume_end.saturating_sub(at);
        if left == 0 {
            self.ended = true; // it shrank meanwhile
            return;
        }
        let len = extent.len.min(left);
        let whole = len - len % block;
        let (len, mapped) = match (extent.mapped, len % block) {
            (mapped, 0) => (len, mapped),
            (false, _) if whole > 0 => (whole, false),
            _ => ((whole + block).min(left), true),
        };
        self.cursor += len;
        self.ended = len == left;
        match self.extents.last_mut() {
            Some(last) if last.mapped == mapped => last.len += len,
            _ => self.extents.push(Extent { len, mapped }),
        }
    }

    fn discard(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        let Kind::Discard(ranges) = &self.kind else { unreachable!("only called for one") };
        let Ok(index) = usize::try_from(self.cursor) else { return Progress::Finished };
        let Some(&(offset, len)) = ranges.get(index) else { return Progress::Finished };
        if self.step == Step::Zeroing || len == 0 {
            self.step = Step::Fresh;
            self.cursor += 1;
            return Progress::NextRange;
        }
        self.step = Step::Zeroing;
        issue(BlockOp::Discard { offset, len });
        Progress::Wait
    }

    fn fill(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Progress {
        let Kind::WriteSame { offset, len, block, unmap } = &self.kind else {
            unreachable!("only called for one")
        };
        let (offset, len, unmap) = (*offset, *len, *unmap);
        let zeros = block.as_ref().is_none_or(|b| b.bytes().iter().all(|byte| *byte == 0));
        if self.cipher.is_some() {
            return self.fill_encrypted(offset, len, issue);
        }
        if self.step == Step::Fresh && len > 0 {
            if zeros {
                self.step = Step::Zeroing;
                issue(BlockOp::Zero { offset, len, unmap });
                return Progress::Wait;
            }
            self.start_filling();
        }
        if self.step != Step::Filling || self.cursor >= len {
            return Progress::Finished;
        }
        let pattern = self.scratch[0].clone().expect("a fill's pattern is never lent out");
        for _ in 0..FILL_DEPTH {
            let left = len - self.cursor;
            if left == 0 {
                break;
            }
            let bytes = u32::try_from(left).unwrap_or(u32::MAX).min(pattern.len);
            issue(BlockOp::Write { offset: offset + self.cursor, data: pattern.sub(0, bytes) });
            self.cursor += u64::from(bytes);
        }
        Progress::Wait
    }

    /// Repeats the block over the pattern buffer.
    fn start_filling(&mut self) {
        self.step = Step::Filling;
        let Kind::WriteSame { block, .. } = &self.kind else { unreachable!("only called for one") };
        let Some(pattern) = &mut self.scratch[0] else { unreachable!("lent at the first gate") };
        let pattern = pattern.bytes_mut();
        match block {
            None => pattern.fill(0),
            Some(block) => {
                for copy in pattern.chunks_mut(block.bytes().len()) {
                    copy.copy_from_slice(&block.bytes()[..copy.len()]);
                }
            }
        }
    }

    /// What was read or lent, which leaves it.
    pub(super) fn take_data(&mut self) -> Segments<B> {
        std::mem::take(&mut self.scratch).into_iter().flatten().collect()
    }

    /// How it ended, if nothing failed.
    pub(super) fn outcome(mut self) -> Outcome<B> {
        match (&self.kind, self.miscompare) {
            (_, Some(at)) => Outcome::Miscompare(at),
            (Kind::Read { .. }, None) => Outcome::Data(self.take_data()),
            (Kind::Status { .. }, None) => Outcome::Extents(self.extents),
            _ => Outcome::Done,
        }
    }
}

/// The first byte at which two equally long payloads differ, however each is cut in pieces.
fn first_difference<'a, B: Buffer + 'a>(
    left: impl Iterator<Item = &'a Slice<B>>,
    right: impl Iterator<Item = &'a Slice<B>>,
) -> Option<u64> {
    let mut left = left.map(Slice::bytes);
    let mut right = right.map(Slice::bytes);
    let (mut a, mut b): (&[u8], &[u8]) = (&[], &[]);
    let mut at = 0u64;
    loop {
        if a.is_empty() {
            a = left.next()?;
        }
        if b.is_empty() {
            b = right.next()?;
        }
        let len = a.len().min(b.len());
        if a[..len] != b[..len] {
            let differs = a.iter().zip(b).position(|(x, y)| x != y);
            return differs.map(|position| at + position as u64);
        }
        (a, b, at) = (&a[len..], &b[len..], at + len as u64);
    }
}
