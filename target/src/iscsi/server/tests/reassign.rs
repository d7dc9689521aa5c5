//! Recovery level 2: connections that are lost, and tasks that are taken over.

use corbel_proto::iscsi::pdu::data::{DataIn, DataOut};
use corbel_proto::iscsi::pdu::logout::{LogoutRequest, LogoutResponse, Reason};
use corbel_proto::iscsi::pdu::r2t::R2t;

use super::dropped::{dropped, told};
use super::recovery::Door;
use super::*;

pub(super) const LEVEL: &str = "ErrorRecoveryLevel=2 MaxConnections=4 ";

pub(super) fn level_2(world: &mut World) -> (Client, u16) {
    Door { keys: LEVEL, ..Door::to(0, 1) }.enter(world)
}

pub(super) fn lose(client: &Client, world: &mut World) {
    world.at(client.shard, |server, cx| server.closed(client.id, cx));
}

/// The same session again, by a connection that names it.
fn again(world: &mut World, tsih: u16, cid: u16, keys: &str, cmd_sn: u32) -> Client {
    Door { tsih, cid, keys, cmd_sn, ..Door::to(1, 1) }.enter(world).0
}

fn ask(client: &Client, world: &mut World, referenced: u32, exp_data_sn: u32) {
    let request = TaskRequest {
        immediate: true,
        function: Function::TaskReassign,
        lun: WireLun::new(0),
        itt: 0x777,
        referenced,
        cmd_sn: client.cmd_sn,
        exp_stat_sn: 0,
        ref_cmd_sn: 0,
        exp_data_sn,
    };
    client.send(world, request.emit(), &[]);
}

/// What is said to a TASK REASSIGN, and what follows it.
fn reassign(
    client: &Client,
    world: &mut World,
    referenced: u32,
    exp_data_sn: u32,
) -> (TaskOutcome, Vec<(Bhs, Vec<u8>)>) {
    ask(client, world, referenced, exp_data_sn);
    let mut heard = client.heard(world);
    let first = heard.remove(0).0;
    assert_eq!((first.opcode(), first.itt()), (Some(Opcode::TaskResponse), 0x777));
    (TaskResponse::parse(&first).outcome, heard)
}

fn logout(client: &Client, world: &mut World, reason: Reason, cid: u16) -> LogoutResponse {
    let (immediate, itt, cmd_sn, exp_stat_sn) = (true, 0x888, client.cmd_sn, 0);
    let request = LogoutRequest { immediate, reason, itt, cid, cmd_sn, exp_stat_sn };
    client.send(world, request.emit(), &[]);
    let (bhs, _) = client.one(world);
    assert_eq!(bhs.opcode(), Some(Opcode::LogoutResponse));
    LogoutResponse::parse(&bhs)
}

fn answers(heard: &[(Bhs, Vec<u8>)]) -> Vec<(u32, u8)> {
    let parse = |(bhs, _): &(Bhs, Vec<u8>)| ScsiResponse::parse(bhs).unwrap();
    heard.iter().map(parse).map(|response| (response.itt, response.status)).collect()
}

fn pass(world: &mut World, seconds: u64) {
    for shard in 0..2 {
        let machine = &mut world.shards[shard].machine;
        machine.now = machine.now + Duration::from_secs(seconds);
        world.at(shard, |server, cx| server.timeout(cx));
    }
}

#[test]
fn the_times_of_level_2_are_agreed_and_there_are_none_below_it() {
    let mut world = World::new();
    for (isid, keys, level, retain) in [
        (1, "DefaultTime2Retain=30 ErrorRecoveryLevel=2 ", 2, 20),
        (2, "DefaultTime2Retain=5 ErrorRecoveryLevel=2 ", 2, 5),
        (3, "DefaultTime2Retain=30 ErrorRecoveryLevel=1 ", 1, 0),
    ] {
        let (client, tsih) = Door { keys, ..Door::to(0, isid) }.enter(&mut world);
        let status = world.shards[0].server.status();
        let agreed = status.iter().find(|status| status.tsih == tsih).unwrap().agreed;
        assert_eq!((agreed.recovery_level, agreed.time2retain_s), (level, retain), "{keys}");
        lose(&client, &mut world);
    }
}

