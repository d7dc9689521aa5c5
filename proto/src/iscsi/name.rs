//! iSCSI names, RFC 7143 4.2.7: `iqn.`, `eui.` and `naa.`.

use core::fmt;
use core::str::FromStr;

use crate::error::Malformed;

/// The longest iSCSI name in bytes (4.2.7.2).
pub const NAME_BYTES_MAX: usize = 223;

/// A well-formed iSCSI name of an initiator or a target, in its one comparable form.
///
/// Names are compared byte by byte after the normalisation of 4.2.7.2 (RFC 3722). ASCII upper
/// case is folded to lower here. Names outside ASCII are taken as they are sent, without
/// Unicode normalisation, as every known peer does: two spellings are two names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let refuse = |why, section| Err(Malformed::new("iSCSI name", why, section));
        if text.is_empty() || text.len() > NAME_BYTES_MAX {
            return refuse("not 1 to 223 bytes long", "RFC 7143 4.2.7.2");
        }
        let name = text.to_ascii_lowercase();
        let Some((kind, rest)) = name.split_once('.') else {
            return refuse("no type before a dot", "RFC 7143 4.2.7.3");
        };
        match kind {
            "iqn" if !iqn_is_sound(rest) => {
                refuse("not yyyy-mm, a naming authority and a name", "RFC 7143 4.2.7.4")
            }
            "eui" if !is_hex(rest, &[16]) => {
                refuse("not 16 hexadecimal digits", "RFC 7143 4.2.7.5")
            }
            "naa" if !is_hex(rest, &[16, 32]) => {
                refuse("not 16 or 32 hexadecimal digits", "RFC 7143 4.2.7.6")
            }
            "iqn" | "eui" | "naa" => Ok(Self(name.into())),
            _ => refuse("neither iqn., eui. nor naa.", "RFC 7143 4.2.7.3"),
        }
    }
}

/// `yyyy-mm.reversed.domain[:anything]` without spaces, controls or unfit punctuation.
fn iqn_is_sound(rest: &str) -> bool {
    let bytes = rest.as_bytes();
    let dated = bytes.len() > 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && matches!(&bytes[5..7], [b'0', b'1'..=b'9'] | [b'1', b'0'..=b'2'])
        && bytes[7] == b'.';
    dated
        && bytes[8] != b':'
        && rest.chars().all(|c| match c {
            '-' | '.' | ':' | 'a'..='z' | '0'..='9' => true,
            // Not allowed by RFC 3722, yet common in the field and harmless as text.
            '_' => true,
            c => !c.is_ascii() && !c.is_control() && !c.is_whitespace(),
        })
}

fn is_hex(digits: &str, lengths: &[usize]) -> bool {
    lengths.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_known_peers_are_taken() {
        for name in [
            "iqn.1994-05.com.redhat:1a2b3c",
            "iqn.1991-05.com.microsoft:host.example.org",
            "iqn.1998-01.com.vmware:esx1-0a1b2c3d",
            "iqn.2008-11.org.linux-kvm",
            "iqn.2002-10.com.libiscsi:client",
            "iqn.2026-11.org.example:md_3",
            "eui.02004567a425678d",
            "naa.52004567ba64678d",
            "naa.62004567ba64678d0123456789abcdef",
        ] {
            assert_eq!(name.parse::<Name>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn case_is_folded() {
        let name: Name = "IQN.2026-11.org.Example:MD3".parse().unwrap();
        assert_eq!(name.as_str(), "iqn.2026-11.org.example:md3");
        assert_eq!("EUI.02004567A425678D".parse::<Name>().unwrap().as_str().len(), 20);
    }

    #[test]
    fn unsound_names_are_refused() {
        let long = format!("iqn.2026-11.org.example:{}", "x".repeat(200));
        for name in [
            "",
            "iqn",
            "iqn.",
            "iqn.2026-11",
            "iqn.2026-11.",
            "iqn.2026-11.:x",
            "iqn.2026-13.org.example",
            "iqn.2026-00.org.example",
            "iqn.26-11.org.example",
            "iqn.2026-11.org.example:a b",
            "iqn.2026-11.org.example:a,b",
            "iqn.2026-11.org.example:a\u{a0}b",
            "iqn.2026-11.org.example/x",
            "eui.02004567a425678",
            "eui.02004567a425678g",
            "naa.123",
            "wwn.52004567ba64678d",
            &long,
        ] {
            assert!(name.parse::<Name>().is_err(), "{name:?}");
        }
    }
}
