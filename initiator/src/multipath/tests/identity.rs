//! Only this device.

use super::*;
use crate::identity::Identity;
use crate::multipath::policy::{Policy, Resize};
use crate::multipath::rules::Rules;
use crate::multipath::status::{Notice, PathState};
use crate::path::{Facts, PathId};

fn with(change: impl FnOnce(&mut Identity)) -> Facts {
    let mut facts = facts();
    change(&mut facts.identity);
    facts
}

fn state(bench: &Bench, path: usize) -> PathState {
    let status = bench.status();
    let name = format!("path-{path}");
    let mut paths = status.groups.iter().flat_map(|group| &group.paths);
    paths.find(|path| path.path == name).unwrap().state
}

fn quarantined(bench: &Bench) -> bool {
    bench.notices.iter().any(|notice| matches!(notice, Notice::PathQuarantined { .. }))
}

#[test]
fn a_path_to_another_device_is_never_used_until_an_administrator_vouches_for_it() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.up(0);
    let other = || with(|identity| identity.wwn = Some("3000000000000002".into()));
    bench.up_with(1, other());
    assert_eq!(state(&bench, 1), PathState::Quarantined);
    assert!(quarantined(&bench));
    bench.down(0);
    bench.read(1, blocks(0, 1));
    bench.up_with(1, other());
    assert_eq!(bench.sent(), []);
    bench.engine.accept_path(bench.now, PathId(1));
    bench.pump();
    assert_eq!(bench.sent(), [(1, 0)]);
    bench.down(1);
    bench.up_with(1, other());
    assert_eq!(state(&bench, 1), PathState::Ready, "his word stays");
}

#[test]
fn a_path_that_turns_into_another_device_has_its_tries_aborted() {
    let mut bench = Bench::ready(Policy::default());
    bench.read(1, blocks(0, 1));
    bench.up_with(0, with(|identity| identity.wwn = None));
    assert_eq!(bench.aborts, [bench.under_way[0].1.id]);
    bench.elsewhere(0);
    assert_eq!(bench.sent(), [(0, 0), (1, 0)]);
}

#[test]
fn the_expected_device_may_come_second() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.engine.expect(Identity { size_bytes: 0, ..identity() });
    assert_eq!(bench.engine.geometry(), None);
    bench.up_with(0, with(|identity| identity.wwn = Some("3000000000000009".into())));
    assert_eq!(state(&bench, 0), PathState::Quarantined);
    assert_eq!(bench.engine.geometry(), None);
    bench.up(1);
    assert_eq!(bench.engine.geometry().unwrap().size_bytes, SIZE);
}

#[test]
fn requests_that_come_before_an_expected_device_do_not_settle_its_blocks() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.engine.expect(Identity { size_bytes: 0, block_bytes: 0, ..identity() });
    bench.read(1, blocks(0, 8));
    bench.up_with(0, with(|identity| identity.block_bytes = 4096));
    assert_eq!(bench.sent(), [(0, 0)]);
}

#[test]
fn a_nameless_device_has_one_path_unless_that_is_allowed() {
    let nameless = || with(|identity| identity.wwn = None);
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.add(2, true);
    bench.up_with(0, nameless());
    bench.down(0);
    bench.up_with(0, nameless());
    assert_eq!(state(&bench, 0), PathState::Ready, "the same path may come back");
    bench.up_with(1, nameless());
    assert_eq!(state(&bench, 1), PathState::Quarantined);
    bench.up_with(2, nameless());
    assert_eq!(state(&bench, 2), PathState::Ready);
    bench.down(2);
    bench.up_with(2, with(|i| (i.wwn, i.serial) = (None, "2".into())));
    assert_eq!(state(&bench, 2), PathState::Quarantined, "another serial number is another device");
}

