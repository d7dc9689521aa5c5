use super::*;
use corbel_proto::scsi::Condition;

const READ: Operation = Operation::Read;

fn told(operation: Operation, key: Key, asc: u8, ascq: u8) -> (Ruling, Act) {
    let sense = Sense::from(Condition { key, asc, ascq });
    let (fixed, descriptor) = (sense.encode(false), sense.encode(true));
    let ruling = judge(operation, 2, fixed.as_slice(), Residual::None);
    assert_eq!(ruling, judge(operation, 2, descriptor.as_slice(), Residual::None));
    ruling
}

const FAIL: Ruling = Ruling::Elsewhere(PathFault::CommandsFail);
const AGAIN: Ruling = Ruling::Again(1, FAILS);
const GARBLED: Ruling = Ruling::Again(1, Last::Elsewhere(PathFault::Protocol));
const STANDBY: PathFault = PathFault::Standby;
const GONE: PathFault = PathFault::NoDevice;

/// What is expected of each row, in the words of the standard.
#[rustfmt::skip]
const EXPECTED: &[(Key, u8, u8, Ruling, Act)] = &[
    (Key::NoSense, 0x00, 0x00, AGAIN, Act::Nothing),
    (Key::RecoveredError, 0x17, 0x01, Ruling::Done, Act::Nothing), // with retries
    (Key::Completed, 0x00, 0x00, Ruling::Done, Act::Nothing),
    (Key::NotReady, 0x04, 0x0a, Ruling::Hold, Act::Groups), // asymmetric access state transition
    (Key::NotReady, 0x04, 0x0b, Ruling::Elsewhere(STANDBY), Act::Rest(STANDBY)), // standby
    (Key::NotReady, 0x04, 0x0c, Ruling::Elsewhere(STANDBY), Act::Rest(STANDBY)), // unavailable
    (Key::NotReady, 0x04, 0x01, Ruling::Hold, Act::Nothing), // becoming ready
    (Key::NotReady, 0x04, 0x04, Ruling::Hold, Act::Nothing), // format in progress
    (Key::NotReady, 0x04, 0x09, Ruling::Hold, Act::Nothing), // self-test in progress
    (Key::NotReady, 0x04, 0x11, Ruling::Hold, Act::Nothing), // enable spinup required
    (Key::NotReady, 0x04, 0x14, Ruling::Hold, Act::Nothing), // space allocation in progress
    (Key::NotReady, 0x04, 0x1a, Ruling::Hold, Act::Nothing), // start stop unit in progress
    (Key::NotReady, 0x04, 0x1d, Ruling::Hold, Act::Nothing), // configuration in progress
    (Key::NotReady, 0x04, 0x02, FAIL, Act::Nothing), // initializing command required
    (Key::NotReady, 0x3a, 0x00, FAIL, Act::Nothing), // medium not present
    (Key::MediumError, 0x11, 0x00, MEDIUM, Act::Nothing), // unrecovered read error
    (Key::MediumError, 0x14, 0x01, MEDIUM, Act::Nothing), // record not found
    (Key::MediumError, 0x0c, 0x00, Ruling::Again(2, Last::Device(IoError::Medium)), Act::Nothing),
    (Key::HardwareError, 0x44, 0x00, TARGET, Act::Nothing), // internal target failure
    (Key::IllegalRequest, 0x25, 0x00, Ruling::Elsewhere(GONE), Act::Rest(GONE)), // no such unit
    (Key::IllegalRequest, 0x21, 0x00, TARGET, Act::Capacity), // block address out of range
    (Key::IllegalRequest, 0x27, 0x00, Ruling::Device(IoError::ReadOnly), Act::Mode),
    (Key::IllegalRequest, 0x94, 0x01, FAIL, Act::Groups), // not the owner
    (Key::IllegalRequest, 0x20, 0x00, TARGET, Act::Nothing), // invalid operation code
    (Key::IllegalRequest, 0x24, 0x00, TARGET, Act::Nothing), // invalid field in CDB
    (Key::UnitAttention, 0x29, 0x07, ATTENTION, Act::Nothing), // nexus loss
    (Key::UnitAttention, 0x29, 0x01, ATTENTION, Act::PowerOn), // power on
    (Key::UnitAttention, 0x29, 0x04, ATTENTION, Act::PowerOn), // device internal reset
    (Key::UnitAttention, 0x29, 0x00, ATTENTION, Act::Reset), // power on or reset
    (Key::UnitAttention, 0x29, 0x03, ATTENTION, Act::Reset), // reset function
    (Key::UnitAttention, 0x2a, 0x01, ATTENTION, Act::Mode), // mode parameters
    (Key::UnitAttention, 0x2a, 0x06, ATTENTION, Act::Groups), // asymmetric access state changed
    (Key::UnitAttention, 0x2a, 0x07, ATTENTION, Act::Groups), // and its transition failed
    (Key::UnitAttention, 0x2a, 0x09, ATTENTION, Act::Capacity), // capacity
    (Key::UnitAttention, 0x2f, 0x00, ATTENTION, Act::Cleared), // commands cleared by another
    (Key::UnitAttention, 0x28, 0x00, ATTENTION, Act::Identify), // medium may have changed
    (Key::UnitAttention, 0x3f, 0x03, ATTENTION, Act::Identify), // inquiry data
    (Key::UnitAttention, 0x3f, 0x05, ATTENTION, Act::Identify), // device identifier
    (Key::UnitAttention, 0x3f, 0x0e, ATTENTION, Act::Identify), // reported LUNs
    (Key::UnitAttention, 0x38, 0x07, ATTENTION, Act::Nothing), // thin soft threshold
    (Key::DataProtect, 0x27, 0x07, Ruling::Device(IoError::NoSpace), Act::Nothing),
    (Key::DataProtect, 0x27, 0x00, Ruling::Device(IoError::ReadOnly), Act::Mode),
    (Key::DataProtect, 0x20, 0x02, TARGET, Act::Nothing), // access denied
    (Key::BlankCheck, 0x00, 0x00, TARGET, Act::Nothing),
    (Key::VendorSpecific, 0x80, 0x00, AGAIN, Act::Nothing),
    (Key::CopyAborted, 0x00, 0x00, TARGET, Act::Nothing),
    (Key::AbortedCommand, 0x10, 0x01, Ruling::Device(IoError::Io), Act::Nothing), // guard check
    (Key::AbortedCommand, 0x2e, 0x01, Ruling::Device(IoError::Io), Act::Nothing), // duration limit
    (Key::AbortedCommand, 0x47, 0x05, GARBLED, Act::Nothing), // protocol service CRC error
    (Key::AbortedCommand, 0x4b, 0x06, AGAIN, Act::Nothing), // initiator response timeout
    (Key::VolumeOverflow, 0x00, 0x00, TARGET, Act::Nothing),
    (Key::Miscompare, 0x1d, 0x00, TARGET, Act::Nothing),
];

