//! Task management: stop work, wait until none of it can reach the medium, and only then say so.

use corbel_proto::iscsi::pdu::task::{Function, TaskOutcome, TaskRequest};
use corbel_proto::memory::Buffer;

use super::super::Message as Between;
use super::super::device::Device;
use super::response_fence::Answer;
use super::{ConnId, Context, IscsiServer};
use crate::host::{Host, Message, ShardId};
use crate::volume::VolumeId;

/// Something that happens once a number of others have happened.
#[derive(Debug)]
pub(super) struct Drain {
    left: usize,
    then: Then,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    /// Function complete.
    Answer(ConnId, u32),
    /// Function complete, seen after what went out on other connections of the session.
    AnswerAfterOthers(ConnId, u32),
    /// The same, and the end of every session of the target (RFC 7143 11.5.1).
    EndSessions(ConnId, u32),
    /// Logged out.
    Logout(ConnId, u32),
    /// One connection of the session is logged out.
    LogoutOne {
        /// Who asked.
        id: ConnId,
        /// Its tag.
        itt: u32,
        /// Which.
        victim: ConnId,
    },
    /// The connection that this one replaces has no effect any more.
    Join(ConnId),
    /// The answer of the command of this number, which waits for this.
    Respond(u64),
    /// Tell the shard that asked.
    Acknowledge(ShardId, u64),
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    pub(super) fn function<H>(
        &mut self,
        id: ConnId,
        request: &TaskRequest,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(tsih) = self.conn(id).and_then(|conn| conn.session) else { return };
        let Some(session) = self.sessions.get(&tsih) else { return };
        let Some(target) = session.target.clone() else {
            return self.answer(id, request.itt, TaskOutcome::Unsupported);
        };
        tracing::info!(tsih, function = ?request.function, lun = request.lun.0, "task management");
        let unit = request.lun.number().and_then(|number| target.luns.get(&number));
        let then = Then::AnswerAfterOthers(id, request.itt);
        match (request.function, unit) {
            (Function::TaskReassign, _) => self.reassign(id, tsih, request, cx),
            (Function::AbortTask, _) => self.abort_task(id, tsih, request, cx),
            (Function::TargetWarmReset | Function::TargetColdReset, _) => {
                let cold = request.function == Function::TargetColdReset;
                let then = if cold { Then::EndSessions(id, request.itt) } else { then };
                // What is no longer exported may still be at work for this initiator.
                let known = session.nexuses.keys().map(|&(_, volume)| VolumeId(volume));
                let exported = target.luns.values().map(|unit| unit.volume());
                let mut volumes: Vec<_> = exported.chain(known).collect();
                volumes.sort_unstable();
                volumes.dedup();
                target.luns.values().for_each(|unit| unit.reset());
                self.clear_everywhere(&volumes, Some(tsih), then, cx);
            }
            (_, None) => self.answer(id, request.itt, TaskOutcome::NoSuchLun),
            // Each nexus has a task set of its own (TST 001b), so they do the same (SAM-5 7.5).
            (Function::AbortTaskSet | Function::ClearTaskSet, Some(unit)) => {
                let volume = unit.volume();
                let number = request.lun.number().unwrap_or_default();
                self.abort_task_set(tsih, (number, volume.0), then, cx);
            }
            (Function::LogicalUnitReset, Some(unit)) => {
                unit.reset();
                self.clear_everywhere(&[unit.volume()], Some(tsih), then, cx);
            }
            (Function::ClearAca | Function::Unknown(_), Some(_)) => {
                self.answer(id, request.itt, TaskOutcome::Unsupported);
            }
        }
    }

    pub(super) fn answer(&mut self, id: ConnId, itt: u32, outcome: TaskOutcome) {
        if let Some(conn) = self.conn(id) {
            conn.wire.task_response(itt, outcome);
        }
        self.touch(id);
    }

    fn abort_task<H>(
        &mut self,
        id: ConnId,
        tsih: u16,
        request: &TaskRequest,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let known = self.conn(id).is_some_and(|conn| {
            conn.wire.tasks().any(|(itt, lun)| itt == request.referenced && lun == request.lun)
        });
        let lost = self.sessions.get(&tsih).is_some_and(|session| {
            session.orphans().any(|task| task == (request.referenced, request.lun))
        });
        if !known && !lost {
            return self.answer(id, request.itt, TaskOutcome::NoSuchTask);
        }
        let still = self.stop(tsih, request.referenced, cx);
        self.drain(still.into_iter().collect(), 0, Then::Answer(id, request.itt), cx);
    }

    fn abort_task_set<H>(
        &mut self,
        tsih: u16,
        unit: (u16, u32),
        then: Then,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        self.stop_tasks(tsih, |task| task == unit, cx);
        let still = self.at_medium(|work_tsih, work_unit| (work_tsih, work_unit) == (tsih, unit));
        self.drain(still, 0, then, cx);
    }

    /// Every task of a session, before its logout is answered.
    pub(super) fn stop_all<H>(&mut self, tsih: u16, then: Then, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        self.stop_tasks(tsih, |_| true, cx);
        let still = self.at_medium(|work_tsih, _| work_tsih == tsih);
        self.drain(still, 0, then, cx);
    }

