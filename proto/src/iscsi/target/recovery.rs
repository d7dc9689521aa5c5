//! Sending again, at recovery level 1 and above (RFC 7143 7.2.2, 7.4, 11.16).
//!
//! Every numbered response is kept until the initiator acknowledges it by ExpStatSN, and so is the
//! data of a read until its status is acknowledged (or, burst by burst, by a DataACK). Read data is
//! kept, not read again: what is sent again must be the same bytes, and another initiator may have
//! written meanwhile. The price is memory, so data is kept as far as [`READS_BYTES_MAX`] and until
//! [`Connection::forget_reads`]; then a SNACK for it is rejected, and the initiator retries.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::output::{Control, Job, StatSn};
use super::{Connection, Outgoing, Phase, QUEUE_PDUS_MAX};
use crate::iscsi::bhs::{Bhs, Opcode, TAG_NONE};
use crate::iscsi::pdu::Numbers;
use crate::iscsi::pdu::r2t::R2t;
use crate::iscsi::pdu::reject::RejectReason;
use crate::iscsi::pdu::snack::Snack;
use crate::iscsi::sequence;
use crate::memory::Buffer;

/// Responses without acknowledgement. An initiator acknowledges with each PDU it sends, so only
/// one that means ill gets there: its connection ends.
const STATUSES_MAX: usize = 1024;
/// Data of a response (sense, text, echoed ping) that is kept with it.
const STATUS_DATA_BYTES_MAX: usize = 512;
/// Read data kept after its status was sent.
const READS_BYTES_MAX: u32 = 4 << 20;
/// Replays of read data that wait; above, nothing more is read.
pub(super) const REPLAYS_MAX: usize = 8;

/// A numbered response as it was sent.
#[derive(Debug)]
struct Status {
    stat_sn: u32,
    bhs: Bhs,
    /// `None`: too long to be kept.
    data: Option<SmallVec<[u8; 32]>>,
    /// It is of a read whose data was given up: what the initiator expected, bytes.
    lacks_data: Option<u32>,
}

/// The answer to a command as it was sent.
#[derive(Debug)]
pub(super) struct SentStatus {
    pub(super) bhs: Bhs,
    pub(super) data: SmallVec<[u8; 32]>,
    /// It is of a read whose data was given up: what the initiator expected, bytes.
    pub(super) lacks_data: Option<u32>,
}

/// Part of a read that is sent again: DataSNs up to `end`, from `next` on.
#[derive(Debug)]
struct Replay {
    itt: u32,
    next: u32,
    end: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recovery<B> {
    /// Ascending, without gaps.
    statuses: VecDeque<Status>,
    /// Reads whose status was sent, with its StatSN, in that order.
    reads: VecDeque<(u32, Job<B>)>,
    reads_bytes: u32,
    replays: VecDeque<Replay>,
}

impl<B> Default for Recovery<B> {
    fn default() -> Self {
        Self {
            statuses: VecDeque::new(),
            reads: VecDeque::new(),
            reads_bytes: 0,
            replays: VecDeque::new(),
        }
    }
}

impl<B: Buffer> Recovery<B> {
    pub(super) fn replays(&self) -> usize {
        self.replays.len()
    }

    /// Responses and reads that are kept.
    pub(super) fn kept(&self) -> (usize, u32) {
        (self.statuses.len(), self.reads_bytes)
    }

    /// A response goes out for the first time.
    pub(super) fn keep(&mut self, stat_sn: u32, bhs: Bhs, data: &[u8]) {
        let short = data.len() <= STATUS_DATA_BYTES_MAX;
        let data = short.then(|| SmallVec::from_slice(data));
        self.statuses.push_back(Status { stat_sn, bhs, data, lacks_data: None });
    }

    /// The initiator does not acknowledge what it gets. What it can cause in answers between two
    /// PDUs of its own is bounded by the window.
    pub(super) fn is_overfull(&self) -> bool {
        self.statuses.len() >= STATUSES_MAX
    }

    /// A read's status goes out under this number.
    pub(super) fn keep_read(&mut self, stat_sn: u32, job: Job<B>) {
        if job.bytes == 0 {
            return;
        }
        self.reads_bytes += job.kept_bytes();
        self.reads.push_back((stat_sn, job));
        while self.reads_bytes > READS_BYTES_MAX {
            self.give_up_read();
        }
    }

    /// The oldest read cannot be sent again any more.
    fn give_up_read(&mut self) {
        let Some((stat_sn, job)) = self.reads.front() else { return };
        if let Some(status) = self.statuses.iter_mut().find(|s| s.stat_sn == *stat_sn) {
            status.lacks_data = Some(job.expected());
        }
        self.drop_read(0);
    }

