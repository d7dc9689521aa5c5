//! Encrypted volumes: every kind of request sees what was written, and the store never does.

use super::*;
use crate::volume::cipher::{Cipher, HEADER_BYTES, Refusal, SLOT_BYTES, WrappingKey, slot_offset};
use crate::volume::sanitize::Purpose;

const HEADER: usize = 1 << 20;
const SIZE: usize = 1 << 20;

fn wrapping() -> WrappingKey {
    WrappingKey::new(&[9; 32])
}

/// A world whose disk has a header before the volume's first block.
pub(super) fn encrypted() -> (World, Engine<HeapBuffer>, Arc<Volume>) {
    let mut world = World::new();
    assert_eq!(HEADER_BYTES, HEADER as u64);
    world.disk = vec![0; HEADER + SIZE];
    let (cipher, slot) = Cipher::fresh(wrapping(), &mut |bytes| bytes.fill(3));
    world.disk[..SLOT_BYTES].copy_from_slice(&slot);
    let volume = Arc::into_inner(volume(true)).unwrap().encrypted(cipher);
    (world, Engine::default(), Arc::new(volume))
}

/// What the disk's header makes of it after a restart, and which keys it tells.
fn reopened(disk: &[u8]) -> Result<Cipher, Refusal> {
    let slot = |generation| {
        let at = usize::try_from(slot_offset(generation)).unwrap();
        &disk[at..at + SLOT_BYTES]
    };
    Cipher::open(wrapping(), [slot(0), slot(1)]).map(|(cipher, _)| cipher)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at / 512 % 250).unwrap() + 1).collect()
}

fn segments(bytes: &[u8], pieces: &[usize]) -> Segments<HeapBuffer> {
    let mut rest = bytes;
    let mut cut = |len: usize| {
        let (piece, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        Slice::whole(HeapBuffer::from_vec(piece.to_vec()))
    };
    pieces.iter().map(|len| cut(*len)).collect()
}

/// Runs one request to its end.
fn done(
    (world, engine, volume): &mut (World, Engine<HeapBuffer>, Arc<Volume>),
    kind: Kind<HeapBuffer>,
) -> Outcome<HeapBuffer> {
    engine.submit(world, owner(1), of(volume, kind));
    world.run(engine);
    engine.poll().expect("it ran to its end").1
}

fn read(all: &mut (World, Engine<HeapBuffer>, Arc<Volume>), offset: u64, len: u64) -> Vec<u8> {
    let Outcome::Data(data) = done(all, Kind::Read { offset, len }) else {
        panic!("it can be read")
    };
    data.iter().flat_map(|piece| piece.bytes().to_vec()).collect()
}

/// True if no sector of `plain` stands on the disk, wherever.
fn hidden(world: &World, plain: &[u8]) -> bool {
    let sectors: Vec<_> = plain.chunks(512).collect();
    world.disk.chunks(512).all(|there| !sectors.contains(&there))
}

#[test]
fn what_is_written_is_read_and_never_stands_on_the_store() {
    let mut all = encrypted();
    let plain = bytes(600 << 10);
    let pieces = [256 << 10, 256 << 10, 88 << 10];
    let kind = Kind::Write { offset: 1536, data: segments(&plain, &pieces) };
    assert!(matches!(done(&mut all, kind), Outcome::Done));
    assert!(hidden(&all.0, &plain));
    assert_eq!(read(&mut all, 1536, plain.len() as u64), plain);
    assert_eq!(read(&mut all, 1536 + 512, 512), plain[512..1024]);
    // Alike blocks look different, and no block beside them changed.
    assert!(all.0.disk[HEADER..HEADER + 1536].iter().all(|byte| *byte == 0));
}

#[test]
fn payload_that_others_hold_too_stays_as_it_is() {
    let mut all = encrypted();
    let plain = bytes(4096);
    let whole = HeapBuffer::from_vec(plain.clone());
    // Parts of one buffer, cut within a sector besides, as a transport may hold them.
    let parts: Segments<_> = [(0, 700), (700, 3396)]
        .map(|(at, len)| Slice::part(whole.clone(), at, len))
        .into_iter()
        .collect();
    assert!(matches!(done(&mut all, Kind::Write { offset: 0, data: parts }), Outcome::Done));
    assert_eq!(whole.bytes(), plain);
    assert_eq!(read(&mut all, 0, 4096), plain);
    assert!(hidden(&all.0, &plain));
    assert_eq!(all.0.arena.in_use(), 0);
}

#[test]
fn payload_that_is_cut_within_sectors_is_encrypted_as_one() {
    let mut all = encrypted();
    let plain = bytes(8192);
    let data = segments(&plain, &[700, 3396, 1, 4095]);
    assert!(matches!(done(&mut all, Kind::Write { offset: 1024, data }), Outcome::Done));
    assert_eq!(read(&mut all, 1024, 8192), plain);
    assert!(hidden(&all.0, &plain));
    assert_eq!(all.0.arena.in_use(), 0);
}

#[test]
fn comparisons_see_what_was_written_and_change_it_encrypted() {
    let mut all = encrypted();
    let (old, new) = (bytes(2048), bytes(1 << 12)[1024..3072].to_vec());
    done(&mut all, Kind::Write { offset: 512, data: segments(&old, &[2048]) });
    let swap = |expected: &[u8]| Kind::CompareAndWrite {
        offset: 512,
        expected: segments(expected, &[512, 1536]),
        new: segments(&new, &[1024, 1024]),
    };
    assert!(matches!(done(&mut all, swap(&new)), Outcome::Miscompare(0)));
    assert!(matches!(done(&mut all, swap(&old)), Outcome::Done));
    assert_eq!(read(&mut all, 512, 2048), new);
    let verify = Kind::Verify { offset: 512, len: 2048, expected: Some(segments(&new, &[2048])) };
    assert!(matches!(done(&mut all, verify), Outcome::Done));
    let or = Kind::Or { offset: 512, data: segments(&[0xf0; 2048], &[2048]) };
    assert!(matches!(done(&mut all, or), Outcome::Done));
    let ored: Vec<u8> = new.iter().map(|byte| byte | 0xf0).collect();
    assert_eq!(read(&mut all, 512, 2048), ored);
    assert!(hidden(&all.0, &[old, new, ored].concat()));
}

#[test]
fn write_and_verify_compares_what_the_medium_has() {
    let mut all = encrypted();
    let plain = bytes(4096);
    let kind = || Kind::WriteAndVerify {
        offset: 4096,
        data: segments(&plain, &[1024, 3072]),
        compare: true,
    };
    assert!(matches!(done(&mut all, kind()), Outcome::Done));
    assert!(hidden(&all.0, &plain));
    let (world, engine, volume) = &mut all;
    engine.submit(world, owner(1), of(volume, kind()));
    while !matches!(world.ops[0].1, BlockOp::Read { .. }) {
        world.complete(engine);
    }
    world.disk[HEADER + 4096 + 512] ^= 1;
    world.run(engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Miscompare(512..528)))));
}

