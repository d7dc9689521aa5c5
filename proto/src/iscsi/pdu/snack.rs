//! SNACK Request (RFC 7143 11.16): "send that again". Only for recovery level 1 and above.

use crate::iscsi::bhs::{Bhs, FINAL, Lun, Opcode};

/// SNACK Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snack {
    /// 0 data or R2T, 1 status, 2 data acknowledgement, 3 resegmented data.
    pub kind: u8,
    /// Logical unit, for a data acknowledgement.
    pub lun: Lun,
    /// Initiator Task Tag, or all ones.
    pub itt: u32,
    /// Target Transfer Tag or SNACK Tag, or all ones.
    pub ttt: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// First number missing.
    pub begin: u32,
    /// How many; 0 for all after `begin`.
    pub run: u32,
}

impl Snack {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            kind: bhs.flags() & 0x0f,
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32_at(20),
            exp_stat_sn: bhs.u32_at(28),
            begin: bhs.u32_at(40),
            run: bhs.u32_at(44),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        Bhs::new(Opcode::Snack, FINAL | (self.kind & 0x0f))
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt)
            .put_u32(28, self.exp_stat_sn)
            .put_u32(40, self.begin)
            .put_u32(44, self.run)
    }
}
