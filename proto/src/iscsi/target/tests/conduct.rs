//! Order, refusals, task management, pings: what the initiator may and may not do.

use super::*;

#[test]
fn commands_come_in_order_and_those_outside_the_window_are_silently_dropped() {
    let mut talk = Talk::logged_in(&terms());
    talk.command_numbered(104, 9, 0, None); // above MaxCmdSN
    talk.command_numbered(99, 9, 0, None); // below ExpCmdSN
    talk.command_numbered(101, 2, 0, None); // early
    talk.command_numbered(101, 9, 0, None); // the same number again
    assert!(talk.conn.poll().is_none());
    talk.command_numbered(100, 1, 0, None);
    assert_eq!(talk.expect_command().itt, 1);
    assert_eq!(talk.expect_command().itt, 2);
    assert!(talk.conn.poll().is_none() && talk.heard().is_empty());
}

#[test]
fn window_is_closed_by_work_outstanding_and_never_goes_back() {
    let mut talk = Talk::logged_in(&terms());
    for itt in 1..=4 {
        talk.command(itt, 0, None);
        talk.expect_command();
    }
    talk.command(5, 0, None);
    assert!(talk.conn.poll().is_none(), "the window is full");
    talk.good(2, 0);
    let numbers = ScsiResponse::parse(&talk.one().0).unwrap().numbers;
    assert_eq!((numbers.exp_cmd_sn, numbers.max_cmd_sn), (104, 104));
}

/// tgt wrote outside its buffer; LIO, libiscsi's tests: DataSN.
#[test]
fn data_outside_what_was_asked_for_is_rejected_and_fails_the_write_only() {
    for (other_tag, offset, bytes) in
        [(0, 1 << 30, 512), (0, 3840, 512), (0, u32::MAX, 512), (0, 0, 4608), (1, 0, 512)]
    {
        let mut talk = Talk::logged_in(&terms());
        talk.command(1, 4096, Some((&[], false)));
        talk.expect_command();
        talk.conn.begin_data_out(1, 4096, &mut talk.arena);
        let r2t = R2t::parse(&talk.one().0);
        talk.data_out(1, r2t.ttt ^ other_tag, 0, offset, &vec![1; bytes], false);
        let event = talk.conn.poll();
        let failed = matches!(event, Some(Event::DataFailed { itt: 1, fault: TaskFault::Data }));
        assert!(failed, "{other_tag} {offset} {bytes}: {event:?}");
        let (bhs, data) = talk.one();
        assert_eq!(Reject::parse(&bhs).reason, Some(RejectReason::ProtocolError));
        assert_eq!((data.len(), data[0]), (48, 0x05));
        talk.data_out(1, r2t.ttt, 0, 0, &[1; 4096], true);
        assert!(talk.heard().is_empty() && talk.conn.poll().is_none());
        talk.good(1, 0);
        assert!(is(&talk.one(), Opcode::ScsiResponse));
        talk.command(2, 0, None);
        assert_eq!(talk.expect_command().itt, 2);
    }
}

/// libiscsi takes a Reject that names a command already answered for a broken connection.
#[test]
fn data_is_rejected_before_its_command_is_answered_however_the_stream_was_cut() {
    let mut talk = Talk::logged_in(&terms());
    talk.command(1, 4096, Some((&[], false)));
    talk.expect_command();
    talk.conn.begin_data_out(1, 4096, &mut talk.arena);
    let ttt = R2t::parse(&talk.one().0).ttt;
    let lun = Lun::new(0);
    let (itt, data_sn, offset) = (1, 27, 0);
    let pdu = DataOut { is_final: true, lun, itt, ttt, exp_stat_sn: 0, data_sn, offset };
    let wire = talk.wire(pdu.emit(), &[1; 4096]);
    let mut heard = Vec::new();
    for part in [&wire[..48], &wire[48..]] {
        talk.conn.handle_bytes(part, &mut talk.arena, talk.now);
        while let Some(event) = talk.conn.poll() {
            assert!(matches!(event, Event::DataFailed { itt: 1, .. }));
            talk.good(1, 0);
        }
        heard.extend(talk.heard());
    }
    let opcodes: Vec<_> = heard.iter().map(|(bhs, _)| bhs.opcode()).collect();
    assert_eq!(opcodes, [Some(Opcode::Reject), Some(Opcode::ScsiResponse)]);
}

