//! What a device is presented as, on the thread that drives it.

mod kernel_nbd;
mod nbd;
mod ublk;

use std::path::PathBuf;

use corbel_proto::memory::SEGMENT_BYTES_MAX;
use corbel_ring::memory::{Arena, Buf};
use corbel_ring::reactor::{Event, Reactor};

use crate::admin::Presented;
use crate::config::Present;
use crate::multipath::Geometry;
use crate::request::{Outcome, Request};
use nbd::Nbd;
use ublk::Presence;

use super::run_state::RunState;

/// Requests of a kernel device at a time.
const DEPTH: u16 = 64;

/// What a presenter says.
#[derive(Debug)]
pub(super) enum News {
    /// Users may come.
    Ready(Presented),
    /// It is not taken away, since it is in use: by whom.
    InUse(String),
    /// It is gone.
    Gone,
    /// It cannot be, or can be no more.
    Failed(String),
    /// Something that an administrator should know.
    Note(String),
}

/// A presented device.
#[derive(Debug)]
pub(super) enum Presenter {
    Ublk(Box<Presence>),
    Nbd(Box<Nbd>),
}

/// Payload memory that a presenter and its paths need, bytes.
pub(super) fn memory_bytes(_present: &Present) -> usize {
    // As much again for writes whose memory a slow path still holds, and for second copies.
    2 * usize::from(DEPTH) * SEGMENT_BYTES_MAX
}

impl Presenter {
    /// Begins to present; the result is told by [`Self::poll_news`].
    ///
    /// # Errors
    /// What is missing, and how to mend it.
    pub(super) fn begin(
        name: &str,
        present: &Present,
        geometry: &Geometry,
        state: RunState,
        reactor: &mut Reactor,
    ) -> Result<Self, String> {
        let nbd = match present {
            Present::Ublk(id) => {
                return Presence::begin(name, *id, geometry, state, reactor)
                    .map(|ublk| Self::Ublk(Box::new(ublk)));
            }
            Present::Nbd(index) => Nbd::kernel(name, *index, geometry, state, reactor),
            Present::NbdUnix(path) => Nbd::unix(name, PathBuf::from(path), geometry, reactor),
            Present::NbdTcp(address) => Nbd::tcp(name, *address, geometry, reactor),
        };
        nbd.map(|nbd| Self::Nbd(Box::new(nbd)))
    }

    /// An operation of this presenter completed.
    pub(super) fn completed(
        &mut self,
        (kind, index): (u64, usize),
        event: Event,
        more: bool,
        reactor: &mut Reactor,
        arena: &mut Arena,
    ) {
        if let Self::Nbd(nbd) = self {
            nbd.completed(kind, index, event, more, reactor, arena);
        }
    }

    /// Appends requests that have come.
    pub(super) fn take(&mut self, arena: &mut Arena, out: &mut Vec<Request<Buf>>) {
        match self {
            Self::Ublk(ublk) => ublk.take(out),
            Self::Nbd(nbd) => nbd.take(arena, out),
        }
    }

    /// Ends a request.
    pub(super) fn complete(&mut self, outcome: Outcome<Buf>) {
        match self {
            Self::Ublk(ublk) => ublk.complete(outcome),
            Self::Nbd(nbd) => nbd.complete(outcome),
        }
    }

    /// Before the reactor waits: tells users everything. True: again within milliseconds.
    pub(super) fn flush(&mut self, reactor: &mut Reactor, arena: &mut Arena) -> bool {
        match self {
            Self::Ublk(ublk) => ublk.flush(),
            Self::Nbd(nbd) => nbd.flush(reactor, arena),
        }
    }

    /// What happened, until `None`.
    pub(super) fn poll_news(&mut self) -> Option<News> {
        match self {
            Self::Ublk(ublk) => ublk.poll_news(),
            Self::Nbd(nbd) => nbd.poll_news(),
        }
    }

    /// It is a device of the kernel's, which another process can take over.
    pub(super) fn outlives(&self) -> bool {
        match self {
            Self::Ublk(_) => true,
            Self::Nbd(nbd) => nbd.is_kernels(),
        }
    }

    /// The device has this size now.
    pub(super) fn resize(&mut self, size_bytes: u64) {
        match self {
            Self::Ublk(ublk) => ublk.resize(size_bytes),
            Self::Nbd(nbd) => nbd.resize(size_bytes),
        }
    }

    /// Begins to take it away; [`News::Gone`] or [`News::InUse`] follows. Every request is still
    /// owed its end.
    pub(super) fn stop(&mut self, force: bool, reactor: &mut Reactor) {
        match self {
            Self::Ublk(ublk) => ublk.stop(force),
            Self::Nbd(nbd) => nbd.stop(force, reactor),
        }
    }
}
