//! Task Management Function Request and Response (RFC 7143 11.5, 11.6).

use super::Numbers;
use crate::iscsi::bhs::{Bhs, FINAL, Lun, Opcode};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// One task of this nexus.
    AbortTask,
    /// All tasks of this nexus on the logical unit.
    AbortTaskSet,
    /// Leave auto contingent allegiance.
    ClearAca,
    /// All tasks of every nexus on the logical unit.
    ClearTaskSet,
    /// Reset the logical unit.
    LogicalUnitReset,
    /// Reset all logical units of the target.
    TargetWarmReset,
    /// The same, and end all its sessions.
    TargetColdReset,
    /// Move a task to this connection.
    TaskReassign,
    /// A number RFC 7143 does not define.
    Unknown(u8),
}

impl Function {
    const fn new(number: u8) -> Self {
        match number {
            1 => Self::AbortTask,
            2 => Self::AbortTaskSet,
            3 => Self::ClearAca,
            4 => Self::ClearTaskSet,
            5 => Self::LogicalUnitReset,
            6 => Self::TargetWarmReset,
            7 => Self::TargetColdReset,
            8 => Self::TaskReassign,
            other => Self::Unknown(other),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::AbortTask => 1,
            Self::AbortTaskSet => 2,
            Self::ClearAca => 3,
            Self::ClearTaskSet => 4,
            Self::LogicalUnitReset => 5,
            Self::TargetWarmReset => 6,
            Self::TargetColdReset => 7,
            Self::TaskReassign => 8,
            Self::Unknown(number) => number & 0x7f,
        }
    }
}

/// Task Management Function Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRequest {
    /// The I bit.
    pub immediate: bool,
    /// What is asked for.
    pub function: Function,
    /// Logical unit, for the functions that have one.
    pub lun: Lun,
    /// Initiator Task Tag of the request.
    pub itt: u32,
    /// Initiator Task Tag of the task to abort or reassign; all ones otherwise.
    pub referenced: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// CmdSN of the task to abort.
    pub ref_cmd_sn: u32,
    /// For reassignment only.
    pub exp_data_sn: u32,
}

impl TaskRequest {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self {
            immediate: bhs.immediate(),
            function: Function::new(bhs.flags() & 0x7f),
            lun: bhs.lun(),
            itt: bhs.itt(),
            referenced: bhs.u32_at(20),
            cmd_sn: bhs.u32_at(24),
            exp_stat_sn: bhs.u32_at(28),
            ref_cmd_sn: bhs.u32_at(32),
            exp_data_sn: bhs.u32_at(36),
        }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        Bhs::new(Opcode::TaskRequest, FINAL | self.function.number())
            .with_immediate(self.immediate)
            .put(8, self.lun.0.to_be_bytes())
            .put_u32(16, self.itt)
            .put_u32(20, self.referenced)
            .put_u32(24, self.cmd_sn)
            .put_u32(28, self.exp_stat_sn)
            .put_u32(32, self.ref_cmd_sn)
            .put_u32(36, self.exp_data_sn)
    }
}

/// What came of a task management function (RFC 7143 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskOutcome {
    /// Done: no affected task has any effect any more.
    Complete = 0,
    /// There is no such task.
    NoSuchTask = 1,
    /// There is no such logical unit.
    NoSuchLun = 2,
    /// The task is still bound to its connection.
    StillAllegiant = 3,
    /// Reassignment is not supported.
    ReassignUnsupported = 4,
    /// The function is not supported.
    Unsupported = 5,
    /// The initiator may not ask for this.
    NotAuthorized = 6,
    /// Refused.
    Rejected = 255,
}

impl TaskOutcome {
    /// The outcome of this number; reserved ones read as refused.
    pub const fn new(number: u8) -> Self {
        match number {
            0 => Self::Complete,
            1 => Self::NoSuchTask,
            2 => Self::NoSuchLun,
            3 => Self::StillAllegiant,
            4 => Self::ReassignUnsupported,
            5 => Self::Unsupported,
            6 => Self::NotAuthorized,
            _ => Self::Rejected,
        }
    }
}

/// Task Management Function Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskResponse {
    /// What came of it.
    pub outcome: TaskOutcome,
    /// Initiator Task Tag of the request.
    pub itt: u32,
    /// Counters.
    pub numbers: Numbers,
}

impl TaskResponse {
    /// Reads the header.
    pub fn parse(bhs: &Bhs) -> Self {
        Self { outcome: TaskOutcome::new(bhs.0[2]), itt: bhs.itt(), numbers: Numbers::parse(bhs) }
    }

    /// Writes the header.
    pub fn emit(&self) -> Bhs {
        let bhs = Bhs::new(Opcode::TaskResponse, FINAL)
            .put(2, [self.outcome as u8])
            .put_u32(16, self.itt);
        self.numbers.emit(bhs)
    }
}
