//! Asymmetric access as initiators meet it: which states there are, what runs in them, who is told.

use corbel_proto::scsi::alua::{AccessState, Cause, PortGroup, parse};

use super::*;
use crate::scsi::port_groups::Change;

const OTHER: View<'_> =
    View { initiator: "iqn.2026-11.org.example:other,i,0x400000000000", ..VIEW };
/// The same initiator at the target's other port.
const SECOND_PORT: View<'_> = View {
    port_name: "iqn.2026-11.org.example:a,t,0x0002",
    relative_port: 2,
    port_group: 2,
    ..VIEW
};
const TEST_UNIT_READY: [u8; 6] = [0; 6];
const CHANGED: Condition = Condition::ASYMMETRIC_ACCESS_STATE_CHANGED;
const FAILED: Condition = Condition::IMPLICIT_ASYMMETRIC_ACCESS_STATE_TRANSITION_FAILED;

/// A unit whose states initiators may set, at three nexuses.
fn three() -> [Nexus; 3] {
    let first = disk();
    let unit = first.unit();
    unit.port_groups.configure(true, &[]);
    let mut second = Nexus::new(Arc::clone(unit), &SECOND_PORT);
    let mut third = Nexus::new(Arc::clone(unit), &OTHER);
    second.begin(&SECOND_PORT, &TEST_UNIT_READY);
    third.begin(&OTHER, &TEST_UNIT_READY);
    [first, second, third]
}

fn told(n: &mut Nexus, view: &View<'_>) -> Option<Condition> {
    sense_of(&n.begin(view, &TEST_UNIT_READY)).map(|sense| sense.condition)
}

/// SET TARGET PORT GROUPS of one group, as far as it goes at once.
fn set(n: &mut Nexus, group: u8, state: u8) -> Plan {
    let cdb = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    let Action::Parameters(command) = n.begin(&VIEW, &cdb).action else { panic!("a list") };
    n.resume(&VIEW, command, &[0, 0, 0, 0, state, 0, 0, group])
}

/// The same, written down or not.
fn set_and_keep(n: &mut Nexus, group: u8, state: u8, ok: bool) -> Plan {
    let Action::Keep { file, then, .. } = set(n, group, state).action else {
        panic!("a state file")
    };
    assert!(matches!(then, Kept::PortGroups));
    assert_eq!(file, n.unit().access_name());
    n.unit().kept(then, ok)
}

/// What the operator does.
fn change(n: &Nexus, group: u16, state: AccessState, ok: bool) {
    let groups = &n.unit().port_groups;
    assert!(matches!(groups.propose(&[(group, state)], None), Change::Persist(_)));
    groups.settle(ok);
}

fn groups(n: &mut Nexus, view: &View<'_>) -> Vec<PortGroup> {
    let cdb = [0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 200, 0, 0];
    let Action::Respond(reply) = n.begin(view, &cdb).action else { panic!("it answers at once") };
    parse(&reply.data)
}

#[test]
fn an_explicit_change_is_told_once_to_every_nexus_but_who_asked() {
    let [mut first, mut second, mut third] = three();
    let done = set_and_keep(&mut first, 2, AccessState::Standby as u8, true);
    assert!(sense_of(&done).is_none());
    assert_eq!(told(&mut first, &VIEW), None);
    assert_eq!(told(&mut third, &OTHER), Some(CHANGED));
    assert_eq!(told(&mut third, &OTHER), None);
    assert_eq!(told(&mut second, &SECOND_PORT), Some(CHANGED));
    let standby = Condition::TARGET_PORT_IN_STANDBY_STATE;
    assert_eq!(told(&mut second, &SECOND_PORT), Some(standby));
    assert_eq!(told(&mut first, &VIEW), None, "its own port is as it was");
    assert_eq!(groups(&mut second, &SECOND_PORT)[1].state, AccessState::Standby);
    assert_eq!(first.unit().port_groups.of(2).1, Cause::Explicit);
    let mut late = Nexus::new(Arc::clone(first.unit()), &OTHER);
    assert_eq!(told(&mut late, &OTHER), Some(Condition::POWER_ON_OR_RESET_OCCURRED));
    assert_eq!(told(&mut late, &OTHER), None, "what was before it is no news");
}

