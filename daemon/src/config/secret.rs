//! CHAP secrets: read from files that others cannot read, never shown.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use subtle::ConstantTimeEq;

use super::problem::Wrong;

/// A CHAP secret of 12 to 255 bytes (RFC 7143 9.2.1: at least 96 bits). Its `Debug` shows nothing.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, for the CHAP hash only.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes a secret as it stands in a file: one line, whose end is not part of it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Wrong> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let right = "a CHAP secret is one line of 12 to 255 bytes";
        if line.contains(&b'\n') {
            return Err(Wrong::new("the secret has more than one line", right));
        }
        if !(12..=255).contains(&line.len()) {
            return Err(Wrong::new(format!("the secret has {} bytes", line.len()), right));
        }
        Ok(Self(line.to_vec()))
    }

    /// Reads the secret in `path`, which nobody but its owner and group may be able to read.
    pub fn read(path: &Path) -> Result<Self, Wrong> {
        let shown = path.display();
        let wrong = |error: std::io::Error| {
            Wrong::new(
                format!("the secret file {shown} cannot be read: {error}"),
                "give a file that holds the secret, readable by the daemon",
            )
        };
        let file = File::open(path).map_err(wrong)?;
        let about = file.metadata().map_err(wrong)?;
        if !about.is_file() {
            return Err(Wrong::new(
                format!("the secret file {shown} is no regular file"),
                "give a regular file that holds the secret",
            ));
        }
        if about.mode() & 0o007 != 0 {
            return Err(Wrong::new(
                format!("everyone can reach the secret file {shown}"),
                format!("say: chmod o= {shown}"),
            ));
        }
        let mut bytes = Vec::new();
        file.take(512).read_to_end(&mut bytes).map_err(wrong)?;
        Self::from_bytes(&bytes)
            .map_err(|error| Wrong::new(format!("{shown}: {}", error.what), error.right))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.0.ct_eq(&other.0))
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_that_everyone_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        write(&path, "correct horse battery\n").unwrap();
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert!(Secret::read(&path).unwrap_err().right.starts_with("say: chmod"));
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Secret::read(&path).unwrap().bytes(), b"correct horse battery");
    }

    #[test]
    fn secrets_have_12_to_255_bytes_and_are_never_shown() {
        assert!(Secret::from_bytes(b"elevenbytes").is_err());
        assert!(Secret::from_bytes(&[b'x'; 256]).is_err());
        assert!(Secret::from_bytes(b"two lines of\nsecrets").is_err());
        let secret = Secret::from_bytes(b"twelve bytes\r\n").unwrap();
        assert_eq!(secret.bytes(), b"twelve bytes");
        assert!(!format!("{secret:?}").contains("twelve"));
    }
}
