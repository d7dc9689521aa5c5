//! Additional Header Segments (RFC 7143 11.2.2): what does not fit the 48 bytes of a SCSI Command.

use crate::error::Malformed;
use crate::reader::Reader;

/// The longest AHS area a header can announce, in bytes.
pub const AHS_BYTES_MAX: usize = 255 * 4;

/// The longest CDB SPC-4 knows (variable length, opcode 7Fh).
pub const CDB_BYTES_MAX: usize = 260;

const SECTION: &str = "RFC 7143 11.2.2";
const EXTENDED_CDB: u8 = 1;
const BIDIRECTIONAL_READ: u8 = 2;

/// What the additional headers of a SCSI Command say. Unknown types are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahs<'a> {
    /// CDB bytes after the first 16.
    pub cdb_tail: &'a [u8],
    /// Expected Bidirectional Read Data Length.
    pub read_bytes: Option<u32>,
}

impl<'a> Ahs<'a> {
    /// Reads the AHS area: a whole number of words, as TotalAHSLength announced it.
    pub fn parse(area: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(area, "AHS", SECTION);
        let mut ahs = Self::default();
        while reader.left() > 0 {
            // AHSLength counts what follows AHSType: one specific byte, then the contents.
            let length = usize::from(reader.u16()?);
            let kind = reader.u8()?;
            let body = reader.take(length)?;
            let padding = (4 - (3 + length) % 4) % 4;
            reader.take(padding)?;
            match (kind, body) {
                (EXTENDED_CDB, [_, tail @ ..]) if !tail.is_empty() => {
                    if 16 + tail.len() > CDB_BYTES_MAX || !ahs.cdb_tail.is_empty() {
                        return Err(Malformed::new("Extended CDB", "too long or twice", SECTION));
                    }
                    ahs.cdb_tail = tail;
                }
                (BIDIRECTIONAL_READ, &[_, a, b, c, d]) if ahs.read_bytes.is_none() => {
                    ahs.read_bytes = Some(u32::from_be_bytes([a, b, c, d]));
                }
                (EXTENDED_CDB | BIDIRECTIONAL_READ, _) => {
                    return Err(Malformed::new("AHS", "wrong length or twice", SECTION));
                }
                _ => {}
            }
        }
        Ok(ahs)
    }

    /// The AHS area as it goes over the wire; empty if there is nothing to say.
    ///
    /// # Panics
    /// If the CDB is above [`CDB_BYTES_MAX`] in all.
    pub fn emit(&self) -> Vec<u8> {
        assert!(16 + self.cdb_tail.len() <= CDB_BYTES_MAX, "CDBs have at most 260 bytes");
        let mut area = Vec::new();
        if !self.cdb_tail.is_empty() {
            let length = u16::try_from(self.cdb_tail.len() + 1).expect("at most 245");
            area.extend(length.to_be_bytes());
            area.extend([EXTENDED_CDB, 0]);
            area.extend(self.cdb_tail);
            area.resize(area.len().next_multiple_of(4), 0);
        }
        if let Some(bytes) = self.read_bytes {
            area.extend([0, 5, BIDIRECTIONAL_READ, 0]);
            area.extend(bytes.to_be_bytes());
        }
        area
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_32_byte_cdb_and_a_read_length_survive_the_round_trip() {
        let tail: Vec<u8> = (16..32).collect();
        let ahs = Ahs { cdb_tail: &tail, read_bytes: Some(0x0001_0000) };
        let area = ahs.emit();
        assert_eq!(area[..4], [0, 17, 1, 0]);
        assert_eq!(area[20..], [0, 5, 2, 0, 0, 1, 0, 0]);
        assert_eq!(Ahs::parse(&area), Ok(ahs));
    }

    #[test]
    fn unknown_types_are_passed_over() {
        let area = [0, 2, 0x3f, 0, 9, 0, 0, 0, 0, 5, 2, 0, 0, 0, 2, 0];
        assert_eq!(Ahs::parse(&area).unwrap().read_bytes, Some(512));
    }

    #[test]
    fn lengths_that_overrun_repeat_or_make_no_sense_are_malformed() {
        assert!(Ahs::parse(&[0, 200, 1, 0]).is_err());
        assert!(Ahs::parse(&[0, 1, 1, 0]).is_err());
        assert!(Ahs::parse(&[0, 4, 2, 0, 0, 0, 0, 0]).is_err());
        assert!(Ahs::parse(&[0, 5, 2, 0, 0, 0, 0, 1, 0, 5, 2, 0, 0, 0, 0, 1]).is_err());
        assert!(Ahs::parse(&[0, 0, 9, 0, 0, 1, 1]).is_err());
    }
}