#[test]
fn two_changes_before_a_nexus_looks_are_told_as_one() {
    let [mut first, _, mut third] = three();
    set_and_keep(&mut first, 2, AccessState::Standby as u8, true);
    set_and_keep(&mut first, 2, AccessState::Optimized as u8, true);
    assert_eq!(told(&mut third, &OTHER), Some(CHANGED));
    assert_eq!(told(&mut third, &OTHER), None);
    // So many that what was whose is not remembered: it is told rather than kept from anybody.
    for round in 0..40 {
        set_and_keep(&mut first, 2, round % 2 + 1, true);
        assert_eq!(told(&mut first, &VIEW), None, "whoever looks in between misses nothing");
    }
    for round in 0..40 {
        change(
            &first,
            2,
            if round % 2 == 0 { AccessState::Optimized } else { AccessState::Standby },
            true,
        );
    }
    assert_eq!(told(&mut first, &VIEW), Some(CHANGED));
    assert_eq!(told(&mut third, &OTHER), Some(CHANGED));
}

#[test]
fn an_implicit_change_is_told_to_all_and_one_that_failed_too() {
    let [mut first, mut second, _] = three();
    change(&first, 1, AccessState::NonOptimized, true);
    assert_eq!(told(&mut first, &VIEW), Some(CHANGED));
    assert_eq!(told(&mut first, &VIEW), None, "non-optimized serves everything");
    assert_eq!(told(&mut second, &SECOND_PORT), Some(CHANGED));
    change(&first, 1, AccessState::Unavailable, false);
    for (nexus, view) in [(&mut first, &VIEW), (&mut second, &SECOND_PORT)] {
        assert_eq!(told(nexus, view), Some(FAILED));
        assert_eq!(told(nexus, view), None);
    }
    assert_eq!(groups(&mut first, &VIEW)[0].state, AccessState::NonOptimized);
    assert_eq!(first.unit().port_groups.of(1).1, Cause::Implicit);
}

#[test]
fn an_explicit_change_that_cannot_be_written_is_not_made_and_nobody_else_hears_of_it() {
    let [mut first, mut second, _] = three();
    let refused = sense_of(&set_and_keep(&mut first, 2, AccessState::Standby as u8, false));
    let failed = Condition::SET_TARGET_PORT_GROUPS_COMMAND_FAILED;
    assert_eq!(refused.map(|sense| sense.condition), Some(failed));
    assert_eq!(told(&mut second, &SECOND_PORT), None);
    assert_eq!(groups(&mut first, &VIEW)[1].state, AccessState::Optimized);
}

#[test]
fn set_refuses_what_the_target_does_not_have_and_takes_no_change_for_one() {
    let [mut first, ..] = three();
    for (group, state, at) in [(3, 0, 6), (0, 0, 6), (1, 0xf, 4), (1, 0xe, 4), (1, 4, 4)] {
        let sense = sense_of(&set(&mut first, group, state)).unwrap();
        assert_eq!(sense.condition, Condition::INVALID_FIELD_IN_PARAMETER_LIST);
        assert_eq!(sense.pointer.unwrap().byte, at, "group {group}, state {state}");
    }
    assert_eq!(sense_of(&set(&mut first, 2, 0)), None);
    assert!(matches!(set(&mut first, 2, 0).action, Action::Respond(_)));
    assert!(matches!(set(&mut first, 2, 2).action, Action::Keep { .. }));
    let busy = |plan: Plan| matches!(plan.action, Action::Respond(r) if r.status == Status::Busy);
    assert!(busy(set(&mut first, 1, 2)), "a change is being written");
    first.unit().kept(Kept::PortGroups, true);
    let cdb = |len| [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, len, 0, 0];
    assert_eq!(sense_of(&first.begin(&VIEW, &cdb(0))), None, "an empty list asks for nothing");
    let short = refusal(&mut first, &cdb(3));
    assert_eq!(short, Condition::PARAMETER_LIST_LENGTH_ERROR);
}

