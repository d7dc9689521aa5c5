//! The keys of encrypted exports: read from their stores when they are opened, or made.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::config::{Backing, Export, SecretKey};
use crate::volume::cipher::{Cipher, HEADER_BYTES, Refusal, SLOT_BYTES, WrappingKey, slot_offset};

/// The keys of `export`, if it is to be encrypted. A store whose first MiB is empty gets a header;
/// one that holds anything else is not touched.
pub(super) fn open(export: &Export, read_only: bool) -> Result<Option<Cipher>, String> {
    let Some(key) = &export.encryption else { return Ok(None) };
    let path = match &export.backing {
        Backing::Path(path) => path,
        // It dies with the process, and so does its key.
        Backing::Memory(_) | Backing::Null(_) => return Ok(Some(fresh(key).0)),
    };
    let read_only = read_only || export.read_only;
    let wrong = |error: io::Error| format!("{}: its header: {error}", path.display());
    let store = OpenOptions::new().read(true).write(!read_only).open(path).map_err(wrong)?;
    let slots = [0, 1].map(|number| slot(&store, export.offset + slot_offset(number)));
    let [even, odd] = slots;
    let (even, odd) = (even.map_err(wrong)?, odd.map_err(wrong)?);
    match Cipher::open(wrapping(key), [&even, &odd]) {
        Ok((cipher, stale)) => {
            if let (Some(place), false) = (stale, read_only) {
                let zeros = [0; SLOT_BYTES];
                replace(&store, export.offset + place, &zeros).map_err(wrong)?;
                tracing::warn!(export = export.name, "an older key was still there; it is wiped");
            }
            Ok(Some(cipher))
        }
        Err(Refusal::WrongKey) => Err(format!(
            "{} is encrypted under another key than that in `encryption.key_file`; without that \
             key nobody can read it",
            path.display()
        )),
        Err(Refusal::NoHeader) if !is_empty(&store, export.offset).map_err(wrong)? => {
            Err(holds_something(path))
        }
        Err(Refusal::NoHeader) if read_only => Err(format!(
            "{} has no key yet, and cannot be given one while it is read-only",
            path.display()
        )),
        Err(Refusal::NoHeader) => {
            let (cipher, slot) = fresh(key);
            replace(&store, export.offset, &slot).map_err(wrong)?;
            tracing::warn!(export = export.name, "it is empty: a key for it was made");
            Ok(Some(cipher))
        }
    }
}

fn holds_something(path: &Path) -> String {
    format!(
        "{} is to be encrypted, but its first MiB holds something that is no key of ours: data \
         that is not encrypted, or a damaged header. To encrypt a store that holds nothing of \
         worth, fill its first MiB with zeros",
        path.display()
    )
}

fn wrapping(key: &SecretKey) -> WrappingKey {
    WrappingKey::new(key.bytes())
}

fn fresh(key: &SecretKey) -> (Cipher, Vec<u8>) {
    // The kernel's generator answers without fail once the machine has booted.
    let mut random =
        |bytes: &mut [u8]| getrandom::fill(bytes).expect("the kernel gives random bytes");
    Cipher::fresh(wrapping(key), &mut random)
}

/// A slot of the header; short where the store ends.
fn slot(store: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SLOT_BYTES];
    let mut len = 0;
    while len < SLOT_BYTES {
        match store.read_at(&mut bytes[len..], offset + len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// True if nothing but zeros stands where the header is to be, and there is room for it.
fn is_empty(store: &File, offset: u64) -> io::Result<bool> {
    for at in (0..HEADER_BYTES).step_by(SLOT_BYTES) {
        let bytes = slot(store, offset + at)?;
        if bytes.len() < SLOT_BYTES {
            return Err(io::Error::other("the store is shorter than that"));
        }
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes a slot and makes it stable.
fn replace(store: &File, offset: u64, slot: &[u8]) -> io::Result<()> {
    store.write_all_at(slot, offset)?;
    store.sync_all()
}

#[cfg(test)]
mod tests;
