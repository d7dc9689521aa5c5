//! Old age, fencing, detaching.

use super::*;
use crate::multipath::policy::Policy;
use crate::multipath::rules::Rules;
use crate::multipath::status::DeviceState;
use crate::path::{Life, PathFault, Verdict};
use crate::request::{IoError, Operation};

const OLD: Result<(), IoError> = Err(IoError::TooOld);
const FENCED: Result<(), IoError> = Err(IoError::Fenced);

fn aging() -> Bench {
    Bench::ready(Policy { write_age_max: Some(secs(80)), ..Policy::default() })
}

#[test]
fn a_change_that_is_too_old_is_never_sent_and_a_read_is() {
    let mut bench = aging();
    bench.down(0);
    bench.down(1);
    bench.write(1, blocks(0, 1));
    bench.submit(2, Operation::Discard, blocks(8, 1));
    bench.read(3, blocks(0, 1));
    bench.flush(4);
    bench.pass(secs(80) - millis(1));
    assert_eq!(bench.ended(), []);
    bench.pass(millis(1));
    assert_eq!(bench.ended(), [(1, OLD), (2, OLD)]);
    bench.up(0);
    let sent: Vec<_> = bench.sent_whole().into_iter().map(|(.., operation)| operation).collect();
    assert_eq!(sent, [Operation::Read, Operation::Flush]);
}

#[test]
fn a_path_that_is_back_at_the_limit_gets_nothing_that_is_too_old() {
    let mut bench = aging();
    bench.down(0);
    bench.down(1);
    bench.write(1, blocks(0, 1));
    // Nobody woke the engine in time.
    bench.now = bench.now + secs(80);
    bench.up(0);
    assert_eq!((bench.sent(), bench.ended()), (vec![], vec![(1, OLD)]));
}

#[test]
fn a_change_grows_old_while_it_waits_for_a_doubt_or_for_another() {
    let mut bench = aging();
    bench.write(1, blocks(0, 1));
    bench.doubt(0, 1);
    bench.done(1);
    bench.write(2, blocks(0, 1));
    bench.write(3, blocks(0, 1));
    bench.sent();
    bench.pass(secs(80));
    assert_eq!(bench.ended(), [(1, Ok(())), (2, OLD), (3, OLD)]);
    bench.quiet(0, 1);
    assert_eq!(bench.sent(), []);
}

#[test]
fn an_old_change_on_a_path_is_aborted_and_answered_when_that_has_ended() {
    let mut bench = aging();
    bench.write(1, blocks(0, 1));
    let id = bench.under_way[0].1.id;
    bench.pass(secs(80));
    assert_eq!((bench.aborts.clone(), bench.ended()), (vec![id], vec![]));
    bench.elsewhere(0);
    assert_eq!(bench.ended(), [(1, OLD)]);
    assert_eq!(bench.sent(), [(0, 0)], "not sent again");
}

#[test]
fn an_old_change_that_is_done_after_all_is_told_as_done() {
    let mut bench = aging();
    bench.write(1, blocks(0, 1));
    bench.pass(secs(81));
    bench.done(0);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
}

#[test]
fn a_path_that_does_not_end_an_old_change_is_not_waited_for_but_its_blocks_are() {
    let mut bench = aging();
    bench.write(1, blocks(0, 1));
    bench.pass(secs(84));
    assert_eq!(bench.ended(), []);
    bench.pass(secs(1));
    let outcome = bench.outcomes.pop().unwrap();
    assert_eq!(outcome.result, OLD);
    assert!(outcome.data.is_some(), "a write's memory is shared");
    bench.sent();
    bench.write(2, blocks(0, 1));
    assert_eq!((bench.sent(), bench.status().doubts), (vec![], 1));
    bench.doubt(0, 3);
    assert_eq!(bench.sent(), [], "its end was no proof");
    bench.quiet(0, 3);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_shorter_limit_counts_for_what_waits_already() {
    let mut bench = Bench::ready(Policy::default());
    bench.down(0);
    bench.down(1);
    bench.write(1, blocks(0, 1));
    bench.pass(secs(50));
    bench.set(|policy| policy.write_age_max = Some(secs(40)));
    assert_eq!(bench.ended(), [(1, OLD)]);
}

#[test]
fn without_the_rule_old_writes_are_sent() {
    let policy = Policy { write_age_max: Some(secs(80)), ..Policy::default() };
    let mut bench = Bench::with(policy, Rules { respect_age: false, ..Rules::SOUND });
    bench.write(1, blocks(0, 1));
    bench.pass(secs(100));
    bench.up(0);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_fence_fails_what_waits_aborts_what_is_sent_and_refuses_what_comes() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 1));
    bench.write(2, blocks(0, 1));
    bench.read(3, blocks(9, 1));
    bench.flush(4);
    bench.ended();
    bench.engine.fence(bench.now);
    bench.pump();
    assert_eq!(bench.ended(), [(2, FENCED), (4, FENCED)]);
    assert_eq!(bench.aborts.len(), 3);
    bench.write(5, blocks(0, 1));
    assert_eq!(bench.ended(), [(5, FENCED)]);
    assert_eq!(bench.status().state, DeviceState::Fenced);
    bench.sent();
    bench.doubt(0, 1);
    bench.end(0, Verdict::Elsewhere(PathFault::CommandsFail));
    assert_eq!(bench.ended(), [(1, FENCED), (3, FENCED)]);
    assert_eq!((bench.sent(), bench.status().doubts), (vec![], 1));
    bench.engine.unfence(bench.now);
    bench.write(6, blocks(0, 1));
    assert_eq!(bench.sent(), [], "the doubt of before the fence stands");
    bench.quiet(0, 1);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn detaching_waits_for_requests_and_doubts() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 1));
    bench.doubt(0, 1);
    bench.engine.detach(bench.now, secs(30));
    bench.write(2, blocks(0, 1));
    assert_eq!(bench.ended(), [(2, FENCED)]);
    bench.done(1);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
    assert!(!bench.engine.is_drained());
    bench.quiet(0, 1);
    assert!(bench.engine.is_drained());
}

#[test]
fn detaching_never_lasts_longer_than_its_patience() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 1));
    bench.doubt(0, 1);
    bench.read(2, blocks(4, 1));
    bench.down(0);
    bench.engine.detach(bench.now, secs(30));
    bench.pass(secs(29));
    assert_eq!(bench.ended(), []);
    assert_eq!(bench.status().next.as_deref(), Some("what is left fails in 1.0 s"));
    bench.pass(secs(1));
    assert_eq!(bench.ended(), [(1, FENCED), (2, FENCED)]);
    assert!(bench.engine.is_drained());
    assert_eq!(bench.aborts.len(), 2);
}

#[test]
fn a_detach_without_paths_ends_too() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.read(1, blocks(0, 1));
    bench.flush(2);
    bench.engine.detach(bench.now, secs(5));
    bench.pass(secs(5));
    assert_eq!(bench.ended(), [(1, FENCED), (2, FENCED)]);
    assert!(bench.engine.is_drained());
}

#[test]
fn a_doubt_alone_keeps_a_detach_only_for_its_patience() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 1));
    bench.end(0, Verdict::InDoubt(PathFault::Silent, Life(1)));
    bench.done(1);
    bench.ended();
    bench.engine.detach(bench.now, secs(5));
    assert!(!bench.engine.is_drained());
    bench.pass(secs(5));
    assert!(bench.engine.is_drained());
}
