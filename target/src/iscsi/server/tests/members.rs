//! Sessions of several connections.

use corbel_proto::iscsi::pdu::logout::{LogoutRequest, LogoutResponse, Reason};

use super::dropped::{dropped, told};
use super::recovery::Door;
use super::*;

const SEVERAL: &str = "MaxConnections=4 ";

/// A session of two connections, the second of which came in on the other shard.
pub(super) fn two(world: &mut World) -> (Client, Client, u16) {
    let (first, tsih) = Door { keys: SEVERAL, ..Door::to(0, 1) }.enter(world);
    let (second, same) = Door { tsih, cid: 1, ..Door::to(1, 1) }.enter(world);
    assert_eq!(tsih, same);
    (first, second, tsih)
}

fn refused(door: Door<'_>, world: &mut World) -> u16 {
    let client = door.knock(world);
    let response = LoginResponse::parse(&client.one(world).0.0).unwrap();
    world.at(client.shard, |server, cx| server.closed(client.id, cx));
    response.status.code()
}

fn logout(client: &Client, world: &mut World, reason: Reason, cid: u16) {
    let (immediate, itt, cmd_sn, exp_stat_sn) = (true, 0x888, client.cmd_sn, 0);
    let request = LogoutRequest { immediate, reason, itt, cid, cmd_sn, exp_stat_sn };
    client.send(world, request.emit(), &[]);
}

fn says(heard: &(Bhs, Vec<u8>)) -> u8 {
    assert_eq!(heard.0.opcode(), Some(Opcode::LogoutResponse));
    LogoutResponse::parse(&heard.0).response
}

fn is_closed(client: &Client, world: &mut World) -> bool {
    let server = &mut world.shards[client.shard].server;
    std::iter::from_fn(|| server.poll_close()).any(|id| id == client.id)
}

#[test]
fn a_connection_joins_its_session_wherever_it_comes_in() {
    let mut world = World::new();
    let (first, second, _) = two(&mut world);
    assert_eq!((first.shard, second.shard), (0, 0), "one shard has them all");
    assert_eq!(world.shards[0].server.connections(), (2, 0));
    assert_eq!(world.shards[1].server.connections(), (0, 0));
    assert_eq!(world.registry.count(), 1);
}

#[test]
fn each_command_is_answered_where_it_came() {
    let mut world = World::new();
    let (mut first, mut second, _) = two(&mut world);
    first.command(&mut world, 5, 0x2a, 1);
    second.cmd_sn = 2;
    second.command(&mut world, 6, 0x28, 1);
    world.disk(0);
    world.disk(0);
    assert_eq!(first.one(&mut world).0.itt(), 5);
    assert_eq!(second.one(&mut world).0.itt(), 6);
}

/// RFC 7143 4.2.2.1: CmdSN is the session's, StatSN the connection's.
#[test]
fn commands_have_one_order_over_all_connections() {
    let mut world = World::new();
    let (mut first, mut second, _) = two(&mut world);
    (first.cmd_sn, second.cmd_sn) = (2, 3);
    second.command(&mut world, 7, 0x00, 0);
    first.command(&mut world, 6, 0x00, 0);
    assert!(first.heard(&mut world).is_empty() && second.heard(&mut world).is_empty());
    second.cmd_sn = 1;
    second.command(&mut world, 5, 0x00, 0);
    let answer = |heard: &(Bhs, Vec<u8>)| {
        let response = ScsiResponse::parse(&heard.0).unwrap();
        (response.itt, response.numbers.exp_cmd_sn, response.numbers.stat_sn)
    };
    assert_eq!(answer(&first.one(&mut world)), (6, 4, 1));
    let heard: Vec<_> = second.heard(&mut world).iter().map(answer).collect();
    assert_eq!(heard, [(5, 4, 1), (7, 4, 2)]);
    // The same number on the other connection is a duplicate.
    first.cmd_sn = 3;
    first.command(&mut world, 9, 0x00, 0);
    assert!(first.heard(&mut world).is_empty());
}