    /// Stops the tasks of a session that are on a fitting unit, answered ones that are still being
    /// sent included.
    fn stop_tasks<H>(
        &mut self,
        tsih: u16,
        fits: impl Fn((u16, u32)) -> bool,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get(&tsih) else { return };
        let mut tags: Vec<u32> = session
            .tasks
            .iter()
            .filter(|(_, task)| task.is_on(&fits))
            .map(|(&itt, _)| itt)
            .collect();
        let orphans = session.orphans().filter(|(itt, lun)| {
            let of_target = session.target.iter().flat_map(|target| &target.luns);
            let mut units = of_target.map(|(&number, unit)| (number, unit.volume().0));
            let on = units.any(|unit| Some(unit.0) == lun.number() && fits(unit));
            on && !session.tasks.contains_key(itt)
        });
        tags.extend(orphans.map(|(itt, _)| itt));
        let members = session.members.ids();
        let conns = members.iter().filter_map(|id| self.conns.get(id.key()));
        for (conn, target) in conns.zip(session.target.iter().cycle()) {
            tags.extend(conn.wire.tasks().filter_map(|(itt, lun)| {
                let number = lun.number()?;
                let volume = target.luns.get(&number)?.volume();
                (fits((number, volume.0)) && !session.tasks.contains_key(&itt)).then_some(itt)
            }));
        }
        for &itt in &tags {
            self.stop(tsih, itt, cx);
        }
    }

    /// Requests that the engine still has, but for detached ones.
    pub(super) fn at_medium(&self, fits: impl Fn(u16, (u16, u32)) -> bool) -> Vec<usize> {
        let works = self.works.iter().filter(|(_, work)| work.detached.is_none());
        works.filter(|(_, work)| work.is_on(&fits)).map(|(key, _)| key).collect()
    }

    /// Stops all work on `volumes`, of all sessions on all shards.
    fn clear_everywhere<H>(
        &mut self,
        volumes: &[VolumeId],
        by: Option<u16>,
        then: Then,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let (shard, shards) = (cx.host.shard(), cx.host.shards());
        let others = usize::from(shards.saturating_sub(1)) * volumes.len();
        let mut still = Vec::new();
        for &volume in volumes {
            still.extend(self.clear_here(volume, by, cx));
        }
        let Some(ask) = self.drain(still, others, then, cx) else { return };
        for &volume in volumes {
            for other in (0..shards).filter(|other| *other != shard) {
                let clear = Between::Clear { volume, shard, ask: ask as u64 };
                cx.host.post(other, Message::Iscsi(clear));
            }
        }
    }

    /// The share of this shard. Returns what is still at the medium.
    fn clear_here<H>(
        &mut self,
        volume: VolumeId,
        by: Option<u16>,
        cx: &mut Context<'_, B, H>,
    ) -> Vec<usize>
    where
        H: Host<Memory = B, Buf = B>,
    {
        for tsih in self.sessions.keys().copied().collect::<Vec<_>>() {
            if by == Some(tsih) {
                self.stop_tasks(tsih, |unit| unit.1 == volume.0, cx);
            } else {
                self.end_for_another(tsih, |unit| unit.1 == volume.0, cx);
            }
            self.touch_session(tsih);
        }
        self.at_medium(|_, unit| unit.1 == volume.0)
    }

    /// Another shard asks for [`Self::clear_everywhere`].
    pub(super) fn clear_for<H>(
        &mut self,
        volume: VolumeId,
        then: (ShardId, u64),
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let still = self.clear_here(volume, None, cx);
        self.drain(still, 0, Then::Acknowledge(then.0, then.1), cx);
    }

    /// Waits for these requests and `others` acknowledgements. `None` if there is nothing to wait
    /// for, and `then` has happened.
    pub(super) fn drain<H>(
        &mut self,
        works: Vec<usize>,
        others: usize,
        then: Then,
        cx: &mut Context<'_, B, H>,
    ) -> Option<usize>
    where
        H: Host<Memory = B, Buf = B>,
    {
        let left = works.len() + others;
        if left == 0 {
            self.happen(then, cx);
            return None;
        }
        let drain = self.drains.insert(Drain { left, then });
        for key in works {
            self.works[key].drains.push(drain);
        }
        Some(drain)
    }

    /// One of the things that a drain waits for has happened.
    pub(super) fn drained<H>(&mut self, key: usize, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(drain) = self.drains.get_mut(key) else { return };
        drain.left -= 1;
        if drain.left == 0 {
            let Drain { then, .. } = self.drains.remove(key);
            self.happen(then, cx);
        }
    }

    fn happen<H>(&mut self, then: Then, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        match then {
            Then::Answer(id, itt) => self.answer(id, itt, TaskOutcome::Complete),
            Then::AnswerAfterOthers(id, itt) => {
                self.answer_after_others(Answer { id, itt, ends_sessions: false }, cx);
            }
            Then::EndSessions(id, itt) => {
                self.answer_after_others(Answer { id, itt, ends_sessions: true }, cx);
            }
            Then::Logout(id, itt) => {
                if let Some(tsih) = self.conn(id).and_then(|conn| conn.session) {
                    self.close_others(id, tsih, cx);
                    self.expire_all(tsih, cx);
                }
                self.logged_out(id, itt, cx);
            }
            Then::LogoutOne { id, itt, victim } => self.logged_out_one((id, itt), victim, cx),
            Then::Join(id) => self.joined(id, cx),
            Then::Respond(number) => self.evicted(number),
            Then::Acknowledge(shard, ask) => {
                cx.host.post(shard, Message::Iscsi(Between::Cleared { ask }));
            }
        }
    }
}
