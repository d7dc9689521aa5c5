//! A 48-bit Ethernet address.

use core::fmt;
use core::str::FromStr;

use crate::error::Malformed;

/// An Ethernet address. Written `00:16:3e:12:34:56`; read also with `-` or without separators.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address in the six bytes at the head of `bytes`, which must be at least that long.
    pub(super) fn at(bytes: &[u8]) -> Self {
        Self(bytes[..6].try_into().expect("a slice of six bytes"))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let wrong = Malformed::new("MAC address", "not six pairs of hex digits", "IEEE 802-2014 8");
        let mut digits = [0u8; 12];
        let mut count = 0;
        for (place, letter) in text.bytes().enumerate() {
            let separator = matches!(letter, b':' | b'-') && place % 3 == 2 && count % 2 == 0;
            if separator {
                continue;
            }
            let digit = char::from(letter).to_digit(16).ok_or(wrong)?;
            *digits.get_mut(count).ok_or(wrong)? = u8::try_from(digit).map_err(|_| wrong)?;
            count += 1;
        }
        let ends_well = text.len() == 12 || text.len() == 17;
        if count != 12 || !ends_well {
            return Err(wrong);
        }
        let mut mac = [0u8; 6];
        for (byte, pair) in mac.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_writes_one_form() {
        for text in ["00:16:3e:ab:CD:ef", "00-16-3E-ab-cd-ef", "00163eabcdef"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), "00:16:3e:ab:cd:ef");
        }
    }

    #[test]
    fn refuses_what_is_not_an_address() {
        for text in [
            "",
            "00:16:3e:ab:cd",
            "00:16:3e:ab:cd:eg",
            "00:16:3e:ab:cd:ef:01",
            "0:016:3e",
            "00:16:3e:ab:cdef",
            "::::::::::::",
            "é0163eabcde",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
