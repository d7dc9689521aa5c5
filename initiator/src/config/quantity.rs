//! Times and addresses as people write them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use corbel_daemon::config::Wrong;

/// The port registered for iSCSI (RFC 7143 3.1).
pub const ISCSI_PORT: u16 = 3260;

/// The longest time that may be given: ten years. Sums of such times never overflow.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A time: `500ms`, `15s`, `2m`, `1h`; a number alone is seconds, as in multipath.conf.
pub fn duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = |why: &str| {
        let right = "a time is a number and ms, s, m or h: `15s`; a number alone is seconds";
        Wrong::new(format!("`{text}` is {why}"), right)
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong("no time"))?;
    let factor = match unit.trim_start() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong("no time")),
    };
    let time = number.checked_mul(factor).map(Duration::from_millis);
    time.filter(|time| *time <= TIME_MAX).ok_or_else(|| wrong("too long a time"))
}

/// A time in the largest unit that tells it exactly: `80s`, `2m`, `1500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            0 => f.write_str("0s"),
            ms if ms % 3_600_000 == 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

/// Where a target listens: `10.0.0.1`, `10.0.0.1:3260`, `fd00::1`, `[fd00::1]`, `[fd00::1]:3260`.
pub fn portal(text: &str) -> Result<SocketAddr, Wrong> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => Some(address),
        Err(_) => {
            let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
            bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, ISCSI_PORT))
        }
    };
    let usable = address.filter(|a| a.port() != 0 && !a.ip().is_unspecified());
    usable.ok_or_else(|| {
        Wrong::new(
            format!("`{text}` is no portal"),
            "a portal is an IP address and a port: `10.0.0.1:3260` or `[fd00::1]:3260`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_a_bare_number_is_seconds() {
        for (text, millis) in
            [("500ms", 500), ("2m", 120_000), ("15", 15_000), ("15 s", 15_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "s", "-1", "1.5s", "1d", "99999999999999999h", "88000h", "5 5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_shown_as_they_can_be_read_again() {
        for text in ["0s", "80s", "2m", "1500ms", "3h"] {
            assert_eq!(Time(duration(text).unwrap()).to_string(), text);
        }
    }

    #[test]
    fn portals_have_a_default_port() {
        assert_eq!(portal("10.0.0.1").unwrap().to_string(), "10.0.0.1:3260");
        assert_eq!(portal("fd00::1").unwrap().to_string(), "[fd00::1]:3260");
        assert_eq!(portal("[fd00::1]").unwrap().to_string(), "[fd00::1]:3260");
        assert_eq!(portal("[::1]:1").unwrap().to_string(), "[::1]:1");
        for bad in ["", "eth0", "0.0.0.0:3260", "[::]:1", "10.0.0.1:0", "host.example:3260"] {
            assert!(portal(bad).is_err(), "{bad}");
        }
    }
}
