//! NOP-Out and NOP-In (RFC 7143 11.18, 11.19): pings both ways. The data segment is echoed.

use super::Numbers;
use crate::iscsi::bhs::{Bhs, FINAL, Lun, Opcode};

/// A ping by the initiator (`itt` set), or its answer to one (`ttt` set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopOut {
    /// The I bit.
    pub immediate: bool,
    /// Copied from the NOP-In that is answered.
    pub lun: Lun,
    /// Initiator Task Tag; all ones if no answer is wanted.
    pub itt: u32,
    /// Target Transfer Tag of the NOP-In that is answered; all ones otherwise.
    pub ttt: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl NopOut {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.immediate(),
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32_at(20),
            cmd_sn: bhs.u32_at(24),
            exp_stat_sn: bhs.u32_at(28),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        Bhs::new(Opcode::NopOut, FINAL)
            .with_immediate(self.immediate)
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt)
            .put_u32(24, self.cmd_sn)
            .put_u32(28, self.exp_stat_sn)
    }
}

/// A ping by the target (`ttt` set), or its answer to one (`itt` set).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopIn {
    /// Any LUN, with a `ttt`; zero otherwise.
    pub lun: Lun,
    /// Initiator Task Tag of the NOP-Out that is answered; all ones otherwise.
    pub itt: u32,
    /// Target Transfer Tag; all ones if no answer is wanted.
    pub ttt: u32,
    /// Counters. A ping carries the next StatSN without using it up; an answer uses it up.
    pub numbers: Numbers,
}

impl NopIn {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self { lun: bhs.lun(), itt: bhs.itt(), ttt: bhs.u32_at(20), numbers: Numbers::parse(bhs) }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::NopIn, FINAL)
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt);
        self.numbers.emit(bhs)
    }
}
