//! Names: of iSCSI nodes, of exports, of network interfaces; AoE addresses; MAC addresses.

use std::fmt;
use std::str::FromStr;

use corbel_daemon::config::Wrong;

/// An iSCSI node name in its normal form (RFC 7143 4.2.7): `iqn.`, `eui.` or `naa.`, lower case,
/// at most 223 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IscsiName(String);

impl IscsiName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that `export` gives a device of which nothing else is known.
    pub fn made_from(host: &str, device: &str) -> Self {
        let clean = |text: &str| -> String {
            let mut out: String = text
                .to_ascii_lowercase()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
                .take(96)
                .collect();
            if out.trim_matches(['-', '.']).is_empty() {
                out = "disk".to_owned();
            }
            out.trim_matches(['-', '.']).to_owned()
        };
        let host = clean(host);
        let mut labels: Vec<&str> = host.split('.').filter(|l| !l.is_empty()).rev().collect();
        if labels.len() < 2 {
            labels.insert(0, "internal");
        }
        Self(format!("iqn.2026-11.{}:{}", labels.join("."), clean(device)))
    }
}

impl fmt::Display for IscsiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IscsiName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let right = "an iSCSI name looks like \"iqn.2026-11.org.example:disk1\", \
                     \"eui.0123456789abcdef\" or \"naa.\" with 16 or 32 hex digits";
        let wrong = |why: &str| Wrong::new(format!("`{text}` is no iSCSI name: {why}"), right);
        if text.len() > 223 {
            return Err(wrong("it is longer than 223 bytes"));
        }
        let name = text.to_ascii_lowercase();
        let is_hex = |s: &str| s.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(rest) = name.strip_prefix("eui.") {
            if rest.len() != 16 || !is_hex(rest) {
                return Err(wrong("`eui.` is followed by 16 hex digits"));
            }
        } else if let Some(rest) = name.strip_prefix("naa.") {
            if !matches!(rest.len(), 16 | 32) || !is_hex(rest) {
                return Err(wrong("`naa.` is followed by 16 or 32 hex digits"));
            }
        } else if let Some(rest) = name.strip_prefix("iqn.") {
            if let Some(bad) = rest
                .chars()
                .find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && !"-.:".contains(*c))
            {
                return Err(wrong(&format!("{bad:?} may not stand in it")));
            }
            iqn_authority(rest).map_err(wrong)?;
        } else {
            return Err(wrong("it begins with none of `iqn.`, `eui.`, `naa.`"));
        }
        Ok(Self(name))
    }
}

/// `YYYY-MM.reversed.domain[:anything]`
fn iqn_authority(rest: &str) -> Result<(), &'static str> {
    let authority = rest.split(':').next().unwrap_or(rest);
    let (date, domain) = authority.split_once('.').ok_or("no domain follows the date")?;
    let bytes = date.as_bytes();
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    let month_ok = bytes.len() == 7
        && bytes[4] == b'-'
        && digits(&bytes[..4])
        && digits(&bytes[5..])
        && ("01"..="12").contains(&&date[5..]);
    if !month_ok {
        return Err("`iqn.` is followed by a year and month such as 2026-11");
    }
    if domain.is_empty() || domain.split('.').any(str::is_empty) {
        return Err("the domain after the date has an empty part");
    }
    Ok(())
}

/// Which initiators: one name, or every name that begins so (`iqn.2026-11.org.example:*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InitiatorPattern {
    /// This one.
    Exactly(IscsiName),
    /// All that begin with this, in lower case.
    Prefix(String),
}

impl InitiatorPattern {
    /// True if `initiator` is meant. Names compare without regard to case.
    pub fn matches(&self, initiator: &str) -> bool {
        let initiator = initiator.to_ascii_lowercase();
        match self {
            Self::Exactly(name) => name.as_str() == initiator,
            Self::Prefix(prefix) => initiator.starts_with(prefix.as_str()),
        }
    }
}

impl FromStr for InitiatorPattern {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let Some(prefix) = text.strip_suffix('*') else {
            return Ok(Self::Exactly(text.parse()?));
        };
        let prefix = prefix.to_ascii_lowercase();
        let named = ["iqn.", "eui.", "naa."].iter().any(|kind| prefix.starts_with(kind));
        if !named || prefix.contains('*') {
            return Err(Wrong::new(
                format!("`{text}` is no pattern of initiator names"),
                "give a whole name, or the head of one and a `*` at its end",
            ));
        }
        Ok(Self::Prefix(prefix))
    }
}

/// An AoE address. Linux refuses shelves 4095 and 65535 and slot 255; AoE itself keeps 65535 and
/// 255 for broadcasts (AoE r11 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AoeAddress {
    /// Major address, 0 to 65534.
    shelf: u16,
    /// Minor address, 0 to 254.
    slot: u8,
}

