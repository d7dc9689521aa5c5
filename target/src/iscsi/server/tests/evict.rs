//! What ends others' commands and sessions: PREEMPT AND ABORT as the server sees it (a state file
//! first), TARGET COLD RESET.

use super::*;

impl World {
    /// The oldest state file of a shard is stable, or could not be written.
    pub(super) fn file(&mut self, shard: usize, ok: bool) {
        let token = self.shards[shard].machine.files.pop_front().expect("one is being written");
        let number = token & !(1 << 63);
        self.at(shard, |server, cx| server.persisted(number, ok, cx));
    }
}

fn status_of(client: Client, world: &mut World) -> (u32, u8) {
    let response = ScsiResponse::parse(&client.one(world).0).unwrap();
    (response.itt, response.status)
}

/// The promise of fencing: once it is answered, no write of the victims lands any more.
#[test]
fn eviction_is_answered_when_no_write_of_the_victims_can_land_any_more() {
    let mut world = World::new();
    let mut preemptor = world.logged_in(0, 1);
    let (mut near, mut far) = (world.logged_in(0, 2), world.logged_in(1, 3));
    near.command(&mut world, 4, 0x2a, 1);
    far.command(&mut world, 5, 0x2a, 1); // the same blocks: it waits for its turn
    preemptor.command(&mut world, 6, 0x5f, 0);
    assert!(preemptor.heard(&mut world).is_empty(), "nothing is in force before it is stable");
    world.file(0, true);
    assert!(preemptor.heard(&mut world).is_empty(), "the disk still has a write");
    assert_eq!(status_of(far, &mut world), (5, 0x40), "what did not start is aborted");
    world.disk(0);
    assert_eq!(status_of(near, &mut world), (4, 0), "what was at the disk is done");
    assert_eq!(status_of(preemptor, &mut world), (6, 0));
    assert!(world.shards[1].machine.ops.is_empty(), "nothing of the other reached the disk");
}

/// AoE clients cannot register, so whoever shuts initiators out shuts them out too.
#[test]
fn eviction_waits_for_the_aoe_commands_of_every_shard() {
    let mut world = World::new();
    let mut preemptor = world.logged_in(0, 1);
    world.aoe_is_at_work = true;
    preemptor.command(&mut world, 6, 0x5f, 0);
    world.file(0, true);
    let fences = std::mem::take(&mut world.fences);
    assert_eq!(fences.len(), 2, "one a shard");
    for (asker, ask) in fences {
        assert!(preemptor.heard(&mut world).is_empty(), "AoE commands are at work");
        world.shards[1].machine.aoe_has_ended(asker, ask);
        world.settle();
    }
    assert_eq!(status_of(preemptor, &mut world), (6, 0));
}

#[test]
fn bystanders_and_the_preemptor_itself_go_on() {
    let mut world = World::new();
    let (mut preemptor, mut bystander) = (world.logged_in(0, 1), world.logged_in(1, 9));
    bystander.command(&mut world, 4, 0x2a, 1);
    preemptor.command(&mut world, 5, 0x28, 1);
    preemptor.command(&mut world, 6, 0x5f, 0);
    world.file(0, true);
    assert_eq!(status_of(preemptor, &mut world), (6, 0));
    world.disk(1);
    assert_eq!(status_of(bystander, &mut world), (4, 0));
}

#[test]
fn a_state_file_that_cannot_be_written_changes_nothing() {
    let mut world = World::new();
    let (mut preemptor, mut victim) = (world.logged_in(0, 1), world.logged_in(1, 2));
    victim.command(&mut world, 4, 0x2a, 1);
    preemptor.command(&mut world, 6, 0x5f, 0);
    world.file(0, false);
    assert_eq!(status_of(preemptor, &mut world), (6, 2));
    world.disk(1);
    assert_eq!(status_of(victim, &mut world), (4, 0));
}

/// Its initiator may be gone by then; the victims' commands end all the same.
#[test]
fn an_aborted_or_orphaned_eviction_still_fences_and_answers_nobody() {
    for gone in [true, false] {
        let mut world = World::new();
        let (mut preemptor, mut victim) = (world.logged_in(0, 1), world.logged_in(1, 2));
        let mut first = world.logged_in(0, 9);
        first.command(&mut world, 3, 0x2a, 1); // it holds the range that the victim wants
        victim.command(&mut world, 4, 0x2a, 1);
        preemptor.command(&mut world, 6, 0x5f, 0);
        if gone {
            world.at(0, |server, cx| server.closed(preemptor.id, cx));
        } else {
            preemptor.function(&mut world, Function::AbortTask, 6);
            preemptor.completes_function(&mut world);
        }
        world.file(0, true);
        assert_eq!(status_of(victim, &mut world), (4, 0x40));
        world.disk(0);
        assert!(world.shards[1].machine.ops.is_empty());
        assert!(preemptor.heard(&mut world).is_empty());
    }
}

/// The tag of an aborted command is free for the next one, which is none of the file's business.
#[test]
fn a_command_that_took_over_the_tag_of_an_aborted_one_is_left_alone() {
    for written in [true, false] {
        let mut world = World::new();
        let mut preemptor = world.logged_in(0, 1);
        preemptor.command(&mut world, 6, 0x5f, 0);
        preemptor.function(&mut world, Function::AbortTask, 6);
        preemptor.completes_function(&mut world);
        preemptor.command(&mut world, 6, 0x2a, 1);
        world.file(0, written);
        assert!(preemptor.heard(&mut world).is_empty(), "the write is at the disk");
        world.disk(0);
        assert_eq!(status_of(preemptor, &mut world), (6, 0));
        assert_eq!(world.shards[0].server.status()[0].tasks, 0);
    }
}

/// RFC 7143 11.5.1: as a warm reset, and then every session of the target ends.
#[test]
fn a_cold_reset_is_answered_when_all_work_is_done_and_then_ends_all_sessions() {
    let mut world = World::new();
    let client = world.logged_in(0, 1);
    let mut other = world.logged_in(1, 2);
    other.command(&mut world, 4, 0x2a, 1);
    client.function(&mut world, Function::TargetColdReset, TAG_NONE);
    assert!(client.heard(&mut world).is_empty(), "the other shard's disk still has a write");
    world.disk(1);
    let said = client.heard(&mut world);
    assert_eq!(TaskResponse::parse(&said[0].0).outcome, TaskOutcome::Complete);
    assert_eq!(
        said[1..].iter().map(|said| said.0.opcode()).collect::<Vec<_>>(),
        [Some(Opcode::Async)]
    );
    for client in [client, other] {
        assert_eq!(world.shards[client.shard].server.poll_close(), Some(client.id));
        world.at(client.shard, |server, cx| server.closed(client.id, cx));
        assert!(world.shards[client.shard].server.status().is_empty());
    }
    world.logged_in(1, 2);
}
