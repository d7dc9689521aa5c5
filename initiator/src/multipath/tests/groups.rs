//! Groups, selectors, and paths that come and go.

use super::*;
use crate::multipath::policy::{Failback, Grouping, Policy, Selector};
use crate::multipath::rules::Rules;
use crate::multipath::status::PathState;
use crate::path::{Facts, PathEvent, PathFault, PathId};

fn weighted(priority: u32) -> Facts {
    Facts { priority, ..facts() }
}

/// Path 0 is optimized, path 1 is not.
fn two_groups(failback: Failback) -> Bench {
    let policy = Policy { grouping: Grouping::GroupByPrio, failback, ..Policy::default() };
    let mut bench = Bench::with(policy, Rules::SOUND);
    bench.up_with(0, weighted(50));
    bench.up_with(1, weighted(10));
    bench
}

/// Which path takes a read now.
fn taker(bench: &mut Bench) -> u16 {
    bench.sent();
    bench.read(99, blocks(0, 1));
    let path = bench.sent()[0].0;
    bench.done(path);
    bench.outcomes.clear();
    path
}

#[test]
fn the_best_group_is_used_and_the_next_when_it_dies() {
    let mut bench = two_groups(Failback::Immediate);
    assert_eq!(taker(&mut bench), 0);
    bench.down(0);
    assert_eq!(taker(&mut bench), 1);
    bench.up_with(0, weighted(50));
    assert_eq!(taker(&mut bench), 0, "and back at once");
    assert_eq!(bench.status().counters.group_switches, 2);
}

#[test]
fn manual_failback_waits_for_an_administrator() {
    let mut bench = two_groups(Failback::Manual);
    bench.down(0);
    bench.up_with(0, weighted(50));
    bench.pass(secs(1000));
    assert_eq!(taker(&mut bench), 1);
    assert!(bench.engine.switch_group(bench.now, 0));
    assert_eq!(taker(&mut bench), 0);
    assert!(!bench.engine.switch_group(bench.now, 2));
}

#[test]
fn failback_after_a_time_counts_from_when_the_group_is_well() {
    let mut bench = two_groups(Failback::After(secs(30)));
    bench.down(0);
    bench.up_with(0, weighted(50));
    bench.pass(secs(20));
    bench.down(0);
    bench.up_with(0, weighted(50));
    bench.pass(secs(29));
    assert_eq!(taker(&mut bench), 1);
    let next = bench.status().next;
    assert_eq!(next.as_deref(), Some("the better group is used again in 1.0 s"));
    bench.pass(secs(1));
    assert_eq!(taker(&mut bench), 0);
}

#[test]
fn a_chosen_group_stays_until_it_dies() {
    let mut bench = two_groups(Failback::Immediate);
    assert!(bench.engine.switch_group(bench.now, 1));
    bench.up_with(0, weighted(50));
    assert_eq!(taker(&mut bench), 1);
    bench.down(1);
    assert_eq!(taker(&mut bench), 0);
    bench.up_with(1, weighted(10));
    assert_eq!(taker(&mut bench), 0);
}

#[test]
fn a_change_of_priority_changes_the_group() {
    let mut bench = two_groups(Failback::Immediate);
    bench.up_with(0, weighted(10));
    bench.up_with(1, weighted(50));
    assert_eq!(taker(&mut bench), 1);
}

#[test]
fn standby_paths_are_ghosts_and_take_nothing() {
    let mut bench = two_groups(Failback::Immediate);
    bench.event(0, PathEvent::Down(PathFault::Standby));
    bench.up_with(1, weighted(1));
    let status = bench.status();
    assert!(status.groups.iter().flat_map(|g| &g.paths).all(|p| p.state == PathState::Ghost));
    bench.read(1, blocks(0, 1));
    assert_eq!(bench.sent(), []);
    bench.up_with(1, weighted(50));
    assert_eq!(bench.sent(), [(1, 0)]);
}

#[test]
fn groups_by_serial_hold_the_paths_of_one_target() {
    let of = |serial: &str| Facts { group_serial: serial.into(), ..facts() };
    let policy = Policy { grouping: Grouping::GroupBySerial, ..Policy::default() };
    let mut bench = Bench::with(policy, Rules::SOUND);
    bench.add(2, false);
    bench.up_with(0, of("a"));
    bench.up_with(1, of("b"));
    bench.up_with(2, of("a"));
    let members: Vec<usize> = bench.status().groups.iter().map(|g| g.paths.len()).collect();
    assert_eq!(members, [2, 1]);
}

fn multibus(selector: Selector) -> Bench {
    let mut bench =
        Bench::ready(Policy { grouping: Grouping::Multibus, selector, ..Policy::default() });
    bench.sent();
    bench
}

#[test]
fn round_robin_gives_each_its_turn() {
    let mut bench = multibus(Selector::RoundRobin);
    bench.set(|policy| policy.requests_per_turn = 2);
    (0..8).for_each(|n| bench.read(n, blocks(n, 1)));
    let paths: Vec<u16> = bench.sent().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [0, 0, 1, 1, 0, 0, 1, 1]);
}