#[test]
fn fills_are_encrypted_block_by_block_zeros_too() {
    let mut all = encrypted();
    let fill = |block: Option<u8>| Kind::WriteSame {
        offset: 512,
        len: 700 * 512,
        block: block.map(|byte| data(byte, 512)[0].clone()),
        unmap: true,
    };
    for (block, is) in [(Some(7), 7), (None, 0), (Some(0), 0)] {
        assert!(matches!(done(&mut all, fill(block)), Outcome::Done));
        assert_eq!(read(&mut all, 512, 700 * 512), vec![is; 700 * 512]);
        let written = &all.0.disk[HEADER + 512..HEADER + 512 + 700 * 512];
        let mut sectors: Vec<_> = written.chunks(512).collect();
        sectors.sort_unstable();
        sectors.dedup();
        assert_eq!(sectors.len(), 700, "each block looks different");
    }
    assert!(all.0.disk[HEADER + 701 * 512..].iter().all(|byte| *byte == 0));
}

fn erase(all: &mut (World, Engine<HeapBuffer>, Arc<Volume>), how: Erase) -> Outcome<HeapBuffer> {
    all.2.sanitization.begin(Purpose::Sanitize { unrestricted: false }).expect("nobody else does");
    let outcome = done(all, Kind::Erase(how));
    all.2.sanitization.end(matches!(outcome, Outcome::Done));
    outcome
}

