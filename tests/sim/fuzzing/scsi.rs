//! The SCSI logical unit, without a transport: any CDBs from two initiators.
//!
//! What is asked of the volume lies inside it, answers are as long as they were announced, and
//! CHECK CONDITION comes with sense data that can be told from garbage.

use std::sync::Arc;

use corbel_proto::memory::{HeapBuffer, Segments, Slice};
use corbel_proto::scsi::Status;
use corbel_proto::scsi::lun::Lun;
use corbel_target::reservation::Reservations;
use corbel_target::scsi::copy::{Copy, Progress};
use corbel_target::scsi::limits::TRANSFER_BYTES_MAX;
use corbel_target::scsi::port_groups::PortGroups;
use corbel_target::scsi::{
    Action, Attention, Kept, LogicalUnit, MissingLun, Nexus, Plan, Reply, View,
};
use corbel_target::volume::sanitize::Sanitization;
use corbel_target::volume::space::Room;
use corbel_target::volume::{Kind, Options, Outcome, Volume};

use super::host::{ERRORS, volume};
use super::script::Script;
use super::wire::check_request;

const SIZE_BYTES: u64 = 1 << 30;
const COMMANDS_MAX: usize = 200;

/// Operation codes that mean something, so that the fuzzer need not guess them.
const CODES: [u8; 46] = [
    0x00, 0x03, 0x04, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x2a,
    0x2e, 0x2f, 0x34, 0x35, 0x37, 0x41, 0x42, 0x48, 0x4d, 0x55, 0x5a, 0x5e, 0x5f, 0x83, 0x84, 0x88,
    0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9c, 0x9e, 0xa0, 0xa3, 0xa8, 0xaa,
];

struct Bench {
    volume: Arc<Volume>,
    unit: Arc<LogicalUnit>,
    nexuses: [Nexus; 2],
    luns_generation: u64,
}

/// See the head of this file.
pub(super) fn scsi_cdb(input: &[u8]) {
    let mut script = Script::new(input);
    let mode = script.u8();
    let options = Options {
        read_only: mode & 1 == 1,
        removable: mode & 2 == 2,
        thin: mode & 4 == 0,
        sanitize_rate: 0,
        space_warning: 1 << 20,
    };
    let mut volume = volume(SIZE_BYTES, options);
    volume.facts.block_bytes = if mode & 8 == 8 { 4096 } else { 512 };
    volume.facts.discard = mode & 16 == 0;
    let volume = Arc::new(volume);
    let unit = Arc::new(LogicalUnit::new(volume.clone()));
    if mode & 32 == 32 {
        volume.reservations.enable_persistence();
        unit.mode.enable_saving();
    }
    unit.port_groups.configure(mode & 64 == 64, &[]);
    let nexuses = [0, 1].map(|who| Nexus::new(unit.clone(), &view(0, who)));
    let mut bench = Bench { volume, unit, nexuses, luns_generation: 0 };
    for _ in 0..COMMANDS_MAX {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
    }
}

/// Initiator `who` at the one port.
fn view(luns_generation: u64, who: usize) -> View<'static> {
    View {
        luns: &[Lun::ZERO],
        luns_generation,
        port_name: "iqn.2026-11.org.example:fuzzed,t,0x0001",
        relative_port: 1,
        port_group: 1,
        ports: &[1],
        initiator: [
            "iqn.2026-11.org.example:a,i,0x400000000000",
            "iqn.2026-11.org.example:b,i,0x400000000000",
        ][who],
    }
}

impl Bench {
    fn step(&mut self, script: &mut Script<'_>) {
        let operation = script.u8();
        let who = usize::from(operation >> 7);
        match operation & 31 {
            0 => self.unit.reset(),
            1 => self.nexuses[who].attend(Attention::ModeChanged),
            2 => self.volume.resize(u64::from(script.u16()) << 14 | 1 << 13),
            3 => self.luns_generation += 1,
            4 => self.volume.count_flush_failure(),
            7 => self.volume.tokens.written(u64::from(script.u16()) << 14, u64::MAX),
            8 => self.volume.tokens.elapsed(script.u8().into()),
            6 => {
                let [used, available] = [script.u16(), script.u16()].map(|n| u64::from(n) << 14);
                self.volume.space.tell(Room { used, available }, 1 << 20);
            }
            5 if operation & 0x60 == 0x60 => self.volume.mark_gone(),
            _ => self.command(who, operation, script),
        }
    }

