//! What an answer that is not good news means for a try. One table; each row has a test.

use corbel_proto::aoe::header::Error;
use corbel_proto::aoe::initiator::Failure;
use corbel_proto::ata::Fault;
use corbel_proto::time::Duration;

use crate::path::{PathFault, Verdict};
use crate::request::{IoError, Operation};

/// How long a device that says it is busy is left alone.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What `failure` of a command means for a try of `operation`. Never a doubt: whether copies of the
/// command are still about is not known here.
pub(super) const fn verdict(operation: Operation, failure: Failure) -> Verdict {
    match failure {
        Failure::Device(fault) => device(operation, fault),
        Failure::Refused(error) => refused(error),
        Failure::TimedOut => Verdict::Elsewhere(PathFault::CommandTimeout),
    }
}

/// ATA status and error registers. All but two are the disk's own word, the same on every path.
const fn device(operation: Operation, fault: Fault) -> Verdict {
    match (fault, operation) {
        (Fault::Aborted, Operation::Read | Operation::Write { .. }) => {
            Verdict::Device(IoError::Target)
        }
        (Fault::Aborted, _) => Verdict::Device(IoError::Unsupported),
        (Fault::IdNotFound, _) => Verdict::Device(IoError::Invalid),
        // The two bits of write protection mean a bad sector when read.
        (Fault::Uncorrectable, _) | (Fault::WriteProtected, Operation::Read) => {
            Verdict::Device(IoError::Medium)
        }
        (Fault::WriteProtected, _) => Verdict::Device(IoError::ReadOnly),
        (Fault::DeviceFault | Fault::NoMedium, _) => Verdict::Device(IoError::Io),
        // The server's cable to its disk; another server may have a better one.
        (Fault::Transfer, _) => Verdict::Elsewhere(PathFault::CommandsFail),
        (Fault::Busy, _) => Verdict::Later(BUSY_PAUSE),
    }
}

/// AoE errors (AoEr11 2.4): the server's word, not the disk's.
const fn refused(error: Error) -> Verdict {
    match error {
        Error::UnrecognizedCommand | Error::BadArgument | Error::UnsupportedVersion => {
            Verdict::Elsewhere(PathFault::Protocol)
        }
        Error::DeviceUnavailable => Verdict::Elsewhere(PathFault::NoDevice),
        Error::ConfigStringPresent | Error::TargetReserved => Verdict::Device(IoError::Conflict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corbel_proto::ata::Registers;

    const WRITE: Operation = Operation::Write { fua: false };

    fn ata(operation: Operation, status: u8, error: u8) -> Verdict {
        let registers =
            Registers { feature_error: error, command_status: status, ..Registers::default() };
        let fault = Fault::from_registers(&registers).expect("an error");
        verdict(operation, Failure::Device(fault))
    }

    fn aoe(number: u8) -> Verdict {
        verdict(WRITE, Failure::Refused(Error::from_wire(number).unwrap()))
    }

    #[test]
    fn abrt_of_a_read_or_write_is_the_devices_refusal() {
        assert_eq!(ata(WRITE, 0x41, 0x04), Verdict::Device(IoError::Target));
        assert_eq!(ata(Operation::Read, 0x51, 0x04), Verdict::Device(IoError::Target));
    }

    #[test]
    fn abrt_of_discard_or_flush_is_unsupported() {
        assert_eq!(ata(Operation::Discard, 0x41, 0x04), Verdict::Device(IoError::Unsupported));
        assert_eq!(ata(Operation::Flush, 0x41, 0x04), Verdict::Device(IoError::Unsupported));
    }

    #[test]
    fn idnf_is_outside_the_device() {
        assert_eq!(ata(WRITE, 0x41, 0x10), Verdict::Device(IoError::Invalid));
        assert_eq!(ata(WRITE, 0x41, 0x14), Verdict::Device(IoError::Invalid));
    }

    #[test]
    fn unc_and_amnf_are_medium_errors() {
        assert_eq!(ata(Operation::Read, 0x41, 0x40), Verdict::Device(IoError::Medium));
        assert_eq!(ata(Operation::Read, 0x41, 0x44), Verdict::Device(IoError::Medium));
        assert_eq!(ata(WRITE, 0x41, 0x40), Verdict::Device(IoError::Medium));
        assert_eq!(ata(Operation::Read, 0x41, 0x01), Verdict::Device(IoError::Medium));
    }

    #[test]
    fn wp_of_a_write_is_read_only() {
        assert_eq!(ata(WRITE, 0x41, 0x44), Verdict::Device(IoError::ReadOnly));
        assert_eq!(ata(Operation::Discard, 0x41, 0x44), Verdict::Device(IoError::ReadOnly));
    }

    #[test]
    fn icrc_is_the_paths_fault() {
        let elsewhere = Verdict::Elsewhere(PathFault::CommandsFail);
        assert_eq!(ata(WRITE, 0x51, 0x84), elsewhere);
        assert_eq!(ata(Operation::Read, 0x51, 0x84), elsewhere);
    }

    #[test]
    fn df_and_no_medium_are_errors_everywhere() {
        assert_eq!(ata(WRITE, 0x60, 0), Verdict::Device(IoError::Io));
        assert_eq!(ata(WRITE, 0x61, 0x04), Verdict::Device(IoError::Io));
        assert_eq!(ata(WRITE, 0x41, 0x02), Verdict::Device(IoError::Io));
    }

    #[test]
    fn bsy_is_not_now() {
        assert_eq!(ata(WRITE, 0x80, 0), Verdict::Later(BUSY_PAUSE));
    }

    #[test]
    fn aoe_errors_1_2_and_5_are_the_servers_way_of_speaking() {
        for number in [1, 2, 5] {
            assert_eq!(aoe(number), Verdict::Elsewhere(PathFault::Protocol), "{number}");
        }
    }

    #[test]
    fn aoe_error_3_is_no_device_here() {
        assert_eq!(aoe(3), Verdict::Elsewhere(PathFault::NoDevice));
    }

    #[test]
    fn aoe_errors_4_and_6_are_conflicts_everywhere() {
        for number in [4, 6] {
            assert_eq!(aoe(number), Verdict::Device(IoError::Conflict), "{number}");
        }
    }

    #[test]
    fn no_answer_is_the_paths_fault() {
        let timed_out = verdict(WRITE, Failure::TimedOut);
        assert_eq!(timed_out, Verdict::Elsewhere(PathFault::CommandTimeout));
    }
}