impl AoeAddress {
    /// The address, if it is none of the broadcast ones.
    pub fn new(shelf: i64, slot: i64) -> Result<Self, Wrong> {
        let shelf = u16::try_from(shelf).ok().filter(|s| *s != u16::MAX).ok_or_else(|| {
            Wrong::new(format!("there is no shelf {shelf}"), "shelves are 0 to 65534")
        })?;
        let slot = u8::try_from(slot)
            .ok()
            .filter(|s| *s != u8::MAX)
            .ok_or_else(|| Wrong::new(format!("there is no slot {slot}"), "slots are 0 to 254"))?;
        Ok(Self { shelf, slot })
    }

    /// Major address, 0 to 65534.
    pub fn shelf(self) -> u16 {
        self.shelf
    }

    /// Minor address, 0 to 254.
    pub fn slot(self) -> u8 {
        self.slot
    }
}

impl fmt::Display for AoeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shelf, self.slot)
    }
}

/// A network interface's name, as Linux allows it: 1 to 15 bytes, no `/`, no blanks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let shaped = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if !shaped {
            return Err(Wrong::new(
                format!("`{text}` is no interface name"),
                "interface names have 1 to 15 characters, such as `eth1`; `ip link` lists them",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A station's Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Wrong;

    /// With or without colons (or dashes), upper or lower case, as vblade takes them.
    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(
                format!("`{text}` is no MAC address of one station"),
                "write it as 00:16:3e:12:34:56",
            )
        };
        let digits: String = match text.len() {
            12 => text.to_owned(),
            17 if [b':', b'-'].contains(&text.as_bytes()[2]) => {
                let separator = char::from(text.as_bytes()[2]);
                let parts: Vec<&str> = text.split(separator).collect();
                if parts.len() != 6 || parts.iter().any(|part| part.len() != 2) {
                    return Err(wrong());
                }
                parts.concat()
            }
            _ => return Err(wrong()),
        };
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let number = u64::from_str_radix(&digits, 16).map_err(|_| wrong())?;
        let [_, _, octets @ ..] = number.to_be_bytes();
        // The lowest bit of the first octet marks a group address: no frame comes from one.
        if octets[0] & 1 == 1 || octets == [0; 6] {
            return Err(wrong());
        }
        Ok(Self(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iscsi_names_are_normalised_and_judged() {
        let name: IscsiName = "IQN.2026-11.Org.Example:Disk".parse().unwrap();
        assert_eq!(name.as_str(), "iqn.2026-11.org.example:disk");
        for good in ["iqn.2026-11.org", "eui.0123456789abcdef", "naa.0123456789ABCDEF"] {
            assert!(good.parse::<IscsiName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "iqn.",
            "iqn.2026-13.org.example",
            "iqn.202-11.org",
            "iqn.2026-11.",
            "disk",
            "iqn.2026-11.org.example:a b",
            "iqn.2026-11.org_x",
            "eui.12",
            "naa.xyz",
            "iqn.2026-11..org",
            "iqn.2026-11.org.exämple",
        ] {
            assert!(bad.parse::<IscsiName>().is_err(), "{bad}");
        }
        assert!(format!("iqn.2026-11.org:{}", "a".repeat(300)).parse::<IscsiName>().is_err());
    }

    #[test]
    fn made_names_are_good_names() {
        for (host, file) in
            [("node1", "demo.img"), ("a.example.org", "md3"), ("", "…"), ("-x_", "A B"), ("é", "")]
        {
            let made = IscsiName::made_from(host, file);
            assert_eq!(made.as_str().parse::<IscsiName>().as_ref(), Ok(&made), "{host} {file}");
        }
        assert_eq!(
            IscsiName::made_from("a.example.org", "md3").as_str(),
            "iqn.2026-11.org.example.a:md3"
        );
    }

    #[test]
    fn broadcast_addresses_cannot_be_exported() {
        assert!(AoeAddress::new(65535, 0).is_err());
        assert!(AoeAddress::new(0, 255).is_err());
        assert!(AoeAddress::new(-1, 0).is_err());
        assert_eq!(AoeAddress::new(65534, 254).unwrap().to_string(), "65534.254");
    }

    #[test]
    fn macs_are_read_as_vblade_reads_them() {
        let mac = Mac([0, 0x16, 0x3e, 0xaa, 0xbb, 0xcc]);
        for text in ["00:16:3e:aa:bb:cc", "00163EAABBCC", "00-16-3E-AA-BB-CC"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        for bad in [
            "",
            "00:16:3e:aa:bb",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:16-3e:aa:bb:cc",
            "+0163eaabbcc",
            "ü0:16:3e:aa:bb:c",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_match_without_regard_to_case() {
        let all: InitiatorPattern = "iqn.2026-11.org.example:*".parse().unwrap();
        assert!(all.matches("IQN.2026-11.org.example:dom0"));
        assert!(!all.matches("iqn.2026-11.org.other:dom0"));
        assert!("*".parse::<InitiatorPattern>().is_err());
    }
}
