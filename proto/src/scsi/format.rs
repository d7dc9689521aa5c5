//! The FORMAT UNIT parameter list (SBC-3 5.3.2).

use super::sense::{Condition, Sense};

const SHORT_HEADER_BYTES: u32 = 4;
const LONG_HEADER_BYTES: u32 = 8;
/// Before an initialization pattern.
const DESCRIPTOR_BYTES: usize = 4;

/// What a parameter list asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// IMMED: answer before it is done.
    pub immediate: bool,
    /// INITIALIZATION PATTERN, of up to a logical block, to be repeated in each. A single zero
    /// where the list leaves it to us; `None` if nothing need be written.
    pub pattern: Option<Vec<u8>>,
}

/// How long a list is at most for blocks of `block_bytes`; what follows is not looked at.
pub const fn bytes_max(block_bytes: u32) -> u32 {
    LONG_HEADER_BYTES + 4 + block_bytes
}

/// Bytes of the header alone.
pub const fn header_bytes(long: bool) -> u32 {
    if long { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES }
}

impl List {
    /// Reads a list, with the header of LONGLIST if `long`, for blocks of `block_bytes`. There are
    /// no defects to be managed and nothing to be certified, so what is said of both changes
    /// nothing, as far as it is consistent.
    pub fn parse(list: &[u8], long: bool, block_bytes: u32) -> Result<Self, Sense> {
        let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
        let header = header_bytes(long) as usize;
        let (head, rest) = list.split_at_checked(header).ok_or_else(short)?;
        // PROTECTION FIELD USAGE, P_I_INFORMATION: there is no protection information.
        if head[0] & 0x07 != 0 {
            return Err(Sense::invalid_parameter(0, Some(2)));
        }
        if long && head[3] != 0 {
            return Err(Sense::invalid_parameter(3, None));
        }
        // Without FOV, the options it validates must not be set.
        let options = head[1] & 0x7c;
        if head[1] & 0x80 == 0 && options != 0 {
            return Err(Sense::invalid_parameter(1, Some(7)));
        }
        let at = header - if long { 4 } else { 2 };
        if head[at..].iter().any(|byte| *byte != 0) {
            // DEFECT LIST LENGTH.
            return Err(Sense::invalid_parameter(u16::try_from(at).unwrap_or(0), None));
        }
        let immediate = head[1] & 0x02 != 0;
        let pattern = match head[1] & 0x08 {
            0 => None,
            _ => Some(pattern(rest, header, block_bytes)?),
        };
        Ok(Self { immediate, pattern })
    }
}

