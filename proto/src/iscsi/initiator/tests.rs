use super::*;
use crate::iscsi::bhs::{FINAL, Opcode};
use crate::iscsi::digest::Digest as Crc;
use crate::iscsi::framer::trailer;
use crate::iscsi::pdu::Numbers;
use crate::iscsi::pdu::asynchronous::Async;
use crate::iscsi::pdu::data::{DataIn, DataOut};
use crate::iscsi::pdu::logout::LogoutResponse;
use crate::iscsi::pdu::nop::NopIn;
use crate::iscsi::pdu::r2t::R2t;
use crate::iscsi::pdu::reject::Reject;
use crate::iscsi::pdu::scsi::{ScsiCommand, ScsiResponse};
use crate::iscsi::pdu::task::TaskResponse;
use crate::iscsi::pdu::text::TextResponse;
use proptest::prelude::*;

const START: Instant = Instant::ZERO;

fn agreed() -> Negotiated {
    Negotiated {
        peer_segment_bytes_max: 512,
        segment_bytes_max: 1024,
        burst_bytes_max: 2048,
        first_burst_bytes_max: 1024,
        ..Negotiated::default()
    }
}

fn connect(agreed: Negotiated) -> Connection<Vec<u8>> {
    let start = Start { agreed, cid: 0, cmd_sn: 5, exp_stat_sn: 100, max_cmd_sn: 5 + 7 };
    Connection::new(START, start, None)
}

/// Window wide open.
fn numbers(stat_sn: u32) -> Numbers {
    Numbers { stat_sn, exp_cmd_sn: 5, max_cmd_sn: 5 + 7 }
}

fn command(id: u64, transfer: Transfer<Vec<u8>>) -> Command<Vec<u8>> {
    Command { id: CommandId(id), lun: Lun::new(1), cdb: [0; 16], transfer }
}

fn take(connection: &mut Connection<Vec<u8>>) -> Option<(Bhs, Vec<u8>)> {
    let pdu = connection.poll_transmit()?;
    let bhs = Bhs(pdu.header()[..48].try_into().unwrap());
    Some((bhs, pdu.data().to_vec()))
}

fn take_data(connection: &mut Connection<Vec<u8>>) -> (DataOut, Vec<u8>) {
    let (bhs, data) = take(connection).unwrap();
    assert_eq!(bhs.opcode(), Some(Opcode::DataOut));
    (DataOut::parse(&bhs), data)
}

fn give(connection: &mut Connection<Vec<u8>>, bhs: Bhs, data: &[u8]) -> Result<(), Fatal> {
    let len = u32::try_from(data.len()).unwrap();
    let mut stream = bhs.with_data_bytes(len).0.to_vec();
    stream.extend(data);
    let (tail, tail_len) = trailer(len, None);
    stream.extend(&tail[..tail_len]);
    connection.handle_bytes(START, &stream)
}

fn good(itt: u32, stat_sn: u32) -> Bhs {
    response(itt, stat_sn, 0, Residual::None)
}

fn response(itt: u32, stat_sn: u32, status: u8, residual: Residual) -> Bhs {
    ScsiResponse {
        response: 0,
        status,
        itt,
        snack_tag: 0,
        numbers: numbers(stat_sn),
        exp_data_sn: 0,
        bidirectional_residual: Residual::None,
        residual,
    }
    .emit()
}

fn data_in(itt: u32, data_sn: u32, offset: u32, status: Option<(u8, u32)>) -> Bhs {
    DataIn {
        is_final: status.is_some(),
        acknowledge: false,
        status: status.map(|(status, _)| status),
        lun: Lun(0),
        itt,
        ttt: TAG_NONE,
        numbers: numbers(status.map_or(0, |(_, stat_sn)| stat_sn)),
        data_sn,
        offset,
        residual: Residual::None,
    }
    .emit()
}

