//! CHAP secrets and keys: read from files that others cannot read, never shown.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

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
        Self::from_bytes(&contents(path)?)
            .map_err(|error| Wrong::new(format!("{shown}: {}", error.what), error.right))
    }
}

/// No secret is longer. What is read has room for all of it at once, and so leaves no copies.
const FILE_BYTES_MAX: usize = 512;

/// What stands in a file that others cannot read.
fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, Wrong> {
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
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
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

/// A key of 256 bits. Wiped when dropped, and its `Debug` shows nothing.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl SecretKey {
    /// The bytes, for the cipher only.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes a key as it stands in a file: 64 hex digits on a line.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::new(
                "it does not hold 64 hex digits on one line",
                "make a key: (umask 077; openssl rand -hex 32 > FILE)",
            )
        };
        let digits = bytes.trim_ascii_end();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut key = Zeroizing::new([0; 32]);
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            let (high, low) = digit(0).zip(digit(1)).ok_or_else(wrong)?;
            *byte = u8::try_from(high << 4 | low).map_err(|_| wrong())?;
        }
        Ok(Self(key))
    }

    /// Reads the key in `path`, which nobody but its owner and group may be able to read.
    pub fn read(path: &Path) -> Result<Self, Wrong> {
        let shown = path.display();
        Self::from_bytes(&contents(path)?)
            .map_err(|error| Wrong::new(format!("{shown}: {}", error.what), error.right))
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.0.ct_eq(&other.0[..]))
    }
}

impl Eq for SecretKey {}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(not shown)")
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

    #[test]
    fn keys_have_64_hex_digits_and_are_never_shown() {
        let text = "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddee0f";
        let key = SecretKey::from_bytes(format!("{text}\n").as_bytes()).unwrap();
        assert_eq!((key.bytes()[1], key.bytes()[10], key.bytes()[31]), (0x11, 0xaa, 0x0f));
        assert_eq!(format!("{key:?}"), "SecretKey(not shown)");
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('8', "g"), "\u{e9}"] {
            let error = SecretKey::from_bytes(wrong.as_bytes()).unwrap_err();
            assert!(!error.what.contains("2233"), "{}", error.what);
        }
    }

    #[test]
    fn a_key_file_that_everyone_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        write(&path, "5a".repeat(32)).unwrap();
        set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        assert!(SecretKey::read(&path).unwrap_err().right.starts_with("say: chmod"));
        set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(SecretKey::read(&path).unwrap().bytes(), &[0x5a; 32]);
    }
}
