//! A path as people write it.

use std::fmt;
use std::net::SocketAddr;

use corbel_proto::iscsi::name::Name;

use super::quantity::portal;
use corbel_daemon::config::Wrong;

/// The largest logical unit number of a single-level address (SAM-5 4.7.7.3).
pub const LUN_MAX: u16 = 16383;

/// One way to a device: one interface, or one portal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathSpec {
    /// `aoe:SHELF.SLOT@IFACE`
    Aoe {
        /// Major address, 0 to 65534.
        shelf: u16,
        /// Minor address, 0 to 254.
        slot: u8,
        /// The interface it is reached over.
        interface: String,
    },
    /// `iscsi:IQN/LUN@ADDR:PORT`
    Iscsi {
        /// The target's name.
        target: Name,
        /// Logical unit number, 0 to [`LUN_MAX`].
        lun: u16,
        /// Where the target listens.
        portal: SocketAddr,
    },
}

impl PathSpec {
    /// `aoe:SHELF.SLOT@IFACE[,IFACE…]` or `iscsi:IQN[/LUN]@ADDR:PORT[,ADDR:PORT…]`: a path for each
    /// interface or portal, in this order; none twice.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Wrong> {
        let paths = if let Some(rest) = text.strip_prefix("aoe:") {
            aoe(text, rest)?
        } else if let Some(rest) = text.strip_prefix("iscsi:") {
            iscsi(text, rest)?
        } else {
            return Err(Wrong::new(
                format!("`{text}` is no path"),
                "a path begins with `aoe:` or `iscsi:`, such as `aoe:0.1@eth1` or \
                 `iscsi:iqn.2026-11.org.example:disk/0@10.0.0.1:3260`",
            ));
        };
        for (index, path) in paths.iter().enumerate() {
            if paths[..index].contains(path) {
                let what = format!("`{text}` names {path} twice");
                return Err(Wrong::new(what, "name it once"));
            }
        }
        Ok(paths)
    }

    /// As [`Self::parse_all`], for text that means one path only.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let mut paths = Self::parse_all(text)?;
        match (paths.pop(), paths.is_empty()) {
            (Some(path), true) => Ok(path),
            _ => Err(Wrong::new(format!("`{text}` is several paths"), "name one of them")),
        }
    }

    /// The interface of an AoE path.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::Aoe { interface, .. } => Some(interface),
            Self::Iscsi { .. } => None,
        }
    }
}

/// The name by which status and commands call it: every part is there.
impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aoe { shelf, slot, interface } => write!(f, "aoe:{shelf}.{slot}@{interface}"),
            Self::Iscsi { target, lun, portal } => write!(f, "iscsi:{target}/{lun}@{portal}"),
        }
    }
}

fn aoe(text: &str, rest: &str) -> Result<Vec<PathSpec>, Wrong> {
    let wrong = |why: &str| {
        let right = "write it as `aoe:0.1@eth1`, or `aoe:0.1@eth1,eth2`";
        Wrong::new(format!("`{text}` is no AoE path: {why}"), right)
    };
    let (address, interfaces) =
        rest.split_once('@').ok_or_else(|| wrong("it names no interface"))?;
    let (shelf, slot) = address.split_once('.').ok_or_else(|| wrong("no dot after the shelf"))?;
    // AoE keeps shelf 65535 and slot 255 for broadcasts (AoE r11 2.2).
    let shelf = number(shelf).filter(|shelf| *shelf != u16::MAX);
    let shelf = shelf.ok_or_else(|| wrong("shelves are 0 to 65534"))?;
    let slot =
        number(slot).and_then(|slot| u8::try_from(slot).ok()).filter(|slot| *slot != u8::MAX);
    let slot = slot.ok_or_else(|| wrong("slots are 0 to 254"))?;
    interfaces
        .split(',')
        .map(|interface| {
            let shaped = (1..=15).contains(&interface.len())
                && !matches!(interface, "." | "..")
                && interface.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
            if !shaped {
                return Err(wrong("interface names have 1 to 15 characters; `ip link` lists them"));
            }
            Ok(PathSpec::Aoe { shelf, slot, interface: interface.to_owned() })
        })
        .collect()
}