    /// Answers to commands that were not acknowledged, and reads with their data.
    pub(super) fn into_answers(self) -> (Vec<SentStatus>, Vec<Job<B>>) {
        let statuses =
            self.statuses.into_iter().filter_map(|Status { bhs, data, lacks_data, .. }| {
                let data = data.filter(|_| bhs.opcode() == Some(Opcode::ScsiResponse))?;
                Some(SentStatus { bhs, data, lacks_data })
            });
        (statuses.collect(), self.reads.into_iter().map(|(_, job)| job).collect())
    }

    fn drop_read(&mut self, at: usize) {
        let Some((_, job)) = self.reads.remove(at) else { return };
        self.reads_bytes -= job.kept_bytes();
        self.replays.retain(|replay| replay.itt != job.itt);
    }

    /// Nothing of this task is sent again: it was aborted, or its tag is used anew.
    pub(super) fn forget(&mut self, itt: u32) {
        self.replays.retain(|replay| replay.itt != itt);
        if let Some(at) = self.reads.iter().position(|(_, job)| job.itt == itt) {
            self.drop_read(at);
        }
    }

    /// All read data that is kept.
    pub(super) fn forget_reads(&mut self) {
        while !self.reads.is_empty() {
            self.give_up_read();
        }
    }

    /// The initiator has every response before `exp_stat_sn`; `next` is the first unused number.
    pub(super) fn acknowledged(&mut self, exp_stat_sn: u32, next: u32) {
        if sequence::before(next, exp_stat_sn) {
            return;
        }
        let done = |sn: u32| sequence::before(sn, exp_stat_sn);
        while self.statuses.front().is_some_and(|status| done(status.stat_sn)) {
            self.statuses.pop_front();
        }
        while self.reads.front().is_some_and(|(stat_sn, _)| done(*stat_sn)) {
            self.drop_read(0);
        }
    }
}

/// DataSNs or R2TSNs that a SNACK names: from, up to; `None` if any of them was never sent.
fn run(snack: &Snack, sent: u32) -> Option<(u32, u32)> {
    let end = if snack.run == 0 { sent } else { snack.begin.checked_add(snack.run)? };
    (snack.begin < end && end <= sent).then_some((snack.begin, end))
}

impl<B: Buffer> Connection<B> {
    /// Gives up read data that is kept only to be sent again: memory is short. A SNACK for it is
    /// rejected from now on.
    pub fn forget_reads(&mut self) {
        if let Some(recovery) = &mut self.recovery {
            recovery.forget_reads();
        }
    }

    /// What is kept to be sent again: responses, and bytes of read data.
    pub fn kept(&self) -> (usize, u32) {
        self.recovery.as_ref().map_or((0, 0), |recovery| recovery.kept())
    }

    /// Does what a SNACK asks for, or rejects it.
    pub(super) fn take_snack(&mut self, snack: &Snack) {
        debug_assert_eq!(self.phase, Phase::Full);
        let done = match snack.kind {
            0 => self.send_data_again(snack),
            1 => self.send_statuses_again(snack),
            2 => self.data_acknowledged(snack),
            // Data need never be cut anew: the segment length cannot change in a session.
            3 => Err(RejectReason::SnackReject),
            _ => Err(RejectReason::InvalidPduField),
        };
        if let Err(reason) = done {
            self.reject(reason);
        }
    }

    /// Data-In PDUs of a read, or R2Ts of a write.
    fn send_data_again(&mut self, snack: &Snack) -> Result<(), RejectReason> {
        let Some(recovery) = &mut self.recovery else { return Err(RejectReason::SnackReject) };
        let sending = self.jobs.iter().find(|job| job.itt == snack.itt && job.bytes > 0);
        let kept = recovery.reads.iter().map(|(_, job)| job).find(|job| job.itt == snack.itt);
        if let Some(job) = sending.or(kept) {
            let (next, end) = run(snack, job.at.data_sn).ok_or(RejectReason::ProtocolError)?;
            if next < job.start.data_sn {
                return Err(RejectReason::ProtocolError);
            }
            recovery.replays.push_back(Replay { itt: snack.itt, next, end });
            return Ok(());
        }
        if self.tasks.contains_key(&snack.itt) {
            return self.send_r2ts_again(snack);
        }
        let answered = |status: &Status| {
            status.bhs.opcode() == Some(Opcode::ScsiResponse) && status.bhs.itt() == snack.itt
        };
        // Either its data was given up, or there is no such task.
        let given_up = recovery.statuses.iter().any(answered);
        Err(if given_up { RejectReason::SnackReject } else { RejectReason::ProtocolError })
    }

