//! One file for each family of commands.

pub(super) mod capacity;
pub(super) mod copy;
pub(super) mod defects;
pub(super) mod format;
pub(super) mod inquiry;
pub(super) mod lba_status;
pub(super) mod log;
pub(super) mod mode;
pub(super) mod opcodes;
pub(super) mod port_groups;
pub(super) mod provisioning;
pub(super) mod report_luns;
pub(super) mod request_sense;
pub(super) mod reserve;
pub(super) mod rw;
pub(super) mod sanitize;
pub(super) mod start_stop;
pub(super) mod sync;
pub(super) mod task_management;
pub(super) mod token;
pub(super) mod unmap;
pub(super) mod write_same;
