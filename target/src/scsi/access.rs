//! What a command needs of reservations (SPC-4 table 65, SBC-3 table 13).

use corbel_proto::scsi::opcode::{Class, Opcode};

use crate::reservation::Access;

const TEST_UNIT_READY: u8 = 0x00;
const MODE_SENSE: [u8; 2] = [0x1a, 0x5a];
const EXTENDED_COPY: u8 = 0x83;
const START_STOP_UNIT: u8 = 0x1b;
const PREVENT_ALLOW: u8 = 0x1e;

/// By its class, but for a few that the standards except.
pub(super) fn needed(op: &Opcode, cdb: &[u8]) -> Access {
    let last = cdb.get(4).copied().unwrap_or(0);
    match op.class {
        // Reservation commands decide for themselves.
        Class::Identify | Class::Reserve => Access::Free,
        Class::Inspect if MODE_SENSE.contains(&op.code) => Access::Reads,
        Class::Medium if op.code == TEST_UNIT_READY => Access::Ready,
        Class::Inspect | Class::Medium => Access::Free,
        // Whatever it reads here: what it writes elsewhere is asked for there.
        Class::Read if op.code == EXTENDED_COPY && op.service_action == Some(0) => Access::Changes,
        Class::Read => Access::Reads,
        // START without a power condition, and ALLOW.
        Class::Configure if op.code == START_STOP_UNIT && last & 0xf1 == 1 => Access::Free,
        Class::Configure if op.code == PREVENT_ALLOW && last & 3 == 0 => Access::Free,
        Class::Configure | Class::Write | Class::Flush | Class::Erase => Access::Changes,
    }
}