#[test]
fn every_erasure_replaces_the_key_and_what_was_is_noise() {
    let pattern = Erase::Overwrite { block: bytes(512), passes: 2, invert: false };
    for how in [Erase::NewKey, Erase::Deallocate, pattern] {
        let mut all = encrypted();
        let plain = bytes(8192);
        done(&mut all, Kind::Write { offset: 0, data: segments(&plain, &[8192]) });
        all.0.disk[SLOT_BYTES - 1] = 1; // the whole slot is to be wiped
        let before = all.0.disk.clone();
        assert!(matches!(erase(&mut all, how.clone()), Outcome::Done));
        let after = read(&mut all, 0, 8192);
        match how {
            Erase::NewKey => assert_eq!(all.0.disk[HEADER..], before[HEADER..], "data stays"),
            Erase::Deallocate => assert!(all.0.disk[HEADER..].iter().all(|byte| *byte == 0)),
            Erase::Overwrite { .. } => {
                let all = read(&mut all, 0, SIZE as u64);
                assert!(all.chunks(512).all(|block| block == bytes(512)), "to the end");
            }
        }
        assert_ne!(after, plain);
        // The old key is nowhere any more; the new one opens what is written from now on.
        assert!(all.0.disk[..SLOT_BYTES].iter().all(|byte| *byte == 0));
        done(&mut all, Kind::Write { offset: 0, data: segments(&plain, &[8192]) });
        let keys = reopened(&all.0.disk).unwrap().keys();
        let mut stored = all.0.disk[HEADER..HEADER + 8192].to_vec();
        keys.decrypt(&mut stored, 0);
        assert_eq!(stored, plain);
        assert!(all.2.cipher.as_ref().unwrap().is_settled());
    }
}

#[test]
fn keys_take_turns_in_two_slots_and_only_the_last_is_there() {
    let mut all = encrypted();
    let mut told = Vec::new();
    for round in 1..=4 {
        assert!(matches!(erase(&mut all, Erase::NewKey), Outcome::Done));
        let slot = |generation| {
            let at = usize::try_from(slot_offset(generation)).unwrap();
            &all.0.disk[at..at + SLOT_BYTES]
        };
        assert!(slot(round + 1).iter().all(|byte| *byte == 0), "the last key, round {round}");
        assert!(!told.contains(&slot(round).to_vec()), "another key each time, round {round}");
        told.push(slot(round).to_vec());
        let mut unit = [0; 512];
        all.2.cipher.as_ref().unwrap().keys().encrypt(&mut unit, 7);
        reopened(&all.0.disk).unwrap().keys().decrypt(&mut unit, 7);
        assert_eq!(unit, [0; 512], "round {round}");
    }
}

/// Cut off after each of its operations, and failed at each: there is always a key, no data is
/// read under another than the one in the header, and the next attempt mends it.
#[test]
fn a_key_change_that_is_cut_off_or_fails_at_any_operation_is_made_good_by_the_next() {
    for fails_at in 0..4 {
        let mut all = encrypted();
        let old = reopened(&all.0.disk).unwrap();
        let (world, engine, volume) = &mut all;
        volume
            .sanitization
            .begin(Purpose::Sanitize { unrestricted: false })
            .expect("nobody else does");
        engine.submit(world, owner(1), of(volume, Kind::Erase(Erase::NewKey)));
        for _ in 0..fails_at {
            world.complete(engine);
            assert!(reopened(&world.disk).is_ok());
        }
        world.fail(engine, BlockError::Medium);
        assert!(matches!(engine.poll(), Some((_, Outcome::Failed(BlockError::Medium)))));
        volume.sanitization.end(false);
        let told = reopened(&world.disk).unwrap();
        let sample = |cipher: &Cipher| {
            let mut unit = [0; 512];
            cipher.keys().encrypt(&mut unit, 0);
            unit
        };
        assert_eq!(sample(&told) == sample(&old), fails_at == 0);
        assert!(!volume.cipher.as_ref().unwrap().is_settled(), "failed at {fails_at}");
        assert!(matches!(erase(&mut all, Erase::NewKey), Outcome::Done));
        let cipher = all.2.cipher.clone().unwrap();
        assert!(cipher.is_settled());
        assert_eq!(sample(&cipher), sample(&reopened(&all.0.disk).unwrap()));
    }
}

#[test]
fn a_read_that_failed_hands_out_nothing() {
    let (mut world, mut engine, volume) = encrypted();
    engine.submit(&mut world, owner(1), of(&volume, Kind::Read { offset: 0, len: 512 << 10 }));
    world.complete(&mut engine);
    world.fail(&mut engine, BlockError::Medium);
    assert!(matches!(engine.poll(), Some((_, Outcome::Failed(BlockError::Medium)))));
    assert_eq!(world.arena.in_use(), 0);
}
