//! What each PDU from the target means.

use super::super::bhs::{Bhs, Lun, Opcode, TAG_NONE};
use super::super::framer::Step;
use super::super::pdu::asynchronous::Async;
use super::super::pdu::data::DataIn;
use super::super::pdu::logout::LogoutResponse;
use super::super::pdu::nop::{NopIn, NopOut};
use super::super::pdu::r2t::R2t;
use super::super::pdu::reject::Reject;
use super::super::pdu::scsi::{RESPONSE_COMPLETED, ScsiResponse};
use super::super::pdu::task::{Function, TaskOutcome, TaskResponse};
use super::super::pdu::text::TextResponse;
use super::super::pdu::{Numbers, Residual};
use super::super::sequence::before;
use super::super::text::TEXT_BYTES_MAX;
use super::{Answer, Burst, Connection, Control, Event, Exchange, Failure, Fatal, Transfer};
use crate::error::Violation;
use crate::time::Instant;

const fn violation(what: &'static str, why: &'static str, section: &'static str) -> Fatal {
    Fatal::Violation(Violation::new(what, why, section))
}

impl<D: AsRef<[u8]> + AsMut<[u8]>> Connection<D> {
    /// Stream bytes came in, any number of them.
    ///
    /// # Errors
    /// If the connection cannot go on.
    pub fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) -> Result<(), Fatal> {
        self.heard = now;
        loop {
            let (taken, step) = self.framer.push(bytes)?;
            match step {
                Step::More => return Ok(()),
                Step::Header => self.header()?,
                Step::Data(part) => self.data(part),
                Step::End { digest_ok: true } => self.end(now)?,
                Step::End { digest_ok: false } => {
                    let why = "the digest is wrong, and nothing is recovered at level 0";
                    return Err(violation("data segment", why, "RFC 7143 7.8"));
                }
            }
            bytes = &bytes[taken..];
        }
    }

    /// A header is complete: decides where its data goes.
    fn header(&mut self) -> Result<(), Fatal> {
        let bhs = self.framer.bhs();
        self.gathered.clear();
        self.placing = None;
        if bhs.data_bytes() > self.agreed.segment_bytes_max {
            let why = "longer than we declared";
            return Err(violation("data segment", why, "RFC 7143 13.12"));
        }
        if bhs.opcode() == Some(Opcode::DataIn) {
            self.place(&bhs)?;
        }
        Ok(())
    }

    fn place(&mut self, bhs: &Bhs) -> Result<(), Fatal> {
        let pdu = DataIn::parse(bhs)?;
        let wrong = |why| violation("SCSI Data-In", why, "RFC 7143 11.7");
        let task = self.tasks.get_mut(pdu.itt).ok_or_else(|| wrong("no such task"))?;
        let Transfer::Read(buffer) = &task.command.transfer else {
            return Err(wrong("the task does not read"));
        };
        if pdu.data_sn != task.data_sn {
            return Err(wrong("DataSN out of order"));
        }
        task.data_sn = task.data_sn.wrapping_add(1);
        let end = u64::from(pdu.offset) + u64::from(bhs.data_bytes());
        if end > buffer.as_ref().len() as u64 {
            return Err(wrong("outside the expected length"));
        }
        let received = u64::from(task.received) + u64::from(bhs.data_bytes());
        task.received =
            u32::try_from(received).map_err(|_| wrong("more than the expected length"))?;
        self.placing = Some((pdu.itt, pdu.offset as usize));
        Ok(())
    }

    fn data(&mut self, part: &[u8]) {
        let Some((itt, at)) = &mut self.placing else {
            // Bounded: `header` has compared the segment with what we declared.
            self.gathered.extend_from_slice(part);
            return;
        };
        let task = self.tasks.get_mut(*itt).expect("tasks do not end within a PDU");
        let Transfer::Read(buffer) = &mut task.command.transfer else {
            unreachable!("`place` has looked");
        };
        buffer.as_mut()[*at..*at + part.len()].copy_from_slice(part);
        *at += part.len();
    }

    /// A PDU is complete.
    fn end(&mut self, now: Instant) -> Result<(), Fatal> {
        let bhs = self.framer.bhs();
        let opcode = bhs.opcode();
        let wrong = |why| violation("PDU", why, "RFC 7143 11.2.1.2");
        match opcode.ok_or_else(|| wrong("unknown opcode"))? {
            Opcode::DataIn => self.data_in(&bhs),
            Opcode::R2t => self.r2t(&R2t::parse(&bhs)),
            Opcode::ScsiResponse => self.response(&ScsiResponse::parse(&bhs)?),
            Opcode::NopIn => self.nop_in(now, &NopIn::parse(&bhs)),
            Opcode::TaskResponse => self.task_response(TaskResponse::parse(&bhs)),
            Opcode::TextResponse => self.text_response(&TextResponse::parse(&bhs.0)?),
            Opcode::LogoutResponse => self.logout_response(LogoutResponse::parse(&bhs)),
            Opcode::Async => self.asynchronous(Async::parse(&bhs)),
            Opcode::Reject => self.reject(&Reject::parse(&bhs)),
            Opcode::LoginResponse => Err(wrong("login is over")),
            _ => Err(wrong("only initiators send this")),
        }
    }

    /// Takes over the window; `consumes` says that the PDU carries a status number of its own.
    fn numbers(&mut self, numbers: Numbers, consumes: bool) -> Result<(), Fatal> {
        if consumes {
            if numbers.stat_sn != self.exp_stat_sn {
                let why = "a status number is missing or came twice";
                return Err(violation("StatSN", why, "RFC 7143 4.2.2.2"));
            }
            self.exp_stat_sn = self.exp_stat_sn.wrapping_add(1);
        }
        // RFC 7143 4.2.2.1: a window that ends before it begins is none; it never shrinks.
        let valid = !before(numbers.max_cmd_sn, numbers.exp_cmd_sn.wrapping_sub(1));
        if valid && before(self.max_cmd_sn, numbers.max_cmd_sn) {
            self.max_cmd_sn = numbers.max_cmd_sn;
        }
        Ok(())
    }

    fn data_in(&mut self, bhs: &Bhs) -> Result<(), Fatal> {
        let pdu = DataIn::parse(bhs)?;
        self.numbers(pdu.numbers, pdu.status.is_some())?;
        if let Some(status) = pdu.status {
            self.complete(pdu.itt, status, Vec::new(), pdu.residual);
        }
        Ok(())
    }

    fn complete(&mut self, itt: u32, status: u8, sense: Vec<u8>, residual: Residual) {
        let Some(task) = self.tasks.get(itt) else { return };
        let missing = match &task.command.transfer {
            Transfer::Read(buffer) if status == 0 => {
                let held_back = match residual {
                    Residual::Underflow(bytes) => bytes as usize,
                    Residual::None | Residual::Overflow(_) => 0,
                };
                (task.received as usize) < buffer.as_ref().len().saturating_sub(held_back)
            }
            _ => false,
        };
        let answer = Answer { status, sense, residual };
        self.finish(itt, if missing { Err(Failure::DataMissing) } else { Ok(answer) });
    }

    fn r2t(&mut self, pdu: &R2t) -> Result<(), Fatal> {
        self.numbers(pdu.numbers, false)?;
        let wrong = |why| violation("R2T", why, "RFC 7143 11.8");
        let task = self.tasks.get_mut(pdu.itt).ok_or_else(|| wrong("no such task"))?;
        let Transfer::Write(data) = &task.command.transfer else {
            return Err(wrong("the task does not write"));
        };
        let end = u64::from(pdu.offset) + u64::from(pdu.bytes);
        if pdu.bytes == 0 || end > data.as_ref().len() as u64 {
            return Err(wrong("outside the expected length"));
        }
        if pdu.bytes > self.agreed.burst_bytes_max {
            return Err(wrong("more than MaxBurstLength"));
        }
        if pdu.ttt == TAG_NONE {
            return Err(wrong("the target transfer tag is the reserved one"));
        }
        if pdu.r2t_sn != task.r2t_sn {
            return Err(wrong("R2TSN out of order"));
        }
        if task.r2t_open >= self.agreed.outstanding_r2t_max {
            return Err(wrong("more at a time than MaxOutstandingR2T"));
        }
        task.r2t_sn = task.r2t_sn.wrapping_add(1);
        if task.aborting {
            return Ok(());
        }
        task.r2t_open += 1;
        self.bursts.push_back(Burst {
            itt: pdu.itt,
            ttt: pdu.ttt,
            lun: pdu.lun,
            offset: pdu.offset,
            left: pdu.bytes,
            data_sn: 0,
        });
        Ok(())
    }

    fn response(&mut self, pdu: &ScsiResponse) -> Result<(), Fatal> {
        self.numbers(pdu.numbers, true)?;
        if !self.tasks.contains(pdu.itt) {
            return Err(violation("SCSI Response", "no such task", "RFC 7143 11.4"));
        }
        if pdu.response != RESPONSE_COMPLETED {
            self.finish(pdu.itt, Err(Failure::Target(pdu.response)));
            return Ok(());
        }
        // RFC 7143 11.4.7: a length, then the sense data.
        let sense = match &self.gathered[..] {
            [high, low, rest @ ..] => {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                rest[..len.min(rest.len())].to_vec()
            }
            _ => Vec::new(),
        };
        self.complete(pdu.itt, pdu.status, sense, pdu.residual);
        Ok(())
    }

    fn nop_in(&mut self, now: Instant, pdu: &NopIn) -> Result<(), Fatal> {
        self.numbers(pdu.numbers, pdu.itt != TAG_NONE)?;
        if pdu.itt != TAG_NONE {
            if let Some(Exchange::Ping { sent, keep_alive }) = self.exchanges.get(&pdu.itt).copied()
            {
                self.exchanges.remove(&pdu.itt);
                if !keep_alive {
                    self.events.push_back(Event::Pong(now.since(sent)));
                }
            }
            return Ok(());
        }
        if pdu.ttt != TAG_NONE {
            let (itt, ttt, lun) = (TAG_NONE, pdu.ttt, pdu.lun);
            let nop = NopOut { immediate: true, lun, itt, ttt, cmd_sn: 0, exp_stat_sn: 0 };
            // A target that pings without waiting must not make us queue without bound.
            if self.control.len() < 64 {
                self.control.push_back(Control::new(nop.emit(), Vec::new()));
            }
        }
        Ok(())
    }

    fn task_response(&mut self, pdu: TaskResponse) -> Result<(), Fatal> {
        self.numbers(pdu.numbers, true)?;
        let Some(Exchange::Manage { function, lun, referenced }) = self.exchanges.remove(&pdu.itt)
        else {
            let why = "nothing was asked for";
            return Err(violation("Task Management Response", why, "RFC 7143 11.6"));
        };
        let outcome = pdu.outcome;
        if function == Function::AbortTask
            && matches!(outcome, TaskOutcome::Complete | TaskOutcome::NoSuchTask)
        {
            self.finish(referenced, Err(Failure::Aborted(outcome)));
            return Ok(());
        }
        if outcome == TaskOutcome::Complete {
            self.end_tasks(function, lun);
        }
        self.events.push_back(Event::Managed(function, outcome));
        Ok(())
    }

    /// What a reset ended at the target ends here.
    fn end_tasks(&mut self, function: Function, lun: Lun) {
        let whole_target =
            matches!(function, Function::TargetWarmReset | Function::TargetColdReset);
        let concerned = self.tasks.iter().filter(|(_, t)| whole_target || t.command.lun == lun);
        for tag in concerned.map(|(tag, _)| tag).collect::<Vec<_>>() {
            self.finish(tag, Err(Failure::Aborted(TaskOutcome::Complete)));
        }
    }

    fn text_response(&mut self, pdu: &TextResponse) -> Result<(), Fatal> {
        let (stat_sn, exp_cmd_sn, max_cmd_sn) = (pdu.stat_sn, pdu.exp_cmd_sn, pdu.max_cmd_sn);
        self.numbers(Numbers { stat_sn, exp_cmd_sn, max_cmd_sn }, true)?;
        let wrong = |why| violation("Text Response", why, "RFC 7143 11.11");
        let Some(Exchange::Text) = self.exchanges.get(&pdu.task_tag) else {
            return Err(wrong("nothing was asked for"));
        };
        if self.text.len() + self.gathered.len() > TEXT_BYTES_MAX {
            return Err(wrong("more text than anybody needs"));
        }
        self.text.append(&mut self.gathered);
        if pdu.last {
            self.exchanges.remove(&pdu.task_tag);
            self.events.push_back(Event::Text(std::mem::take(&mut self.text)));
        } else {
            self.send_text(pdu.task_tag, pdu.transfer_tag, pdu.lun, Vec::new());
        }
        Ok(())
    }

    fn logout_response(&mut self, pdu: LogoutResponse) -> Result<(), Fatal> {
        self.numbers(pdu.numbers, true)?;
        let Some(Exchange::Logout) = self.exchanges.remove(&pdu.itt) else {
            let why = "nothing was asked for";
            return Err(violation("Logout Response", why, "RFC 7143 11.15"));
        };
        self.events.push_back(Event::LoggedOut(pdu.response));
        Ok(())
    }

    fn asynchronous(&mut self, pdu: Async) -> Result<(), Fatal> {
        self.numbers(pdu.numbers, true)?;
        self.events.push_back(Event::Async(pdu.event, std::mem::take(&mut self.gathered)));
        Ok(())
    }

    fn reject(&mut self, pdu: &Reject) -> Result<(), Fatal> {
        self.numbers(pdu.numbers, true)?;
        // The data segment is the header of what was refused (11.17.5).
        let header = self.gathered.get(..48).and_then(|header| header.try_into().ok());
        let refused = header.map(Bhs);
        let command = refused.filter(|bhs| bhs.opcode() == Some(Opcode::ScsiCommand));
        match command {
            Some(bhs) if self.tasks.contains(bhs.itt()) => {
                self.finish(bhs.itt(), Err(Failure::Rejected(pdu.reason)));
            }
            _ => {
                if let Some(bhs) = refused {
                    self.exchanges.remove(&bhs.itt());
                }
                self.events.push_back(Event::Rejected(pdu.reason));
            }
        }
        Ok(())
    }
}
