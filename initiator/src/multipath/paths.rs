//! What the engine knows of each path.

use corbel_proto::time::{Duration, Instant};

use super::flap;
use super::rate::Rate;
use super::status::{Limit, PathState};
use crate::identity::Identity;
use crate::path::{Facts, Life, PathFault, PathId};
use crate::request::Operation;

/// A device has no more paths than this; more are not added.
pub const PATHS_MAX: usize = 64;

/// The priority of an ALUA standby path: it answers, but not to reads and writes.
const STANDBY: u32 = 1;

/// A path as it was configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathSpec {
    /// `iscsi:IQN/LUN@ADDR:PORT` or `aoe:SHELF.SLOT@IFACE`.
    pub name: String,
    /// Time limits in force, for status.
    pub limits: Vec<Limit>,
    /// A device without a world-wide name is taken for the same if serial number, model and size
    /// are equal. Without it such a device has one path.
    pub allow_weak: bool,
}

/// One path.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) id: PathId,
    pub(super) spec: PathSpec,
    /// Its last word was Ready.
    pub(super) up: bool,
    /// What its last Down was for.
    pub(super) fault: PathFault,
    /// What it knew when it was last ready.
    pub(super) facts: Option<Box<Facts>>,
    /// What an administrator said is all right here.
    pub(super) accepted: Option<Identity>,
    /// Why it is not used although it is ready.
    pub(super) quarantine: Option<String>,
    /// Failed by an administrator.
    pub(super) disabled: bool,
    /// Not of the device any more; stays until nothing of it is in doubt.
    pub(super) removed: bool,
    pub(super) damped_until: Option<Instant>,
    /// Tries that it failed since the last that it did not.
    pub(super) errors_in_row: u32,
    pub(super) flap: flap::Record,
    /// As of the last look.
    pub(super) state: PathState,
    pub(super) since: Instant,
    /// The last life that is over for certain.
    pub(super) quiet: Option<Life>,
    /// The cache that its writes land in, if volatile.
    pub(super) domain: Option<u32>,
    pub(super) in_flight: u64,
    pub(super) completed: u64,
    pub(super) failures: u64,
    pub(super) bytes: u64,
    pub(super) latency: Option<Duration>,
    pub(super) rate: Rate,
    /// When it was last asked to check itself; `None` once it answered.
    pub(super) check_asked: Option<Instant>,
    /// When it was last asked because it does not fit.
    pub(super) rechecked: Instant,
    pub(super) why: Option<String>,
    pub(super) next: Option<String>,
}

impl Path {
    pub(super) fn new(now: Instant, id: PathId, spec: PathSpec) -> Self {
        Self {
            id,
            spec,
            up: false,
            fault: PathFault::Starting,
            facts: None,
            accepted: None,
            quarantine: None,
            disabled: false,
            removed: false,
            damped_until: None,
            errors_in_row: 0,
            flap: flap::Record::default(),
            state: PathState::Down,
            since: now,
            quiet: None,
            domain: None,
            in_flight: 0,
            completed: 0,
            failures: 0,
            bytes: 0,
            latency: None,
            rate: Rate::default(),
            check_asked: None,
            rechecked: now,
            why: None,
            next: None,
        }
    }

    /// What it is now. The states of `status` are exactly those that decide about its use.
    pub(super) fn judge(&self, now: Instant) -> PathState {
        if self.disabled {
            return PathState::Disabled;
        }
        if !self.up {
            let standby = self.fault == PathFault::Standby;
            return if standby { PathState::Ghost } else { PathState::Down };
        }
        if self.quarantine.is_some() {
            PathState::Quarantined
        } else if self.facts.as_ref().is_some_and(|facts| facts.priority == STANDBY) {
            PathState::Ghost
        } else if self.damped_until.is_some_and(|until| until > now) {
            PathState::Damped
        } else {
            PathState::Ready
        }
    }

    /// It takes tries: ready, or damped (the last resort).
    pub(super) fn works(&self) -> bool {
        !self.removed && matches!(self.state, PathState::Ready | PathState::Damped)
    }

    /// It could do this.
    pub(super) fn suits(&self, operation: Operation) -> bool {
        let Some(facts) = &self.facts else { return false };
        match operation {
            Operation::Read | Operation::Flush => true,
            Operation::Write { .. } => !facts.read_only,
            Operation::Discard => !facts.read_only && facts.discard,
            Operation::WriteZeroes { .. } => !facts.read_only && facts.write_zeroes,
        }
    }

    pub(super) fn priority(&self) -> u32 {
        self.facts.as_ref().map_or(0, |facts| facts.priority)
    }

    pub(super) fn started(&mut self, now: Instant, bytes: u64) {
        self.in_flight += 1;
        self.rate.started(now, bytes);
    }

    /// A try ended.
    pub(super) fn ended(&mut self, now: Instant, started: Instant, bytes: u64, well: bool) {
        self.in_flight -= 1;
        self.rate.ended(now, bytes, well);
        if !well {
            return;
        }
        self.completed += 1;
        self.bytes += bytes;
        let took = now.since(started);
        self.latency = Some(self.latency.map_or(took, |old| old - old / 8 + took / 8));
    }
}