#[test]
fn wrong_data_digest_fails_the_command_and_the_stream_goes_on() {
    let mut talk = Talk::logged_in(&Negotiated { data_digest: Digest::Crc32c, ..terms() });
    talk.digests.1 = false;
    // Without its digest the PDU is short by four bytes: send wrong ones.
    talk.command(1, 4, Some((&[1, 2, 3, 4], false)));
    talk.conn.handle_bytes(&[0; 4], &mut talk.arena, talk.now);
    let command = talk.expect_command();
    assert_eq!(command.fault, Some(TaskFault::DataDigest));
    assert_eq!(Reject::parse(&talk.one().0).reason, Some(RejectReason::DataDigestError));
    talk.command(2, 0, None);
    assert_eq!(talk.expect_command().fault, None);
}

#[test]
fn wrong_header_digest_ends_the_connection() {
    let mut talk = Talk::logged_in(&Negotiated { header_digest: Digest::Crc32c, ..terms() });
    talk.digests.0 = false;
    talk.command(1, 0, None);
    talk.conn.handle_bytes(&[0; 4], &mut talk.arena, talk.now);
    assert!(matches!(talk.conn.poll(), Some(Event::Closed(Closed::Fault(Fault::HeaderDigest(_))))));
    assert!(talk.conn.is_closed());
}

#[test]
fn no_memory_for_immediate_data_never_blocks_the_stream() {
    let mut talk = Talk::logged_in(&terms());
    talk.arena = HeapArena::new(100);
    talk.command(1, 8192, Some((&[5; 4096], true)));
    assert_eq!(talk.expect_command().fault, Some(TaskFault::NoMemory));
    talk.data_out(1, TAG_NONE, 0, 4096, &[5; 4096], true);
    ping(&mut talk, b"still here");
    assert_eq!(talk.one().1, b"still here");
}

#[test]
fn r2t_waits_for_memory_in_order() {
    let mut talk = Talk::logged_in(&terms());
    talk.arena = HeapArena::new(4096);
    let kept = talk.arena.alloc(4096).unwrap();
    for itt in [1, 2] {
        talk.command(itt, 4096, Some((&[], false)));
        talk.expect_command();
        talk.conn.begin_data_out(itt, 4096, &mut talk.arena);
    }
    talk.conn.memory_returned(&mut talk.arena);
    assert_eq!((talk.heard().len(), talk.conn.starved()), (0, 2));
    drop(kept);
    talk.conn.memory_returned(&mut talk.arena);
    assert_eq!((talk.one().0.itt(), talk.conn.starved()), (1, 1));
    assert!(talk.conn.abort(1));
    talk.conn.memory_returned(&mut talk.arena);
    assert_eq!(talk.one().0.itt(), 2);
}

pub(super) fn ping(talk: &mut Talk, data: &[u8]) {
    let nop = NopOut {
        immediate: true,
        lun: Lun(0),
        itt: 0x77,
        ttt: TAG_NONE,
        cmd_sn: talk.cmd_sn,
        exp_stat_sn: talk.exp_stat_sn,
    };
    talk.send(nop.emit(), data);
}

