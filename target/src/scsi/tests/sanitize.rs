//! SANITIZE, and what it means to everybody else.

use super::*;
use crate::volume::Erase;
use crate::volume::sanitize::Phase;

fn thin() -> Nexus {
    nexus(Options { thin: true, ..Options::default() })
}

fn cdb(action: u8, len: u16) -> [u8; 10] {
    let [high, low] = len.to_be_bytes();
    [0x48, action, 0, 0, 0, 0, 0, high, low, 0]
}

/// Begins, with the state file written or not.
fn begun(n: &mut Nexus, plan: Plan, ok: bool) -> Plan {
    let Action::Keep { file, then, .. } = plan.action else { panic!("not kept: {plan:?}") };
    assert!(file.starts_with("sanitize-"));
    n.unit().kept(then, ok)
}

fn erase(n: &mut Nexus, flags: u8) -> MediaPlan {
    let plan = n.begin(&VIEW, &cdb(0x02 | flags, 0));
    let Action::Detach(media) = begun(n, plan, true).action else {
        panic!("it goes to the medium")
    };
    media
}

fn ended(n: &Nexus, mut media: MediaPlan, outcome: Outcome<HeapBuffer>) -> Plan {
    let request = n.unit().request::<HeapBuffer>(&mut media, Segments::new());
    assert!(matches!(request.kind, Kind::Erase(Erase::Deallocate)));
    let done = n.unit().finish(&media, outcome);
    let reply = Reply { status: done.status, sense: done.sense, data: Vec::new() };
    let plan = n.unit().erased(&media, reply).expect("its end is kept");
    let Action::Keep { then, .. } = plan.action else { panic!("not kept: {plan:?}") };
    assert_ne!(n.unit().volume.sanitization.phase(), Phase::Open, "not before it is kept");
    n.unit().kept(then, true)
}

#[test]
fn while_it_runs_everything_but_identification_is_refused_with_its_progress() {
    let mut n = thin();
    let media = erase(&mut n, 0);
    let commands: [&[u8]; 7] = [
        &[0; 6],                            // TEST UNIT READY
        &[0x1b, 0, 0, 0, 1, 0],             // START
        &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], // READ(10)
        &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], // SYNCHRONIZE CACHE(10)
        &[0x1a, 0, 0x08, 0, 24, 0],         // MODE SENSE
        &cdb(0x02, 0),
        &cdb(0x1f, 0),
    ];
    for command in commands {
        let sense = sense_of(&n.begin(&VIEW, command)).expect("refused");
        assert_eq!(sense.condition, Condition::SANITIZE_IN_PROGRESS, "{command:02x?}");
        assert!(sense.progress.is_some());
    }
    for command in [&[0x12, 0, 0, 0, 36, 0][..], &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]] {
        assert!(sense_of(&n.begin(&VIEW, command)).is_none());
    }
    let Action::Respond(reply) = n.begin(&VIEW, &[0x03, 0, 0, 0, 18, 0]).action else {
        panic!("REQUEST SENSE answers")
    };
    let told = Sense::parse(&reply.data).unwrap();
    assert_eq!(told, Sense::from(Condition::SANITIZE_IN_PROGRESS).with_progress(0));
    n.unit().reset();
    n.begin(&VIEW, &[0; 6]); // the attention of the reset
    assert_eq!(refusal(&mut n, &[0; 6]), Condition::SANITIZE_IN_PROGRESS);
    assert!(matches!(ended(&n, media, Outcome::Done).action, Action::Respond(_)));
    assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
}

#[test]
fn failed_one_closes_the_unit_until_another_or_where_ause_lets_it_its_exit() {
    let mut n = thin();
    for (ause, exits) in [(0x20, true), (0x00, false)] {
        let media = erase(&mut n, ause);
        let plan = ended(&n, media, Outcome::Failed(BlockError::Medium));
        assert_eq!(sense_of(&plan).unwrap().condition, Condition::SANITIZE_COMMAND_FAILED);
        assert_eq!(refusal(&mut n, &[0; 6]), Condition::SANITIZE_COMMAND_FAILED);
        let plan = n.begin(&VIEW, &cdb(0x1f, 0));
        if exits {
            begun(&mut n, plan, true);
            assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
        } else {
            assert_eq!(sense_of(&plan), Some(Sense::invalid_cdb(1, Some(4))));
            let media = erase(&mut n, 0);
            ended(&n, media, Outcome::Done);
            assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
        }
    }
}

#[test]
fn one_that_cannot_be_recorded_does_not_begin() {
    let mut n = thin();
    let plan = n.begin(&VIEW, &cdb(0x02, 0));
    let refused = begun(&mut n, plan, false);
    assert_eq!(sense_of(&refused).unwrap().condition, Condition::INTERNAL_TARGET_FAILURE);
    assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
}

#[test]
fn overwrite_takes_a_header_and_up_to_a_block_of_pattern() {
    let mut n = disk();
    for len in [0, 4, 4101] {
        let refused = n.begin(&VIEW, &cdb(0x01, len));
        assert_eq!(sense_of(&refused), Some(Sense::invalid_cdb(7, None)), "{len}");
    }
    let Action::Parameters(command) = n.begin(&VIEW, &cdb(0x81, 6)).action else {
        panic!("a list is wanted")
    };
    let plan = n.resume(&VIEW, command, &[0x82, 0, 0, 2, 0xaa, 0x55]);
    let Action::Detach(mut media) = begun(&mut n, plan, true).action else {
        panic!("it goes to the medium")
    };
    assert!(media.answer_first);
    let request = n.unit().request::<HeapBuffer>(&mut media, Segments::new());
    let Kind::Erase(Erase::Overwrite { block, passes: 2, invert: true }) = request.kind else {
        panic!("{request:?}")
    };
    assert_eq!(block, [0xaa, 0x55].repeat(2048));
}

/// Reserved bits, methods that are not there, and units that must not be written.
#[test]
fn what_is_not_understood_or_not_allowed_erases_nothing() {
    let mut n = thin();
    for (byte, bit) in [(1, Some(6)), (2, None), (6, None)] {
        let mut command = cdb(0x02, 0);
        command[byte] |= 0x40;
        let pointer = Sense::invalid_cdb(u16::try_from(byte).unwrap(), bit);
        assert_eq!(sense_of(&n.begin(&VIEW, &command)), Some(pointer));
    }
    for action in [0x00, 0x03, 0x04, 0x1e] {
        let refused = refusal(&mut n, &cdb(action, 0));
        assert_eq!(refused, Condition::INVALID_FIELD_IN_CDB, "{action:#x}");
    }
    assert_eq!(refusal(&mut n, &cdb(0x02, 8)), Condition::INVALID_FIELD_IN_CDB);
    // A thick unit has no way to give blocks back.
    assert_eq!(refusal(&mut disk(), &cdb(0x02, 0)), Condition::INVALID_FIELD_IN_CDB);
    let mut locked = nexus(Options { read_only: true, thin: true, ..Options::default() });
    assert_eq!(refusal(&mut locked, &cdb(0x02, 0)), Condition::WRITE_PROTECTED);
    assert_eq!(refusal(&mut locked, &cdb(0x01, 8)), Condition::WRITE_PROTECTED);
}
