//! No path: how long requests wait, and what they are told.

use super::*;
use crate::multipath::policy::{NoPath, Policy};
use crate::multipath::rules::Rules;
use crate::multipath::status::{DeviceState, Notice};
use crate::request::IoError;

fn lost(no_path: NoPath) -> Bench {
    let mut bench = Bench::ready(Policy { no_path, ..Policy::default() });
    bench.down(0);
    bench.down(1);
    bench
}

#[test]
fn queue_waits_for_ever_and_loses_nothing() {
    let mut bench = lost(NoPath::Queue);
    (0..5).for_each(|n| bench.write(n, blocks(n, 1)));
    bench.pass(secs(100_000));
    assert_eq!(bench.ended(), []);
    let status = bench.status();
    assert_eq!((status.state, status.queued_requests), (DeviceState::Queueing, 5));
    assert_eq!((status.queued_bytes, status.queued_oldest_ms), (5 * BLOCK, 100_000_000));
    bench.up(1);
    assert_eq!(bench.sent(), [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)], "in their order");
}

#[test]
fn requests_fail_exactly_when_their_time_is_over_and_then_at_once() {
    let mut bench = lost(NoPath::For(secs(30)));
    bench.pass(secs(7));
    bench.write(1, blocks(0, 1));
    bench.read(2, blocks(0, 1));
    bench.flush(3);
    assert_eq!(bench.status().next.as_deref(), Some("requests fail in 23.0 s"));
    bench.pass(secs(23) - millis(1));
    assert_eq!(bench.ended(), []);
    bench.pass(millis(1));
    let io = Err(IoError::Io);
    assert_eq!(bench.ended(), [(1, io), (2, io), (3, io)]);
    assert_eq!(bench.status().state, DeviceState::Failing);
    bench.read(4, blocks(0, 1));
    assert_eq!(bench.ended(), [(4, io)]);
    assert_eq!(bench.notices.last(), Some(&Notice::QueueGivenUp));
    bench.up(0);
    bench.read(5, blocks(0, 1));
    assert_eq!(bench.sent(), [(0, 0)]);
    assert_eq!(bench.notices.last(), Some(&Notice::Recovered));
}

#[test]
fn fail_gives_a_lost_path_the_fast_fail_time() {
    let mut bench = lost(NoPath::Fail);
    bench.read(1, blocks(0, 1));
    bench.pass(millis(4999));
    assert_eq!(bench.ended(), []);
    bench.pass(millis(1));
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
}

#[test]
fn the_policy_changes_for_what_waits_already() {
    let mut bench = lost(NoPath::Queue);
    bench.write(1, blocks(0, 1));
    bench.pass(secs(100));
    bench.set(|policy| policy.no_path = NoPath::For(secs(120)));
    assert_eq!(bench.ended(), []);
    bench.set(|policy| policy.no_path = NoPath::Queue);
    bench.pass(secs(100));
    assert_eq!(bench.ended(), []);
    bench.set(|policy| policy.no_path = NoPath::Fail);
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
    bench.set(|policy| policy.no_path = NoPath::Queue);
    bench.write(2, blocks(0, 1));
    assert_eq!(bench.ended(), []);
}

#[test]
fn before_the_first_path_requests_wait_likewise() {
    let policy = Policy { no_path: NoPath::For(secs(10)), ..Policy::default() };
    let mut bench = Bench::with(policy, Rules::SOUND);
    bench.read(1, blocks(0, 1));
    bench.flush(2);
    assert_eq!(bench.status().state, DeviceState::Starting);
    bench.pass(secs(9));
    bench.up(0);
    assert_eq!(bench.sent().len(), 2);
}

#[test]
fn a_last_path_that_is_lost_is_told_once() {
    let bench = lost(NoPath::Queue);
    let lost = bench.notices.iter().filter(|notice| **notice == Notice::AllPathsDown);
    assert_eq!(lost.count(), 1);
    assert_eq!(bench.status().counters.all_paths_down, 1);
}
