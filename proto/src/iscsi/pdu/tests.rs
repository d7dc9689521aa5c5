//! Every PDU: bytes by hand, read, and written back the same.

use super::asynchronous::{Async, AsyncEvent};
use super::data::{DataIn, DataOut};
use super::logout::{LogoutRequest, LogoutResponse, Reason};
use super::nop::{NopIn, NopOut};
use super::r2t::R2t;
use super::reject::{Reject, RejectReason};
use super::scsi::{Attribute, ScsiCommand, ScsiResponse};
use super::snack::Snack;
use super::task::{Function, TaskOutcome, TaskRequest, TaskResponse};
use super::{Numbers, Residual};
use crate::iscsi::bhs::{Bhs, Lun};

const NUMBERS: Numbers =
    Numbers { stat_sn: 0x1819_1a1b, exp_cmd_sn: 0x1c1d_1e1f, max_cmd_sn: 0x2021_2223 };

/// A header of the given first four bytes whose other bytes each hold their own position.
fn header(first: [u8; 4]) -> Bhs {
    let mut bytes = [0; 48];
    for (position, byte) in (0..).zip(bytes.iter_mut()) {
        *byte = position;
    }
    bytes[..4].copy_from_slice(&first);
    bytes[4..8].fill(0);
    Bhs(bytes)
}

/// `bhs` with the given positions zeroed: the reserved ones.
fn without(mut bhs: Bhs, reserved: &[(usize, usize)]) -> Bhs {
    for &(first, end) in reserved {
        bhs.0[first..end].fill(0);
    }
    bhs
}

#[test]
fn scsi_command() {
    let wire = header([0x41, 0xa2, 0, 0]);
    let command = ScsiCommand::parse(&wire).unwrap();
    assert!(command.immediate && command.is_final && command.write && !command.read);
    assert_eq!(command.attribute, Attribute::Ordered);
    assert_eq!(command.lun, Lun(0x0809_0a0b_0c0d_0e0f));
    assert_eq!((command.itt, command.edtl), (0x1011_1213, 0x1415_1617));
    assert_eq!((command.cmd_sn, command.exp_stat_sn), (0x1819_1a1b, 0x1c1d_1e1f));
    assert_eq!(command.cdb[..2], [0x20, 0x21]);
    assert_eq!(command.emit(), wire);
}

#[test]
fn scsi_command_with_a_reserved_attribute_is_malformed() {
    assert!(ScsiCommand::parse(&header([0x01, 0x87, 0, 0])).is_err());
}

#[test]
fn scsi_response_with_both_residuals() {
    let wire = without(header([0x21, 0x80 | 0x08 | 0x04, 0, 2]), &[(8, 16)]);
    let response = ScsiResponse::parse(&wire).unwrap();
    assert_eq!(response.residual, Residual::Overflow(0x2c2d_2e2f));
    assert_eq!(response.bidirectional_residual, Residual::Underflow(0x2829_2a2b));
    assert_eq!((response.status, response.numbers), (2, NUMBERS));
    assert_eq!(response.emit(), wire);
}

#[test]
fn overflow_and_underflow_at_once_are_malformed() {
    assert!(ScsiResponse::parse(&header([0x21, 0x86, 0, 0])).is_err());
    assert!(DataIn::parse(&header([0x25, 0x87, 0, 0])).is_err());
}

#[test]
fn data_out() {
    let wire = without(header([0x05, 0x80, 0, 0]), &[(24, 28), (32, 36), (44, 48)]);
    let data = DataOut::parse(&wire);
    assert_eq!((data.ttt, data.data_sn, data.offset), (0x1415_1617, 0x2425_2627, 0x2829_2a2b));
    assert_eq!(data.emit(), wire);
}

#[test]
fn data_in_with_status() {
    let wire = header([0x25, 0x80 | 0x02 | 0x01, 0, 8]);
    let data = DataIn::parse(&wire).unwrap();
    assert_eq!(data.status, Some(8));
    assert_eq!(data.residual, Residual::Underflow(0x2c2d_2e2f));
    assert_eq!((data.data_sn, data.offset), (0x2425_2627, 0x2829_2a2b));
    assert_eq!(data.emit(), wire);
}

