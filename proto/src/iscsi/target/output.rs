//! What goes out: numbers are given, digests computed and long reads cut only at the moment of
//! sending, so that every PDU carries the newest window and nothing waits in pieces.

use core::mem;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Connection, DataIn, Outgoing, Payload, Response};
use crate::iscsi::bhs::{BHS_BYTES, Bhs, Lun, Opcode, TAG_NONE};
use crate::iscsi::digest::{DIGEST_BYTES, Digest};
use crate::iscsi::framer;
use crate::iscsi::pdu::scsi::{RESPONSE_COMPLETED, ScsiResponse};
use crate::iscsi::pdu::{Numbers, Residual, data};
use crate::memory::{Buffer, Slice};

/// What a PDU does with StatSN (RFC 7143 4.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatSn {
    /// Carries it and uses it up.
    Consume,
    /// Carries the next one without using it up.
    Peek,
}

/// A PDU without numbers.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) bhs: Bhs,
    pub(super) stat: StatSn,
    pub(super) data: SmallVec<[u8; 32]>,
    /// Sending it gives a place in the command window back.
    pub(super) frees: bool,
}

/// The answer to one command, being sent.
#[derive(Debug)]
pub(super) struct Job<B> {
    pub(super) itt: u32,
    response: Response<B>,
    residual: Residual,
    bidirectional: Residual,
    /// Data bytes to send in all, and sent.
    bytes: u32,
    sent: u32,
    data_sn: u32,
    /// R2Ts sent, which count in ExpDataSN of a response without data.
    r2ts: u32,
    /// Where the next byte is: piece, and offset in it.
    piece: usize,
    piece_at: u32,
}

impl<B: Buffer> Job<B> {
    pub(super) fn new(
        itt: u32,
        response: Response<B>,
        expected: u32,
        reads: bool,
        r2ts: u32,
    ) -> Self {
        let bytes = if reads { response.data.bytes().min(u64::from(expected)) } else { 0 };
        let bytes = u32::try_from(bytes).expect("at most the expected length");
        let residual = Residual::between(expected, response.wanted);
        Self {
            itt,
            response,
            residual,
            bidirectional: Residual::None,
            bytes,
            sent: 0,
            data_sn: 0,
            r2ts,
            piece: 0,
            piece_at: 0,
        }
    }

    /// What is missing of the data to be read by a command that would write too.
    pub(super) fn with_bidirectional(self, bidirectional: Residual) -> Self {
        Self { bidirectional, ..self }
    }

    /// The next at most `max` bytes, in one piece.
    fn cut(&mut self, max: u32) -> Payload<B> {
        match &self.response.data {
            DataIn::None => Payload::None,
            DataIn::Bytes(bytes) => {
                let from = self.sent as usize;
                Payload::Bytes(bytes.slice(from..from + max as usize))
            }
            DataIn::Segments(segments) => {
                let piece = &segments[self.piece];
                let part = piece.sub(self.piece_at, max.min(piece.len - self.piece_at));
                self.piece_at += part.len;
                if self.piece_at == piece.len {
                    (self.piece, self.piece_at) = (self.piece + 1, 0);
                }
                Payload::Shared(part)
            }
        }
    }
}

impl<B> DataIn<B> {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Segments(segments) => segments.iter().map(|s| u64::from(s.len)).sum(),
        }
    }
}

impl<B: Buffer> Payload<B> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Small(bytes) => bytes,
            Self::Bytes(bytes) => bytes,
            Self::Shared(slice) => slice.bytes(),
        }
    }
}

impl<B: Buffer> Outgoing<B> {
    /// BHS and header digest.
    pub fn header(&self) -> &[u8] {
        &self.header[..self.header_len]
    }

    /// Padding and data digest.
    pub fn trailer(&self) -> &[u8] {
        &self.trailer[..self.trailer_len]
    }

    fn new(bhs: Bhs, data: Payload<B>, digests: (bool, bool)) -> Self {
        let len = u32::try_from(data.bytes().len()).expect("segments are below 16 MiB");
        let bhs = bhs.with_data_bytes(len);
        let mut header = [0; BHS_BYTES + DIGEST_BYTES];
        header[..BHS_BYTES].copy_from_slice(&bhs.0);
        let mut header_len = BHS_BYTES;
        if digests.0 {
            header[BHS_BYTES..].copy_from_slice(&Digest::of(&bhs.0).to_wire());
            header_len += DIGEST_BYTES;
        }
        let digest = digests.1.then(|| Digest::of(data.bytes()));
        let (trailer, trailer_len) = framer::trailer(len, digest);
        Self { header, header_len, data, trailer, trailer_len }
    }
}

