//! SMART, as far as tools probe for it: the feature exists, and there are no attributes.

use corbel_proto::ata::Registers;

/// SMART READ DATA and READ ATTRIBUTE THRESHOLDS: a structure version, no entries, a checksum.
pub(super) fn empty_table() -> Box<[u8; 512]> {
    let mut table = Box::new([0u8; 512]);
    table[0] = 0x10;
    let sum = table[..511].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[511] = sum.wrapping_neg();
    table
}

/// SMART RETURN STATUS: the signature in the LBA stays as it was sent for a healthy device, and
/// is exchanged for F4h 2Ch when a threshold is exceeded (ACS-3 7.48.8).
pub(super) fn status(mut registers: Registers, healthy: bool) -> Registers {
    let signature = if healthy { [0x4f, 0xc2] } else { [0xf4, 0x2c] };
    registers.lba[1..3].copy_from_slice(&signature);
    registers.done()
}
