//! Commands: from the wire to the device, to the medium, and back.

use corbel_proto::iscsi::target::{Command, TaskFault};
use corbel_proto::memory::{Buffer, Segments};
use smallvec::SmallVec;

use super::super::device::{Ask, Device, Next};
use super::keep::Keep;
use super::{ConnId, Context, IscsiServer, Nexus};
use crate::host::Host;
use crate::volume::Outcome;
use crate::volume::engine::{Owner, RequestId};

/// A command between its arrival and its answer.
#[derive(Debug)]
pub(super) struct Task<B, D: Device<B>> {
    pub(super) unit: (u16, u32),
    pub(super) state: State<D::Work>,
}

#[derive(Debug)]
pub(super) enum State<W> {
    /// Its write data is coming.
    Gathering(W),
    /// The engine has it, under this number.
    Submitted(usize),
    /// A state file is being written, or others' commands end first; its number.
    Waiting(u64),
}

/// A request that the engine has. It outlives its task, its session and its connection.
#[derive(Debug)]
pub(super) struct Work<B, D: Device<B>> {
    pub(super) tsih: u16,
    pub(super) itt: u32,
    pub(super) unit: (u16, u32),
    pub(super) request: RequestId,
    pub(super) work: D::Work,
    /// Nobody waits for its answer any more.
    pub(super) stopped: bool,
    /// Who waits for its end.
    pub(super) drains: SmallVec<[usize; 2]>,
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    pub(super) fn command<H>(&mut self, id: ConnId, command: &Command, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        let Some(tsih) = conn.session else { return };
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        session.commands += 1;
        if let Some(fault) = command.fault {
            conn.wire.respond(command.itt, D::faulty(fault));
            return;
        }
        let view = session.reach.view();
        let announced = if command.write { u64::from(command.edtl) } else { 0 };
        let ask = Ask { cdb: &command.cdb, attribute: command.attribute, announced, view };
        let number = command.lun.number();
        let device = number.and_then(|number| session.target.as_ref()?.luns.get(&number)).cloned();
        let (Some(device), Some(number)) = (device, number) else {
            conn.wire.respond(command.itt, D::missing(&ask));
            return;
        };
        let unit = (number, device.volume().0);
        let nexus = session
            .nexuses
            .entry(unit)
            .or_insert_with(|| Nexus { state: device.nexus(&view), device: device.clone() });
        // The volume may have got a new device object; its nexus goes on.
        nexus.device = device;
        let next = nexus.device.begin(&mut nexus.state, &ask);
        self.step(tsih, command.itt, unit, next, cx);
    }

    pub(super) fn data_out<H>(
        &mut self,
        id: ConnId,
        itt: u32,
        data: Segments<B>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(tsih) = self.conn(id).and_then(|conn| conn.session) else { return };
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        let Some(Task { unit, state: State::Gathering(work) }) = session.tasks.remove(&itt) else {
            return;
        };
        let Some(nexus) = session.nexuses.get_mut(&unit) else { return };
        let view = session.reach.view();
        let next = nexus.device.data(&mut nexus.state, &view, work, data);
        self.step(tsih, itt, unit, next, cx);
    }

    pub(super) fn data_failed(&mut self, id: ConnId, itt: u32, fault: TaskFault) {
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        let session = conn.session.and_then(|tsih| self.sessions.get_mut(&tsih));
        if session.is_some_and(|session| session.tasks.remove(&itt).is_some()) {
            conn.wire.respond(itt, D::faulty(fault));
        }
    }

