//! The target's end of an iSCSI connection: any PDUs, whole, damaged or in pieces, and a server
//! that answers, aborts or keeps silent as it likes.
//!
//! ```text
//! mod.rs    the script: what the initiator sends, what the server does
//! heard.rs  the judge of all that the target sends
//! ```
//!
//! MaxCmdSN and ExpCmdSN never go back and the window is never wider than configured; StatSN
//! counts; data and R2Ts stay inside what was announced; data that came undamaged, or that a
//! digest found damaged, arrives unchanged; what is sent again is what was sent. Whatever happened,
//! once everything is answered the whole window is open again.

mod heard;

use std::collections::BTreeMap;

use corbel_proto::iscsi::bhs::{BHS_BYTES, Bhs, Lun, TAG_NONE};
use corbel_proto::iscsi::digest::Digest as Sum;
use corbel_proto::iscsi::framer;
use corbel_proto::iscsi::params::{Digest, Negotiated};
use corbel_proto::iscsi::pdu::asynchronous::AsyncEvent;
use corbel_proto::iscsi::pdu::data::DataOut;
use corbel_proto::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage, Status};
use corbel_proto::iscsi::pdu::logout::{self, LogoutRequest, Reason};
use corbel_proto::iscsi::pdu::nop::NopOut;
use corbel_proto::iscsi::pdu::r2t::R2t;
use corbel_proto::iscsi::pdu::scsi::{Attribute, ScsiCommand};
use corbel_proto::iscsi::pdu::snack::Snack;
use corbel_proto::iscsi::pdu::task::{Function, TaskOutcome, TaskRequest};
use corbel_proto::iscsi::pdu::text::{TextRequest, TextResponse};
use corbel_proto::iscsi::target::{Closed, Config, Connection, DataIn, Event, Response};
use corbel_proto::memory::{Arena, HeapArena, HeapBuffer, Segments, Slice};
use corbel_proto::time::{Duration, Instant};
use heard::Judge;

use super::script::Script;

const WINDOW: u32 = 4;
const CMD_SN: u32 = 0xffff_fff0;
const STEPS_MAX: usize = 300;

/// How far a command is with the server.
#[derive(Debug, Clone, Copy)]
struct Open {
    write: bool,
    edtl: u32,
    gathering: bool,
}

struct Bench {
    conn: Connection<HeapBuffer>,
    arena: HeapArena,
    agreed: Negotiated,
    now: Instant,
    cmd_sn: u32,
    judge: Judge,
    r2ts: Vec<R2t>,
    open: BTreeMap<u32, Open>,
    functions: Vec<u32>,
    logouts: Vec<u32>,
    /// A PDU was damaged: what arrives need not be what was meant.
    damaged: bool,
    /// Nobody knows where the next PDU begins.
    lost: bool,
}

/// See the head of this file.
pub(super) fn iscsi_connection(input: &[u8]) {
    let mut script = Script::new(input);
    let mut bench = Bench::logged_in(script.u8(), script.u8());
    for _ in 0..STEPS_MAX {
        if script.is_over() || bench.conn.is_closed() {
            break;
        }
        bench.step(&mut script);
        bench.events();
    }
    bench.end();
}

/// The byte of a write's data at `offset`.
fn pattern(itt: u32, offset: u32) -> u8 {
    (itt.wrapping_mul(31) ^ offset ^ offset >> 8).to_le_bytes()[0]
}

