//! Mode pages as initiators set and save them (SPC-4 6.9, 6.11).

use corbel_proto::scsi::mode::Parameters;

use super::*;
use crate::scsi::mode_pages::Change;

const OTHER: View<'_> =
    View { initiator: "iqn.2026-11.org.example:other,i,0x400000000000", ..VIEW };
const CURRENT: u8 = 0;
const DEFAULT: u8 = 2;
const SAVED: u8 = 3;

/// A unit with a state folder, at two nexuses.
fn two() -> [Nexus; 2] {
    let first = disk();
    first.unit().mode.enable_saving();
    let mut second = Nexus::new(Arc::clone(first.unit()), &OTHER);
    second.begin(&OTHER, &[0; 6]);
    [first, second]
}

/// PS, WCE, D_SENSE and SWP, as pages 08 and 0A tell them.
fn told(n: &mut Nexus, control: u8) -> [bool; 4] {
    let cdb = [0x1a, 0x08, control << 6 | 0x3f, 0, 255, 0];
    let Action::Respond(reply) = n.begin(&VIEW, &cdb).action else { panic!("it answers at once") };
    assert_eq!(reply.status, Status::Good);
    let (caching, control) = (&reply.data[4..24], &reply.data[24..36]);
    assert_eq!((caching[0] & 0x7f, control[0] & 0x7f), (0x08, 0x0a));
    assert_eq!(caching[0] & 0x80, control[0] & 0x80);
    let bits = [caching[0] & 0x80, caching[2] & 0x04, control[2] & 0x04, control[4] & 0x08];
    bits.map(|bit| bit != 0)
}

/// MODE SELECT(6) of the control page, and the caching page too, as far as it goes at once.
fn select(n: &mut Nexus, save: bool, [write_cache, d_sense, protect]: [bool; 3]) -> Plan {
    let cdb = [0x15, 0x10 | u8::from(save), 0, 0, 36, 0];
    let Action::Parameters(command) = n.begin(&VIEW, &cdb).action else { panic!("a list") };
    let mut list = vec![0; 36];
    list[4..7].copy_from_slice(&[0x08, 0x12, u8::from(write_cache) << 2]);
    let (d_sense, protect) = (u8::from(d_sense) << 2, u8::from(protect) << 3);
    list[24..30].copy_from_slice(&[0x0a, 0x0a, 0x20 | d_sense, 0x10, protect, 0x40]);
    list[32..34].copy_from_slice(&[0xff, 0xff]);
    n.resume(&VIEW, command, &list)
}

/// The state file that a plan wants written.
fn file(n: &Nexus, plan: Plan) -> Vec<u8> {
    let Action::Keep { file, bytes, then: Kept::ModePages } = plan.action else {
        panic!("a state file: {plan:?}")
    };
    assert_eq!(file, n.unit().mode_name());
    bytes
}

fn is_good(plan: &Plan) -> bool {
    matches!(&plan.action, Action::Respond(reply) if reply.status == Status::Good)
}

fn changed(n: &mut Nexus) -> bool {
    sense_of(&n.begin(&OTHER, &[0; 6])).map(|sense| sense.condition)
        == Some(Condition::MODE_PARAMETERS_CHANGED)
}

#[test]
fn saved_pages_are_in_force_when_they_are_stable_and_others_are_told() {
    let [mut first, mut second] = two();
    let plan = select(&mut first, true, [true, true, true]);
    assert_eq!(told(&mut first, CURRENT), [true, true, false, false], "not before it is kept");
    let bytes = file(&first, plan);
    assert!(is_good(&first.unit().kept(Kept::ModePages, true)));
    assert_eq!(told(&mut first, CURRENT), [true, true, true, true]);
    assert_eq!(told(&mut first, SAVED), [true, true, true, true]);
    assert!(!changed(&mut first), "its own doing is no news");
    assert!(changed(&mut second));
    assert!(!changed(&mut second), "once");
    // Another process.
    let after = disk();
    after.unit().mode.enable_saving();
    after.unit().mode.restore(&bytes).unwrap();
    let mut after = Nexus::new(Arc::clone(after.unit()), &VIEW);
    after.begin(&VIEW, &[0; 6]);
    assert_eq!(told(&mut after, CURRENT), [true, true, true, true]);
    let refused = refusal(&mut after, &cdb16(0x8a, 0, 0, 1));
    assert_eq!(refused, Condition::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED);
}

