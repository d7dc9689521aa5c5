//! Recovery level 1: what was damaged is asked for again, what was lost is sent again.

use super::conduct::ping;
use super::*;
use crate::iscsi::pdu::snack::Snack;

fn recovering() -> Negotiated {
    Negotiated { recovery_level: 1, peer_segment_bytes_max: 512, burst_bytes_max: 1024, ..terms() }
}

fn snack(talk: &mut Talk, kind: u8, itt: u32, ttt: u32, begin: u32, run: u32) {
    let exp_stat_sn = talk.exp_stat_sn;
    let snack = Snack { kind, lun: Lun::new(0), itt, ttt, exp_stat_sn, begin, run };
    talk.send(snack.emit(), &[]);
}

/// The same but for the window.
fn same(again: &[Heard], sent: &[Heard]) -> bool {
    let but_window = |heard: &[Heard]| -> Vec<_> {
        heard.iter().map(|(bhs, data)| (bhs.put(28, [0; 8]), data.clone())).collect()
    };
    but_window(again) == but_window(sent)
}

fn reason(heard: &Heard) -> RejectReason {
    assert!(is(heard, Opcode::Reject), "{heard:?}");
    Reject::parse(&heard.0).reason.unwrap()
}

/// A PDU whose data is damaged on its way.
fn send_damaged(talk: &mut Talk, bhs: Bhs, data: &[u8]) {
    let mut bytes = talk.wire(bhs, data);
    *bytes.last_mut().unwrap() ^= 1;
    talk.conn.handle_bytes(&bytes, &mut talk.arena, talk.now);
}

/// A read of 2500 bytes that is answered from payload memory, with all that is sent for it.
fn read(talk: &mut Talk, itt: u32) -> Vec<Heard> {
    talk.command(itt, 2500, None);
    talk.expect_command();
    let mut segments = Segments::new();
    for len in [1000u32, 1500] {
        let mut slice = Slice::whole(talk.arena.alloc(len as usize).unwrap());
        slice.bytes_mut().iter_mut().zip(0u32..).for_each(|(byte, n)| {
            *byte = n.to_le_bytes()[0] ^ len.to_le_bytes()[0];
        });
        segments.push(slice);
    }
    let data = DataIn::Segments(segments);
    assert!(talk.conn.respond(itt, Response { data, wanted: 2500, ..good() }));
    talk.heard()
}

#[test]
fn a_response_is_sent_again_as_it_was_but_for_the_window() {
    let mut talk = Talk::logged_in(&recovering());
    ping(&mut talk, b"one");
    let first = talk.one();
    talk.command(1, 0, None);
    talk.expect_command();
    talk.good(1, 0);
    let second = talk.one();
    snack(&mut talk, 1, TAG_NONE, TAG_NONE, 8, 1);
    let again = talk.one();
    assert_eq!(again.1, b"one");
    assert_eq!(again.0.0[..28], first.0.0[..28], "StatSN and all before it");
    assert_eq!(Numbers::parse(&again.0).exp_cmd_sn, 101, "the window is today's");
    // Zero and zero: everything that is not acknowledged.
    snack(&mut talk, 1, TAG_NONE, TAG_NONE, 0, 0);
    let all = talk.heard();
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].0, second.0);
    // A status that is sent again uses up no number.
    ping(&mut talk, b"");
    assert_eq!(Numbers::parse(&talk.one().0).stat_sn, 10);
}

#[test]
fn what_was_acknowledged_or_never_sent_is_not_sent_again() {
    let mut talk = Talk::logged_in(&recovering());
    for _ in 0..3 {
        ping(&mut talk, b"");
        talk.one();
    }
    assert_eq!(talk.conn.kept().0, 3);
    talk.exp_stat_sn = 10;
    for (begin, run) in [(8, 1), (9, 2), (5000, 1), (5000, 0), (u32::MAX, 2), (10, u32::MAX)] {
        snack(&mut talk, 1, TAG_NONE, TAG_NONE, begin, run);
        assert_eq!(reason(&talk.one()), RejectReason::ProtocolError, "{begin} {run}");
    }
    snack(&mut talk, 1, TAG_NONE, TAG_NONE, 10, 1);
    assert!(is(&talk.one(), Opcode::NopIn));
    // A number that was not given yet acknowledges nothing.
    let kept = talk.conn.kept().0;
    talk.exp_stat_sn = 1000;
    ping(&mut talk, b"");
    assert_eq!(talk.conn.kept().0, kept);
}