impl Bench {
    fn logged_in(mode: u8, memory: u8) -> Self {
        let digest = |on| if on { Digest::Crc32c } else { Digest::None };
        let agreed = Negotiated {
            header_digest: digest(mode & 1 == 1),
            data_digest: digest(mode & 2 == 2),
            peer_segment_bytes_max: 512,
            segment_bytes_max: 1024,
            burst_bytes_max: 2048,
            first_burst_bytes_max: 1024,
            initial_r2t: mode & 4 == 4,
            immediate_data: mode & 8 == 0,
            outstanding_r2t_max: u16::from(mode >> 4 & 3) + 1,
            recovery_level: mode >> 6 & 1,
            data_pdu_in_order: mode & 0x80 == 0,
            data_sequence_in_order: mode & 0x80 == 0,
            ..Negotiated::default()
        };
        let now = Instant::from_nanos(1);
        let mut bench = Self {
            conn: Connection::new(Config { window: WINDOW, ..Config::default() }, now),
            arena: HeapArena::new(usize::from(memory) * 256),
            agreed,
            now,
            cmd_sn: CMD_SN,
            judge: Judge::new(WINDOW, agreed.recovery_level > 0),
            r2ts: Vec::new(),
            open: BTreeMap::new(),
            functions: Vec::new(),
            logouts: Vec::new(),
            damaged: false,
            lost: false,
        };
        bench.receive(&bench.wire(Bhs(login_request().emit()), b"InitiatorName=iqn.x\0"), 0);
        let Some(Event::Login(request, _)) = bench.conn.poll() else { panic!("no login") };
        bench.conn.login_response(&login_response(&request), b"TargetPortalGroupTag=1\0");
        bench.conn.enter_full_feature(&agreed, now);
        bench.hear();
        bench.judge.digests(mode & 1 == 1, mode & 2 == 2);
        bench
    }

    fn wire(&self, bhs: Bhs, data: &[u8]) -> Vec<u8> {
        let (header, data_too) = self.judge.digests_on();
        let len = u32::try_from(data.len()).expect("short data");
        let mut bytes = bhs.with_data_bytes(len).0.to_vec();
        if header {
            bytes.extend(Sum::of(&bytes).to_wire());
        }
        bytes.extend(data);
        let (tail, tail_len) = framer::trailer(len, data_too.then(|| Sum::of(data)));
        bytes.extend(&tail[..tail_len]);
        bytes
    }

