//! What a flush covers.

use super::*;
use crate::multipath::policy::{Cache, Grouping, NoPath, Policy};
use crate::multipath::rules::Rules;
use crate::multipath::status::Notice;
use crate::multipath::{CacheMark, Legacy};
use crate::path::Facts;
use crate::request::{IoError, Operation};

fn node(name: &str, instance: &str) -> Facts {
    Facts { cache_domain: name.into(), instance: Some(instance.into()), ..facts() }
}

/// Paths to two nodes with a cache each, which take turns; both caches are flushed.
fn two_nodes(cache: Cache, rules: Rules) -> Bench {
    let selector = crate::multipath::policy::Selector::RoundRobin;
    let policy = Policy { cache, grouping: Grouping::Multibus, selector, ..Policy::default() };
    let mut bench = Bench::with(policy, rules);
    bench.up_with(0, node("a", "1"));
    bench.up_with(1, node("b", "1"));
    bench.flush(100);
    while let Some(&(path, _)) = bench.under_way.first() {
        bench.done(path.0);
    }
    assert_eq!(bench.ended(), [(100, Ok(()))]);
    bench.sent();
    bench
}

fn write_both(bench: &mut Bench) {
    bench.write(1, blocks(0, 1));
    bench.write(2, blocks(1, 1));
    bench.done(0);
    bench.done(1);
    assert_eq!(bench.ended().len(), 2);
    bench.sent();
}

#[test]
fn trust_sends_one_flush() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    write_both(&mut bench);
    bench.flush(3);
    assert_eq!(bench.under_way.len(), 1);
    let path = bench.under_way[0].0;
    bench.done(path.0);
    assert_eq!(bench.ended(), [(3, Ok(()))]);
}

#[test]
fn multi_flushes_every_cache_that_was_written_to() {
    let mut bench = two_nodes(Cache::Multi, Rules::SOUND);
    write_both(&mut bench);
    bench.flush(3);
    assert_eq!(bench.under_way.len(), 2);
    bench.done(0);
    assert_eq!(bench.ended(), []);
    bench.done(1);
    assert_eq!(bench.ended(), [(3, Ok(()))]);
    bench.flush(4);
    assert_eq!(bench.ended(), [(4, Ok(()))], "nothing was written since");
}

#[test]
fn multi_waits_for_a_cache_that_is_gone() {
    let mut bench = two_nodes(Cache::Multi, Rules::SOUND);
    write_both(&mut bench);
    bench.down(1);
    bench.flush(3);
    bench.done(0);
    bench.pass(secs(100));
    assert_eq!(bench.ended(), []);
    bench.up_with(1, node("b", "1"));
    bench.done(1);
    assert_eq!(bench.ended(), [(3, Ok(()))]);
}

#[test]
fn multi_gives_up_waiting_as_the_policy_says() {
    let mut bench = two_nodes(Cache::Multi, Rules::SOUND);
    bench.set(|policy| policy.no_path = NoPath::For(secs(20)));
    write_both(&mut bench);
    bench.down(1);
    bench.flush(3);
    bench.done(0);
    bench.pass(secs(20));
    assert_eq!(bench.ended(), [(3, Err(IoError::Io))]);
}

#[test]
fn fua_makes_every_write_stable_and_a_flush_free() {
    let mut bench = two_nodes(Cache::Fua, Rules::SOUND);
    bench.write(1, blocks(0, 1));
    assert_eq!(bench.sent_whole()[0].2, Operation::Write { fua: true });
    let path = bench.under_way[0].0;
    bench.done(path.0);
    bench.flush(2);
    assert_eq!(bench.ended(), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn a_write_that_ends_after_the_flush_began_is_not_covered_by_it() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    bench.write(1, blocks(0, 1));
    bench.flush(2);
    assert_eq!(bench.ended(), [(2, Ok(()))], "nothing was acknowledged before");
    let path = bench.under_way[0].0;
    bench.done(path.0);
    bench.flush(3);
    bench.write(4, blocks(8, 1));
    let flush = bench.under_way.iter().position(|(_, t)| t.operation == Operation::Flush);
    assert_eq!(flush, Some(0));
    let (first, second) = (bench.under_way[0].0, bench.under_way[1].0);
    bench.done(second.0);
    bench.done(first.0);
    bench.ended();
    bench.flush(5);
    assert_eq!(bench.under_way.len(), 1, "the fourth request is not stable yet");
}

#[test]
fn a_flush_needs_no_command_where_nothing_is_volatile() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.up_with(0, Facts { volatile_cache: false, ..facts() });
    bench.write(1, blocks(0, 1));
    bench.done(0);
    bench.flush(2);
    assert_eq!(bench.ended(), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn a_path_without_a_cache_says_nothing_about_its_nodes_cache() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    write_both(&mut bench);
    bench.add(2, false);
    bench.up_with(2, Facts { volatile_cache: false, ..node("a", "1") });
    bench.up_with(2, Facts { volatile_cache: false, ..node("b", "1") });
    bench.flush(3);
    assert_eq!(bench.under_way.len(), 1);
}

/// Found by the simulator: the path without a cache answered at once, and what the cache held was
/// lost with the power, although a flush had been acknowledged.
#[test]
fn a_flush_waits_for_a_path_with_the_cache_and_hears_there_that_it_was_lost() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    write_both(&mut bench);
    bench.add(2, false);
    bench.up_with(2, Facts { volatile_cache: false, ..node("c", "1") });
    bench.down(0);
    bench.down(1);
    bench.flush(3);
    assert_eq!(bench.under_way.len(), 0, "no path without a cache stands for it");
    bench.up_with(0, node("a", "2"));
    if !bench.under_way.is_empty() {
        bench.done(0);
    }
    assert_eq!(bench.ended(), [(3, Err(IoError::Io))]);
}