#[test]
fn reset_brings_back_what_was_saved_and_not_what_was_only_set() {
    let [mut first, _] = two();
    let plan = select(&mut first, true, [true, false, true]);
    file(&first, plan);
    first.unit().kept(Kept::ModePages, true);
    assert!(is_good(&select(&mut first, false, [true, true, false])));
    assert_eq!(told(&mut first, CURRENT), [true, true, true, false]);
    assert_eq!(told(&mut first, SAVED), [true, true, false, true]);
    first.unit().reset();
    first.begin(&VIEW, &[0; 6]);
    assert_eq!(told(&mut first, CURRENT), [true, true, false, true]);
}

#[test]
fn what_cannot_be_written_changes_nothing() {
    let [mut first, mut second] = two();
    let plan = select(&mut first, true, [false, true, true]);
    file(&first, plan);
    let failed = first.unit().kept(Kept::ModePages, false);
    assert_eq!(sense_of(&failed).unwrap().condition, Condition::INTERNAL_TARGET_FAILURE);
    assert_eq!(told(&mut first, CURRENT), [true, true, false, false]);
    assert_eq!(told(&mut first, SAVED), [true, true, false, false]);
    assert!(!changed(&mut second));
}

#[test]
fn another_change_is_busy_while_one_is_saved() {
    let [mut first, mut second] = two();
    let plan = select(&mut first, true, [true, true, false]);
    file(&first, plan);
    for save in [false, true] {
        let busy = select(&mut second, save, [true, false, true]);
        let Action::Respond(reply) = busy.action else { panic!("it is answered") };
        assert_eq!(reply.status, Status::Busy);
    }
    first.unit().kept(Kept::ModePages, true);
    assert_eq!(told(&mut first, CURRENT), [true, true, true, false]);
}

#[test]
fn cache_that_is_switched_off_for_good_is_flushed_whatever_becomes_of_the_command() {
    let [mut first, _] = two();
    let plan = select(&mut first, true, [false, false, false]);
    file(&first, plan);
    let Action::Detach(mut media) = first.unit().kept(Kept::ModePages, true).action else {
        panic!("a flush that nobody can stop")
    };
    assert!(!media.answer_first);
    let flush = first.unit().request::<HeapBuffer>(&mut media, Segments::new());
    assert!(matches!(flush.kind, Kind::Flush));
}

#[test]
fn what_is_in_force_is_saved_without_a_list_and_only_once() {
    let [mut first, mut second] = two();
    assert!(is_good(&select(&mut second, false, [true, true, false])));
    let save = [0x15, 0x11, 0, 0, 0, 0];
    let plan = first.begin(&VIEW, &save);
    assert_eq!(sense_of(&plan).unwrap().condition, Condition::MODE_PARAMETERS_CHANGED);
    let plan = first.begin(&VIEW, &save);
    file(&first, plan);
    assert!(is_good(&first.unit().kept(Kept::ModePages, true)));
    assert_eq!(told(&mut first, SAVED), [true, true, true, false]);
    assert!(!changed(&mut second), "nothing in force has changed");
    assert!(is_good(&first.begin(&VIEW, &save)), "it is saved already");
}

#[test]
fn without_a_state_folder_nothing_can_be_saved() {
    let mut n = disk();
    assert_eq!(told(&mut n, CURRENT), [false, true, false, false]);
    let saved = refusal(&mut n, &[0x1a, 0x08, 0xc0 | 0x3f, 0, 255, 0]);
    assert_eq!(saved, Condition::SAVING_PARAMETERS_NOT_SUPPORTED);
    assert_eq!(refusal(&mut n, &[0x15, 0x11, 0, 0, 36, 0]), Condition::INVALID_FIELD_IN_CDB);
}

#[test]
fn state_file_with_any_bit_wrong_is_not_believed() {
    let [mut first, _] = two();
    let plan = select(&mut first, true, [true, true, true]);
    let good = file(&first, plan);
    let fresh = disk();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(fresh.unit().mode.restore(&bad).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(fresh.unit().mode.restore(&good[..len]).is_err(), "{len} bytes");
    }
    assert!(fresh.unit().mode.restore(&good).is_ok());
}

