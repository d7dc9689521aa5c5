//! Reads that a store completes with memory of its own.

use super::*;

#[test]
fn a_lent_read_keeps_its_range_until_the_store_has_its_memory_back() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    world.disk[..512].fill(3);
    let id = engine.submit(&mut world, owner(1), lent(&volume, 0, 1024));
    world.run(&mut engine);
    let data = data_of(&mut engine);
    assert_eq!(data[0].buffer.sent()[..512], [3; 512]);
    assert_eq!(world.arena.in_use(), 0, "its own memory is free");
    assert!(!engine.cancel(&mut world, id) && engine.in_flight() == 1);
    // Readers come in, a writer waits, and whoever comes after it.
    engine.submit(&mut world, owner(2), lent(&volume, 512, 512));
    world.run(&mut engine);
    drop(data_of(&mut engine));
    give_back(&mut world, &mut engine);
    engine.submit(&mut world, owner(3), write(&volume, 512, 9, false));
    engine.submit(&mut world, owner(4), lent(&volume, 512, 512));
    assert!(world.ops.is_empty() && engine.poll().is_none());
    let copy = data.clone();
    drop(data);
    give_back(&mut world, &mut engine);
    assert!(world.ops.is_empty(), "somebody still has it");
    drop(copy);
    give_back(&mut world, &mut engine);
    world.run(&mut engine);
    assert_eq!(engine.poll().unwrap().0, owner(3));
    assert_eq!(data_of(&mut engine)[0].buffer.sent(), [9; 512]);
    give_back(&mut world, &mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len()), (0, 0));
}

#[test]
fn every_piece_of_a_long_read_comes_back_before_its_range_is_free() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    engine.submit(&mut world, owner(1), lent(&volume, 0, 600 << 10));
    world.run(&mut engine);
    let mut data = data_of(&mut engine);
    assert_eq!(data.len(), 3);
    engine.submit(&mut world, owner(2), write(&volume, 0, 9, false));
    while data.pop().is_some() {
        assert!(world.ops.is_empty());
        give_back(&mut world, &mut engine);
    }
    assert_eq!(world.ops.len(), 1);
    world.run(&mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len()), (0, 0));
}

#[test]
fn a_read_that_fails_in_part_gives_back_what_was_lent() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    engine.submit(&mut world, owner(1), lent(&volume, 0, 512 << 10));
    world.complete(&mut engine);
    world.fail(&mut engine, BlockError::Medium);
    assert!(matches!(engine.poll(), Some((_, Outcome::Failed(BlockError::Medium)))));
    give_back(&mut world, &mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len()), (0, 0));
    assert_eq!(volume.counters().errors, 1);
}

#[test]
fn what_is_looked_at_is_not_lent() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    let kinds = [
        Kind::Verify { offset: 0, len: 512, expected: Some(data(0, 512)) },
        Kind::CompareAndWrite { offset: 0, expected: data(0, 512), new: data(1, 512) },
        Kind::Or { offset: 0, data: data(2, 512) },
        Kind::WriteAndVerify { offset: 0, data: data(3, 512), compare: true },
    ];
    for kind in kinds {
        engine.submit(&mut world, owner(1), Request { lend: true, ..of(&volume, kind) });
        world.run(&mut engine);
        assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    }
    assert_eq!(engine.in_flight(), 0);
}