#[test]
fn the_window_is_the_sessions() {
    let mut world = World::new();
    let (mut first, mut second, _) = two(&mut world);
    for n in 0..64 {
        first.cmd_sn = 1 + 2 * n;
        first.command(&mut world, 1000 + n, 0x28, 1);
        second.cmd_sn = 2 + 2 * n;
        second.command(&mut world, 2000 + n, 0x28, 1);
    }
    second.cmd_sn = 129;
    second.command(&mut world, 3000, 0x00, 0);
    assert!(second.heard(&mut world).is_empty(), "128 are outstanding");
    while !world.shards[0].machine.ops.is_empty() {
        world.disk(0);
    }
    assert_eq!(first.heard(&mut world).len() + second.heard(&mut world).len(), 128);
    second.command(&mut world, 3000, 0x00, 0);
    second.cmd_sn = 129;
    second.command(&mut world, 3001, 0x00, 0);
    let tags: Vec<_> = second.heard(&mut world).iter().map(|(bhs, _)| bhs.itt()).collect();
    assert_eq!(tags, [3001, 3000]);
}

#[test]
fn nobody_joins_who_is_not_of_the_session() {
    let mut world = World::new();
    let (_, tsih) = Door { keys: "MaxConnections=2 ", ..Door::to(0, 1) }.enter(&mut world);
    let door = Door { tsih, cid: 1, ..Door::to(0, 1) };
    assert_eq!(refused(Door { isid: 2, ..door }, &mut world), 0x020a, "another ISID");
    assert_eq!(refused(Door { tsih: tsih + 7, ..door }, &mut world), 0x020a, "no such session");
    assert_eq!(refused(Door { shard: 1, isid: 2, ..door }, &mut world), 0x020a);
    door.enter(&mut world);
    assert_eq!(refused(Door { cid: 2, ..door }, &mut world), 0x0206, "one too many");
    // A session of one connection was agreed: there is no second.
    let (_, tsih) = Door::to(0, 3).enter(&mut world);
    assert_eq!(refused(Door { tsih, cid: 1, ..Door::to(0, 3) }, &mut world), 0x0206);
}

#[test]
fn a_connection_that_is_lost_takes_its_own_tasks_along() {
    let mut world = World::new();
    let (mut first, mut second, _) = two(&mut world);
    first.command(&mut world, 5, 0x2a, 1);
    second.cmd_sn = 2;
    second.command(&mut world, 6, 0x28, 2);
    // Held for its turn, which comes when the other connection sends what is missing.
    first.cmd_sn = 4;
    first.command(&mut world, 8, 0x00, 0);
    world.at(0, |server, cx| server.closed(first.id, cx));
    assert_eq!(told(&second, &mut world), [dropped(0, 0)]);
    second.command(&mut world, 7, 0x00, 0);
    second.command(&mut world, 8, 0x00, 0);
    world.disk(0);
    world.disk(0);
    let mut tags: Vec<_> = second.heard(&mut world).iter().map(|(bhs, _)| bhs.itt()).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags, [6, 7, 8]);
    let status = &world.shards[0].server.status()[0];
    assert_eq!((status.tasks, status.at_medium), (0, 0));
    world.at(0, |server, cx| server.closed(second.id, cx));
    assert!(world.shards[0].server.is_idle() && world.registry.count() == 0);
}

#[test]
fn one_connection_is_logged_out_and_the_others_stay() {
    let mut world = World::new();
    let (mut first, second, _) = two(&mut world);
    logout(&second, &mut world, Reason::CloseConnection, 9);
    assert_eq!(says(&second.one(&mut world)), 1, "no such connection");
    first.command(&mut world, 5, 0x2a, 1);
    // By another one: once nothing of it can reach the medium.
    logout(&second, &mut world, Reason::CloseConnection, 0);
    assert!(second.heard(&mut world).is_empty());
    world.disk(0);
    assert_eq!(says(&second.one(&mut world)), 0);
    assert!(is_closed(&first, &mut world));
    let mut second = Client { cmd_sn: 2, ..second };
    second.command(&mut world, 6, 0x00, 0);
    assert_eq!(second.one(&mut world).0.itt(), 6);
    // By itself, and so the session ends.
    logout(&second, &mut world, Reason::CloseConnection, 1);
    assert_eq!(says(&second.one(&mut world)), 0);
    assert!(is_closed(&second, &mut world));
    assert_eq!(world.registry.count(), 0);
}