#[test]
fn who_may_set_states_is_told_by_tpgs_and_the_list_of_commands() {
    let cdb = [0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0];
    let supported = [0xa3, 0x0c, 3, 0xa4, 0, 0x0a, 0, 0, 0, 64, 0, 0];
    let mut n = disk();
    let data = |n: &mut Nexus, cdb: &[u8]| match n.begin(&VIEW, cdb).action {
        Action::Respond(reply) => reply.data,
        action => panic!("{action:?}"),
    };
    assert_eq!(refusal(&mut n, &cdb), Condition::INVALID_COMMAND_OPERATION_CODE);
    assert_eq!(data(&mut n, &[0x12, 0, 0, 0, 96, 0])[5..7], [0x18, 0x10], "TPGS and 3PC, MULTIP");
    assert_eq!(data(&mut n, &supported)[1] & 7, 1);
    n.unit().port_groups.configure(true, &[]);
    assert_eq!(data(&mut n, &[0x12, 0, 0, 0, 96, 0])[5] & 0x30, 0x30);
    assert_eq!(data(&mut n, &supported)[1] & 7, 3);
}

#[rustfmt::skip]
/// Commands, and whether they run in standby, while unavailable, and while transitioning.
const COMMANDS: [(&str, &[u8], [bool; 3]); 22] = [
    ("INQUIRY", &[0x12, 0, 0, 0, 96, 0], [true, true, true]),
    ("REPORT LUNS", &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], [true, true, true]),
    ("REQUEST SENSE", &[0x03, 0, 0, 0, 18, 0], [true, true, true]),
    ("REPORT TARGET PORT GROUPS", &[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], [true, true, true]),
    ("SET TARGET PORT GROUPS", &[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], [true, true, false]),
    ("MODE SENSE", &[0x1a, 0, 0x3f, 0, 96, 0], [true, true, true]),
    ("MODE SELECT", &[0x15, 0x10, 0, 0, 24, 0], [true, false, false]),
    ("LOG SENSE", &[0x4d, 0, 0, 0, 0, 0, 0, 0, 64, 0], [true, false, false]),
    ("PERSISTENT RESERVE IN", &[0x5e, 0, 0, 0, 0, 0, 0, 0, 64, 0], [true, false, false]),
    ("PERSISTENT RESERVE OUT", &[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], [true, false, false]),
    ("READ CAPACITY(10)", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], [true, true, true]),
    ("READ CAPACITY(16)", &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0],
        [true, true, true]),
    ("REPORT SUPPORTED OPERATION CODES", &[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0],
        [true, false, false]),
    ("TEST UNIT READY", &[0; 6], [false; 3]),
    ("READ(10)", &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], [false; 3]),
    ("WRITE(10)", &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], [false; 3]),
    ("VERIFY(10)", &[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0], [false; 3]),
    ("SYNCHRONIZE CACHE", &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], [false; 3]),
    ("GET LBA STATUS", &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], [false; 3]),
    ("START STOP UNIT", &[0x1b, 0, 0, 0, 1, 0], [false; 3]),
    ("RESERVE(6)", &[0x16, 0, 0, 0, 0, 0], [false; 3]),
    ("a command that nobody knows", &[0xff, 0, 0, 0, 0, 0], [false; 3]),
];

/// SPC-4 5.15.2.4. A command that is unknown is told so, whatever the state.
#[test]
fn what_runs_in_which_state() {
    let states = [
        (AccessState::Standby, Condition::TARGET_PORT_IN_STANDBY_STATE),
        (AccessState::Unavailable, Condition::TARGET_PORT_IN_UNAVAILABLE_STATE),
        (AccessState::Transitioning, Condition::ASYMMETRIC_ACCESS_STATE_TRANSITION),
    ];
    for (at, (state, refused)) in states.into_iter().enumerate() {
        let [mut first, ..] = three();
        change(&first, 1, state, true);
        assert_eq!(told(&mut first, &VIEW), Some(CHANGED));
        for (name, cdb, runs) in COMMANDS {
            let condition = sense_of(&first.begin(&VIEW, cdb)).map(|sense| sense.condition);
            let expected = match name.starts_with("a command") {
                true => Some(Condition::INVALID_COMMAND_OPERATION_CODE),
                false => (!runs[at]).then_some(refused),
            };
            assert_eq!(condition, expected, "{name} in {state:?}");
        }
        let sense = match first.begin(&VIEW, &[0x03, 0, 0, 0, 18, 0]).action {
            Action::Respond(reply) => Sense::parse(&reply.data).unwrap().condition,
            action => panic!("{action:?}"),
        };
        assert_eq!(sense, refused, "REQUEST SENSE says why it is not ready");
        change(&first, 1, AccessState::Optimized, true);
        assert_eq!(told(&mut first, &VIEW), Some(CHANGED));
        assert_eq!(told(&mut first, &VIEW), None);
    }
}

