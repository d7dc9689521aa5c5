//! Logical units side by side: what is one's is no other's.

use super::*;

fn command(client: &mut Client, world: &mut World, lun: u16, what: (u32, u8, u8)) {
    client.command_on(lun, Attribute::Simple, world, what);
}

/// The answers that came, by task tag, with their status.
fn answers(client: &Client, world: &mut World) -> Vec<(u32, u8)> {
    let heard = client.heard(world);
    let answer = |(bhs, _): &(Bhs, Vec<u8>)| {
        let response = ScsiResponse::parse(bhs).expect("nothing but SCSI responses");
        (response.itt, response.status)
    };
    heard.iter().map(answer).collect()
}

/// tgt served a unit that it did not have by the first one.
#[test]
fn what_is_meant_for_an_unknown_unit_reaches_no_other() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    command(&mut client, &mut world, 1, (5, 0x2a, 1));
    command(&mut client, &mut world, 1, (6, 0x28, 1));
    assert_eq!(answers(&client, &mut world), [(5, 2), (6, 2)]);
    assert!(world.shards[0].machine.ops.is_empty(), "nothing for any disk");
    command(&mut client, &mut world, 5, (7, 0x2a, 1));
    world.disk(0);
    assert_eq!(answers(&client, &mut world), [(7, 0)]);
}

/// tgt's ABORT TASK SET ended the tasks of all units of the session.
#[test]
fn abort_task_set_ends_the_tasks_of_its_own_unit_and_session_alone() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    let mut other = world.logged_in(0, 2);
    for (lun, at_medium, waiting) in [(0, 5, 6), (5, 7, 8)] {
        command(&mut client, &mut world, lun, (at_medium, 0x2a, 1));
        command(&mut client, &mut world, lun, (waiting, 0x2a, 1)); // the same blocks
    }
    other.command(&mut world, 5, 0x2a, 1);
    client.function(&mut world, Function::AbortTaskSet, TAG_NONE);
    assert!(client.heard(&mut world).is_empty(), "the disk still has a write");
    world.disk(0);
    let (ours, function): (Vec<_>, Vec<_>) = client
        .heard(&mut world)
        .into_iter()
        .partition(|(bhs, _)| bhs.opcode() == Some(Opcode::ScsiResponse));
    let mut ours: Vec<_> = ours.iter().map(|(bhs, _)| bhs.itt()).collect();
    ours.sort_unstable();
    assert_eq!(ours, [7, 8], "the other unit's, and none of those that were ended");
    assert_eq!(function.len(), 1);
    assert_eq!(TaskResponse::parse(&function[0].0).outcome, TaskOutcome::Complete);
    assert_eq!(answers(&other, &mut world), [(5, 0)], "the other session's");
}
