//! Task attributes, each nexus for itself (SAM-5 8.6, TST 001b).

use super::*;

const READ: u8 = 0x28;
const WRITE: u8 = 0x2a;

impl World {
    /// Reads and writes that are at the disk of the first shard.
    fn at_disk(&self) -> usize {
        self.shards[0].machine.ops.len()
    }

    /// The disk performs the oldest thing that it was given.
    fn disk_once(&mut self) {
        let Shard { machine, engine, .. } = &mut self.shards[0];
        let (op, token) = machine.ops.pop_front().expect("something is at the disk");
        let (BlockOp::Read { data, .. } | BlockOp::Write { data, .. }) = op else {
            panic!("neither a read nor a write");
        };
        engine.block_done(machine, token, Ok(()), Some(data));
        self.settle();
    }
}

impl Client {
    fn ended(&self, world: &mut World) -> Vec<u32> {
        // A read's last Data-In carries its status.
        let ends = |bhs: &Bhs| match bhs.opcode() {
            Some(Opcode::ScsiResponse) => true,
            Some(Opcode::DataIn) => bhs.flags() & 1 == 1,
            _ => false,
        };
        let heard = self.heard(world);
        heard.iter().filter(|(bhs, _)| ends(bhs)).map(|(bhs, _)| bhs.itt()).collect()
    }

    fn statuses(&self, world: &mut World) -> Vec<(u32, u8)> {
        let responses = self.heard(world).into_iter().map(|(bhs, _)| ScsiResponse::parse(&bhs));
        responses.map(|one| one.unwrap()).map(|one| (one.itt, one.status)).collect()
    }
}

#[test]
fn ordered_command_begins_when_all_older_have_ended_and_younger_wait_for_it() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 1, READ, 1);
    client.command(&mut world, 2, READ, 1);
    client.command_as(Attribute::Ordered, &mut world, (3, READ, 1));
    client.command(&mut world, 4, READ, 1);
    client.command_as(Attribute::Untagged, &mut world, (5, READ, 1));
    assert_eq!(world.at_disk(), 2, "the ordered one waits, and so do those behind it");
    world.disk_once();
    assert_eq!((world.at_disk(), client.ended(&mut world)), (1, vec![1]));
    world.disk_once();
    assert_eq!((world.at_disk(), client.ended(&mut world)), (1, vec![2]), "it is alone");
    world.disk_once();
    assert_eq!((world.at_disk(), client.ended(&mut world)), (2, vec![3]));
    world.disk(0);
    assert_eq!(client.ended(&mut world), [4, 5]);
    assert!(world.shards[0].server.task_sets.is_empty(), "order counts no more");
}

#[test]
fn two_ordered_commands_run_one_after_the_other() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command_as(Attribute::Ordered, &mut world, (1, WRITE, 1));
    client.command_as(Attribute::Ordered, &mut world, (2, READ, 1));
    client.command_as(Attribute::Ordered, &mut world, (3, READ, 1));
    for itt in 1..=3 {
        assert_eq!(world.at_disk(), 1);
        world.disk_once();
        assert_eq!(client.ended(&mut world), [itt]);
    }
}

#[test]
fn head_of_queue_begins_at_once_and_what_has_not_begun_waits_for_it() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 1, READ, 1);
    client.command_as(Attribute::Ordered, &mut world, (2, READ, 1));
    client.command_as(Attribute::HeadOfQueue, &mut world, (3, READ, 1));
    client.command(&mut world, 4, READ, 1);
    assert_eq!(world.at_disk(), 2, "the first and the head of the queue");
    world.disk_once();
    assert_eq!((world.at_disk(), client.ended(&mut world)), (1, vec![1]));
    world.disk_once();
    assert_eq!((world.at_disk(), client.ended(&mut world)), (1, vec![3]));
    world.disk_once();
    assert_eq!((world.at_disk(), client.ended(&mut world)), (1, vec![2]));
}

/// Also where a command is answered without the medium, and where its data came with it.
#[test]
fn what_waited_is_answered_in_order() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 1, READ, 1);
    client.command_as(Attribute::Ordered, &mut world, (2, 0x00, 0));
    client.command_as(Attribute::Ordered, &mut world, (3, WRITE, 1));
    client.command_as(Attribute::Ordered, &mut world, (4, 0x00, 0));
    world.disk_once();
    assert_eq!((world.at_disk(), client.ended(&mut world)), (1, vec![1, 2]));
    world.disk_once();
    assert_eq!(client.ended(&mut world), [3, 4]);
}

#[test]
fn each_initiator_has_a_task_set_of_its_own() {
    let mut world = World::new();
    let (mut client, mut other) = (world.logged_in(0, 1), world.logged_in(0, 2));
    client.command(&mut world, 1, READ, 1);
    client.command_as(Attribute::Ordered, &mut world, (2, READ, 1));
    other.command(&mut world, 1, READ, 1);
    assert_eq!(world.at_disk(), 2);
    other.function(&mut world, Function::ClearTaskSet, TAG_NONE);
    world.disk(0);
    other.completes_function(&mut world);
    assert_eq!(client.ended(&mut world), [1], "another's task set was cleared");
    world.disk(0);
    assert_eq!(client.ended(&mut world), [2]);
}

#[test]
fn command_that_is_aborted_while_it_waits_never_begins_and_lets_others_go_on() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 1, READ, 1);
    client.command_as(Attribute::Ordered, &mut world, (2, WRITE, 1));
    client.command(&mut world, 3, READ, 1);
    client.function(&mut world, Function::AbortTask, 2);
    client.completes_function(&mut world);
    assert_eq!(world.at_disk(), 2, "nothing is left to wait for");
    world.disk(0);
    assert_eq!(client.ended(&mut world), [1, 3]);
    assert_eq!(world.shards[0].machine.arena.in_use(), 0);
}

#[test]
fn another_initiators_reset_answers_what_waits() {
    let mut world = World::new();
    let (mut client, other) = (world.logged_in(0, 1), world.logged_in(1, 2));
    client.command(&mut world, 1, WRITE, 1);
    client.command_as(Attribute::Ordered, &mut world, (2, WRITE, 1));
    other.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    assert_eq!(client.statuses(&mut world), [(2, 0x40)]);
    world.disk(0);
    assert_eq!(client.statuses(&mut world), [(1, 0)]);
    assert!(world.shards[0].server.task_sets.is_empty());
}

/// Waiting for older commands with memory in hand, they would keep it from these.
#[test]
fn writes_that_wait_their_turn_give_their_memory_to_older_commands() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 1, WRITE, 1);
    client.command_as(Attribute::Ordered, &mut world, (2, WRITE, 4));
    client.command(&mut world, 3, READ, 1);
    world.shards[0].server.short = true; // somebody found none
    world.at(0, |server, cx| server.turn(cx));
    assert_eq!(client.statuses(&mut world), [(2, 0x28)], "TASK SET FULL");
    world.disk(0);
    world.disk(0);
    assert_eq!(client.ended(&mut world), [1, 3]);
}

#[test]
fn lost_session_takes_what_waits_with_it() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 1, WRITE, 1);
    client.command_as(Attribute::Ordered, &mut world, (2, WRITE, 1));
    world.at(0, |server, cx| server.closed(client.id, cx));
    world.disk(0);
    assert!(world.shards[0].server.is_idle());
    assert!(world.shards[0].server.task_sets.is_empty());
    assert_eq!(world.shards[0].machine.arena.in_use(), 0);
}
