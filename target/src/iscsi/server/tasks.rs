//! Commands: from the wire to the device, to the medium, and back.

use std::sync::Arc;

use corbel_proto::iscsi::pdu::scsi::Attribute;
use corbel_proto::iscsi::target::{Command, Response, TaskFault};
use corbel_proto::memory::{Buffer, Segments};
use corbel_proto::scsi::lun::Lun;
use smallvec::SmallVec;

use super::super::device::{Ask, Device, Next};
use super::keep::Keep;
use super::{ConnId, Context, IscsiServer, Nexus, Session};
use crate::host::Host;
use crate::volume::engine::{Owner, RequestId};
use crate::volume::{Outcome, Request, VolumeId};

/// A command between its arrival and its answer.
#[derive(Debug)]
pub(super) struct Task<B, D: Device<B>> {
    /// The connection it came on, and is answered on.
    pub(super) conn: ConnId,
    pub(super) unit: (u16, u32),
    /// Other volumes that it works on.
    pub(super) also: SmallVec<[VolumeId; 2]>,
    pub(super) state: State<D::Work>,
}

impl<B, D: Device<B>> Task<B, D> {
    pub(super) fn is_on(&self, fits: impl Fn((u16, u32)) -> bool) -> bool {
        fits(self.unit) || self.also.iter().any(|volume| fits((ANY_LUN, volume.0)))
    }
}

/// The number of no LUN that a command was sent to: it works on the volume all the same.
const ANY_LUN: u16 = u16::MAX;

#[derive(Debug)]
pub(super) enum State<W> {
    /// Its write data is coming.
    Gathering(W),
    /// The engine has it, under this number.
    Submitted(usize),
    /// A state file is being written, or others' commands end first; its number.
    Waiting(u64),
    /// It has not begun: others of its task set go before it; its number.
    Dormant(u64),
}

/// A request that the engine has. It outlives its task, its session and its connection.
#[derive(Debug)]
pub(super) struct Work<B, D: Device<B>> {
    pub(super) tsih: u16,
    pub(super) itt: u32,
    pub(super) unit: (u16, u32),
    pub(super) request: RequestId,
    pub(super) work: D::Work,
    /// Other volumes that it works on.
    pub(super) also: SmallVec<[VolumeId; 2]>,
    /// Nobody waits for its answer any more.
    pub(super) stopped: bool,
    /// Another initiator ended it while it was at the medium: what is there is answered, and
    /// nothing comes after it.
    pub(super) ended: bool,
    /// It runs to its end whatever becomes of the command, so its device is kept.
    pub(super) detached: Option<Arc<D>>,
    /// Who waits for its end.
    pub(super) drains: SmallVec<[usize; 2]>,
}

impl<B, D: Device<B>> Work<B, D> {
    pub(super) fn is_on(&self, fits: impl Fn(u16, (u16, u32)) -> bool) -> bool {
        let also = |volume: &VolumeId| fits(self.tsih, (ANY_LUN, volume.0));
        fits(self.tsih, self.unit) || self.also.iter().any(also)
    }
}

/// Which unit a command is for, and what it needs next.
type Begun<B, D> = ((u16, u32), Next<B, <D as Device<B>>::Work>);

impl<B: Buffer, D: Device<B>> Session<B, D> {
    fn device(&self, unit: (u16, u32)) -> Option<Arc<D>> {
        self.nexuses.get(&unit).map(|nexus| nexus.device.clone())
    }

    /// Hands a command to its unit; there may be none.
    pub(super) fn begin(&mut self, command: &Command) -> Result<Begun<B, D>, Response<B>> {
        let view = self.reach.view();
        let announced = if command.write { u64::from(command.edtl) } else { 0 };
        let ask = Ask { cdb: &command.cdb, attribute: command.attribute, announced, view };
        let number = command.lun.number();
        let device = number.and_then(|number| self.target.as_ref()?.luns.get(&number)).cloned();
        let (Some(device), Some(number)) = (device, number) else { return Err(D::missing(&ask)) };
        let unit = (number, device.volume().0);
        let nexus = self
            .nexuses
            .entry(unit)
            .or_insert_with(|| Nexus { state: device.nexus(&view), device: device.clone() });
        // The volume may have got a new device object; its nexus goes on.
        nexus.device = device;
        Ok((unit, nexus.device.begin(&mut nexus.state, &ask)))
    }

    /// What a LUN is now.
    pub(super) fn unit(&self, number: Option<u16>) -> Option<(u16, u32)> {
        let number = number?;
        let device = self.target.as_ref()?.luns.get(&number)?;
        Some((number, device.volume().0))
    }

