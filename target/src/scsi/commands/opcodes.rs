//! REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), from the table that parses.

use corbel_proto::scsi::cdb::ReportOpcodes;
use corbel_proto::scsi::opcode::{OPCODES, Opcode};
use corbel_proto::scsi::{Condition, Sense};

use crate::scsi::{LogicalUnit, Plan, limits};

const UNMAP: u8 = 0x42;
const SANITIZE: u8 = 0x48;
const BLOCK_ERASE: u8 = 0x02;
const CRYPTO_ERASE: u8 = 0x03;
const SET_TARGET_PORT_GROUPS: u8 = 0xa4;
const WRITE_ATOMIC: u8 = 0x9c;

/// Whether this unit has the command: UNMAP only if thin, WRITE ATOMIC only if the device promises
/// such writes, SANITIZE BLOCK ERASE only if blocks can be given back, CRYPTOGRAPHIC ERASE only if
/// they are encrypted, SET TARGET PORT GROUPS only if the operator lets initiators set states.
pub(in crate::scsi) fn supported(lu: &LogicalUnit, op: &Opcode) -> bool {
    match op.code {
        UNMAP => limits::unmaps(&lu.volume),
        SANITIZE if op.service_action == Some(BLOCK_ERASE) => limits::erasable(&lu.volume),
        SANITIZE if op.service_action == Some(CRYPTO_ERASE) => lu.volume.cipher.is_some(),
        SET_TARGET_PORT_GROUPS => lu.port_groups.explicit(),
        WRITE_ATOMIC => lu.volume.facts.atomic_bytes > 0,
        _ => true,
    }
}

/// What is told to who wants `op` from a unit that does not have it: another action of its code may
/// be there.
pub(in crate::scsi) fn refusal(lu: &LogicalUnit, op: &Opcode) -> Option<Sense> {
    if supported(lu, op) {
        return None;
    }
    let others = OPCODES.iter().any(|other| other.code == op.code && supported(lu, other));
    let unknown = Condition::INVALID_COMMAND_OPERATION_CODE.into();
    Some(if others { Sense::invalid_cdb(1, Some(4)) } else { unknown })
}

pub(in crate::scsi) fn plan(lu: &LogicalUnit, command: &ReportOpcodes) -> Result<Plan, Sense> {
    let data = match command.options {
        0 => all(lu, command.timeouts),
        1..=3 => one(lu, command)?,
        _ => return Err(Sense::invalid_cdb(2, Some(2))),
    };
    Ok(Plan::data(data, command.allocation))
}

/// Command timeouts descriptor: no timeouts are told.
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn all(lu: &LogicalUnit, timeouts: bool) -> Vec<u8> {
    let mut out = vec![0; 4];
    for op in OPCODES.iter().filter(|op| supported(lu, op)) {
        let serves = u8::from(op.service_action.is_some());
        let len = u8::try_from(op.usage.len()).expect("at most 16");
        let action = op.service_action.unwrap_or(0);
        let flags = u8::from(timeouts) << 1 | serves; // CTDP, SERVACTV
        out.extend_from_slice(&[op.code, 0, 0, action, 0, flags, 0, len]);
        if timeouts {
            out.extend_from_slice(&TIMEOUTS);
        }
    }
    let len = u32::try_from(out.len() - 4).expect("a few dozen commands");
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// Options 1 and 2 say whether the caller believes in service actions; being wrong about a code
/// that is known is an invalid field.
fn one(lu: &LogicalUnit, command: &ReportOpcodes) -> Result<Vec<u8>, Sense> {
    let has_actions = Opcode::has_service_actions(command.code);
    match command.options {
        1 if has_actions => return Err(Sense::invalid_cdb(2, Some(2))),
        2 if !has_actions => return Err(Sense::invalid_cdb(2, Some(2))),
        _ => {}
    }
    let action = if has_actions { command.service_action } else { 0 };
    let found = OPCODES
        .iter()
        .find(|op| op.code == command.code && u16::from(op.service_action.unwrap_or(0)) == action)
        .filter(|op| supported(lu, op));
    let Some(op) = found else {
        return Ok(vec![0, 0x01, 0, 0]); // SUPPORT 001b: not supported
    };
    let len = u8::try_from(op.usage.len()).expect("at most 16");
    let mut out = vec![0, u8::from(command.timeouts) << 7 | 0x03, 0, len];
    out.extend_from_slice(op.usage);
    if command.timeouts {
        out.extend_from_slice(&TIMEOUTS);
    }
    Ok(out)
}