fn r2t(itt: u32, r2t_sn: u32, offset: u32, bytes: u32) -> Bhs {
    let (lun, ttt) = (Lun::new(1), 0x7000 + r2t_sn);
    R2t { lun, itt, ttt, numbers: numbers(100), r2t_sn, offset, bytes }.emit()
}

#[test]
fn commands_are_numbered_as_they_leave_and_stop_at_the_window() {
    let mut connection = connect(agreed());
    (0..20).for_each(|id| connection.submit(command(id, Transfer::None)));
    let sent: Vec<_> = std::iter::from_fn(|| take(&mut connection))
        .map(|(bhs, _)| ScsiCommand::parse(&bhs).unwrap())
        .collect();
    assert_eq!(sent.iter().map(|c| c.cmd_sn).collect::<Vec<_>>(), (5..=12).collect::<Vec<_>>());
    assert!(sent.iter().all(|c| c.exp_stat_sn == 100 && c.is_final && c.lun == Lun::new(1)));

    // The window moves by one, and so does the sending. It never moves back.
    let mut reply = ScsiResponse::parse(&good(sent[0].itt, 100)).unwrap();
    reply.numbers.max_cmd_sn = 13;
    give(&mut connection, reply.emit(), &[]).unwrap();
    assert_eq!(ScsiCommand::parse(&take(&mut connection).unwrap().0).unwrap().cmd_sn, 13);
    assert!(take(&mut connection).is_none());
    give(&mut connection, good(sent[1].itt, 101), &[]).unwrap();
    assert!(take(&mut connection).is_none());
    assert_eq!(connection.len(), 18);
}

#[test]
fn window_that_ends_before_it_begins_is_none() {
    let mut connection = connect(agreed());
    connection.submit(command(1, Transfer::None));
    let (bhs, _) = take(&mut connection).unwrap();
    let mut reply = ScsiResponse::parse(&good(bhs.itt(), 100)).unwrap();
    (reply.numbers.exp_cmd_sn, reply.numbers.max_cmd_sn) = (1000, 500);
    give(&mut connection, reply.emit(), &[]).unwrap();
    assert_eq!(connection.max_cmd_sn, 12);
}

#[test]
fn read_gathers_its_data_and_ends_with_the_status_of_the_last() {
    let mut connection = connect(agreed());
    connection.submit(command(1, Transfer::Read(vec![0; 1536])));
    let (bhs, _) = take(&mut connection).unwrap();
    let request = ScsiCommand::parse(&bhs).unwrap();
    assert!(request.read && !request.write && request.edtl == 1536);
    give(&mut connection, data_in(request.itt, 0, 0, None), &[1; 1024]).unwrap();
    assert!(connection.poll_event().is_none());
    give(&mut connection, data_in(request.itt, 1, 1024, Some((0, 100))), &[2; 512]).unwrap();
    let Some(Event::Done { id, transfer: Transfer::Read(data), result: Ok(answer) }) =
        connection.poll_event()
    else {
        panic!("the read has ended");
    };
    assert_eq!((id, answer.status), (CommandId(1), 0));
    assert_eq!(data, [vec![1; 1024], vec![2; 512]].concat());
    connection.ping(START);
    assert_eq!(NopOut::parse(&take(&mut connection).unwrap().0).exp_stat_sn, 101);
}

#[test]
fn read_with_less_data_than_owed_did_not_succeed() {
    for (residual, fine) in [(Residual::None, false), (Residual::Underflow(512), true)] {
        let mut connection = connect(agreed());
        connection.submit(command(1, Transfer::Read(vec![0; 1024])));
        let itt = take(&mut connection).unwrap().0.itt();
        give(&mut connection, data_in(itt, 0, 0, None), &[1; 512]).unwrap();
        give(&mut connection, response(itt, 100, 0, residual), &[]).unwrap();
        let Some(Event::Done { result, .. }) = connection.poll_event() else { panic!("ended") };
        assert_eq!(result.is_ok(), fine, "{result:?}");
    }
}

