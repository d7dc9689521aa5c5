//! Connection recovery, at recovery level 2 (RFC 7143 7.2.2, 7.15, 11.14, 11.15).
//!
//! When a connection is lost, its tasks stay with the session: commands at the medium go on, and
//! their answers are kept. The initiator logs the connection out for recovery (in so many words, or
//! by a login with its CID) and reassigns each task to another connection. What it has not
//! reassigned when the time agreed for that is over is ended, as a task whose connection is lost is
//! at lower levels. The session itself stays as long, even without any connection.

use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::pdu::task::{TaskOutcome, TaskRequest};
use corbel_proto::iscsi::target::{Orphans, Response, TaskFault};
use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use super::super::device::Device;
use super::{ConnId, Context, IscsiServer, Session};
use crate::host::Host;

/// Lost connections of a session at a time; the tasks of the oldest go first.
const LOST_MAX: usize = 8;
/// Tasks that wait for a connection, of one session. One connection leaves fewer: the window, a few
/// immediate commands, and the responses that it may leave without acknowledgement.
const ORPHANS_MAX: usize = 4096;

/// A connection that is lost, and what it left.
#[derive(Debug)]
pub(super) struct Lost<B> {
    /// Its tasks still go by this.
    id: ConnId,
    cid: u16,
    /// The initiator has logged it out for recovery: its tasks may be reassigned.
    logged_out: bool,
    orphans: Orphans<B>,
    /// When they end.
    due: Instant,
}

impl<B: Buffer, D: Device<B>> Session<B, D> {
    /// True if nobody is there, nobody comes, and nobody is waited for.
    pub(super) fn is_over(&self) -> bool {
        self.members.is_over() && self.lost.is_empty()
    }

    fn lost(&mut self, id: ConnId) -> Option<&mut Lost<B>> {
        self.lost.iter_mut().find(|lost| lost.id == id)
    }

    /// The last connection of this CID that was lost.
    pub(super) fn lost_by_cid(&self, cid: u16) -> Option<ConnId> {
        self.lost.iter().rev().find(|lost| lost.cid == cid).map(|lost| lost.id)
    }

