//! What goes out: numbers are given, digests computed and long reads cut only at the moment of
//! sending, so that every PDU carries the newest window and nothing waits in pieces.

use core::mem;

use bytes::Bytes;
use smallvec::SmallVec;

use super::tasks::{Place, Task};
use super::{Connection, DataIn, Outgoing, Payload, Response};
use crate::iscsi::bhs::{BHS_BYTES, Bhs, Lun, Opcode, TAG_NONE};
use crate::iscsi::digest::{DIGEST_BYTES, Digest};
use crate::iscsi::framer;
use crate::iscsi::params::Negotiated;
use crate::iscsi::pdu::scsi::{RESPONSE_COMPLETED, ScsiResponse};
use crate::iscsi::pdu::{Numbers, Residual, data};
use crate::memory::{Arena, Buffer, Slice};

/// What a PDU does with StatSN (RFC 7143 4.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatSn {
    /// Carries it and uses it up.
    Consume,
    /// Carries the next one without using it up.
    Peek,
    /// Carries the one it had when it was first sent.
    Again(u32),
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
    pub(super) lun: Lun,
    pub(super) response: Response<B>,
    residual: Residual,
    bidirectional: Residual,
    /// Data bytes to send in all.
    pub(super) bytes: u32,
    /// R2Ts sent, which count in ExpDataSN of a response without data.
    r2ts: u32,
    /// What a DataACK for it carries; `TAG_NONE` below recovery level 1.
    pub(super) ack_tag: u32,
    /// Where the next byte is.
    pub(super) at: Cursor,
    /// Nothing before this is sent again.
    pub(super) start: Cursor,
}

/// A place in the data of a read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    sent: u32,
    pub(super) data_sn: u32,
    piece: u32,
    piece_at: u32,
}

impl<B: Buffer> Job<B> {
    /// The answer to `task`, whose tag is `itt`. `ack_tag` asks for DataACKs.
    pub(super) fn new(itt: u32, response: Response<B>, task: &Task<B>, ack_tag: u32) -> Self {
        let expected = if task.read || task.write { task.edtl } else { 0 };
        let bytes = if task.read { response.data.bytes().min(u64::from(expected)) } else { 0 };
        Self {
            itt,
            lun: task.lun,
            residual: Residual::between(expected, response.wanted),
            bidirectional: task
                .bidirectional
                .map_or(Residual::None, |bytes| Residual::between(bytes, 0)),
            response,
            bytes: u32::try_from(bytes).expect("at most the expected length"),
            r2ts: task.r2ts,
            ack_tag,
            at: Cursor { data_sn: task.data_sn, ..Cursor::default() },
            start: Cursor { data_sn: task.data_sn, ..Cursor::default() },
        }
    }

    /// Bytes of the data PDU at `at`.
    fn pdu_bytes(&self, at: &Cursor, agreed: &Negotiated) -> u32 {
        let burst = agreed.burst_bytes_max;
        let max =
            agreed.peer_segment_bytes_max.min(self.bytes - at.sent).min(burst - at.sent % burst);
        match &self.response.data {
            DataIn::Segments(segments) => max.min(segments[at.piece as usize].len - at.piece_at),
            DataIn::None | DataIn::Bytes(_) => max,
        }
    }

    /// `at` one PDU of `len` bytes further.
    fn pass(&self, at: &mut Cursor, len: u32) {
        at.sent += len;
        at.data_sn += 1;
        at.piece_at += len;
        if let DataIn::Segments(segments) = &self.response.data
            && at.piece_at == segments[at.piece as usize].len
        {
            (at.piece, at.piece_at) = (at.piece + 1, 0);
        }
    }

    /// The place of a DataSN that was sent and not given up.
    pub(super) fn find(&self, data_sn: u32, agreed: &Negotiated) -> Option<Cursor> {
        let mut at = self.start;
        while at.data_sn < data_sn && at.sent < self.bytes {
            let len = self.pdu_bytes(&at, agreed);
            self.pass(&mut at, len);
        }
        (at.data_sn == data_sn && at.sent < self.bytes).then_some(at)
    }

    /// The data PDU at `at`, which moves on. Without a status.
    pub(super) fn data_pdu(
        &self,
        at: &mut Cursor,
        agreed: &Negotiated,
        digests: (bool, bool),
        numbers: Numbers,
    ) -> Outgoing<B> {
        let (header, payload) = self.data_parts(at, agreed);
        Outgoing::new(data::DataIn { numbers, ..header }.emit(), payload, digests)
    }

    fn data_parts(&self, at: &mut Cursor, agreed: &Negotiated) -> (data::DataIn, Payload<B>) {
        let len = self.pdu_bytes(at, agreed);
        let payload = match &self.response.data {
            DataIn::None => Payload::None,
            DataIn::Bytes(bytes) => {
                let from = at.sent as usize;
                Payload::Bytes(bytes.slice(from..from + len as usize))
            }
            DataIn::Segments(segments) => {
                Payload::Shared(segments[at.piece as usize].sub(at.piece_at, len))
            }
        };
        let (offset, data_sn) = (at.sent, at.data_sn);
        self.pass(at, len);
        let last = at.sent == self.bytes;
        let is_final = last || at.sent.is_multiple_of(agreed.burst_bytes_max);
        // The last data is acknowledged with the status.
        let acknowledge = is_final && !last && self.ack_tag != TAG_NONE;
        let header = data::DataIn {
            is_final,
            acknowledge,
            status: None,
            lun: if acknowledge { self.lun } else { Lun(0) },
            itt: self.itt,
            ttt: if acknowledge { self.ack_tag } else { TAG_NONE },
            numbers: Numbers::default(),
            data_sn,
            offset,
            residual: Residual::None,
        };
        (header, payload)
    }

