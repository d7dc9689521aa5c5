use std::fs::{read, write};

use super::*;
use crate::volume::cipher::xts::UNIT_BYTES;

fn key(digit: char) -> SecretKey {
    SecretKey::from_bytes(digit.to_string().repeat(64).as_bytes()).unwrap()
}

fn export(path: &Path, digit: char) -> Export {
    let mut export = Export::new("a".into(), Backing::Path(path.into()));
    export.encryption = Some(key(digit));
    export
}

fn sample(cipher: &Cipher) -> Vec<u8> {
    let mut unit = vec![0; UNIT_BYTES];
    cipher.keys().encrypt(&mut unit, 0);
    unit
}

fn image(bytes: usize) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    write(&path, vec![0; bytes]).unwrap();
    (dir, path)
}

const MIB: usize = 1 << 20;

#[test]
fn an_empty_store_gets_a_key_and_keeps_it() {
    let (_dir, path) = image(2 * MIB);
    let first = open(&export(&path, 'a'), false).unwrap().unwrap();
    let again = open(&export(&path, 'a'), true).unwrap().unwrap();
    assert_eq!(sample(&first), sample(&again));
    let other = image(2 * MIB);
    let other = open(&export(&other.1, 'a'), false).unwrap().unwrap();
    assert_ne!(sample(&first), sample(&other), "keys are random");
    assert!(read(&path).unwrap()[SLOT_BYTES..].iter().all(|byte| *byte == 0));
}

#[test]
fn another_key_file_is_refused_and_changes_nothing() {
    let (_dir, path) = image(2 * MIB);
    open(&export(&path, 'a'), false).unwrap();
    let before = read(&path).unwrap();
    let error = open(&export(&path, 'b'), false).unwrap_err();
    assert!(error.contains("another key"), "{error}");
    assert_eq!(read(&path).unwrap(), before);
}

#[test]
fn a_store_that_holds_something_else_is_refused_and_not_touched() {
    for at in [0, 4095, 70_000, MIB - 1] {
        let (_dir, path) = image(2 * MIB);
        let mut bytes = read(&path).unwrap();
        bytes[at] = 1;
        write(&path, &bytes).unwrap();
        let error = open(&export(&path, 'a'), false).unwrap_err();
        assert!(error.contains("no key of ours"), "{error}");
        assert_eq!(read(&path).unwrap(), bytes);
    }
    let (_dir, path) = image(MIB / 2);
    assert!(open(&export(&path, 'a'), false).unwrap_err().contains("shorter"));
    let (_dir, path) = image(2 * MIB);
    assert!(open(&export(&path, 'a'), true).unwrap_err().contains("read-only"));
}

#[test]
fn a_key_change_that_a_crash_cut_off_is_finished_when_the_store_is_opened() {
    let (_dir, path) = image(2 * MIB);
    let old = open(&export(&path, 'a'), false).unwrap().unwrap();
    let next = old.successor(&mut |bytes| bytes.fill(6));
    let (new, stale) = next.places();
    let store = OpenOptions::new().write(true).open(&path).unwrap();
    replace(&store, new, &next.slot).unwrap();
    // A reader opens it by the newer key, and leaves the rest to who may write.
    let by_reader = open(&export(&path, 'a'), true).unwrap().unwrap();
    assert_ne!(sample(&by_reader), sample(&old));
    assert!(read(&path).unwrap()[usize::try_from(stale).unwrap()] != 0);
    let by_writer = open(&export(&path, 'a'), false).unwrap().unwrap();
    assert_eq!(sample(&by_writer), sample(&by_reader));
    let stale = usize::try_from(stale).unwrap();
    assert!(read(&path).unwrap()[stale..stale + SLOT_BYTES].iter().all(|byte| *byte == 0));
}

#[test]
fn memory_has_a_key_of_its_own_and_what_is_not_to_be_encrypted_none() {
    let mut memory = Export::new("m".into(), Backing::Memory(1 << 22));
    assert!(open(&memory, false).unwrap().is_none());
    memory.encryption = Some(key('c'));
    assert!(open(&memory, false).unwrap().is_some());
}
