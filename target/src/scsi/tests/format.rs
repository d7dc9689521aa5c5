//! FORMAT UNIT: what it does, what it leaves alone, and what others are told meanwhile.

use super::*;
use crate::volume::Erase;

const FORMAT: [u8; 6] = [0x04, 0, 0, 0, 0, 0];
const WITH_LIST: [u8; 6] = [0x04, 0x10, 0, 0, 0, 0];

fn thin() -> Nexus {
    nexus(Options { thin: true, ..Options::default() })
}

/// FORMAT UNIT with a list, as far as it goes at once.
fn format(n: &mut Nexus, list: &[u8]) -> Plan {
    let plan = n.begin_with(&VIEW, &WITH_LIST, list.len() as u64);
    let Action::Parameters(command) = plan.action else { panic!("a list is wanted: {plan:?}") };
    n.resume(&VIEW, command, &list[..usize::try_from(plan.data_out).unwrap()])
}

/// What goes to the medium once the state file tells of it.
fn begun(n: &Nexus, plan: Plan) -> MediaPlan {
    let Action::Keep { file, then, .. } = plan.action else { panic!("not kept: {plan:?}") };
    assert!(file.starts_with("sanitize-"));
    let Action::Detach(media) = n.unit().kept(then, true).action else {
        panic!("it goes to the medium")
    };
    media
}

fn erase(n: &Nexus, media: &mut MediaPlan) -> Erase {
    let request = n.unit().request::<HeapBuffer>(media, Segments::new());
    let Kind::Erase(erase) = request.kind else { panic!("{request:?}") };
    erase
}

fn ended(n: &Nexus, media: &MediaPlan, outcome: Outcome<HeapBuffer>) -> Plan {
    let done = n.unit().finish(media, outcome);
    let reply = Reply { status: done.status, sense: done.sense, data: Vec::new() };
    let plan = n.unit().erased(media, reply).expect("its end is kept");
    let Action::Keep { then, .. } = plan.action else { panic!("not kept: {plan:?}") };
    n.unit().kept(then, true)
}

fn is_good(plan: &Plan) -> bool {
    matches!(&plan.action, Action::Respond(reply) if reply.status == Status::Good)
}

#[test]
fn unit_that_is_not_thin_is_left_as_it_is() {
    let mut n = disk();
    assert!(is_good(&n.begin_with(&VIEW, &FORMAT, 0)));
    // As sg_format asks: IMMED, and DCRT validated by FOV.
    for list in [[0, 0x02, 0, 0], [0, 0xa2, 0, 0], [0, 0, 0, 0]] {
        assert!(is_good(&format(&mut n, &list)), "{list:?}");
    }
    let long = n.begin_with(&VIEW, &[0x04, 0x30, 0, 0, 0, 0], 8);
    let Action::Parameters(command) = long.action else { panic!("a list") };
    assert_eq!(long.data_out, 8);
    assert!(is_good(&n.resume(&VIEW, command, &[0; 8])));
}

#[test]
fn thin_unit_gives_all_its_blocks_back_and_others_see_it_in_progress() {
    let mut n = thin();
    let plan = format(&mut n, &[0, 0x02, 0, 0]);
    let mut media = begun(&n, plan);
    assert!(media.answer_first, "IMMED");
    assert_eq!(erase(&n, &mut media), Erase::Deallocate);
    let sense = sense_of(&n.begin(&VIEW, &[0; 6])).unwrap();
    assert_eq!(sense, Sense::from(Condition::FORMAT_IN_PROGRESS).with_progress(0));
    for command in [&FORMAT[..], &[0x48, 2, 0, 0, 0, 0, 0, 0, 0, 0], &cdb16(0x8a, 0, 0, 1)] {
        assert_eq!(refusal(&mut n, command), Condition::FORMAT_IN_PROGRESS);
    }
    assert!(is_good(&ended(&n, &media, Outcome::Done)));
    assert!(is_good(&n.begin(&VIEW, &[0; 6])));
}

#[test]
fn initialization_pattern_is_written_over_every_block() {
    let mut n = disk();
    let zeros = format(&mut n, &[0, 0x88, 0, 0, 0, 0, 0, 0]);
    let mut media = begun(&n, zeros);
    assert!(!media.answer_first);
    let whole = |block| Erase::Overwrite { block, passes: 1, invert: false };
    assert_eq!(erase(&n, &mut media), whole(vec![0; 4096]));
    ended(&n, &media, Outcome::Done);
    let given = format(&mut n, &[0, 0x88, 0, 0, 0, 1, 0, 2, 0xaa, 0x55]);
    let mut media = begun(&n, given);
    assert_eq!(erase(&n, &mut media), whole([0xaa, 0x55].repeat(2048)));
}

#[test]
fn pattern_of_a_whole_block_fits_behind_both_headers_and_what_follows_is_not_taken() {
    let mut n = disk();
    let pattern: Vec<u8> = (0..4096_u16).map(|at| at.to_le_bytes()[0] | 1).collect();
    let descriptor = [&[0, 1, 0x10, 0][..], &pattern].concat();
    for (cdb, header) in [(0x10, &[0, 0x88, 0, 0][..]), (0x30, &[0, 0x88, 0, 0, 0, 0, 0, 0])] {
        let list = [header, &descriptor, &[9; 4096]].concat();
        let plan = n.begin_with(&VIEW, &[0x04, cdb, 0, 0, 0, 0], list.len() as u64);
        let Action::Parameters(command) = plan.action else { panic!("a list is wanted") };
        assert_eq!(plan.data_out, 8 + 4 + 4096);
        let taken = &list[..usize::try_from(plan.data_out).unwrap()];
        let plan = n.resume(&VIEW, command, taken);
        let mut media = begun(&n, plan);
        let whole = Erase::Overwrite { block: pattern.clone(), passes: 1, invert: false };
        assert_eq!(erase(&n, &mut media), whole);
        ended(&n, &media, Outcome::Done);
    }
}

