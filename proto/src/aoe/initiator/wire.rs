//! What a command looks like in a frame, and what a reply says about it.

use super::{Config, Failure, Operation};
use crate::aoe::ata::{ARGUMENT_BYTES, Packet as AtaPacket, Repr as AtaRepr};
use crate::aoe::header::{Code, Error, Packet as HeaderPacket, Repr as HeaderRepr};
use crate::aoe::{ATA_DATA_OFFSET, HEADER_BYTES, SECTOR_BYTES, VERSION};
use crate::ata::command::opcode;
use crate::ata::{Fault, Registers};

/// Feature of DATA SET MANAGEMENT: the ranges are to be trimmed.
const FEATURE_TRIM: u8 = 1;

/// What a reply says about the operation it answers; `None` if it cannot be the answer.
pub(super) fn judge<'f, D: AsRef<[u8]>>(
    operation: &Operation<D>,
    error: Option<Error>,
    argument: &'f [u8],
) -> Option<Result<&'f [u8], Failure>> {
    if let Some(error) = error {
        return Some(Err(Failure::Refused(error)));
    }
    let ata = AtaPacket::new_checked(argument).ok()?;
    if let Some(fault) = Fault::from_registers(&ata.registers()) {
        return Some(Err(Failure::Device(fault)));
    }
    let wanted = match operation {
        Operation::Read { sectors, .. } => usize::from(*sectors) * SECTOR_BYTES,
        Operation::Identify => SECTOR_BYTES,
        Operation::Probe { padding, .. } => padding.as_ref().len(),
        Operation::Write { .. }
        | Operation::Trim { .. }
        | Operation::Flush
        | Operation::FlushShort => 0,
    };
    let data = &argument[ARGUMENT_BYTES..];
    data.get(..wanted).map(Ok)
}

fn sectors<D: AsRef<[u8]>>(data: &D) -> u8 {
    u8::try_from(data.as_ref().len() / SECTOR_BYTES).expect("checked when submitted")
}

/// The headers of a copy of `operation`.
pub(super) fn head<D: AsRef<[u8]>>(
    config: &Config,
    tag: u32,
    operation: &Operation<D>,
) -> [u8; ATA_DATA_OFFSET] {
    let plain = |command, lba, count| {
        Registers { count, command_status: command, ..Registers::default() }.with_lba(lba)
    };
    let registers = match operation {
        Operation::Read { lba, sectors } => plain(opcode::READ_SECTORS_EXT, *lba, *sectors),
        Operation::Probe { lba, padding } => {
            plain(opcode::READ_SECTORS_EXT, *lba, sectors(padding))
        }
        Operation::Write { lba, data } => plain(opcode::WRITE_SECTORS_EXT, *lba, sectors(data)),
        Operation::Trim { ranges } => Registers {
            feature_error: FEATURE_TRIM,
            ..plain(opcode::DATA_SET_MANAGEMENT, 0, sectors(ranges))
        },
        Operation::Flush => plain(opcode::FLUSH_CACHE_EXT, 0, 0),
        Operation::FlushShort => plain(opcode::FLUSH_CACHE, 0, 0),
        Operation::Identify => plain(opcode::IDENTIFY_DEVICE, 0, 1),
    };
    let ata = AtaRepr {
        extended: !matches!(operation, Operation::Identify | Operation::FlushShort),
        device: false,
        asynchronous: false,
        write: matches!(operation, Operation::Write { .. } | Operation::Trim { .. }),
        registers,
    };
    let header = HeaderRepr {
        destination: config.remote,
        source: config.local,
        version: VERSION,
        response: false,
        error: None,
        shelf: config.shelf,
        slot: config.slot,
        code: Code::Ata,
        tag,
    };
    let mut bytes = [0; ATA_DATA_OFFSET];
    header.emit(&mut HeaderPacket::new_unwritten(&mut bytes[..]));
    ata.emit(&mut bytes[HEADER_BYTES..]);
    bytes
}
