//! What status says.

use super::*;
use crate::multipath::policy::{NoPath, Policy};
use crate::multipath::rules::Rules;
use crate::multipath::status::{DeviceState, Notice};
use crate::multipath::{Geometry, PATHS_MAX};
use crate::path::{Facts, PathFault, PathId};

#[test]
fn a_device_goes_through_its_states() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    assert_eq!(bench.status().state, DeviceState::Starting);
    assert_eq!(bench.status().size_bytes, None);
    bench.up(0);
    assert_eq!(bench.status().state, DeviceState::Degraded);
    bench.up(1);
    let status = bench.status();
    assert_eq!((status.state, status.paths_ready), (DeviceState::Active, 2));
    assert_eq!((status.size_bytes, status.block_bytes), (Some(SIZE), Some(512)));
    assert_eq!(status.wwid.as_deref(), Some("3000000000000001"));
    bench.down(0);
    bench.down(1);
    bench.pass(secs(3));
    let status = bench.status();
    assert_eq!((status.state, status.no_path_since_ms), (DeviceState::Queueing, Some(3000)));
    assert_eq!(status.next.as_deref(), Some("requests wait for a path"));
    bench.set(|policy| policy.no_path = NoPath::For(secs(1)));
    let status = bench.status();
    assert_eq!(status.state, DeviceState::Failing);
    assert_eq!(status.next.as_deref(), Some("requests fail until a path is back"));
}

#[test]
fn news_are_told_once() {
    let mut bench = Bench::ready(Policy::default());
    bench.down(0);
    bench.down(0);
    bench.up(0);
    bench.up(0);
    let path = || "path-0".to_owned();
    let down = Notice::PathDown { path: path(), fault: PathFault::Closed };
    assert_eq!(bench.notices, [down, Notice::PathUp { path: path() }]);
}

#[test]
fn counters_count() {
    let mut bench = Bench::ready(Policy::default());
    bench.read(1, blocks(0, 2));
    bench.write(2, blocks(8, 3));
    let status = bench.status();
    assert_eq!((status.in_flight, status.queued_requests), (2, 0));
    bench.pass(millis(2));
    bench.done(0);
    bench.done(0);
    let status = bench.status();
    let counters = status.counters;
    assert_eq!((counters.completed, counters.failed), (2, 0));
    assert_eq!((counters.read_bytes, counters.written_bytes), (2 * BLOCK, 3 * BLOCK));
    let path = &status.groups[0].paths[0];
    assert_eq!((path.completed, path.bytes, path.latency_us), (2, 5 * BLOCK, Some(2000)));
}

#[test]
fn a_flush_counts_as_one_request() {
    let mut bench = Bench::ready(Policy::default());
    bench.flush(1);
    assert_eq!((bench.status().in_flight, bench.status().queued_requests), (1, 0));
    bench.elsewhere(0);
    bench.elsewhere(1);
    assert_eq!((bench.status().in_flight, bench.status().queued_requests), (0, 1));
}

#[test]
fn a_path_says_what_it_is_told_to() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    let words = (Some("connection refused".to_owned()), Some("connects again".to_owned()));
    bench.engine.path_words(PathId(0), words.0.clone(), words.1.clone());
    let status = bench.status();
    let path = &status.groups[0].paths[0];
    assert_eq!(
        (path.fault, &path.why, &path.next),
        (Some(PathFault::Starting), &words.0, &words.1)
    );
}

#[test]
fn geometry_is_what_every_path_can_do() {
    let mut bench = Bench::ready(Policy::default());
    let weak =
        Facts { discard: false, physical_block_bytes: 512, optimal_bytes: 1 << 20, ..facts() };
    bench.up_with(1, Facts { read_only: true, volatile_cache: false, ..weak });
    let expected = Geometry {
        size_bytes: SIZE,
        block_bytes: 512,
        physical_block_bytes: 4096,
        optimal_bytes: 1 << 20,
        read_only: false,
        volatile_cache: true,
        discard: false,
        write_zeroes: true,
    };
    assert_eq!(bench.engine.geometry(), Some(expected));
}

#[test]
fn there_is_a_limit_to_paths_and_to_news() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    (2..200).for_each(|id| bench.add(id, false));
    let paths: usize = bench.status().groups.iter().map(|group| group.paths.len()).sum();
    assert_eq!(paths, PATHS_MAX);
    for _ in 0..1000 {
        let ready = crate::path::PathEvent::Ready(Box::new(facts()));
        bench.engine.path_event(bench.now, PathId(0), ready);
        let down = crate::path::PathEvent::Down(PathFault::Closed);
        bench.engine.path_event(bench.now, PathId(0), down);
    }
    assert!(std::iter::from_fn(|| bench.engine.poll_notice()).count() <= 256);
}
