//! SANITIZE, and what it means to everybody else.

use super::*;
use crate::volume::Erase;
use crate::volume::cipher::{Cipher, WrappingKey};
use crate::volume::sanitize::{Phase, Purpose};

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

fn encrypted(thin: bool) -> Nexus {
    let wrapping = WrappingKey::new(&[1; 32]);
    let (cipher, _) = Cipher::fresh(wrapping, &mut |bytes| bytes.fill(2));
    nexus_of(Options { thin, ..Options::default() }, |volume| volume.encrypted(cipher))
}

/// REPORT SUPPORTED OPERATION CODES: is SANITIZE there with this service action?
fn offers(n: &mut Nexus, action: u8) -> bool {
    let ask = [0xa3, 0x0c, 0x02, 0x48, 0, action, 0, 0, 0, 64, 0, 0];
    let Action::Respond(reply) = n.begin(&VIEW, &ask).action else { panic!("it answers") };
    reply.data[1] & 0x07 == 0x03
}

/// VPD page B1: WABEREQ and WACEREQ.
fn readable_after(n: &mut Nexus) -> (u8, u8) {
    let Action::Respond(reply) = n.begin(&VIEW, &[0x12, 1, 0xb1, 0, 64, 0]).action else {
        panic!("it answers")
    };
    (reply.data[7] >> 6, reply.data[7] >> 4 & 3)
}

#[test]
fn cryptographic_erase_is_there_where_blocks_are_encrypted_and_nowhere_else() {
    for (mut n, block_erase, crypto_erase) in [
        (disk(), false, false),
        (thin(), true, false),
        (encrypted(false), false, true),
        (encrypted(true), true, true),
    ] {
        assert!(offers(&mut n, 0x01) && offers(&mut n, 0x1f));
        assert_eq!((offers(&mut n, 0x02), offers(&mut n, 0x03)), (block_erase, crypto_erase));
        let told = (u8::from(block_erase), u8::from(crypto_erase));
        assert_eq!(readable_after(&mut n), told, "erased blocks can be read");
        if !crypto_erase {
            assert_eq!(refusal(&mut n, &cdb(0x03, 0)), Condition::INVALID_FIELD_IN_CDB);
            continue;
        }
        assert_eq!(refusal(&mut n, &cdb(0x03, 8)), Condition::INVALID_FIELD_IN_CDB);
        let plan = n.begin(&VIEW, &cdb(0x03, 0));
        let Action::Detach(mut media) = begun(&mut n, plan, true).action else {
            panic!("it goes to the medium")
        };
        let request = n.unit().request::<HeapBuffer>(&mut media, Segments::new());
        assert!(matches!(request.kind, Kind::Erase(Erase::NewKey)));
    }
}

/// What was given back would read as noise. WRITE SAME writes what it says, UNMAP or not.
#[test]
fn an_encrypted_thin_unit_promises_no_zeros_and_takes_no_unmap() {
    for (mut n, zeros) in [(thin(), true), (encrypted(true), false)] {
        let plan = n.begin(&VIEW, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]);
        let Action::Respond(reply) = plan.action else { panic!("it answers") };
        assert_eq!((reply.data[14] & 0x80 != 0, reply.data[14] & 0x40 != 0), (true, zeros));
        let plan = n.begin(&VIEW, &[0x12, 1, 0xb2, 0, 64, 0]);
        let Action::Respond(reply) = plan.action else { panic!("it answers") };
        assert_eq!(reply.data[5], if zeros { 0xe4 } else { 0x60 });
        let same = n.begin(&VIEW, &[0x41, 0x08, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(same.data_out, 4096);
        let unmap = n.begin(&VIEW, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
        assert_eq!(sense_of(&unmap).is_none(), zeros);
    }
    let unmap = refusal(&mut encrypted(true), &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
    assert_eq!(unmap, Condition::INVALID_COMMAND_OPERATION_CODE);
}

/// Nobody knows which key the store has then.
#[test]
fn a_key_change_that_failed_is_no_way_out_even_where_ause_allowed_one() {
    let mut n = encrypted(false);
    let cipher = n.unit().volume.cipher.clone().unwrap();
    n.unit().volume.sanitization.begin(Purpose::Sanitize { unrestricted: true }).unwrap();
    n.unit().volume.sanitization.end(false);
    cipher.unsettle();
    assert_eq!(refusal(&mut n, &cdb(0x1f, 0)), Condition::SANITIZE_COMMAND_FAILED);
    cipher.install(&cipher.successor(&mut |bytes| bytes.fill(5)));
    let plan = n.begin(&VIEW, &cdb(0x1f, 0));
    begun(&mut n, plan, true);
    assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
}

/// Else its end would open the medium while the next one works on it.
#[test]
fn nobody_begins_while_the_exit_of_a_failed_one_is_recorded() {
    let mut n = thin();
    let media = erase(&mut n, 0x20);
    ended(&n, media, Outcome::Failed(BlockError::Medium));
    for recorded in [false, true] {
        let exit = n.begin(&VIEW, &cdb(0x1f, 0));
        let Action::Keep { then, .. } = exit.action else { panic!("not kept: {exit:?}") };
        for another in [cdb(0x02, 0), cdb(0x1f, 0)] {
            assert_eq!(refusal(&mut n, &another), Condition::SANITIZE_IN_PROGRESS);
        }
        let told = n.unit().kept(then, recorded);
        assert_eq!(sense_of(&told).is_none(), recorded);
        let phase = if recorded { Phase::Open } else { Phase::Unrestricted };
        assert_eq!(n.unit().volume.sanitization.phase(), phase);
    }
    let media = erase(&mut n, 0);
    assert_eq!(n.unit().volume.sanitization.phase(), Phase::Running);
    ended(&n, media, Outcome::Done);
    assert!(sense_of(&n.begin(&VIEW, &[0; 6])).is_none());
}
