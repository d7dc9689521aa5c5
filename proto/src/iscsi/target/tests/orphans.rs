//! Tasks that go from a connection that is lost to another one.

use super::*;

fn level_2() -> Negotiated {
    Negotiated { recovery_level: 2, peer_segment_bytes_max: 512, burst_bytes_max: 1024, ..terms() }
}

/// The connection is lost: what it leaves, once the server was told.
fn lost(talk: &mut Talk) -> Orphans<HeapBuffer> {
    talk.conn.close(Closed::Lost);
    while let Some(event) = talk.conn.poll() {
        if let Event::Closed(why) = event {
            assert_eq!(why, Closed::Lost);
        }
    }
    talk.conn.take_orphans().unwrap()
}

fn pattern(len: u32) -> Vec<u8> {
    (0..len).map(|n| (n ^ n >> 8).to_le_bytes()[0]).collect()
}

/// Answers R2Ts until none comes.
fn answer_r2ts(talk: &mut Talk, itt: u32, bytes: &[u8]) {
    loop {
        let heard = talk.heard();
        if heard.is_empty() {
            return;
        }
        for r2t in heard.iter().map(|pdu| R2t::parse(&pdu.0)) {
            let (from, to) = (r2t.offset as usize, (r2t.offset + r2t.bytes) as usize);
            talk.data_out(itt, r2t.ttt, 0, r2t.offset, &bytes[from..to], true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    /// Immediate, unsolicited and solicited data, in one stream that is cut at any byte.
    #[test]
    fn a_write_is_whole_wherever_its_connection_was_cut(
        cut in 0usize..3200,
        in_order: bool,
        piece in 1usize..600,
        shortage: bool,
    ) {
        let agreed = Negotiated { data_pdu_in_order: in_order, ..level_2() };
        let mut talk = Talk::logged_in(&agreed);
        let bytes = pattern(2500);
        let lun = Lun::new(0);
        let command = ScsiCommand {
            immediate: false,
            is_final: false,
            read: false,
            write: true,
            attribute: Attribute::Simple,
            lun,
            itt: 1,
            edtl: 2500,
            cmd_sn: 100,
            exp_stat_sn: 0,
            cdb: [0x2a; 16],
        };
        let out = |ttt, data_sn, offset, is_final| {
            DataOut { is_final, lun, itt: 1, ttt, exp_stat_sn: 0, data_sn, offset }.emit()
        };
        let mut stream = talk.wire(command.emit(), &bytes[..300]);
        stream.extend(talk.wire(out(TAG_NONE, 0, 300, false), &bytes[300..700]));
        stream.extend(talk.wire(out(TAG_NONE, 1, 700, true), &bytes[700..1100]));
        let parts = if in_order { [1100..1500, 1500..2124] } else { [1500..2124, 1100..1500] };
        let (mut begun, mut left) = (false, cut);
        while left > 0 && !stream.is_empty() {
            let now = stream.len().min(left);
            left -= now;
            for part in stream[..now].chunks(piece) {
                talk.conn.handle_bytes(part, &mut talk.arena, talk.now);
                while let Some(event) = talk.conn.poll() {
                    prop_assert!(matches!(event, Event::Command(_)), "{:?}", event);
                    talk.conn.begin_data_out(1, 2500, &mut talk.arena);
                    begun = true;
                }
            }
            stream.clear();
            // The first R2T is answered; the last bytes stay out.
            for (pdu, _) in talk.heard().into_iter().filter(|pdu| R2t::parse(&pdu.0).r2t_sn == 0) {
                let ttt = R2t::parse(&pdu).ttt;
                for (data_sn, part) in (0..).zip(&parts) {
                    let offset = u32::try_from(part.start).unwrap();
                    let pdu = out(ttt, data_sn, offset, data_sn == 1);
                    stream.extend(talk.wire(pdu, &bytes[part.clone()]));
                }
            }
        }
        let mut orphans = lost(&mut talk);
        prop_assert_eq!(orphans.len(), usize::from(begun));
        if shortage {
            orphans.give_up_data();
            prop_assert_eq!(talk.arena.in_use(), 0);
        }
        if !begun {
            return Ok(());
        }
        let mut next = Talk::logged_in(&agreed);
        let orphan = orphans.take(1).unwrap();
        prop_assert!(next.conn.adopt(1, orphan, 0, &mut next.arena));
        answer_r2ts(&mut next, 1, &bytes);
        prop_assert_eq!(next.gathered(), bytes);
    }
}

/// One read of the socket may bring a command and the fault that ends the connection.
#[test]
fn what_came_before_the_end_is_taken_before_it() {
    let agreed = Negotiated { header_digest: Digest::Crc32c, ..level_2() };
    let mut talk = Talk::logged_in(&agreed);
    let mut bytes = Vec::new();
    for (itt, sn) in [(1, 100), (2, 101), (3, 103)] {
        let command = ScsiCommand {
            immediate: false,
            is_final: true,
            read: false,
            write: false,
            attribute: Attribute::Simple,
            lun: Lun::new(0),
            itt,
            edtl: 0,
            cmd_sn: sn,
            exp_stat_sn: 0,
            cdb: [0; 16],
        };
        bytes.extend(talk.wire(command.emit(), &[]));
    }
    let len = bytes.len();
    bytes.extend_from_within(..52);
    bytes[len + 16] ^= 1;
    talk.conn.handle_bytes(&bytes, &mut talk.arena, talk.now);
    assert!(talk.conn.is_closed());
    assert_eq!(talk.expect_command().itt, 1);
    talk.good(1, 0);
    assert_eq!(talk.expect_command().itt, 2);
    assert!(matches!(talk.conn.poll(), Some(Event::Closed(Closed::Fault(_)))));
    let mut orphans = talk.conn.take_orphans().unwrap();
    // The third had not had its turn: its number is still expected.
    assert_eq!((orphans.len(), orphans.places()), (2, 2));
    assert!(talk.heard().is_empty());
    assert!(orphans.respond(2, good()) && !orphans.respond(2, good()));
    let mut next = Talk::logged_in(&level_2());
    for itt in [2, 1] {
        assert!(next.conn.adopt(itt, orphans.take(itt).unwrap(), 0, &mut next.arena));
        assert_eq!(ScsiResponse::parse(&next.one().0).unwrap().itt, itt);
    }
}

#[test]
fn sense_data_and_residuals_come_with_a_status_that_is_sent_again() {
    for data in [0u32, 1000] {
        let mut talk = Talk::logged_in(&level_2());
        talk.command(1, 1500, None);
        talk.expect_command();
        let sense = Box::from([7; 18]);
        let bytes = DataIn::from(vec![3; data as usize]);
        talk.conn.respond(1, Response { status: 2, sense, data: bytes, wanted: data.into() });
        let first = talk.heard().pop().unwrap();
        let mut orphans = lost(&mut talk);
        let mut next = Talk::logged_in(&level_2());
        let orphan = orphans.take(1).unwrap();
        assert!(!orphan.is_unanswered() && !orphan.holds_place());
        next.conn.adopt(1, orphan, 0, &mut next.arena);
        let again = next.heard().pop().unwrap();
        assert_eq!(again.1, first.1);
        assert_eq!(again.0.0[..24], first.0.0[..24]);
        assert_eq!(again.0.0[36..], first.0.0[36..], "ExpDataSN and the residual");
    }
}

#[test]
fn acknowledged_data_is_not_sent_again_on_any_connection() {
    let mut talk = Talk::logged_in(&level_2());
    talk.command(1, 2048, None);
    talk.expect_command();
    let slices = (0..2).map(|_| Slice::whole(talk.arena.alloc(1024).unwrap()));
    let data = DataIn::Segments(slices.collect());
    talk.conn.respond(1, Response { data, wanted: 2048, ..good() });
    let sent = talk.heard();
    let ttt = data::DataIn::parse(&sent[1].0).unwrap().ttt;
    let ack = crate::iscsi::pdu::snack::Snack {
        kind: 2,
        lun: Lun::new(0),
        itt: 1,
        ttt,
        exp_stat_sn: 0,
        begin: 2,
        run: 0,
    };
    talk.send(ack.emit(), &[]);
    let mut orphans = lost(&mut talk);
    assert_eq!(orphans.kept_bytes(), 1024);
    let mut next = Talk::logged_in(&level_2());
    next.conn.adopt(1, orphans.take(1).unwrap(), 1, &mut next.arena);
    let heard = next.heard();
    let pdus: Vec<_> = heard[..2].iter().map(|pdu| data::DataIn::parse(&pdu.0).unwrap()).collect();
    let places: Vec<_> = pdus.iter().map(|pdu| (pdu.data_sn, pdu.offset)).collect();
    assert_eq!(places, [(2, 1024), (3, 1536)], "zero or too low changes nothing");
}

#[test]
fn read_data_that_waits_for_a_connection_is_bounded() {
    let mut talk = Talk::logged_in(&level_2());
    talk.arena = HeapArena::new(64 << 20);
    let read = |talk: &mut Talk| {
        let slices = (0..24).map(|_| Slice::whole(talk.arena.alloc(256 * 1024).unwrap()));
        let data = DataIn::Segments(slices.collect());
        Response { data, wanted: 6 << 20, ..good() }
    };
    for itt in 1..=4 {
        talk.command(itt, 6 << 20, None);
        talk.expect_command();
    }
    for itt in 1..=2 {
        let response = read(&mut talk);
        talk.conn.respond(itt, response);
    }
    let mut orphans = lost(&mut talk);
    assert_eq!(orphans.kept_bytes(), 12 << 20);
    for itt in 3..=4 {
        assert!(orphans.respond(itt, read(&mut talk)));
    }
    assert_eq!((orphans.kept_bytes(), talk.arena.in_use()), (12 << 20, 12 << 20));
    assert_eq!(orphans.len(), 4, "what does not fit is to be read again");
    let mut next = Talk::logged_in(&level_2());
    assert!(!next.conn.adopt(4, orphans.take(4).unwrap(), 0, &mut next.arena));
    assert!(next.conn.respond(4, Response { status: 2, ..good() }));
    assert_eq!(ScsiResponse::parse(&next.one().0).unwrap().residual, Residual::Underflow(6 << 20));
}

#[test]
fn below_level_2_and_at_other_ends_nothing_is_left() {
    for (agreed, why) in [
        (Negotiated { recovery_level: 1, ..level_2() }, Closed::Lost),
        (Negotiated { time2retain_s: 0, ..level_2() }, Closed::Lost),
        (Negotiated { time2wait_s: 61, ..level_2() }, Closed::Lost),
        (level_2(), Closed::ByServer),
        (level_2(), Closed::LoggedOut),
        (level_2(), Closed::Fault(Fault::Unacknowledged)),
    ] {
        let mut talk = Talk::logged_in(&agreed);
        talk.command(1, 0, None);
        talk.expect_command();
        talk.conn.close(why);
        assert!(talk.conn.take_orphans().is_none(), "{why:?}");
    }
}
