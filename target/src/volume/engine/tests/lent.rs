//! Reads that a store in memory lends.

use super::*;

/// A world whose store lends so many more times what it says it does.
fn lender(loans: usize) -> (World, Engine<HeapBuffer>, Arc<Volume>) {
    let world = World { loans: Some(loans), ..World::new() };
    (world, Engine::default(), volume(false))
}

/// Takes all memory there is.
fn exhaust(world: &mut World) -> Vec<HeapBuffer> {
    let all: Vec<_> = std::iter::from_fn(|| world.alloc(256 << 10)).collect();
    assert_eq!(all.len(), 4);
    all
}

#[test]
fn a_borrowed_read_is_answered_at_once_without_memory_and_keeps_its_range() {
    let (mut world, mut engine, volume) = lender(2);
    let all = exhaust(&mut world);
    world.disk[512..1024].fill(3);
    let id = engine.submit(&mut world, owner(1), lent(&volume, 512, 512));
    let first = data_of(&mut engine);
    assert_eq!(first[0].buffer.sent(), [3; 512]);
    assert!(world.ops.is_empty() && !engine.cancel(&mut world, id));
    engine.submit(&mut world, owner(2), lent(&volume, 0, 1024));
    let second = data_of(&mut engine);
    assert_eq!(second[0].buffer.sent()[512..], [3; 512]);
    engine.submit(&mut world, owner(3), write(&volume, 512, 9, false));
    drop(first);
    give_back(&mut world, &mut engine);
    assert!(world.ops.is_empty(), "it would tear what is being sent");
    drop(second);
    give_back(&mut world, &mut engine);
    assert_eq!((world.ops.len(), engine.in_flight()), (1, 1));
    world.run(&mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len()), (0, 0));
    assert_eq!(volume.counters().reads, 2);
    drop(all);
}

#[test]
fn a_borrowed_read_waits_for_the_write_before_it_and_has_what_that_wrote() {
    let (mut world, mut engine, volume) = lender(2);
    engine.submit(&mut world, owner(1), write(&volume, 0, 7, false));
    engine.submit(&mut world, owner(2), lent(&volume, 0, 512));
    let cancelled = engine.submit(&mut world, owner(3), lent(&volume, 0, 512));
    assert!(engine.poll().is_none() && world.loans == Some(2));
    assert!(engine.cancel(&mut world, cancelled));
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Cancelled))));
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    assert_eq!(data_of(&mut engine)[0].buffer.sent(), [7; 512]);
    assert_eq!(world.loans, Some(1), "what was cancelled is not lent");
    give_back(&mut world, &mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len()), (0, 0));
}

#[test]
fn what_the_store_does_not_lend_after_all_is_read_and_waits_for_memory_without_a_range() {
    let (mut world, mut engine, volume) = lender(0);
    let all = exhaust(&mut world);
    engine.submit(&mut world, owner(1), lent(&volume, 0, 512));
    assert_eq!((engine.starved(), volume.ranges.len()), (1, 0));
    engine.submit(&mut world, owner(2), lent(&volume, 512, 512));
    assert_eq!(engine.starved(), 2);
    drop(all);
    engine.tick(&mut world);
    assert_eq!((engine.starved(), world.ops.len()), (0, 2));
    world.run(&mut engine);
    drop((data_of(&mut engine), data_of(&mut engine)));
    give_back(&mut world, &mut engine);
    assert_eq!((engine.in_flight(), volume.ranges.len(), world.arena.in_use()), (0, 0, 0));
}

#[test]
fn a_long_read_is_borrowed_whole_and_handed_on_in_pieces() {
    let (mut world, mut engine, volume) = lender(1);
    world.disk[(512 << 10) + 5] = 1;
    engine.submit(&mut world, owner(1), lent(&volume, 0, 600 << 10));
    let data = data_of(&mut engine);
    let lens: Vec<_> = data.iter().map(|piece| piece.len).collect();
    assert_eq!(lens, [256 << 10, 256 << 10, 88 << 10]);
    let last = data[2].clone();
    assert_eq!(last.buffer.sent()[last.range()][5], 1);
    drop(data);
    give_back(&mut world, &mut engine);
    assert_eq!(engine.in_flight(), 1, "a piece of it is still out");
    drop(last);
    give_back(&mut world, &mut engine);
    assert_eq!(engine.in_flight(), 0);
}

#[test]
fn an_encrypted_volume_borrows_nothing() {
    let (mut world, mut engine, volume) = cipher::encrypted();
    world.loans = Some(1);
    engine.submit(&mut world, owner(1), lent(&volume, 0, 512));
    assert_eq!((world.loans, world.ops.len()), (Some(1), 1));
}

#[test]
fn what_is_looked_at_is_not_lent() {
    let (mut world, mut engine, volume) = lender(9);
    let kinds = [
        Kind::Verify { offset: 0, len: 512, expected: Some(data(0, 512)) },
        Kind::CompareAndWrite { offset: 0, expected: data(0, 512), new: data(1, 512) },
        Kind::Or { offset: 0, data: data(2, 512) },
        Kind::WriteAndVerify { offset: 0, data: data(3, 512), compare: true },
        Kind::Read { offset: 0, len: 512 },
    ];
    for kind in kinds {
        let lend = !matches!(kind, Kind::Read { .. });
        engine.submit(&mut world, owner(1), Request { lend, ..of(&volume, kind) });
        world.run(&mut engine);
        assert!(matches!(engine.poll(), Some((_, Outcome::Done | Outcome::Data(_)))));
    }
    assert_eq!((world.loans, engine.in_flight()), (Some(9), 0));
}
