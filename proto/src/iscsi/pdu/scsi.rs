//! SCSI Command and SCSI Response (RFC 7143 11.3, 11.4).

use super::{Numbers, Residual};
use crate::error::Malformed;
use crate::iscsi::bhs::{Bhs, FINAL, Lun, Opcode};

/// Task attributes (RFC 7143 11.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Attribute {
    /// No attribute; treated as simple.
    Untagged = 0,
    /// May be reordered.
    Simple = 1,
    /// After everything before it, before everything after it.
    Ordered = 2,
    /// At the head of the queue.
    HeadOfQueue = 3,
    /// Auto contingent allegiance.
    Aca = 4,
}

/// SCSI Command. A CDB above 16 bytes goes on in an additional header
/// ([`Ahs`](crate::iscsi::ahs::Ahs)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiCommand {
    /// The I bit.
    pub immediate: bool,
    /// No unsolicited Data-Out PDUs follow.
    pub is_final: bool,
    /// Input data is expected.
    pub read: bool,
    /// Output data is expected.
    pub write: bool,
    /// Task attribute.
    pub attribute: Attribute,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Expected Data Transfer Length, bytes.
    pub edtl: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// The first 16 bytes of the CDB, padded with zeros.
    pub cdb: [u8; 16],
}

impl ScsiCommand {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Result<Self, Malformed> {
        let attribute = match bhs.flags() & 0x07 {
            0 => Attribute::Untagged,
            1 => Attribute::Simple,
            2 => Attribute::Ordered,
            3 => Attribute::HeadOfQueue,
            4 => Attribute::Aca,
            _ => {
                return Err(Malformed::new("SCSI Command", "reserved ATTR", "RFC 7143 11.3.1"));
            }
        };
        Ok(Self {
            immediate: bhs.immediate(),
            is_final: bhs.is_final(),
            read: bhs.flags() & 0x40 != 0,
            write: bhs.flags() & 0x20 != 0,
            attribute,
            lun: bhs.lun(),
            itt: bhs.itt(),
            edtl: bhs.u32_at(20),
            cmd_sn: bhs.u32_at(24),
            exp_stat_sn: bhs.u32_at(28),
            cdb: bhs.0[32..48].try_into().expect("sixteen bytes"),
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let mut flags = self.attribute as u8;
        for (set, bit) in [(self.is_final, FINAL), (self.read, 0x40), (self.write, 0x20)] {
            flags |= if set { bit } else { 0 };
        }
        Bhs::new(Opcode::ScsiCommand, flags)
            .with_immediate(self.immediate)
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.edtl)
            .put_u32(24, self.cmd_sn)
            .put_u32(28, self.exp_stat_sn)
            .put(32, self.cdb)
    }
}

/// Response code: the command was completed at the target, see its status.
pub const RESPONSE_COMPLETED: u8 = 0x00;

/// Response code: the target failed, the status field means nothing.
pub const RESPONSE_TARGET_FAILURE: u8 = 0x01;

/// SCSI Response. Its data segment is SenseLength (two bytes), then the sense data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiResponse {
    /// [`RESPONSE_COMPLETED`], [`RESPONSE_TARGET_FAILURE`], or vendor specific.
    pub response: u8,
    /// SCSI status.
    pub status: u8,
    /// Initiator Task Tag.
    pub itt: u32,
    /// SNACK Tag; zero at recovery level 0.
    pub snack_tag: u32,
    /// Counters.
    pub numbers: Numbers,
    /// How many Data-In (and R2T) PDUs were sent for the command.
    pub exp_data_sn: u32,
    /// The read half's residual, of bidirectional commands only.
    pub bidirectional_residual: Residual,
    /// The residual.
    pub residual: Residual,
}

impl ScsiResponse {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Result<Self, Malformed> {
        let both = || Malformed::new("SCSI Response", "O and U together", "RFC 7143 11.4.1");
        let flags = bhs.flags();
        Ok(Self {
            response: bhs.0[2],
            status: bhs.0[3],
            itt: bhs.itt(),
            snack_tag: bhs.u32_at(20),
            numbers: Numbers::parse(bhs),
            exp_data_sn: bhs.u32_at(36),
            bidirectional_residual: Residual::from_wire(flags >> 2, bhs.u32_at(40))
                .ok_or_else(both)?,
            residual: Residual::from_wire(flags, bhs.u32_at(44)).ok_or_else(both)?,
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let (flags, count) = self.residual.to_wire();
        let (bidirectional_flags, bidirectional) = self.bidirectional_residual.to_wire();
        let bhs = Bhs::new(Opcode::ScsiResponse, FINAL | flags | (bidirectional_flags << 2))
            .put(2, [self.response, self.status])
            .put_u32(16, self.itt)
            .put_u32(20, self.snack_tag)
            .put_u32(36, self.exp_data_sn)
            .put_u32(40, bidirectional)
            .put_u32(44, count);
        self.numbers.emit(bhs)
    }
}
