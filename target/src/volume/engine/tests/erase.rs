//! What is on a volume made unreadable.

use super::*;
use crate::volume::sanitize::Purpose;

fn erase(volume: &Arc<Volume>, how: Erase) -> Request<HeapBuffer> {
    volume.sanitization.begin(Purpose::Sanitize { unrestricted: false }).expect("nobody else does");
    Request { volume: volume.clone(), kind: Kind::Erase(how), durable: true, lend: false }
}

fn overwrite(passes: u8, invert: bool) -> Erase {
    Erase::Overwrite { block: [1, 2].repeat(256), passes, invert }
}

#[test]
fn each_pass_covers_every_block_and_is_stable_before_the_next() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(true));
    let size = usize::try_from(volume.size_bytes()).unwrap();
    engine.submit(&mut world, owner(1), erase(&volume, overwrite(2, true)));
    let mut stable = Vec::new();
    while let Some((_, op, _)) = world.ops.front() {
        if matches!(op, BlockOp::Flush) {
            stable.push(world.disk[..size].to_vec());
        }
        world.complete(&mut engine);
    }
    assert_eq!(stable[0], [1, 2].repeat(size / 2));
    assert_eq!(stable[1], [0xfe, 0xfd].repeat(size / 2));
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    assert!(volume.ranges.is_empty());
}

#[test]
fn what_waits_for_its_turn_when_it_begins_never_reaches_the_medium() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    engine.submit(&mut world, owner(1), write(&volume, 0, 1, false));
    engine.submit(&mut world, owner(2), write(&volume, 0, 2, false)); // behind the first
    engine.submit(&mut world, owner(3), erase(&volume, Erase::Deallocate));
    engine.submit(&mut world, owner(4), write(&volume, 4096, 4, false));
    volume.sanitization.end(true); // however soon it ends
    world.run(&mut engine);
    let mut outcomes: Vec<_> = std::iter::from_fn(|| engine.poll()).collect();
    outcomes.sort_by_key(|(owner, _)| match owner {
        Owner::Aoe(number) | Owner::Iscsi(number) => *number,
    });
    assert!(matches!(outcomes[0].1, Outcome::Done));
    assert!(matches!(outcomes[1].1, Outcome::Failed(BlockError::Sanitizing)));
    assert!(matches!(outcomes[2].1, Outcome::Done));
    assert!(matches!(outcomes[3].1, Outcome::Failed(BlockError::Sanitizing)));
    assert!(world.disk.iter().all(|byte| *byte == 0));
    // Those who come after it do.
    engine.submit(&mut world, owner(5), write(&volume, 0, 5, false));
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
}

#[test]
fn volume_that_grew_meanwhile_is_erased_to_its_new_end() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    volume.resize(512 << 10);
    world.disk.fill(9);
    engine.submit(&mut world, owner(1), erase(&volume, overwrite(1, false)));
    world.complete(&mut engine);
    volume.resize(1 << 20);
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    assert_eq!(world.disk, [1, 2].repeat(512 << 10));
}

#[test]
fn store_that_cannot_deallocate_zeroes_and_one_that_cannot_do_that_fails() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    world.disk.fill(9);
    engine.submit(&mut world, owner(1), erase(&volume, Erase::Deallocate));
    world.fail(&mut engine, BlockError::Unsupported);
    assert!(matches!(world.ops[0].1, BlockOp::Zero { offset: 0, unmap: false, .. }));
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Done))));
    assert!(world.disk[..usize::try_from(volume.size_bytes()).unwrap()].iter().all(|b| *b == 0));
    volume.sanitization.end(true);
    engine.submit(&mut world, owner(2), erase(&volume, Erase::Deallocate));
    world.fail(&mut engine, BlockError::Unsupported);
    world.fail(&mut engine, BlockError::Unsupported);
    let outcome = engine.poll();
    assert!(matches!(outcome, Some((_, Outcome::Failed(BlockError::Unsupported)))));
}

#[test]
fn one_that_failed_leaves_a_volume_that_nobody_reads() {
    let (mut world, mut engine, volume) = (World::new(), Engine::default(), volume(false));
    engine.submit(&mut world, owner(1), erase(&volume, overwrite(1, false)));
    world.fail(&mut engine, BlockError::Medium);
    world.run(&mut engine);
    assert!(matches!(engine.poll(), Some((_, Outcome::Failed(BlockError::Medium)))));
    volume.sanitization.end(false);
    engine.submit(&mut world, owner(2), of(&volume, Kind::Read { offset: 0, len: 512 }));
    let outcome = engine.poll();
    assert!(matches!(outcome, Some((_, Outcome::Failed(BlockError::Sanitizing)))));
}