    /// The units of the target that its initiator may see.
    fn peers(&self) -> Vec<Arc<D>> {
        let seen = |number| Lun::new(number).is_some_and(|lun| self.reach.luns.contains(&lun));
        let luns = self.target.iter().flat_map(|target| &target.luns);
        luns.filter(|(number, _)| seen(**number)).map(|(_, device)| device.clone()).collect()
    }
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
        let elsewhere = session.tasks.get(&command.itt).is_some_and(|task| task.conn != id);
        if elsewhere || session.is_orphans(command.itt) {
            // Its own connection would not have taken it: a tag is a session's.
            tracing::warn!(tsih, itt = command.itt, "a task tag is in use on two connections");
            return self.drop_member(id, tsih, cx);
        }
        if let Some(fault) = command.fault {
            self.short |= fault == TaskFault::NoMemory;
            conn.wire.respond(command.itt, D::faulty(fault));
            return;
        }
        if command.attribute != Attribute::Simple || !self.task_sets.is_empty() {
            return self.in_order(id, tsih, command, cx);
        }
        match session.begin(command) {
            Ok((unit, next)) => self.step(id, tsih, command.itt, unit, next, cx),
            Err(missing) => {
                conn.wire.respond(command.itt, missing);
            }
        }
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
        if let Some(tsih) = self.conn(id).and_then(|conn| conn.session) {
            self.gathered(id, tsih, itt, data, cx);
        }
    }

    /// A command's data is there.
    pub(super) fn gathered<H>(
        &mut self,
        id: ConnId,
        tsih: u16,
        itt: u32,
        data: Segments<B>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        let Some(Task { unit, state: State::Gathering(work), .. }) = session.tasks.remove(&itt)
        else {
            return;
        };
        let Some(nexus) = session.nexuses.get_mut(&unit) else { return };
        let view = session.reach.view();
        let next = nexus.device.data(&mut nexus.state, &view, work, data);
        self.step(id, tsih, itt, unit, next, cx);
    }

    pub(super) fn data_failed(&mut self, id: ConnId, itt: u32, fault: TaskFault) {
        self.short |= fault == TaskFault::NoMemory;
        let Some(conn) = self.conns.get_mut(id.key()) else { return };
        let session = conn.session.and_then(|tsih| self.sessions.get_mut(&tsih));
        if session.is_some_and(|session| session.tasks.remove(&itt).is_some()) {
            conn.wire.respond(itt, D::faulty(fault));
        }
    }

    /// Does what the device wants next for a command.
    pub(super) fn step<H>(
        &mut self,
        id: ConnId,
        tsih: u16,
        itt: u32,
        unit: (u16, u32),
        next: Next<B, D::Work>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        if !self.is_wanted(id, tsih) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        match next {
            Next::Answer(response) => self.reply(id, tsih, itt, response),
            Next::Gather(bytes, work) => {
                let (also, state) = (D::also_on(&work), State::Gathering(work));
                session.tasks.insert(itt, Task { conn: id, unit, also, state });
                self.gather(id, tsih, (itt, bytes), cx);
            }
            Next::Submit(mut request, work) => {
                request.lend &= self.conns.get(id.key()).is_some_and(|c| c.wire.only_sends());
                let entry = self.works.vacant_entry();
                let key = entry.key();
                let request = cx.engine.submit(cx.host, Owner::Iscsi(key as u64), request);
                let also = D::also_on(&work);
                entry.insert(Work {
                    tsih,
                    itt,
                    unit,
                    request,
                    work,
                    also: also.clone(),
                    stopped: false,
                    ended: false,
                    detached: None,
                    drains: SmallVec::new(),
                });
                session.at_medium += 1;
                let (conn, state) = (id, State::Submitted(key));
                session.tasks.insert(itt, Task { conn, unit, also, state });
            }
            Next::Detach(detached) => {
                let Some(device) = session.device(unit) else { return };
                self.begin_detached(id, (tsih, itt, unit), device, *detached, cx);
            }
            Next::Peers(work) => {
                let peers = session.peers();
                let Some(nexus) = session.nexuses.get_mut(&unit) else { return };
                let next = nexus.device.clone().peers(&mut nexus.state, work, &peers);
                self.step(id, tsih, itt, unit, next, cx);
            }
            Next::Keep(name, bytes, work) => {
                let Some(device) = session.device(unit) else { return };
                let waiter = self.waiter(id, tsih, itt, unit);
                self.keep(Keep { device, waiter, work }, &name, bytes, cx);
            }
            Next::Evict(ended, response) => {
                let waiter = self.waiter(id, tsih, itt, unit);
                self.evict(ended, waiter, response, cx);
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
        let Work { tsih, itt, unit, work, stopped, ended, detached, drains, .. } = work;
        if let Some(device) = detached {
            self.detached_done((tsih, itt, unit), device, work, stopped, outcome, cx);
        } else if let Some(session) = self.sessions.get_mut(&tsih) {
            session.at_medium -= 1;
            if !stopped
                && let Some(nexus) = session.nexuses.get(&unit)
                && let Some(Task { conn: id, .. }) = session.tasks.remove(&itt)
            {
                let next = match outcome {
                    // Not stopped by its own initiator, so by another.
                    Outcome::Cancelled => Next::Answer(D::aborted()),
                    outcome => nexus.device.outcome(work, outcome),
                };
                let next = match next {
                    Next::Submit(..) if ended => Next::Answer(D::aborted()),
                    next => next,
                };
                self.step(id, tsih, itt, unit, next, cx);
                self.touch(id);
            }
        }
        for drain in drains {
            self.drained(drain, cx);
        }
        self.finish_session(tsih, cx);
        self.go_on(Some(tsih), cx);
    }

    /// Submits a request that outlives its command. Until somebody says otherwise, nobody waits.
    pub(super) fn detach<H>(
        &mut self,
        tsih: u16,
        itt: u32,
        unit: (u16, u32),
        (device, request, work): (Arc<D>, Request<B>, D::Work),
        cx: &mut Context<'_, B, H>,
    ) -> usize
    where
        H: Host<Memory = B, Buf = B>,
    {
        let entry = self.works.vacant_entry();
        let key = entry.key();
        let request = cx.engine.submit(cx.host, Owner::Iscsi(key as u64), request);
        entry.insert(Work {
            tsih,
            itt,
            unit,
            request,
            work,
            also: SmallVec::new(),
            stopped: true,
            ended: false,
            detached: Some(device),
            drains: SmallVec::new(),
        });
        key
    }

    /// Submits a request that outlives its command, which is answered now or waits for it.
    fn begin_detached<H>(
        &mut self,
        id: ConnId,
        (tsih, itt, unit): (u16, u32, (u16, u32)),
        device: Arc<D>,
        (request, work, answer): (Request<B>, D::Work, Option<Response<B>>),
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let answered = answer.is_some();
        if let Some(response) = answer {
            self.reply(id, tsih, itt, response);
        }
        let key = self.detach(tsih, itt, unit, (device, request, work), cx);
        self.await_detached(id, (tsih, itt, unit), key, answered);
    }

    /// The command waits for its detached request, number `key`, unless it was answered.
    fn await_detached(
        &mut self,
        conn: ConnId,
        (tsih, itt, unit): (u16, u32, (u16, u32)),
        key: usize,
        answered: bool,
    ) {
        if answered {
            return;
        }
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        self.works[key].stopped = false;
        let (also, state) = (SmallVec::new(), State::Submitted(key));
        session.tasks.insert(itt, Task { conn, unit, also, state });
    }

    fn detached_done<H>(
        &mut self,
        (tsih, itt, unit): (u16, u32, (u16, u32)),
        device: Arc<D>,
        work: D::Work,
        stopped: bool,
        outcome: Outcome<B>,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let next = device.outcome(work, outcome);
        let session = self.sessions.get_mut(&tsih).filter(|_| !stopped);
        if let Some(Task { conn: id, .. }) = session.and_then(|s| s.tasks.remove(&itt)) {
            self.step(id, tsih, itt, unit, next, cx);
            self.touch(id);
        } else if let Next::Keep(name, bytes, work) = next {
            let waiter = self.nobody(tsih, itt, unit);
            self.keep(Keep { device, waiter, work }, &name, bytes, cx);
        }
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
        let mut unsent = Vec::new();
        session.tasks.retain(|&itt, task| match task.state {
            State::Submitted(key) if task.is_on(&fits) => {
                let work = &mut self.works[key];
                if work.detached.is_some() {
                    work.stopped = true;
                    unsent.push((task.conn, itt));
                    return false;
                }
                // If it is cancelled, its outcome comes and says so.
                work.ended = !cx.engine.cancel(cx.host, work.request);
                true
            }
            State::Gathering(_) | State::Dormant(_) if task.is_on(&fits) => {
                unsent.push((task.conn, itt));
                false
            }
            _ => true,
        });
        for (id, itt) in unsent {
            self.reply(id, tsih, itt, D::aborted());
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
        let task = session.tasks.remove(&itt);
        // One that is answered, and being sent, no longer says whose it is.
        let whose = match &task {
            Some(task) => SmallVec::from_iter([task.conn]),
            None => session.members.ids(),
        };
        for id in whose {
            self.wired(id, |wire| wire.abort(itt));
        }
        if let Some(session) = self.sessions.get_mut(&tsih) {
            session.forget_orphan(itt);
        }
        match task?.state {
            State::Gathering(_) | State::Waiting(_) | State::Dormant(_) => None,
            State::Submitted(key) => {
                let work = &mut self.works[key];
                work.stopped = true;
                if work.detached.is_some() {
                    return None;
                }
                // Even a cancelled one has an outcome to come; but it has no effect.
                (!cx.engine.cancel(cx.host, work.request)).then_some(key)
            }
        }
    }
}
