//! Where clients find an export: NBD URIs (the NBD project's "URI" document, uri.md).

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The port of NBD.
const PORT: u16 = 10809;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `unix:SOCKET`
    Unix(PathBuf),
    /// `ADDR:PORT`, or `ADDR` for port 10809; IPv6 addresses in brackets.
    Tcp(SocketAddr),
}

/// What is not a [`Place`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A socket needs a path from the root: clients run elsewhere.
    #[error("`unix:{0}` is no path from the root; write unix:/run/corbel/NAME.sock, for example")]
    NotAbsolute(String),
    /// Neither of both.
    #[error("`{0}` is neither unix:SOCKET nor ADDR:PORT; 127.0.0.1:10809, for example")]
    Neither(String),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(PlaceError::NotAbsolute(path.to_owned()));
            }
            return Ok(Self::Unix(path.into()));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        let parsed = text.parse().ok().or_else(|| Some(SocketAddr::new(bare.parse().ok()?, PORT)));
        parsed.map(Self::Tcp).ok_or_else(|| PlaceError::Neither(text.to_owned()))
    }
}

/// As it is written on the command line and in configurations.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// The URI of the export called `name`, for clients.
pub fn uri(place: &Place, name: &str) -> String {
    let name = escaped(name.as_bytes(), b"");
    match place {
        Place::Unix(path) => {
            let path = escaped(path.as_os_str().as_encoded_bytes(), b"/");
            format!("nbd+unix:///{name}?socket={path}")
        }
        Place::Tcp(address) => format!("nbd://{address}/{name}"),
    }
}

/// RFC 3986 2.1: everything but unreserved characters as %XX, except `plain`.
fn escaped(bytes: &[u8], plain: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if unreserved || plain.contains(&byte) {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_read_and_written_alike() {
        for text in ["unix:/run/corbel/a.sock", "127.0.0.1:10810", "[fd00::1]:10809"] {
            assert_eq!(place(text).to_string(), text);
        }
        assert_eq!(place("192.0.2.1").to_string(), "192.0.2.1:10809");
        assert_eq!(place("[fd00::1]"), place("fd00::1"));
    }

    #[test]
    fn what_is_no_place_is_refused_with_an_example() {
        for text in ["unix:a.sock", "", "localhost:10809", "1.2.3.4:x", "/run/a.sock"] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("example"), "{error}");
        }
    }

    #[test]
    fn uris_are_those_of_libnbd_and_qemu() {
        let unix = place("unix:/run/corbel/vm store.sock");
        let expected = "nbd+unix:///vmstore?socket=/run/corbel/vm%20store.sock";
        assert_eq!(uri(&unix, "vmstore"), expected);
        assert_eq!(uri(&place("[fd00::1]:10809"), "a/b"), "nbd://[fd00::1]:10809/a%2Fb");
    }
}
