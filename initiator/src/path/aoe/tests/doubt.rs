//! What may still land, and for how long.

use super::*;
use crate::path::PathEvent;
use crate::request::IoError;

/// Writes are executed; their first answer takes `slow`, all others a millisecond.
fn first_write_is_slow(slow: Fate) -> Wire {
    let mut writes = 0;
    Box::new(move |frame| {
        writes += u32::from(is_command(frame, opcode::WRITE_SECTORS_EXT));
        let first = is_command(frame, opcode::WRITE_SECTORS_EXT) && writes == 1;
        (Some(Duration::ZERO), if first { slow } else { Some(MS) })
    })
}

#[test]
fn a_write_whose_second_copy_was_answered_is_done_in_doubt_for_a_second() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = first_write_is_slow(None);
    farm.write(1, 0, vec![7; 512]);
    farm.run(5000);
    let [(1, Verdict::DoneInDoubt(life))] = farm.verdicts()[..] else {
        panic!("{:?}", farm.verdicts())
    };
    let last_sent = farm.sent.iter().rfind(|(_, frame)| is_command(frame, 0x34)).unwrap().0;
    let [(moment, quiet)] = farm.quiets()[..] else { panic!("{:?}", farm.events) };
    assert_eq!(quiet, life);
    let hold = moment - last_sent;
    assert!(hold >= 1000 * MS && hold <= 1060 * MS, "{hold:?}");
    assert!(farm.path.is_quiet());
}

#[test]
fn a_slow_answer_to_the_other_copy_settles_it_at_once() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = first_write_is_slow(Some(60 * MS));
    farm.write(1, 0, vec![7; 512]);
    farm.run(100);
    assert!(matches!(farm.verdicts()[..], [(1, Verdict::DoneInDoubt(_))]));
    assert_eq!(farm.settled(), [1]);
}

#[test]
fn a_copy_that_is_answered_while_the_try_goes_on_is_no_doubt() {
    let mut farm = Farm::ready(Config { depth: 1, ..Config::new(7, 1) }, 1500);
    farm.fate = first_write_is_slow(Some(60 * MS));
    farm.write(1, 0, vec![7; 256 * 1024]);
    farm.run(2000);
    assert_eq!(farm.verdicts(), [(1, Verdict::Done)]);
}

#[test]
fn reads_are_never_in_doubt() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    let mut reads = 0;
    farm.fate = Box::new(move |frame| {
        reads += u32::from(is_command(frame, opcode::READ_SECTORS_EXT));
        (Some(Duration::ZERO), (reads != 1).then_some(MS))
    });
    farm.read(1, 0, 512);
    farm.run(1000);
    assert_eq!(farm.verdicts(), [(1, Verdict::Done)]);
    farm.fate = black_hole();
    farm.read(2, 0, 512);
    farm.run(3000);
    assert!(matches!(farm.verdicts()[1], (2, Verdict::Elsewhere(_))));
    assert!(farm.path.is_quiet());
}

#[test]
fn a_path_that_dies_leaves_what_it_sent_in_doubt_and_what_it_did_not_send_free() {
    let mut farm = Farm::ready(Config { depth: 2, ..Config::new(7, 1) }, 1500);
    farm.fate = black_hole();
    for id in 0..4 {
        farm.write(id, id * 4096, vec![7; 512]);
    }
    farm.run(2000);
    let verdicts: BTreeMap<_, _> = farm.verdicts().into_iter().collect();
    let Verdict::InDoubt(PathFault::Silent, life) = verdicts[&0] else { panic!("{verdicts:?}") };
    assert!(matches!(verdicts[&3], Verdict::Elsewhere(PathFault::Silent)));
    farm.run(20_000);
    assert!(farm.quiets().iter().any(|(_, quiet)| *quiet >= life));
    let last_sent = farm.sent.iter().rfind(|(_, frame)| is_command(frame, 0x34)).unwrap().0;
    let hold = farm.quiets().last().unwrap().0 - last_sent;
    assert!(hold >= 10_000 * MS && hold <= 10_060 * MS, "{hold:?}");
}

