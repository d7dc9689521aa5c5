//! Sizes, times, networks and socket addresses as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use corbel_daemon::config::Wrong;
use corbel_proto::isns;

/// The port registered for iSCSI (RFC 7143 3.1).
pub const ISCSI_PORT: u16 = 3260;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = Wrong;

    /// `4096`, `512MiB`, `1G`: K, M, G, T, P (with or without `iB`) are powers of 1024; `kB`,
    /// `MB` and so on are powers of 1000. `s` counts sectors of 512 bytes.
    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(
                format!("`{text}` is no size"),
                "a size is a number and a unit, such as `1G`, `512MiB` or `4096`",
            )
        };
        let (number, unit) = split_number(text).ok_or_else(wrong)?;
        let unit = unit.to_ascii_lowercase();
        let factor = match unit.as_str() {
            "" | "b" => 1,
            "s" => 512,
            other => {
                let mut letters = other.chars();
                let power = letters
                    .next()
                    .and_then(|letter| "kmgtp".find(letter))
                    .and_then(|index| u32::try_from(index + 1).ok())
                    .ok_or_else(wrong)?;
                match letters.as_str() {
                    "" | "ib" => 1024_u64.pow(power),
                    "b" => 1000_u64.pow(power),
                    _ => return Err(wrong()),
                }
            }
        };
        number
            .checked_mul(factor)
            .map(Self)
            .ok_or_else(|| Wrong::new(format!("`{text}` is too large"), "sizes end at 16 EiB"))
    }
}

impl fmt::Display for Size {
    /// In the largest unit that tells it exactly enough: `1 GiB`, `1.5 GiB`, `512 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut unit = 0;
        while unit + 1 < UNITS.len() && self.0 >= 1 << (10 * (unit + 1)) {
            unit += 1;
        }
        let whole = self.0 >> (10 * unit);
        let tenth = ((self.0 - (whole << (10 * unit))) as f64 / (1_u64 << (10 * unit)) as f64
            * 10.0)
            .floor();
        if tenth == 0.0 {
            write!(f, "{whole} {}", UNITS[unit])
        } else {
            write!(f, "{whole}.{tenth} {}", UNITS[unit])
        }
    }
}

/// How long to look before sleeping: 0 to [`BUSY_POLL_MAX`](super::BUSY_POLL_MAX).
pub fn busy_poll(text: &str) -> Result<Duration, Wrong> {
    let time = if text == "0" { Duration::ZERO } else { duration(text)? };
    if time > super::BUSY_POLL_MAX {
        return Err(Wrong::new(format!("`{text}` is out of range"), "give 0 to 1ms: `50us`"));
    }
    Ok(time)
}

/// Silence on a connection: 1s to 1h.
pub fn ping_time(text: &str) -> Result<Duration, Wrong> {
    let time = duration(text)?;
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&time) {
        return Err(Wrong::new(format!("`{text}` is out of range"), "give 1s to 1h"));
    }
    Ok(time)
}

/// A time: `50us`, `500ms`, `15s`, `2m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = || {
        Wrong::new(
            format!("`{text}` is no time"),
            "a time is a number and us, ms, s, m or h: `15s`",
        )
    };
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let factor = match unit {
        "us" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).map(Duration::from_micros).ok_or_else(wrong)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim_start()))
}

/// The addresses of a network: `10.0.0.0/24`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Any address in it.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits its addresses share.
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// True if `address` lies in it. An IPv4 address inside IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.bits);
                (mine.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.bits);
                (mine.to_bits() ^ other.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str| {
            Wrong::new(format!("`{text}` is no network: {why}"), "write it as 10.0.0.0/24")
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong("no IP address"))?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => widest,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= widest)
                .ok_or_else(|| wrong(&format!("the prefix has 0 to {widest} bits")))?,
        };
        let network = Self { address, bits };
        let host_bits_clear = match address {
            IpAddr::V4(v4) => {
                v4.to_bits() & u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0) == 0
            }
            IpAddr::V6(v6) => {
                v6.to_bits() & u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0) == 0
            }
        };
        if !host_bits_clear {
            return Err(wrong("bits are set beyond its prefix"));
        }
        Ok(network)
    }
}

