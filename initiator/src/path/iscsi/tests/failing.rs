use corbel_proto::iscsi::pdu::task::TaskOutcome;
use corbel_proto::time::Duration;

use super::super::config::{Config, Digests, Reinstatement};
use super::bench::{Bench, config, ms};
use super::peer::{Disk, Trick};
use crate::path::{Life, PathFault, Verdict};
use crate::request::Operation;

const fn doubt(fault: PathFault, life: u64) -> Option<Verdict> {
    Some(Verdict::InDoubt(fault, Life(life)))
}

#[test]
fn a_write_without_an_answer_is_in_doubt_and_a_read_or_flush_is_not() {
    let mut bench = Bench::up(config(), Disk::new(64));
    for code in [0x2a, 0x28, 0x35] {
        bench.disk.play(code, Trick::Hang);
    }
    let write = bench.write(0, 1, 1);
    let read = bench.read(0, 1);
    let flush = bench.submit(Operation::Flush, 0, 0, 0);
    assert_eq!(bench.disk.log, [0x2a, 0x28, 0x35]);
    bench.accepts = false;
    bench.reset();
    assert_eq!(bench.end(write), Some((doubt(PathFault::Closed, 0).unwrap(), vec![1; 512])));
    assert_eq!(bench.end(read).unwrap().0, Verdict::Elsewhere(PathFault::Closed));
    assert_eq!(bench.verdict(flush), Some(Verdict::Elsewhere(PathFault::Closed)));
    assert_eq!(bench.take_down(), Some(PathFault::Unreachable), "the retry at once failed, too");
    assert!(bench.take_quiet().is_empty() && !bench.path.is_quiet());
    bench.accepts = true;
    bench.pass(ms(700));
    assert!(bench.take_ready().is_some());
    assert_eq!(bench.take_quiet(), [0], "the new session has replaced the old one");
    assert!(bench.path.is_quiet());
}

#[test]
fn what_was_not_sent_is_not_in_doubt() {
    let mut bench = Bench::up(Config { depth: 1, ..config() }, Disk::new(64));
    bench.disk.play(0x2a, Trick::Hang);
    let (sent, waiting) = (bench.write(0, 1, 1), bench.write(1, 1, 1));
    assert_eq!(bench.disk.log, [0x2a], "one at a time");
    bench.reset();
    assert_eq!(bench.verdict(sent), doubt(PathFault::Closed, 0));
    assert_eq!(bench.verdict(waiting), Some(Verdict::Elsewhere(PathFault::Closed)));
}

#[test]
fn commands_beyond_the_targets_window_are_not_in_doubt() {
    let mut bench = Bench::up(config(), Disk { window: 2, ..Disk::new(64) });
    (0..2).for_each(|_| bench.disk.play(0x2a, Trick::Hang));
    let tries: Vec<_> = (0..4).map(|block| bench.write(block, 1, 1)).collect();
    assert_eq!(bench.disk.log.len(), 2);
    bench.reset();
    let verdicts: Vec<_> = tries.into_iter().map(|id| bench.verdict(id)).collect();
    let unsent = Some(Verdict::Elsewhere(PathFault::Closed));
    let sent = doubt(PathFault::Closed, 0);
    assert_eq!(verdicts, [sent, sent, unsent, unsent]);
}

#[test]
fn a_quiet_session_has_no_doubts_to_end() {
    let mut bench = Bench::up(config(), Disk::new(64));
    let write = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(write), Some(Verdict::Done));
    bench.reset();
    bench.pass(Duration::from_secs(20));
    assert!(bench.take_quiet().is_empty() && bench.path.is_quiet());
}

#[test]
fn without_trust_in_reinstatement_only_time_ends_a_doubt() {
    let config = Config { reinstatement: Reinstatement::Nothing, ..config() };
    let mut bench = Bench::up(config, Disk::new(64));
    bench.disk.play(0x2a, Trick::Hang);
    bench.write(0, 1, 1);
    bench.reset();
    assert!(bench.take_ready().is_some());
    bench.pass(ms(9999));
    assert!(bench.take_quiet().is_empty());
    bench.pass(ms(1));
    assert_eq!(bench.take_quiet(), [0]);
}

#[test]
fn lives_go_up_with_each_session_lost() {
    let mut bench = Bench::up(Config { recovering: true, ..config() }, Disk::new(64));
    bench.take_quiet();
    for life in 1..4 {
        bench.disk.play(0x2a, Trick::Hang);
        let write = bench.write(0, 1, 1);
        bench.reset();
        assert_eq!(bench.verdict(write), doubt(PathFault::Closed, life));
        bench.pass(ms(700));
        assert_eq!(bench.take_quiet(), [life]);
    }
}

