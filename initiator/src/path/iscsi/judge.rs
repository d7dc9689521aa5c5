//! Everything a target says about a command, and what it means: one table.
//!
//! Errors are of two kinds, and never mixed up: the path's (another path may do it) and the
//! device's (every path would say the same). Where Linux's middle layer and its multipath decide,
//! this decides the same way, so that a device behaves as its users know it.

use corbel_proto::iscsi::pdu::Residual;
use corbel_proto::scsi::sense::Key;
use corbel_proto::scsi::{Sense, Status};

use crate::path::PathFault;
use crate::request::{IoError, Operation};

/// What becomes of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    /// It is done.
    Done,
    /// The device says no.
    Device(IoError),
    /// The device is busy: later, and later still if it says so again.
    Busy,
    /// It is in transition: in about half a second.
    Hold,
    /// Another path.
    Elsewhere(PathFault),
    /// The same path at once, this often; then as it says.
    Again(u8, Last),
}

/// What becomes of a command that was repeated often enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Elsewhere(PathFault),
    Device(IoError),
}

/// What the path does about it, besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing.
    Nothing,
    /// Asks who the unit is, before anything else is sent.
    Identify,
    /// Asks how large it is.
    Capacity,
    /// Asks for the mode parameters: write cache, write protection.
    Mode,
    /// Asks for the states of the port groups.
    Groups,
    /// The unit was reset: asks everything, and waits no longer for what it may have forgotten.
    Reset,
    /// The unit was without power while we used it: as a reset, and its cache is lost.
    PowerOn,
    /// Another initiator cleared the task set: commands under way may never be answered.
    Cleared,
    /// The path stands by until the port group is active again.
    Rest(PathFault),
    /// An earlier write was acknowledged and lost: the next flush must fail.
    LostWrite,
    /// The task set is full: fewer commands at a time.
    Narrow,
}

const MEDIUM: Ruling = Ruling::Device(IoError::Medium);
const TARGET: Ruling = Ruling::Device(IoError::Target);
const FAILS: Last = Last::Elsewhere(PathFault::CommandsFail);
/// A unit attention tells something, and the command was not performed. One session can meet as
/// many as a unit keeps.
const ATTENTION: Ruling = Ruling::Again(8, FAILS);

/// A row: sense key, ASC and ASCQ (from, to), what it means.
#[derive(Debug)]
struct Row {
    key: Key,
    asc: (u8, u8),
    ascq: (u8, u8),
    ruling: Ruling,
    act: Act,
}

const ANY: (u8, u8) = (0, 0xff);

const fn one(code: u8) -> (u8, u8) {
    (code, code)
}

const fn row(key: Key, asc: (u8, u8), ascq: (u8, u8), ruling: Ruling, act: Act) -> Row {
    Row { key, asc, ascq, ruling, act }
}

/// The first row that fits counts; the last rows of a key take all that is left of it.
#[rustfmt::skip]
static TABLE: &[Row] = &{
    use Key::{
        AbortedCommand, BlankCheck, Completed, CopyAborted, DataProtect, HardwareError,
        IllegalRequest, MediumError, Miscompare, NoSense, NotReady, RecoveredError, UnitAttention,
        VendorSpecific, VolumeOverflow,
    };
    use Act::{Capacity, Cleared, Groups, Identify, Mode, Nothing, PowerOn, Reset, Rest};
    use Ruling::{Again, Device, Done, Elsewhere, Hold};
    const STANDBY: PathFault = PathFault::Standby;
    const GONE: PathFault = PathFault::NoDevice;
    const FAIL: Ruling = Elsewhere(PathFault::CommandsFail);
    const GARBLED: Ruling = Again(1, Last::Elsewhere(PathFault::Protocol));
    const MEDIUM_AT_LAST: Ruling = Again(2, Last::Device(IoError::Medium));
    const READ_ONLY: Ruling = Device(IoError::ReadOnly);
    const NO_SPACE: Ruling = Device(IoError::NoSpace);
    const IO: Ruling = Device(IoError::Io);
    [
    row(NoSense,        ANY,          ANY,          Again(1, FAILS),    Nothing),
    row(RecoveredError, ANY,          ANY,          Done,               Nothing),
    row(Completed,      ANY,          ANY,          Done,               Nothing),

    row(NotReady,       one(0x04),    one(0x0a),    Hold,               Groups),
    row(NotReady,       one(0x04),    (0x0b, 0x0c), Elsewhere(STANDBY), Rest(STANDBY)),
    row(NotReady,       one(0x04),    one(0x01),    Hold,               Nothing),
    row(NotReady,       one(0x04),    (0x04, 0x09), Hold,               Nothing),
    row(NotReady,       one(0x04),    one(0x11),    Hold,               Nothing),
    row(NotReady,       one(0x04),    one(0x14),    Hold,               Nothing),
    row(NotReady,       one(0x04),    (0x1a, 0x1d), Hold,               Nothing),
    row(NotReady,       ANY,          ANY,          FAIL,               Nothing),

    row(MediumError,    one(0x11),    ANY,          MEDIUM,             Nothing),
    row(MediumError,    (0x13, 0x14), ANY,          MEDIUM,             Nothing),
    row(MediumError,    ANY,          ANY,          MEDIUM_AT_LAST,     Nothing),

    row(HardwareError,  ANY,          ANY,          TARGET,             Nothing),

    row(IllegalRequest, one(0x25),    ANY,          Elsewhere(GONE),    Rest(GONE)),
    row(IllegalRequest, one(0x21),    ANY,          TARGET,             Capacity),
    row(IllegalRequest, one(0x27),    ANY,          READ_ONLY,          Mode),
    row(IllegalRequest, one(0x94),    ANY,          FAIL,               Groups),
    row(IllegalRequest, ANY,          ANY,          TARGET,             Nothing),

    row(UnitAttention,  one(0x29),    one(0x07),    ATTENTION,          Nothing),
    row(UnitAttention,  one(0x29),    one(0x01),    ATTENTION,          PowerOn),
    row(UnitAttention,  one(0x29),    one(0x04),    ATTENTION,          PowerOn),
    row(UnitAttention,  one(0x29),    ANY,          ATTENTION,          Reset),
    row(UnitAttention,  one(0x2a),    one(0x01),    ATTENTION,          Mode),
    row(UnitAttention,  one(0x2a),    (0x06, 0x07), ATTENTION,          Groups),
    row(UnitAttention,  one(0x2a),    one(0x09),    ATTENTION,          Capacity),
    row(UnitAttention,  one(0x2f),    ANY,          ATTENTION,          Cleared),
    row(UnitAttention,  one(0x28),    ANY,          ATTENTION,          Identify),
    row(UnitAttention,  one(0x3f),    one(0x03),    ATTENTION,          Identify),
    row(UnitAttention,  one(0x3f),    one(0x05),    ATTENTION,          Identify),
    row(UnitAttention,  one(0x3f),    one(0x0e),    ATTENTION,          Identify),
    row(UnitAttention,  ANY,          ANY,          ATTENTION,          Nothing),

    row(DataProtect,    one(0x27),    one(0x07),    NO_SPACE,           Nothing),
    row(DataProtect,    one(0x27),    ANY,          READ_ONLY,          Mode),
    row(DataProtect,    ANY,          ANY,          TARGET,             Nothing),

    row(BlankCheck,     ANY,          ANY,          TARGET,             Nothing),
    row(VendorSpecific, ANY,          ANY,          Again(1, FAILS),    Nothing),
    row(CopyAborted,    ANY,          ANY,          TARGET,             Nothing),

    row(AbortedCommand, one(0x10),    ANY,          IO,                 Nothing),
    row(AbortedCommand, one(0x2e),    (0x01, 0x03), IO,                 Nothing),
    row(AbortedCommand, one(0x47),    ANY,          GARBLED,            Nothing),
    row(AbortedCommand, ANY,          ANY,          Again(1, FAILS),    Nothing),

    row(VolumeOverflow, ANY,          ANY,          TARGET,             Nothing),
    row(Miscompare,     ANY,          ANY,          TARGET,             Nothing),
    ]
};