#[test]
fn ping_is_echoed_up_to_what_the_initiator_takes_and_uses_up_a_stat_sn() {
    let mut talk = Talk::logged_in(&Negotiated { peer_segment_bytes_max: 512, ..terms() });
    ping(&mut talk, &[3; 600]);
    let (bhs, data) = talk.one();
    let nop = NopIn::parse(&bhs);
    assert_eq!((nop.itt, nop.ttt, nop.numbers.stat_sn), (0x77, TAG_NONE, 8));
    assert_eq!(data, [3; 512]);
    ping(&mut talk, b"");
    assert_eq!(NopIn::parse(&talk.one().0).numbers.stat_sn, 9);
}

#[test]
fn silent_initiator_is_pinged_and_then_taken_for_dead() {
    let mut talk = Talk::logged_in(&terms());
    talk.now = talk.conn.poll_timeout().unwrap();
    talk.conn.handle_timeout(talk.now);
    let nop = NopIn::parse(&talk.one().0);
    assert_eq!((nop.itt, nop.numbers.stat_sn), (TAG_NONE, 8));
    assert_ne!(nop.ttt, TAG_NONE);
    // Any byte proves life, and the next ping shows that no StatSN was used up.
    ping(&mut talk, b"");
    assert_eq!(NopIn::parse(&talk.one().0).numbers.stat_sn, 8);
    for _ in 0..2 {
        talk.now = talk.conn.poll_timeout().unwrap();
        talk.conn.handle_timeout(talk.now);
    }
    assert!(matches!(talk.conn.poll(), Some(Event::Closed(Closed::PeerDead))));
}

#[test]
fn half_open_login_times_out() {
    let mut talk = Talk::fresh(0);
    let due = talk.conn.poll_timeout().unwrap();
    talk.conn.handle_timeout(due);
    assert!(matches!(talk.conn.poll(), Some(Event::Closed(Closed::LoginTimeout))));
}

#[test]
fn anything_but_a_login_before_it_ends_the_connection() {
    let mut talk = Talk::fresh(1 << 20);
    talk.command(1, 0, None);
    assert!(matches!(talk.conn.poll(), Some(Event::Closed(Closed::Fault(Fault::NotLogin)))));
}

/// tgt closes on SNACK and on opcodes it does not know.
#[test]
fn refused_pdus_leave_the_connection_usable() {
    let mut talk = Talk::logged_in(&terms());
    for (bhs, reason) in [
        (Bhs::new(Opcode::Snack, FINAL), RejectReason::SnackReject),
        (Bhs([0x1c; 48]).with_ahs_bytes(0), RejectReason::CommandNotSupported),
        (Bhs::new(Opcode::NopIn, FINAL), RejectReason::CommandNotSupported),
        (Bhs::new(Opcode::LoginRequest, FINAL), RejectReason::ProtocolError),
        (Bhs::new(Opcode::LogoutRequest, 0x83), RejectReason::InvalidPduField),
    ] {
        talk.send(bhs, &[]);
        let (heard, data) = talk.one();
        assert_eq!(Reject::parse(&heard).reason, Some(reason));
        assert_eq!(data, bhs.with_data_bytes(0).0);
    }
    talk.command(1, 0, None);
    assert_eq!(talk.expect_command().itt, 1);
}

#[test]
fn refused_command_uses_up_its_number() {
    let mut talk = Talk::logged_in(&terms());
    talk.command(1, 0, None);
    talk.command(1, 0, None); // the tag is in use
    talk.command(2, 0, None);
    assert_eq!((talk.expect_command().itt, talk.expect_command().itt), (1, 2));
    assert_eq!(Reject::parse(&talk.one().0).reason, Some(RejectReason::ProtocolError));
}

#[test]
fn abort_of_a_command_not_yet_received_completes_and_discards_it() {
    let mut talk = Talk::logged_in(&terms());
    talk.cmd_sn = 101;
    talk.task(Function::AbortTask, 5, 100);
    let response = TaskResponse::parse(&talk.one().0);
    assert_eq!((response.outcome, response.numbers.exp_cmd_sn), (TaskOutcome::Complete, 101));
    talk.command_numbered(100, 5, 0, None);
    assert!(talk.conn.poll().is_none());
    talk.command(6, 0, None);
    assert_eq!(talk.expect_command().itt, 6);
}

