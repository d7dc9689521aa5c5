//! Answers of task management functions, and responses on other connections (RFC 7143 4.2.2.3).

use super::dropped::told;
use super::members::two;
use super::reassign::lose;
use super::recovery::Door;
use super::*;

impl Client {
    /// A ping that asks for nothing: the responses before this StatSN have come.
    pub(super) fn acknowledge(&self, world: &mut World, exp_stat_sn: u32) {
        let nop = Bhs::new(Opcode::NopOut, FINAL).with_immediate(true).put_u32(16, TAG_NONE);
        self.send(world, nop.put_u32(20, TAG_NONE).put_u32(28, exp_stat_sn), &[]);
    }
}

/// Two connections, of which the first was given a response that it has not acknowledged: the
/// StatSN that says so.
fn unacknowledged(world: &mut World) -> (Client, Client, u32) {
    let (mut first, second, _) = two(world);
    first.command(world, 5, 0x00, 0);
    let (bhs, _) = first.one(world);
    (first, Client { cmd_sn: 2, ..second }, bhs.u32_at(24) + 1)
}

/// The initiator is asked how far it has got, and nothing else.
fn is_pinged(client: &Client, world: &mut World) {
    assert_eq!(client.one(world).0.opcode(), Some(Opcode::NopIn));
}

const ALL: [Function; 5] = [
    Function::AbortTaskSet,
    Function::ClearTaskSet,
    Function::LogicalUnitReset,
    Function::TargetWarmReset,
    Function::TargetColdReset,
];

#[test]
fn an_answer_waits_for_what_went_out_before_on_another_connection() {
    for function in ALL {
        let mut world = World::new();
        let (first, second, sn) = unacknowledged(&mut world);
        second.function(&mut world, function, TAG_NONE);
        assert!(second.heard(&mut world).is_empty(), "{function:?}");
        is_pinged(&first, &mut world);
        first.acknowledge(&mut world, sn - 1);
        assert!(second.heard(&mut world).is_empty(), "{function:?}");
        first.acknowledge(&mut world, sn);
        second.completes_function(&mut world);
        let ends = function == Function::TargetColdReset;
        assert_eq!(told(&first, &mut world).len(), usize::from(ends));
        assert_eq!(world.shards[0].server.poll_close().is_some(), ends);
        let server = &world.shards[0].server;
        assert!(server.fences.is_empty() && server.fence_dues.is_empty());
    }
}

#[test]
fn it_waits_for_the_medium_first_and_then_for_the_responses() {
    let mut world = World::new();
    let (mut first, second, sn) = unacknowledged(&mut world);
    first.cmd_sn = 2;
    first.command(&mut world, 6, 0x2a, 1);
    second.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    assert!(first.heard(&mut world).is_empty() && second.heard(&mut world).is_empty());
    world.disk(0);
    is_pinged(&first, &mut world);
    assert!(second.heard(&mut world).is_empty());
    first.acknowledge(&mut world, sn);
    second.completes_function(&mut world);
}

#[test]
fn one_that_has_acknowledged_is_not_asked_nor_is_an_abort_held_back() {
    let mut world = World::new();
    let (mut first, mut second, sn) = unacknowledged(&mut world);
    second.command(&mut world, 6, 0x2a, 1);
    second.function(&mut world, Function::AbortTask, 6); // a task of its own connection
    world.disk(0);
    second.completes_function(&mut world);
    first.acknowledge(&mut world, sn);
    second.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    second.completes_function(&mut world);
    assert!(first.heard(&mut world).is_empty());
    first.cmd_sn = 3;
    first.command(&mut world, 7, 0x00, 0);
    assert_eq!(first.one(&mut world).0.itt(), 7);
}

#[test]
fn a_silent_connection_holds_an_answer_back_for_three_seconds() {
    let mut world = World::new();
    let (first, second, sn) = unacknowledged(&mut world);
    second.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    assert_eq!(world.shards[0].server.next_timeout(), Some(Instant::ZERO + Duration::from_secs(3)));
    for (millis, answered) in [(2999, false), (3000, true)] {
        world.shards[0].machine.now = Instant::ZERO + Duration::from_millis(millis);
        world.at(0, |server, cx| server.timeout(cx));
        assert_eq!(second.heard(&mut world).len(), usize::from(answered), "{millis}");
    }
    is_pinged(&first, &mut world);
    first.acknowledge(&mut world, sn);
    assert!(second.heard(&mut world).is_empty(), "once");
}

#[test]
fn a_connection_that_is_lost_holds_nothing_back() {
    let mut world = World::new();
    let (first, second, _) = unacknowledged(&mut world);
    second.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
    lose(&first, &mut world);
    let opcodes: Vec<_> = second.heard(&mut world).iter().map(|(bhs, _)| bhs.opcode()).collect();
    assert_eq!(opcodes, [Some(Opcode::TaskResponse), Some(Opcode::Async)]);
}

#[test]
fn all_others_have_to_acknowledge() {
    for order in [[0, 1], [1, 0]] {
        let mut world = World::new();
        let (first, second, tsih) = two(&mut world);
        let third = Door { tsih, cid: 2, ..Door::to(0, 1) }.enter(&mut world).0;
        let mut others = Vec::new();
        for (at, mut client) in (0..).zip([first, third]) {
            client.cmd_sn = 1 + at;
            client.command(&mut world, 5 + at, 0x00, 0);
            others.push((client, client.one(&mut world).0.u32_at(24) + 1));
        }
        second.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
        for at in order {
            assert!(second.heard(&mut world).is_empty());
            let (client, sn) = others[at];
            client.acknowledge(&mut world, sn);
        }
        second.completes_function(&mut world);
    }
}

#[test]
fn who_asked_may_be_gone_when_the_others_have_acknowledged() {
    for function in ALL {
        let mut world = World::new();
        let (first, second, sn) = unacknowledged(&mut world);
        second.function(&mut world, function, TAG_NONE);
        lose(&second, &mut world);
        first.acknowledge(&mut world, sn);
        lose(&first, &mut world);
        let server = &world.shards[0].server;
        assert!(server.is_idle() && server.fences.is_empty() && server.fence_dues.is_empty());
    }
}
