//! Command descriptor blocks: bytes to a typed [`Command`], or the sense that refuses them.
//!
//! Reserved bits are ignored, as SPC-4 allows and old initiators need; fields that would change
//! the meaning of a transfer (protection information, NACA) are refused with a field pointer.

mod fields;

use super::opcode::{Class, Opcode};
use super::reservation::{InAction, OutAction};
use super::sense::{Condition, Sense};

pub use fields::{
    ByteCheck, Extent, FormatUnit, LegacyReserve, LogSense, ModeSelect, ModeSense, ReadDefects,
    ReportOpcodes, ReserveOut, Sanitize, SanitizeMethod, StartStop, WriteSame,
};

/// A command, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the commands are the standard's; fields are documented")]
pub enum Command {
    TestUnitReady,
    RequestSense {
        /// DESC: in descriptor format.
        descriptor: bool,
        /// ALLOCATION LENGTH.
        allocation: u8,
    },
    Inquiry {
        /// The VPD page asked for; standard data if none.
        page: Option<u8>,
        /// ALLOCATION LENGTH.
        allocation: u16,
    },
    ReportLuns {
        /// SELECT REPORT.
        select: u8,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    ReportOpcodes(ReportOpcodes),
    ReportTaskManagement {
        /// REPD: the longer answer.
        extended: bool,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    ReportPortGroups {
        /// PARAMETER DATA FORMAT 001b, the longer header.
        extended: bool,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    SetPortGroups {
        /// PARAMETER LIST LENGTH.
        len: u32,
    },
    LogSense(LogSense),
    ReadCapacity10,
    ReadCapacity16 {
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    GetLbaStatus {
        /// STARTING LOGICAL BLOCK ADDRESS.
        lba: u64,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    ReadDefects(ReadDefects),
    ReserveIn {
        /// SERVICE ACTION.
        action: InAction,
        /// ALLOCATION LENGTH.
        allocation: u16,
    },
    ReserveOut(ReserveOut),
    LegacyReserve(LegacyReserve),
    ModeSense(ModeSense),
    ModeSelect(ModeSelect),
    Read {
        /// Where.
        extent: Extent,
        /// FUA: from the medium, not from a volatile cache that differs from it.
        fua: bool,
    },
    Write {
        /// Where.
        extent: Extent,
        /// FUA: stable before the answer.
        fua: bool,
    },
    WriteAndVerify {
        /// Where.
        extent: Extent,
        /// What is compared after the write.
        check: ByteCheck,
    },
    /// All of it or nothing is on the medium, whatever happens meanwhile (SBC-4 5.56).
    WriteAtomic {
        /// Where.
        extent: Extent,
        /// FUA.
        fua: bool,
        /// ATOMIC BOUNDARY: parts of this many blocks may be atomic each; 0 is the whole.
        boundary: u16,
    },
    OrWrite {
        /// Where.
        extent: Extent,
        /// FUA.
        fua: bool,
    },
    CompareAndWrite {
        /// Where.
        extent: Extent,
        /// FUA.
        fua: bool,
    },
    Verify {
        /// Where.
        extent: Extent,
        /// What is compared.
        check: ByteCheck,
    },
    PreFetch {
        /// Where; no blocks means to the end.
        extent: Extent,
    },
    SynchronizeCache {
        /// Where; no blocks means to the end.
        extent: Extent,
        /// IMMED: answer before it is done.
        immediate: bool,
    },
    WriteSame(WriteSame),
    Unmap {
        /// ANCHOR.
        anchor: bool,
        /// PARAMETER LIST LENGTH.
        len: u16,
    },
    /// With list identifiers of one byte (LID1).
    ExtendedCopy {
        /// PARAMETER LIST LENGTH.
        len: u32,
    },
    ReceiveCopyResults {
        /// COPY STATUS of this LIST IDENTIFIER; OPERATING PARAMETERS without.
        list_id: Option<u8>,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    /// POPULATE TOKEN or WRITE USING TOKEN.
    Token {
        /// WRITE USING TOKEN.
        writes: bool,
        /// LIST IDENTIFIER.
        list_id: u32,
        /// PARAMETER LIST LENGTH.
        len: u32,
    },
    ReceiveTokenInformation {
        /// LIST IDENTIFIER.
        list_id: u32,
        /// ALLOCATION LENGTH.
        allocation: u32,
    },
    Sanitize(Sanitize),
    FormatUnit(FormatUnit),
    StartStop(StartStop),
    PreventAllow {
        /// PREVENT: 0 allows, 1 prevents removal.
        prevent: u8,
    },
}

/// Reads a CDB. A longer slice than the command (as iSCSI's 16-byte field) is fine.
///
/// # Errors
/// INVALID COMMAND OPERATION CODE for what is not in the table, INVALID FIELD IN CDB with a
/// pointer for a field that cannot be honoured or a CDB shorter than its command.
pub fn parse(cdb: &[u8]) -> Result<(Command, Class), Sense> {
    let Some(op) = Opcode::find(cdb) else {
        return Err(unknown(cdb));
    };
    let len = op.usage.len();
    let Some(used) = cdb.get(..len) else {
        return Err(Sense::invalid_cdb(0, None));
    };
    let mut padded = [0; 16];
    padded[..len].copy_from_slice(used);
    let cdb = Cdb(padded);
    if cdb.0[len - 1] & NACA != 0 {
        return Err(Sense::invalid_cdb(u16::try_from(len - 1).unwrap_or(0), Some(2)));
    }
    Ok((cdb.command()?, op.class))
}

/// Service action of SERVICE ACTION IN(16).
const GET_LBA_STATUS: u8 = 0x12;
/// Service actions of third-party copies, out and in.
const WRITE_USING_TOKEN: u8 = 0x11;
const TOKEN_INFORMATION: u8 = 0x07;
/// Service actions of MAINTENANCE IN.
const REPORT_PORT_GROUPS: u8 = 0x0a;
const REPORT_TASK_MANAGEMENT: u8 = 0x0d;

/// Normal ACA in the CONTROL byte (SAM-5 5.2): not offered in INQUIRY, so refused.
const NACA: u8 = 0x04;

fn unknown(cdb: &[u8]) -> Sense {
    match cdb.first() {
        Some(code) if Opcode::has_service_actions(*code) => Sense::invalid_cdb(1, Some(4)),
        _ => Condition::INVALID_COMMAND_OPERATION_CODE.into(),
    }
}

/// A CDB of known command and full length, padded to 16 bytes.
struct Cdb([u8; 16]);

impl Cdb {
    fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }

    fn bit(&self, at: usize, bit: u8) -> bool {
        self.0[at] >> bit & 1 != 0
    }

    /// LBA and count where the command's length puts them (SPC-4 4.2.5).
    fn extent(&self) -> Extent {
        match self.0[0] >> 5 {
            0 => Extent {
                lba: u64::from(self.u32(0) & 0x1f_ffff),
                blocks: if self.0[4] == 0 { 256 } else { u32::from(self.0[4]) },
                count_at: 4,
            },
            4 => Extent { lba: self.u64(2), blocks: self.u32(10), count_at: 10 },
            5 => Extent { lba: u64::from(self.u32(2)), blocks: self.u32(6), count_at: 6 },
            _ => {
                Extent { lba: u64::from(self.u32(2)), blocks: u32::from(self.u16(7)), count_at: 7 }
            }
        }
    }

    /// RDPROTECT, WRPROTECT, VRPROTECT or ORPROTECT must be zero: the medium has no protection
    /// information (SBC-3 5.10).
    fn unprotected(&self) -> Result<&Self, Sense> {
        if self.0[1] & 0xe0 != 0 { Err(Sense::invalid_cdb(1, Some(7))) } else { Ok(self) }
    }

    fn byte_check(&self) -> Result<ByteCheck, Sense> {
        match self.0[1] >> 1 & 0b11 {
            0b00 => Ok(ByteCheck::Readable),
            0b01 => Ok(ByteCheck::Payload),
            0b11 => Ok(ByteCheck::OneBlock),
            _ => Err(Sense::invalid_cdb(1, Some(2))),
        }
    }

    fn service_in(&self) -> Command {
        let allocation = self.u32(10);
        match self.0[1] & 0x1f {
            GET_LBA_STATUS => Command::GetLbaStatus { lba: self.u64(2), allocation },
            _ => Command::ReadCapacity16 { allocation },
        }
    }

    fn command(&self) -> Result<Command, Sense> {
        let fua = self.bit(1, 3);
        Ok(match self.0[0] {
            0x00 => Command::TestUnitReady,
            0x03 => Command::RequestSense { descriptor: self.bit(1, 0), allocation: self.0[4] },
            0x04 => Command::FormatUnit(self.format()?),
            0x08 => Command::Read { extent: self.extent(), fua: false },
            0x0a => Command::Write { extent: self.extent(), fua: false },
            0x12 => self.inquiry()?,
            0x15 | 0x55 => Command::ModeSelect(self.mode_select()),
            0x1a | 0x5a => Command::ModeSense(self.mode_sense()),
            0x1b => Command::StartStop(self.start_stop()),
            0x1e => Command::PreventAllow { prevent: self.0[4] & 0b11 },
            0x25 => Command::ReadCapacity10,
            0x28 | 0x88 | 0xa8 => Command::Read { extent: self.unprotected()?.extent(), fua },
            0x2a | 0x8a | 0xaa => Command::Write { extent: self.unprotected()?.extent(), fua },
            0x2e | 0x8e | 0xae => Command::WriteAndVerify {
                extent: self.unprotected()?.extent(),
                check: self.byte_check()?,
            },
            0x2f | 0x8f | 0xaf => {
                Command::Verify { extent: self.unprotected()?.extent(), check: self.byte_check()? }
            }
            0x34 | 0x90 => Command::PreFetch { extent: self.extent() },
            0x35 | 0x91 => {
                Command::SynchronizeCache { extent: self.extent(), immediate: self.bit(1, 1) }
            }
            0x37 | 0xb7 => Command::ReadDefects(self.read_defects()),
            0x41 | 0x93 => Command::WriteSame(self.unprotected()?.write_same()),
            0x16 | 0x17 | 0x56 | 0x57 => Command::LegacyReserve(self.legacy_reserve()),
            0x5e => Command::ReserveIn { action: self.in_action()?, allocation: self.u16(7) },
            0x5f => Command::ReserveOut(ReserveOut {
                action: self.out_action()?,
                scope_type: self.0[2],
                len: self.u32(5),
            }),
            0x42 => Command::Unmap { anchor: self.bit(1, 0), len: self.u16(7) },
            0x48 => Command::Sanitize(self.sanitize()?),
            0x83 => self.third_party_copy(),
            0x84 => self.receive_copy_results(),
            0x89 => {
                let blocks = u32::from(self.unprotected()?.0[13]);
                let extent = Extent { lba: self.u64(2), blocks, count_at: 13 };
                Command::CompareAndWrite { extent, fua }
            }
            0x8b => Command::OrWrite { extent: self.unprotected()?.extent(), fua },
            0x9c => {
                let blocks = u32::from(self.unprotected()?.u16(12));
                let extent = Extent { lba: self.u64(2), blocks, count_at: 12 };
                Command::WriteAtomic { extent, fua, boundary: self.u16(10) }
            }
            0xa0 => Command::ReportLuns { select: self.0[2], allocation: self.u32(6) },
            0x4d => Command::LogSense(LogSense {
                save: self.bit(1, 0),
                page: self.0[2] & 0x3f,
                subpage: self.0[3],
                pointer: self.u16(5),
                allocation: self.u16(7),
            }),
            0x9e => self.service_in(),
            0xa3 => self.maintenance_in()?,
            0xa4 => Command::SetPortGroups { len: self.u32(6) },
            _ => return Err(Condition::INVALID_COMMAND_OPERATION_CODE.into()),
        })
    }

    fn third_party_copy(&self) -> Command {
        let len = self.u32(10);
        match self.0[1] & 0x1f {
            0x00 => Command::ExtendedCopy { len },
            action => {
                let writes = action == WRITE_USING_TOKEN;
                Command::Token { writes, list_id: self.u32(6), len }
            }
        }
    }

    fn receive_copy_results(&self) -> Command {
        let allocation = self.u32(10);
        match self.0[1] & 0x1f {
            TOKEN_INFORMATION => {
                Command::ReceiveTokenInformation { list_id: self.u32(2), allocation }
            }
            action => {
                let list_id = (action == 0).then_some(self.0[2]);
                Command::ReceiveCopyResults { list_id, allocation }
            }
        }
    }

    fn inquiry(&self) -> Result<Command, Sense> {
        let page = match (self.bit(1, 0), self.0[2]) {
            (true, page) => Some(page),
            (false, 0) => None,
            (false, _) => return Err(Sense::invalid_cdb(2, None)),
        };
        Ok(Command::Inquiry { page, allocation: self.u16(3) })
    }

    fn maintenance_in(&self) -> Result<Command, Sense> {
        let allocation = self.u32(6);
        Ok(match self.0[1] & 0x1f {
            REPORT_PORT_GROUPS => {
                Command::ReportPortGroups { extended: self.port_groups_format()?, allocation }
            }
            REPORT_TASK_MANAGEMENT => {
                Command::ReportTaskManagement { extended: self.bit(2, 7), allocation }
            }
            _ => Command::ReportOpcodes(self.report_opcodes()),
        })
    }

    fn mode_sense(&self) -> ModeSense {
        let ten = self.0[0] == 0x5a;
        ModeSense {
            ten,
            no_descriptor: self.bit(1, 3),
            long_lba: ten && self.bit(1, 4),
            control: self.0[2] >> 6,
            page: self.0[2] & 0x3f,
            subpage: self.0[3],
            allocation: if ten { self.u16(7) } else { u16::from(self.0[4]) },
        }
    }

    fn mode_select(&self) -> ModeSelect {
        let ten = self.0[0] == 0x55;
        ModeSelect {
            ten,
            page_format: self.bit(1, 4),
            save: self.bit(1, 0),
            len: if ten { self.u16(7) } else { u16::from(self.0[4]) },
        }
    }

    fn port_groups_format(&self) -> Result<bool, Sense> {
        match self.0[1] >> 5 {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Sense::invalid_cdb(1, Some(7))),
        }
    }

    fn legacy_reserve(&self) -> LegacyReserve {
        // Third party, LONGID, and extents: bits 4, 1 and 0.
        let odd = [4, 1, 0].into_iter().find(|bit| self.bit(1, *bit)).map(|bit| (1, bit));
        LegacyReserve { release: self.0[0] & 1 != 0, odd }
    }

    fn in_action(&self) -> Result<InAction, Sense> {
        Ok(match self.0[1] & 0x1f {
            0 => InAction::ReadKeys,
            1 => InAction::ReadReservation,
            2 => InAction::ReportCapabilities,
            3 => InAction::ReadFullStatus,
            _ => return Err(Sense::invalid_cdb(1, Some(4))),
        })
    }

    fn out_action(&self) -> Result<OutAction, Sense> {
        Ok(match self.0[1] & 0x1f {
            0 => OutAction::Register,
            1 => OutAction::Reserve,
            2 => OutAction::Release,
            3 => OutAction::Clear,
            4 => OutAction::Preempt,
            5 => OutAction::PreemptAndAbort,
            6 => OutAction::RegisterAndIgnoreExistingKey,
            7 => OutAction::RegisterAndMove,
            _ => return Err(Sense::invalid_cdb(1, Some(4))),
        })
    }

    fn read_defects(&self) -> ReadDefects {
        let twelve = self.0[0] == 0xb7;
        ReadDefects {
            twelve,
            lists: self.0[if twelve { 1 } else { 2 }] & 0x1f,
            allocation: if twelve { self.u32(6) } else { u32::from(self.u16(7)) },
        }
    }

    fn start_stop(&self) -> StartStop {
        StartStop {
            power_condition: self.0[4] >> 4,
            no_flush: self.bit(4, 2),
            load_eject: self.bit(4, 1),
            start: self.bit(4, 0),
        }
    }

    fn write_same(&self) -> WriteSame {
        WriteSame {
            extent: self.extent(),
            unmap: self.bit(1, 3),
            anchor: self.bit(1, 4),
            no_payload: self.0[0] == 0x93 && self.bit(1, 0),
        }
    }

    /// What it may destroy is too much for a bit that is not understood.
    fn sanitize(&self) -> Result<Sanitize, Sense> {
        if self.bit(1, 6) {
            return Err(Sense::invalid_cdb(1, Some(6)));
        }
        if let Some(at) = (2..7).find(|at| self.0[*at] != 0) {
            return Err(Sense::invalid_cdb(u16::try_from(at).unwrap_or(0), None));
        }
        let method = match self.0[1] & 0x1f {
            0x01 => SanitizeMethod::Overwrite,
            0x02 => SanitizeMethod::BlockErase,
            0x03 => SanitizeMethod::CryptoErase,
            0x1f => SanitizeMethod::ExitFailureMode,
            _ => return Err(Sense::invalid_cdb(1, Some(4))),
        };
        Ok(Sanitize {
            method,
            immediate: self.bit(1, 7),
            unrestricted: self.bit(1, 5),
            len: self.u16(7),
        })
    }

    /// FMTPINFO would give the blocks protection information. Of defects there is nothing to say,
    /// so CMPLST and DEFECT LIST FORMAT change nothing. FFMT is SBC-4's fast format.
    fn format(&self) -> Result<FormatUnit, Sense> {
        if self.0[1] & 0xc0 != 0 {
            return Err(Sense::invalid_cdb(1, Some(7)));
        }
        if self.0[4] & 0x03 != 0 {
            return Err(Sense::invalid_cdb(4, Some(1)));
        }
        Ok(FormatUnit { list: self.bit(1, 4), long: self.bit(1, 5) })
    }

    fn report_opcodes(&self) -> ReportOpcodes {
        ReportOpcodes {
            timeouts: self.bit(2, 7),
            options: self.0[2] & 0b111,
            code: self.0[3],
            service_action: self.u16(4),
            allocation: self.u32(6),
        }
    }
}

#[cfg(test)]
mod tests;