#[test]
fn a_write_goes_on_without_its_connection_and_is_answered_on_the_next() {
    for at_once in [true, false] {
        let mut world = World::new();
        let (mut client, tsih) = level_2(&mut world);
        client.command(&mut world, 5, 0x2a, 1);
        lose(&client, &mut world);
        if !at_once {
            world.disk(0);
        }
        let client = again(&mut world, tsih, 0, "", 2);
        let (outcome, mut heard) = reassign(&client, &mut world, 5, 0);
        assert_eq!(outcome, TaskOutcome::Complete);
        if at_once {
            assert!(heard.is_empty(), "the disk has it still");
            world.disk(0);
            heard = client.heard(&mut world);
        }
        assert_eq!(answers(&heard), [(5, 0)]);
        let numbers = ScsiResponse::parse(&heard[0].0).unwrap().numbers;
        // Login 0, reassigned 1; its place in the window is free again.
        assert_eq!((numbers.stat_sn, numbers.max_cmd_sn), (2, 2 + 127));
        assert_eq!(reassign(&client, &mut world, 5, 0).0, TaskOutcome::NoSuchTask);
        assert_eq!(world.registry.count(), 1);
    }
}

/// What was sent and not acknowledged is sent again, under a number of the new connection.
#[test]
fn a_status_that_was_not_acknowledged_is_sent_again_and_one_that_was_is_not() {
    let mut world = World::new();
    let (mut client, tsih) = level_2(&mut world);
    client.command(&mut world, 5, 0x00, 0);
    client.command(&mut world, 6, 0x00, 0);
    client.heard(&mut world);
    // StatSN 1 was the first command's.
    let nop = Bhs::new(Opcode::NopOut, FINAL).with_immediate(true).put_u32(16, 8);
    client.send(&mut world, nop.put_u32(20, TAG_NONE).put_u32(28, 2), &[]);
    lose(&client, &mut world);
    let client = again(&mut world, tsih, 0, "", 3);
    assert_eq!(reassign(&client, &mut world, 5, 0).0, TaskOutcome::NoSuchTask);
    let (outcome, heard) = reassign(&client, &mut world, 6, 0);
    assert_eq!((outcome, answers(&heard)), (TaskOutcome::Complete, vec![(6, 0)]));
    // Lost once more, before it was acknowledged.
    lose(&client, &mut world);
    let client = again(&mut world, tsih, 0, "", 3);
    let (outcome, heard) = reassign(&client, &mut world, 6, 0);
    assert_eq!((outcome, answers(&heard)), (TaskOutcome::Complete, vec![(6, 0)]));
}

/// RFC 7143 11.5.6: from ExpDataSN on, and cut as the new connection wants it.
#[test]
fn read_data_is_sent_again_from_where_the_initiator_says() {
    let data_of = |heard: &[(Bhs, Vec<u8>)]| -> Vec<_> {
        let all = heard.iter().filter(|(bhs, _)| bhs.opcode() == Some(Opcode::DataIn));
        all.map(|(bhs, data)| {
            let pdu = DataIn::parse(bhs).unwrap();
            (pdu.data_sn, pdu.offset, data.len())
        })
        .collect()
    };
    for (sent, expected, segment, wanted) in [
        (
            true,
            0,
            "MaxRecvDataSegmentLength=512 ",
            &[(0, 0, 512), (1, 512, 512), (2, 1024, 512)][..],
        ),
        (true, 1, "MaxRecvDataSegmentLength=1024 ", &[(1, 512, 1024)]),
        (true, 2, "", &[(2, 1024, 512)]),
        (true, 3, "", &[]),
        (true, 4, "", &[(0, 0, 1536)]),
        (false, 0, "", &[(0, 0, 1536)]),
    ] {
        let mut world = World::new();
        let keys = format!("{LEVEL}MaxRecvDataSegmentLength=512 ");
        let (mut client, tsih) = Door { keys: &keys, ..Door::to(0, 1) }.enter(&mut world);
        client.command(&mut world, 5, 0x28, 3);
        world.disk(0);
        if sent {
            assert_eq!(data_of(&client.heard(&mut world)).len(), 3);
        }
        lose(&client, &mut world);
        let client = again(&mut world, tsih, 0, segment, 2);
        let (outcome, heard) = reassign(&client, &mut world, 5, expected);
        assert_eq!(outcome, TaskOutcome::Complete);
        assert_eq!(data_of(&heard), wanted, "{sent} {expected} {segment}");
        let status = ScsiResponse::parse(&heard.last().unwrap().0).unwrap();
        let count = wanted.last().map_or(3, |last| last.0 + 1);
        assert_eq!((status.itt, status.status, status.exp_data_sn), (5, 0, count));
    }
}

