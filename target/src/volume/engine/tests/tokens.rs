//! Tokens end with what they name, whatever changes it.

use super::*;

fn data(len: usize) -> Segments<HeapBuffer> {
    [Slice::whole(HeapBuffer::new(len))].into_iter().collect()
}

#[test]
fn whatever_changes_named_bytes_ends_the_token_and_what_reads_them_does_not() {
    let changes: [fn() -> Kind<HeapBuffer>; 7] = [
        || Kind::Write { offset: 512, data: data(512) },
        || Kind::Or { offset: 512, data: data(512) },
        || Kind::WriteAndVerify { offset: 0, data: data(1024), compare: false },
        || Kind::CompareAndWrite { offset: 512, expected: data(512), new: data(512) },
        || Kind::WriteSame { offset: 0, len: 4096, block: None, unmap: false },
        || Kind::Discard(vec![(8192, 512), (0, 1024)]),
        || Kind::Erase(Erase::Deallocate),
    ];
    let others: [fn() -> Kind<HeapBuffer>; 6] = [
        || Kind::Read { offset: 512, len: 512 },
        || Kind::Verify { offset: 512, len: 512, expected: None },
        || Kind::Flush,
        || Kind::Write { offset: 1024, data: data(512) },
        || Kind::Write { offset: 0, data: data(512) },
        || Kind::Discard(vec![(8192, 512)]),
    ];
    let all =
        changes.iter().map(|kind| (kind, true)).chain(others.iter().map(|kind| (kind, false)));
    for (kind, ends) in all {
        let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(true));
        let id = volume.tokens.make(vec![(512, 512)], 60).unwrap();
        let kind = kind();
        let said = format!("{kind:?}");
        if matches!(kind, Kind::Erase(_)) {
            let purpose = crate::volume::sanitize::Purpose::Format;
            volume.sanitization.begin(purpose).unwrap();
        }
        engine.submit(
            &mut world,
            owner(1),
            Request { volume: volume.clone(), kind, durable: false, lend: false },
        );
        world.run(&mut engine);
        assert!(!matches!(engine.poll(), Some((_, Outcome::Failed(_)))), "{said}");
        assert_eq!(volume.tokens.find(id).is_err(), ends, "{said}");
    }
}

/// What reads under a range sees all of a change or ends with the token.
#[test]
fn change_that_waits_for_a_reader_ends_the_token_only_when_it_has_the_range() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    let id = volume.tokens.make(vec![(0, 4096)], 60).unwrap();
    let kind = Kind::Read { offset: 0, len: 4096 };
    engine.submit(
        &mut world,
        owner(1),
        Request { volume: volume.clone(), kind, durable: false, lend: false },
    );
    engine.submit(&mut world, owner(2), write(&volume, 0, 1, false));
    assert!(volume.tokens.find(id).is_ok(), "the reader has it still");
    world.complete(&mut engine);
    assert!(volume.tokens.find(id).is_err(), "before the first byte is written");
    world.run(&mut engine);
}
