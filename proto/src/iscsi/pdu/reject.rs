//! Reject (RFC 7143 11.17): a refusal that leaves the connection usable. Its data segment is the
//! header of the refused PDU.

use super::Numbers;
use crate::iscsi::bhs::{Bhs, FINAL, Opcode, TAG_NONE};

/// Why a PDU was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    /// The data digest was wrong.
    DataDigestError = 0x02,
    /// A SNACK that cannot be honoured.
    SnackReject = 0x03,
    /// Conduct against the standard.
    ProtocolError = 0x04,
    /// No such command, or not here.
    CommandNotSupported = 0x05,
    /// Too many immediate commands.
    ImmediateCommandReject = 0x06,
    /// The task is being worked on.
    TaskInProgress = 0x07,
    /// A DataACK nobody asked for.
    InvalidDataAck = 0x08,
    /// A field makes no sense.
    InvalidPduField = 0x09,
    /// No room for another long operation.
    LongOperationReject = 0x0a,
    /// Withdrawn in RFC 7143; kept because old peers send it.
    NegotiationReset = 0x0b,
    /// The peer must log out.
    WaitingForLogout = 0x0c,
}

impl RejectReason {
    /// The reason of this number; `None` for one RFC 7143 does not define.
    pub const fn new(number: u8) -> Option<Self> {
        Some(match number {
            0x02 => Self::DataDigestError,
            0x03 => Self::SnackReject,
            0x04 => Self::ProtocolError,
            0x05 => Self::CommandNotSupported,
            0x06 => Self::ImmediateCommandReject,
            0x07 => Self::TaskInProgress,
            0x08 => Self::InvalidDataAck,
            0x09 => Self::InvalidPduField,
            0x0a => Self::LongOperationReject,
            0x0b => Self::NegotiationReset,
            0x0c => Self::WaitingForLogout,
            _ => return None,
        })
    }
}

/// Reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// Why; `None` if the number is not one of the standard's.
    pub reason: Option<RejectReason>,
    /// Counters.
    pub numbers: Numbers,
    /// DataSN or R2TSN, where the refusal is about one.
    pub data_sn: u32,
}

impl Reject {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            reason: RejectReason::new(bhs.0[2]),
            numbers: Numbers::parse(bhs),
            data_sn: bhs.u32_at(36),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::Reject, FINAL)
            .put(2, [self.reason.map_or(0, |reason| reason as u8)])
            .put_u32(16, TAG_NONE)
            .put_u32(36, self.data_sn);
        self.numbers.emit(bhs)
    }
}