#[test]
fn a_larger_size_counts_once_all_paths_agree() {
    let larger = || with(|identity| identity.size_bytes = 2 * SIZE);
    let mut bench = Bench::ready(Policy::default());
    bench.up_with(0, larger());
    assert_eq!(bench.engine.geometry().unwrap().size_bytes, SIZE);
    assert_eq!(state(&bench, 0), PathState::Ready);
    bench.up_with(1, larger());
    assert_eq!(bench.notices, [Notice::Resized(2 * SIZE)]);
    bench.read(1, blocks(SIZE / BLOCK, 1));
    assert_eq!(bench.sent().len(), 1);
    bench.down(1);
    bench.up(1);
    assert_eq!(state(&bench, 1), PathState::Quarantined, "it is too small now");
}

#[test]
fn a_smaller_size_needs_an_administrators_word() {
    let smaller = || with(|identity| identity.size_bytes = SIZE / 2);
    let mut bench = Bench::ready(Policy::default());
    bench.up_with(0, smaller());
    assert_eq!(state(&bench, 0), PathState::Quarantined);
    bench.engine.accept_path(bench.now, PathId(0));
    assert_eq!(state(&bench, 0), PathState::Quarantined, "that is about another thing");
    bench.engine.accept_size(bench.now);
    bench.pump();
    assert_eq!(state(&bench, 0), PathState::Ready);
    assert_eq!(bench.engine.geometry().unwrap().size_bytes, SIZE / 2);
    assert!(bench.notices.contains(&Notice::Resized(SIZE / 2)));
}

#[test]
fn never_resize_sets_a_larger_path_aside() {
    let mut bench = Bench::ready(Policy { resize: Resize::Never, ..Policy::default() });
    bench.up_with(0, with(|identity| identity.size_bytes = 2 * SIZE));
    assert_eq!(state(&bench, 0), PathState::Quarantined);
    bench.set(|policy| policy.resize = Resize::GrowOnly);
    assert_eq!(state(&bench, 0), PathState::Ready);
}

#[test]
fn larger_blocks_count_until_the_device_is_in_use() {
    let large = || with(|identity| identity.block_bytes = 4096);
    let mut bench = Bench::ready(Policy::default());
    bench.up_with(1, large());
    assert_eq!(bench.engine.geometry().unwrap().block_bytes, 4096);
    let mut bench = Bench::ready(Policy::default());
    bench.read(1, blocks(0, 1));
    bench.up_with(1, large());
    assert_eq!(state(&bench, 1), PathState::Quarantined);
}

#[test]
fn no_medium_is_no_device() {
    let mut bench = Bench::with(Policy::default(), Rules::SOUND);
    bench.up_with(0, with(|identity| identity.size_bytes = 0));
    assert_eq!(state(&bench, 0), PathState::Quarantined);
}

#[test]
fn without_the_rule_any_device_would_do() {
    let rules = Rules { check_identity: false, ..Rules::SOUND };
    let mut bench = Bench::with(Policy::default(), rules);
    bench.up(0);
    bench.up_with(1, with(|identity| identity.wwn = None));
    assert_eq!(state(&bench, 1), PathState::Ready);
}

#[test]
fn paths_that_do_not_agree_on_the_size_are_asked_again_until_they_do() {
    let mut bench = Bench::ready(Policy::default());
    bench.pass(secs(30));
    assert_eq!(bench.checks, [], "nobody asks paths that agree");
    let grown = || with(|identity| identity.size_bytes = 2 * SIZE);
    bench.up_with(0, grown());
    bench.pass(secs(11));
    // The idle one was not told that the device has grown.
    assert!(bench.checks.contains(&PathId(1)), "{:?}", bench.checks);
    bench.up_with(1, grown());
    bench.checks.clear();
    bench.pass(secs(30));
    assert_eq!(bench.checks, []);
    assert_eq!(bench.engine.geometry().unwrap().size_bytes, 2 * SIZE);
    // One that came back with the old size is set aside, and asked whether it still has it.
    bench.up_with(1, facts());
    assert_eq!(state(&bench, 1), PathState::Quarantined);
    bench.pass(secs(6));
    assert!(bench.checks.contains(&PathId(1)));
    bench.up_with(1, grown());
    assert_eq!(state(&bench, 1), PathState::Ready);
}
