//! Text keys, RFC 7143 6.1: `key=value` pairs, each ended by a NUL.
//!
//! One negotiation's text may come in several PDUs joined by the C bit. An [`Accumulator`]
//! joins them within [`TEXT_BYTES_MAX`]; [`Keys::parse`] then reads the whole.

use core::fmt::Write as _;

use crate::error::Malformed;

/// The most text that one side may send before the other has its say.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// The most pairs in one such text.
pub const PAIRS_MAX: usize = 256;
/// The longest key (6.1).
pub const KEY_BYTES_MAX: usize = 63;
/// The longest value, unless its key says otherwise (6.1).
pub const VALUE_BYTES_MAX: usize = 255;
/// The longest value of the keys that carry binary values or lists.
pub const LONG_VALUE_BYTES_MAX: usize = 8192;

const SECTION: &str = "RFC 7143 6.1";

/// Joins the text of PDUs that the C bit chains.
#[derive(Debug, Default)]
pub struct Accumulator {
    bytes: Vec<u8>,
}

impl Accumulator {
    /// Takes the text of one PDU. Gives the whole when `continues` is not set.
    ///
    /// # Errors
    /// If the whole is longer than [`TEXT_BYTES_MAX`]; what was kept is then forgotten.
    pub fn push(&mut self, text: &[u8], continues: bool) -> Result<Option<Vec<u8>>, Malformed> {
        if self.bytes.len() + text.len() > TEXT_BYTES_MAX {
            self.bytes = Vec::new();
            return Err(Malformed::new("text", "longer than 64 KiB", SECTION));
        }
        self.bytes.extend_from_slice(text);
        Ok((!continues).then(|| core::mem::take(&mut self.bytes)))
    }
}

/// The pairs of one whole text, in the order they came. No key occurs twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys<'a> {
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Keys<'a> {
    /// Reads the pairs of `text`. A missing last NUL and stray NULs are forgiven.
    ///
    /// # Errors
    /// If there is no `=`, a key or value is too long or holds bytes it may not, a key occurs
    /// twice (6.3), or there are more than [`PAIRS_MAX`] pairs.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let refuse = |why| Malformed::new("text key", why, SECTION);
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in text.split(|&b| b == 0).filter(|pair| !pair.is_empty()) {
            let pair = core::str::from_utf8(pair).map_err(|_| refuse("not UTF-8"))?;
            let (key, value) = pair.split_once('=').ok_or_else(|| refuse("no `=`"))?;
            if !key_is_sound(key) {
                return Err(refuse("a key is not 1 to 63 of the bytes it may have"));
            }
            if value.len() > value_bytes_max(key) {
                return Err(refuse("a value is too long"));
            }
            if pairs.iter().any(|&(other, _)| other == key) {
                return Err(refuse("a key occurs twice"));
            }
            if pairs.len() == PAIRS_MAX {
                return Err(refuse("more than 256 keys at once"));
            }
            pairs.push((key, value));
        }
        Ok(Self { pairs })
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(other, _)| *other == key).map(|&(_, value)| value)
    }

    /// All pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.pairs.iter().copied()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn key_is_sound(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+@_#".contains(&b))
}

fn value_bytes_max(key: &str) -> usize {
    let long = matches!(key, "CHAP_C" | "CHAP_R" | "SendTargets") || key.starts_with("X-");
    if long { LONG_VALUE_BYTES_MAX } else { VALUE_BYTES_MAX }
}

/// Appends one pair to `text`.
pub fn put(text: &mut Vec<u8>, key: &str, value: &str) {
    debug_assert!(key_is_sound(key) && !value.contains('\0'), "our own key {key}");
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// A numerical value: decimal, or hexadecimal after `0x`; at most 64 bits.
pub fn number(value: &str) -> Option<u64> {
    let (digits, radix) = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (value, 10),
    };
    let sound = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
    if sound { u64::from_str_radix(digits, radix).ok() } else { None }
}

/// A boolean value: `Yes` or `No`.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "Yes" => Some(true),
        "No" => Some(false),
        _ => None,
    }
}

/// The wire form of a boolean.
pub const fn boolean_text(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// A list of values, the most wanted first.
pub fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',')
}

/// A range of numbers, `low~high`.
pub fn range(value: &str) -> Option<(u64, u64)> {
    let (low, high) = value.split_once('~')?;
    let (low, high) = (number(low)?, number(high)?);
    (low <= high).then_some((low, high))
}

/// A binary value: `0x` and pairs of hexadecimal digits, or `0b` and padded base64.
pub fn binary(value: &str) -> Option<Vec<u8>> {
    let (prefix, digits) = value.split_at_checked(2)?;
    match prefix {
        "0x" | "0X" => hex(digits.as_bytes()),
        "0b" | "0B" => base64(digits.as_bytes()),
        _ => None,
    }
}