impl<B: Buffer> Connection<B> {
    /// The next PDU to send. Ask again until there is none, after every call that says so.
    pub fn poll_transmit(&mut self) -> Option<Outgoing<B>> {
        match self.control.pop_front() {
            Some(control) => {
                self.queued_bytes -= control.data.len();
                Some(self.send_control(control))
            }
            None => self.send_job(),
        }
    }

    fn send_control(&mut self, control: Control) -> Outgoing<B> {
        let Control { bhs, stat, data, frees } = control;
        if frees {
            self.finish_one();
        }
        let bhs = self.stamp(bhs, stat);
        let login = bhs.opcode() == Some(Opcode::LoginResponse);
        let digests = if login { (false, false) } else { self.digests };
        let data = if data.is_empty() { Payload::None } else { Payload::Small(data) };
        Outgoing::new(bhs, data, digests)
    }

    fn stamp(&mut self, bhs: Bhs, stat: StatSn) -> Bhs {
        let numbers = self.numbers();
        if stat == StatSn::Consume {
            self.stat_sn = self.stat_sn.wrapping_add(1);
        }
        numbers.emit(bhs)
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.window.expected(),
            max_cmd_sn: self.window.max(),
        }
    }

    fn send_job(&mut self) -> Option<Outgoing<B>> {
        let mut job = self.jobs.pop_front()?;
        if job.sent < job.bytes {
            let (out, done) = self.send_data(&mut job);
            if !done {
                // Others get their turn before this one's next PDU.
                self.jobs.push_back(job);
            }
            return Some(out);
        }
        self.release(job.itt);
        let mut data = SmallVec::new();
        let sense = mem::take(&mut job.response.sense);
        if !sense.is_empty() {
            let len = u16::try_from(sense.len()).expect("sense data has 252 bytes at most");
            data.extend(len.to_be_bytes());
            data.extend_from_slice(&sense);
        }
        let bhs = ScsiResponse {
            response: RESPONSE_COMPLETED,
            status: job.response.status,
            itt: job.itt,
            snack_tag: 0,
            numbers: Numbers::default(),
            exp_data_sn: job.data_sn + job.r2ts,
            bidirectional_residual: job.bidirectional,
            residual: job.residual,
        }
        .emit();
        let bhs = self.stamp(bhs, StatSn::Consume);
        let data = if data.is_empty() { Payload::None } else { Payload::Small(data) };
        Some(Outgoing::new(bhs, data, self.digests))
    }

    /// One Data-In PDU; true if it carried the status.
    fn send_data(&mut self, job: &mut Job<B>) -> (Outgoing<B>, bool) {
        let burst = self.agreed.burst_bytes_max;
        let max = self
            .agreed
            .peer_segment_bytes_max
            .min(job.bytes - job.sent)
            .min(burst - job.sent % burst);
        let payload = job.cut(max);
        let len = u32::try_from(payload.bytes().len()).expect("at most what was asked for");
        let offset = job.sent;
        job.sent += len;
        let last = job.sent == job.bytes;
        let status = (last && job.response.status == 0).then_some(0);
        let mut header = data::DataIn {
            is_final: last || job.sent.is_multiple_of(burst),
            acknowledge: false,
            status,
            lun: Lun(0),
            itt: job.itt,
            ttt: TAG_NONE,
            numbers: Numbers::default(),
            data_sn: job.data_sn,
            offset,
            residual: Residual::None,
        };
        job.data_sn += 1;
        if status.is_some() {
            header.residual = job.residual;
            self.release(job.itt);
            header.numbers = self.numbers();
            self.stat_sn = self.stat_sn.wrapping_add(1);
        } else {
            header.numbers = Numbers { stat_sn: 0, ..self.numbers() };
        }
        (Outgoing::new(header.emit(), payload, self.digests), status.is_some())
    }

    /// A command's answer is on its way: it is forgotten, and its place in the window is free.
    fn release(&mut self, itt: u32) {
        if let Some(task) = self.tasks.remove(&itt)
            && !task.immediate
        {
            self.finish_one();
        }
    }

    pub(super) fn finish_one(&mut self) {
        self.active = self.active.saturating_sub(1);
        self.window.grant(self.config.window.saturating_sub(self.active));
    }

    pub(super) fn queue(&mut self, bhs: Bhs, stat: StatSn, data: &[u8], frees: bool) {
        self.queued_bytes += data.len();
        let data = SmallVec::from_slice(data);
        self.control.push_back(Control { bhs, stat, data, frees });
    }
}

impl<B> From<Vec<u8>> for DataIn<B> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Bytes::from(bytes))
    }
}

impl<B> From<Slice<B>> for DataIn<B> {
    fn from(slice: Slice<B>) -> Self {
        Self::Segments(SmallVec::from_iter([slice]))
    }
}
