//! No stale write: what waits for a doubt and what does not.

use super::*;
use crate::multipath::policy::{NoPath, Policy};
use crate::multipath::rules::Rules;
use crate::path::{Life, PathEvent, PathFault, Verdict};
use crate::request::{IoError, Operation};

/// A write of blocks 8 to 16 in doubt on path 0 and done on path 1.
fn after_a_ghost() -> Bench {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(8, 8));
    assert_eq!(bench.sent(), [(0, 8)]);
    bench.doubt(0, 1);
    assert_eq!(bench.sent(), [(1, 8)], "the same bytes go out again at once");
    bench.down(0);
    bench.done(1);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
    bench
}

#[test]
fn a_write_over_a_doubt_waits_until_the_old_copy_is_dead() {
    let mut bench = after_a_ghost();
    bench.write(2, blocks(15, 2));
    assert_eq!((bench.sent(), bench.ended()), (vec![], vec![]));
    assert_eq!((bench.status().doubts, bench.status().queued_requests), (1, 1));
    bench.quiet(0, 0);
    assert_eq!(bench.sent(), []);
    bench.quiet(0, 1);
    assert_eq!(bench.sent(), [(1, 15)]);
    bench.done(1);
    assert_eq!(bench.ended(), [(2, Ok(()))]);
    assert_eq!(bench.status().doubts, 0);
}

#[test]
fn discards_and_zeroes_over_a_doubt_wait_too_reads_and_neighbours_do_not() {
    let mut bench = after_a_ghost();
    bench.submit(2, Operation::Discard, blocks(0, 9));
    bench.submit(3, Operation::WriteZeroes { unmap: false, fua: false }, blocks(15, 9));
    assert_eq!(bench.sent(), []);
    bench.read(4, blocks(8, 8));
    bench.write(5, blocks(40, 8));
    assert_eq!(bench.sent(), [(1, 8), (1, 40)]);
    bench.quiet(0, 1);
    assert_eq!(bench.sent(), [(1, 0), (1, 15)]);
}

#[test]
fn quiet_of_another_path_proves_nothing() {
    let mut bench = after_a_ghost();
    bench.write(2, blocks(8, 8));
    bench.quiet(1, 9);
    assert_eq!(bench.sent(), []);
}

#[test]
fn a_life_that_is_quiet_already_leaves_no_doubt() {
    let mut bench = Bench::ready(Policy::default());
    bench.quiet(0, 3);
    bench.write(1, blocks(8, 8));
    bench.doubt(0, 3);
    assert_eq!(bench.status().doubts, 0);
}

#[test]
fn a_flush_is_answered_after_the_doubts_it_met_and_no_later_ones() {
    let mut bench = after_a_ghost();
    bench.up(0);
    bench.flush(2);
    let sent = bench.sent_whole();
    assert_eq!(sent.len(), 1, "the command itself goes out at once");
    assert_eq!(sent[0].2, Operation::Flush);
    bench.write(3, blocks(100, 8));
    let other = bench.sent()[0].0;
    bench.done(sent[0].0);
    bench.doubt(other, 2);
    assert_eq!(bench.ended(), []);
    bench.quiet(0, 1);
    assert_eq!(bench.ended(), [(2, Ok(()))]);
}

#[test]
fn a_write_that_is_done_while_a_copy_is_out_holds_the_next() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(8, 8));
    let id = bench.under_way[0].1.id;
    bench.end(0, Verdict::DoneInDoubt(Life(7)));
    assert_eq!(bench.ended(), [(1, Ok(()))]);
    bench.write(2, blocks(8, 8));
    assert_eq!(bench.sent(), [(0, 8)]);
    bench.event(0, PathEvent::Settled(id));
    assert_eq!(bench.sent(), [(0, 8)], "every copy was answered for");
}