/// Where to listen for iSCSI: `10.0.0.1`, `10.0.0.1:3260`, `fd00::1`, `[fd00::1]:3260`.
pub fn portal(text: &str) -> Result<SocketAddr, Wrong> {
    endpoint(text, ISCSI_PORT).ok_or_else(|| {
        Wrong::new(
            format!("`{text}` is no portal"),
            "a portal is an address and a port: `10.0.0.1:3260` or `[fd00::1]:3260`",
        )
    })
}

/// An iSNS server: as a portal, at another port.
pub fn isns_server(text: &str) -> Result<SocketAddr, Wrong> {
    endpoint(text, isns::message::PORT).ok_or_else(|| {
        Wrong::new(
            format!("`{text}` is no iSNS server"),
            "give an address and a port: `10.0.0.9:3205` or `[fd00::9]:3205`",
        )
    })
}

fn endpoint(text: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}

/// Where a target listens of which nothing else is said: this machine only.
pub fn default_portal() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ISCSI_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1G", 1 << 30),
            ("512MiB", 512 << 20),
            ("1 GiB", 1 << 30),
            ("1kB", 1000),
            ("2t", 2 << 40),
            ("8s", 4096),
            ("3GB", 3_000_000_000),
            ("16383P", 16383 << 50),
            ("1pb", 1_000_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for bad in ["", "G", "1X", "-1", "1.5G", "1Gi", "99999999999999999999", "16777216T"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        assert_eq!(Size(1 << 30).to_string(), "1 GiB");
        assert_eq!(Size(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(Size(511).to_string(), "511 B");
        assert_eq!(Size(u64::MAX).to_string(), "16383.9 PiB");
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("15").is_err());
        assert_eq!(busy_poll("80us"), Ok(Duration::from_micros(80)));
        assert_eq!(busy_poll("0"), Ok(Duration::ZERO));
        assert!(busy_poll("2ms").is_err() && busy_poll("50").is_err());
        assert!(duration("99999999999999999h").is_err());
        for (text, seconds) in [("1s", 1), ("1m", 60), ("2min", 120), ("1h", 3600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn times_with_limits_are_taken_up_to_them() {
        assert_eq!(busy_poll("1ms"), Ok(Duration::from_millis(1)));
        assert!(busy_poll("1001us").is_err());
        assert_eq!(ping_time("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(ping_time("1h"), Ok(Duration::from_secs(3600)));
        assert!(ping_time("999ms").is_err() && ping_time("3601s").is_err());
    }

    #[test]
    fn networks_hold_their_addresses_only() {
        let net: Network = "10.0.0.0/24".parse().unwrap();
        assert!(net.contains("10.0.0.255".parse().unwrap()));
        assert!(net.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!net.contains("10.0.1.0".parse().unwrap()));
        let any: Network = "::/0".parse().unwrap();
        assert!(any.contains("fd00::1".parse().unwrap()));
        assert!(!any.contains("10.0.0.1".parse().unwrap()));
        let one: Network = "fd00::1".parse().unwrap();
        assert!(!one.contains("fd00::2".parse().unwrap()));
        for bad in ["10.0.0.1/24", "10.0.0.0/33", "x", "10.0.0.0/"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn isns_servers_have_a_default_port() {
        assert_eq!(isns_server("10.0.0.9").unwrap().to_string(), "10.0.0.9:3205");
        assert_eq!(isns_server("[fd00::9]:1").unwrap().to_string(), "[fd00::9]:1");
        assert!(isns_server("isns.example.org").is_err());
    }

    #[test]
    fn portals_have_a_default_port() {
        assert_eq!(portal("10.0.0.1").unwrap().to_string(), "10.0.0.1:3260");
        assert_eq!(portal("fd00::1").unwrap().to_string(), "[fd00::1]:3260");
        assert_eq!(portal("[::]:1").unwrap().to_string(), "[::]:1");
        assert!(portal("eth0").is_err());
    }
}