#[test]
fn abort_of_nothing_says_so() {
    let mut talk = Talk::logged_in(&terms());
    talk.task(Function::AbortTask, 5, 99);
    assert_eq!(TaskResponse::parse(&talk.one().0).outcome, TaskOutcome::NoSuchTask);
}

#[test]
fn abort_of_a_tag_that_came_under_another_number_changes_nothing() {
    let mut talk = Talk::logged_in(&terms());
    talk.cmd_sn = 103;
    talk.command_numbered(101, 5, 0, None);
    talk.task(Function::AbortTask, 5, 102);
    assert_eq!(TaskResponse::parse(&talk.one().0).outcome, TaskOutcome::NoSuchTask);
    talk.command_numbered(100, 6, 0, None);
    assert_eq!((talk.expect_command().itt, talk.expect_command().itt), (6, 5));
}

#[test]
fn command_that_waits_for_its_turn_is_not_the_servers_to_abort() {
    let mut talk = Talk::logged_in(&terms());
    talk.command_numbered(101, 5, 0, None);
    assert!(!talk.conn.abort(5));
    talk.command_numbered(100, 6, 0, None);
    assert_eq!((talk.expect_command().itt, talk.expect_command().itt), (6, 5));
}

#[test]
fn nothing_is_sent_for_an_aborted_command() {
    let mut talk = Talk::logged_in(&terms());
    talk.command(1, 9000, None);
    talk.expect_command();
    talk.conn.respond(1, Response { data: vec![0; 9000].into(), wanted: 9000, ..good() });
    assert!(talk.conn.poll_transmit().is_some());
    talk.task(Function::AbortTask, 1, 100);
    assert!(matches!(talk.conn.poll(), Some(Event::Task(_))));
    assert!(talk.conn.abort(1));
    assert!(!talk.conn.respond(1, good()));
    assert!(talk.conn.task_response(0x999, TaskOutcome::Complete));
    let response = TaskResponse::parse(&talk.conn.control[0].bhs);
    assert_eq!(response.itt, 0x999);
    let out = talk.conn.poll_transmit().unwrap();
    assert_eq!(out.header()[0], Opcode::TaskResponse as u8);
    assert!(talk.conn.poll_transmit().is_none());
}

#[test]
fn initiator_that_never_reads_is_not_read_either() {
    let mut talk = Talk::logged_in(&terms());
    for _ in 0..QUEUE_PDUS_MAX {
        assert!(talk.conn.wants_read());
        ping(&mut talk, b"");
    }
    assert!(!talk.conn.wants_read());
    talk.heard();
    assert!(talk.conn.wants_read());
}

#[test]
fn immediate_commands_are_bounded() {
    let mut talk = Talk::logged_in(&terms());
    for itt in 1..=9 {
        let wire = ScsiCommand {
            immediate: true,
            is_final: true,
            read: false,
            write: false,
            attribute: Attribute::Simple,
            lun: Lun(0),
            itt,
            edtl: 0,
            cmd_sn: 100,
            exp_stat_sn: 0,
            cdb: [0; 16],
        };
        talk.send(wire.emit(), &[]);
    }
    let reject = Reject::parse(&talk.one().0);
    assert_eq!(reject.reason, Some(RejectReason::ImmediateCommandReject));
    assert_eq!(talk.conn.tasks().count(), IMMEDIATE_MAX);
}

#[test]
fn logout_is_the_last_thing() {
    let mut talk = Talk::logged_in(&terms());
    let bhs = Bhs::new(Opcode::LogoutRequest, FINAL).with_immediate(true).put_u32(16, 4);
    talk.send(bhs, &[]);
    let Some(Event::Logout(request)) = talk.conn.poll() else { panic!("no logout") };
    assert!(!talk.conn.wants_read());
    talk.command(1, 0, None);
    talk.conn.logout_response(request.itt, logout::CLOSED);
    assert!(is(&talk.one(), Opcode::LogoutResponse));
    assert!(matches!(talk.conn.poll(), Some(Event::Closed(Closed::LoggedOut))));
}

