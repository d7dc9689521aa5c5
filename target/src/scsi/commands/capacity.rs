//! READ CAPACITY (SBC-3 5.15, 5.16).

use corbel_proto::scsi::capacity::Capacity;

use crate::scsi::{LogicalUnit, Plan, limits};

fn capacity(lu: &LogicalUnit) -> Capacity {
    let facts = &lu.volume.facts;
    let ratio = (facts.physical_bytes / facts.block_bytes.max(1)).max(1);
    Capacity {
        last_lba: lu.volume.blocks().saturating_sub(1), // a unit of no blocks is not ready
        block_bytes: facts.block_bytes,
        physical_exponent: u8::try_from(ratio.ilog2()).expect("below 32"),
        thin: limits::thin(&lu.volume),
        thin_zeroes: facts.discard_zeroes,
    }
}

pub(in crate::scsi) fn plan10(lu: &LogicalUnit) -> Plan {
    Plan::data(capacity(lu).emit10(), u32::MAX)
}

pub(in crate::scsi) fn plan16(lu: &LogicalUnit, allocation: u32) -> Plan {
    Plan::data(capacity(lu).emit16(), allocation)
}