/// The initialization pattern descriptor, which begins at byte `at` of its list.
fn pattern(rest: &[u8], at: usize, block_bytes: u32) -> Result<Vec<u8>, Sense> {
    let point = |byte: usize, bit| {
        Sense::invalid_parameter(u16::try_from(at + byte).unwrap_or(u16::MAX), bit)
    };
    let short = || Sense::from(Condition::PARAMETER_LIST_LENGTH_ERROR);
    let (head, rest) = rest.split_first_chunk::<DESCRIPTOR_BYTES>().ok_or_else(short)?;
    // SI asks for what lies beneath the blocks too; that is SANITIZE's.
    if head[0] & 0xe0 != 0 {
        return Err(point(0, Some(5)));
    }
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    match head[1] {
        0x00 if len == 0 => Ok(vec![0]),
        0x01 if len > 0 && len <= block_bytes as usize => {
            rest.get(..len).map(<[u8]>::to_vec).ok_or_else(short)
        }
        0x00 | 0x01 => Err(point(2, None)),
        _ => Err(point(1, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[u8]) -> Result<List, Sense> {
        List::parse(list, false, 8)
    }

    #[test]
    fn headers_of_both_lengths_and_patterns_are_read() {
        let short = List::parse(&[0, 0x02, 0, 0], false, 8).unwrap();
        assert_eq!(short, List { immediate: true, pattern: None });
        let long = List::parse(&[0, 0, 0, 0, 0, 0, 0, 0, 9, 9], true, 8).unwrap();
        assert_eq!(long, List { immediate: false, pattern: None });
        // DPRY, DCRT and STPF, validated.
        assert!(parse(&[0, 0xf0, 0, 0]).is_ok());
        let zeros = parse(&[0, 0x88, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(zeros.pattern, Some(vec![0]));
        let given = parse(&[0, 0x88, 0, 0, 0, 1, 0, 2, 0xaa, 0x55]).unwrap();
        assert_eq!(given.pattern, Some(vec![0xaa, 0x55]));
        let block = parse(&[0, 0x88, 0, 0, 0, 1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        assert_eq!(block.pattern, Some(vec![1, 2, 3, 4, 5, 6, 7, 8]), "a whole block");
    }

    #[test]
    fn every_bit_that_is_not_understood_is_refused() {
        let byte = |list: &[u8], long| {
            List::parse(list, long, 8).unwrap_err().pointer.map(|pointer| pointer.byte)
        };
        for bit in [0x01, 0x02, 0x04] {
            assert_eq!(byte(&[bit, 0, 0, 0], false), Some(0), "protection {bit:#x}");
        }
        for bit in [0x40, 0x20, 0x10, 0x08, 0x04] {
            let list = [0, bit, 0, 0, 0, 0, 0, 0];
            assert_eq!(byte(&list, false), Some(1), "{bit:#x} without FOV");
        }
        for bit in [0x80, 0x40, 0x20] {
            let list = [0, 0x88, 0, 0, bit, 0, 0, 0];
            assert_eq!(byte(&list, false), Some(4), "SI {bit:#x}");
        }
        for at in 4..8 {
            let mut list = [0; 8];
            list[at] = 1;
            assert_eq!(byte(&list, true), Some(4), "defects, byte {at}");
        }
    }

    #[test]
    fn what_is_not_understood_is_pointed_at() {
        for (list, byte) in [
            (&[0x01, 0, 0, 0][..], 0),                                    // protection
            (&[0, 0x20, 0, 0], 1),                                        // DCRT without FOV
            (&[0, 0x08, 0, 0, 0, 0, 0, 0], 1),                            // IP without FOV
            (&[0, 0x80, 0, 8], 2),                                        // defects
            (&[0, 0x88, 0, 0, 0x20, 1, 0, 1, 7], 4),                      // SI
            (&[0, 0x88, 0, 0, 0, 2, 0, 1, 7], 5),                         // another type
            (&[0, 0x88, 0, 0, 0, 1, 0, 0], 6),                            // no pattern
            (&[0, 0x88, 0, 0, 0, 0, 0, 1, 7], 6), // a pattern that should be ours
            (&[0, 0x88, 0, 0, 0, 1, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], 6), // more than a block
        ] {
            let refused = List::parse(list, false, 8).unwrap_err();
            assert_eq!(refused.pointer.map(|at| at.byte), Some(byte), "{list:?}");
        }
        let long = List::parse(&[0, 0, 0, 0x10, 0, 0, 0, 0], true, 8).unwrap_err();
        assert_eq!(long.pointer.unwrap().byte, 3);
        let defects = List::parse(&[0, 0, 0, 0, 0, 0, 0, 8], true, 8).unwrap_err();
        assert_eq!(defects.pointer.unwrap().byte, 4);
    }

    #[test]
    fn every_cut_is_a_list_length_error() {
        let whole = [0, 0x88, 0, 0, 0, 1, 0, 2, 0xaa, 0x55];
        for len in 0..whole.len() {
            let cut = List::parse(&whole[..len], false, 8).unwrap_err().condition;
            assert_eq!(cut, Condition::PARAMETER_LIST_LENGTH_ERROR, "{len}");
        }
    }
}
