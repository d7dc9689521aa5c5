//! Conversations, PDU by PDU. Here: the initiator that leads them, and how data moves.

mod conduct;
mod fence;
mod orphans;
mod recovery;

use super::*;
use crate::iscsi::bhs::{FINAL, Opcode};
use crate::iscsi::framer::{self, Step};
use crate::iscsi::pdu::data::{self, DataOut};
use crate::iscsi::pdu::login::{Isid, Stage, Status};
use crate::iscsi::pdu::nop::NopOut;
use crate::iscsi::pdu::r2t::R2t;
use crate::iscsi::pdu::reject::{Reject, RejectReason};
use crate::iscsi::pdu::scsi::{ScsiCommand, ScsiResponse};
use crate::iscsi::pdu::task::Function;
use crate::iscsi::pdu::{Residual, logout};
use crate::memory::{Arena, HeapArena, HeapBuffer};
use proptest::prelude::*;

/// An initiator that says what it is told to, and the connection it talks to.
struct Talk {
    conn: Connection<HeapBuffer>,
    arena: HeapArena,
    now: Instant,
    digests: (bool, bool),
    framer: Framer,
    cmd_sn: u32,
    /// ExpStatSN of what it sends; 0 acknowledges nothing.
    exp_stat_sn: u32,
}

/// A PDU the target sent: header and data.
type Heard = (Bhs, Vec<u8>);

const WINDOW: u32 = 4;

impl Talk {
    fn fresh(budget: usize) -> Self {
        let config = Config { window: WINDOW, ..Config::default() };
        Self {
            conn: Connection::new(config, Instant::ZERO),
            arena: HeapArena::new(budget),
            now: Instant::ZERO,
            digests: (false, false),
            framer: Framer::new(),
            cmd_sn: 100,
            exp_stat_sn: 0,
        }
    }

    /// Logged in with these terms, from CmdSN 100 on.
    fn logged_in(agreed: &Negotiated) -> Self {
        let mut talk = Self::fresh(1 << 20);
        talk.send(Bhs(login_request().emit()), b"InitiatorName=iqn.x\0");
        let Some(Event::Login(request, text)) = talk.conn.poll() else { panic!("no login") };
        assert_eq!(text, b"InitiatorName=iqn.x\0");
        talk.conn.login_response(&login_answer(&request), b"TargetPortalGroupTag=1\0");
        talk.conn.enter_full_feature(agreed, talk.now);
        let heard = talk.heard();
        assert_eq!(heard.len(), 1);
        let response = LoginResponse::parse(&heard[0].0.0).unwrap();
        assert_eq!((response.stat_sn, response.exp_cmd_sn, response.max_cmd_sn), (7, 100, 103));
        talk.digests = talk.conn.digests;
        talk.framer.set_digests(talk.digests.0, talk.digests.1);
        talk
    }

    fn wire(&self, bhs: Bhs, data: &[u8]) -> Vec<u8> {
        let len = u32::try_from(data.len()).unwrap();
        let mut bytes = bhs.with_data_bytes(len).0.to_vec();
        if self.digests.0 {
            bytes.extend(super::super::digest::Digest::of(&bytes).to_wire());
        }
        bytes.extend(data);
        let digest = self.digests.1.then(|| super::super::digest::Digest::of(data));
        let (tail, tail_len) = framer::trailer(len, digest);
        bytes.extend(&tail[..tail_len]);
        bytes
    }

    fn send(&mut self, bhs: Bhs, data: &[u8]) {
        let bytes = self.wire(bhs, data);
        self.conn.handle_bytes(&bytes, &mut self.arena, self.now);
    }

    fn heard(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(out) = self.conn.poll_transmit() {
            let mut bytes = out.header().to_vec();
            bytes.extend(out.data.bytes());
            bytes.extend(out.trailer());
            let (mut rest, mut data) = (&bytes[..], Vec::new());
            loop {
                let (taken, step) = self.framer.push(rest).unwrap();
                rest = &rest[taken..];
                match step {
                    Step::Data(part) => data.extend(part),
                    Step::End { digest_ok } => {
                        assert!(digest_ok);
                        break;
                    }
                    Step::Header | Step::More => {}
                }
            }
            assert!(rest.is_empty());
            all.push((self.framer.bhs(), data));
        }
        all
    }

