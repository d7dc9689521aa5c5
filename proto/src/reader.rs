//! A bounded cursor: the only way bytes from outside are read.

use crate::error::Malformed;

/// Reads fields of `bytes` in order. Every read is checked against what is left.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    what: &'static str,
    section: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`, which claim to be `what` as laid down in `section`.
    pub const fn new(bytes: &'a [u8], what: &'static str, section: &'static str) -> Self {
        Self { bytes, what, section }
    }

    /// Bytes not yet read.
    pub const fn left(&self) -> usize {
        self.bytes.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.bytes.len() {
            return Err(Malformed::new(self.what, "shorter than its fields", self.section));
        }
        let (head, tail) = self.bytes.split_at(len);
        self.bytes = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N).map(|b| b.try_into().expect("take returns the length asked for"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A reader over the next `len` bytes only.
    pub fn sub(&mut self, len: usize) -> Result<Self, Malformed> {
        let (what, section) = (self.what, self.section);
        self.take(len).map(|bytes| Self { bytes, what, section })
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }

    /// Fails if anything is left.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(Malformed::new(self.what, "longer than its fields", self.section))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_in_order_and_refuses_overrun() {
        let mut r = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 9], "test", "none");
        assert_eq!(r.u8(), Ok(1));
        assert_eq!(r.u16(), Ok(2));
        assert_eq!(r.u32(), Ok(3));
        assert!(r.clone().finish().is_err());
        assert!(r.u64().is_err());
        assert_eq!(r.rest(), [9]);
    }
}