#[test]
fn state_file_of_another_kind_of_unit_is_taken_as_far_as_it_has_a_meaning() {
    let file = |bits: u8| {
        let form = crate::sealed::Form { magic: *b"CMod", version: 1 };
        form.seal([&form.begin()[..], &[bits]].concat())
    };
    let with_cache = disk();
    with_cache.unit().mode.restore(&file(0x07)).unwrap();
    assert!(with_cache.unit().mode.current().write_cache);
    for bits in [0x08, 0x0f, 0x80] {
        assert!(with_cache.unit().mode.restore(&file(bits)).is_err(), "{bits:#x}");
    }
    let facts = Facts { volatile_cache: false, ..Facts::volatile(4096) };
    let (identity, options) = (Identity::from_source("test"), Options::default());
    let volume = Volume::new(VolumeId(1), "v".into(), identity, facts, options, 1000 * 4096);
    let unit = LogicalUnit::new(Arc::new(volume));
    unit.mode.restore(&file(0x07)).unwrap();
    let now = unit.mode.current();
    assert_eq!((now.write_cache, now.software_write_protect), (false, true), "there is no cache");
}

#[test]
fn what_was_restored_is_what_a_reset_goes_back_to() {
    let [mut first, _] = two();
    let plan = select(&mut first, true, [true, true, true]);
    let bytes = file(&first, plan);
    let after = disk();
    after.unit().mode.enable_saving();
    after.unit().mode.restore(&bytes).unwrap();
    let mut after = Nexus::new(Arc::clone(after.unit()), &VIEW);
    after.begin(&VIEW, &[0; 6]);
    assert_eq!(told(&mut after, SAVED), [true, true, true, true]);
    assert!(is_good(&select(&mut after, false, [true, false, false])));
    after.unit().reset();
    after.begin(&VIEW, &[0; 6]);
    assert_eq!(told(&mut after, CURRENT), [true, true, true, true]);
    assert_eq!(told(&mut after, DEFAULT), [true, true, false, false], "whatever was set or saved");
}

#[test]
fn only_pages_with_something_to_save_say_that_they_can_be_saved() {
    let [mut first, _] = two();
    let Action::Respond(reply) = first.begin(&VIEW, &[0x1a, 0x08, 0x1c, 0, 255, 0]).action else {
        panic!("it answers at once")
    };
    assert_eq!(reply.data[4], 0x1c);
}

#[test]
fn pages_of_no_standard_format_are_refused() {
    let refused = sense_of(&disk().begin(&VIEW, &[0x15, 0x00, 0, 0, 24, 0]));
    assert_eq!(refused, Some(Sense::invalid_cdb(1, Some(4))));
}

/// The log of who changed what has an end; who missed more is told, to be safe.
#[test]
fn changes_are_known_by_who_made_them_as_long_as_the_log_reaches() {
    let n = disk();
    let (mode, who) = (&n.unit().mode, &n.name);
    let change = |at: u64| {
        let seen = mode.current();
        let wanted = Parameters { software_write_protect: at.is_multiple_of(2), ..seen };
        assert!(matches!(mode.propose(&seen, &wanted, false, who), Change::Made { .. }));
    };
    (0..32).for_each(change);
    assert_eq!(mode.generation(), 32);
    assert!(!mode.changed_by_others(0, who), "all its own");
    change(32);
    assert!(mode.changed_by_others(0, who), "one of them is forgotten");
    assert!(!mode.changed_by_others(1, who));
    change(32);
    assert_eq!(mode.generation(), 33, "nothing has changed");
}

/// Both looked before either changed anything.
#[test]
fn two_who_change_different_pages_at_once_undo_nothing() {
    let n = disk();
    let (mode, seen) = (&n.unit().mode, n.unit().mode.current());
    let sense = Parameters { descriptor_sense: !seen.descriptor_sense, ..seen };
    let cache = Parameters { write_cache: !seen.write_cache, ..seen };
    mode.propose(&seen, &sense, false, &n.name);
    let Change::Made { before, now } = mode.propose(&seen, &cache, false, &n.name) else {
        panic!("not made")
    };
    assert_eq!((before, now), (sense, Parameters { write_cache: cache.write_cache, ..sense }));
    assert_eq!(mode.current(), now);
}

/// What was acknowledged under a cache is not stable only because somebody reset the unit.
#[test]
fn a_reset_does_not_say_that_a_cache_is_off_that_was_on() {
    let n = disk();
    let mode = &n.unit().mode;
    let on = mode.current();
    let off = Parameters { write_cache: false, ..on };
    assert!(on.write_cache);
    mode.enable_saving();
    assert!(matches!(mode.propose(&on, &off, true, &n.name), Change::Persist(_)));
    mode.settle(true);
    n.unit().reset();
    assert_eq!(mode.current(), off);
    mode.propose(&off, &on, false, &n.name);
    n.unit().reset();
    assert_eq!((mode.current(), mode.saved()), (on, off));
}
