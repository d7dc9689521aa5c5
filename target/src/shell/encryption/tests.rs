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

/// An export that begins within its store, as a partition does, has its header there.
#[test]
fn an_export_with_an_offset_has_its_header_there_and_touches_nothing_before() {
    let (_dir, path) = image(4 * MIB);
    let mut bytes = read(&path).unwrap();
    bytes[..MIB].fill(0xab);
    write(&path, &bytes).unwrap();
    let mut export = export(&path, 'a');
    export.offset = MIB as u64;
    let first = open(&export, false).unwrap().unwrap();
    let keyed = read(&path).unwrap();
    assert_eq!(keyed[..MIB], bytes[..MIB]);
    assert!(keyed[MIB..MIB + SLOT_BYTES].iter().any(|byte| *byte != 0));
    assert_eq!(sample(&open(&export, false).unwrap().unwrap()), sample(&first));
    // A key change that was cut off is made good there, too.
    let next = first.successor(&mut |bytes| bytes.fill(6));
    let (new, stale) = next.places();
    let store = OpenOptions::new().write(true).open(&path).unwrap();
    replace(&store, MIB as u64 + new, &next.slot).unwrap();
    open(&export, false).unwrap().unwrap();
    let mended = read(&path).unwrap();
    assert_eq!(mended[..MIB], bytes[..MIB]);
    let stale = MIB + usize::try_from(stale).unwrap();
    assert!(mended[stale..stale + SLOT_BYTES].iter().all(|byte| *byte == 0));
    let after = open(&export, false).unwrap().unwrap();
    assert_ne!(sample(&after), sample(&first));
}

#[test]
fn something_behind_the_offset_is_no_empty_store() {
    let (_dir, path) = image(4 * MIB);
    let mut bytes = read(&path).unwrap();
    bytes[MIB + 70_000] = 1;
    write(&path, &bytes).unwrap();
    let mut export = export(&path, 'a');
    export.offset = MIB as u64;
    assert!(open(&export, false).unwrap_err().contains("no key of ours"));
    assert_eq!(read(&path).unwrap(), bytes);
}

#[test]
fn an_export_that_is_read_only_itself_gets_no_key_and_keeps_an_older_one() {
    let (_dir, path) = image(2 * MIB);
    let mut locked = export(&path, 'a');
    locked.read_only = true;
    assert!(open(&locked, false).unwrap_err().contains("read-only"));
    let old = open(&export(&path, 'a'), false).unwrap().unwrap();
    let next = old.successor(&mut |bytes| bytes.fill(6));
    let store = OpenOptions::new().write(true).open(&path).unwrap();
    replace(&store, next.places().0, &next.slot).unwrap();
    let before = read(&path).unwrap();
    open(&locked, false).unwrap().unwrap();
    assert_eq!(read(&path).unwrap(), before);
}
