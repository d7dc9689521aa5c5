//! Task attributes (SAM-5 8.6). The control mode page tells TST 001b: each I_T nexus has a task
//! set of its own on a unit. So a task set lies in one session, on one shard, and needs no lock.
//!
//! An ORDERED command begins when all older ones of its task set have ended; younger ones wait for
//! it. A HEAD OF QUEUE command begins at once, and whatever has not begun waits for it. A task set
//! is looked after here only while one of these, or a command that waits for them, is in it: while
//! all are SIMPLE, a command pays one branch.

use std::collections::VecDeque;

use corbel_proto::iscsi::pdu::scsi::Attribute;
use corbel_proto::iscsi::target::{Command, TaskFault};
use corbel_proto::memory::Buffer;
use smallvec::SmallVec;

use super::super::device::Device;
use super::tasks::{State, Task};
use super::{ConnId, Context, IscsiServer, Session};
use crate::host::Host;

/// A session, and a unit as it knows it.
pub(super) type Key = (u16, (u16, u32));

/// A task set in which order counts.
#[derive(Debug, Default)]
pub(super) struct TaskSet {
    /// Tags of ORDERED and HEAD OF QUEUE commands that have begun: nothing begins before they end.
    begun: Vec<u32>,
    /// Commands that have not begun, oldest first. Those that were ended meanwhile may still
    /// stand here.
    dormant: VecDeque<Dormant>,
}

/// A command that has not begun: its number in [`State::Dormant`], where it came from, and itself.
type Dormant = (u64, ConnId, Command);

impl<B: Buffer, D: Device<B>> Session<B, D> {
    fn is_dormant(&self, (number, _, command): &Dormant) -> bool {
        let task = self.tasks.get(&command.itt);
        task.is_some_and(|task| matches!(task.state, State::Dormant(n) if n == *number))
    }

    /// The command of this tag has begun, and has not ended.
    fn is_at_work(&self, itt: u32) -> bool {
        self.tasks.get(&itt).is_some_and(|task| !matches!(task.state, State::Dormant(_)))
    }
}

impl<B: Buffer, D: Device<B>> IscsiServer<B, D> {
    /// A command came that is not SIMPLE, or while order counts somewhere.
    pub(super) fn in_order<H>(
        &mut self,
        id: ConnId,
        tsih: u16,
        command: &Command,
        cx: &mut Context<'_, B, H>,
    ) where
        H: Host<Memory = B, Buf = B>,
    {
        let session = self.sessions.get(&tsih);
        let unit = session.and_then(|session| session.unit(command.lun.number()));
        if !unit.is_some_and(|unit| self.waits(id, (tsih, unit), command)) {
            self.begin(id, tsih, command, cx);
        }
    }

    fn begin<H>(&mut self, id: ConnId, tsih: u16, command: &Command, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        let Some(session) = self.sessions.get_mut(&tsih) else { return };
        match session.begin(command) {
            Ok((unit, next)) => self.step(id, tsih, command.itt, unit, next, cx),
            Err(missing) => self.reply(id, tsih, command.itt, missing),
        }
    }

    /// True if a command has to wait; [`Self::go_on`] begins it.
    fn waits(&mut self, id: ConnId, (tsih, unit): Key, command: &Command) -> bool {
        let orders = matches!(command.attribute, Attribute::Ordered | Attribute::HeadOfQueue);
        if !orders && !self.task_sets.contains_key(&(tsih, unit)) {
            return false;
        }
        let Some(session) = self.sessions.get_mut(&tsih) else { return false };
        let set = self.task_sets.entry((tsih, unit)).or_default();
        set.begun.retain(|itt| session.is_at_work(*itt));
        let waits = match command.attribute {
            // There is no ACA condition that it could be for: it is refused.
            Attribute::HeadOfQueue | Attribute::Aca => false,
            Attribute::Ordered => session.tasks.values().any(|task| task.unit == unit),
            Attribute::Simple | Attribute::Untagged => {
                !set.begun.is_empty() || set.dormant.iter().any(|one| session.is_dormant(one))
            }
        };
        if !waits {
            if orders {
                set.begun.push(command.itt);
            }
            return false;
        }
        if set.dormant.len() > session.tasks.len() {
            // Some were ended: else whoever sends and aborts in turn could fill the memory.
            set.dormant.retain(|one| session.is_dormant(one));
        }
        self.waiters += 1;
        set.dormant.push_back((self.waiters, id, command.clone()));
        let (also, state) = (SmallVec::new(), State::Dormant(self.waiters));
        session.tasks.insert(command.itt, Task { conn: id, unit, also, state });
        true
    }

    /// Begins what need not wait any more, in session `tsih` or in all.
    pub(super) fn go_on<H>(&mut self, tsih: Option<u16>, cx: &mut Context<'_, B, H>)
    where
        H: Host<Memory = B, Buf = B>,
    {
        if self.task_sets.is_empty() {
            return;
        }
        let of = |key: &Key| tsih.is_none_or(|tsih| key.0 == tsih);
        for key in self.task_sets.keys().copied().filter(of).collect::<Vec<_>>() {
            while let Some((id, command)) = self.next_of(key) {
                self.begin(id, key.0, &command, cx);
                // Its data may be there already.
                self.events(id, cx);
                self.attended(id);
            }
        }
    }

    /// The next command of a task set, if it is its turn. Forgets a set in which order no longer
    /// counts.
    fn next_of(&mut self, key: Key) -> Option<(ConnId, Command)> {
        let (tsih, unit) = key;
        let set = self.task_sets.get_mut(&key)?;
        let Some(session) = self.sessions.get_mut(&tsih) else {
            self.task_sets.remove(&key);
            return None;
        };
        set.begun.retain(|itt| session.is_at_work(*itt));
        while set.dormant.front().is_some_and(|one| !session.is_dormant(one)) {
            set.dormant.pop_front();
        }
        let Some((_, _, first)) = set.dormant.front() else {
            if set.begun.is_empty() {
                self.task_sets.remove(&key);
            }
            return None;
        };
        let ordered = first.attribute == Attribute::Ordered;
        let at_work =
            |task: &Task<B, D>| task.unit == unit && !matches!(task.state, State::Dormant(_));
        if !set.begun.is_empty() || ordered && session.tasks.values().any(at_work) {
            return None;
        }
        let (_, _, command) = set.dormant.pop_front()?;
        // It may have gone over to another connection meanwhile.
        let id = session.tasks.remove(&command.itt)?.conn;
        if ordered {
            set.begun.push(command.itt);
        }
        Some((id, command))
    }

    /// Somebody finds no memory: writes that have not begun give theirs back, and are told to come
    /// again. They hold it while they wait for older commands, which may be who needs it.
    pub(super) fn shed_dormant(&mut self) {
        let mut shed = Vec::new();
        for (&(tsih, _), set) in &mut self.task_sets {
            let Some(session) = self.sessions.get_mut(&tsih) else { continue };
            set.dormant.retain(|one| {
                let (_, _, command) = one;
                if !session.is_dormant(one) || !command.write || command.edtl == 0 {
                    return true;
                }
                let task = session.tasks.remove(&command.itt);
                shed.extend(task.map(|task| (task.conn, tsih, command.itt)));
                false
            });
        }
        for (id, tsih, itt) in shed {
            self.reply(id, tsih, itt, D::faulty(TaskFault::NoMemory));
            self.touch(id);
        }
    }
}
