//! Work on the medium: to the volume as a request, back as status and sense.

use std::sync::Arc;

use corbel_proto::memory::{Buffer, Slice};
use corbel_proto::scsi::{Condition, Sense, SenseBytes, Status};

use super::LogicalUnit;
use super::commands::{lba_status, sanitize};
use crate::host::BlockError;
use crate::volume::request::segments_bytes;
use crate::volume::{Erase, Kind, Outcome, Request, Segments};

/// A checked command that works on the medium.
#[derive(Debug)]
pub struct MediaPlan {
    pub(super) kind: MediaKind,
    pub(super) durable: bool,
    /// IMMED: the initiator may be answered GOOD as soon as the request is submitted. The request
    /// still runs; waiting for it instead is safe too.
    pub answer_first: bool,
}

/// Ranges in bytes.
#[derive(Debug)]
pub(super) enum MediaKind {
    Read {
        offset: u64,
        len: u64,
    },
    Write {
        offset: u64,
        len: u64,
    },
    Or {
        offset: u64,
        len: u64,
    },
    CompareAndWrite {
        offset: u64,
        len: u64,
    },
    WriteAndVerify {
        offset: u64,
        len: u64,
        compare: bool,
    },
    /// GET LBA STATUS from `offset` on; `allocation` bytes are wanted.
    Status {
        offset: u64,
        allocation: u32,
    },
    /// With `len` bytes of payload, one block of it, or none.
    Verify {
        offset: u64,
        len: u64,
        payload: u64,
    },
    WriteSame {
        offset: u64,
        len: u64,
        unmap: bool,
        payload: bool,
    },
    Flush,
    Discard(Vec<(u64, u64)>),
    Erase(Erase),
}

/// The end of media work.
#[derive(Debug)]
pub struct Completion<B> {
    /// SCSI status.
    pub status: Status,
    /// Sense data, with CHECK CONDITION.
    pub sense: Option<SenseBytes>,
    /// What was read; empty if the command reads nothing or failed.
    pub data: Segments<B>,
    /// Parameter data made of what the medium told; empty for all other commands.
    pub parameters: Vec<u8>,
}

impl MediaPlan {
    pub(super) fn new(kind: MediaKind, durable: bool) -> Self {
        Self { kind, durable, answer_first: false }
    }

    /// Only `bytes` of payload came, less than planned: true if this is a write of them now, which
    /// it can be if they are whole blocks. Then nothing behind them is written.
    pub fn shorten(&mut self, bytes: u64, block_bytes: u32) -> bool {
        match &mut self.kind {
            MediaKind::Write { len, .. } | MediaKind::WriteAndVerify { len, .. }
                if bytes.is_multiple_of(u64::from(block_bytes)) =>
            {
                *len = bytes.min(*len);
                true
            }
            _ => false,
        }
    }
}

impl LogicalUnit {
    /// The volume request for `media` with its payload: the plan's `data_out` bytes in order,
    /// in pieces of whole logical blocks. Call once for each plan, and keep it for
    /// [`Self::finish`].
    ///
    /// # Panics
    /// If the payload has another length than planned: the transport's error, and nothing may reach
    /// the medium then.
    pub fn request<B: Buffer>(&self, media: &mut MediaPlan, data: Segments<B>) -> Request<B> {
        let given = segments_bytes(&data);
        let planned = media.kind.payload_bytes(u64::from(self.volume.facts.block_bytes));
        assert!(given == planned, "payload of {given} bytes for a plan of {planned}");
        let kind = match &mut media.kind {
            MediaKind::Read { offset, len } => Kind::Read { offset: *offset, len: *len },
            MediaKind::Write { offset, .. } => Kind::Write { offset: *offset, data },
            MediaKind::Or { offset, .. } => Kind::Or { offset: *offset, data },
            MediaKind::WriteAndVerify { offset, compare, .. } => {
                Kind::WriteAndVerify { offset: *offset, data, compare: *compare }
            }
            MediaKind::Status { offset, allocation } => {
                let extents_max = lba_status::descriptors(*allocation);
                Kind::Status { offset: *offset, extents_max }
            }
            MediaKind::CompareAndWrite { offset, len } => {
                let (expected, new) = split(data, *len);
                Kind::CompareAndWrite { offset: *offset, expected, new }
            }
            MediaKind::Verify { offset, len, payload } => {
                let expected = match *payload {
                    0 => None,
                    bytes if bytes == *len => Some(data),
                    bytes => Some(repeat(&data, *len / bytes)),
                };
                Kind::Verify { offset: *offset, len: *len, expected }
            }
            MediaKind::WriteSame { offset, len, unmap, .. } => {
                let block = data.into_iter().next();
                // Zeros have a quicker way; and deallocation gives zeros or nothing.
                let block = block.filter(|b| b.bytes().iter().any(|byte| *byte != 0));
                let unmap = *unmap && block.is_none();
                Kind::WriteSame { offset: *offset, len: *len, block, unmap }
            }
            MediaKind::Flush => Kind::Flush,
            MediaKind::Discard(ranges) => Kind::Discard(std::mem::take(ranges)),
            MediaKind::Erase(how) => Kind::Erase(how.clone()),
        };
        let lend = matches!(kind, Kind::Read { .. });
        Request { volume: Arc::clone(&self.volume), kind, durable: media.durable, lend }
    }

