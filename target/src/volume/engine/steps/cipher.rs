//! The steps of requests on encrypted volumes: encrypted just before the store is asked to write,
//! decrypted as soon as it has read.
//!
//! A write's payload is encrypted where it is if nobody else holds it, and else in memory lent for
//! that. What is compared later, or repeated, stays plain and is encrypted as a copy.

use corbel_proto::memory::{Buffer, SEGMENT_BYTES_MAX, Slice};

use super::{Job, Progress, Step};
use crate::host::BlockOp;
use crate::volume::cipher::xts::UNIT_BYTES;
use crate::volume::cipher::{SLOT_BYTES, Successor};
use crate::volume::{Kind, Segments};

/// A media key on its way to the store.
#[derive(Debug)]
pub(super) struct Renewal {
    next: Successor,
    step: Renew,
}

/// What is done next.
#[derive(Debug, Clone, Copy)]
enum Renew {
    /// The new key is written to its slot.
    Write,
    /// It is made stable.
    Keep,
    /// The old key is overwritten.
    Wipe,
    /// That is made stable.
    Settle,
    /// The new key comes into force.
    Install,
}

/// The number of the data unit at a byte of the volume.
const fn unit(offset: u64) -> u64 {
    offset / UNIT_BYTES as u64
}

/// False if this is a write whose payload others hold too, or that is cut within data units: then
/// it cannot be encrypted where it is.
pub(super) fn is_own<B: Buffer>(kind: &mut Kind<B>) -> bool {
    let Kind::Write { data, .. } = kind else { return true };
    let mut own = |piece: &mut Slice<B>| {
        piece.if_alone().is_some_and(|bytes| bytes.len().is_multiple_of(UNIT_BYTES))
    };
    data.iter_mut().all(&mut own)
}

impl<B: Buffer> Job<B> {
    /// A piece that was read, in place.
    pub(super) fn decrypt(&mut self, piece: usize) {
        let (Some((offset, ..)), Some(cipher)) = (self.range(), &self.cipher) else { return };
        let at = offset + piece as u64 * SEGMENT_BYTES_MAX as u64;
        if let Some(data) = &mut self.scratch[piece] {
            cipher.keys().decrypt(data.bytes_mut(), unit(at));
        }
    }

    pub(super) fn write_encrypted(
        &mut self,
        mut offset: u64,
        data: Segments<B>,
        issue: &mut dyn FnMut(BlockOp<B>),
    ) -> Progress {
        let Some(cipher) = &self.cipher else { unreachable!("only called where there is one") };
        let keys = cipher.keys();
        let own = match &self.kind {
            Kind::Write { .. } => !self.copies,
            kind => matches!(kind, Kind::Or { .. }),
        };
        if own {
            for mut data in data {
                let len = u64::from(data.len);
                keys.encrypt(data.bytes_mut(), unit(offset));
                issue(BlockOp::Write { offset, data });
                offset += len;
            }
            return Progress::Wait;
        }
        let mut from = data.iter().map(Slice::bytes);
        let mut rest: &[u8] = &[];
        // As long as the payload; what was read into it is done with, or not read yet.
        for copy in self.scratch.iter_mut().flatten() {
            let mut to = copy.bytes_mut();
            while !to.is_empty() {
                if rest.is_empty() {
                    rest = from.next().expect("as much payload as was lent for it");
                }
                let here = rest.len().min(to.len());
                to[..here].copy_from_slice(&rest[..here]);
                (to, rest) = (&mut to[here..], &rest[here..]);
            }
            keys.encrypt(copy.bytes_mut(), unit(offset));
            issue(BlockOp::Write { offset, data: copy.clone() });
            offset += u64::from(copy.len);
        }
        Progress::Wait
    }

    /// The next piece of a fill: of `len` bytes from `offset`, `cursor` are done.
    pub(super) fn fill_encrypted(
        &mut self,
        offset: u64,
        len: u64,
        issue: &mut dyn FnMut(BlockOp<B>),
    ) -> Progress {
        let left = len.saturating_sub(self.cursor);
        if left == 0 {
            return Progress::Finished;
        }
        // What was encrypted last is where the pattern was.
        if self.is_erasure() {
            self.step = Step::Filling;
            self.lay_pattern();
        } else {
            self.start_filling();
        }
        let (Some(cipher), Some(pattern)) = (&self.cipher, &mut self.scratch[0]) else {
            unreachable!("there is one, and its memory was lent at the first gate")
        };
        let at = offset + self.cursor;
        let bytes = u32::try_from(left).unwrap_or(u32::MAX).min(pattern.len);
        cipher.keys().encrypt(&mut pattern.bytes_mut()[..bytes as usize], unit(at));
        issue(BlockOp::Write { offset: at, data: pattern.sub(0, bytes) });
        self.cursor += u64::from(bytes);
        Progress::Wait
    }

    /// Makes the key that an erasure of an encrypted volume begins with.
    pub(in crate::volume::engine) fn draw_key(&mut self, random: &mut dyn FnMut(&mut [u8])) {
        let Some(cipher) = &self.cipher else { return };
        if !self.erased.renewed && self.erased.renewal.is_none() {
            let next = cipher.successor(random);
            self.erased.renewal = Some(Box::new(Renewal { next, step: Renew::Write }));
        }
    }

    /// Replaces the media key, on the store first. `None` once that is done, or not to be done.
    /// These operations count from the store's first byte, as the header does.
    pub(super) fn renew_key(&mut self, issue: &mut dyn FnMut(BlockOp<B>)) -> Option<Progress> {
        let (Some(renewal), Some(cipher)) = (&mut self.erased.renewal, &self.cipher) else {
            return None;
        };
        let (new_place, old_place) = renewal.next.places();
        let scratch = self.scratch[0].as_mut().expect("lent at the first gate");
        self.step = Step::Renewing;
        renewal.step = match renewal.step {
            Renew::Write => {
                cipher.unsettle();
                issue(slot(scratch, new_place, &renewal.next.slot));
                Renew::Keep
            }
            Renew::Keep => {
                issue(BlockOp::Flush);
                Renew::Wipe
            }
            Renew::Wipe => {
                issue(slot(scratch, old_place, &[0; SLOT_BYTES]));
                Renew::Settle
            }
            Renew::Settle => {
                issue(BlockOp::Flush);
                Renew::Install
            }
            Renew::Install => {
                cipher.install(&renewal.next);
                self.erased.renewal = None;
                self.erased.renewed = true;
                return None;
            }
        };
        Some(Progress::Wait)
    }
}

/// The write of a header's slot.
fn slot<B: Buffer>(scratch: &mut Slice<B>, offset: u64, content: &[u8]) -> BlockOp<B> {
    scratch.bytes_mut()[..SLOT_BYTES].copy_from_slice(content);
    let len = u32::try_from(SLOT_BYTES).expect("a page");
    BlockOp::Write { offset, data: scratch.sub(0, len) }
}