    fn one(&mut self) -> Heard {
        let mut heard = self.heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// A command in its turn. `write` has `immediate` data; `more` clears the F bit.
    fn command(&mut self, itt: u32, edtl: u32, write: Option<(&[u8], bool)>) {
        let sn = self.cmd_sn;
        self.cmd_sn += 1;
        self.command_numbered(sn, itt, edtl, write);
    }

    fn command_numbered(&mut self, sn: u32, itt: u32, edtl: u32, write: Option<(&[u8], bool)>) {
        let (data, more) = write.unwrap_or((&[], false));
        let command = ScsiCommand {
            immediate: false,
            is_final: !more,
            read: write.is_none() && edtl > 0,
            write: write.is_some(),
            attribute: Attribute::Simple,
            lun: Lun::new(0),
            itt,
            edtl,
            cmd_sn: sn,
            exp_stat_sn: self.exp_stat_sn,
            cdb: [0x2a; 16],
        };
        self.send(command.emit(), data);
    }

    fn data_out(&mut self, itt: u32, ttt: u32, data_sn: u32, offset: u32, data: &[u8], last: bool) {
        let lun = Lun::new(0);
        let pdu = DataOut {
            is_final: last,
            lun,
            itt,
            ttt,
            exp_stat_sn: self.exp_stat_sn,
            data_sn,
            offset,
        };
        self.send(pdu.emit(), data);
    }

    fn expect_command(&mut self) -> Command {
        match self.conn.poll() {
            Some(Event::Command(command)) => command,
            other => panic!("no command but {other:?}"),
        }
    }

    fn gathered(&mut self) -> Vec<u8> {
        match self.conn.poll() {
            Some(Event::DataOut { data, .. }) => {
                data.iter().flat_map(|s| s.bytes().to_vec()).collect()
            }
            other => panic!("no data but {other:?}"),
        }
    }

    fn good(&mut self, itt: u32, wanted: u64) {
        assert!(self.conn.respond(itt, Response { wanted, ..good() }));
    }

    fn task(&mut self, function: Function, referenced: u32, ref_cmd_sn: u32) {
        let request = TaskRequest {
            immediate: true,
            function,
            lun: Lun::new(0),
            itt: 0x999,
            referenced,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: 0,
            ref_cmd_sn,
            exp_data_sn: 0,
        };
        self.send(request.emit(), &[]);
    }
}

fn good() -> Response<HeapBuffer> {
    Response { status: 0, sense: Box::default(), data: DataIn::None, wanted: 0 }
}

fn login_request() -> LoginRequest {
    LoginRequest {
        transit: true,
        continues: false,
        current: Stage::Operational,
        next: Some(Stage::FullFeature),
        version_max: 0,
        version_min: 0,
        data_len: 0,
        isid: Isid([0; 6]),
        tsih: 0,
        task_tag: 1,
        cid: 0,
        cmd_sn: 100,
        exp_stat_sn: 7,
    }
}

fn login_answer(request: &LoginRequest) -> LoginResponse {
    LoginResponse {
        transit: true,
        continues: false,
        current: request.current,
        next: request.next,
        version_max: 0,
        version_active: 0,
        data_len: 0,
        isid: request.isid,
        tsih: 1,
        task_tag: request.task_tag,
        stat_sn: 0,
        exp_cmd_sn: 0,
        max_cmd_sn: 0,
        status: Status::SUCCESS,
    }
}

fn terms() -> Negotiated {
    Negotiated { initial_r2t: false, segment_bytes_max: 65_536, ..Negotiated::default() }
}

fn is(heard: &Heard, opcode: Opcode) -> bool {
    heard.0.opcode() == Some(opcode)
}

#[test]
fn write_with_immediate_unsolicited_and_solicited_data() {
    for digest in [Digest::None, Digest::Crc32c] {
        let agreed = Negotiated {
            header_digest: digest,
            data_digest: digest,
            first_burst_bytes_max: 4096,
            burst_bytes_max: 8192,
            ..terms()
        };
        let mut talk = Talk::logged_in(&agreed);
        let bytes: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0]).collect();
        talk.command(1, 20_000, Some((&bytes[..1000], true)));
        assert_eq!(talk.expect_command().edtl, 20_000);
        talk.conn.begin_data_out(1, 20_000, &mut talk.arena);
        talk.data_out(1, TAG_NONE, 0, 1000, &bytes[1000..4096], true);
        for (offset, sn) in [(4096usize, 0), (12_288, 1)] {
            let r2t = R2t::parse(&talk.one().0);
            assert_eq!((r2t.offset as usize, r2t.r2t_sn, r2t.numbers.stat_sn), (offset, sn, 8));
            let end = offset + r2t.bytes as usize;
            talk.data_out(1, r2t.ttt, 0, r2t.offset, &bytes[offset..end - 100], false);
            talk.data_out(
                1,
                r2t.ttt,
                1,
                r2t.offset + r2t.bytes - 100,
                &bytes[end - 100..end],
                true,
            );
        }
        assert_eq!(talk.gathered(), bytes);
        talk.good(1, 20_000);
        let response = ScsiResponse::parse(&talk.one().0).unwrap();
        assert_eq!((response.residual, response.numbers.stat_sn), (Residual::None, 8));
        assert_eq!(response.numbers.max_cmd_sn, 104);
        assert_eq!(talk.arena.in_use(), 0);
    }
}

