//! What an initiator is told of connections that it did not log out (RFC 7143 11.9.1).

use corbel_proto::iscsi::pdu::asynchronous::{Async, AsyncEvent};
use corbel_proto::iscsi::pdu::logout::{LogoutRequest, Reason};

use super::members::two;
use super::reassign::{LEVEL, level_2, lose};
use super::recovery::Door;
use super::*;

/// What is told, and that nothing else is said.
pub(super) fn told(client: &Client, world: &mut World) -> Vec<AsyncEvent> {
    let heard = client.heard(world);
    assert!(heard.iter().all(|(bhs, _)| bhs.opcode() == Some(Opcode::Async)), "{heard:?}");
    heard.iter().map(|(bhs, _)| Async::parse(bhs).event).collect()
}

pub(super) fn dropped(cid: u16, retain: u16) -> AsyncEvent {
    AsyncEvent::DropConnection { cid, time_to_wait_s: 2, time_to_retain_s: retain }
}

fn all_dropped() -> AsyncEvent {
    AsyncEvent::DropSession { time_to_wait_s: 2, time_to_retain_s: 0 }
}

#[test]
fn the_loss_of_one_connection_is_told_on_another() {
    let mut world = World::new();
    let (first, second, _) = two(&mut world);
    lose(&second, &mut world);
    assert_eq!(told(&first, &mut world), [dropped(1, 0)]);
    lose(&second, &mut world);
    assert!(told(&first, &mut world).is_empty(), "once");
    // Of the last one there is nobody to tell.
    lose(&first, &mut world);
    assert!(world.shards[0].server.is_idle() && world.registry.count() == 0);
}

/// It does not read, and its initiator makes and loses one connection after the other.
#[test]
fn what_is_told_does_not_pile_up() {
    let mut world = World::new();
    let (first, second, tsih) = two(&mut world);
    lose(&second, &mut world);
    for _ in 0..100 {
        let second = Door { tsih, cid: 1, ..Door::to(0, 1) }.enter(&mut world).0;
        lose(&second, &mut world);
    }
    assert_eq!(told(&first, &mut world).len(), 64);
}

#[test]
fn one_that_no_longer_answers_is_told_of_with_the_time_its_tasks_are_kept() {
    let mut world = World::new();
    let (first, tsih) = level_2(&mut world);
    let second = Door { tsih, cid: 9, ..Door::to(0, 1) }.enter(&mut world).0;
    for seconds in [40, 104] {
        let nop = Bhs::new(Opcode::NopOut, FINAL).with_immediate(true).put_u32(16, TAG_NONE);
        first.send(&mut world, nop.put_u32(20, TAG_NONE), &[]);
        world.shards[0].machine.now = Instant::ZERO + Duration::from_secs(seconds - 1);
        first.send(&mut world, nop.put_u32(20, TAG_NONE), &[]);
        world.shards[0].machine.now = Instant::ZERO + Duration::from_secs(seconds);
        assert!(told(&first, &mut world).is_empty());
        world.at(0, |server, cx| server.timeout(cx));
    }
    assert_eq!(world.shards[0].server.poll_close(), Some(second.id));
    assert_eq!(told(&first, &mut world), [dropped(9, 20)]);
}

#[test]
fn nothing_is_told_of_what_the_initiator_did_itself() {
    for keys in ["MaxConnections=4 ", LEVEL] {
        for reason in [Reason::CloseConnection, Reason::RemoveForRecovery] {
            let mut world = World::new();
            let (first, tsih) = Door { keys, ..Door::to(0, 1) }.enter(&mut world);
            let door = Door { tsih, cid: 1, ..Door::to(0, 1) };
            door.enter(&mut world);
            let second = door.enter(&mut world).0; // in place of the one before
            let (immediate, itt, cmd_sn, exp_stat_sn) = (true, 0x888, 1, 0);
            let request = LogoutRequest { immediate, reason, itt, cid: 1, cmd_sn, exp_stat_sn };
            first.send(&mut world, request.emit(), &[]);
            assert_eq!(first.one(&mut world).0.opcode(), Some(Opcode::LogoutResponse));
            lose(&second, &mut world);
            if keys == LEVEL || reason == Reason::CloseConnection {
                assert!(told(&first, &mut world).is_empty(), "{keys} {reason:?}");
            }
        }
    }
}

#[test]
fn the_end_of_a_session_is_told_on_one_connection_before_it_is_closed() {
    let removed = |world: &mut World| {
        world.at(0, |server, cx| server.set_targets(Arc::new(Targets::default()), cx));
    };
    let closed_to_it = |world: &mut World| {
        let allow = Allow { initiators: vec!["iqn.2026-11.org.x:*".into()], ..Allow::default() };
        world.at(0, |server, cx| server.set_targets(targets(allow), cx));
    };
    let cases: [&dyn Fn(&mut World); 2] = [&removed, &closed_to_it];
    for end in cases {
        let mut world = World::new();
        let (first, second, _) = two(&mut world);
        end(&mut world);
        assert_eq!(told(&first, &mut world), [all_dropped()]);
        assert!(told(&second, &mut world).is_empty());
        let server = &mut world.shards[0].server;
        assert_eq!(std::iter::from_fn(|| server.poll_close()).count(), 2);
        assert_eq!(world.registry.count(), 0);
    }
}

#[test]
fn a_cold_reset_ends_other_initiators_sessions_with_a_word() {
    let mut world = World::new();
    let (asker, other) = (world.logged_in(0, 1), world.logged_in(1, 2));
    asker.function(&mut world, Function::TargetColdReset, TAG_NONE);
    assert_eq!(told(&other, &mut world), [all_dropped()]);
    let heard = asker.heard(&mut world);
    assert_eq!(heard.len(), 2, "the answer, and then the end");
    assert_eq!(TaskResponse::parse(&heard[0].0).outcome, TaskOutcome::Complete);
    assert_eq!(Async::parse(&heard[1].0).event, all_dropped());
}

#[test]
fn shutdown_asks_for_logout_and_closes_after_the_grace() {
    let mut world = World::new();
    let client = world.logged_in(0, 1);
    world.at(0, |server, cx| server.shutdown(Duration::from_secs(3), cx.host.now()));
    assert_eq!(told(&client, &mut world), [AsyncEvent::LogoutRequest { within_s: 3 }]);
    assert_eq!(world.connect(0).err(), Some(Refusal::Stopping));
    world.shards[0].machine.now = Instant::ZERO + Duration::from_secs(3);
    world.at(0, |server, cx| server.timeout(cx));
    assert_eq!(told(&client, &mut world), [all_dropped()], "it did not do so");
    assert_eq!(world.shards[0].server.poll_close(), Some(client.id));
    lose(&client, &mut world);
    assert!(world.shards[0].server.is_idle());
}

#[test]
fn session_of_a_removed_target_ends() {
    let mut world = World::new();
    let client = world.logged_in(0, 1);
    world.at(0, |server, cx| server.set_targets(Arc::new(Targets::default()), cx));
    assert_eq!(world.shards[0].server.poll_close(), Some(client.id));
    assert_eq!(world.registry.count(), 0);
}