/// A write of 1024 bytes without immediate data.
fn bare_write(client: &mut Client, world: &mut World, itt: u32) -> R2t {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (0x2a, 2);
    let command = ScsiCommand {
        immediate: false,
        is_final: true,
        read: false,
        write: true,
        attribute: Attribute::Simple,
        lun: WireLun::new(0),
        itt,
        edtl: 1024,
        cmd_sn: client.cmd_sn,
        exp_stat_sn: 0,
        cdb,
    };
    client.cmd_sn += 1;
    client.send(world, command.emit(), &[]);
    R2t::parse(&client.one(world).0)
}

fn data_out(itt: u32, ttt: u32, data_sn: u32, offset: u32, is_final: bool) -> Bhs {
    let lun = WireLun::new(0);
    DataOut { is_final, lun, itt, ttt, exp_stat_sn: 0, data_sn, offset }.emit()
}

#[test]
fn write_data_that_has_not_come_whole_is_asked_for_again() {
    for (expected, r2t_sn) in [(0, 0), (1, 1), (7, 0)] {
        let mut world = World::new();
        let (mut client, tsih) = level_2(&mut world);
        let r2t = bare_write(&mut client, &mut world, 5);
        client.send(&mut world, data_out(5, r2t.ttt, 0, 0, false), &[1; 256]);
        // The connection is lost in the middle of the second PDU.
        let mut bytes = data_out(5, r2t.ttt, 1, 256, true).with_data_bytes(768).0.to_vec();
        bytes.extend([2; 100]);
        world.at(0, |server, cx| server.received(client.id, &bytes, cx));
        lose(&client, &mut world);
        let client = again(&mut world, tsih, 0, "", 2);
        let (outcome, heard) = reassign(&client, &mut world, 5, expected);
        assert_eq!((outcome, heard.len()), (TaskOutcome::Complete, 1));
        let r2t = R2t::parse(&heard[0].0);
        assert_eq!((r2t.offset, r2t.bytes, r2t.r2t_sn), (256, 768, r2t_sn));
        client.send(&mut world, data_out(5, r2t.ttt, 0, 256, true), &[3; 768]);
        let (BlockOp::Write { data, .. }, _) = &world.shards[0].machine.ops[0] else {
            panic!("no write");
        };
        assert_eq!(data.bytes(), [[1; 256].as_slice(), &[3; 768]].concat());
        world.disk(0);
        let status = ScsiResponse::parse(&client.one(&mut world).0).unwrap();
        assert_eq!((status.status, status.exp_data_sn), (0, r2t_sn + 1));
    }
}

/// The host still receives into the write's memory when another connection takes its place.
#[test]
fn memory_that_is_still_lent_to_the_old_connection_is_not_the_new_ones() {
    let mut world = World::new();
    let (mut client, tsih) = level_2(&mut world);
    let r2t = bare_write(&mut client, &mut world, 5);
    let header = data_out(5, r2t.ttt, 0, 0, true).with_data_bytes(1024).0;
    world.at(0, |server, cx| server.received(client.id, &header, cx));
    let slice = world.shards[0].server.take_direct(client.id).unwrap();
    let new = again(&mut world, tsih, 0, "", 2);
    let (_, heard) = reassign(&new, &mut world, 5, 0);
    let r2t = R2t::parse(&heard[0].0);
    assert_eq!((r2t.offset, r2t.bytes), (0, 1024));
    world.at(0, |server, cx| server.direct_done(client.id, slice, 700, cx));
    new.send(&mut world, data_out(5, r2t.ttt, 0, 0, true), &[3; 1024]);
    let (BlockOp::Write { data, .. }, _) = &world.shards[0].machine.ops[0] else {
        panic!("no write");
    };
    assert!(data.bytes().iter().all(|byte| *byte == 3));
    world.disk(0);
    assert_eq!(answers(&new.heard(&mut world)), [(5, 0)]);
    lose(&client, &mut world);
    assert_eq!(world.shards[0].machine.arena.in_use(), 0);
}

