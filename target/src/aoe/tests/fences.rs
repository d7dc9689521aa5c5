//! A reservation is answered when those it shuts out can do nothing any more.

use super::*;

/// A write of one sector by `source`; its tag in the engine.
fn write(world: &mut World, source: Mac, slot: u8, lba: u64) -> u64 {
    let header = HeaderRepr { source, slot, ..header(Code::Ata) };
    world.send(&header, &ata(0x34, 1, lba, &[1; 512]));
    world.engine.0.last().expect("it is at work").0
}

impl World {
    fn done(&mut self, tag: u64) {
        self.server.complete(tag, Outcome::Done);
        assert_eq!(self.reply().0.code, Code::Ata);
    }
}

/// The known defect: an acknowledged reservation, and then a write that was at the disk lands.
#[test]
fn a_reservation_is_answered_when_no_write_of_others_is_at_the_disk() {
    for force in [reserve::Command::Set, reserve::Command::ForceSet] {
        let mut world = world();
        let theirs = [write(&mut world, OTHER, 1, 0), write(&mut world, OTHER, 1, 1)];
        let ours = write(&mut world, CLIENT, 1, 2);
        world.send(&header(Code::Reserve), &reservation(force, &[CLIENT]));
        world.persisted(true);
        assert_eq!(world.recv(), None);
        let other = HeaderRepr { source: OTHER, ..header(Code::Ata) };
        let (reply, _) = world.ask(&other, &ata(0x34, 1, 3, &[1; 512]));
        assert_eq!(reply.error, Some(Error::TargetReserved), "in force at once");
        world.done(theirs[1]);
        world.done(ours);
        assert_eq!(world.recv(), None);
        world.done(theirs[0]);
        let (reply, argument) = world.reply();
        assert_eq!((reply.code, reply.error), (Code::Reserve, None));
        assert_eq!(argument[2..], CLIENT.0);
        assert_eq!(world.recv(), None);
    }
}

/// Clients repeat what is not answered. The repetition changes nothing, and is no way round.
#[test]
fn a_repeated_reservation_waits_too_and_too_many_are_dropped() {
    let mut world = world();
    let tag = write(&mut world, OTHER, 1, 0);
    let reserve = reservation(reserve::Command::Set, &[CLIENT]);
    world.send(&header(Code::Reserve), &reserve);
    world.persisted(true);
    for _ in 0..100 {
        world.send(&header(Code::Reserve), &reserve);
        assert_eq!(world.recv(), None);
    }
    assert_eq!(world.server.stats()[0].1.busy, 101 - 64);
    let (read, _) = world.ask(&header(Code::Reserve), &reservation(reserve::Command::Read, &[]));
    assert_eq!(read.error, None, "a question is answered at once");
    world.done(tag);
    assert_eq!(std::iter::from_fn(|| world.recv()).count(), 64);
    let (reply, _) = world.ask(&header(Code::Reserve), &reserve);
    assert_eq!(reply.error, None);
}

#[test]
fn a_release_and_a_reservation_of_another_slot_wait_for_nobody() {
    let mut world = world_of(vec![slot(7, 1, vec![]), slot(7, 2, vec![])], Options::default());
    let tag = write(&mut world, OTHER, 2, 0);
    let (reply, _) =
        world.change(&header(Code::Reserve), &reservation(reserve::Command::Set, &[CLIENT]));
    assert_eq!(reply.error, None);
    world.done(tag);
    let tag = write(&mut world, CLIENT, 1, 0);
    world.change(&header(Code::Reserve), &reservation(reserve::Command::Set, &[]));
    world.done(tag);
}

/// What PREEMPT AND ABORT and RESERVE ask for. Tags are used again: a later command of the same
/// tag is another command.
#[test]
fn a_fence_waits_for_what_is_at_work_now_and_for_nothing_later() {
    let mut world = world();
    world.server.fence(VolumeId(0), (3, 1));
    assert_eq!(world.server.poll_fenced(), Some((3, 1)), "nothing is at work");
    let first = write(&mut world, CLIENT, 1, 0);
    let second = write(&mut world, CLIENT, 1, 1);
    world.server.fence(VolumeId(0), (3, 2));
    world.server.fence(VolumeId(1), (3, 3));
    assert_eq!(world.server.poll_fenced(), Some((3, 3)), "another volume");
    world.done(first);
    assert_eq!(write(&mut world, CLIENT, 1, 2), first, "the tag is used again");
    assert_eq!(world.server.poll_fenced(), None);
    world.done(second);
    assert_eq!(world.server.poll_fenced(), Some((3, 2)));
    world.done(first);
    assert_eq!(world.server.poll_fenced(), None);
}
