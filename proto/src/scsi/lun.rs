//! The eight bytes that name a logical unit (SAM-5 4.7), and REPORT LUNS data.

/// A logical unit's number behind one target: single-level, peripheral or flat space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(u16);

impl Lun {
    /// LUN 0.
    pub const ZERO: Self = Self(0);

    /// The largest number that flat space addressing holds (14 bits).
    pub const MAX: u16 = 0x3fff;

    /// The unit `number`; `None` above [`Self::MAX`].
    pub const fn new(number: u16) -> Option<Self> {
        if number <= Self::MAX { Some(Self(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// On the wire: peripheral device addressing below 256 (which every initiator reads as a plain
    /// number), flat space from there on.
    pub const fn encode(self) -> [u8; 8] {
        let [high, low] = self.0.to_be_bytes();
        let method = if self.0 < 256 { 0x00 } else { 0x40 };
        [method | high, low, 0, 0, 0, 0, 0, 0]
    }

    /// Reads either addressing method. `None` for what can never be one of ours: another bus,
    /// logical unit or extended addressing (well-known units among them), and deeper levels.
    pub const fn decode(bytes: [u8; 8]) -> Option<Self> {
        if !matches!(bytes, [_, _, 0, 0, 0, 0, 0, 0]) {
            return None;
        }
        match bytes[0] >> 6 {
            0b00 if bytes[0] == 0 => Some(Self(bytes[1] as u16)),
            0b01 => Some(Self(u16::from_be_bytes([bytes[0] & 0x3f, bytes[1]]))),
            _ => None,
        }
    }
}

/// REPORT LUNS data: `luns` in the order given (SPC-4 table 193), to be truncated by the caller.
pub fn report(luns: &[Lun]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + 8 * luns.len());
    let list = u32::try_from(8 * luns.len()).expect("at most 16384 LUNs of 8 bytes");
    out.extend_from_slice(&list.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    for lun in luns {
        out.extend_from_slice(&lun.encode());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives_the_wire_and_small_ones_are_peripheral() {
        for number in 0..=Lun::MAX {
            let lun = Lun::new(number).unwrap();
            assert_eq!(Lun::decode(lun.encode()), Some(lun));
        }
        assert_eq!(Lun(5).encode(), [0, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun(0x123).encode(), [0x41, 0x23, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Lun::new(0x4000), None);
    }

    #[test]
    fn small_numbers_are_also_read_in_flat_space() {
        assert_eq!(Lun::decode([0x40, 7, 0, 0, 0, 0, 0, 0]), Some(Lun(7)));
    }

    #[test]
    fn well_known_other_bus_and_deeper_levels_are_no_unit_of_ours() {
        assert_eq!(Lun::decode([0xc1, 0x01, 0, 0, 0, 0, 0, 0]), None); // REPORT LUNS well-known
        assert_eq!(Lun::decode([0x01, 0x00, 0, 0, 0, 0, 0, 0]), None); // bus 1
        assert_eq!(Lun::decode([0x80, 0x00, 0, 0, 0, 0, 0, 0]), None); // logical unit addressing
        assert_eq!(Lun::decode([0x00, 0x00, 0, 1, 0, 0, 0, 0]), None); // second level
    }

    #[test]
    fn report_counts_bytes_not_units() {
        #[rustfmt::skip]
        assert_eq!(report(&[Lun(0), Lun(1)]), [
            0, 0, 0, 16, 0, 0, 0, 0,    // LUN LIST LENGTH, reserved
            0, 0, 0, 0, 0, 0, 0, 0,     // LUN 0
            0, 1, 0, 0, 0, 0, 0, 0,     // LUN 1
        ]);
    }
}