#[test]
fn every_row_means_what_the_standard_and_linux_say() {
    for &(key, asc, ascq, ruling, act) in EXPECTED {
        assert_eq!(told(READ, key, asc, ascq), (ruling, act), "{key:?} {asc:02x}/{ascq:02x}");
    }
}

#[test]
fn every_row_is_reached_by_what_is_expected() {
    let within = |(low, high): (u8, u8), code: u8| low <= code && code <= high;
    let fits = |row: &Row, key: Key, asc, ascq| {
        row.key == key && within(row.asc, asc) && within(row.ascq, ascq)
    };
    for (number, row) in TABLE.iter().enumerate() {
        let reached = EXPECTED.iter().any(|&(key, asc, ascq, ..)| {
            TABLE.iter().position(|row| fits(row, key, asc, ascq)) == Some(number)
        });
        assert!(reached, "no case reaches {row:?}");
    }
}

#[test]
fn every_sense_key_has_a_last_row_for_all_that_is_left() {
    for key in (0..16).filter_map(Key::from_code) {
        let last = TABLE.iter().rfind(|row| row.key == key).unwrap();
        assert_eq!((last.asc, last.ascq), (ANY, ANY), "{key:?}");
    }
}

#[test]
fn statuses_other_than_check_condition() {
    let ruling = |status| judge(READ, status, &[], Residual::None);
    assert_eq!(ruling(0x00), (Ruling::Done, Act::Nothing));
    assert_eq!(ruling(0x04), (Ruling::Done, Act::Nothing));
    assert_eq!(ruling(0x08), (Ruling::Busy, Act::Nothing));
    assert_eq!(ruling(0x18), (Ruling::Device(IoError::Conflict), Act::Nothing));
    assert_eq!(ruling(0x28), (Ruling::Busy, Act::Narrow));
    assert_eq!(ruling(0x40), (AGAIN, Act::Nothing));
    assert_eq!(ruling(0x30), (AGAIN, Act::Nothing)); // ACA ACTIVE, which we never ask for
    assert_eq!(ruling(0x02), (AGAIN, Act::Nothing)); // without sense data
}

#[test]
fn done_with_less_than_all_is_not_done() {
    for operation in [READ, Operation::Write { fua: false }] {
        for residual in [Residual::Underflow(512), Residual::Overflow(512)] {
            assert_eq!(judge(operation, 0, &[], residual).0, AGAIN);
        }
    }
    assert_eq!(judge(Operation::Discard, 0, &[], Residual::Underflow(24)).0, Ruling::Done);
}

#[test]
fn what_a_unit_need_not_know_is_unsupported_not_an_error_of_the_request() {
    let zeroes = Operation::WriteZeroes { unmap: false, fua: false };
    for operation in [Operation::Discard, zeroes, Operation::Flush] {
        for asc in [0x20, 0x24, 0x26] {
            let (ruling, _) = told(operation, Key::IllegalRequest, asc, 0);
            assert_eq!(ruling, Ruling::Device(IoError::Unsupported));
        }
        assert_eq!(told(operation, Key::IllegalRequest, 0x21, 0).0, TARGET);
    }
}

#[test]
fn a_deferred_error_is_about_a_write_that_was_acknowledged() {
    let sense = Sense::from(Condition::WRITE_ERROR).encode(false);
    let mut sense = sense.as_slice().to_vec();
    sense[0] = 0x71;
    assert_eq!(judge(READ, 2, &sense, Residual::None), (AGAIN, Act::LostWrite));
    let flush = judge(Operation::Flush, 2, &sense, Residual::None);
    assert_eq!(flush, (Ruling::Device(IoError::Io), Act::Nothing));
}

#[test]
fn words_name_what_people_look_up() {
    let sense = Sense::from(Condition::WRITE_PROTECTED).encode(false);
    assert_eq!(words(2, sense.as_slice()), "DataProtect, 27h/00h");
    assert_eq!(words(0x28, &[]), "TaskSetFull");
    assert_eq!(words(0x77, &[]), "status 77h");
}