/// A restart would find it unfinished.
#[test]
fn end_that_cannot_be_recorded_leaves_the_unit_closed() {
    let mut n = thin();
    let plan = format(&mut n, &[0, 0, 0, 0]);
    let media = begun(&n, plan);
    let done = n.unit().finish::<HeapBuffer>(&media, Outcome::Done);
    let reply = Reply { status: done.status, sense: done.sense, data: Vec::new() };
    let Action::Keep { then, .. } = n.unit().erased(&media, reply).unwrap().action else {
        panic!("its end is kept")
    };
    let failed = n.unit().kept(then, false);
    assert_eq!(sense_of(&failed).unwrap().condition, Condition::FORMAT_COMMAND_FAILED);
    assert_eq!(refusal(&mut n, &[0; 6]), Condition::MEDIUM_FORMAT_CORRUPTED);
}

#[test]
fn failed_format_closes_the_unit_until_another() {
    for (mut n, what) in [(thin(), "thin"), (disk(), "thick")] {
        let plan = format(&mut n, &[0, 0x88, 0, 0, 0, 0, 0, 0]);
        let media = begun(&n, plan);
        let failed = ended(&n, &media, Outcome::Failed(BlockError::Medium));
        let condition = sense_of(&failed).unwrap().condition;
        assert_eq!(condition, Condition::FORMAT_COMMAND_FAILED);
        assert_eq!(refusal(&mut n, &[0; 6]), Condition::MEDIUM_FORMAT_CORRUPTED, "{what}");
        let again = n.begin_with(&VIEW, &FORMAT, 0);
        let Action::Keep { then, .. } = again.action else { panic!("{what}: it is kept") };
        let next = n.unit().kept(then, true);
        match next.action {
            Action::Detach(media) => assert!(is_good(&ended(&n, &media, Outcome::Done))),
            Action::Respond(_) => assert!(is_good(&next)),
            _ => panic!("{what}: {next:?}"),
        }
        assert!(is_good(&n.begin(&VIEW, &[0; 6])), "{what}");
    }
}

#[test]
fn what_a_failed_sanitize_left_is_not_opened_by_a_format() {
    let mut n = disk();
    let sanitize = n.begin(&VIEW, &[0x48, 0x01, 0, 0, 0, 0, 0, 0, 5, 0]);
    let Action::Parameters(command) = sanitize.action else { panic!("a list") };
    let plan = n.resume(&VIEW, command, &[1, 0, 0, 1, 0xaa]);
    let media = begun(&n, plan);
    ended(&n, &media, Outcome::Failed(BlockError::Medium));
    assert_eq!(refusal(&mut n, &FORMAT), Condition::SANITIZE_COMMAND_FAILED);
    assert_eq!(refusal(&mut n, &[0; 6]), Condition::SANITIZE_COMMAND_FAILED);
}

#[test]
fn what_is_not_understood_or_not_allowed_formats_nothing() {
    let mut n = thin();
    for (cdb, byte) in [
        ([0x04, 0x80, 0, 0, 0, 0], 1), // FMTPINFO
        ([0x04, 0x00, 0, 0, 1, 0], 4), // FFMT
    ] {
        assert_eq!(sense_of(&n.begin_with(&VIEW, &cdb, 0)).unwrap().pointer.unwrap().byte, byte);
    }
    for announced in [0, 3] {
        let short = n.begin_with(&VIEW, &WITH_LIST, announced);
        let condition = sense_of(&short).unwrap().condition;
        assert_eq!(condition, Condition::PARAMETER_LIST_LENGTH_ERROR);
    }
    let defects = format(&mut n, &[0, 0x80, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(sense_of(&defects).unwrap().condition, Condition::INVALID_FIELD_IN_PARAMETER_LIST);
    let mut locked = nexus(Options { read_only: true, thin: true, ..Options::default() });
    assert_eq!(refusal(&mut locked, &FORMAT), Condition::WRITE_PROTECTED);
    assert!(is_good(&n.begin(&VIEW, &[0; 6])));
}

/// A unit that cannot give blocks back is opened by the next FORMAT UNIT, once that is recorded.
#[test]
fn nobody_begins_while_the_end_of_a_failed_format_is_recorded() {
    let mut n = disk();
    let plan = format(&mut n, &[0, 0x88, 0, 0, 0, 0, 0, 0]);
    let media = begun(&n, plan);
    ended(&n, &media, Outcome::Failed(BlockError::Medium));
    let again = n.begin_with(&VIEW, &FORMAT, 0);
    let Action::Keep { then, .. } = again.action else { panic!("not kept: {again:?}") };
    for another in [&FORMAT[..], &[0x48, 0x01, 0, 0, 0, 0, 0, 0, 5, 0]] {
        let refused = sense_of(&n.begin_with(&VIEW, another, 0)).map(|sense| sense.condition);
        assert_eq!(refused, Some(Condition::FORMAT_IN_PROGRESS), "{another:02x?}");
    }
    assert!(is_good(&n.unit().kept(then, true)));
    assert!(is_good(&n.begin(&VIEW, &[0; 6])));
}