#[test]
fn a_black_hole_is_noticed_by_a_ping() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.cable = false;
    let write = bench.write(0, 1, 1);
    bench.pass(ms(1099));
    assert_eq!(bench.verdict(write), None);
    bench.pass(ms(1));
    assert_eq!(bench.verdict(write), doubt(PathFault::Silent, 0));
    assert_eq!(bench.take_down(), Some(PathFault::Silent));
    assert!(bench.path.why().unwrap().contains("no answer to a ping"));
}

#[test]
fn a_tuned_path_notices_a_black_hole_in_less_than_half_a_second() {
    let mut config = config();
    config.timers.set("ping_after", ms(150), "[defaults]");
    config.timers.set("answer_within", ms(300), "[defaults]");
    let mut bench = Bench::up(config, Disk::new(64));
    bench.pass(ms(777));
    bench.cable = false;
    bench.write(0, 1, 1);
    bench.pass(ms(450));
    assert_eq!(bench.take_down(), Some(PathFault::Silent));
}

#[test]
fn an_idle_path_is_pinged_now_and_then_and_found_dead() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.pass(Duration::from_secs(600));
    assert_eq!(bench.take_down(), None);
    bench.cable = false;
    bench.pass(ms(2700));
    assert_eq!(bench.take_down(), Some(PathFault::Silent));
}

#[test]
fn a_slow_command_alone_does_not_make_a_path_silent() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.play(0x2a, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.pass(Duration::from_secs(19));
    assert_eq!((bench.take_down(), bench.verdict(write)), (None, None));
}

#[test]
fn a_host_that_stood_still_gives_the_target_one_more_chance() {
    for comes_back in [true, false] {
        let mut bench = Bench::up(config(), Disk::new(64));
        bench.disk.play(0x2a, Trick::Hang);
        let write = bench.write(0, 1, 1);
        bench.cable = false;
        bench.pass(ms(500)); // the ping is out
        bench.now = bench.now + Duration::from_secs(40);
        bench.path.handle_timeout(bench.now);
        bench.run();
        assert_eq!(bench.take_down(), None, "it was us who slept");
        assert_eq!(bench.verdict(write), None, "nor is the command's time over");
        bench.cable = comes_back;
        if comes_back {
            // What came in meanwhile: the answer to the ping.
            let peer = bench.peer.as_mut().unwrap();
            assert!(peer.1.say().is_empty(), "the ping was lost on the cut cable");
        }
        bench.pass(ms(699));
        assert_eq!(bench.take_down(), None);
        bench.pass(ms(1));
        assert_eq!(bench.take_down(), Some(PathFault::Silent));
    }
}

#[test]
fn a_host_that_is_always_late_still_notices() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.cable = false;
    bench.write(0, 1, 1);
    for _ in 0..2 {
        bench.now = bench.path.poll_timeout().unwrap() + ms(300);
        bench.path.handle_timeout(bench.now);
        bench.run();
    }
    assert_eq!(bench.take_down(), Some(PathFault::Silent));
}

#[test]
fn a_wrong_digest_ends_the_session() {
    let crc = Config { data_digest: Digests::Prefer, header_digest: Digests::Prefer, ..config() };
    let mut bench = Bench::up(crc, Disk::new(64));
    bench.garble = true;
    let read = bench.read(0, 1);
    assert_eq!(bench.verdict(read), Some(Verdict::Elsewhere(PathFault::Protocol)));
    assert_eq!(bench.take_down(), Some(PathFault::Protocol));
}

#[test]
fn a_command_over_time_is_aborted_and_nothing_of_it_lands_later() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.play(0x2a, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.pass(ms(19_999));
    assert_eq!(bench.verdict(write), None);
    bench.pass(ms(1));
    assert_eq!(bench.verdict(write), Some(Verdict::Elsewhere(PathFault::CommandTimeout)));
    assert_eq!(bench.take_down(), None, "the session goes on");
    let again = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(again), Some(Verdict::Done));
}

