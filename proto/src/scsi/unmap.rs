//! The UNMAP parameter list (SBC-3 5.28.2).

use super::sense::{Condition, Sense};

/// One extent to deallocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First block.
    pub lba: u64,
    /// Blocks.
    pub blocks: u32,
}

/// Header before the descriptors.
const HEADER_BYTES: usize = 8;
/// One UNMAP block descriptor.
const DESCRIPTOR_BYTES: usize = 16;

/// Reads the whole parameter list, at most `count_max` extents (VPD page B0).
///
/// A list of no bytes asks for nothing. An incomplete last descriptor is ignored, as the standard
/// wants; a BLOCK DESCRIPTOR DATA LENGTH beyond the list is refused, for what it meant to
/// deallocate cannot be known.
pub fn parse(list: &[u8], count_max: usize) -> Result<Vec<Extent>, Sense> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let Some((header, rest)) = list.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into());
    };
    let descriptors = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let Some(descriptors) = rest.get(..descriptors) else {
        return Err(Sense::invalid_parameter(2, None));
    };
    if descriptors.len() / DESCRIPTOR_BYTES > count_max {
        return Err(Sense::invalid_parameter(2, None));
    }
    Ok(descriptors
        .chunks_exact(DESCRIPTOR_BYTES)
        .map(|d| Extent {
            lba: u64::from_be_bytes(d[..8].try_into().expect("eight bytes")),
            blocks: u32::from_be_bytes(d[8..12].try_into().expect("four bytes")),
        })
        .collect())
}

/// The parameter list for `extents` (for initiators); `None` if there are too many for its
/// 16-bit length.
pub fn emit(extents: &[Extent]) -> Option<Vec<u8>> {
    let descriptors = u16::try_from(extents.len() * DESCRIPTOR_BYTES).ok()?;
    let data = descriptors.checked_add(6)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + usize::from(descriptors));
    out.extend_from_slice(&data.to_be_bytes());
    out.extend_from_slice(&descriptors.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    for extent in extents {
        out.extend_from_slice(&extent.lba.to_be_bytes());
        out.extend_from_slice(&extent.blocks.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [Extent; 2] =
        [Extent { lba: 1 << 40, blocks: u32::MAX }, Extent { lba: 9, blocks: 0 }];

    #[test]
    fn extents_read_back_as_written() {
        let list = emit(&TWO).unwrap();
        assert_eq!(list[..8], [0, 38, 0, 32, 0, 0, 0, 0]);
        assert_eq!(parse(&list, 2), Ok(TWO.to_vec()));
        assert_eq!(parse(&[], 2), Ok(vec![]));
    }

    #[test]
    fn an_incomplete_last_descriptor_is_ignored() {
        let mut list = emit(&TWO).unwrap();
        list[3] -= 1;
        assert_eq!(parse(&list, 2), Ok(TWO[..1].to_vec()));
    }

    #[test]
    fn short_header_overlong_length_and_too_many_extents_are_refused() {
        let list = emit(&TWO).unwrap();
        assert_eq!(parse(&list[..7], 2), Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into()));
        assert_eq!(parse(&list[..39], 2), Err(Sense::invalid_parameter(2, None)));
        assert_eq!(parse(&list, 1), Err(Sense::invalid_parameter(2, None)));
    }
}
