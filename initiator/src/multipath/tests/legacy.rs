//! How old changes are when another process has to do them.

use super::*;
use crate::multipath::Legacy;
use crate::multipath::policy::Policy;
use crate::multipath::rules::Rules;
use crate::request::IoError;

const OLD: Result<(), IoError> = Err(IoError::TooOld);

fn policy() -> Policy {
    Policy { write_age_max: Some(secs(80)), ..Policy::default() }
}

/// A process that takes over, `now`, from one that left `legacy`; it has no path yet.
fn heir(legacy: Legacy, now: corbel_proto::time::Instant) -> Bench {
    let mut bench = Bench::with(policy(), Rules::SOUND);
    bench.now = now;
    bench.engine.inherit(legacy);
    bench
}

/// Whatever is under way ends well.
fn done(bench: &mut Bench) {
    let (path, _) = bench.under_way[0];
    bench.done(path.0);
}

#[test]
fn a_change_is_as_old_for_the_next_process_as_it_was_for_the_one_that_died() {
    let mut bench = Bench::ready(policy());
    bench.down(0);
    bench.down(1);
    bench.write(1, blocks(0, 1));
    bench.pass(secs(50));
    let (legacy, now) = (bench.engine.legacy(), bench.now);
    let mut heir = heir(legacy, now + secs(10));
    heir.write(1, blocks(0, 1));
    heir.engine.taken_over(heir.now);
    heir.pass(secs(20) - millis(1));
    assert_eq!(heir.ended(), []);
    heir.pass(millis(1));
    assert_eq!(heir.ended(), [(1, OLD)]);
}

#[test]
fn what_is_asked_for_later_is_new() {
    let mut bench = Bench::ready(policy());
    bench.write(1, blocks(0, 1));
    let (legacy, now) = (bench.engine.legacy(), bench.now);
    let mut heir = heir(legacy, now + secs(79));
    heir.engine.taken_over(heir.now);
    heir.pass(secs(6));
    heir.write(2, blocks(8, 1));
    heir.pass(secs(80) - millis(1));
    assert_eq!(heir.ended(), []);
    heir.pass(millis(1));
    assert_eq!(heir.ended(), [(2, OLD)]);
}

#[test]
fn what_has_ended_long_ago_makes_nothing_older() {
    let mut bench = Bench::ready(policy());
    bench.write(1, blocks(0, 1));
    assert!(bench.engine.legacy().changes_since.is_some(), "before it is sent");
    done(&mut bench);
    bench.pass(secs(10));
    assert_eq!(bench.engine.legacy().changes_since, None);
    assert_eq!(bench.engine.poll_timeout(), None, "an idle device is not woken");
}

#[test]
fn the_note_is_renewed_an_eighth_of_the_limit_after_the_last_and_not_with_each_change() {
    let mut bench = Bench::ready(policy());
    bench.write(1, blocks(0, 1));
    let first = (bench.engine.legacy_version(), bench.engine.legacy());
    for number in 2..100 {
        done(&mut bench);
        bench.pass(millis(100));
        bench.write(number, blocks(number, 1));
    }
    assert_eq!((bench.engine.legacy_version(), bench.engine.legacy()), first);
    done(&mut bench);
    bench.pass(millis(200));
    assert_ne!(bench.engine.legacy_version(), first.0);
}

#[test]
fn without_a_limit_nothing_is_written_down() {
    let mut bench = Bench::ready(Policy::default());
    let before = bench.engine.legacy_version();
    bench.write(1, blocks(0, 1));
    bench.pass(secs(100));
    assert_eq!(bench.engine.legacy_version(), before);
    assert_eq!(bench.engine.legacy().changes_since, None);
}
