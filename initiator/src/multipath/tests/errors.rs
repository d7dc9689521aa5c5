//! The path's errors and the device's.

use super::*;
use crate::multipath::policy::{NoPath, Policy};
use crate::multipath::rules::Rules;
use crate::path::{Life, PathFault, PathId, Verdict};
use crate::request::{Extent, IoError, Operation};

#[test]
fn a_devices_error_goes_to_the_asker_and_leaves_the_path_up() {
    for error in [IoError::Medium, IoError::Conflict, IoError::NoSpace, IoError::Target] {
        let mut bench = Bench::ready(Policy::default());
        bench.write(1, blocks(0, 1));
        bench.end(0, Verdict::Device(error));
        assert_eq!(bench.ended(), [(1, Err(error))]);
        assert_eq!(bench.sent().len(), 1);
        assert_eq!(bench.status().paths_ready, 2);
    }
}

#[test]
fn a_devices_error_is_final_though_copies_of_the_write_may_land() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 8));
    bench.end(0, Verdict::DeviceInDoubt(IoError::Medium, Life(3)));
    assert_eq!(bench.ended(), [(1, Err(IoError::Medium))]);
    bench.sent();
    bench.write(2, blocks(4, 1));
    assert_eq!(bench.sent(), [], "the old copy could land on top of it");
    bench.quiet(0, 3);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_paths_error_is_hidden_by_another_path() {
    let mut bench = Bench::ready(Policy::default());
    bench.read(1, blocks(0, 1));
    bench.elsewhere(0);
    bench.done(1);
    assert_eq!(bench.sent(), [(0, 0), (1, 0)]);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
    assert_eq!(bench.checks, [PathId(0)]);
    assert_eq!(bench.status().counters.retries, 1);
}

#[test]
fn a_path_that_failed_a_request_is_not_asked_again_while_there_is_another() {
    let mut bench = Bench::ready(Policy::default());
    bench.add(2, false);
    bench.up(2);
    bench.read(1, blocks(0, 1));
    bench.elsewhere(0);
    bench.elsewhere(1);
    assert_eq!(bench.sent(), [(0, 0), (1, 0), (2, 0)]);
}

#[test]
fn after_a_round_in_which_all_paths_failed_there_is_a_growing_pause() {
    let mut bench = Bench::ready(Policy::default());
    bench.read(1, blocks(0, 1));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        bench.elsewhere(0);
        bench.elsewhere(1);
        bench.sent();
        let start = bench.now;
        while bench.under_way.is_empty() {
            bench.pass(millis(1));
        }
        pauses.push(bench.now.since(start).as_millis());
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
}

#[test]
fn a_request_that_fails_everywhere_for_too_long_fails() {
    let mut bench = Bench::ready(Policy { no_path: NoPath::For(secs(3)), ..Policy::default() });
    bench.read(1, blocks(0, 1));
    for _ in 0..20 {
        while let Some(&(path, _)) = bench.under_way.first() {
            bench.elsewhere(path.0);
        }
        bench.pass(millis(500));
    }
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
}

#[test]
fn a_path_that_comes_and_goes_does_not_keep_a_failing_request_for_ever() {
    let mut bench = Bench::ready(Policy { no_path: NoPath::For(secs(3)), ..Policy::default() });
    bench.engine.remove_path(bench.now, PathId(1));
    bench.read(1, blocks(0, 1));
    for _ in 0..5 {
        bench.end(0, Verdict::Elsewhere(PathFault::CommandTimeout));
        bench.down(0);
        bench.pass(millis(900));
        bench.up(0);
        if bench.under_way.is_empty() {
            break;
        }
    }
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
}

#[test]
fn a_path_that_is_back_is_asked_at_once() {
    let mut bench = Bench::ready(Policy::default());
    bench.down(1);
    bench.write(1, blocks(0, 1));
    bench.doubt(0, 1);
    bench.down(0);
    assert_eq!(bench.sent().len(), 1);
    bench.up(0);
    assert_eq!(bench.sent(), [(0, 0)]);
}

