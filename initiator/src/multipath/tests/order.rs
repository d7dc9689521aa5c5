//! Overlapping changes keep their order.

use super::*;
use crate::multipath::policy::Policy;
use crate::multipath::rules::Rules;

#[test]
fn overlapping_changes_go_one_after_another_in_the_order_they_came() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 8));
    bench.write(2, blocks(4, 8));
    bench.write(3, blocks(8, 8));
    bench.write(4, blocks(100, 1));
    assert_eq!(bench.sent(), [(0, 0), (0, 100)]);
    bench.done(0);
    assert_eq!(bench.sent(), [(0, 4)]);
    bench.done(0);
    bench.done(0);
    assert_eq!(bench.sent(), [(0, 8)]);
    bench.done(0);
    assert_eq!(bench.ended().len(), 4);
}

#[test]
fn a_later_change_does_not_overtake_one_that_waits() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 8));
    bench.write(2, blocks(0, 16));
    bench.write(3, blocks(8, 8));
    assert_eq!(bench.sent(), [(0, 0)], "the third overlaps the second, which came first");
    bench.done(0);
    assert_eq!(bench.sent(), [(0, 0)]);
    bench.done(0);
    assert_eq!(bench.sent(), [(0, 8)]);
}

#[test]
fn reads_run_beside_writes_of_the_same_blocks() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 8));
    bench.read(2, blocks(0, 8));
    assert_eq!(bench.sent().len(), 2);
}

#[test]
fn a_failed_change_lets_the_next_one_go() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 8));
    bench.write(2, blocks(0, 8));
    bench.sent();
    bench.end(0, crate::path::Verdict::Device(crate::request::IoError::Medium));
    assert_eq!(bench.sent(), [(0, 0)]);
}

#[test]
fn a_retry_keeps_its_turn() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 8));
    bench.write(2, blocks(0, 8));
    bench.doubt(0, 1);
    assert_eq!(bench.sent(), [(0, 0), (1, 0)]);
    bench.done(1);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
    assert_eq!(bench.sent(), [], "now it waits for the doubt");
    bench.quiet(0, 1);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn without_the_rule_overlapping_changes_race() {
    let mut bench = Bench::with(Policy::default(), Rules { order_overlaps: false, ..Rules::SOUND });
    bench.up(0);
    bench.write(1, blocks(0, 8));
    bench.write(2, blocks(0, 8));
    assert_eq!(bench.sent().len(), 2);
    bench.done(0);
    bench.done(0);
    assert_eq!(bench.ended().len(), 2);
}
