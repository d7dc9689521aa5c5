//! The judge sees what it must see, and no more.

use std::collections::BTreeMap;

use corbel_initiator::request::{IoError, Operation};
use corbel_proto::time::{Duration, Instant};

use super::judge::{Law, judge};
use super::load::Record;
use super::store::{SECTOR_BYTES, Store};
use crate::checker::{Content, stamp};
use crate::rng::Rng;

const WRITE: Operation = Operation::Write { fua: false };

/// Host 0's write number `n`; host 1's.
const fn of(host: u64, n: u64) -> u64 {
    (host + 1) << 40 | n
}

fn at(nanos: u64) -> Instant {
    Instant::from_nanos(nanos)
}

#[derive(Debug)]
struct Case {
    store: Store,
    records: BTreeMap<u64, Record>,
    law: Law,
}

impl Case {
    fn new() -> Self {
        let law = Law {
            errors: Vec::new(),
            flush_errors: false,
            write_age_max: None,
            deposed: None,
            doubled: false,
            grown: (1, Vec::new()),
        };
        Self { store: Store::new(1, 1), records: BTreeMap::new(), law }
    }

    fn asked(&mut self, id: u64, operation: Operation, began: u64, ended: u64) -> &mut Record {
        let flush = operation == Operation::Flush;
        let record = Record {
            host: usize::try_from(id >> 40).unwrap() - 1,
            operation,
            sectors: if flush { 0..0 } else { 0..1 },
            began: at(began),
            submitted: Some(at(began)),
            ended: Some((at(ended), Ok(()))),
            seen: Vec::new(),
        };
        self.records.entry(id).insert_entry(record).into_mut()
    }

    /// A copy of the write takes effect, and completes.
    fn lands(&mut self, id: u64, when: u64) {
        let bytes = stamp::filled(1, SECTOR_BYTES, id, 0);
        let operation = self.store.write(at(when), 0, 0, &bytes);
        self.store.complete(0, operation);
    }

    fn faults(&self) -> Vec<String> {
        judge(&self.store, &Store::new(1, 1), &self.records, &self.law).err().unwrap_or_default()
    }

    fn wrong(&self, words: &str) {
        let faults = self.faults();
        assert!(faults.iter().any(|fault| fault.contains(words)), "{faults:?}");
    }
}

/// Two writes, one after the other.
fn two_writes() -> Case {
    let mut case = Case::new();
    case.asked(of(0, 1), WRITE, 10, 20);
    case.asked(of(0, 2), WRITE, 30, 40);
    case.lands(of(0, 1), 15);
    case.lands(of(0, 2), 35);
    case
}

#[test]
fn writes_one_after_the_other_are_right_and_a_late_copy_of_the_first_is_not() {
    let mut case = two_writes();
    assert_eq!(case.faults(), Vec::<String>::new());
    case.lands(of(0, 1), 36);
    case.wrong("over the newer");
}

#[test]
fn a_late_copy_after_a_failed_write_is_a_ghost_as_well() {
    let mut case = two_writes();
    case.records.get_mut(&of(0, 1)).unwrap().ended = Some((at(20), Err(IoError::Io)));
    case.law.errors.push(IoError::Io);
    assert_eq!(case.faults(), Vec::<String>::new());
    case.lands(of(0, 1), 50);
    case.wrong("over the newer");
}

#[test]
fn two_hosts_writes_may_cross_unless_one_was_answered_before_the_other_was_asked_for() {
    let mut case = two_writes();
    case.asked(of(1, 1), WRITE, 12, 50);
    case.lands(of(1, 1), 45);
    assert_eq!(case.faults(), Vec::<String>::new());
    case.asked(of(1, 2), WRITE, 60, 70);
    case.lands(of(1, 2), 65);
    case.lands(of(0, 2), 66);
    case.wrong("over the newer");
}

#[test]
fn an_acknowledged_write_that_was_never_done_is_missed() {
    let mut case = Case::new();
    case.asked(of(0, 1), WRITE, 10, 20);
    case.wrong("was not written");
}

