//! Tasks whose connection is lost, at recovery level 2 (RFC 7143 7.2.2, 11.5).
//!
//! They wait, without any connection, until the initiator reassigns them to another one of the
//! session or the time agreed for that is over. What goes on meanwhile goes on: a command at the
//! medium ends, and its answer is kept; a write whose data has not come whole waits. On its new
//! connection a task goes on from where the initiator says it is: read data is sent from there
//! (cut as the new connection wants it), missing write data is asked for, and the status is sent,
//! again if need be, under a StatSN of the new connection.
//!
//! Read data is kept as far as [`BYTES_MAX`] and until [`Orphans::give_up_data`].

use std::collections::HashMap;

use super::output::{Control, Job, StatSn};
use super::recovery::SentStatus;
use super::tasks::{Place, Task};
use super::{Connection, DataIn, Event, Phase, Response};
use crate::iscsi::bhs::{Lun, Opcode, TAG_NONE};
use crate::iscsi::params::Negotiated;
use crate::memory::{Arena, Buffer, Segments};

/// Read data that is kept of one lost connection. What does not fit is not there any more when its
/// command is reassigned, and the initiator has to read again.
const BYTES_MAX: u32 = 16 << 20;

/// What a lost connection left.
#[derive(Debug)]
pub struct Orphans<B> {
    all: HashMap<u32, Orphan<B>>,
    /// Read data among it.
    bytes: u32,
}

/// One task without a connection.
#[derive(Debug)]
pub struct Orphan<B> {
    /// The terms of the connection that is lost: how data was cut.
    agreed: Negotiated,
    state: State<B>,
}

#[derive(Debug)]
enum State<B> {
    /// It has no answer yet.
    Active(Task<B>),
    /// Its answer has not gone out as a whole; or it has, and may have to again.
    Answered(Task<B>, Job<B>),
    /// The answer is there, but the data that belongs to it is not.
    Gone(Task<B>),
    /// Its status was sent, and no data belongs to it that could be sent again.
    Sent(Box<SentStatus>),
}

impl<B> Orphan<B> {
    fn task(&self) -> Option<&Task<B>> {
        match &self.state {
            State::Active(task) | State::Answered(task, _) | State::Gone(task) => Some(task),
            State::Sent(_) => None,
        }
    }

    /// True if the initiator has not got the status, as far as we know, nor could have.
    pub fn is_unanswered(&self) -> bool {
        self.task().is_some_and(|task| task.place != Place::None)
    }

    /// True if it holds a place in the command window.
    pub fn holds_place(&self) -> bool {
        self.task().is_some_and(|task| task.place == Place::Window)
    }
}

impl<B: Buffer> Orphans<B> {
    /// Tasks.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True if there is none (any more).
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes of read data that are kept.
    pub fn kept_bytes(&self) -> u32 {
        self.bytes
    }

    /// The task of this tag.
    pub fn get(&self, itt: u32) -> Option<&Orphan<B>> {
        self.all.get(&itt)
    }

    /// All tasks whose status was not sent: tag, logical unit.
    pub fn unanswered(&self) -> impl Iterator<Item = (u32, Lun)> + '_ {
        let open = self.all.iter().filter(|(_, orphan)| orphan.is_unanswered());
        open.filter_map(|(&itt, orphan)| Some((itt, orphan.task()?.lun)))
    }

    /// How many hold a place in the command window.
    pub fn places(&self) -> usize {
        self.all.values().filter(|orphan| orphan.holds_place()).count()
    }

    /// Takes a task out: it is over, or another connection has it from now on.
    pub fn take(&mut self, itt: u32) -> Option<Orphan<B>> {
        let orphan = self.all.remove(&itt)?;
        if let State::Answered(_, job) = &orphan.state {
            self.bytes -= job.kept_bytes();
        }
        Some(orphan)
    }

    /// Answers a task, as [`Connection::respond`] does.
    pub fn respond(&mut self, itt: u32, mut response: Response<B>) -> bool {
        let Some(orphan) = self.all.remove(&itt) else { return false };
        let State::Active(mut task) = orphan.state else {
            self.all.insert(itt, orphan);
            return false;
        };
        task.answered = true;
        task.transfer = None;
        if !task.read {
            response.data = DataIn::None;
        }
        let job = Job::new(itt, response, &task, TAG_NONE);
        self.insert(itt, orphan.agreed, State::Answered(task, job));
        true
    }

    /// The command takes this many bytes. If all of them have come they are the result; else they
    /// are asked for on its next connection.
    pub fn begin_data_out(&mut self, itt: u32, wanted: u64) -> Option<Segments<B>> {
        let orphan = self.all.get_mut(&itt)?;
        let State::Active(task) = &mut orphan.state else { return None };
        task.want(wanted, orphan.agreed.data_pdu_in_order, &mut Vec::new());
        let mut whole = task.transfer.take_if(|transfer| transfer.is_complete())?;
        Some(whole.take_segments())
    }

    /// Gives all payload memory back: memory is short. Reads are to be read again, and the data of
    /// writes is asked for anew.
    pub fn give_up_data(&mut self) {
        for (itt, mut orphan) in core::mem::take(&mut self.all) {
            orphan.state = match orphan.state {
                State::Active(mut task) => {
                    if let Some(transfer) = &mut task.transfer {
                        transfer.start_over();
                    }
                    State::Active(task)
                }
                State::Answered(task, job) if job.kept_bytes() > 0 => State::Gone(task),
                state => state,
            };
            self.all.insert(itt, orphan);
        }
        self.bytes = 0;
    }

    fn insert(&mut self, itt: u32, agreed: Negotiated, state: State<B>) {
        let state = match state {
            State::Answered(task, job) if job.kept_bytes() > BYTES_MAX - self.bytes => {
                drop(job);
                State::Gone(task)
            }
            state => state,
        };
        self.take(itt);
        if let State::Answered(_, job) = &state {
            self.bytes += job.kept_bytes();
        }
        self.all.insert(itt, Orphan { agreed, state });
    }
}

