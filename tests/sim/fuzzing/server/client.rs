//! One connection as its initiator sees it. Each of its writes has a place of its own on the disk.

use std::collections::BTreeMap;

use corbel_proto::iscsi::bhs::{BHS_BYTES, Bhs, Lun, Opcode, TAG_NONE};
use corbel_proto::iscsi::pdu::data::DataOut;
use corbel_proto::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage};
use corbel_proto::iscsi::pdu::logout::{LogoutRequest, Reason};
use corbel_proto::iscsi::pdu::nop::NopOut;
use corbel_proto::iscsi::pdu::r2t::R2t;
use corbel_proto::iscsi::pdu::scsi::{Attribute, ScsiCommand};
use corbel_proto::iscsi::pdu::task::{Function, TaskOutcome, TaskRequest, TaskResponse};
use corbel_proto::iscsi::pdu::text::TextRequest;
use corbel_proto::iscsi::target::Outgoing;
use corbel_proto::memory::HeapBuffer;
use corbel_target::iscsi::server::ConnId;

use super::super::host::SECTOR;
use super::super::script::Script;
use super::TARGET;

/// Blocks that one writer has to itself, and tags of a client.
const BLOCKS: usize = 4;
const TAGS: usize = 16;

/// Who writes at `offset`.
pub(super) fn writer(offset: u64) -> (usize, u32) {
    let place = usize::try_from(offset).expect("a small disk") / SECTOR / BLOCKS;
    (place / TAGS, u32::try_from(place % TAGS).expect("a tag"))
}

/// What a PDU from the target means here.
pub(super) enum Heard {
    Nothing,
    /// The login is complete, in a normal session of its own.
    LoggedIn,
    /// The login is complete, as one more connection of a session, or in the place of one.
    Joined,
    /// A task management function is done.
    Ended {
        function: Function,
        referenced: u32,
        /// When it was sent.
        asked: u64,
    },
}

pub(super) struct Client {
    pub(super) shard: usize,
    pub(super) id: ConnId,
    pub(super) isid: u8,
    pub(super) cid: u16,
    /// It asked to join a session.
    joins: bool,
    /// It asked for recovery level 2.
    pub(super) level_2: bool,
    pub(super) logged_in: bool,
    /// Commands without an answer: when they were sent, to which LUN, under which
    /// number.
    pub(super) sent: BTreeMap<u32, (u64, u8, u32)>,
    number: usize,
    /// It tried to log in; what it says later of itself is not believed.
    asked: bool,
    normal: bool,
    cmd_sn: u32,
    /// It keeps to the window: beyond it, what is sent is lost, and an ABORT TASK that follows is
    /// rightly taken for one of something lost.
    max_cmd_sn: u32,
    r2ts: Vec<R2t>,
    functions: BTreeMap<u32, (Function, u32, u64)>,
}

impl Client {
    pub(super) fn new(shard: usize, id: ConnId, number: usize) -> Self {
        Self {
            shard,
            id,
            isid: 0,
            cid: u16::from(number & 1 == 1),
            joins: false,
            level_2: false,
            logged_in: false,
            sent: BTreeMap::new(),
            number,
            asked: false,
            normal: false,
            cmd_sn: 1,
            max_cmd_sn: 1,
            r2ts: Vec::new(),
            functions: BTreeMap::new(),
        }
    }

    /// What it sends next, or `None` if it breaks the connection.
    pub(super) fn act(&mut self, script: &mut Script<'_>, moment: u64) -> Option<Vec<u8>> {
        let what = script.u8();
        Some(match what & 15 {
            0 => return None,
            1 | 2 => self.login(what >> 4),
            3 => {
                let len = usize::from(script.u8());
                script.bytes(len).to_vec()
            }
            4 | 5 => self.function(what >> 4, script, moment),
            6 => self.other(what >> 4),
            7..=9 => self.data_out(script),
            _ => {
                // Tags are a session's: those of its connections differ.
                let own = u32::try_from(self.number & 3).expect("small");
                self.command(u32::from(what >> 4) & 12 | own, script, moment)
            }
        })
    }

    fn take_cmd_sn(&mut self) -> u32 {
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        self.cmd_sn.wrapping_sub(1)
    }