    /// It goes on, on another connection, with the first data PDU that the initiator has not got.
    /// Zero: with the first that it did not acknowledge before, as with a number that makes no
    /// sense (RFC 7143 11.5.6). `agreed` is how data was cut so far.
    pub(super) fn resume(&mut self, exp_data_sn: u32, agreed: &Negotiated) {
        if exp_data_sn > self.start.data_sn && exp_data_sn <= self.at.data_sn {
            self.give_up_before(exp_data_sn, agreed);
        }
        self.at = self.start;
    }

    /// Bytes that the initiator expected.
    pub(super) fn expected(&self) -> u32 {
        match self.residual {
            Residual::Underflow(left) => self.bytes.saturating_add(left),
            Residual::None | Residual::Overflow(_) => self.bytes,
        }
    }

    /// Bytes of payload memory it holds.
    pub(super) fn kept_bytes(&self) -> u32 {
        u32::try_from(self.response.data.bytes()).unwrap_or(u32::MAX)
    }

    /// Data before this DataSN, which was sent, is never sent again: whole pieces are given back.
    pub(super) fn give_up_before(&mut self, data_sn: u32, agreed: &Negotiated) {
        let found = self.find(data_sn, agreed);
        self.start = found.unwrap_or(self.at);
        if let DataIn::Segments(segments) = &mut self.response.data {
            let gone = self.start.piece.min(self.at.piece);
            segments.drain(..gone as usize);
            (self.start.piece, self.at.piece) = (self.start.piece - gone, self.at.piece - gone);
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
    /// How many bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Small(bytes) => bytes.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared(slice) => slice.len as usize,
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, for the processor: not if a store has lent them.
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
        let len = u32::try_from(data.len()).expect("segments are below 16 MiB");
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
    /// True if read data is sent and forgotten: no digest is computed, nothing is kept to be sent
    /// again. A store may lend memory for it then ([`Buffer::is_loan`]).
    pub fn only_sends(&self) -> bool {
        !self.digests.1 && self.recovery.is_none()
    }

    /// What is queued has to wait for the peer: what a store has lent for it is copied.
    pub fn call_in<A: Arena<Buf = B>>(&mut self, arena: &mut A) {
        for job in &mut self.jobs {
            if let DataIn::Segments(segments) = &mut job.response.data {
                segments.iter_mut().for_each(|slice| arena.call_in(slice));
            }
        }
    }

    /// The next PDU to send. Ask again until there is none, after every call that says so.
    pub fn poll_transmit(&mut self) -> Option<Outgoing<B>> {
        match self.control.pop_front() {
            Some(control) => {
                self.queued_bytes -= control.data.len();
                Some(self.send_control(control))
            }
            None if self.recovery.is_some() => self.send_replay().or_else(|| self.send_job()),
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
        if stat == StatSn::Consume && !login {
            self.keep_status(bhs, &data);
        }
        let digests = if login { (false, false) } else { self.digests };
        let data = if data.is_empty() { Payload::None } else { Payload::Small(data) };
        Outgoing::new(bhs, data, digests)
    }

    fn stamp(&mut self, bhs: Bhs, stat: StatSn) -> Bhs {
        let mut numbers = self.numbers();
        match stat {
            StatSn::Consume => self.stat_sn = self.stat_sn.wrapping_add(1),
            StatSn::Peek => {}
            StatSn::Again(stat_sn) => numbers.stat_sn = stat_sn,
        }
        numbers.emit(bhs)
    }

    /// A numbered response goes out for the first time.
    fn keep_status(&mut self, bhs: Bhs, data: &[u8]) {
        if let Some(recovery) = &mut self.recovery {
            recovery.keep(bhs.u32_at(24), bhs, data);
        }
    }

    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.order.window.expected(),
            max_cmd_sn: self.order.window.max(),
        }
    }

    fn send_job(&mut self) -> Option<Outgoing<B>> {
        let mut job = self.jobs.pop_front()?;
        if job.at.sent < job.bytes {
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
            exp_data_sn: job.at.data_sn + job.r2ts,
            bidirectional_residual: job.bidirectional,
            residual: job.residual,
        }
        .emit();
        let bhs = self.stamp(bhs, StatSn::Consume);
        if self.recovery.is_some() {
            self.keep_status(bhs, &data);
            if let Some(recovery) = &mut self.recovery {
                recovery.keep_read(bhs.u32_at(24), job);
            }
        }
        let data = if data.is_empty() { Payload::None } else { Payload::Small(data) };
        Some(Outgoing::new(bhs, data, self.digests))
    }

    /// One Data-In PDU; true if it carried the status. Where responses may have to be sent again,
    /// the status goes by itself: it is kept when the data is not.
    fn send_data(&mut self, job: &mut Job<B>) -> (Outgoing<B>, bool) {
        let mut at = job.at;
        let (mut header, payload) = job.data_parts(&mut at, &self.agreed);
        job.at = at;
        let last = at.sent == job.bytes;
        let status = last && job.response.status == 0 && self.recovery.is_none();
        if status {
            header.status = Some(0);
            header.residual = job.residual;
            self.release(job.itt);
            header.numbers = self.numbers();
            self.stat_sn = self.stat_sn.wrapping_add(1);
        } else {
            header.numbers = Numbers { stat_sn: 0, ..self.numbers() };
        }
        (Outgoing::new(header.emit(), payload, self.digests), status)
    }

    /// A command's answer is on its way: it is forgotten, and its place in the window is free.
    fn release(&mut self, itt: u32) {
        if let Some(task) = self.tasks.remove(&itt)
            && task.place == Place::Window
        {
            self.finish_one();
        }
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