#[test]
fn read_data_is_sent_again_until_its_status_is_acknowledged() {
    let mut talk = Talk::logged_in(&recovering());
    let sent = read(&mut talk, 1);
    // 512, 488 | 24 of the second piece end the burst | 512, 512 | 452; the status by itself.
    assert_eq!(sent.len(), 7);
    assert!(sent[..6].iter().all(|pdu| data::DataIn::parse(&pdu.0).unwrap().status.is_none()));
    let response = ScsiResponse::parse(&sent[6].0).unwrap();
    assert_eq!((response.exp_data_sn, response.numbers.stat_sn), (6, 8));
    snack(&mut talk, 0, 1, TAG_NONE, 1, 3);
    let again = talk.heard();
    assert_eq!(again.len(), 3);
    assert!(same(&again, &sent[1..4]));
    snack(&mut talk, 0, 1, TAG_NONE, 4, 0);
    assert!(same(&talk.heard(), &sent[4..6]));
    for (begin, run) in [(6, 1), (5, 2), (0, 7), (u32::MAX, 1), (6, 0)] {
        snack(&mut talk, 0, 1, TAG_NONE, begin, run);
        assert_eq!(reason(&talk.one()), RejectReason::ProtocolError, "{begin} {run}");
    }
    talk.exp_stat_sn = 9;
    ping(&mut talk, b"");
    talk.one();
    assert_eq!(talk.arena.in_use(), 0, "acknowledged, so given back");
    snack(&mut talk, 0, 1, TAG_NONE, 0, 0);
    assert_eq!(reason(&talk.one()), RejectReason::ProtocolError);
}

/// Each burst but the last asks for a DataACK; what is acknowledged is not kept.
#[test]
fn data_that_is_acknowledged_is_given_back_and_not_sent_again() {
    let mut talk = Talk::logged_in(&recovering());
    let sent = read(&mut talk, 1);
    let pdus: Vec<_> = sent[..6].iter().map(|pdu| data::DataIn::parse(&pdu.0).unwrap()).collect();
    let asks: Vec<_> = pdus.iter().map(|pdu| pdu.acknowledge).collect();
    assert_eq!(asks, [false, false, true, false, true, false]);
    let ttt = pdus[2].ttt;
    assert_eq!((ttt == TAG_NONE, pdus[2].lun), (false, Lun::new(0)));
    for (itt, tag, begin, run) in
        [(1, ttt ^ 1, 3, 0), (2, ttt, 3, 0), (1, ttt, 7, 0), (1, ttt, 3, 1)]
    {
        snack(&mut talk, 2, itt, tag, begin, run);
        assert_eq!(reason(&talk.one()), RejectReason::InvalidDataAck);
    }
    let (_, kept) = talk.conn.kept();
    snack(&mut talk, 2, 1, ttt, 3, 0);
    assert!(talk.heard().is_empty());
    assert_eq!(talk.conn.kept().1, kept - 1000, "the first piece is done with");
    assert_eq!(talk.arena.in_use(), 1500);
    snack(&mut talk, 0, 1, TAG_NONE, 2, 1);
    assert_eq!(reason(&talk.one()), RejectReason::ProtocolError);
    snack(&mut talk, 0, 1, TAG_NONE, 3, 0);
    assert!(same(&talk.heard(), &sent[3..6]));
}

#[test]
fn damaged_write_data_is_rejected_and_asked_for_again() {
    let terms = Negotiated { data_digest: Digest::Crc32c, ..recovering() };
    let mut talk = Talk::logged_in(&terms);
    let bytes: Vec<u8> = (0..1024u32).map(|n| n.to_le_bytes()[0]).collect();
    talk.command(1, 1024, Some((&[], false)));
    talk.expect_command();
    talk.conn.begin_data_out(1, 1024, &mut talk.arena);
    let first = R2t::parse(&talk.one().0);
    let (lun, itt, ttt, exp_stat_sn) = (Lun::new(0), 1, first.ttt, 0);
    let pdu = DataOut { is_final: false, lun, itt, ttt, exp_stat_sn, data_sn: 0, offset: 0 };
    send_damaged(&mut talk, pdu.emit(), &bytes[..400]);
    assert_eq!(reason(&talk.one()), RejectReason::DataDigestError);
    talk.data_out(1, ttt, 1, 400, &bytes[400..], true);
    assert!(talk.conn.poll().is_none(), "it is not complete");
    let second = R2t::parse(&talk.one().0);
    assert_eq!((second.offset, second.bytes, second.r2t_sn), (0, 400, 1));
    talk.data_out(1, second.ttt, 0, 0, &bytes[..400], true);
    assert_eq!(talk.gathered(), bytes);
    talk.good(1, 1024);
    assert_eq!(ScsiResponse::parse(&talk.one().0).unwrap().exp_data_sn, 2);
}