    /// Status and sense for what became of `media`.
    pub fn finish<B: Buffer>(&self, media: &MediaPlan, outcome: Outcome<B>) -> Completion<B> {
        let sense = match outcome {
            Outcome::Done => return Completion::good(Segments::new()),
            Outcome::Data(data) => return Completion::good(data),
            Outcome::Extents(extents) => {
                let parameters = lba_status::answer(self, &media.kind, &extents);
                return Completion { parameters, ..Completion::good(Segments::new()) };
            }
            Outcome::Miscompare(offset) => {
                Sense::from(Condition::MISCOMPARE_DURING_VERIFY_OPERATION).with_information(offset)
            }
            Outcome::Failed(error) => self.failure(media, error).into(),
            Outcome::Cancelled => Condition::COMMAND_ABORTED.into(),
        };
        Completion {
            status: Status::CheckCondition,
            sense: Some(sense.encode(self.descriptor_sense())),
            data: Segments::new(),
            parameters: Vec::new(),
        }
    }
}

impl<B> Completion<B> {
    fn good(data: Segments<B>) -> Self {
        Self { status: Status::Good, sense: None, data, parameters: Vec::new() }
    }
}

impl LogicalUnit {
    /// What a failed backing store means to the initiator. MEDIUM ERROR goes up to the
    /// application; NOT READY sends a multipath initiator to another path.
    fn failure(&self, media: &MediaPlan, error: BlockError) -> Condition {
        match (error, &media.kind) {
            (_, MediaKind::Erase(_)) => sanitize::failed(self),
            (
                BlockError::Medium,
                MediaKind::Read { .. } | MediaKind::Verify { .. } | MediaKind::Status { .. },
            ) => Condition::UNRECOVERED_READ_ERROR,
            (BlockError::Medium, _) => Condition::WRITE_ERROR,
            (BlockError::NoSpace, _) => Condition::SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
            (BlockError::Unsupported, _) => Condition::INTERNAL_TARGET_FAILURE,
            (BlockError::Gone, _) => Condition::CAUSE_NOT_REPORTABLE,
            (BlockError::Sanitizing, _) => sanitize::running(self),
        }
    }
}

impl MediaKind {
    fn payload_bytes(&self, block: u64) -> u64 {
        match self {
            Self::Write { len, .. } | Self::Or { len, .. } | Self::WriteAndVerify { len, .. } => {
                *len
            }
            Self::CompareAndWrite { len, .. } => 2 * len,
            Self::Verify { payload, .. } => *payload,
            Self::WriteSame { payload: true, .. } => block,
            Self::Read { .. }
            | Self::WriteSame { .. }
            | Self::Flush
            | Self::Discard(_)
            | Self::Erase(_)
            | Self::Status { .. } => 0,
        }
    }
}

/// Cuts `data` after `len` bytes.
fn split<B: Buffer>(data: Segments<B>, len: u64) -> (Segments<B>, Segments<B>) {
    let (mut head, mut tail) = (Segments::new(), Segments::new());
    let mut left = len;
    for piece in data {
        let here = u64::from(piece.len);
        if left >= here {
            left -= here;
            head.push(piece);
        } else if left == 0 {
            tail.push(piece);
        } else {
            let cut = u32::try_from(left).expect("less than the piece's length");
            head.push(piece.sub(0, cut));
            tail.push(piece.sub(cut, piece.len - cut));
            left = 0;
        }
    }
    (head, tail)
}

/// The one block in `data`, `times` over, without copying it.
fn repeat<B: Buffer>(data: &[Slice<B>], times: u64) -> Segments<B> {
    let mut out = Segments::new();
    for _ in 0..times {
        out.extend(data.iter().cloned());
    }
    out
}