    fn command(&mut self, who: usize, operation: u8, script: &mut Script<'_>) {
        let mut cdb = [0; 16];
        let near = operation & 0x40 == 0x40;
        cdb[0] = if near { script.u8() } else { CODES[script.index(CODES.len())] };
        let len = usize::from(operation & 15) + 1;
        let given = script.bytes(len);
        // Short CDBs are about the first blocks; so most commands reach the medium.
        cdb[16 - given.len()..].copy_from_slice(given);
        if operation & 0x10 == 0x10 && given.len() < 16 {
            cdb[1..].rotate_left(15 - given.len());
        }
        let view = view(self.luns_generation, who);
        let missing = MissingLun::begin(&view, &cdb);
        assert!(matches!(missing.action, Action::Respond(_)), "a missing unit only answers");
        let plan = match cdb[0] {
            // Its list is as long as what is announced.
            0x04 => self.nexuses[who].begin_with(&view, &cdb, u64::from(script.u8())),
            _ => self.nexuses[who].begin(&view, &cdb),
        };
        let plan = match plan.action {
            Action::Parameters(command) => {
                assert!(plan.data_out < 1 << 16, "a parameter list of {}", plan.data_out);
                let mut list = script.bytes(64).to_vec();
                list.resize(usize::try_from(plan.data_out).expect("checked"), 0);
                if cdb[..2] == [0x83, 0x11] {
                    self.give_token(who, &view, &mut list);
                }
                self.nexuses[who].resume(&view, command, &list)
            }
            _ => plan,
        };
        self.perform(plan, script);
    }

    /// Puts the last token of list identifier 0 where WRITE USING TOKEN has it, and a range behind
    /// it: nobody would guess them.
    fn give_token(&mut self, who: usize, view: &View<'_>, list: &mut [u8]) {
        let ask = [0x84, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0];
        let plan = self.nexuses[who].begin(view, &ask);
        let Action::Respond(reply) = plan.action else { panic!("it is answered at once") };
        if let (Some(token), Some(place)) = (reply.data.get(38..), list.get_mut(16..552)) {
            place[..token.len()].copy_from_slice(token);
            (place[519], place[531]) = (16, 2);
        }
    }

    /// A few chunks of a copy, which stay inside the volume.
    fn copy(&self, copy: &mut Copy, script: &mut Script<'_>) {
        let block = u64::from(self.volume.facts.block_bytes);
        let mut progress = copy.next_chunk();
        for _ in 0..8 {
            let Progress::Submit(request) = progress else { return };
            check_request(&request, block, self.volume.size_bytes());
            let outcome = match (script.u8(), &request.kind) {
                (0, _) => Outcome::Failed(ERRORS[script.index(4)]),
                (_, Kind::Read { len, .. }) => Outcome::Data(payload(*len, 0)),
                _ => Outcome::Done,
            };
            progress = copy.outcome(outcome);
        }
    }