#[test]
fn payload_may_be_received_straight_to_its_place() {
    let agreed = Negotiated { data_digest: Digest::Crc32c, ..terms() };
    let mut talk = Talk::logged_in(&agreed);
    let bytes: Vec<u8> = (0..5000u32).map(|n| n.to_le_bytes()[0]).collect();
    talk.command(1, 5000, Some((&[], false)));
    talk.expect_command();
    talk.conn.begin_data_out(1, 5000, &mut talk.arena);
    let r2t = R2t::parse(&talk.one().0);
    let pdu = DataOut {
        is_final: true,
        lun: Lun(0),
        itt: 1,
        ttt: r2t.ttt,
        exp_stat_sn: 0,
        data_sn: 0,
        offset: 0,
    };
    let wire = talk.wire(pdu.emit(), &bytes);
    talk.conn.handle_bytes(&wire[..60], &mut talk.arena, talk.now);
    assert_eq!(talk.conn.direct(), Some(4988));
    let mut slice = talk.conn.take_direct().unwrap();
    assert_eq!((slice.start, slice.len), (12, 4988));
    slice.bytes_mut()[..4988].copy_from_slice(&wire[60..5048]);
    talk.conn.direct_done(slice, 4988, &mut talk.arena, talk.now);
    assert_eq!(talk.conn.direct(), None);
    talk.conn.handle_bytes(&wire[5048..], &mut talk.arena, talk.now);
    assert_eq!(talk.gathered(), bytes);
}

#[test]
fn a_host_may_begin_some_commands_and_look_at_the_others_later() {
    let mut talk = Talk::logged_in(&terms());
    let mut wire = Vec::new();
    for itt in 1..=3 {
        let command = ScsiCommand {
            immediate: false,
            is_final: true,
            read: true,
            write: false,
            attribute: Attribute::Simple,
            lun: Lun(0),
            itt,
            edtl: 512,
            cmd_sn: talk.cmd_sn,
            exp_stat_sn: talk.exp_stat_sn,
            cdb: [0; 16],
        };
        talk.cmd_sn += 1;
        wire.extend(talk.wire(command.emit(), &[]));
    }
    let taken = talk.conn.handle_some(&wire, 2, &mut talk.arena, talk.now);
    assert_eq!(taken, 2 * 48);
    assert_eq!([talk.expect_command().itt, talk.expect_command().itt], [1, 2]);
    assert!(talk.conn.poll().is_none());
    let rest = talk.conn.handle_some(&wire[taken..], 2, &mut talk.arena, talk.now);
    assert_eq!((rest, talk.expect_command().itt), (48, 3));
}