#[test]
fn an_abort_without_an_answer_ends_the_session() {
    let mut bench = Bench::up(config(), Disk { abort: None, ..Disk::new(64) });
    bench.disk.play(0x2a, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.pass(ms(21_999));
    assert_eq!(bench.verdict(write), None);
    bench.pass(ms(1));
    assert_eq!(bench.verdict(write), doubt(PathFault::CommandTimeout, 0));
}

#[test]
fn an_answer_that_overtakes_its_abort_counts() {
    let mut bench = Bench::up(config(), Disk { abort: None, ..Disk::new(64) });
    bench.disk.play(0x2a, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.pass(ms(20_001));
    let itt = bench.peer().hanging[0];
    bench.peer().respond(itt, 0, &[], Vec::new(), 512);
    bench.run();
    assert_eq!(bench.verdict(write), Some(Verdict::Done));
    bench.pass(ms(3000));
    assert_eq!(bench.take_down(), None);
}

#[test]
fn a_target_that_has_forgotten_a_write_leaves_it_in_doubt_and_of_a_read_nothing() {
    for (code, expected) in [
        (0x2a, doubt(PathFault::CommandTimeout, 0)),
        (0x28, Some(Verdict::Elsewhere(PathFault::CommandTimeout))),
    ] {
        let abort = Some(TaskOutcome::NoSuchTask);
        let mut bench = Bench::up(config(), Disk { abort, ..Disk::new(64) });
        bench.disk.play(code, Trick::Hang);
        let id = if code == 0x2a { bench.write(0, 1, 1) } else { bench.read(0, 1) };
        bench.pass(ms(20_000));
        assert_eq!(bench.verdict(id), expected);
        assert_eq!(bench.take_down().is_some(), code == 0x2a);
    }
}

#[test]
fn an_abort_that_is_refused_ends_the_session() {
    let abort = Some(TaskOutcome::Unsupported);
    let mut bench = Bench::up(config(), Disk { abort, ..Disk::new(64) });
    bench.disk.play(0x2a, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.pass(ms(20_000));
    assert_eq!(bench.verdict(write), doubt(PathFault::CommandTimeout, 0));
    assert!(bench.path.why().is_none(), "it is back already");
}

#[test]
fn an_answer_that_comes_with_the_end_of_its_session_leaves_no_try_behind() {
    let abort = Some(TaskOutcome::Unsupported);
    let mut bench = Bench::up(config(), Disk { abort, ..Disk::new(64) });
    bench.disk.play(0x2a, Trick::Hang);
    bench.disk.play(0x28, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.pass(ms(1000));
    let read = bench.read(8, 1);
    bench.pass(ms(18_999));
    bench.now = bench.now + ms(1);
    bench.path.handle_timeout(bench.now);
    while let Some((_, chunk)) = bench.path.transmit() {
        let mut bytes = Vec::new();
        chunk.write_to(&mut bytes);
        let (_, peer) = bench.peer.as_mut().unwrap();
        peer.hear(bench.now, &bytes, &mut bench.disk);
    }
    // Behind the refusal, which ends the session, in the same bytes.
    let itt = bench.peer().hanging[1];
    bench.peer().respond(itt, 2, &[], Vec::new(), 512);
    bench.run();
    assert_eq!(bench.verdict(write), doubt(PathFault::CommandTimeout, 0));
    assert_eq!(bench.verdict(read), Some(Verdict::Elsewhere(PathFault::CommandTimeout)));
}

#[test]
fn the_owner_may_end_a_try_early_wherever_it_is() {
    let mut bench = Bench::up(Config { depth: 1, ..config() }, Disk::new(64));
    bench.disk.play(0x2a, Trick::Hang);
    let (sent, waiting) = (bench.write(0, 1, 1), bench.write(1, 1, 1));
    for id in [waiting, sent] {
        bench.path.abort(bench.now, id);
        bench.run();
        let ended = Some(Verdict::Elsewhere(PathFault::CommandTimeout));
        assert_eq!(bench.verdict(id), ended);
    }
    bench.path.abort(bench.now, sent);
    assert_eq!(bench.take_down(), None);
}

#[test]
fn a_path_that_is_stopped_with_a_hung_write_knows_by_logout_or_time_that_it_is_over() {
    for answered in [true, false] {
        let mut bench = Bench::up(config(), Disk { logout: answered, ..Disk::new(64) });
        bench.disk.play(0x2a, Trick::Hang);
        let write = bench.write(0, 1, 1);
        bench.path.stop(bench.now, PathFault::Disabled);
        bench.pass(ms(249));
        assert_eq!(bench.verdict(write), None, "it may still be answered");
        bench.pass(ms(if answered { 1 } else { 251 }));
        assert_eq!(bench.verdict(write), doubt(PathFault::Disabled, 0));
        assert_eq!(bench.take_quiet(), vec![0; usize::from(answered)]);
        bench.pass(Duration::from_secs(10));
        assert_eq!(bench.take_quiet(), vec![0; usize::from(!answered)]);
        assert!(bench.path.is_quiet());
    }
}

#[test]
fn an_answer_that_comes_while_leaving_counts() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.play(0x2a, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.path.stop(bench.now, PathFault::Disabled);
    let late = bench.write(1, 1, 1);
    bench.pass(ms(100));
    let itt = bench.peer().hanging[0];
    bench.peer().respond(itt, 0, &[], Vec::new(), 512);
    bench.run();
    assert_eq!(bench.verdict(write), Some(Verdict::Done));
    assert_eq!(bench.verdict(late), Some(Verdict::Elsewhere(PathFault::Disabled)));
    assert_eq!(bench.take_down(), Some(PathFault::Disabled));
}