    fn perform(&mut self, plan: Plan, script: &mut Script<'_>) {
        let Plan { data_out, data_in, action } = plan;
        match action {
            Action::Respond(reply) => check(&reply, data_in),
            Action::Parameters(_) => panic!("a second parameter list"),
            Action::Evict(ended) => assert!(!ended.is_nothing(), "it ends nothing"),
            Action::Keep { bytes, then, .. } => {
                let readable = match then {
                    Kept::Reservations => Reservations::default().restore(&bytes).is_ok(),
                    Kept::SanitizeBegun { .. } | Kept::SanitizeEnded { .. } => {
                        Sanitization::default().restore(&bytes).is_ok()
                    }
                    Kept::PortGroups => PortGroups::default().restore(&bytes).is_ok(),
                    Kept::ModePages => {
                        LogicalUnit::new(self.volume.clone()).mode.restore(&bytes).is_ok()
                    }
                };
                assert!(readable, "what is written can be read back");
                let next = self.unit.kept(then, script.u8() & 1 == 0);
                assert!(!matches!(next.action, Action::Parameters(_) | Action::Keep { .. }));
                self.perform(next, script);
            }
            Action::Copy(list) => {
                let units = [self.unit.clone()];
                if let Ok(mut copy) = self.nexuses[0].copy(&list, &units) {
                    self.copy(&mut copy, script);
                }
            }
            Action::WriteUsingToken(list_id, order) => {
                let units = [self.unit.clone()];
                let copy = self.nexuses[0].write_using_token(list_id, &order, &units);
                if let Ok(mut copy) = copy {
                    self.copy(&mut copy, script);
                }
            }
            Action::Detach(mut media) => {
                let request = self.unit.request(&mut media, payload(0, 0));
                check_request(&request, 1, 0);
                let erases = matches!(request.kind, Kind::Erase(_));
                assert!(!erases || !self.volume.options.read_only);
                let outcome = match script.u8() {
                    0 => Outcome::Failed(ERRORS[script.index(4)]),
                    _ => Outcome::<HeapBuffer>::Done,
                };
                let done = self.unit.finish(&media, outcome);
                let reply = Reply { status: done.status, sense: done.sense, data: Vec::new() };
                let plan = self.unit.erased(&media, reply);
                assert_eq!(plan.is_some(), erases, "a cache is flushed, or all is erased");
                plan.into_iter().for_each(|plan| self.perform(plan, script));
            }
            Action::Media(mut media) => {
                assert!(data_out <= 2 * TRANSFER_BYTES_MAX && data_in <= TRANSFER_BYTES_MAX);
                let request = self.unit.request(&mut media, payload(data_out, script.u8()));
                let block = u64::from(self.volume.facts.block_bytes);
                check_request(&request, block, self.volume.size_bytes());
                assert!(!self.volume.options.read_only || data_out == 0 || is_check(&request));
                let outcome = match script.u8() {
                    0 => Outcome::Failed(ERRORS[script.index(4)]),
                    1 => Outcome::Cancelled,
                    2 => Outcome::Miscompare(u64::from(script.u8())),
                    _ if data_in > 0 => Outcome::Data(payload(data_in, 0)),
                    _ => Outcome::Done,
                };
                let done = self.unit.finish(&media, outcome);
                assert_eq!(done.status == Status::CheckCondition, done.sense.is_some());
            }
        }
    }
}

/// True for what a write-protected unit may still take data for: VERIFY.
fn is_check(request: &corbel_target::volume::Request<HeapBuffer>) -> bool {
    matches!(request.kind, corbel_target::volume::Kind::Verify { .. })
}

fn check(reply: &Reply, data_in: u64) {
    assert_eq!(reply.data.len() as u64, data_in);
    assert_eq!(reply.status == Status::CheckCondition, reply.sense.is_some(), "{reply:?}");
    if let Some(sense) = &reply.sense {
        let sense = sense.as_slice();
        assert!(matches!(sense[0] & 0x7f, 0x70..=0x73) && sense.len() <= 252, "{sense:x?}");
        assert!(reply.data.is_empty(), "data with CHECK CONDITION");
    }
}

/// `len` bytes in pieces of 256 KiB, all from one buffer.
fn payload(len: u64, byte: u8) -> Segments<HeapBuffer> {
    const PIECE: u64 = 256 * 1024;
    let mut buffer = HeapBuffer::new(usize::try_from(len.min(PIECE)).expect("a piece"));
    if byte != 0 {
        use corbel_proto::memory::Buffer;
        buffer.bytes_mut().iter_mut().step_by(7).for_each(|b| *b = byte);
    }
    let (mut left, mut pieces) = (len, Segments::new());
    while left > 0 {
        let here = u32::try_from(left.min(PIECE)).expect("a piece");
        pieces.push(Slice::part(buffer.clone(), 0, here));
        left -= u64::from(here);
    }
    pieces
}
