//! The order in which PDUs leave, and their sequence numbers.
//!
//! Requests that must not wait (pings, task management) go first; then data that the target waits
//! for; then new commands, as far as the target's window allows. CmdSN and ExpStatSN are put in
//! at the moment of sending, so that they are right whatever the order.

use super::super::bhs::{Bhs, FINAL, Lun, TAG_NONE};
use super::super::digest::{DIGEST_BYTES, Digest as Crc};
use super::super::framer::trailer;
use super::super::params::Digest;
use super::super::pdu::data::DataOut;
use super::super::pdu::scsi::{Attribute, ScsiCommand};
use super::super::sequence::before;
use super::{Command, Connection, Task, Transfer};

/// Header bytes at most: BHS and digest; commands here have no AHS.
const HEADER_BYTES_MAX: usize = 48 + DIGEST_BYTES;

/// A request without task, all of them immediate.
#[derive(Debug)]
pub(super) struct Control {
    bhs: Bhs,
    data: Vec<u8>,
}

impl Control {
    pub(super) const fn new(bhs: Bhs, data: Vec<u8>) -> Self {
        Self { bhs, data }
    }
}

/// Data-Out PDUs still to be sent for one R2T, or unsolicited.
#[derive(Debug)]
pub(super) struct Burst {
    pub(super) itt: u32,
    pub(super) ttt: u32,
    pub(super) lun: Lun,
    pub(super) offset: u32,
    pub(super) left: u32,
    pub(super) data_sn: u32,
}

/// A PDU to be sent: header, data, trailer, in this order.
#[derive(Debug)]
pub struct Outgoing<'a, D> {
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    data: &'a [u8],
    origin: Option<(&'a D, u32)>,
    trailer: [u8; 7],
    trailer_len: usize,
}

impl<'a, D> Outgoing<'a, D> {
    /// BHS and header digest.
    pub fn header(&self) -> &[u8] {
        &self.header[..self.header_len]
    }

    /// The data segment: for a write, the caller's own memory.
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Where [`Self::data`] lies: in the memory of this command, from this byte on. `None` for data
    /// that is not a command's. A sender that clones the memory's handle need not copy the bytes.
    pub const fn origin(&self) -> Option<(&'a D, u32)> {
        self.origin
    }

    /// Padding and data digest.
    pub fn trailer(&self) -> &[u8] {
        &self.trailer[..self.trailer_len]
    }

    /// Puts the whole PDU behind `stream`.
    pub fn write_to(&self, stream: &mut Vec<u8>) {
        stream.extend_from_slice(self.header());
        stream.extend_from_slice(self.data);
        stream.extend_from_slice(self.trailer());
    }

    fn new(
        bhs: Bhs,
        data: &'a [u8],
        origin: Option<(&'a D, u32)>,
        digests: (Digest, Digest),
    ) -> Self {
        let bytes = u32::try_from(data.len()).expect("a data segment is below 16 MiB");
        let bhs = bhs.with_data_bytes(bytes);
        let mut header = [0; HEADER_BYTES_MAX];
        header[..48].copy_from_slice(&bhs.0);
        let mut header_len = 48;
        if digests.0 == Digest::Crc32c {
            header[48..].copy_from_slice(&Crc::of(&bhs.0).to_wire());
            header_len = HEADER_BYTES_MAX;
        }
        let digest = (digests.1 == Digest::Crc32c).then(|| Crc::of(data));
        let (trailer, trailer_len) = trailer(bytes, digest);
        Self { header, header_len, data, origin, trailer, trailer_len }
    }
}

impl<D: AsRef<[u8]> + AsMut<[u8]>> Connection<D> {
    /// The next PDU to send.
    pub fn poll_transmit(&mut self) -> Option<Outgoing<'_, D>> {
        let digests = (self.agreed.header_digest, self.agreed.data_digest);
        if let Some(control) = self.control.pop_front() {
            let bhs = control.bhs.put_u32(24, self.cmd_sn).put_u32(28, self.exp_stat_sn);
            self.scratch = control.data;
            return Some(Outgoing::new(bhs, &self.scratch, None, digests));
        }
        if !self.bursts.is_empty() {
            let (bhs, memory, offset, bytes) = self.next_of_burst();
            let data = &memory.as_ref()[offset as usize..][..bytes as usize];
            return Some(Outgoing::new(bhs, data, Some((memory, offset)), digests));
        }
        if self.waiting.is_empty() || self.tasks.is_full() || before(self.max_cmd_sn, self.cmd_sn) {
            return None;
        }
        let command = self.waiting.pop_front().expect("looked at above");
        let (bhs, immediate) = self.start(command);
        let data = immediate.map_or(&[][..], |(memory, bytes)| &memory.as_ref()[..bytes as usize]);
        let origin = immediate.map(|(memory, _)| (memory, 0));
        Some(Outgoing::new(bhs, data, origin, digests))
    }

