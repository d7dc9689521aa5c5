//! What commands carry, field by field.

use crate::scsi::reservation::OutAction;

/// Consecutive blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub lba: u64,
    /// Blocks; zero is zero, except where a command says otherwise.
    pub blocks: u32,
    /// The byte of the CDB where the block count begins, to point at when it is refused.
    pub count_at: u8,
}

/// What VERIFY compares (BYTCHK, SBC-3 5.29).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteCheck {
    /// Nothing: only that the blocks can be read.
    Readable,
    /// The blocks with as many blocks of payload.
    Payload,
    /// Each block with the one block of payload.
    OneBlock,
}

/// START STOP UNIT (SBC-3 5.25).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartStop {
    /// POWER CONDITION; zero lets `start` and `load_eject` speak.
    pub power_condition: u8,
    /// NO_FLUSH: the medium need not be made stable first.
    pub no_flush: bool,
    /// LOEJ.
    pub load_eject: bool,
    /// START.
    pub start: bool,
}

/// WRITE SAME (SBC-3 5.42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteSame {
    /// Where.
    pub extent: Extent,
    /// UNMAP: deallocation will do.
    pub unmap: bool,
    /// ANCHOR.
    pub anchor: bool,
    /// NDOB: no payload, the block is zeros.
    pub no_payload: bool,
}

/// MODE SENSE (SPC-4 6.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeSense {
    /// The 10-byte command, which has the longer header.
    pub ten: bool,
    /// DBD: leave the block descriptor out.
    pub no_descriptor: bool,
    /// LLBAA: a long LBA block descriptor is welcome.
    pub long_lba: bool,
    /// PC: 0 current, 1 changeable, 2 default, 3 saved.
    pub control: u8,
    /// PAGE CODE, 0x3f for all.
    pub page: u8,
    /// SUBPAGE CODE, 0xff for all.
    pub subpage: u8,
    /// ALLOCATION LENGTH.
    pub allocation: u16,
}

/// MODE SELECT (SPC-4 6.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeSelect {
    /// The 10-byte command, which has the longer header.
    pub ten: bool,
    /// PF: the pages are those of the standard.
    pub page_format: bool,
    /// SP: save them.
    pub save: bool,
    /// PARAMETER LIST LENGTH.
    pub len: u16,
}

/// REPORT SUPPORTED OPERATION CODES (SPC-4 6.35).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportOpcodes {
    /// RCTD: with command timeouts descriptors.
    pub timeouts: bool,
    /// REPORTING OPTIONS: 0 all, 1 to 3 one command.
    pub options: u8,
    /// REQUESTED OPERATION CODE.
    pub code: u8,
    /// REQUESTED SERVICE ACTION.
    pub service_action: u16,
    /// ALLOCATION LENGTH.
    pub allocation: u32,
}

/// LOG SENSE (SPC-4 6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSense {
    /// SP: save the parameters.
    pub save: bool,
    /// PAGE CODE.
    pub page: u8,
    /// SUBPAGE CODE.
    pub subpage: u8,
    /// PARAMETER POINTER.
    pub pointer: u16,
    /// ALLOCATION LENGTH.
    pub allocation: u16,
}

/// PERSISTENT RESERVE OUT (SPC-4 6.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReserveOut {
    /// SERVICE ACTION.
    pub action: OutAction,
    /// SCOPE and TYPE, as they stand.
    pub scope_type: u8,
    /// PARAMETER LIST LENGTH.
    pub len: u32,
}

/// RESERVE and RELEASE of SPC-2 (7.21 to 7.24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegacyReserve {
    /// RELEASE.
    pub release: bool,
    /// Extents or third parties are named, by the byte and bit that says so.
    pub odd: Option<(u16, u8)>,
}

/// READ DEFECT DATA (SBC-3 5.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadDefects {
    /// The 12-byte command, which has the longer header.
    pub twelve: bool,
    /// REQ_PLIST, REQ_GLIST and DEFECT LIST FORMAT, as they stand in a byte of the answer.
    pub lists: u8,
    /// ALLOCATION LENGTH.
    pub allocation: u32,
}

/// FORMAT UNIT (SBC-3 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatUnit {
    /// FMTDATA: there is a parameter list.
    pub list: bool,
    /// LONGLIST: it has the longer header.
    pub long: bool,
}

/// How SANITIZE makes what was written unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanitizeMethod {
    /// A pattern is written over every block.
    Overwrite,
    /// Every block is deallocated.
    BlockErase,
    /// The key that every block is encrypted with is replaced.
    CryptoErase,
    /// Nothing: a sanitize operation that failed is let be.
    ExitFailureMode,
}

/// SANITIZE (SBC-3 5.24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sanitize {
    /// SERVICE ACTION.
    pub method: SanitizeMethod,
    /// IMMED: answer before it is done.
    pub immediate: bool,
    /// AUSE: should it fail, the unit may be used again by EXIT FAILURE MODE.
    pub unrestricted: bool,
    /// PARAMETER LIST LENGTH.
    pub len: u16,
}
