//! Logout Request and Response (RFC 7143 11.14, 11.15).

use super::Numbers;
use crate::error::Malformed;
use crate::iscsi::bhs::{Bhs, FINAL, Opcode};

/// What the initiator wants closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The session with all its connections.
    CloseSession = 0,
    /// One connection.
    CloseConnection = 1,
    /// One connection, for recovery (recovery level 2).
    RemoveForRecovery = 2,
}

/// Logout Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutRequest {
    /// The I bit.
    pub immediate: bool,
    /// What is to be closed.
    pub reason: Reason,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Connection to close; without meaning for the whole session.
    pub cid: u16,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl LogoutRequest {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Result<Self, Malformed> {
        let reason = match bhs.flags() & 0x7f {
            0 => Reason::CloseSession,
            1 => Reason::CloseConnection,
            2 => Reason::RemoveForRecovery,
            _ => {
                let why = "reserved reason code";
                return Err(Malformed::new("Logout Request", why, "RFC 7143 11.14.1"));
            }
        };
        Ok(Self {
            immediate: bhs.immediate(),
            reason,
            itt: bhs.itt(),
            cid: bhs.u16_at(20),
            cmd_sn: bhs.u32_at(24),
            exp_stat_sn: bhs.u32_at(28),
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        Bhs::new(Opcode::LogoutRequest, FINAL | self.reason as u8)
            .with_immediate(self.immediate)
            .put_u32(16, self.itt)
            .put(20, self.cid.to_be_bytes())
            .put_u32(24, self.cmd_sn)
            .put_u32(28, self.exp_stat_sn)
    }
}

/// Response code: closed.
pub const CLOSED: u8 = 0;
/// Response code: there is no such connection.
pub const CID_NOT_FOUND: u8 = 1;
/// Response code: connection recovery is not supported.
pub const RECOVERY_UNSUPPORTED: u8 = 2;
/// Response code: clean-up failed.
pub const CLEANUP_FAILED: u8 = 3;

/// Logout Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutResponse {
    /// One of the codes of this module.
    pub response: u8,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Counters.
    pub numbers: Numbers,
    /// Seconds to wait before reconnecting.
    pub time_to_wait: u16,
    /// Seconds that the tasks are kept after that.
    pub time_to_retain: u16,
}

impl LogoutResponse {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            response: bhs.0[2],
            itt: bhs.itt(),
            numbers: Numbers::parse(bhs),
            time_to_wait: bhs.u16_at(40),
            time_to_retain: bhs.u16_at(42),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::LogoutResponse, FINAL)
            .put(2, [self.response])
            .put_u32(16, self.itt)
            .put(40, self.time_to_wait.to_be_bytes())
            .put(42, self.time_to_retain.to_be_bytes());
        self.numbers.emit(bhs)
    }
}