    /// Tasks without a connection that were not answered: tag, logical unit.
    pub(super) fn orphans(&self) -> impl Iterator<Item = (u32, Lun)> + '_ {
        self.lost.iter().flat_map(|lost| lost.orphans.unanswered())
    }

    /// A task without a connection is over. False if there is none of this tag.
    pub(super) fn forget_orphan(&mut self, itt: u32) -> bool {
        let Some(orphan) = self.lost.iter_mut().find_map(|lost| lost.orphans.take(itt)) else {
            return false;
        };
        if orphan.holds_place() {
            self.members.free_places(1);
        }
        true
    }

    /// A new command has this tag. True if a task without a connection has it, and may still be
    /// reassigned; one whose status was sent the initiator has evidently done with.
    pub(super) fn is_orphans(&mut self, itt: u32) -> bool {
        let orphan = self.lost.iter().find_map(|lost| lost.orphans.get(itt));
        let Some(orphan) = orphan else { return false };
        orphan.is_unanswered() || !self.forget_orphan(itt)
    }
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    /// A connection of a session is lost with these tasks. True if they wait for another one.
    pub(super) fn retain<H>(
        &mut self,
        id: ConnId,
        tsih: u16,
        (orphans, logged_out): (Orphans<B>, bool),
        cx: &mut Context<'_, B, H>,
    ) -> bool
    where
        H: Host<Memory = B, Buf = B>,
    {
        let stopping = self.stopping;
        let session = self.sessions.get_mut(&tsih).filter(|session| !session.ending && !stopping);
        let Some(session) = session else { return false };
        let Some(cid) = session.members.remove(id) else { return false };
        tracing::info!(tsih, cid, tasks = orphans.len(), "tasks wait for another connection");
        let due = cx.host.now() + session.admission.agreed.retention();
        session.lost.push(Lost { id, cid, logged_out, orphans, due });
        self.recalls.insert((due, id));
        self.retained.insert(id, tsih);
        while let Some(session) = self.sessions.get(&tsih) {
            let tasks: usize = session.lost.iter().map(|lost| lost.orphans.len()).sum();
            if session.lost.len() <= LOST_MAX && tasks <= ORPHANS_MAX {
                break;
            }
            let oldest = session.lost[0].id;
            self.expire(oldest, cx);
        }
        self.tidy(tsih);
        true
    }

    /// The initiator knows that these connections are gone, and will reassign their tasks: from
    /// now on it has the time for that.
    pub(super) fn removed_for_recovery(&mut self, tsih: u16, cid: u16, now: Instant) {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        let due = now + session.admission.agreed.retention();
        for lost in session.lost.iter_mut().filter(|lost| lost.cid == cid && !lost.logged_out) {
            self.recalls.remove(&(lost.due, lost.id));
            self.recalls.insert((due, lost.id));
            (lost.logged_out, lost.due) = (true, due);
        }
        self.tidy(tsih);
    }

    /// Forgets lost connections of which nothing is left to be reassigned.
    fn tidy(&mut self, tsih: u16) {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        if session.members.len() == 0 {
            // They are what keeps the session.
            return;
        }
        let (recalls, retained) = (&mut self.recalls, &mut self.retained);
        session.lost.retain(|lost| {
            let over = lost.logged_out && lost.orphans.is_empty();
            if over {
                recalls.remove(&(lost.due, lost.id));
                retained.remove(&lost.id);
            }
            !over
        });
    }

    /// The tasks of a lost connection end, and with them the session if nobody has come back.
    pub(super) fn expire<H>(&mut self, id: ConnId, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(tsih) = self.retained.remove(&id) else { return };
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        let Some(at) = session.lost.iter().position(|lost| lost.id == id) else { return };
        let lost = session.lost.remove(at);
        self.recalls.remove(&(lost.due, id));
        session.members.free_places(lost.orphans.places());
        if !lost.orphans.is_empty() {
            tracing::info!(tsih, cid = lost.cid, tasks = lost.orphans.len(), "tasks end");
        }
        drop(lost);
        self.stop_tasks_of(id, tsih, cx);
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        if session.is_over() {
            session.ending = true;
            self.finish_session(tsih, cx);
        } else {
            self.resume_others(id, tsih, cx);
            self.go_on(Some(tsih), cx);
        }
    }

    /// Nothing of a session waits for another connection any more.
    pub(super) fn expire_all<H>(&mut self, tsih: u16, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        while let Some(id) = self.sessions.get(&tsih).and_then(|s| Some(s.lost.first()?.id)) {
            self.expire(id, cx);
        }
    }

    /// TASK REASSIGN.
    pub(super) fn reassign<H>(
        &mut self,
        id: ConnId,
        tsih: u16,
        request: &TaskRequest,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let itt = request.referenced;
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        let place = session.lost.iter_mut().find(|lost| lost.orphans.get(itt).is_some());
        let Some(lost) = place else {
            let conns = session.members.ids();
            let mut wires = conns.iter().filter_map(|id| self.conns.get(id.key()));
            let alive = wires.any(|conn| conn.wire.tasks().any(|(tag, _)| tag == itt));
            let outcome = if alive { TaskOutcome::StillAllegiant } else { TaskOutcome::NoSuchTask };
            return self.answer(id, request.itt, outcome);
        };
        if !lost.logged_out {
            return self.answer(id, request.itt, TaskOutcome::StillAllegiant);
        }
        let Some(orphan) = lost.orphans.take(itt) else { return };
        if let Some(task) = session.tasks.get_mut(&itt) {
            task.conn = id;
        }
        // Before it has any effect.
        self.answer(id, request.itt, TaskOutcome::Complete);
        let exp_data_sn = request.exp_data_sn;
        let adopted = self.wired(id, |wire| wire.adopt(itt, orphan, exp_data_sn, cx.host));
        if adopted == Some(false) {
            self.reply(id, tsih, itt, D::faulty(TaskFault::ReadGone));
        }
        self.tidy(tsih);
    }

    /// True if a command of this connection can be answered, now or after it was reassigned.
    pub(super) fn is_wanted(&mut self, id: ConnId, tsih: u16) -> bool {
        let live = self.conn_ref(id).is_some_and(|conn| conn.session == Some(tsih));
        live || self.retained.get(&id) == Some(&tsih)
    }

    /// Answers a command.
    pub(super) fn reply(&mut self, id: ConnId, tsih: u16, itt: u32, response: Response<B>) {
        if let Some(conn) = self.conn(id).filter(|conn| conn.session == Some(tsih)) {
            conn.wire.respond(itt, response);
        } else if let Some(lost) = self.sessions.get_mut(&tsih).and_then(|s| s.lost(id)) {
            lost.orphans.respond(itt, response);
        }
    }

    /// Asks for a command's data.
    pub(super) fn gather<H>(
        &mut self,
        id: ConnId,
        tsih: u16,
        (itt, bytes): (u32, u64),
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        if let Some(conn) = self.conn(id).filter(|conn| conn.session == Some(tsih)) {
            conn.wire.begin_data_out(itt, bytes, cx.host);
        } else if let Some(lost) = self.sessions.get_mut(&tsih).and_then(|s| s.lost(id))
            && let Some(data) = lost.orphans.begin_data_out(itt, bytes)
        {
            self.gathered(id, tsih, itt, data, cx);
        }
    }

    /// Memory is short: what waits for another connection holds none from now on.
    pub(super) fn give_up_orphans_data(&mut self) {
        let sessions = &mut self.sessions;
        for tsih in self.retained.values() {
            let lost = sessions.get_mut(tsih).into_iter().flat_map(|session| &mut session.lost);
            lost.for_each(|lost| lost.orphans.give_up_data());
        }
    }
}