#[test]
fn write_waits_for_r2t_and_sends_it_in_segments() {
    let mut connection = connect(Negotiated { immediate_data: false, ..agreed() });
    let data: Vec<u8> = (0..2000).map(|n: u16| n.to_le_bytes()[0]).collect();
    connection.submit(command(1, Transfer::Write(data.clone())));
    let (bhs, immediate) = take(&mut connection).unwrap();
    let request = ScsiCommand::parse(&bhs).unwrap();
    assert!(request.write && request.is_final && immediate.is_empty());
    assert!(take(&mut connection).is_none());
    give(&mut connection, r2t(request.itt, 0, 0, 1200), &[]).unwrap();
    let mut received = Vec::new();
    for (data_sn, offset, last) in [(0, 0, false), (1, 512, false), (2, 1024, true)] {
        let (pdu, part) = take_data(&mut connection);
        assert_eq!((pdu.data_sn, pdu.offset, pdu.is_final), (data_sn, offset, last));
        assert_eq!((pdu.ttt, pdu.itt), (0x7000, request.itt));
        received.extend(part);
    }
    give(&mut connection, r2t(request.itt, 1, 1200, 800), &[]).unwrap();
    let (pdu, part) = take_data(&mut connection);
    assert_eq!((pdu.data_sn, pdu.offset, pdu.ttt), (0, 1200, 0x7001));
    received.extend(part);
    received.extend(take_data(&mut connection).1);
    assert_eq!(received, data);
    give(&mut connection, good(request.itt, 100), &[]).unwrap();
    let Some(Event::Done { result, transfer, .. }) = connection.poll_event() else {
        panic!("the write has ended");
    };
    assert_eq!((result.unwrap().status, transfer), (0, Transfer::Write(data)));
}

#[test]
fn unsolicited_data_is_immediate_first_and_never_above_the_first_burst() {
    for (immediate_data, initial_r2t, first, unsolicited) in [
        (true, true, 512, 0),
        (true, false, 512, 512),
        (false, false, 0, 1024),
        (false, true, 0, 0),
    ] {
        let mut connection = connect(Negotiated { immediate_data, initial_r2t, ..agreed() });
        connection.submit(command(1, Transfer::Write(vec![7; 4096])));
        connection.submit(command(2, Transfer::None));
        let (bhs, data) = take(&mut connection).unwrap();
        assert_eq!(data.len(), first);
        assert_eq!(bhs.flags() & FINAL == 0, unsolicited > 0, "F: nothing unsolicited follows");
        let mut sent = 0;
        while sent < unsolicited {
            let (pdu, part) = take_data(&mut connection);
            assert_eq!(pdu.ttt, TAG_NONE);
            assert_eq!(pdu.offset as usize, first + sent);
            sent += part.len();
            assert_eq!(pdu.is_final, sent == unsolicited);
        }
        assert_eq!(take(&mut connection).unwrap().0.opcode(), Some(Opcode::ScsiCommand));
    }
}

#[test]
fn digests_cover_header_and_padded_data() {
    let digests =
        Negotiated { header_digest: Digest::Crc32c, data_digest: Digest::Crc32c, ..agreed() };
    let mut connection = connect(digests);
    connection.submit(command(1, Transfer::Write(vec![7; 5])));
    let mut stream = Vec::new();
    connection.poll_transmit().unwrap().write_to(&mut stream);
    assert_eq!(stream.len(), 48 + 4 + 8 + 4);
    assert_eq!(stream[48..52], Crc::of(&stream[..48]).to_wire());
    assert_eq!(stream[60..], Crc::of(&stream[52..60]).to_wire());

    let reply = good(connection.tasks.iter().next().unwrap().0, 100);
    let mut wire = reply.0.to_vec();
    wire.extend(Crc::of(&reply.0).to_wire());
    connection.handle_bytes(START, &wire).unwrap();
    assert!(matches!(connection.poll_event(), Some(Event::Done { result: Ok(_), .. })));
    wire[50] ^= 1;
    assert!(matches!(connection.handle_bytes(START, &wire), Err(Fatal::Malformed(_))));
}