#[test]
fn read_is_cut_by_segment_and_burst_and_carries_its_status() {
    let agreed = Negotiated { peer_segment_bytes_max: 1000, burst_bytes_max: 2500, ..terms() };
    let mut talk = Talk::logged_in(&agreed);
    talk.command(1, 6000, None);
    talk.expect_command();
    let bytes: Vec<u8> = (0..5000u32).map(|n| n.to_le_bytes()[0]).collect();
    let response = Response { data: bytes.clone().into(), wanted: 5000, ..good() };
    assert!(talk.conn.respond(1, response));
    let heard = talk.heard();
    let pdus: Vec<_> = heard.iter().map(|(bhs, _)| data::DataIn::parse(bhs).unwrap()).collect();
    let finals: Vec<_> = pdus.iter().map(|pdu| pdu.is_final).collect();
    assert_eq!(finals, [false, false, true, false, false, true]);
    assert!(pdus.iter().zip(0..).all(|(pdu, sn)| pdu.data_sn == sn && !pdu.acknowledge));
    assert_eq!(pdus[5].status, Some(0));
    assert_eq!(pdus[5].residual, Residual::Underflow(1000));
    assert!(pdus[..5].iter().all(|pdu| pdu.status.is_none()));
    assert_eq!(heard.into_iter().flat_map(|(_, data)| data).collect::<Vec<_>>(), bytes);
}

#[test]
fn status_other_than_good_comes_in_a_response_of_its_own_behind_the_data() {
    let mut talk = Talk::logged_in(&terms());
    talk.command(1, 512, None);
    talk.expect_command();
    let sense = Box::from([0x70, 0, 3]);
    let response = Response { status: 2, sense, data: vec![0; 512].into(), wanted: 512 };
    talk.conn.respond(1, response);
    let heard = talk.heard();
    assert_eq!(data::DataIn::parse(&heard[0].0).unwrap().status, None);
    let response = ScsiResponse::parse(&heard[1].0).unwrap();
    assert_eq!((response.status, response.exp_data_sn), (2, 1));
    assert_eq!(heard[1].1, [0, 3, 0x70, 0, 3]);
}

#[test]
fn residuals_count_against_what_was_announced() {
    let mut talk = Talk::logged_in(&terms());
    // The command writes more, then less, than was announced; no more than that is gathered.
    for (edtl, wanted, gathered, residual) in [
        (512, 1024, 512, Residual::Overflow(512)),
        (1024, 512, 512, Residual::Underflow(512)),
        (512, u64::MAX, 512, Residual::Overflow(u32::MAX)),
    ] {
        talk.command(1, edtl, Some((&vec![7; edtl as usize], false)));
        talk.expect_command();
        talk.conn.begin_data_out(1, wanted, &mut talk.arena);
        assert_eq!(talk.gathered().len(), gathered);
        talk.good(1, wanted);
        assert_eq!(ScsiResponse::parse(&talk.one().0).unwrap().residual, residual);
    }
}

/// tgt allocated what the initiator announced.
#[test]
fn four_gigabytes_announced_cost_nothing() {
    let mut talk = Talk::logged_in(&terms());
    talk.command(1, u32::MAX, Some((&[], false)));
    talk.expect_command();
    assert_eq!(talk.arena.in_use(), 0);
    talk.conn.begin_data_out(1, 512, &mut talk.arena);
    assert!(talk.arena.in_use() <= 256 * 1024);
    let asked = R2t::parse(&talk.one().0);
    assert_eq!(asked.bytes, 512);
    talk.data_out(1, asked.ttt, 0, 0, &[7; 512], true);
    assert_eq!(talk.gathered(), [7; 512]);
    talk.good(1, 512);
    let residual = ScsiResponse::parse(&talk.one().0).unwrap().residual;
    assert_eq!(residual, Residual::Underflow(u32::MAX - 512));
}