#[test]
fn only_what_is_logged_out_for_recovery_can_be_reassigned() {
    let mut world = World::new();
    let (mut first, tsih) = level_2(&mut world);
    let mut second = again(&mut world, tsih, 1, "", 1);
    first.command(&mut world, 5, 0x2a, 1);
    assert_eq!(reassign(&second, &mut world, 5, 0).0, TaskOutcome::StillAllegiant);
    assert_eq!(reassign(&second, &mut world, 6, 0).0, TaskOutcome::NoSuchTask);
    lose(&first, &mut world);
    assert_eq!(told(&second, &mut world), [dropped(0, 20)]);
    assert_eq!(reassign(&second, &mut world, 5, 0).0, TaskOutcome::StillAllegiant);
    assert_eq!(logout(&second, &mut world, Reason::RemoveForRecovery, 7).response, 1);
    let said = logout(&second, &mut world, Reason::RemoveForRecovery, 0);
    assert_eq!((said.response, said.time_to_wait, said.time_to_retain), (0, 0, 20));
    assert_eq!(reassign(&second, &mut world, 5, 0), (TaskOutcome::Complete, vec![]));
    world.disk(0);
    assert_eq!(answers(&second.heard(&mut world)), [(5, 0)]);
    // It is not there any more, and the session goes on.
    assert_eq!(logout(&second, &mut world, Reason::RemoveForRecovery, 0).response, 1);
    second.cmd_sn = 2;
    second.command(&mut world, 6, 0x00, 0);
    assert_eq!(answers(&second.heard(&mut world)), [(6, 0)]);
}

#[test]
fn a_connection_can_be_removed_while_it_lives_by_another_or_by_itself() {
    for by_itself in [false, true] {
        let mut world = World::new();
        let (mut first, tsih) = level_2(&mut world);
        let second = again(&mut world, tsih, 1, "", 1);
        first.command(&mut world, 5, 0x2a, 1);
        let asker = if by_itself { first } else { second };
        assert_eq!(logout(&asker, &mut world, Reason::RemoveForRecovery, 0).response, 0);
        assert_eq!(world.shards[0].server.poll_close(), Some(first.id));
        lose(&first, &mut world);
        assert_eq!(reassign(&second, &mut world, 5, 0).0, TaskOutcome::Complete);
        world.disk(0);
        assert_eq!(answers(&second.heard(&mut world)), [(5, 0)]);
    }
}

#[test]
fn below_level_2_nothing_can_be_reassigned() {
    let mut world = World::new();
    let keys = "ErrorRecoveryLevel=1 MaxConnections=4 ";
    let (mut first, tsih) = Door { keys, ..Door::to(0, 1) }.enter(&mut world);
    let second = again(&mut world, tsih, 1, "", 1);
    first.command(&mut world, 5, 0x2a, 1);
    assert_eq!(logout(&second, &mut world, Reason::RemoveForRecovery, 0).response, 2);
    lose(&first, &mut world);
    assert_eq!(told(&second, &mut world), [dropped(0, 0)]);
    assert_eq!(reassign(&second, &mut world, 5, 0).0, TaskOutcome::ReassignUnsupported);
}

/// Wait and retain are 2 and 20 seconds.
#[test]
fn what_is_not_reassigned_in_time_ends_and_so_does_a_session_without_connection() {
    let mut world = World::new();
    let (mut client, _) = level_2(&mut world);
    client.command(&mut world, 5, 0x2a, 1);
    client.command(&mut world, 6, 0x2a, 1); // the same blocks: it waits
    bare_write(&mut client, &mut world, 7);
    lose(&client, &mut world);
    pass(&mut world, 21);
    assert_eq!(world.registry.count(), 1);
    assert_eq!(world.shards[0].server.status()[0].tasks, 3);
    pass(&mut world, 1);
    assert_eq!(world.registry.count(), 1, "a write of its may still land");
    assert_eq!(world.shards[0].machine.ops.len(), 1);
    world.disk(0);
    assert!(world.shards[0].machine.ops.is_empty(), "and no other one");
    assert_eq!(world.registry.count(), 0);
    let shard = &world.shards[0];
    assert!(
        shard.server.is_idle() && shard.server.timers.is_empty() && shard.server.recalls.is_empty()
    );
    assert_eq!(shard.machine.arena.in_use(), 0);
}