#[test]
fn a_busy_device_is_asked_again_after_its_time() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 1));
    bench.sent();
    bench.end(0, Verdict::Later(millis(30)));
    assert_eq!(bench.sent(), [], "the other path is of another group");
    bench.pass(millis(29));
    assert_eq!(bench.sent(), []);
    bench.pass(millis(1));
    assert_eq!(bench.sent(), [(0, 0)]);
}

#[test]
fn another_path_of_the_group_is_asked_when_one_is_busy() {
    let grouping = crate::multipath::policy::Grouping::Multibus;
    let mut bench = Bench::ready(Policy { grouping, ..Policy::default() });
    bench.write(1, blocks(0, 1));
    bench.end(0, Verdict::Later(millis(30)));
    assert_eq!(bench.sent(), [(0, 0), (1, 0)]);
    bench.end(1, Verdict::Later(millis(50)));
    assert_eq!(bench.sent(), []);
    bench.pass(millis(30));
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn busy_for_no_time_is_no_hot_loop() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 1));
    for _ in 0..5 {
        bench.end(0, Verdict::Later(millis(0)));
        assert!(bench.under_way.is_empty());
        bench.pass(millis(1));
        assert_eq!(bench.under_way.len(), 1);
    }
}

#[test]
fn what_is_not_of_the_device_is_refused() {
    let mut bench = Bench::ready(Policy::default());
    let last = SIZE / BLOCK;
    bench.read(1, blocks(last - 1, 1));
    assert_eq!(bench.sent().len(), 1);
    bench.read(2, blocks(last, 1));
    bench.read(3, blocks(last - 1, 2));
    bench.read(4, Extent { offset: 100, len: 512 });
    bench.read(5, Extent { offset: 0, len: 100 });
    bench.submit(6, Operation::Discard, Extent { offset: u64::MAX - 511, len: 512 });
    bench.submit(7, Operation::Discard, Extent { offset: 512, len: 0 });
    assert_eq!(bench.sent(), []);
    let refused: Vec<_> = (2..8).map(|id| (id, Err(IoError::Invalid))).collect();
    assert_eq!(bench.ended(), refused);
}

#[test]
fn what_came_before_the_device_was_known_is_measured_when_it_is() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.read(1, blocks(SIZE / BLOCK, 1));
    assert_eq!(bench.ended(), []);
    bench.up(0);
    assert_eq!(bench.ended(), [(1, Err(IoError::Invalid))]);
}

#[test]
fn a_read_only_device_refuses_changes() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    let read_only = crate::path::Facts { read_only: true, ..facts() };
    bench.up_with(0, read_only);
    bench.write(1, blocks(0, 1));
    bench.submit(2, Operation::Discard, blocks(0, 1));
    bench.read(3, blocks(0, 1));
    assert_eq!(bench.ended(), [(1, Err(IoError::ReadOnly)), (2, Err(IoError::ReadOnly))]);
    assert_eq!(bench.sent().len(), 1);
}

#[test]
fn a_discard_goes_where_it_works() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.up_with(0, crate::path::Facts { discard: false, ..facts() });
    bench.submit(1, Operation::Discard, blocks(0, 1));
    assert_eq!(bench.ended(), [(1, Err(IoError::Unsupported))]);
    bench.up(1);
    bench.submit(2, Operation::Discard, blocks(0, 1));
    assert_eq!(bench.sent(), [(1, 0)]);
}

#[test]
fn without_retries_every_path_failure_reaches_the_asker() {
    let rules = Rules { retry_path_errors: false, ..Rules::SOUND };
    let mut bench = Bench::with(Policy::default(), rules);
    bench.up(0);
    bench.up(1);
    bench.read(1, blocks(0, 1));
    bench.elsewhere(0);
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
}