#[test]
fn r2t() {
    let wire = header([0x31, 0x80, 0, 0]);
    let r2t = R2t::parse(&wire);
    assert_eq!((r2t.r2t_sn, r2t.offset, r2t.bytes), (0x2425_2627, 0x2829_2a2b, 0x2c2d_2e2f));
    assert_eq!(r2t.emit(), wire);
}

#[test]
fn pings_both_ways() {
    let out = without(header([0x40, 0x80, 0, 0]), &[(32, 48)]);
    assert!(NopOut::parse(&out).immediate);
    assert_eq!(NopOut::parse(&out).emit(), out);
    let back = without(header([0x20, 0x80, 0, 0]), &[(36, 48)]);
    assert_eq!(NopIn::parse(&back).numbers, NUMBERS);
    assert_eq!(NopIn::parse(&back).emit(), back);
}

#[test]
fn task_management() {
    let request = without(header([0x42, 0x81, 0, 0]), &[(40, 48)]);
    let parsed = TaskRequest::parse(&request);
    assert_eq!((parsed.function, parsed.referenced), (Function::AbortTask, 0x1415_1617));
    assert_eq!(parsed.ref_cmd_sn, 0x2021_2223);
    assert_eq!(parsed.emit(), request);
    let unknown = without(header([0x02, 0x80 | 0x55, 0, 0]), &[(40, 48)]);
    assert_eq!(TaskRequest::parse(&unknown).function, Function::Unknown(0x55));
    assert_eq!(TaskRequest::parse(&unknown).emit(), unknown);
    let response = without(header([0x22, 0x80, 5, 0]), &[(8, 16), (20, 24), (36, 48)]);
    assert_eq!(TaskResponse::parse(&response).outcome, TaskOutcome::Unsupported);
    assert_eq!(TaskResponse::parse(&response).emit(), response);
}

#[test]
fn logout() {
    let request = without(header([0x46, 0x81, 0, 0]), &[(8, 16), (22, 24), (32, 48)]);
    let parsed = LogoutRequest::parse(&request).unwrap();
    assert_eq!((parsed.reason, parsed.cid), (Reason::CloseConnection, 0x1415));
    assert_eq!(parsed.emit(), request);
    assert!(LogoutRequest::parse(&header([0x46, 0x83, 0, 0])).is_err());
    let response = without(header([0x26, 0x80, 1, 0]), &[(8, 16), (20, 24), (36, 40), (44, 48)]);
    let parsed = LogoutResponse::parse(&response);
    assert_eq!((parsed.time_to_wait, parsed.time_to_retain), (0x2829, 0x2a2b));
    assert_eq!(parsed.emit(), response);
}

#[test]
fn snack() {
    let wire = without(header([0x10, 0x81, 0, 0]), &[(24, 28), (32, 40)]);
    assert_eq!(Snack::parse(&wire).kind, 1);
    assert_eq!(Snack::parse(&wire).emit(), wire);
}

#[test]
fn reject() {
    let mut wire = without(header([0x3f, 0x80, 9, 0]), &[(8, 16), (20, 24), (40, 48)]);
    wire.0[16..20].fill(0xff);
    assert_eq!(Reject::parse(&wire).reason, Some(RejectReason::InvalidPduField));
    assert_eq!(Reject::parse(&wire).emit(), wire);
}

#[test]
fn asynchronous_message() {
    let mut wire = without(header([0x32, 0x80, 0, 0]), &[(20, 24), (37, 38), (44, 48)]);
    wire.0[16..20].fill(0xff);
    wire.0[36] = 2;
    let event = AsyncEvent::DropConnection {
        cid: 0x2627,
        time_to_wait_s: 0x2829,
        time_to_retain_s: 0x2a2b,
    };
    assert_eq!(Async::parse(&wire).event, event);
    assert_eq!(Async::parse(&wire).emit(), wire);
}

#[test]
fn residual_is_what_the_command_wants_against_what_was_announced() {
    assert_eq!(Residual::between(512, 512), Residual::None);
    assert_eq!(Residual::between(512, 1024), Residual::Overflow(512));
    assert_eq!(Residual::between(1024, 512), Residual::Underflow(512));
    assert_eq!(Residual::between(0, u64::MAX), Residual::Overflow(u32::MAX));
}