/// 7.7: the initiator retries the command, whose number is still expected.
#[test]
fn a_command_with_damaged_data_is_as_if_it_never_came() {
    let terms = Negotiated { data_digest: Digest::Crc32c, ..recovering() };
    let mut talk = Talk::logged_in(&terms);
    let command = ScsiCommand {
        immediate: false,
        is_final: true,
        read: false,
        write: true,
        attribute: Attribute::Simple,
        lun: Lun::new(0),
        itt: 1,
        edtl: 512,
        cmd_sn: 100,
        exp_stat_sn: 0,
        cdb: [0x2a; 16],
    };
    send_damaged(&mut talk, command.emit(), &[7; 512]);
    assert!(talk.conn.poll().is_none());
    let rejected = talk.one();
    assert_eq!(reason(&rejected), RejectReason::DataDigestError);
    assert_eq!(Numbers::parse(&rejected.0).exp_cmd_sn, 100);
    assert_eq!(talk.arena.in_use(), 0);
    talk.command_numbered(101, 2, 0, None);
    assert!(talk.conn.poll().is_none(), "it waits for its turn");
    talk.send(command.emit(), &[7; 512]);
    assert_eq!(talk.expect_command().itt, 1);
    assert_eq!(talk.expect_command().itt, 2);
    // The same again is a duplicate.
    talk.send(command.emit(), &[7; 512]);
    assert!(talk.conn.poll().is_none() && talk.heard().is_empty());
}

#[test]
fn a_damaged_ping_is_as_if_it_never_came() {
    let terms = Negotiated { data_digest: Digest::Crc32c, ..recovering() };
    let mut talk = Talk::logged_in(&terms);
    let (lun, ttt, exp_stat_sn) = (Lun(0), TAG_NONE, 0);
    let nop = NopOut { immediate: false, lun, itt: 5, ttt, cmd_sn: 100, exp_stat_sn };
    send_damaged(&mut talk, nop.emit(), b"ping");
    assert_eq!(Numbers::parse(&talk.one().0).exp_cmd_sn, 100);
    talk.send(nop.emit(), b"ping");
    assert_eq!(talk.one().1, b"ping");
}

#[test]
fn an_r2t_is_sent_again_until_its_data_has_come() {
    let mut talk = Talk::logged_in(&recovering());
    talk.command(1, 2048, Some((&[], false)));
    talk.expect_command();
    talk.conn.begin_data_out(1, 2048, &mut talk.arena);
    let first = talk.one();
    snack(&mut talk, 0, 1, TAG_NONE, 0, 1);
    assert_eq!(talk.one().0, first.0);
    let r2t = R2t::parse(&first.0);
    talk.data_out(1, r2t.ttt, 0, 0, &[1; 1024], true);
    let second = talk.one();
    snack(&mut talk, 0, 1, TAG_NONE, 0, 1);
    assert_eq!(reason(&talk.one()), RejectReason::ProtocolError, "its data has come");
    snack(&mut talk, 0, 1, TAG_NONE, 0, 0);
    let again = talk.one();
    assert_eq!(
        (R2t::parse(&again.0).r2t_sn, R2t::parse(&again.0).ttt),
        (R2t::parse(&second.0).r2t_sn, R2t::parse(&second.0).ttt)
    );
    snack(&mut talk, 0, 1, TAG_NONE, 2, 1);
    assert_eq!(reason(&talk.one()), RejectReason::ProtocolError, "it was never sent");
}