#[test]
fn tasks_end_in_time_while_their_session_goes_on() {
    let mut world = World::new();
    let (mut first, tsih) = level_2(&mut world);
    let mut second = again(&mut world, tsih, 1, "", 1);
    first.command(&mut world, 5, 0x2a, 1);
    lose(&first, &mut world);
    assert_eq!(told(&second, &mut world), [dropped(0, 20)]);
    pass(&mut world, 20);
    // From the logout on there is as much time again.
    logout(&second, &mut world, Reason::RemoveForRecovery, 0);
    pass(&mut world, 20);
    assert_eq!(world.shards[0].server.status()[0].tasks, 1);
    pass(&mut world, 2);
    assert_eq!(world.shards[0].server.status()[0].tasks, 0);
    second.heard(&mut world);
    assert_eq!(reassign(&second, &mut world, 5, 0).0, TaskOutcome::NoSuchTask);
    world.disk(0);
    second.cmd_sn = 2;
    second.command(&mut world, 6, 0x00, 0);
    let heard = second.heard(&mut world);
    assert_eq!(answers(&heard), [(6, 0)]);
    let numbers = ScsiResponse::parse(&heard[0].0).unwrap().numbers;
    assert_eq!(numbers.max_cmd_sn, 2 + 128, "its place is free");
}

/// An hour of waiting may be agreed on; our memory is not for that.
#[test]
fn an_initiator_that_wants_to_wait_long_finds_nothing_kept() {
    let mut world = World::new();
    let keys = "ErrorRecoveryLevel=2 DefaultTime2Wait=3600 ";
    let (mut client, _) = Door { keys, ..Door::to(0, 1) }.enter(&mut world);
    client.command(&mut world, 5, 0x2a, 1);
    lose(&client, &mut world);
    world.disk(0);
    assert!(world.shards[0].server.is_idle() && world.registry.count() == 0);
}

#[test]
fn logout_reset_abort_and_a_new_session_end_what_waits() {
    for how in 0..5 {
        let mut world = World::new();
        let (mut first, tsih) = level_2(&mut world);
        let mut second = again(&mut world, tsih, 1, "", 1);
        first.command(&mut world, 5, 0x2a, 1);
        lose(&first, &mut world);
        assert_eq!(told(&second, &mut world), [dropped(0, 20)]);
        second.cmd_sn = 2;
        let other = match how {
            0 => {
                let (immediate, itt, cmd_sn, exp_stat_sn, cid) = (true, 0x888, 2, 0, 0);
                let reason = Reason::CloseSession;
                let logout = LogoutRequest { immediate, reason, itt, cid, cmd_sn, exp_stat_sn };
                second.send(&mut world, logout.emit(), &[]);
                second
            }
            1 => {
                let (immediate, itt, cmd_sn, exp_stat_sn, cid) = (true, 0x888, 2, 0, 0);
                let reason = Reason::CloseConnection;
                let logout = LogoutRequest { immediate, reason, itt, cid, cmd_sn, exp_stat_sn };
                second.send(&mut world, logout.emit(), &[]);
                second
            }
            2 => {
                second.function(&mut world, Function::LogicalUnitReset, TAG_NONE);
                second
            }
            3 => {
                second.function(&mut world, Function::AbortTask, 5);
                second
            }
            _ => Door::to(1, 1).knock(&mut world),
        };
        assert!(other.heard(&mut world).is_empty(), "{how}: its write may still land");
        world.disk(0);
        let (said, _) = other.one(&mut world);
        let code = match said.opcode() {
            Some(Opcode::LoginResponse) => said.0[36],
            _ => said.0[2],
        };
        assert_eq!(code, 0, "{how}: {said:?}");
        if (1..4).contains(&how) {
            assert_eq!(reassign(&second, &mut world, 5, 0).0, TaskOutcome::NoSuchTask);
            second.command(&mut world, 6, 0x00, 0);
            let heard = second.heard(&mut world);
            let numbers = ScsiResponse::parse(&heard[0].0).unwrap().numbers;
            assert_eq!(numbers.max_cmd_sn, 2 + 128, "{how}: its place is free");
        }
    }
}

#[test]
fn a_tag_may_be_used_anew_once_its_status_was_sent_and_not_before() {
    let mut world = World::new();
    let (mut first, tsih) = level_2(&mut world);
    first.command(&mut world, 5, 0x00, 0);
    first.heard(&mut world);
    first.command(&mut world, 6, 0x2a, 1);
    lose(&first, &mut world);
    let mut second = again(&mut world, tsih, 0, "", 3);
    second.cmd_sn = 3;
    second.command(&mut world, 5, 0x28, 1);
    assert_eq!(reassign(&second, &mut world, 5, 0).0, TaskOutcome::StillAllegiant);
    second.command(&mut world, 6, 0x28, 1);
    assert_eq!(world.shards[0].server.poll_close(), Some(second.id));
}