#[test]
fn logout_of_the_session_ends_every_connection() {
    let mut world = World::new();
    let (first, second, _) = two(&mut world);
    logout(&second, &mut world, Reason::CloseSession, 0);
    assert_eq!(says(&second.one(&mut world)), 0);
    let server = &mut world.shards[0].server;
    let closed: Vec<_> = std::iter::from_fn(|| server.poll_close()).collect();
    assert!(closed.contains(&first.id) && closed.contains(&second.id));
    assert_eq!(world.registry.count(), 0);
}

/// RFC 7143 6.3.4: the same CID takes the old connection's place, whose writes are waited for.
#[test]
fn a_connection_is_reinstated_once_the_old_ones_writes_are_done() {
    for keys in [SEVERAL, ""] {
        let mut world = World::new();
        let (mut old, tsih) = Door { keys, ..Door::to(0, 1) }.enter(&mut world);
        old.command(&mut world, 5, 0x2a, 1);
        let new = Door { tsih, cmd_sn: 2, ..Door::to(1, 1) }.knock(&mut world);
        assert!(new.heard(&mut world).is_empty(), "the old write may still land");
        assert!(is_closed(&old, &mut world));
        world.disk(0);
        let response = LoginResponse::parse(&new.one(&mut world).0.0).unwrap();
        assert_eq!((response.status.code(), response.tsih), (0, tsih));
        let mut new = Client { cmd_sn: 2, ..new };
        new.command(&mut world, 6, 0x00, 0);
        assert_eq!(new.one(&mut world).0.itt(), 6, "the session's numbers go on");
        assert_eq!(world.registry.count(), 1);
    }
}

#[test]
fn a_reinstatement_that_is_given_up_leaves_no_session() {
    let mut world = World::new();
    let (mut old, tsih) = Door::to(0, 1).enter(&mut world);
    old.command(&mut world, 5, 0x2a, 1);
    let new = Door { tsih, ..Door::to(0, 1) }.knock(&mut world);
    world.at(0, |server, cx| server.closed(old.id, cx));
    world.at(0, |server, cx| server.closed(new.id, cx));
    assert_eq!(world.registry.count(), 1, "its write may still land");
    world.disk(0);
    assert!(world.shards[0].server.is_idle() && world.registry.count() == 0);
}

#[test]
fn a_new_session_replaces_all_connections_of_the_old_one() {
    let mut world = World::new();
    let (_, mut second, _) = two(&mut world);
    second.command(&mut world, 5, 0x2a, 1);
    let new = Door::to(1, 1).knock(&mut world);
    assert!(new.heard(&mut world).is_empty());
    world.disk(0);
    assert_eq!(LoginResponse::parse(&new.one(&mut world).0.0).unwrap().status.code(), 0);
    let server = &mut world.shards[0].server;
    assert_eq!(std::iter::from_fn(|| server.poll_close()).count(), 2);
    assert_eq!(world.registry.count(), 1);
}

#[test]
fn a_reset_ends_the_tasks_of_all_connections_and_an_abort_those_of_its_own() {
    let mut world = World::new();
    let (mut first, mut second, _) = two(&mut world);
    first.command(&mut world, 5, 0x2a, 1);
    second.cmd_sn = 2;
    second.command(&mut world, 6, 0x2a, 1);
    second.function(&mut world, Function::AbortTask, 5);
    let none = TaskResponse::parse(&second.one(&mut world).0).outcome;
    assert_eq!(none, TaskOutcome::NoSuchTask, "it is not of this connection");
    first.acknowledge(&mut world, 1);
    second.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    world.disk(0);
    second.completes_function(&mut world);
    assert!(first.heard(&mut world).is_empty() && second.heard(&mut world).is_empty());
    // Their places in the window are free again.
    let status = &world.shards[0].server.status()[0];
    assert_eq!((status.tasks, status.at_medium), (0, 0));
}

#[test]
fn a_tag_that_is_in_use_on_another_connection_ends_the_one_that_used_it_again() {
    let mut world = World::new();
    let (mut first, mut second, _) = two(&mut world);
    first.command(&mut world, 5, 0x2a, 1);
    second.cmd_sn = 2;
    second.command(&mut world, 5, 0x2a, 1);
    assert!(is_closed(&second, &mut world));
    assert_eq!(told(&first, &mut world), [dropped(1, 0)]);
    world.disk(0);
    assert_eq!(first.one(&mut world).0.itt(), 5);
}