proptest! {
    #[test]
    fn no_stream_makes_it_panic_or_hold_more_than_its_bounds(
        pdus in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 48), 0u32..300),
            1..40,
        ),
        piece in 1usize..200,
    ) {
        let mut talk = Talk::logged_in(&terms());
        for (kind, bytes, len) in pdus {
            let opcode = [0u8, 1, 2, 4, 5, 6, 0x10, 0x41, 0x42, 0x40][usize::from(kind) % 10];
            let mut bhs = Bhs(bytes.try_into().unwrap()).with_ahs_bytes(0);
            bhs.0[0] = opcode;
            // Small tags and numbers in the window, so that PDUs meet.
            let itt = bhs.itt() % 4;
            let sn = 98 + bhs.u32_at(24) % 8;
            let bhs = bhs.put_u32(16, itt).put_u32(24, sn);
            let wire = talk.wire(bhs, &vec![0x55; len as usize]);
            for part in wire.chunks(piece) {
                talk.conn.handle_bytes(part, &mut talk.arena, talk.now);
            }
            while let Some(event) = talk.conn.poll() {
                match event {
                    Event::Elsewhere(..) | Event::Passed(_) => panic!("there is one connection"),
                    Event::Command(c) => talk.conn.begin_data_out(c.itt, 2048, &mut talk.arena),
                    Event::Task(t) => {
                        talk.conn.abort(t.referenced);
                        talk.conn.task_response(t.itt, TaskOutcome::Complete);
                    }
                    Event::DataOut { itt, .. } | Event::DataFailed { itt, .. } => {
                        talk.conn.respond(itt, good());
                    }
                    Event::Logout(l) => talk.conn.logout_response(l.itt, logout::CID_NOT_FOUND),
                    Event::Text(..) | Event::Login(..) | Event::Closed(_) => {}
                }
            }
            if kind % 3 == 0 {
                talk.heard();
            }
            prop_assert!(talk.conn.tasks.len() <= WINDOW as usize + IMMEDIATE_MAX);
            prop_assert!(talk.conn.order.active <= WINDOW);
            prop_assert!(talk.conn.order.held.len() <= WINDOW as usize);
        }
    }
}

/// A command of these flags and additional headers, in its turn.
fn extended(talk: &mut Talk, read: bool, write: bool, edtl: u32, ahs: &[u8]) {
    let command = ScsiCommand {
        immediate: false,
        is_final: true,
        read,
        write,
        attribute: Attribute::Simple,
        lun: Lun::new(0),
        itt: 1,
        edtl,
        cmd_sn: talk.cmd_sn,
        exp_stat_sn: 0,
        cdb: [0x7f; 16],
    };
    talk.cmd_sn += 1;
    let mut bytes = command.emit().with_ahs_bytes(ahs.len()).0.to_vec();
    bytes.extend(ahs);
    talk.conn.handle_bytes(&bytes, &mut talk.arena, talk.now);
}

#[test]
fn a_cdb_longer_than_16_bytes_comes_whole() {
    use crate::iscsi::ahs::Ahs;
    let mut talk = Talk::logged_in(&terms());
    let tail: Vec<u8> = (16..32).collect();
    let ahs = Ahs { cdb_tail: &tail, read_bytes: None }.emit();
    extended(&mut talk, true, false, 512, &ahs);
    let command = talk.expect_command();
    assert_eq!((command.cdb.len(), &command.cdb[16..]), (32, &tail[..]));
    assert_eq!(command.fault, None);
}