/// A fenced initiator learns of the fence first, on any port (SAM-5 5.3.3).
#[test]
fn a_reservation_of_another_goes_before_the_port_s_state() {
    let [mut first, _, mut third] = three();
    change(&first, 1, AccessState::Standby, true);
    assert!(first.lu.volume.reservations.reserve(&first.name));
    let plan = third.begin(&OTHER, &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert!(matches!(plan.action, Action::Respond(r) if r.status == Status::ReservationConflict));
    assert_eq!(told(&mut first, &VIEW), Some(CHANGED));
}

#[test]
fn page_83_names_the_port_and_group_that_the_report_speaks_of() {
    use corbel_proto::scsi::vpd::{self, Designator};
    let [_, mut second, _] = three();
    let Action::Respond(reply) = second.begin(&SECOND_PORT, &[0x12, 1, 0x83, 1, 0, 0]).action
    else {
        panic!("it answers at once")
    };
    let body = vpd::body(&reply.data, vpd::DEVICE_IDENTIFICATION).unwrap();
    let names = vpd::parse_identification(body).unwrap();
    assert!(names.contains(&Designator::RelativeTargetPort(2)));
    assert!(names.contains(&Designator::TargetPortGroup(2)));
    assert!(groups(&mut second, &SECOND_PORT).iter().any(|group| group.group == 2));
}

const fn configured(group: u16, state: AccessState) -> PortGroup {
    PortGroup { group, state, preferred: false }
}

/// The configuration's word counts until it is overruled, and again once it says something else.
#[test]
fn what_was_set_outlives_a_restart_until_the_configuration_changes() {
    use AccessState::{NonOptimized, Optimized, Standby, Unavailable};
    let before = disk();
    let groups = &before.unit().port_groups;
    groups.configure(false, &[configured(2, NonOptimized)]);
    change(&before, 2, Standby, true);
    change(&before, 1, Unavailable, true);
    let file = groups.snapshot();
    let restarted = |list: &[PortGroup]| {
        let after = disk();
        after.unit().port_groups.configure(false, list);
        after.unit().port_groups.restore(&file).unwrap();
        [1, 2].map(|group| after.unit().port_groups.of(group).0.state)
    };
    assert_eq!(restarted(&[configured(2, NonOptimized)]), [Unavailable, Standby]);
    assert_eq!(restarted(&[configured(2, Optimized)]), [Unavailable, Optimized]);
    assert_eq!(restarted(&[configured(1, Standby)]), [Standby, Optimized]);
    // The same while it runs.
    groups.configure(false, &[configured(2, NonOptimized)]);
    assert_eq!([1, 2].map(|group| groups.of(group).0.state), [Unavailable, Standby]);
    groups.configure(false, &[configured(2, Unavailable), configured(3, Standby)]);
    assert_eq!([1, 2, 3].map(|g| groups.of(g).0.state), [Unavailable, Unavailable, Standby]);
    groups.configure(false, &[]);
    assert_eq!([1, 2, 3].map(|g| groups.of(g).0.state), [Unavailable, Optimized, Optimized]);
}

#[test]
fn a_configuration_taken_up_while_a_change_is_written_has_the_last_word() {
    use AccessState::{Optimized, Standby, Unavailable};
    let n = disk();
    let groups = &n.unit().port_groups;
    assert!(matches!(groups.propose(&[(1, Standby), (2, Standby)], None), Change::Persist(_)));
    groups.configure(false, &[configured(1, Unavailable)]);
    groups.settle(true);
    assert_eq!([1, 2, 3].map(|g| groups.of(g).0.state), [Unavailable, Standby, Optimized]);
}

#[test]
fn a_state_file_with_any_byte_changed_or_cut_is_not_believed() {
    let n = disk();
    change(&n, 2, AccessState::Standby, true);
    let file = n.unit().port_groups.snapshot();
    let believed = |bytes: &[u8]| disk().unit().port_groups.restore(bytes).is_ok();
    assert!(believed(&file));
    for at in 0..file.len() {
        assert!(!believed(&file[..at]), "cut at {at}");
        let mut other = file.clone();
        other[at] ^= 0x10;
        assert!(!believed(&other), "byte {at}");
    }
}