#[test]
fn a_cache_that_is_turned_off_is_written_back() {
    let mut bench = Bench::ready(Policy::default());
    bench.write(1, blocks(0, 1));
    bench.done(0);
    (0..2).for_each(|path| bench.up_with(path, Facts { volatile_cache: false, ..facts() }));
    bench.flush(2);
    assert_eq!(bench.ended(), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn what_an_earlier_process_wrote_is_flushed_too() {
    let mut bench = Bench::ready(Policy::default());
    bench.flush(1);
    assert_eq!(bench.under_way.len(), 1);
}

#[test]
fn a_failed_flush_command_goes_to_another_path() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    write_both(&mut bench);
    bench.flush(3);
    let path = bench.under_way[0].0.0;
    bench.elsewhere(path);
    assert_eq!(bench.ended(), []);
    bench.done(1 - path);
    assert_eq!(bench.ended(), [(3, Ok(()))]);
}

#[test]
fn a_flush_the_device_refuses_is_told_and_leaves_the_cache_dirty() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    write_both(&mut bench);
    bench.flush(3);
    let path = bench.under_way[0].0.0;
    bench.end(path, crate::path::Verdict::Device(IoError::Medium));
    assert_eq!(bench.ended(), [(3, Err(IoError::Medium))]);
    bench.flush(4);
    assert_eq!(bench.under_way.len(), 1);
}

#[test]
fn a_restart_that_loses_acknowledged_writes_fails_the_next_flush_once() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    write_both(&mut bench);
    bench.down(1);
    bench.up_with(1, node("b", "2"));
    assert!(bench.notices.contains(&Notice::CacheLost));
    bench.flush(3);
    assert_eq!(bench.ended(), [(3, Err(IoError::Io))]);
    bench.flush(4);
    assert_eq!(bench.under_way.len(), 1);
    let path = bench.under_way[0].0;
    bench.done(path.0);
    assert_eq!(bench.ended(), [(4, Ok(()))]);
}

#[test]
fn a_flush_under_way_during_a_restart_fails_too() {
    let mut bench = two_nodes(Cache::Multi, Rules::SOUND);
    write_both(&mut bench);
    bench.flush(3);
    bench.elsewhere(1);
    bench.down(1);
    bench.done(0);
    bench.up_with(1, node("b", "2"));
    bench.done(1);
    assert_eq!(bench.ended(), [(3, Err(IoError::Io))]);
}

#[test]
fn a_restart_with_nothing_unstable_loses_nothing() {
    let mut bench = two_nodes(Cache::Trust, Rules::SOUND);
    bench.down(1);
    bench.up_with(1, node("b", "2"));
    assert!(!bench.notices.contains(&Notice::CacheLost));
}

#[test]
fn a_removed_path_takes_its_cache_with_it_and_that_is_told() {
    let mut bench = two_nodes(Cache::Multi, Rules::SOUND);
    write_both(&mut bench);
    bench.engine.remove_path(bench.now, crate::path::PathId(1));
    bench.pump();
    assert!(bench.notices.contains(&Notice::CacheLost));
    bench.flush(3);
    assert_eq!(bench.ended(), [(3, Err(IoError::Io))]);
}

