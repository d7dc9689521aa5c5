//! REPORT TARGET PORT GROUPS (SPC-4 6.37).

use corbel_proto::scsi::alua;

use crate::scsi::{Plan, View};

/// Each portal group is a target port and a group of its own; all lead to the unit equally well.
pub(in crate::scsi) fn plan(view: &View<'_>, extended: bool, allocation: u32) -> Plan {
    let groups: Vec<_> = view.ports.iter().map(|&port| (port, vec![port])).collect();
    Plan::data(alua::emit_optimized(&groups, extended), allocation)
}