    /// The next Data-Out: its header, and the part of which memory goes with it.
    fn next_of_burst(&mut self) -> (Bhs, &D, u32, u32) {
        let burst = self.bursts.front_mut().expect("looked at by the caller");
        let bytes = burst.left.min(self.agreed.peer_segment_bytes_max);
        let (itt, offset, last) = (burst.itt, burst.offset, bytes == burst.left);
        let pdu = DataOut {
            is_final: last,
            lun: burst.lun,
            itt,
            ttt: burst.ttt,
            exp_stat_sn: self.exp_stat_sn,
            data_sn: burst.data_sn,
            offset,
        };
        burst.offset += bytes;
        burst.left -= bytes;
        burst.data_sn = burst.data_sn.wrapping_add(1);
        let solicited = burst.ttt != TAG_NONE;
        if last {
            self.bursts.pop_front();
        }
        let task = self.tasks.get_mut(itt).expect("bursts end with their task");
        if last && solicited {
            task.r2t_open -= 1;
        }
        let Transfer::Write(data) = &task.command.transfer else {
            unreachable!("only writes have bursts");
        };
        (pdu.emit(), data, offset, bytes)
    }

    /// Gives a command its tag and number, and says how much of which memory goes with it.
    fn start(&mut self, command: Command<D>) -> (Bhs, Option<(&D, u32)>) {
        let cmd_sn = self.cmd_sn;
        self.cmd_sn = cmd_sn.wrapping_add(1);
        let bytes = |len: usize| u32::try_from(len).expect("checked when submitted");
        let (read, write, edtl) = match &command.transfer {
            Transfer::None => (false, false, 0),
            Transfer::Read(buffer) => (true, false, bytes(buffer.as_ref().len())),
            Transfer::Write(data) => (false, true, bytes(data.as_ref().len())),
        };
        let agreed = &self.agreed;
        let first_burst = if write { edtl.min(agreed.first_burst_bytes_max) } else { 0 };
        let immediate = match agreed.immediate_data {
            true => first_burst.min(agreed.peer_segment_bytes_max),
            false => 0,
        };
        let unsolicited = if agreed.initial_r2t { 0 } else { first_burst - immediate };
        let (lun, cdb) = (command.lun, command.cdb);
        let itt = self.tasks.insert(Task {
            command,
            cmd_sn,
            received: 0,
            data_sn: 0,
            r2t_sn: 0,
            r2t_open: 0,
            aborting: false,
        });
        if unsolicited > 0 {
            let (offset, ttt) = (immediate, TAG_NONE);
            self.bursts.push_back(Burst { itt, ttt, lun, offset, left: unsolicited, data_sn: 0 });
        }
        let pdu = ScsiCommand {
            immediate: false,
            is_final: unsolicited == 0,
            read,
            write,
            attribute: Attribute::Simple,
            lun,
            itt,
            edtl,
            cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            cdb,
        };
        let task = self.tasks.get(itt).expect("inserted above");
        let data = match &task.command.transfer {
            Transfer::Write(data) => Some((data, immediate)),
            _ => None,
        };
        debug_assert!(unsolicited == 0 || pdu.emit().flags() & FINAL == 0);
        (pdu.emit(), data)
    }
}
