//! When a fence behind responses is passed.

use super::*;

fn talk() -> Talk {
    Talk::logged_in(&Negotiated::default())
}

/// A ping that asks for nothing, and acknowledges what came before `exp_stat_sn`.
fn acknowledge(talk: &mut Talk, exp_stat_sn: u32) {
    let nop = Bhs::new(Opcode::NopOut, FINAL).with_immediate(true).put_u32(16, TAG_NONE);
    talk.send(nop.put_u32(20, TAG_NONE).put_u32(28, exp_stat_sn), &[]);
}

fn passed(talk: &mut Talk) -> Vec<u64> {
    let events = std::iter::from_fn(|| talk.conn.poll());
    let passed = events.filter_map(|event| match event {
        Event::Passed(number) => Some(number),
        _ => None,
    });
    passed.collect()
}

/// A response is sent: its StatSN.
fn respond(talk: &mut Talk, itt: u32) -> u32 {
    talk.command(itt, 0, None);
    let Some(Event::Command(_)) = talk.conn.poll() else { panic!("no command") };
    let response = Response { status: 0, sense: Box::default(), data: DataIn::None, wanted: 0 };
    talk.conn.respond(itt, response);
    ScsiResponse::parse(&talk.one().0).unwrap().numbers.stat_sn
}

#[test]
fn where_all_is_acknowledged_there_is_nothing_to_wait_for() {
    let mut talk = talk();
    assert!(!talk.conn.raise_fence(1), "the login is not fenced");
    let sn = respond(&mut talk, 5);
    acknowledge(&mut talk, sn + 1);
    assert!(!talk.conn.raise_fence(2));
    assert!(talk.heard().is_empty() && passed(&mut talk).is_empty());
    talk.conn.close(Closed::Lost);
    assert!(!talk.conn.raise_fence(3));
}

#[test]
fn what_was_sent_has_to_be_acknowledged_and_a_ping_asks_for_that() {
    let mut talk = talk();
    let sn = respond(&mut talk, 5);
    let later = respond(&mut talk, 6);
    assert!(talk.conn.raise_fence(1));
    let (ping, _) = talk.one();
    assert_eq!((ping.opcode(), ping.u32_at(24)), (Some(Opcode::NopIn), later + 1));
    assert_ne!(ping.u32_at(20), TAG_NONE, "it wants an answer");
    // What is sent later need not be.
    respond(&mut talk, 7);
    acknowledge(&mut talk, sn + 1);
    assert!(passed(&mut talk).is_empty());
    acknowledge(&mut talk, later + 1);
    assert_eq!(passed(&mut talk), [1]);
    acknowledge(&mut talk, later + 1);
    assert!(passed(&mut talk).is_empty(), "once");
}

#[test]
fn queued_responses_count_and_numbers_that_were_never_given_do_not() {
    let mut talk = talk();
    let event = AsyncEvent::LogoutRequest { within_s: 1 };
    talk.conn.send_async(Lun(0), event, &[]);
    assert!(talk.conn.raise_fence(1));
    acknowledge(&mut talk, 9);
    assert!(passed(&mut talk).is_empty(), "it was not sent yet");
    let heard = talk.heard();
    assert_eq!(heard.len(), 2);
    let sn = heard[0].0.u32_at(24);
    for never in [sn + 2, sn + 0x7000_0000, sn] {
        acknowledge(&mut talk, never);
        assert!(passed(&mut talk).is_empty(), "{never}");
    }
    acknowledge(&mut talk, sn + 1);
    assert_eq!(passed(&mut talk), [1]);
}

#[test]
fn fences_at_one_place_ask_once_and_what_is_lowered_is_not_passed() {
    let mut talk = talk();
    let sn = respond(&mut talk, 5);
    for number in 1..=3 {
        assert!(talk.conn.raise_fence(number));
    }
    assert_eq!(talk.one().0.opcode(), Some(Opcode::NopIn));
    talk.conn.lower_fence(2);
    acknowledge(&mut talk, sn + 1);
    assert_eq!(passed(&mut talk), [1, 3]);
}

/// Where nothing is read, nothing more is asked.
#[test]
fn pings_for_fences_do_not_pile_up() {
    let mut talk = talk();
    respond(&mut talk, 5);
    for number in 0..1000 {
        assert!(talk.conn.raise_fence(number));
        talk.conn.lower_fence(number);
    }
    assert_eq!(talk.heard().len(), QUEUE_PDUS_MAX);
}

#[test]
fn the_end_of_a_connection_passes_its_fences() {
    let mut talk = talk();
    respond(&mut talk, 5);
    assert!(talk.conn.raise_fence(1) && talk.conn.raise_fence(2));
    talk.conn.close(Closed::Lost);
    assert_eq!(passed(&mut talk), [1, 2]);
}
