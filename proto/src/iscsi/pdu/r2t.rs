//! Ready To Transfer (RFC 7143 11.8): the target asks for write data.

use super::Numbers;
use crate::iscsi::bhs::{Bhs, FINAL, Lun, Opcode};

/// Ready To Transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2t {
    /// Logical unit of the command; the initiator repeats it.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag; never all ones.
    pub ttt: u32,
    /// Counters. The StatSN is the next one; an R2T does not use it up.
    pub numbers: Numbers,
    /// Counts the command's R2Ts (and Data-In PDUs) from 0.
    pub r2t_sn: u32,
    /// First byte wanted.
    pub offset: u32,
    /// Bytes wanted, 1 to MaxBurstLength.
    pub bytes: u32,
}

impl R2t {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32_at(20),
            numbers: Numbers::parse(bhs),
            r2t_sn: bhs.u32_at(36),
            offset: bhs.u32_at(40),
            bytes: bhs.u32_at(44),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::R2t, FINAL)
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt)
            .put_u32(36, self.r2t_sn)
            .put_u32(40, self.offset)
            .put_u32(44, self.bytes);
        self.numbers.emit(bhs)
    }
}