    fn send_r2ts_again(&mut self, snack: &Snack) -> Result<(), RejectReason> {
        let task = &self.tasks[&snack.itt];
        let (from, end) = run(snack, task.r2ts).ok_or(RejectReason::ProtocolError)?;
        let open = task.transfer.iter().flat_map(|transfer| transfer.open_r2ts());
        let again: SmallVec<[R2t; 4]> = open
            .filter(|open| (from..end).contains(&open.ask.r2t_sn))
            .map(|open| R2t {
                lun: task.lun,
                itt: snack.itt,
                ttt: open.ttt,
                numbers: Numbers::default(),
                r2t_sn: open.ask.r2t_sn,
                offset: open.ask.offset,
                bytes: open.ask.bytes,
            })
            .collect();
        if again.is_empty() {
            // Answered with data already, which acknowledges them.
            return Err(RejectReason::ProtocolError);
        }
        for r2t in again {
            self.queue(r2t.emit(), StatSn::Peek, &[], false);
        }
        Ok(())
    }

    fn send_statuses_again(&mut self, snack: &Snack) -> Result<(), RejectReason> {
        let Some(recovery) = &mut self.recovery else { return Err(RejectReason::SnackReject) };
        let Some(first) = recovery.statuses.front().map(|status| status.stat_sn) else {
            return Err(RejectReason::ProtocolError);
        };
        let kept = u32::try_from(recovery.statuses.len()).expect("not many above 1024");
        let everything = snack.begin == 0 && snack.run == 0;
        let from = if everything { 0 } else { snack.begin.wrapping_sub(first) };
        let end = if snack.run == 0 { Some(kept) } else { from.checked_add(snack.run) };
        let Some(end) = end.filter(|&end| from < end && end <= kept) else {
            return Err(RejectReason::ProtocolError);
        };
        let range = from as usize..end as usize;
        let too_long = recovery.statuses.range(range.clone()).any(|status| status.data.is_none());
        // One read of the socket can hold a thousand SNACKs, each for a thousand responses.
        if too_long || self.control.len() >= QUEUE_PDUS_MAX {
            return Err(RejectReason::SnackReject);
        }
        for status in recovery.statuses.range(range) {
            let data = status.data.clone().expect("just looked at");
            self.queued_bytes += data.len();
            let (bhs, stat) = (status.bhs, StatSn::Again(status.stat_sn));
            self.control.push_back(Control { bhs, stat, data, frees: false });
        }
        Ok(())
    }

    /// The initiator has all data before a DataSN: it is not sent again, and its memory goes back.
    fn data_acknowledged(&mut self, snack: &Snack) -> Result<(), RejectReason> {
        let none = Err(RejectReason::InvalidDataAck);
        let Some(recovery) = &mut self.recovery else { return none };
        let meant = |job: &Job<B>| job.itt == snack.itt && job.ack_tag == snack.ttt;
        if snack.ttt == TAG_NONE || snack.run != 0 {
            return none;
        }
        let agreed = self.agreed;
        let acknowledge = |job: &mut Job<B>| {
            let sound = job.start.data_sn <= snack.begin && snack.begin <= job.at.data_sn;
            if sound {
                job.give_up_before(snack.begin, &agreed);
            }
            sound
        };
        let sound = if let Some(job) = self.jobs.iter_mut().find(|job| meant(job)) {
            acknowledge(job)
        } else if let Some((_, job)) = recovery.reads.iter_mut().find(|(_, job)| meant(job)) {
            let before = job.kept_bytes();
            let sound = acknowledge(job);
            recovery.reads_bytes -= before - job.kept_bytes();
            sound
        } else {
            false
        };
        if !sound {
            return none;
        }
        // What it has acknowledged it no longer waits for.
        let passed = |replay: &Replay| replay.itt == snack.itt && replay.next < snack.begin;
        recovery.replays.retain(|replay| !passed(replay));
        Ok(())
    }

    /// The next Data-In PDU that is sent again.
    pub(super) fn send_replay(&mut self) -> Option<Outgoing<B>> {
        loop {
            let numbers = Numbers { stat_sn: 0, ..self.numbers() };
            let recovery = self.recovery.as_mut()?;
            let replay = recovery.replays.front_mut()?;
            let (itt, next) = (replay.itt, replay.next);
            replay.next += 1;
            if replay.next >= replay.end {
                recovery.replays.pop_front();
            }
            let kept = recovery.reads.iter().map(|(_, job)| job);
            let job = self.jobs.iter().chain(kept).find(|job| job.itt == itt && job.bytes > 0);
            let Some(job) = job else { continue };
            let mut at = job.find(next, &self.agreed)?;
            return Some(job.data_pdu(&mut at, &self.agreed, self.digests, numbers));
        }
    }
}