/// Judges the answer to a command of a request: `sense` as it came, empty if none.
pub(super) fn judge(
    operation: Operation,
    status: u8,
    sense: &[u8],
    residual: Residual,
) -> (Ruling, Act) {
    match Status::from_code(status) {
        Some(Status::Good | Status::ConditionMet) => {
            let data = matches!(operation, Operation::Read | Operation::Write { .. });
            // Done, says the target, but not with all of it.
            let short = data && residual != Residual::None;
            (if short { Ruling::Again(1, FAILS) } else { Ruling::Done }, Act::Nothing)
        }
        Some(Status::Busy) => (Ruling::Busy, Act::Nothing),
        Some(Status::TaskSetFull) => (Ruling::Busy, Act::Narrow),
        Some(Status::ReservationConflict) => (Ruling::Device(IoError::Conflict), Act::Nothing),
        Some(Status::TaskAborted) | None => (Ruling::Again(1, FAILS), Act::Nothing),
        Some(Status::CheckCondition) => check_condition(operation, sense),
    }
}

fn check_condition(operation: Operation, bytes: &[u8]) -> (Ruling, Act) {
    let Some(sense) = Sense::parse(bytes) else {
        return (Ruling::Again(1, FAILS), Act::Nothing);
    };
    if matches!(bytes.first().map(|code| code & 0x7f), Some(0x71 | 0x73)) {
        // SPC-4 4.5.6: about an earlier command that was acknowledged; this one was not performed.
        return match operation {
            Operation::Flush => (Ruling::Device(IoError::Io), Act::Nothing),
            _ => (Ruling::Again(1, FAILS), Act::LostWrite),
        };
    }
    let condition = sense.condition;
    let within = |(low, high): (u8, u8), code: u8| low <= code && code <= high;
    let row = TABLE.iter().find(|row| {
        row.key == condition.key
            && within(row.asc, condition.asc)
            && within(row.ascq, condition.ascq)
    });
    let (ruling, act) = row.map_or((TARGET, Act::Nothing), |row| (row.ruling, row.act));
    let optional = !matches!(operation, Operation::Read | Operation::Write { .. });
    let unknown =
        condition.key == Key::IllegalRequest && matches!(condition.asc, 0x20 | 0x24 | 0x26);
    if optional && unknown {
        return (Ruling::Device(IoError::Unsupported), Act::Nothing);
    }
    (ruling, act)
}

/// The same key, code and qualifier in words that people can look up.
pub(super) fn words(status: u8, sense: &[u8]) -> String {
    match Sense::parse(sense) {
        Some(sense) if status == Status::CheckCondition.code() => {
            let c = sense.condition;
            format!("{:?}, {:02x}h/{:02x}h", c.key, c.asc, c.ascq)
        }
        _ => Status::from_code(status)
            .map_or_else(|| format!("status {status:02x}h"), |status| format!("{status:?}")),
    }
}

#[cfg(test)]
mod tests;