#[test]
fn a_read_of_what_was_not_there_is_wrong() {
    let mut case = two_writes();
    case.asked(of(0, 3), Operation::Read, 50, 60).seen = vec![Content::Of(of(0, 2))];
    assert_eq!(case.faults(), Vec::<String>::new());
    case.asked(of(0, 4), Operation::Read, 50, 60).seen = vec![Content::Of(of(0, 1))];
    case.wrong("which held");
}

#[test]
fn zeroes_over_a_newer_write_are_a_ghost_unless_somebody_asked_for_zeroes_since() {
    let mut case = two_writes();
    case.asked(of(0, 3), Operation::Discard, 50, 60);
    case.store.zero(at(55), 0, 0, 512);
    assert_eq!(case.faults(), Vec::<String>::new());
    case.asked(of(0, 4), WRITE, 70, 80);
    case.lands(of(0, 4), 75);
    case.store.zero(at(90), 0, 0, 512);
    case.wrong("write 0x0");
}

#[test]
fn a_write_past_its_age_or_after_another_host_took_over_is_late() {
    let mut case = two_writes();
    case.law.write_age_max = Some((0, Duration::from_nanos(5)));
    assert_eq!(case.faults(), Vec::<String>::new());
    case.law.write_age_max = Some((0, Duration::from_nanos(4)));
    case.wrong("past its time");
    case.law.write_age_max = None;
    case.law.deposed = Some((0, at(34)));
    case.wrong("past its time");
}

#[test]
fn an_error_without_a_reason_is_told() {
    let mut case = two_writes();
    case.asked(of(0, 3), Operation::Flush, 50, 60).ended = Some((at(60), Err(IoError::Io)));
    case.wrong("without a reason");
    case.law.flush_errors = true;
    assert_eq!(case.faults(), Vec::<String>::new());
}

#[test]
fn what_was_flushed_survives_a_lost_cache_and_what_was_not_need_not() {
    let mut case = two_writes();
    case.store.lose(at(100), 0, &mut Rng::new(1));
    case.asked(of(0, 3), Operation::Flush, 110, 120);
    assert_eq!(case.faults(), Vec::<String>::new());
    // The flush that the device answered before promised both.
    case.asked(of(0, 4), Operation::Flush, 45, 50);
    let lost = case.store.stories[0].seen() == 0;
    assert!(lost, "this seed loses everything");
    case.wrong("was promised to be stable");
    // One that failed in between warned whoever asked.
    case.asked(of(0, 5), Operation::Flush, 41, 44).ended = Some((at(44), Err(IoError::Io)));
    case.law.flush_errors = true;
    assert_eq!(case.faults(), Vec::<String>::new());
}

#[test]
fn nothing_may_reach_another_device() {
    let case = two_writes();
    let mut alien = Store::new(1, 1);
    alien.write(at(5), 0, 0, &stamp::filled(1, SECTOR_BYTES, of(0, 1), 0));
    let faults = judge(&case.store, &alien, &case.records, &case.law).unwrap_err();
    assert!(faults[0].contains("another device"), "{faults:?}");
}

#[test]
fn a_copy_that_lands_after_a_flush_is_told_even_if_it_changes_nothing() {
    let mut case = two_writes();
    case.asked(of(0, 3), Operation::Flush, 50, 60);
    assert_eq!(case.faults(), Vec::<String>::new());
    case.lands(of(0, 2), 59);
    assert_eq!(case.faults(), Vec::<String>::new());
    case.lands(of(0, 2), 61);
    case.wrong("after a flush");
}

#[test]
fn a_write_that_the_device_refuses_again_and_again_was_retried_against_its_word() {
    let mut case = two_writes();
    case.store.bad.insert(0);
    let bytes = stamp::filled(1, SECTOR_BYTES, of(0, 2), 0);
    (0..12).for_each(|_| case.store.refuse(0, &bytes));
    assert_eq!(case.faults(), Vec::<String>::new());
    case.store.refuse(0, &bytes);
    case.wrong("refused write");
}
