//! From CDB to plan.

use corbel_proto::scsi::opcode::{Class, Opcode};
use corbel_proto::scsi::{Command, Condition, Sense, Status, cdb};

use super::access;
use super::commands::{
    capacity, copy, defects, format, inquiry, lba_status, log, mode, opcodes, port_groups,
    report_luns, request_sense, reserve, rw, sanitize, start_stop, sync, task_management, token,
    unmap, write_same,
};
use super::plan::ParameterKind;
use super::{Action, Kept, LogicalUnit, MissingLun, Nexus, ParameterCommand, Plan, Reply, View};

impl Nexus {
    /// Plans the command in `cdb` (6 to 16 bytes, more are ignored).
    pub fn begin(&mut self, view: &View<'_>, cdb: &[u8]) -> Plan {
        if self.lu.volume.is_gone() {
            return MissingLun::begin(view, cdb);
        }
        self.refresh(view);
        let op = Opcode::find(cdb);
        // It goes before any other status, and leaves attentions to be told later (SAM-5 5.3.3).
        if op.is_some_and(|op| !self.may(access::needed(op, cdb))) {
            return Plan::respond(Reply::status(Status::ReservationConflict));
        }
        match self.plan(view, op, cdb) {
            Ok(plan) => plan,
            Err(sense) => self.refuse(sense),
        }
    }

    /// Plans the command in `cdb`, with which the initiator announced `announced` bytes of data.
    pub fn begin_with(&mut self, view: &View<'_>, cdb: &[u8], announced: u64) -> Plan {
        let mut plan = self.begin(view, cdb);
        if let Err(sense) = format::measure(&self.lu, &mut plan, announced) {
            return self.refuse(sense);
        }
        let refused = matches!(&plan.action, Action::Respond(reply) if reply.sense.is_some());
        match rw::misfit(cdb, plan.data_out, announced) {
            Some(sense) if !refused => self.refuse(sense),
            _ => plan,
        }
    }

    /// Continues `command` with its parameter list. Never asks for another.
    pub fn resume(&mut self, view: &View<'_>, command: ParameterCommand, list: &[u8]) -> Plan {
        if self.lu.volume.is_gone() {
            return MissingLun::refuse();
        }
        self.refresh(view);
        let plan = match command.0 {
            ParameterKind::Unmap => unmap::resume(&self.lu, list),
            ParameterKind::ModeSelect { ten, save } => mode::resume(self, (ten, save), list),
            ParameterKind::SetPortGroups => port_groups::resume(self, view, list),
            ParameterKind::ExtendedCopy => copy::resume(list),
            ParameterKind::Sanitize { immediate, unrestricted } => {
                sanitize::resume(&self.lu, (immediate, unrestricted), list)
            }
            ParameterKind::Token { list_id, writes } => {
                token::resume(self, (list_id, writes), list)
            }
            ParameterKind::Format { long } => format::resume(&self.lu, long, list),
            ParameterKind::ReserveOut { action, scope_type } => {
                reserve::resume(self, view, (action, scope_type), list)
            }
        };
        plan.unwrap_or_else(|sense| self.refuse(sense))
    }

    fn refuse(&self, sense: Sense) -> Plan {
        Plan::respond(Reply::check(sense, self.lu.descriptor_sense()))
    }

    fn plan(&mut self, view: &View<'_>, op: Option<&Opcode>, cdb: &[u8]) -> Result<Plan, Sense> {
        let identify = op.is_some_and(|op| op.class == Class::Identify);
        if !identify && let Some(attention) = self.take_attention() {
            return Err(attention);
        }
        if let Some(refused) = op.and_then(|op| port_groups::refusal(self.access, op)) {
            return Err(refused.into());
        }
        let (command, class) = cdb::parse(cdb)?;
        if let Some(unsupported) = op.and_then(|op| opcodes::refusal(&self.lu, op)) {
            return Err(unsupported);
        }
        self.lu.admit(class)?;
        self.dispatch(view, command)
    }

