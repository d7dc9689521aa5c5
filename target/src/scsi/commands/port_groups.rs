//! REPORT TARGET PORT GROUPS and SET TARGET PORT GROUPS (SPC-4 6.37, 6.44).

use corbel_proto::scsi::alua::{self, AccessState, Report};
use corbel_proto::scsi::opcode::{Class, Opcode};
use corbel_proto::scsi::{Condition, Sense, Status};

use crate::scsi::plan::{Action, ParameterKind};
use crate::scsi::port_groups::Change;
use crate::scsi::{Kept, LogicalUnit, Nexus, Plan, Reply, View};

/// Longer lists than any that names each of our groups once.
const LIST_BYTES_MAX: u32 = 16 << 10;

const MODE_SELECT: [u8; 2] = [0x15, 0x55];
const MODE_SENSE: [u8; 2] = [0x1a, 0x5a];
const PERSISTENT_RESERVE: [u8; 2] = [0x5e, 0x5f];
const READ_CAPACITY: [u8; 2] = [0x25, 0x9e];
const REPORT_GROUPS: (u8, Option<u8>) = (0xa3, Some(0x0a));
const SET_GROUPS: u8 = 0xa4;

/// Why a command is refused at a port in this state (SPC-4 5.15.2.4), if it is.
///
/// Beyond what the standard asks for, a port in standby tells which commands there are, and one in
/// any state the capacity and the mode pages. A host that finds the unit here first can then make a
/// disk of it. One that looks again, as Linux does after a connection was lost, does not take it
/// for empty, or for a disk without a write cache, which it would not flush any more.
pub(in crate::scsi) fn refusal(state: AccessState, op: &Opcode) -> Option<Condition> {
    let report = (op.code, op.service_action) == REPORT_GROUPS;
    let set = op.code == SET_GROUPS;
    let capacity = READ_CAPACITY.contains(&op.code) && op.class == Class::Medium;
    let found = op.class == Class::Identify || capacity || MODE_SENSE.contains(&op.code);
    match state {
        AccessState::Optimized | AccessState::NonOptimized | AccessState::BlockDependent => None,
        AccessState::Standby => {
            let listed = MODE_SELECT.contains(&op.code) || PERSISTENT_RESERVE.contains(&op.code);
            let runs = found || listed || set || op.class == Class::Inspect;
            (!runs).then_some(Condition::TARGET_PORT_IN_STANDBY_STATE)
        }
        AccessState::Unavailable | AccessState::Offline => {
            let runs = found || report || set;
            (!runs).then_some(Condition::TARGET_PORT_IN_UNAVAILABLE_STATE)
        }
        AccessState::Transitioning => {
            let runs = found || report;
            (!runs).then_some(Condition::ASYMMETRIC_ACCESS_STATE_TRANSITION)
        }
    }
}

/// Why the unit is not ready at a port in this state, for REQUEST SENSE.
pub(in crate::scsi) fn unready(state: AccessState) -> Option<Sense> {
    let test_unit_ready = Opcode::find(&[0; 6])?;
    refusal(state, test_unit_ready).map(Sense::from)
}

/// Each portal group is a target port and a group of its own.
pub(in crate::scsi) fn report(
    lu: &LogicalUnit,
    view: &View<'_>,
    extended: bool,
    allocation: u32,
) -> Plan {
    let reports: Vec<_> = view
        .ports
        .iter()
        .map(|port| {
            let (group, cause) = lu.port_groups.of(*port);
            Report { group, cause, ports: std::slice::from_ref(port) }
        })
        .collect();
    Plan::data(alua::emit(&reports, extended), allocation)
}

/// SET TARGET PORT GROUPS: its list is needed first. No list, no change.
pub(in crate::scsi) fn set(len: u32) -> Result<Plan, Sense> {
    match u16::try_from(len) {
        Ok(0) => Ok(Plan::good()),
        Ok(len) if u32::from(len) <= LIST_BYTES_MAX && len >= 4 => {
            Ok(Plan::parameters(ParameterKind::SetPortGroups, len))
        }
        _ => Err(Condition::PARAMETER_LIST_LENGTH_ERROR.into()),
    }
}

/// Other initiators are told by a unit attention.
pub(in crate::scsi) fn resume(nexus: &Nexus, view: &View<'_>, list: &[u8]) -> Result<Plan, Sense> {
    let orders = alua::parse_set(list)?;
    for (index, (group, _)) in orders.iter().enumerate() {
        let twice = orders[..index].iter().any(|(earlier, _)| earlier == group);
        if twice || !view.ports.contains(group) {
            let at = u16::try_from(6 + 4 * index).unwrap_or(u16::MAX);
            return Err(Sense::invalid_parameter(at, None));
        }
    }
    Ok(match nexus.lu.port_groups.propose(&orders, Some(&nexus.name)) {
        Change::Nothing => Plan::good(),
        Change::Busy => Plan::respond(Reply::status(Status::Busy)),
        Change::Persist(bytes) => {
            let (file, then) = (nexus.lu.access_name(), Kept::PortGroups);
            Plan::action(Action::Keep { file, bytes, then })
        }
    })
}

impl LogicalUnit {
    /// The state file is stable, or could not be written, and then all is as it was.
    pub(in crate::scsi) fn access_kept(&self, ok: bool) -> Plan {
        self.port_groups.settle(ok);
        if ok {
            return Plan::good();
        }
        let failed = Condition::SET_TARGET_PORT_GROUPS_COMMAND_FAILED.into();
        Plan::respond(Reply::check(failed, self.descriptor_sense()))
    }
}
