//! Reservations as initiators meet them: CDB in, status out.

use super::*;

const OTHER: View<'_> =
    View { initiator: "iqn.2026-11.org.example:other,i,0x400000000000", ..VIEW };

fn pair() -> (Nexus, Nexus) {
    let ours = nexus(Options { thin: true, ..Options::default() });
    let mut theirs = Nexus::new(Arc::clone(ours.unit()), &OTHER);
    theirs.begin(&OTHER, &[0; 6]);
    (ours, theirs)
}

fn status(plan: &Plan) -> Status {
    match &plan.action {
        Action::Respond(reply) => reply.status,
        _ => Status::Good,
    }
}

/// PERSISTENT RESERVE OUT `action` with its key and action key.
fn out(n: &mut Nexus, view: &View<'_>, action: u8, scope_type: u8, keys: (u8, u8)) -> Plan {
    let cdb = [0x5f, action, scope_type, 0, 0, 0, 0, 0, 24, 0];
    let Action::Parameters(command) = n.begin(view, &cdb).action else { panic!("it takes a list") };
    let mut list = [0; 24];
    (list[7], list[15]) = keys;
    n.resume(view, command, &list)
}

fn read(n: &mut Nexus, action: u8) -> Vec<u8> {
    match n.begin(&VIEW, &[0x5e, action, 0, 0, 0, 0, 0, 1, 0, 0]).action {
        Action::Respond(reply) => reply.data,
        action => panic!("{action:?}"),
    }
}