#[test]
fn a_haunted_path_holds_every_change_and_no_read() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.event(0, PathEvent::Haunted(Life(5)));
    bench.up(1);
    bench.write(1, blocks(0, 1));
    bench.write(2, blocks(900, 1));
    bench.read(3, blocks(0, 1));
    assert_eq!(bench.sent(), [(1, 0)]);
    bench.quiet(0, 5);
    assert_eq!(bench.sent(), [(1, 0), (1, 900)]);
}

#[test]
fn a_retry_waits_for_anothers_doubt_but_not_for_its_own() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(8, 8));
    bench.sent();
    bench.event(1, PathEvent::Haunted(Life(2)));
    bench.doubt(0, 1);
    assert_eq!(bench.sent(), [], "what is out on path 1 may be of anybody");
    bench.quiet(1, 2);
    assert_eq!(bench.sent(), [(1, 8)]);
}

#[test]
fn a_doubt_outlives_the_error_of_its_request() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(8, 8));
    bench.doubt(0, 1);
    bench.end(1, Verdict::Device(IoError::Medium));
    assert_eq!(bench.ended(), [(1, Err(IoError::Medium))]);
    bench.sent();
    bench.write(2, blocks(8, 8));
    assert_eq!(bench.sent(), []);
    bench.quiet(0, 1);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_doubt_outlives_requests_that_fail_for_want_of_a_path() {
    let mut bench = Bench::ready(Policy { no_path: NoPath::For(secs(10)), ..Policy::default() });
    bench.write(1, blocks(8, 8));
    bench.doubt(0, 1);
    bench.down(0);
    bench.elsewhere(1);
    bench.down(1);
    bench.pass(secs(10));
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
    bench.sent();
    bench.up(1);
    bench.write(2, blocks(8, 8));
    assert_eq!(bench.sent(), []);
    bench.quiet(0, 1);
    assert_eq!(bench.sent(), [(1, 8)]);
}

#[test]
fn a_read_leaves_no_doubt() {
    let mut bench = Bench::ready(Policy::default());
    bench.read(1, blocks(8, 8));
    bench.doubt(0, 1);
    assert_eq!(bench.status().doubts, 0);
    assert_eq!(bench.sent(), [(0, 8), (1, 8)]);
}

#[test]
fn a_removed_path_is_waited_for_until_it_is_quiet() {
    let mut bench = after_a_ghost();
    bench.engine.remove_path(bench.now, crate::path::PathId(0));
    bench.write(2, blocks(8, 8));
    assert_eq!(bench.sent(), []);
    bench.quiet(0, 1);
    assert_eq!(bench.sent(), [(1, 8)]);
    assert_eq!(bench.status().groups.len(), 1);
}

#[test]
fn doubts_end_a_wait_by_policy_only_after_a_long_time() {
    let mut bench = after_a_ghost();
    bench.set(|policy| policy.no_path = NoPath::Fail);
    bench.write(2, blocks(8, 8));
    bench.flush(3);
    bench.done(1);
    bench.pass(secs(59));
    assert_eq!(bench.ended(), []);
    bench.pass(secs(1));
    assert_eq!(bench.ended(), [(2, Err(IoError::Io)), (3, Err(IoError::Io))]);
}

#[test]
fn without_the_rule_the_old_copy_would_be_overtaken() {
    let mut bench = Bench::with(Policy::default(), Rules { hold_overlap: false, ..Rules::SOUND });
    bench.up(0);
    bench.up(1);
    bench.write(1, blocks(8, 8));
    bench.doubt(0, 1);
    bench.done(1);
    bench.sent();
    bench.write(2, blocks(8, 8));
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn without_reissue_a_lost_write_would_be_taken_for_done() {
    let rules = Rules { reissue_after_doubt: false, ..Rules::SOUND };
    let mut bench = Bench::with(Policy::default(), rules);
    bench.up(0);
    bench.up(1);
    bench.write(1, blocks(8, 8));
    bench.end(0, Verdict::InDoubt(PathFault::Silent, Life(1)));
    assert_eq!(bench.ended(), [(1, Ok(()))]);
}
