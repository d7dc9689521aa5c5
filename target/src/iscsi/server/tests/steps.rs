//! Commands of several steps at the medium, and requests that outlive their command.

use super::*;

fn answers(client: Client, world: &mut World) -> Vec<(u32, u8)> {
    let heard = client.heard(world);
    let responses = heard.iter().map(|(bhs, _)| ScsiResponse::parse(bhs).unwrap());
    responses.map(|response| (response.itt, response.status)).collect()
}

/// SBC-3 4.11: a sanitize operation goes on whatever becomes of who asked for it.
#[test]
fn what_nobody_can_stop_is_waited_for_by_nobody() {
    let mut world = World::new();
    for function in [Function::AbortTask, Function::AbortTaskSet, Function::LogicalUnitReset] {
        let mut client = world.logged_in(0, 1);
        client.command(&mut world, 5, 0x48, 0);
        assert!(client.heard(&mut world).is_empty());
        client.function(&mut world, function, 5);
        client.completes_function(&mut world);
        assert_eq!(world.shards[0].machine.ops.len(), 1, "{function:?}");
        world.at(0, |server, cx| server.closed(client.id, cx));
        assert_eq!(world.registry.count(), 0, "its session is over");
        world.disk(0);
        world.file(0, true); // what became of it is kept all the same
        assert!(world.shards[0].server.is_idle());
    }
}

#[test]
fn it_is_answered_at_its_end_or_at_once_as_it_was_asked() {
    let mut world = World::new();
    let mut client = world.logged_in(0, 1);
    client.command(&mut world, 5, 0x48, 1);
    assert_eq!(answers(client, &mut world), [(5, 0)]);
    world.disk(0);
    world.file(0, true);
    assert_eq!(answers(client, &mut world), []);
    client.command(&mut world, 6, 0x48, 0);
    world.disk(0);
    assert_eq!(answers(client, &mut world), [], "not before it is kept");
    world.file(0, true);
    assert_eq!(answers(client, &mut world), [(6, 0)]);
}

#[test]
fn another_initiators_reset_answers_it_and_lets_it_run() {
    let mut world = World::new();
    let (mut client, other) = (world.logged_in(0, 1), world.logged_in(1, 2));
    client.command(&mut world, 5, 0x48, 0);
    other.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    other.completes_function(&mut world);
    assert_eq!(answers(client, &mut world), [(5, 0x40)]);
    assert_eq!(world.shards[0].machine.ops.len(), 1);
}

/// Aborts and resets end a command of several steps after the one that is at the medium.
#[test]
fn no_step_follows_an_abort_or_a_reset() {
    let mut world = World::new();
    let (mut client, other) = (world.logged_in(0, 1), world.logged_in(1, 2));
    client.command(&mut world, 5, 0x83, 0);
    client.function(&mut world, Function::AbortTask, 5);
    assert!(client.heard(&mut world).is_empty(), "a step is at the disk");
    world.disk(0);
    client.completes_function(&mut world);
    assert!(world.shards[0].machine.ops.is_empty());
    client.command(&mut world, 6, 0x83, 0);
    other.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    world.disk(0);
    other.completes_function(&mut world);
    assert_eq!(answers(client, &mut world), [(6, 0x40)]);
    client.command(&mut world, 7, 0x83, 0);
    world.disk(0);
    world.disk(0); // both steps
    assert_eq!(answers(client, &mut world), [(7, 0)]);
}