#[test]
fn without_the_rules_a_cache_is_forgotten() {
    let mut bench = two_nodes(Cache::Multi, Rules { flush_all_domains: false, ..Rules::SOUND });
    write_both(&mut bench);
    bench.flush(3);
    assert_eq!(bench.under_way.len(), 1);
    let mut bench = two_nodes(Cache::Trust, Rules { fail_lost_cache: false, ..Rules::SOUND });
    write_both(&mut bench);
    bench.down(1);
    bench.up_with(1, node("b", "2"));
    bench.flush(3);
    let path = bench.under_way[0].0;
    bench.done(path.0);
    assert_eq!(bench.ended(), [(3, Ok(()))]);
}

/// A process that takes over from one that wrote to these nodes' caches, its paths still down.
fn taken_over(cache: Cache, nodes: &[(&str, &str)], rules: Rules) -> Bench {
    let policy = Policy { cache, grouping: Grouping::Multibus, ..Policy::default() };
    let mut bench = Bench::with(policy, rules);
    let mark = |&(name, instance): &(&str, &str)| CacheMark {
        name: name.into(),
        instance: Some(instance.into()),
    };
    let caches = nodes.iter().map(mark).collect();
    bench.engine.inherit(Legacy { caches, ..Legacy::default() });
    bench
}

#[test]
fn who_takes_over_flushes_every_cache_of_the_process_before() {
    let mut bench = taken_over(Cache::Multi, &[("a", "1"), ("b", "1")], Rules::SOUND);
    bench.up_with(0, node("a", "1"));
    bench.flush(1);
    bench.done(0);
    bench.pass(secs(100));
    assert_eq!(bench.ended(), [], "nobody has asked node b");
    bench.up_with(1, node("b", "1"));
    bench.done(1);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
    let rules = Rules { remember_caches: false, ..Rules::SOUND };
    let mut bench = taken_over(Cache::Multi, &[("a", "1"), ("b", "1")], rules);
    bench.up_with(0, node("a", "1"));
    bench.flush(1);
    bench.done(0);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
}

#[test]
fn who_takes_over_waits_for_a_path_that_has_the_cache() {
    let mut bench = taken_over(Cache::Trust, &[("a", "1")], Rules::SOUND);
    let cacheless = Facts { volatile_cache: false, ..node("shelf", "1") };
    bench.up_with(0, cacheless.clone());
    bench.flush(1);
    bench.pass(secs(100));
    assert_eq!((bench.ended(), bench.under_way.len()), (vec![], 0));
    bench.up_with(1, node("a", "1"));
    bench.done(1);
    assert_eq!(bench.ended(), [(1, Ok(()))]);

    // Its paths were taken off the configuration: there is nothing to wait for.
    let mut bench = taken_over(Cache::Trust, &[("a", "1")], Rules::SOUND);
    bench.up_with(0, cacheless.clone());
    bench.flush(1);
    bench.up_with(1, cacheless);
    while let Some(&(path, _)) = bench.under_way.first() {
        bench.done(path.0);
    }
    assert_eq!(bench.ended(), [(1, Ok(()))]);
}

#[test]
fn a_path_in_quarantine_may_lead_to_the_cache_yet() {
    let mut bench = taken_over(Cache::Trust, &[("a", "1")], Rules::SOUND);
    bench.up_with(0, Facts { volatile_cache: false, ..node("shelf", "1") });
    let mut alien = node("b", "1");
    alien.identity.wwn = Some("3000000000000002".into());
    bench.up_with(1, alien);
    bench.flush(1);
    bench.pass(secs(100));
    assert_eq!(bench.ended(), []);
    bench.up_with(1, node("a", "1"));
    bench.done(1);
    assert_eq!(bench.ended(), [(1, Ok(()))]);
}

#[test]
fn a_cache_lost_while_no_process_ran_is_told() {
    let mut bench = taken_over(Cache::Trust, &[("a", "1")], Rules::SOUND);
    bench.up_with(0, node("a", "2"));
    assert!(bench.notices.contains(&Notice::CacheLost));
    bench.flush(1);
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
    // Nobody was told: who comes next tells.
    let mut bench = taken_over(Cache::Trust, &[("a", "1")], Rules::SOUND);
    bench.up_with(0, node("a", "2"));
    let marks = bench.engine.legacy();
    assert!(marks.lost);
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.engine.inherit(marks);
    bench.up_with(0, node("a", "2"));
    bench.flush(1);
    assert_eq!(bench.ended(), [(1, Err(IoError::Io))]);
    assert!(!bench.engine.legacy().lost);
}
