//! Second chances for slow reads.

use super::*;
use crate::multipath::policy::{Hedge, Policy};
use crate::path::{PathId, Tried, Verdict};
use crate::request::IoError;

/// Two paths, and a hundred reads of a millisecond seen.
fn hedging() -> Bench {
    let hedge = Some(Hedge { per_mille: 990, after_min: millis(5) });
    let mut bench = Bench::ready(Policy { hedge, ..Policy::default() });
    for n in 0..100 {
        bench.read(1000 + n, blocks(0, 1));
        bench.pass(millis(1));
        bench.done(0);
    }
    bench.ended();
    bench.sent();
    bench
}

#[test]
fn a_slow_read_is_asked_for_on_another_path_and_the_first_answer_counts() {
    let mut bench = hedging();
    bench.read(1, blocks(8, 1));
    bench.pass(millis(4));
    assert_eq!(bench.sent(), [(0, 8)]);
    bench.pass(millis(1));
    assert_eq!(bench.sent(), [(1, 8)]);
    assert_eq!(bench.status().counters.hedged, 1);
    assert_eq!(bench.checks, [PathId(0)]);
    let (_, mut second) = bench.under_way.pop().unwrap();
    assert!(second.data.is_none(), "the owner of the path lends memory");
    let mut lent = corbel_proto::memory::HeapBuffer::new(512);
    corbel_proto::memory::Buffer::bytes_mut(&mut lent).fill(7);
    second.data = Some(corbel_proto::memory::Slice::whole(lent));
    let tried = Tried { id: second.id, data: second.data, verdict: Verdict::Done };
    bench.event(1, crate::path::PathEvent::Tried(tried));
    let outcome = bench.outcomes.pop().unwrap();
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.data.unwrap().bytes()[0], 7);
    bench.done(0);
    assert_eq!(bench.ended(), [], "the loser says nothing");
    assert_eq!(bench.status().in_flight, 0);
}

#[test]
fn a_failed_copy_leaves_the_other_alone() {
    let mut bench = hedging();
    bench.read(1, blocks(8, 1));
    bench.pass(millis(5));
    bench.elsewhere(0);
    assert_eq!(bench.ended(), []);
    bench.done(1);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
    assert_eq!(bench.sent(), [(0, 8), (1, 8)]);
}

#[test]
fn a_devices_error_ends_both() {
    let mut bench = hedging();
    bench.read(1, blocks(8, 1));
    bench.pass(millis(5));
    bench.end(1, Verdict::Device(IoError::Medium));
    assert_eq!(bench.ended(), [(1, Err(IoError::Medium))]);
    bench.done(0);
    assert_eq!(bench.ended(), []);
}

#[test]
fn writes_are_never_sent_twice_for_speed() {
    let mut bench = hedging();
    bench.write(1, blocks(8, 1));
    bench.pass(secs(10));
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_storm_of_slow_reads_is_not_doubled() {
    let mut bench = hedging();
    (0..50).for_each(|n| bench.read(n, blocks(n, 1)));
    bench.pass(secs(1));
    assert_eq!(bench.sent().len(), 58);
}

#[test]
fn there_is_no_second_copy_without_a_second_path() {
    let mut bench = hedging();
    bench.down(1);
    bench.read(1, blocks(8, 1));
    bench.pass(secs(1));
    assert_eq!(bench.sent().len(), 1);
    bench.up(1);
    bench.pass(millis(1));
    assert_eq!(bench.sent().len(), 1, "now there is");
}