#[test]
fn check_condition_brings_its_sense() {
    let mut connection = connect(agreed());
    connection.submit(command(1, Transfer::None));
    let itt = take(&mut connection).unwrap().0.itt();
    give(&mut connection, response(itt, 100, 2, Residual::None), &[0, 3, 0x70, 0, 5]).unwrap();
    let Some(Event::Done { result: Ok(answer), .. }) = connection.poll_event() else {
        panic!("answered");
    };
    assert_eq!((answer.status, answer.sense), (2, vec![0x70, 0, 5]));
}

#[test]
fn targets_ping_is_answered_with_its_tag_and_uses_no_status_number() {
    let mut connection = connect(agreed());
    let ping = NopIn { lun: Lun::new(1), itt: TAG_NONE, ttt: 9, numbers: numbers(100) };
    give(&mut connection, ping.emit(), &[]).unwrap();
    give(&mut connection, ping.emit(), &[]).unwrap();
    let pong = NopOut::parse(&take(&mut connection).unwrap().0);
    assert_eq!((pong.itt, pong.ttt, pong.lun), (TAG_NONE, 9, Lun::new(1)));
    assert!(pong.immediate && pong.cmd_sn == 5 && pong.exp_stat_sn == 100);
}

#[test]
fn a_target_that_pings_without_end_fills_no_queue() {
    let mut connection = connect(agreed());
    let ping = NopIn { lun: Lun(0), itt: TAG_NONE, ttt: 9, numbers: numbers(100) };
    (0..10_000).for_each(|_| give(&mut connection, ping.emit(), &[]).unwrap());
    assert!(connection.control.len() <= 64);
}

#[test]
fn silence_is_answered_by_a_ping_and_then_by_the_end() {
    let second = Duration::from_secs(1);
    let keep_alive = KeepAlive { ping_after: 5 * second, answer_within: 2 * second };
    let start = Start { agreed: agreed(), cid: 0, cmd_sn: 5, exp_stat_sn: 100, max_cmd_sn: 12 };
    let mut connection = Connection::<Vec<u8>>::new(START, start, Some(keep_alive));
    assert_eq!(connection.poll_timeout(), Some(START + 5 * second));
    connection.handle_timeout(START + 5 * second).unwrap();
    let ping = NopOut::parse(&take(&mut connection).unwrap().0);
    assert_eq!(connection.poll_timeout(), Some(START + 7 * second));
    let pong = NopIn { lun: Lun(0), itt: ping.itt, ttt: TAG_NONE, numbers: numbers(100) };
    connection.handle_bytes(START + 6 * second, &pong.emit().0).unwrap();
    assert!(connection.poll_event().is_none(), "the owner did not ask");
    assert_eq!(connection.poll_timeout(), Some(START + 11 * second));
    connection.handle_timeout(START + 11 * second).unwrap();
    assert_eq!(connection.handle_timeout(START + 13 * second), Err(Fatal::Silent));
}

#[test]
fn abort_ends_the_task_with_the_targets_answer() {
    let mut connection = connect(agreed());
    connection.submit(command(1, Transfer::Write(vec![7; 4096])));
    let write = ScsiCommand::parse(&take(&mut connection).unwrap().0).unwrap();
    give(&mut connection, r2t(write.itt, 0, 512, 1024), &[]).unwrap();
    connection.abort(CommandId(1));
    let request = TaskRequest::parse(&take(&mut connection).unwrap().0);
    assert_eq!((request.function, request.referenced), (Function::AbortTask, write.itt));
    assert_eq!((request.ref_cmd_sn, request.cmd_sn, request.immediate), (5, 6, true));
    assert!(take(&mut connection).is_none(), "no data for a task being aborted");
    let done =
        TaskResponse { outcome: TaskOutcome::Complete, itt: request.itt, numbers: numbers(100) };
    give(&mut connection, done.emit(), &[]).unwrap();
    let Some(Event::Done { result, .. }) = connection.poll_event() else { panic!("ended") };
    assert_eq!(result, Err(Failure::Aborted(TaskOutcome::Complete)));
    assert!(connection.is_empty());
}