    /// One line a command; each family is a file.
    fn dispatch(&mut self, view: &View<'_>, command: Command) -> Result<Plan, Sense> {
        let flush = matches!(command, Command::SynchronizeCache { .. });
        let lost = flush && self.writes_were_lost();
        let lu = &self.lu;
        match command {
            Command::Read { extent, fua: _ } => rw::read(lu, extent),
            Command::Write { extent, fua } => rw::write(lu, extent, fua),
            Command::OrWrite { extent, fua } => rw::or_write(lu, extent, fua),
            Command::CompareAndWrite { extent, fua } => rw::compare_and_write(lu, extent, fua),
            Command::Verify { extent, check } => rw::verify(lu, extent, check),
            Command::WriteAndVerify { extent, check } => rw::write_and_verify(lu, extent, check),
            Command::WriteAtomic { extent, fua, boundary } => {
                rw::write_atomic(lu, extent, fua, boundary)
            }
            Command::GetLbaStatus { lba, allocation } => lba_status::plan(lu, lba, allocation),
            Command::ReadDefects(command) => Ok(defects::plan(&command)),
            Command::PreFetch { extent } => sync::pre_fetch(lu, extent),
            Command::SynchronizeCache { .. } if lost => Err(Condition::WRITE_ERROR.into()),
            Command::SynchronizeCache { extent, immediate } => sync::plan(lu, extent, immediate),
            Command::WriteSame(command) => write_same::plan(lu, &command),
            Command::Unmap { anchor, len } => unmap::plan(anchor, len),
            Command::TestUnitReady => Ok(Plan::good()),
            Command::RequestSense { descriptor, allocation } => {
                Ok(request_sense::plan(self, descriptor, allocation))
            }
            Command::Inquiry { page, allocation } => inquiry::plan(lu, view, page, allocation),
            Command::ReportLuns { select, allocation } => {
                let plan = report_luns::plan(view, select, allocation)?;
                self.forget(super::Attention::LunsChanged);
                Ok(plan)
            }
            Command::ReportOpcodes(command) => opcodes::plan(lu, &command),
            Command::ReportTaskManagement { extended, allocation } => {
                Ok(task_management::plan(extended, allocation))
            }
            Command::ReportPortGroups { extended, allocation } => {
                Ok(port_groups::report(lu, view, extended, allocation))
            }
            Command::SetPortGroups { len } => port_groups::set(len),
            Command::LogSense(command) => log::plan(lu, &command),
            Command::ReadCapacity10 => Ok(capacity::plan10(lu)),
            Command::ReadCapacity16 { allocation } => Ok(capacity::plan16(lu, allocation)),
            Command::ReserveIn { action, allocation } => Ok(reserve::read(lu, action, allocation)),
            Command::ReserveOut(command) => reserve::plan(&command),
            Command::LegacyReserve(command) => reserve::legacy(self, &command),
            Command::ModeSense(command) => mode::sense(lu, &command),
            Command::ModeSelect(command) => mode::select(self, &command),
            Command::ExtendedCopy { len } => copy::plan(len),
            Command::ReceiveCopyResults { list_id, allocation } => {
                copy::results(self, list_id, allocation)
            }
            Command::Token { list_id, writes, len } => token::plan(list_id, writes, len),
            Command::ReceiveTokenInformation { list_id, allocation } => {
                token::information(self, list_id, allocation)
            }
            Command::Sanitize(command) => sanitize::plan(lu, &command),
            Command::FormatUnit(command) => format::plan(lu, &command),
            Command::StartStop(command) => start_stop::plan(self, &command),
            Command::PreventAllow { prevent } => start_stop::prevent_allow(self, prevent),
        }
    }
}

impl LogicalUnit {
    /// The state file of [`Action::Keep`] is stable, or could not be written.
    pub fn kept(&self, then: Kept, ok: bool) -> Plan {
        match then {
            Kept::Reservations => self.reservations_kept(ok),
            Kept::PortGroups => self.access_kept(ok),
            Kept::ModePages => self.mode_kept(ok),
            Kept::SanitizeBegun { media, before } => self.sanitize_begun(media, before, ok),
            Kept::SanitizeEnded { done, reply } => self.sanitize_ended(done, reply, ok),
        }
    }

    /// Whether the medium lets a command of `class` run.
    fn admit(&self, class: Class) -> Result<(), Sense> {
        match (class, sanitize::refusal(self)) {
            (Class::Identify, _) => return Ok(()),
            (Class::Erase, Some(sense)) if sense.progress.is_none() => {}
            (_, Some(sense)) => return Err(sense),
            (Class::Inspect | Class::Configure | Class::Reserve, None) => return Ok(()),
            _ => {}
        }
        if let Some(sense) = self.unready() {
            return Err(sense);
        }
        match self.protection() {
            Some(condition) if matches!(class, Class::Write | Class::Erase) => {
                Err(condition.into())
            }
            _ => Ok(()),
        }
    }
}