    /// Hands bytes over, `piece` at a time (0: all at once), or straight into payload memory.
    fn receive(&mut self, bytes: &[u8], piece: u8) {
        let mut rest = bytes;
        while !rest.is_empty() && self.conn.wants_read() {
            let len = if piece == 0 { rest.len() } else { usize::from(piece).min(rest.len()) };
            if piece & 1 == 1
                && let Some(mut slice) = self.conn.take_direct()
            {
                let len = len.min(slice.len as usize);
                slice.bytes_mut()[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
                let len = u32::try_from(len).expect("a short piece");
                self.conn.direct_done(slice, len, &mut self.arena, self.now);
                continue;
            }
            let (taken, left) = rest.split_at(len);
            self.conn.handle_bytes(taken, &mut self.arena, self.now);
            rest = left;
            self.hear();
        }
        self.lost |= !rest.is_empty();
    }

    /// One PDU, perhaps damaged.
    fn send(&mut self, bhs: Bhs, data: &[u8], script: &mut Script<'_>) {
        let how = script.u8();
        let mut bhs = bhs;
        if how & 0x40 == 0x40 {
            // A wrong field under a right digest; never the lengths, or the stream is lost.
            let at = script.index(44);
            let at = if at >= 4 { at + 4 } else { at };
            bhs.0[at] ^= script.u8();
            self.damaged = true;
        }
        let mut bytes = self.wire(bhs, data);
        if how & 0x80 == 0x80 {
            let at = script.index(bytes.len());
            bytes[at] ^= script.u8();
            // A digest finds it, and what it covers is failed or sent again.
            let header = BHS_BYTES + if self.judge.digests_on().0 { 4 } else { 0 };
            self.damaged |= !self.judge.digests_on().1 || at < header;
            self.lost |= (4..8).contains(&at);
        }
        self.receive(&bytes, how & 0x3f);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.u8();
        match operation & 15 {
            0..=2 => self.command(operation >> 4, script),
            3..=5 => self.data_out(operation >> 4, script),
            6 => self.function(operation >> 4, script),
            7 => self.other(operation >> 4, script),
            8 => {
                let len = usize::from(script.u8());
                let bytes = script.bytes(len).to_vec();
                (self.lost, self.damaged) = (true, true);
                self.receive(&bytes, operation >> 4);
            }
            9 => {
                self.now = self.now + Duration::from_millis(u64::from(script.u16()));
                self.conn.handle_timeout(self.now);
            }
            10 => {
                let itt = u32::from(operation >> 4);
                self.conn.abort(itt);
                self.open.remove(&itt);
                self.r2ts.retain(|r2t| r2t.itt != itt);
                self.judge.forget(itt);
            }
            11 => self.late_answers(script),
            _ => self.answer(operation >> 4, script.u8()),
        }
        if operation & 0x10 == 0x10 {
            self.conn.memory_returned(&mut self.arena);
            self.hear();
        }
    }

    /// The number of the next command, mostly.
    fn take_cmd_sn(&mut self, skew: u8) -> u32 {
        match skew & 7 {
            6 => self.cmd_sn.wrapping_add(1),
            7 => self.cmd_sn.wrapping_sub(1),
            _ => {
                let sn = self.cmd_sn;
                self.cmd_sn = sn.wrapping_add(1);
                sn
            }
        }
    }

    fn command(&mut self, itt: u8, script: &mut Script<'_>) {
        let (shape, skew, len) = (script.u8(), script.u8(), script.u8());
        let itt = u32::from(itt);
        let write = shape & 1 == 1;
        let edtl = u32::from(len) * 32;
        let unasked = edtl.min(self.agreed.first_burst_bytes_max).min(1024);
        let data_len = match shape >> 4 & 3 {
            0 | 1 => 0,
            2 => unasked / 2,
            _ => unasked,
        };
        let data: Vec<u8> = (0..data_len).map(|at| pattern(itt, at)).collect();
        let command = ScsiCommand {
            immediate: shape & 0x88 == 0x88,
            is_final: shape & 2 == 0,
            read: shape & 5 == 0 || shape & 0x40 == 0x40,
            write,
            attribute: Attribute::Simple,
            lun: Lun(u64::from(shape >> 6 & 1) << 48),
            itt,
            edtl,
            cmd_sn: self.take_cmd_sn(skew),
            exp_stat_sn: 0,
            cdb: [0x2a; 16],
        };
        self.send(command.emit(), if write { &data } else { &[] }, script);
    }

    /// What an R2T asked for, or part of it; or unsolicited data.
    fn data_out(&mut self, itt: u8, script: &mut Script<'_>) {
        let (choice, data_sn, at) = (script.u8(), script.u8(), script.u8());
        let (itt, ttt, offset, bytes) = if choice & 1 == 1 || self.r2ts.is_empty() {
            let offset = u32::from(at) * 32;
            (u32::from(itt), TAG_NONE, offset, 32 * u32::from(choice >> 3))
        } else {
            let index = usize::from(choice >> 3) % self.r2ts.len();
            let r2t = &mut self.r2ts[index];
            let part = r2t.bytes.min(if choice & 2 == 2 { 512 } else { 1024 });
            let out = (r2t.itt, r2t.ttt, r2t.offset, part);
            (r2t.offset, r2t.bytes) = (r2t.offset + part, r2t.bytes - part);
            if r2t.bytes == 0 {
                self.r2ts.remove(index);
            }
            out
        };
        let left = self.r2ts.iter().any(|r2t| (r2t.itt, r2t.ttt) == (itt, ttt));
        let is_final = if ttt == TAG_NONE { choice & 4 == 0 } else { !left };
        let data: Vec<u8> = (0..bytes).map(|i| pattern(itt, offset.wrapping_add(i))).collect();
        let pdu = DataOut {
            is_final,
            lun: Lun(0),
            itt,
            ttt,
            exp_stat_sn: 0,
            data_sn: u32::from(data_sn & 7),
            offset,
        };
        self.send(pdu.emit(), &data, script);
    }

    fn function(&mut self, itt: u8, script: &mut Script<'_>) {
        let (which, referenced, skew) = (script.u8(), script.u8(), script.u8());
        let immediate = which & 0x80 == 0;
        let cmd_sn = if immediate { self.cmd_sn } else { self.take_cmd_sn(skew) };
        let request = TaskRequest {
            immediate,
            function: [
                Function::AbortTask,
                Function::AbortTaskSet,
                Function::ClearAca,
                Function::ClearTaskSet,
                Function::LogicalUnitReset,
                Function::TargetWarmReset,
                Function::TargetColdReset,
                Function::TaskReassign,
            ][usize::from(which & 7)],
            lun: Lun(0),
            itt: 0x100 + u32::from(itt),
            referenced: u32::from(referenced & 15),
            cmd_sn,
            exp_stat_sn: 0,
            ref_cmd_sn: cmd_sn.wrapping_sub(u32::from(referenced >> 4)),
            exp_data_sn: 0,
        };
        self.send(request.emit(), &[], script);
    }

    fn other(&mut self, itt: u8, script: &mut Script<'_>) {
        let (what, skew) = (script.u8(), script.u8());
        let immediate = what & 0x80 == 0x80;
        let cmd_sn = if immediate { self.cmd_sn } else { self.take_cmd_sn(skew) };
        let itt = 0x200 + u32::from(itt);
        let bhs = match what & 3 {
            0 => {
                NopOut { immediate, lun: Lun(0), itt, ttt: TAG_NONE, cmd_sn, exp_stat_sn: 0 }.emit()
            }
            1 => Bhs(TextRequest {
                immediate,
                last: what & 4 == 0,
                continues: what & 12 == 12,
                data_len: 0,
                lun: 0,
                task_tag: itt,
                transfer_tag: TAG_NONE,
                cmd_sn,
                exp_stat_sn: 0,
            }
            .emit()),
            2 => {
                let reason = Reason::CloseSession;
                LogoutRequest { immediate, reason, itt, cid: 0, cmd_sn, exp_stat_sn: 0 }.emit()
            }
            _ if what & 4 == 4 => {
                // Wrong numbers, right ones, and an acknowledgement of some of what was sent.
                let (begin, run) = (u32::from(skew >> 4), u32::from(skew & 7));
                let first = self.judge.stat_sn().wrapping_sub(u32::from(what >> 5));
                Snack {
                    kind: what >> 3 & 3,
                    lun: Lun(0),
                    itt: itt & 15,
                    ttt: u32::from(skew),
                    exp_stat_sn: if skew & 8 == 8 { first } else { 0 },
                    begin: if what >> 3 & 3 == 1 { first.wrapping_add(begin) } else { begin },
                    run,
                }
                .emit()
            }
            _ => {
                let mut bhs = Bhs([what; 48]);
                bhs.0[4] = 0; // no additional headers
                bhs
            }
        };
        let data = script.bytes(usize::from(what >> 2 & 0x1f));
        self.send(bhs, data, script);
    }

    /// The server answers a command, or asks for its data.
    fn answer(&mut self, which: u8, how: u8) {
        let Some((&itt, &open)) = self.open.iter().nth(usize::from(which) % 4) else { return };
        if open.write && !open.gathering && how & 1 == 1 {
            self.open.insert(itt, Open { gathering: true, ..open });
            let wanted = u64::from(how >> 2) * 128;
            self.conn.begin_data_out(itt, wanted, &mut self.arena);
            return self.hear();
        }
        let bytes = (u32::from(how >> 3) * 128).min(4096);
        let data = match how >> 1 & 3 {
            0 => DataIn::None,
            1 => DataIn::from(vec![how; bytes as usize]),
            _ => self.segments(bytes),
        };
        let status = if how & 0x81 == 0x81 { 2 } else { 0 };
        let sense = if status == 2 { [0x70; 18][..].into() } else { [][..].into() };
        self.open.remove(&itt);
        self.conn.respond(itt, Response { status, sense, data, wanted: u64::from(bytes) });
        if how & 0x40 == 0 {
            self.hear();
        }
    }

    /// Read data in two pieces, if there is memory.
    fn segments(&mut self, bytes: u32) -> DataIn<HeapBuffer> {
        let mut segments = Segments::new();
        for len in [bytes / 2, bytes - bytes / 2] {
            if len > 0 {
                let Some(buffer) = self.arena.alloc(len as usize) else { return DataIn::None };
                segments.push(Slice::whole(buffer));
            }
        }
        DataIn::Segments(segments)
    }

    /// What else a server has to say, now or never.
    fn late_answers(&mut self, script: &mut Script<'_>) {
        let how = script.u8();
        match how & 3 {
            0 => self.functions.drain(..).for_each(|itt| {
                self.conn.task_response(itt, TaskOutcome::Complete);
            }),
            1 => {
                let code = if how & 0x10 == 0 { logout::CID_NOT_FOUND } else { logout::CLOSED };
                let conn = &mut self.conn;
                self.logouts.drain(..).for_each(|itt| conn.logout_response(itt, code));
            }
            2 => self.conn.send_async(Lun(0), AsyncEvent::Scsi, &[0x70; 18]),
            _ => self.conn.login_response(&login_response(&login_request()), b""),
        }
        self.hear();
    }

    fn events(&mut self) {
        while let Some(event) = self.conn.poll() {
            match event {
                Event::Login(..) => panic!("a login after the login"),
                Event::Text(request, text) => {
                    let response = text_response(&request);
                    if text.is_empty() {
                        self.conn.text_reject(&request);
                    } else {
                        self.conn.text_response(&response, &text[..text.len().min(512)]);
                    }
                }
                Event::Command(command) => {
                    let open = Open { write: command.write, edtl: command.edtl, gathering: false };
                    assert!(self.open.insert(command.itt, open).is_none(), "a tag twice");
                    self.judge.expect(command.itt, command.edtl);
                }
                Event::DataOut { itt, data } => self.gathered(itt, &data),
                Event::DataFailed { itt, .. } => {
                    assert!(self.open[&itt].gathering, "nobody asked for data");
                }
                Event::Task(request) => self.functions.push(request.itt),
                Event::Logout(request) => self.logouts.push(request.itt),
                Event::Elsewhere(..) | Event::Passed(_) => panic!("there is one connection"),
                Event::Closed(why) => {
                    assert!(self.conn.is_closed() && why != Closed::ByServer);
                }
            }
        }
    }

    fn gathered(&mut self, itt: u32, data: &Segments<HeapBuffer>) {
        let open = self.open[&itt];
        assert!(open.gathering, "nobody asked for data");
        let bytes: Vec<u8> = data.iter().flat_map(|slice| slice.bytes().to_vec()).collect();
        assert!(bytes.len() <= open.edtl as usize, "more than announced");
        if !self.damaged {
            let right = (0..).zip(&bytes).all(|(at, byte)| *byte == pattern(itt, at));
            assert!(right, "write data changed on its way");
        }
    }

    /// Takes and judges all that the target sends.
    fn hear(&mut self) {
        while let Some(out) = self.conn.poll_transmit() {
            if let Some(r2t) = self.judge.hear(&out, &self.agreed) {
                self.r2ts.push(r2t);
            }
        }
    }

    fn ping(&mut self, immediate: bool) {
        let (cmd_sn, exp_stat_sn) = (self.judge.exp_cmd_sn(), 0);
        let ping =
            NopOut { immediate, lun: Lun(0), itt: 0x300, ttt: TAG_NONE, cmd_sn, exp_stat_sn };
        self.receive(&self.wire(ping.emit(), &[]), 0);
    }

    /// Everything is answered; then the window must be open as wide as ever.
    fn end(&mut self) {
        self.hear();
        for _ in 0..2 * WINDOW {
            self.events();
            while !self.open.is_empty() {
                self.answer(0, 0);
            }
            self.functions.drain(..).for_each(|itt| {
                self.conn.task_response(itt, TaskOutcome::Complete);
            });
            let logouts = std::mem::take(&mut self.logouts);
            logouts.into_iter().for_each(|itt| {
                self.conn.logout_response(itt, logout::CID_NOT_FOUND);
            });
            self.hear();
            if self.conn.is_closed() || self.lost {
                break;
            }
            // Asks for the numbers, and fills the gap before commands that came too early.
            self.ping(true);
            self.ping(false);
        }
        if !self.conn.is_closed() && !self.lost {
            assert_eq!(self.judge.window(), WINDOW, "places in the window are lost");
            assert_eq!(self.conn.tasks().count(), 0, "a task hangs");
            assert_eq!(self.conn.starved(), 0);
        }
        self.conn.close(Closed::ByServer);
        while self.conn.poll().is_some() {}
        assert_eq!(self.arena.in_use(), 0, "memory is still lent");
    }
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
        cmd_sn: CMD_SN,
        exp_stat_sn: 7,
    }
}

fn login_response(request: &LoginRequest) -> LoginResponse {
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

fn text_response(request: &TextRequest) -> TextResponse {
    TextResponse {
        last: true,
        continues: false,
        data_len: 0,
        lun: 0,
        task_tag: request.task_tag,
        transfer_tag: TAG_NONE,
        stat_sn: 0,
        exp_cmd_sn: 0,
        max_cmd_sn: 0,
    }
}
