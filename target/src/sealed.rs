//! Small state files: what stands in them is whole and ours, or nothing of it is used.
//!
//! ```text
//! magic (4 bytes)  version (u8)  content  CRC-32 of all before (u32 LE)
//! ```

/// What a file holds, in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// Its first bytes.
    pub(crate) magic: [u8; 4],
    /// Changes whenever the content's layout does.
    pub(crate) version: u8,
}

/// Why a file cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Another form.
    Foreign,
    /// The checksum is wrong.
    Damaged,
}

impl Form {
    /// The beginning of a file, for its content to be added.
    pub(crate) fn begin(self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.push(self.version);
        out
    }

    /// The whole file.
    pub(crate) fn seal(self, mut begun: Vec<u8>) -> Vec<u8> {
        begun.extend(crc32fast::hash(&begun).to_le_bytes());
        begun
    }

    /// The content of a file.
    pub(crate) fn open(self, bytes: &[u8]) -> Result<&[u8], Flaw> {
        let body = bytes.strip_prefix(&self.magic).ok_or(Flaw::Foreign)?;
        if body.first() != Some(&self.version) {
            return Err(Flaw::Foreign);
        }
        let (signed, sum) = bytes.split_last_chunk::<4>().ok_or(Flaw::Damaged)?;
        if crc32fast::hash(signed) != u32::from_le_bytes(*sum) {
            return Err(Flaw::Damaged);
        }
        signed.get(self.magic.len() + 1..).ok_or(Flaw::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { magic: *b"Test", version: 3 };

    fn file(form: Form, content: &[u8]) -> Vec<u8> {
        let mut out = form.begin();
        out.extend(content);
        form.seal(out)
    }

    #[test]
    fn what_was_sealed_is_opened() {
        for content in [&b""[..], b"a", b"Test content"] {
            assert_eq!(FORM.open(&file(FORM, content)), Ok(content));
        }
    }

    /// Whole, with a sum that is right, and of another form.
    #[test]
    fn another_form_is_foreign_however_whole_it_is() {
        let other = Form { magic: *b"Tesu", ..FORM };
        for other in [other, Form { version: 2, ..FORM }, Form { version: 4, ..FORM }] {
            assert_eq!(FORM.open(&file(other, b"content")), Err(Flaw::Foreign), "{other:?}");
        }
    }

    #[test]
    fn a_wrong_bit_or_length_is_not_believed() {
        let good = file(FORM, b"content");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FORM.open(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(FORM.open(&good[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(FORM.open(&[&good[..], &[0]].concat()), Err(Flaw::Damaged));
    }
}