fn iscsi(text: &str, rest: &str) -> Result<Vec<PathSpec>, Wrong> {
    let wrong = |why: &str| {
        let right = "write it as `iscsi:iqn.2026-11.org.example:disk/0@10.0.0.1:3260`";
        Wrong::new(format!("`{text}` is no iSCSI path: {why}"), right)
    };
    let (unit, portals) = rest.split_once('@').ok_or_else(|| wrong("it names no portal"))?;
    let (target, lun) = match unit.split_once('/') {
        Some((target, lun)) => {
            let lun = number(lun).filter(|lun| *lun <= LUN_MAX);
            (target, lun.ok_or_else(|| wrong("LUNs are 0 to 16383"))?)
        }
        None => (unit, 0),
    };
    let target: Name =
        target.parse().map_err(|error| wrong(&format!("the target's name is wrong: {error}")))?;
    portals
        .split(',')
        .map(|text| Ok(PathSpec::Iscsi { target: target.clone(), lun, portal: portal(text)? }))
        .collect()
}

/// Digits alone: no sign, no blanks.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        PathSpec::parse_all(text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_aoe_path_is_one_for_each_interface() {
        assert_eq!(shown("aoe:0.0@eth1"), ["aoe:0.0@eth1"]);
        assert_eq!(
            shown("aoe:65534.254@eth1,bond0.7"),
            ["aoe:65534.254@eth1", "aoe:65534.254@bond0.7"]
        );
    }

    #[test]
    fn an_iscsi_path_has_lun_0_and_port_3260_unless_it_says_otherwise() {
        let name = "iqn.2026-11.org.example:md3";
        assert_eq!(
            shown(&format!("iscsi:{name}@10.0.0.1")),
            [format!("iscsi:{name}/0@10.0.0.1:3260")]
        );
        assert_eq!(
            shown(&format!("iscsi:{name}/7@[fd00::1]:3261,10.0.0.2,fd00::3")),
            [
                format!("iscsi:{name}/7@[fd00::1]:3261"),
                format!("iscsi:{name}/7@10.0.0.2:3260"),
                format!("iscsi:{name}/7@[fd00::3]:3260"),
            ]
        );
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_cure() {
        for bad in [
            "",
            "eth1",
            "/dev/sda",
            "aoe:",
            "aoe:0.0",
            "aoe:0@eth1",
            "aoe:65535.0@eth1",
            "aoe:0.255@eth1",
            "aoe:+0.1@eth1",
            "aoe:0.1@",
            "aoe:0.1@eth1,",
            "aoe:0.1@eth1,eth1",
            "aoe:0.1@eth/1",
            "iscsi:disk@10.0.0.1",
            "iscsi:iqn.2026-11.org.example:a",
            "iscsi:iqn.2026-11.org.example:a@",
            "iscsi:iqn.2026-11.org.example:a/x@10.0.0.1",
            "iscsi:iqn.2026-11.org.example:a/16384@10.0.0.1",
            "iscsi:iqn.2026-11.org.example:a@10.0.0.1,10.0.0.1:3260",
        ] {
            let wrong = PathSpec::parse_all(bad).expect_err(bad);
            assert!(!wrong.right.is_empty(), "{bad}");
        }
        assert!(PathSpec::parse("aoe:0.1@eth1,eth2").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,60}") {
            for text in [text.clone(), format!("aoe:{text}"), format!("iscsi:{text}")] {
                if let Ok(paths) = PathSpec::parse_all(&text) {
                    for path in paths {
                        prop_assert_eq!(PathSpec::parse(&path.to_string()), Ok(path));
                    }
                }
            }
        }
    }
}