#[test]
fn a_write_that_was_answered_in_part_is_in_doubt_for_the_rest_only() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = Box::new(|frame| {
        let second = is_command(frame, 0x34) && frame[28] >= 2;
        if second || is_query(frame) { (None, None) } else { (Some(MS), Some(MS)) }
    });
    farm.write(1, 0, vec![7; 2048]);
    farm.run(3000);
    assert!(matches!(farm.verdicts()[..], [(1, Verdict::InDoubt(..))]), "{:?}", farm.verdicts());
    assert_eq!(farm.server.data[..1024], [7; 1024]);
}

#[test]
fn an_error_is_passed_on_and_the_other_copy_stays_in_doubt() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.server.instead.insert(0x34, Ok((0x41, 0x10)));
    farm.fate = first_write_is_slow(None);
    farm.write(1, 0, vec![7; 512]);
    farm.run(500);
    let in_doubt =
        matches!(farm.verdicts()[..], [(1, Verdict::DeviceInDoubt(IoError::Invalid, _))]);
    assert!(in_doubt, "{:?}", farm.verdicts());
}

#[test]
fn a_short_doubt_does_not_wait_for_a_long_one() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = black_hole();
    farm.write(1, 0, vec![7; 512]);
    farm.run(2000);
    farm.fate = well();
    farm.run(1500);
    assert!(farm.took_ready().is_some());
    farm.fate = first_write_is_slow(None);
    farm.write(2, 8192, vec![7; 512]);
    farm.run(1500);
    let verdicts = farm.verdicts();
    let (Verdict::InDoubt(_, long), Verdict::DoneInDoubt(short)) = (verdicts[0].1, verdicts[1].1)
    else {
        panic!("{verdicts:?}")
    };
    assert!(short < long);
    assert_eq!(farm.quiets().iter().map(|(_, life)| *life).collect::<Vec<_>>(), [short]);
}

#[test]
fn a_disk_that_hangs_and_wakes_settles_what_was_given_up() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    let only_queries = |frame: &[u8]| is_query(frame).then_some(MS);
    farm.fate = Box::new(move |frame| (Some(Duration::ZERO), only_queries(frame)));
    farm.write(1, 0, vec![7; 512]);
    farm.run(1500);
    assert!(matches!(farm.verdicts()[..], [(1, Verdict::InDoubt(PathFault::CommandTimeout, _))]));
    assert_eq!(farm.downs().len(), 1);
    assert_eq!(farm.downs()[0].1, PathFault::CommandTimeout);
    farm.run(1500);
    assert!(farm.took_ready().is_none(), "reads are not answered yet");
    let copies: Vec<_> =
        farm.sent.iter().filter(|(_, f)| is_command(f, 0x34)).map(|(_, f)| f.clone()).collect();
    assert!(copies.len() > 2);
    farm.fate = well();
    for copy in copies {
        assert!(farm.settled().is_empty());
        let reply = farm.server.answer(&copy);
        farm.path.frame(farm.now, &reply);
        farm.pass();
    }
    assert_eq!(farm.settled(), [1]);
    farm.run(1000);
    assert!(farm.took_ready().is_some());
}

#[test]
fn whoever_recovers_from_a_crash_is_haunted_until_the_hold_is_over() {
    let mut farm = Farm::started(Config { recovering: true, ..Config::new(7, 1) }, 1500);
    farm.run(20_000);
    let Some((_, PathEvent::Haunted(life))) = farm.events.first() else {
        panic!("{:?}", farm.events.first())
    };
    assert_eq!(farm.quiets(), [(at(11_000), *life)]);
    farm.forget();
    farm.path.stop(farm.now, PathFault::Disabled);
    farm.path.start(farm.now);
    farm.run(100);
    assert!(!farm.events.iter().any(|(_, event)| matches!(event, PathEvent::Haunted(_))));
}

#[test]
fn a_stopped_path_still_says_when_it_is_quiet() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = black_hole();
    farm.write(1, 0, vec![7; 512]);
    farm.run(30);
    farm.path.stop(farm.now, PathFault::Disabled);
    farm.pass();
    let [(1, Verdict::InDoubt(PathFault::Disabled, life))] = farm.verdicts()[..] else {
        panic!("{:?}", farm.verdicts())
    };
    assert!(!farm.path.is_quiet());
    let frames = farm.sent.len();
    farm.run(20_000);
    assert_eq!(farm.quiets().last().map(|(_, quiet)| *quiet), Some(life));
    assert!(farm.path.is_quiet() && farm.path.poll_timeout().is_none());
    assert_eq!(farm.sent.len(), frames, "it sends nothing");
}