#[rustfmt::skip]
const COMMANDS: [(&str, &[u8]); 16] = [
    // Free to all.
    ("INQUIRY", &[0x12, 0, 0, 0, 96, 0]),
    ("REPORT LUNS", &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]),
    ("READ CAPACITY", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("START", &[0x1b, 0, 0, 0, 1, 0]),
    ("ALLOW", &[0x1e, 0, 0, 0, 0, 0]),
    // The unit is ready, or not.
    ("TEST UNIT READY", &[0; 6]),
    // Readers.
    ("READ", &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    ("VERIFY", &[0x2f, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    ("MODE SENSE", &[0x1a, 0, 0x3f, 0, 96, 0]),
    ("GET LBA STATUS", &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0]),
    // Writers.
    ("WRITE", &[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
    ("UNMAP", &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]),
    ("SYNCHRONIZE CACHE", &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ("MODE SELECT", &[0x15, 0x10, 0, 0, 24, 0]),
    ("STOP", &[0x1b, 0, 0, 0, 0, 0]),
    ("PREVENT", &[0x1e, 0, 0, 0, 1, 0]),
];

/// Which of the commands `n` may not use now.
fn conflicts(n: &mut Nexus, view: &View<'_>) -> Vec<&'static str> {
    let refused = |(name, cdb): (&'static str, &[u8])| {
        (status(&n.begin(view, cdb)) == Status::ReservationConflict).then_some(name)
    };
    COMMANDS.into_iter().filter_map(refused).collect()
}

/// SPC-4 table 65, SBC-3 table 13.
#[test]
fn outsiders_of_each_reservation_meet_conflicts_where_the_standard_has_them() {
    let names: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
    for (scope_type, from) in [(1, 10), (3, 6), (5, 10), (6, 6), (7, 10), (8, 6)] {
        let (mut ours, mut theirs) = pair();
        assert_eq!(status(&out(&mut ours, &VIEW, 0, 0, (0, 1))), Status::Good);
        assert_eq!(status(&out(&mut ours, &VIEW, 1, scope_type, (1, 0))), Status::Good);
        assert_eq!(conflicts(&mut theirs, &OTHER), names[from..], "type {scope_type}");
        assert!(conflicts(&mut ours, &VIEW).is_empty(), "type {scope_type}");
    }
    // RESERVE of SPC-2 leaves less.
    let (mut ours, mut theirs) = pair();
    assert_eq!(status(&ours.begin(&VIEW, &[0x16, 0, 0, 0, 0, 0])), Status::Good);
    assert_eq!(conflicts(&mut theirs, &OTHER), names[5..]);
    assert!(conflicts(&mut ours, &VIEW).is_empty());
    let keys = ours.begin(&VIEW, &[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0]);
    assert_eq!(status(&keys), Status::ReservationConflict, "SPC-2 5.5.1");
}

/// SAM-5 5.3.3: the conflict goes first, and the attention is told when there is none any more.
#[test]
fn a_victim_meets_the_conflict_first_and_is_told_later() {
    let (mut ours, mut theirs) = pair();
    out(&mut ours, &VIEW, 0, 0, (0, 1));
    out(&mut theirs, &OTHER, 0, 0, (0, 2));
    out(&mut theirs, &OTHER, 1, 5, (2, 0));
    let plan = out(&mut ours, &VIEW, 5, 5, (1, 2));
    let Action::Evict(ended) = plan.action else { panic!("its commands end") };
    assert_eq!((ended.registered.len(), ended.outsiders), (1, true));
    let write = cdb16(0x8a, 0, 0, 1);
    assert_eq!(status(&theirs.begin(&OTHER, &write)), Status::ReservationConflict);
    let told = sense_of(&theirs.begin(&OTHER, &[0; 6])).unwrap().condition;
    assert_eq!(told, Condition::REGISTRATIONS_PREEMPTED);
    assert_eq!(status(&theirs.begin(&OTHER, &[0; 6])), Status::Good);
}

#[test]
fn what_is_registered_and_held_is_read_by_everybody() {
    let (mut ours, mut theirs) = pair();
    out(&mut theirs, &OTHER, 0, 0, (0, 2));
    out(&mut theirs, &OTHER, 1, 3, (2, 0));
    assert_eq!(read(&mut ours, 0), [0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(read(&mut ours, 1)[15..], [2, 0, 0, 0, 0, 0, 3, 0, 0]);
    assert_eq!(read(&mut ours, 2), [0, 8, 0x1c, 0x80, 0xea, 1, 0, 0]);
    let full = read(&mut ours, 3);
    assert_eq!((full[20], full[21], full[27]), (1, 3, 1));
    assert!(full[36..].starts_with(OTHER.initiator.as_bytes()));
    let unknown = ours.begin(&VIEW, &[0x5e, 4, 0, 0, 0, 0, 0, 0, 8, 0]);
    assert_eq!(sense_of(&unknown), Some(Sense::invalid_cdb(1, Some(4))));
}

#[test]
fn lists_of_a_wrong_length_and_odd_reserves_are_refused() {
    let (mut ours, _) = pair();
    for len in [0, 23, 0x40] {
        let cdb = [0x5f, 1, 1, 0, 0, 0, if len == 0x40 { 1 } else { 0 }, 0, len, 0];
        let refused = refusal(&mut ours, &cdb);
        assert_eq!(refused, Condition::PARAMETER_LIST_LENGTH_ERROR, "{len}");
    }
    for bit in [0, 1, 4] {
        let refused = sense_of(&ours.begin(&VIEW, &[0x16, 1 << bit, 0, 0, 0, 0]));
        assert_eq!(refused, Some(Sense::invalid_cdb(1, Some(bit))));
    }
}

#[test]
fn a_reset_or_the_end_of_the_session_releases_an_old_reservation_only() {
    let (mut ours, mut theirs) = pair();
    theirs.begin(&OTHER, &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(status(&ours.begin(&VIEW, &[0; 6])), Status::ReservationConflict);
    drop(theirs);
    assert_eq!(status(&ours.begin(&VIEW, &[0; 6])), Status::Good);
    out(&mut ours, &VIEW, 0, 0, (0, 1));
    out(&mut ours, &VIEW, 1, 1, (1, 0));
    ours.unit().reset();
    assert!(ours.unit().volume.reservations.state().unwrap().held.is_some());
}