#[test]
fn read_data_is_given_up_when_memory_is_short_and_a_snack_for_it_rejected() {
    let mut talk = Talk::logged_in(&recovering());
    read(&mut talk, 1);
    assert_eq!(talk.arena.in_use(), 2500);
    talk.conn.forget_reads();
    assert_eq!((talk.arena.in_use(), talk.conn.kept()), (0, (1, 0)));
    snack(&mut talk, 0, 1, TAG_NONE, 0, 0);
    assert_eq!(reason(&talk.one()), RejectReason::SnackReject);
    // Its status is still there.
    snack(&mut talk, 1, TAG_NONE, TAG_NONE, 8, 1);
    assert!(is(&talk.one(), Opcode::ScsiResponse));
}

#[test]
fn data_is_never_cut_anew_and_unknown_kinds_are_refused() {
    let mut talk = Talk::logged_in(&recovering());
    read(&mut talk, 1);
    snack(&mut talk, 3, 1, 0, 0, 0);
    assert_eq!(reason(&talk.one()), RejectReason::SnackReject);
    snack(&mut talk, 9, 1, TAG_NONE, 0, 0);
    assert_eq!(reason(&talk.one()), RejectReason::InvalidPduField);
    // Below level 1 there is nothing to be had.
    let mut talk = Talk::logged_in(&terms());
    snack(&mut talk, 1, TAG_NONE, TAG_NONE, 0, 0);
    assert_eq!(reason(&talk.one()), RejectReason::SnackReject);
    assert_eq!(talk.conn.kept(), (0, 0));
}

/// Nothing piles up for an initiator that acknowledges nothing, or asks without end.
#[test]
fn what_is_kept_is_bounded() {
    let mut talk = Talk::logged_in(&recovering());
    let mut pings = 0;
    while !talk.conn.is_closed() {
        ping(&mut talk, &[1; 300]);
        talk.heard();
        pings += 1;
        assert!(pings < 2000);
    }
    let why = std::iter::from_fn(|| talk.conn.poll()).last();
    assert!(matches!(why, Some(Event::Closed(Closed::Fault(Fault::Unacknowledged)))));

    let mut talk = Talk::logged_in(&recovering());
    talk.arena = HeapArena::new(64 << 20);
    for itt in 1..20 {
        talk.command(itt, 1 << 20, None);
        talk.expect_command();
        let slices = (0..4).map(|_| Slice::whole(talk.arena.alloc(256 * 1024).unwrap()));
        let data = DataIn::Segments(slices.collect());
        talk.conn.respond(itt, Response { data, wanted: 1 << 20, ..good() });
        talk.heard();
        assert!(talk.arena.in_use() <= 4 << 20);
    }
    assert_eq!(talk.conn.kept().1, 4 << 20);
    while talk.conn.wants_read() {
        snack(&mut talk, 0, 19, TAG_NONE, 0, 0);
    }
    assert_eq!(talk.heard().len(), 8 * 2048, "eight replays, and it is read again");
    assert!(talk.conn.wants_read());
}

/// A read of the socket may hold a thousand of them: each could ask for all responses there are.
#[test]
fn snacks_that_come_together_do_not_multiply_what_waits_to_be_sent() {
    let mut talk = Talk::logged_in(&recovering());
    for _ in 0..200 {
        ping(&mut talk, b"");
        talk.one();
    }
    for _ in 0..1000 {
        snack(&mut talk, 1, TAG_NONE, TAG_NONE, 0, 0);
    }
    let heard = talk.heard();
    let rejected = heard.iter().filter(|one| is(one, Opcode::Reject)).count();
    assert_eq!((heard.len() - rejected, rejected), (200, 999));
}

#[test]
fn nothing_of_an_aborted_task_is_sent_again() {
    let mut talk = Talk::logged_in(&recovering());
    talk.command(1, 1000, None);
    talk.expect_command();
    talk.conn.respond(1, Response { data: vec![1; 1000].into(), wanted: 1000, ..good() });
    assert_eq!(
        data::DataIn::parse(
            &talk
                .conn
                .poll_transmit()
                .map(|out| {
                    talk.framer = Framer::new();
                    Bhs(out.header().try_into().unwrap())
                })
                .unwrap()
        )
        .unwrap()
        .data_sn,
        0
    );
    snack(&mut talk, 0, 1, TAG_NONE, 0, 1);
    assert!(talk.conn.abort(1));
    assert!(talk.heard().is_empty());
}