#[test]
fn command_that_was_never_sent_is_aborted_at_once() {
    let mut connection = connect(agreed());
    connection.submit(command(1, Transfer::None));
    connection.abort(CommandId(1));
    let Some(Event::Done { result, .. }) = connection.poll_event() else { panic!("ended") };
    assert_eq!(result, Err(Failure::Unfinished { sent: false }));
    assert!(take(&mut connection).is_none());
}

#[test]
fn reset_of_a_unit_ends_its_tasks_only() {
    let mut connection = connect(agreed());
    connection.submit(command(1, Transfer::None));
    connection.submit(Command { lun: Lun::new(2), ..command(2, Transfer::None) });
    while take(&mut connection).is_some() {}
    connection.manage(Function::LogicalUnitReset, Lun::new(1));
    let itt = take(&mut connection).unwrap().0.itt();
    let done = TaskResponse { outcome: TaskOutcome::Complete, itt, numbers: numbers(100) };
    give(&mut connection, done.emit(), &[]).unwrap();
    let events: Vec<_> = std::iter::from_fn(|| connection.poll_event()).collect();
    assert!(matches!(
        &events[..],
        [Event::Done { id: CommandId(1), .. }, Event::Managed(_, TaskOutcome::Complete)]
    ));
    assert_eq!(
        connection.into_unfinished().map(|(c, sent)| (c.id.0, sent)).last(),
        Some((2, true))
    );
}

#[test]
fn text_in_pieces_is_asked_for_until_it_is_whole() {
    let mut connection = connect(agreed());
    connection.text(b"SendTargets=All\0".to_vec());
    let (bhs, data) = take(&mut connection).unwrap();
    let request = TextRequest::parse(&bhs.0).unwrap();
    assert_eq!(data, b"SendTargets=All\0");
    let piece = |last, ttt, stat_sn| TextResponse {
        last,
        continues: !last,
        data_len: 0,
        lun: 0,
        task_tag: request.task_tag,
        transfer_tag: ttt,
        stat_sn,
        exp_cmd_sn: 5,
        max_cmd_sn: 12,
    };
    give(&mut connection, Bhs(piece(false, 3, 100).emit()), b"TargetNa").unwrap();
    let more = TextRequest::parse(&take(&mut connection).unwrap().0.0).unwrap();
    assert_eq!((more.task_tag, more.transfer_tag), (request.task_tag, 3));
    give(&mut connection, Bhs(piece(true, TAG_NONE, 101).emit()), b"me=iqn\0").unwrap();
    assert_eq!(connection.poll_event(), Some(Event::Text(b"TargetName=iqn\0".to_vec())));
}

#[test]
fn refused_command_fails_and_the_connection_goes_on() {
    let mut connection = connect(agreed());
    connection.submit(command(1, Transfer::None));
    let (bhs, _) = take(&mut connection).unwrap();
    let reason = Some(RejectReason::CommandNotSupported);
    let reject = Reject { reason, numbers: numbers(100), data_sn: 0 };
    give(&mut connection, reject.emit(), &bhs.0).unwrap();
    let Some(Event::Done { result, .. }) = connection.poll_event() else { panic!("ended") };
    assert_eq!(result, Err(Failure::Rejected(reason)));
}