    fn login(&mut self, how: u8) -> Vec<u8> {
        if !self.asked {
            (self.asked, self.isid, self.normal) = (true, how & 1, how & 2 == 0);
            self.joins = how & 12 == 12;
        }
        let request = LoginRequest {
            transit: true,
            continues: false,
            current: Stage::Operational,
            next: Some(Stage::FullFeature),
            version_max: 0,
            version_min: 0,
            data_len: 0,
            isid: Isid([0, 0, 0, 0, 0, self.isid]),
            tsih: u16::from(how & 12 == 12),
            task_tag: 0,
            cid: self.cid,
            cmd_sn: 1,
            exp_stat_sn: 0,
        };
        let mut text = "InitiatorName=iqn.2026-11.org.example:node\0".to_owned();
        text += if self.normal { "TargetName=" } else { "SessionType=Discovery\0X=" };
        text += TARGET;
        text += match how & 12 {
            4 => "\0InitialR2T=Yes\0ImmediateData=No\0MaxConnections=4\0ErrorRecoveryLevel=1\0",
            8 => {
                self.level_2 = true;
                "\0MaxConnections=4\0ErrorRecoveryLevel=2\0"
            }
            _ => "\0",
        };
        wire(Bhs(request.emit()), text.as_bytes())
    }

    fn command(&mut self, itt: u32, script: &mut Script<'_>, moment: u64) -> Vec<u8> {
        let (code, flags) = (script.u8(), script.u8());
        if self.sent.contains_key(&itt) {
            // A tag without an answer is not used again, or nobody could tell whose write is whose.
            return self.other(0);
        }
        let place = (self.number * TAGS + itt as usize) * BLOCKS;
        let [_, _, high, low] = u32::try_from(place).expect("a small disk").to_be_bytes();
        let blocks = flags & 3;
        let bytes = u32::from(blocks) * 512;
        let ten = |code| [code, 0, 0, 0, high, low, 0, 0, blocks, 0, 0, 0, 0, 0, 0, 0];
        let (cdb, edtl, write) = match code & 15 {
            0..=6 => (ten(0x2a), bytes, true),
            7..=9 => (ten(0x28), bytes, false),
            10 => (ten(0x35), 0, false),
            11 => ([0; 16], 0, false),
            12 => ([0x12, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 96, false),
            13 => ([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0], 64, false),
            14 => ([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0], 24, true),
            _ => {
                let mut cdb = [code; 16];
                let given = script.bytes(16);
                cdb[..given.len()].copy_from_slice(given);
                // Writes have places of their own; others may do what they like, reading.
                cdb[0] = if matches!(cdb[0] & 0x1f, 0x08 | 0x12 | 0x1a) { cdb[0] } else { 0 };
                (cdb, u32::from(flags) * 16, false)
            }
        };
        let at_once = if write && flags & 4 == 4 { edtl } else { 0 };
        let data = vec![flags; at_once as usize];
        let immediate = flags & 0xe0 == 0xe0 || self.cmd_sn > self.max_cmd_sn;
        let attribute = match code >> 4 {
            0..=9 => Attribute::Simple,
            10 => Attribute::Untagged,
            11 => Attribute::HeadOfQueue,
            _ => Attribute::Ordered,
        };
        let cmd_sn = if immediate { self.cmd_sn } else { self.take_cmd_sn() };
        self.sent.insert(itt, (moment, flags >> 3 & 1, cmd_sn));
        let command = ScsiCommand {
            immediate,
            is_final: true,
            read: !write && edtl > 0,
            write,
            attribute,
            lun: Lun(u64::from(flags >> 3 & 1) << 48),
            itt,
            edtl,
            cmd_sn,
            exp_stat_sn: 0,
            cdb,
        };
        wire(command.emit(), &data)
    }

    fn data_out(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        if self.r2ts.is_empty() {
            return self.other(0);
        }
        let r2t = self.r2ts.remove(script.index(self.r2ts.len()));
        let (lun, itt, ttt, offset) = (r2t.lun, r2t.itt, r2t.ttt, r2t.offset);
        let pdu = DataOut { is_final: true, lun, itt, ttt, exp_stat_sn: 0, data_sn: 0, offset };
        wire(pdu.emit(), &vec![7; r2t.bytes as usize])
    }

    fn function(&mut self, which: u8, script: &mut Script<'_>, moment: u64) -> Vec<u8> {
        let referenced = u32::from(script.u8() & 15);
        let function = [
            Function::AbortTask,
            Function::TaskReassign,
            Function::AbortTaskSet,
            Function::ClearTaskSet,
            Function::LogicalUnitReset,
            Function::TargetWarmReset,
            Function::TargetColdReset,
            Function::ClearAca,
        ][usize::from(which & 7)];
        let itt = 0x1000 + u32::try_from(moment).expect("a short script");
        self.functions.insert(itt, (function, referenced, moment));
        let request = TaskRequest {
            immediate: true,
            function,
            lun: Lun(0),
            itt,
            referenced,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: 0,
            ref_cmd_sn: self.sent.get(&referenced).map_or(self.cmd_sn, |sent| sent.2),
            exp_data_sn: referenced >> 2,
        };
        wire(request.emit(), &[])
    }

    fn other(&mut self, what: u8) -> Vec<u8> {
        let immediate = what & 8 == 8 || self.cmd_sn > self.max_cmd_sn;
        let (cmd_sn, exp_stat_sn) = (self.cmd_sn, 0);
        if !immediate {
            self.take_cmd_sn();
        }
        let itt = 0x100;
        match what & 3 {
            0 => {
                let ttt = TAG_NONE;
                wire(NopOut { immediate, lun: Lun(0), itt, ttt, cmd_sn, exp_stat_sn }.emit(), &[])
            }
            1 => {
                let request = TextRequest {
                    immediate,
                    last: true,
                    continues: false,
                    data_len: 0,
                    lun: 0,
                    task_tag: itt,
                    transfer_tag: TAG_NONE,
                    cmd_sn,
                    exp_stat_sn,
                };
                wire(Bhs(request.emit()), b"SendTargets=All\0")
            }
            _ => {
                let reason = Reason::CloseSession;
                let reason = match what & 6 {
                    4 => Reason::CloseConnection,
                    6 if what & 1 == 1 => Reason::RemoveForRecovery,
                    6 => Reason::CloseConnection,
                    _ => reason,
                };
                let cid = self.cid ^ u16::from(what & 8 == 8);
                let request = LogoutRequest { immediate, reason, itt, cid, cmd_sn, exp_stat_sn };
                wire(request.emit(), &[])
            }
        }
    }

    /// Reads a PDU from the target.
    pub(super) fn hear(&mut self, out: &Outgoing<HeapBuffer>) -> Heard {
        let header: [u8; BHS_BYTES] = out.header().try_into().expect("no digests were agreed");
        let bhs = Bhs(header);
        self.max_cmd_sn = bhs.u32_at(32);
        if self.joins && self.logged_in {
            // Others use up numbers too.
            self.cmd_sn = bhs.u32_at(28);
        }
        match bhs.opcode() {
            Some(Opcode::LoginResponse) => {
                let response = LoginResponse::parse(&header).expect("our own header");
                let done =
                    response.status.class() == 0 && response.next == Some(Stage::FullFeature);
                self.logged_in = done && self.normal;
                match (self.logged_in, self.joins) {
                    (true, true) => {
                        self.cmd_sn = response.exp_cmd_sn;
                        Heard::Joined
                    }
                    (true, false) => Heard::LoggedIn,
                    (false, _) => Heard::Nothing,
                }
            }
            Some(Opcode::R2t) => {
                self.r2ts.push(R2t::parse(&bhs));
                Heard::Nothing
            }
            Some(Opcode::ScsiResponse) => {
                self.sent.remove(&bhs.itt());
                Heard::Nothing
            }
            Some(Opcode::DataIn) if bhs.flags() & 1 == 1 => {
                self.sent.remove(&bhs.itt());
                Heard::Nothing
            }
            Some(Opcode::TaskResponse) => {
                let response = TaskResponse::parse(&bhs);
                let known = self.functions.remove(&response.itt);
                match (known, response.outcome) {
                    (Some((Function::TaskReassign, ..)), _) => Heard::Nothing,
                    (Some((function, referenced, asked)), TaskOutcome::Complete) => {
                        Heard::Ended { function, referenced, asked }
                    }
                    _ => Heard::Nothing,
                }
            }
            Some(_) => Heard::Nothing,
            None => panic!("no opcode of the standard's: {bhs:?}"),
        }
    }
}

fn wire(bhs: Bhs, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("short data");
    let mut bytes = bhs.with_data_bytes(len).0.to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