    /// Does what the device wants next for a command.
    pub(super) fn step<H>(
        &mut self,
        tsih: u16,
        itt: u32,
        unit: (u16, u32),
        next: Next<B, D::Work>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        let Some(id) = session.conn else { return };
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        match next {
            Next::Answer(response) => {
                conn.wire.respond(itt, response);
            }
            Next::Gather(bytes, work) => {
                session.tasks.insert(itt, Task { unit, state: State::Gathering(work) });
                conn.wire.begin_data_out(itt, bytes, cx.host);
            }
            Next::Submit(request, work) => {
                let entry = self.works.vacant_entry();
                let key = entry.key();
                let request = cx.engine.submit(cx.host, Owner::Iscsi(key as u64), request);
                entry.insert(Work {
                    tsih,
                    itt,
                    unit,
                    request,
                    work,
                    stopped: false,
                    drains: SmallVec::new(),
                });
                session.at_medium += 1;
                session.tasks.insert(itt, Task { unit, state: State::Submitted(key) });
            }
            Next::Keep(name, bytes, taken) => {
                let Some(nexus) = session.nexuses.get(&unit) else { return };
                let device = nexus.device.clone();
                let waiter = self.waiter(tsih, itt, unit);
                self.keep(Keep { device, waiter, taken }, &name, bytes, cx);
            }
            Next::Evict(nexuses, response) => {
                let waiter = self.waiter(tsih, itt, unit);
                self.evict(nexuses, waiter, response, cx);
            }
        }
    }

    /// A request of [`Owner::Iscsi`] with this number has its outcome.
    pub fn complete<H>(&mut self, tag: u64, outcome: Outcome<B>, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let key = usize::try_from(tag).expect("we gave it out as a number of this table");
        let work = self.works.remove(key);
        let Work { tsih, itt, unit, work, stopped, drains, .. } = work;
        if let Some(session) = self.sessions.get_mut(&tsih) {
            session.at_medium -= 1;
            if !stopped && let Some(nexus) = session.nexuses.get(&unit) {
                session.tasks.remove(&itt);
                let response = match outcome {
                    // Not stopped by its own initiator, so by another.
                    Outcome::Cancelled => D::aborted(),
                    outcome => nexus.device.outcome(work, outcome),
                };
                if let Some(id) = session.conn
                    && let Some(conn) = self.conns.get_mut(id.key())
                {
                    conn.wire.respond(itt, response);
                    self.touch(id);
                }
            }
        }
        for drain in drains {
            self.drained(drain, cx);
        }
        self.finish_session(tsih, cx);
    }

    /// Ends the commands of a session that are on a fitting unit because another initiator wants
    /// so: each is answered, with TASK ABORTED (SAM-5 5.3.1; the control mode page's TAS says so)
    /// or, if the medium has it already, with what becomes of it.
    pub(super) fn end_for_another<H>(
        &mut self,
        tsih: u16,
        fits: impl Fn((u16, u32)) -> bool,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        let conn = session.conn;
        let mut unsent = Vec::new();
        session.tasks.retain(|&itt, task| match task.state {
            State::Submitted(key) if fits(task.unit) => {
                // If it is cancelled, its outcome comes and says so.
                cx.engine.cancel(cx.host, self.works[key].request);
                true
            }
            State::Gathering(_) if fits(task.unit) => {
                unsent.push(itt);
                false
            }
            _ => true,
        });
        if let Some(conn) = conn.and_then(|id| self.conns.get_mut(id.key())) {
            for itt in unsent {
                conn.wire.respond(itt, D::aborted());
            }
        }
    }

    /// Ends a command without an answer. Returns the request that may still reach the medium.
    pub(super) fn stop<H>(
        &mut self,
        tsih: u16,
        itt: u32,
        cx: &mut Context<'_, B, H>,
    ) -> Option<usize>
    where
        H: Host<Memory = B, Buf = B>,
    {
        let session = self.sessions.get_mut(&tsih)?;
        if let Some(conn) = session.conn.and_then(|id| self.conns.get_mut(id.key())) {
            conn.wire.abort(itt);
        }
        match session.tasks.remove(&itt)?.state {
            State::Gathering(_) | State::Waiting(_) => None,
            State::Submitted(key) => {
                let work = &mut self.works[key];
                work.stopped = true;
                // Even a cancelled one has an outcome to come; but it has no effect.
                (!cx.engine.cancel(cx.host, work.request)).then_some(key)
            }
        }
    }
}