#[test]
fn async_message_and_logout_are_told() {
    let mut connection = connect(agreed());
    let event = AsyncEvent::LogoutRequest { within_s: 3 };
    let pdu = Async { lun: Lun(0), event, numbers: numbers(100) };
    give(&mut connection, pdu.emit(), &[]).unwrap();
    assert_eq!(connection.poll_event(), Some(Event::Async(event, Vec::new())));
    connection.logout();
    let itt = take(&mut connection).unwrap().0.itt();
    let (time_to_wait, time_to_retain) = (0, 0);
    let bye =
        LogoutResponse { response: 0, itt, numbers: numbers(101), time_to_wait, time_to_retain };
    give(&mut connection, bye.emit(), &[]).unwrap();
    assert_eq!(connection.poll_event(), Some(Event::LoggedOut(0)));
}

#[test]
fn a_target_that_breaks_the_rules_ends_the_connection() {
    let read = |transfer| {
        let mut connection = connect(Negotiated { immediate_data: false, ..agreed() });
        connection.submit(command(1, transfer));
        let itt = take(&mut connection).unwrap().0.itt();
        (connection, itt)
    };
    let cases: [(&str, Transfer<Vec<u8>>, Bhs, usize); 13] = [
        ("status number missing", Transfer::None, good(0, 101), 0),
        ("unknown task", Transfer::None, good(77, 100), 0),
        ("data beyond the end", Transfer::Read(vec![0; 512]), data_in(0, 0, 256, None), 512),
        ("DataSN skipped", Transfer::Read(vec![0; 512]), data_in(0, 1, 0, None), 512),
        ("data for a write", Transfer::Write(vec![0; 512]), data_in(0, 0, 0, None), 512),
        ("segment too long", Transfer::Read(vec![0; 4096]), data_in(0, 0, 0, None), 1028),
        ("R2T for a read", Transfer::Read(vec![0; 512]), r2t(0, 0, 0, 512), 0),
        ("R2T beyond the end", Transfer::Write(vec![0; 512]), r2t(0, 0, 256, 512), 0),
        ("R2T of nothing", Transfer::Write(vec![0; 512]), r2t(0, 0, 0, 0), 0),
        ("R2T past MaxBurst", Transfer::Write(vec![0; 4096]), r2t(0, 0, 0, 4096), 0),
        ("R2TSN skipped", Transfer::Write(vec![0; 512]), r2t(0, 1, 0, 512), 0),
        ("an initiator's PDU", Transfer::None, Bhs::new(Opcode::DataOut, 0), 0),
        ("an opcode nobody knows", Transfer::None, Bhs([0x1f; 48]).with_ahs_bytes(0), 0),
    ];
    for (name, transfer, bhs, data) in cases {
        let (mut connection, itt) = read(transfer);
        assert_eq!(itt, 0);
        let result = give(&mut connection, bhs, &vec![0; data]);
        assert!(result.is_err(), "{name}");
    }
    let (mut connection, _) = read(Transfer::Write(vec![0; 2048]));
    give(&mut connection, r2t(0, 0, 0, 512), &[]).unwrap();
    assert!(give(&mut connection, r2t(0, 1, 512, 512), &[]).is_err(), "MaxOutstandingR2T is 1");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_grow(stream: Vec<u8>, opcode in 0x20_u8..0x40, flags: u8) {
        let mut connection = connect(agreed());
        connection.submit(command(1, Transfer::Read(vec![0; 512])));
        connection.submit(command(2, Transfer::Write(vec![0; 2048])));
        while take(&mut connection).is_some() {}
        let mut bytes = [0; 48];
        bytes[0] = opcode;
        bytes[1] = flags;
        for (place, byte) in stream.iter().take(40).enumerate() {
            bytes[8 + place] = *byte;
        }
        let _ = connection.handle_bytes(START, &bytes);
        let _ = connection.handle_bytes(START, &stream);
        while take(&mut connection).is_some() {}
        prop_assert!(connection.gathered.len() <= 1024);
    }
}