impl<B: Buffer> Connection<B> {
    /// The tasks of a connection that is lost, after [`Event::Closed`]: once, and only where such
    /// tasks can be reassigned.
    pub fn take_orphans(&mut self) -> Option<Orphans<B>> {
        if !core::mem::take(&mut self.orphaned) {
            return None;
        }
        self.lose_current();
        let mut orphans = Orphans { all: HashMap::new(), bytes: 0 };
        // Later ones go over earlier ones: a tag is used again once its status has come.
        let (mut statuses, reads) = self.recovery.take().unwrap_or_default().into_answers();
        for control in core::mem::take(&mut self.control) {
            let answer = control.bhs.opcode() == Some(Opcode::ScsiResponse);
            if answer && control.stat == StatSn::Consume {
                let (bhs, data) = (control.bhs, control.data);
                statuses.push(SentStatus { bhs, data, lacks_data: None });
            } else if control.bhs.opcode() != Some(Opcode::R2t) {
                self.control.push_back(control);
            }
        }
        self.queued_bytes = self.control.iter().map(|control| control.data.len()).sum();
        let mut reads: HashMap<_, _> = reads.into_iter().map(|job| (job.itt, job)).collect();
        let statuses: HashMap<_, _> =
            statuses.into_iter().map(|status| (status.bhs.itt(), status)).collect();
        for (itt, status) in statuses {
            let state = match reads.remove(&itt) {
                Some(job) => State::Answered(again(&job), with_sense(job, &status.data)),
                None => State::Sent(Box::new(status)),
            };
            orphans.insert(itt, self.agreed, state);
        }
        let jobs = core::mem::take(&mut self.jobs);
        let mut jobs: HashMap<_, _> = jobs.into_iter().map(|job| (job.itt, job)).collect();
        self.starved.clear();
        for (itt, mut task) in self.tasks.drain().filter(|(_, task)| task.delivered) {
            if let Some(transfer) = &mut task.transfer {
                transfer.restart();
            }
            let state = match jobs.remove(&itt) {
                Some(job) => State::Answered(task, job),
                None => State::Active(task),
            };
            orphans.insert(itt, self.agreed, state);
        }
        Some(orphans)
    }

    /// Takes over a task of a lost connection of the session (TASK REASSIGN). `exp_data_sn` is what
    /// the initiator says it has got. False if the data that is to be sent is no longer there:
    /// answer with [`Connection::respond`] accordingly.
    pub fn adopt<A: Arena<Buf = B>>(
        &mut self,
        itt: u32,
        orphan: Orphan<B>,
        exp_data_sn: u32,
        arena: &mut A,
    ) -> bool {
        if self.phase != Phase::Full {
            return true;
        }
        match orphan.state {
            State::Active(mut task) => {
                let fault = task.fault.filter(|_| task.awaits_data);
                if let Some(transfer) = &mut task.transfer {
                    transfer.resume(exp_data_sn);
                }
                self.tasks.insert(itt, task);
                match fault {
                    Some(fault) => self.events.push_back(Event::DataFailed { itt, fault }),
                    None => self.pump(itt, arena),
                }
            }
            State::Answered(task, mut job) => {
                job.resume(exp_data_sn, &orphan.agreed);
                job.ack_tag = self.new_ttt();
                self.tasks.insert(itt, task);
                self.jobs.push_back(job);
            }
            State::Sent(status) => {
                // All that was sent it has, or some of it is to be sent again, and is not there.
                let has_all = status.bhs.u32_at(36) == exp_data_sn;
                if let Some(expected) = status.lacks_data.filter(|_| !has_all) {
                    let task = Task { data_sn: exp_data_sn, ..Task::resent(expected) };
                    self.tasks.insert(itt, task);
                    return false;
                }
                self.queued_bytes += status.data.len();
                let SentStatus { bhs, data, .. } = *status;
                let stat = StatSn::Consume;
                self.control.push_back(Control { bhs, stat, data, frees: false });
            }
            State::Gone(mut task) => {
                (task.answered, task.data_sn) = (false, exp_data_sn);
                self.tasks.insert(itt, task);
                return false;
            }
        }
        true
    }
}

/// The task of a read whose status was sent.
fn again<B: Buffer>(job: &Job<B>) -> Task<B> {
    Task { lun: job.lun, answered: true, ..Task::resent(job.expected()) }
}

fn with_sense<B>(mut job: Job<B>, data: &[u8]) -> Job<B> {
    job.response.sense = data.get(2..).unwrap_or_default().into();
    job
}
