//! The SANITIZE OVERWRITE parameter list (SBC-3 5.24.2.2).

use super::sense::Sense;

/// Header before the pattern.
const HEADER_BYTES: usize = 4;

/// What is written over everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overwrite {
    /// INVERT: each pass writes the complement of the one before.
    pub invert: bool,
    /// OVERWRITE COUNT: passes, 1 to 31.
    pub passes: u8,
    /// INITIALIZATION PATTERN: 1 byte to a logical block, repeated in each block.
    pub pattern: Vec<u8>,
}

/// How long the list may be for blocks of `block_bytes`.
pub const fn lengths(block_bytes: u32) -> core::ops::RangeInclusive<usize> {
    HEADER_BYTES + 1..=HEADER_BYTES + block_bytes as usize
}

impl Overwrite {
    /// Reads a whole list, whose length is one of [`lengths`].
    pub fn parse(list: &[u8], block_bytes: u32) -> Result<Self, Sense> {
        let Some((header, rest)) = list.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Sense::invalid_parameter(0, None));
        };
        // TEST asks for what a vendor makes of it; there is nothing of that kind here.
        if header[0] & 0x60 != 0 {
            return Err(Sense::invalid_parameter(0, Some(6)));
        }
        let passes = header[0] & 0x1f;
        if passes == 0 {
            return Err(Sense::invalid_parameter(0, Some(4)));
        }
        if header[1] != 0 {
            return Err(Sense::invalid_parameter(1, None));
        }
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fits = len > 0 && len <= block_bytes as usize;
        let pattern = rest.get(..len).filter(|_| fits).ok_or(Sense::invalid_parameter(2, None))?;
        Ok(Self { invert: header[0] & 0x80 != 0, passes, pattern: pattern.to_vec() })
    }

    /// One logical block of the pattern.
    pub fn block(&self, block_bytes: u32) -> Vec<u8> {
        self.pattern.iter().copied().cycle().take(block_bytes as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_fills_a_block_and_counts_are_read() {
        let list = [0x83, 0, 0, 3, 1, 2, 3];
        let overwrite = Overwrite::parse(&list, 8).unwrap();
        assert_eq!((overwrite.invert, overwrite.passes), (true, 3));
        assert_eq!(overwrite.block(8), [1, 2, 3, 1, 2, 3, 1, 2]);
    }

    #[test]
    fn what_is_not_understood_overwrites_nothing() {
        for (list, byte) in [
            (&[0x00, 0, 0, 1, 0xaa][..], 0),                  // no pass
            (&[0x21, 0, 0, 1, 0xaa], 0),                      // TEST
            (&[0x01, 1, 0, 1, 0xaa], 1),                      // reserved
            (&[0x01, 0, 0, 0, 0xaa], 2),                      // no pattern
            (&[0x01, 0, 0, 2, 0xaa], 2),                      // more pattern than there is
            (&[0x01, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2), // more than a block
            (&[0x01, 0, 0], 0),
        ] {
            let refused = Overwrite::parse(list, 8).unwrap_err();
            assert_eq!(refused.pointer.unwrap().byte, byte, "{list:?}");
        }
    }
}
