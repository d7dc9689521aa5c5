//! A path client, whichever protocol it speaks.

use corbel_proto::memory::Buffer;
use corbel_proto::time::Instant;

use crate::path::aoe::AoePath;
use crate::path::iscsi::{IscsiPath, Wire};
use crate::path::{PathEvent, PathFault, Try, TryId};

#[derive(Debug)]
pub(super) enum Machine<B: Buffer> {
    Iscsi(Box<IscsiPath<B>>),
    Aoe(Box<AoePath<B>>),
}

#[derive(Debug)]
pub(super) struct Held<B: Buffer> {
    /// As configured.
    pub(super) text: String,
    pub(super) machine: Machine<B>,
    /// Where its frames go, or where its stream was last seen to go.
    pub(super) interface: Option<String>,
    /// To be forgotten once it is quiet.
    pub(super) leaving: bool,
}

/// Says the same to either machine.
macro_rules! either {
    ($self:ident, $machine:ident => $call:expr) => {
        match $self {
            Machine::Iscsi($machine) => $call,
            Machine::Aoe($machine) => $call,
        }
    };
}

impl<B: Buffer> Machine<B> {
    pub(super) fn start(&mut self, now: Instant) {
        either!(self, machine => machine.start(now));
    }

    pub(super) fn stop(&mut self, now: Instant, fault: PathFault) {
        either!(self, machine => machine.stop(now, fault));
    }

    pub(super) fn submit(&mut self, now: Instant, attempt: Try<B>) {
        either!(self, machine => machine.submit(now, attempt));
    }

    pub(super) fn abort(&mut self, now: Instant, id: TryId) {
        either!(self, machine => machine.abort(now, id));
    }

    pub(super) fn check(&mut self, now: Instant) {
        either!(self, machine => machine.check(now));
    }

    pub(super) fn poll_event(&mut self) -> Option<PathEvent<B>> {
        either!(self, machine => machine.poll_event())
    }

    pub(super) fn poll_wire(&mut self) -> Option<Wire> {
        match self {
            Self::Iscsi(machine) => machine.poll_wire(),
            Self::Aoe(_) => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        either!(self, machine => machine.poll_timeout())
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        either!(self, machine => machine.handle_timeout(now));
    }

    pub(super) fn why(&self, now: Instant) -> Option<String> {
        match self {
            Self::Iscsi(machine) => machine.why(),
            Self::Aoe(machine) => machine.why(now),
        }
    }

    pub(super) fn next(&self, now: Instant) -> Option<String> {
        either!(self, machine => machine.next(now))
    }

    pub(super) fn limits(&self) -> Vec<crate::multipath::status::Limit> {
        either!(self, machine => machine.limits())
    }

    pub(super) fn is_quiet(&self) -> bool {
        either!(self, machine => machine.is_quiet())
    }
}