/// Whoever comes and goes leaves no more than a few connections' tasks behind.
#[test]
fn what_lost_connections_leave_is_bounded() {
    let mut world = World::new();
    let (mut client, tsih) = level_2(&mut world);
    for round in 0..40 {
        client.command(&mut world, 1000 + round, 0x2a, 1);
        client.command(&mut world, 2000 + round, 0x00, 0);
        client.heard(&mut world);
        lose(&client, &mut world);
        let server = &world.shards[0].server;
        assert!(server.sessions[&tsih].lost.len() <= 8, "{round}");
        assert!(server.status()[0].tasks <= 8);
        let cmd_sn = client.cmd_sn;
        client = again(&mut world, tsih, 0, "", cmd_sn);
        client.cmd_sn = cmd_sn;
    }
    for _ in 0..50 {
        world.disk(0);
    }
    lose(&client, &mut world);
    pass(&mut world, 22);
    let shard = &world.shards[0];
    assert!(
        shard.server.is_idle() && shard.server.timers.is_empty() && shard.server.recalls.is_empty()
    );
    assert_eq!(shard.machine.arena.in_use(), 0);
}

#[test]
fn what_waits_gives_its_memory_up_when_another_command_finds_none() {
    let mut world = World::new();
    let (mut client, tsih) = level_2(&mut world);
    for itt in [5, 6] {
        client.command(&mut world, itt, 0x28, 2);
    }
    world.disk(0);
    world.disk(0);
    client.heard(&mut world);
    client.command(&mut world, 7, 0x28, 2);
    bare_write(&mut client, &mut world, 8);
    lose(&client, &mut world);
    world.disk(0);
    assert_eq!(world.shards[0].machine.arena.in_use(), 4 * 1024);
    world.shards[0].server.short = true;
    world.at(0, |server, cx| server.turn(cx));
    assert_eq!(world.shards[0].machine.arena.in_use(), 0);
    let client = again(&mut world, tsih, 0, "", 5);
    // All of its data had come: the status is what is missing.
    let (_, heard) = reassign(&client, &mut world, 5, 1);
    assert_eq!(answers(&heard), [(5, 0x28)]);
    let (_, heard) = reassign(&client, &mut world, 7, 0);
    assert_eq!(answers(&heard), [(7, 0x28)], "it is to be read again");
    let (_, heard) = reassign(&client, &mut world, 8, 0);
    let r2t = R2t::parse(&heard[0].0);
    assert_eq!((r2t.offset, r2t.bytes), (0, 1024));
}

/// A command that waits for an ORDERED one begins for the connection that it belongs to then.
#[test]
fn commands_that_wait_for_their_order_begin_whatever_becomes_of_their_connection() {
    for before in [true, false] {
        let mut world = World::new();
        let (mut client, tsih) = level_2(&mut world);
        client.command_as(Attribute::Ordered, &mut world, (5, 0x2a, 1));
        client.command(&mut world, 6, 0x2a, 1);
        assert_eq!(world.shards[0].machine.ops.len(), 1);
        lose(&client, &mut world);
        let take_over = |world: &mut World| {
            let client = again(world, tsih, 0, "", 3);
            let said: Vec<_> = [5, 6].map(|itt| reassign(&client, world, itt, 0)).into();
            assert!(said.iter().all(|(outcome, _)| *outcome == TaskOutcome::Complete));
            let heard = said.into_iter().flat_map(|(_, heard)| heard);
            (client, heard.collect::<Vec<_>>())
        };
        let done = |world: &mut World| {
            world.disk(0);
            assert_eq!(world.shards[0].machine.ops.len(), 1, "now it is the second's turn");
            world.disk(0);
        };
        let heard = if before {
            let (client, _) = take_over(&mut world);
            done(&mut world);
            client.heard(&mut world)
        } else {
            done(&mut world);
            take_over(&mut world).1
        };
        assert_eq!(answers(&heard), [(5, 0), (6, 0)]);
    }
}

#[test]
fn shutdown_waits_for_no_initiator_to_come_back() {
    let mut world = World::new();
    let (client, _) = level_2(&mut world);
    lose(&client, &mut world);
    world.at(0, |server, cx| server.shutdown(Duration::from_secs(3), cx.host.now()));
    pass(&mut world, 3);
    assert!(world.shards[0].server.is_idle() && world.shards[0].server.timers.is_empty());
}

#[test]
fn a_session_without_connection_ends_with_its_target() {
    let mut world = World::new();
    let (client, _) = level_2(&mut world);
    lose(&client, &mut world);
    world.at(0, |server, cx| server.set_targets(Arc::new(Targets::default()), cx));
    assert_eq!(world.registry.count(), 0);
}