#[test]
fn additional_headers_that_overrun_are_rejected_and_the_stream_goes_on() {
    let mut talk = Talk::logged_in(&terms());
    extended(&mut talk, true, false, 512, &[0, 200, 1, 0]);
    assert_eq!(Reject::parse(&talk.one().0).reason, Some(RejectReason::InvalidPduField));
    talk.command(2, 0, None);
    assert_eq!(talk.expect_command().itt, 2);
}

/// RFC 7143 11.4.5: nothing of either direction was moved, and the response says so of both.
#[test]
fn a_command_that_would_read_and_write_is_answered_with_both_residuals() {
    use crate::iscsi::ahs::Ahs;
    let mut talk = Talk::logged_in(&terms());
    let ahs = Ahs { cdb_tail: &[], read_bytes: Some(4096) }.emit();
    extended(&mut talk, true, true, 512, &ahs);
    assert_eq!(talk.expect_command().fault, Some(TaskFault::Bidirectional));
    let sense = Box::from([0x70, 0, 5]);
    talk.conn.respond(1, Response { status: 2, sense, ..good() });
    let response = ScsiResponse::parse(&talk.one().0).unwrap();
    assert_eq!(response.residual, Residual::Underflow(512));
    assert_eq!(response.bidirectional_residual, Residual::Underflow(4096));
}

/// Four R2Ts at most are open, whatever more the initiator would take, and their data may come in
/// any order of R2Ts.
#[test]
fn several_r2ts_are_open_at_a_time() {
    for (agreed, open) in [(1, 1), (2, 2), (4, 4), (100, 4)] {
        let terms = Negotiated { outstanding_r2t_max: agreed, burst_bytes_max: 1024, ..terms() };
        let mut talk = Talk::logged_in(&terms);
        talk.command(1, 8192, Some((&[], false)));
        talk.expect_command();
        talk.conn.begin_data_out(1, 8192, &mut talk.arena);
        let mut r2ts: Vec<_> = talk.heard().iter().map(|(bhs, _)| R2t::parse(bhs)).collect();
        assert_eq!(r2ts.len(), open);
        let (mut done, mut sn) = (0, 0);
        while let Some(r2t) = r2ts.pop() {
            sn = sn.max(r2t.r2t_sn);
            let bytes = vec![u8::try_from(r2t.offset / 1024).unwrap(); 1024];
            talk.data_out(1, r2t.ttt, 0, r2t.offset, &bytes, true);
            r2ts.extend(talk.heard().iter().map(|(bhs, _)| R2t::parse(bhs)));
            assert!(r2ts.len() <= open);
            done += 1;
        }
        assert_eq!((done, sn), (8, 7));
        let bytes = talk.gathered();
        assert!((0..8u8).all(|at| bytes[usize::from(at) * 1024] == at));
    }
}

#[test]
fn data_pdus_come_in_any_order_where_that_was_agreed() {
    let any = Negotiated { data_pdu_in_order: false, data_sequence_in_order: false, ..terms() };
    let mut talk = Talk::logged_in(&any);
    talk.command(1, 2048, Some((&[], false)));
    talk.expect_command();
    talk.conn.begin_data_out(1, 2048, &mut talk.arena);
    let ttt = R2t::parse(&talk.one().0).ttt;
    talk.data_out(1, ttt, 0, 1024, &[2; 1024], false);
    assert!(talk.conn.poll().is_none());
    talk.data_out(1, ttt, 1, 0, &[1; 1024], true);
    let bytes = talk.gathered();
    assert_eq!((bytes[0], bytes[1024]), (1, 2));
    // Without the agreement the same is refused.
    let mut talk = Talk::logged_in(&terms());
    talk.command(1, 2048, Some((&[], false)));
    talk.expect_command();
    talk.conn.begin_data_out(1, 2048, &mut talk.arena);
    let ttt = R2t::parse(&talk.one().0).ttt;
    talk.data_out(1, ttt, 0, 1024, &[2; 1024], false);
    assert!(matches!(talk.conn.poll(), Some(Event::DataFailed { fault: TaskFault::Data, .. })));
}
