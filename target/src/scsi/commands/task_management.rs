//! REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 6.36).

use crate::scsi::Plan;

/// ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET.
const FUNCTIONS: u8 = 0x80 | 0x40 | 0x10 | 0x08;

pub(in crate::scsi) fn plan(extended: bool, allocation: u32) -> Plan {
    let mut data = vec![FUNCTIONS, 0, 0, 0];
    if extended {
        data[3] = 12; // how much follows: no timeouts are told
        data.resize(16, 0);
    }
    Plan::data(data, allocation)
}