#[test]
fn queue_length_takes_the_shortest_queue() {
    let mut bench = multibus(Selector::QueueLength);
    (0..4).for_each(|n| bench.read(n, blocks(n, 1)));
    bench.done(1);
    bench.done(1);
    bench.sent();
    bench.read(8, blocks(0, 1));
    bench.read(9, blocks(0, 1));
    assert_eq!(bench.sent(), [(1, 0), (1, 0)]);
}

#[test]
fn service_time_gives_the_faster_path_more() {
    let mut bench = multibus(Selector::ServiceTime);
    let (mut next, mut taken, mut clock) = (0, [0, 0], [0u32; 2]);
    for _ in 0..400 {
        while bench.under_way.len() < 8 {
            bench.read(next, blocks(next, 8));
            next += 1;
        }
        bench.pass(millis(1));
        // Path 0 does one a millisecond, path 1 one in four.
        for (path, period) in [(0u16, 1), (1, 4)] {
            let clock = &mut clock[usize::from(path)];
            *clock += 1;
            if *clock % period == 0 && bench.under_way.iter().any(|(on, _)| *on == PathId(path)) {
                taken[usize::from(path)] += 1;
                bench.done(path);
            }
        }
    }
    assert!(taken[0] > 300 && taken[1] > 50, "{taken:?}");
    let on_slow = bench.under_way.iter().filter(|(on, _)| *on == PathId(1)).count();
    assert!(on_slow <= 3, "{on_slow} of 8 queue at the slow path");
}

#[test]
fn service_time_tries_every_path_whose_speed_is_unknown() {
    let mut bench = multibus(Selector::ServiceTime);
    bench.read(1, blocks(0, 1));
    bench.read(2, blocks(1, 1));
    assert_eq!(bench.sent(), [(0, 0), (1, 1)]);
}

#[test]
fn a_path_that_comes_and_goes_has_to_prove_itself() {
    let mut bench = Bench::ready(Policy::default());
    for _ in 0..4 {
        bench.down(0);
        bench.up(0);
    }
    assert_eq!(taker(&mut bench), 1);
    let status = bench.status();
    let path = status.groups.iter().flat_map(|g| &g.paths).find(|p| p.path == "path-0").unwrap();
    assert_eq!((path.state, path.fault), (PathState::Damped, Some(PathFault::Flapping)));
    assert_eq!(path.next.as_deref(), Some("is used again in 10.0 s"));
    bench.pass(secs(10));
    assert_eq!(taker(&mut bench), 0);
}

#[test]
fn a_path_that_has_proven_itself_is_used_whoever_looks_at_the_clock_first() {
    let mut bench = Bench::ready(Policy::default());
    for _ in 0..4 {
        bench.down(0);
        bench.up(0);
    }
    // The time is over just when something else happens.
    bench.now = bench.now + secs(10);
    bench.event(1, PathEvent::Checked);
    bench.pass(millis(1));
    assert_eq!(taker(&mut bench), 0);
}

#[test]
fn a_damped_path_is_better_than_none() {
    let mut bench = Bench::ready(Policy::default());
    for _ in 0..4 {
        bench.down(0);
        bench.up(0);
    }
    bench.down(1);
    assert_eq!(taker(&mut bench), 0);
}

#[test]
fn a_path_that_is_well_but_fails_everything_is_set_aside_for_a_while() {
    let mut bench = Bench::ready(Policy::default());
    for n in 0..8 {
        assert_eq!(bench.status().groups[0].paths[0].state, PathState::Ready);
        bench.read(n, blocks(n, 1));
        bench.elsewhere(0);
        bench.done(1);
    }
    assert_eq!(bench.status().groups[0].paths[0].state, PathState::Damped);
    assert_eq!(taker(&mut bench), 1);
    bench.pass(secs(10));
    assert_eq!(taker(&mut bench), 0);
}

#[test]
fn a_disabled_path_takes_nothing_until_it_is_enabled() {
    let mut bench = Bench::ready(Policy::default());
    bench.engine.disable_path(bench.now, PathId(0));
    assert_eq!(taker(&mut bench), 1);
    bench.engine.disable_path(bench.now, PathId(1));
    bench.pump();
    bench.read(1, blocks(0, 1));
    assert_eq!(bench.sent(), []);
    bench.engine.enable_path(bench.now, PathId(1));
    bench.pump();
    assert_eq!(bench.sent(), [(1, 0)]);
}

#[test]
fn a_removed_path_gets_its_tries_aborted_and_nothing_new() {
    let mut bench = Bench::ready(Policy::default());
    bench.read(1, blocks(0, 1));
    bench.engine.remove_path(bench.now, PathId(0));
    bench.pump();
    assert_eq!(bench.aborts.len(), 1);
    bench.elsewhere(0);
    bench.down(0);
    assert_eq!(bench.sent(), [(0, 0), (1, 0)]);
}
