//! SCSI Data-Out and SCSI Data-In (RFC 7143 11.7).

use super::{Numbers, Residual};
use crate::error::Malformed;
use crate::iscsi::bhs::{Bhs, FINAL, Lun, Opcode};

/// Write data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataOut {
    /// Last PDU of its sequence (the unsolicited burst, or the answer to one R2T).
    pub is_final: bool,
    /// Logical unit; repeated from the R2T.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag of the R2T this answers; all ones for unsolicited data.
    pub ttt: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// Counts the PDUs of one sequence from 0.
    pub data_sn: u32,
    /// Where in the command's buffer the data belongs.
    pub offset: u32,
}

impl DataOut {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            is_final: bhs.is_final(),
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32_at(20),
            exp_stat_sn: bhs.u32_at(28),
            data_sn: bhs.u32_at(36),
            offset: bhs.u32_at(40),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        Bhs::new(Opcode::DataOut, if self.is_final { FINAL } else { 0 })
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt)
            .put_u32(28, self.exp_stat_sn)
            .put_u32(36, self.data_sn)
            .put_u32(40, self.offset)
    }
}

/// Read data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataIn {
    /// Last PDU of its sequence (at most MaxBurstLength).
    pub is_final: bool,
    /// A DataACK is wanted; never set below recovery level 1.
    pub acknowledge: bool,
    /// SCSI status, if it comes with this PDU (S bit, F set too). Then `numbers.stat_sn` and
    /// `residual` mean something.
    pub status: Option<u8>,
    /// Logical unit; needed only with `acknowledge`.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag; all ones unless `acknowledge`.
    pub ttt: u32,
    /// Counters.
    pub numbers: Numbers,
    /// Counts the command's Data-In PDUs from 0.
    pub data_sn: u32,
    /// Where in the command's buffer the data belongs.
    pub offset: u32,
    /// The residual, with a status only.
    pub residual: Residual,
}

impl DataIn {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Result<Self, Malformed> {
        let flags = bhs.flags();
        let status = (flags & 0x01 != 0).then_some(bhs.0[3]);
        let residual = match status {
            None => Residual::None,
            Some(_) => Residual::from_wire(flags, bhs.u32_at(44)).ok_or(Malformed::new(
                "SCSI Data-In",
                "O and U together",
                "RFC 7143 11.4.1",
            ))?,
        };
        Ok(Self {
            is_final: bhs.is_final(),
            acknowledge: flags & 0x40 != 0,
            status,
            lun: bhs.lun(),
            itt: bhs.itt(),
            ttt: bhs.u32_at(20),
            numbers: Numbers::parse(bhs),
            data_sn: bhs.u32_at(36),
            offset: bhs.u32_at(40),
            residual,
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let (residual_flags, count) = self.residual.to_wire();
        let mut flags = residual_flags;
        for (set, bit) in
            [(self.is_final, FINAL), (self.acknowledge, 0x40), (self.status.is_some(), 0x01)]
        {
            flags |= if set { bit } else { 0 };
        }
        let bhs = Bhs::new(Opcode::DataIn, flags)
            .put(3, [self.status.unwrap_or(0)])
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.ttt)
            .put_u32(36, self.data_sn)
            .put_u32(40, self.offset)
            .put_u32(44, count);
        self.numbers.emit(bhs)
    }
}