/// The `0x` form of `bytes`.
pub fn binary_text(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, odd) = digits.as_chunks::<2>();
    if pairs.is_empty() || !odd.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(hex_digit(high)? << 4 | hex_digit(low)?)).collect()
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// RFC 4648 section 4, padded, no stray bits, no line breaks.
fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let (quads, rest) = digits.as_chunks::<4>();
    if quads.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(quads.len() * 3);
    for (index, quad) in quads.iter().enumerate() {
        let padding = quad.iter().rev().take_while(|&&digit| digit == b'=').count();
        if padding > 2 || (padding > 0 && index + 1 != quads.len()) {
            return None;
        }
        let mut bits = 0u32;
        for &digit in &quad[..4 - padding] {
            bits = bits << 6 | base64_digit(digit)?;
        }
        bits <<= 6 * padding;
        let group = bits.to_be_bytes();
        let (kept, dropped) = group[1..].split_at(3 - padding);
        if dropped.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_keep_their_order() {
        let keys = Keys::parse(b"A=1\0B=x=y\0C=\0").unwrap();
        assert_eq!(keys.iter().collect::<Vec<_>>(), [("A", "1"), ("B", "x=y"), ("C", "")]);
        assert_eq!(keys.value("B"), Some("x=y"));
        assert_eq!(keys.value("D"), None);
    }

    #[test]
    fn unsound_text_is_refused() {
        let long_key = [&[b'K'; 64][..], b"=1"].concat();
        let long_value = [b"K=", &[b'v'; 256][..]].concat();
        let many = b"K=1\0".repeat(2);
        for text in [b"K".as_slice(), b"=1", b"K\xff=1", b"K y=1", &long_key, &long_value, &many] {
            assert!(Keys::parse(text).is_err(), "{text:?}");
        }
        assert!(Keys::parse(&[b"CHAP_R=0x", &[b'0'; 512][..]].concat()).is_ok());
    }

    #[test]
    fn more_than_256_keys_are_refused() {
        let text: String = (0..257).map(|n| format!("X-{n}=1\0")).collect();
        assert!(Keys::parse(text.as_bytes()).is_err());
    }

    #[test]
    fn a_pair_split_anywhere_is_joined_and_64_kib_is_the_end() {
        let whole = b"InitiatorName=iqn.2026-11.org.example\0";
        for at in 0..whole.len() {
            let mut text = Accumulator::default();
            assert_eq!(text.push(&whole[..at], true), Ok(None));
            assert_eq!(text.push(&whole[at..], false), Ok(Some(whole.to_vec())));
        }
        let mut text = Accumulator::default();
        for _ in 0..8 {
            assert_eq!(text.push(&[b'a'; 8192], true), Ok(None));
        }
        assert!(text.push(b"a", true).is_err());
    }

    #[test]
    fn numbers_are_decimal_or_hex() {
        for (text, value) in [("0", 0), ("16776192", 16_776_192), ("0xFf", 255), ("007", 7)] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        for text in ["", "0x", "-1", "+1", " 1", "1 ", "ff", "0x1_0", "18446744073709551616"] {
            assert_eq!(number(text), None, "{text:?}");
        }
        assert_eq!(range("1~0x10"), Some((1, 16)));
        assert_eq!(range("2~1"), None);
        assert_eq!(range("2"), None);
    }

    #[test]
    fn booleans_are_spelled_exactly() {
        assert_eq!(
            (boolean("Yes"), boolean("No"), boolean("yes")),
            (Some(true), Some(false), None)
        );
    }

    #[test]
    fn binary_values_are_strict() {
        assert_eq!(binary("0x00fF"), Some(vec![0, 255]));
        assert_eq!(binary("0Xab"), Some(vec![0xab]));
        assert_eq!(binary("0bAAECAw=="), Some(vec![0, 1, 2, 3]));
        assert_eq!(binary("0BAAEC"), Some(vec![0, 1, 2]));
        assert_eq!(binary("0bAAE="), Some(vec![0, 1]));
        for text in [
            "",
            "0",
            "0x",
            "0b",
            "0x0",
            "0x000",
            "0xgg",
            "00ff",
            "é",
            "0bA",
            "0bAA",
            "0bAA=",
            "0bAA===",
            "0b====",
            "0bAAA=AAAA",
            "0bAB==",
            "0bAAF=",
            "0bAA-_",
            "0bAA A",
            "0x ab",
        ] {
            assert_eq!(binary(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Keys::parse(&bytes);
        }

        #[test]
        fn any_string_is_a_value_or_not(value: String) {
            let _ = (number(&value), range(&value), binary(&value));
        }

        #[test]
        fn hex_comes_back(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            prop_assert_eq!(binary(&binary_text(&bytes)), Some(bytes));
        }
    }
}
