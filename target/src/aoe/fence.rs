//! Waiting until commands of AoE clients can have no effect any more: before a reservation that
//! shuts them out is answered, be it theirs or an initiator's.
//!
//! The reservation is in force by then, so those that are waited for get fewer only. Nobody can
//! abort an AoE command; while storage hangs, so does the answer.

use std::rc::Rc;

use corbel_proto::aoe::HeaderRepr;
use corbel_proto::memory::Buffer;

use super::PortId;
use super::commands::{Answer, Change};
use super::local::Local;
use super::server::{AoeServer, InFlight};
use crate::host::ShardId;
use crate::volume::VolumeId;

/// Repetitions of one question wait like the first; more than this are dropped.
const FENCES_MAX: usize = 64;

/// Commands that are waited for, and why.
#[derive(Debug)]
pub(super) struct Fence {
    /// Their tags.
    left: Vec<u64>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    /// Tell this shard, by its number for it.
    Acknowledge(ShardId, u64),
    /// Answer a reservation.
    Answer(Change),
}

impl<B: Buffer> AoeServer<B> {
    /// Waits for all commands on `volume` that the engine has now; then [`Self::poll_fenced`] gives
    /// `asker`.
    pub fn fence(&mut self, volume: VolumeId, asker: (ShardId, u64)) {
        let left = self.tags(|command| command.local.slot.disk().volume().id == volume);
        if left.is_empty() {
            return self.fenced.push_back(asker);
        }
        self.fences.push(Fence { left, then: Then::Acknowledge(asker.0, asker.1) });
    }

    /// The next that has waited long enough.
    pub fn poll_fenced(&mut self) -> Option<(ShardId, u64)> {
        self.fenced.pop_front()
    }

    /// Answers a reservation that is in force, once no command of those that it shuts out can have
    /// an effect any more.
    pub(super) fn reserved(
        &mut self,
        port: PortId,
        local: &Rc<Local>,
        header: &HeaderRepr,
        answer: Answer,
    ) {
        let address = local.slot.address();
        let left = self.tags(|command| {
            let same = command.local.slot.address() == address;
            same && local.reserved_against(command.header.source)
        });
        if left.is_empty() {
            return self.answer(port, local, header, answer);
        }
        if self.fences.len() >= FENCES_MAX {
            return local.count(|s| s.busy += 1); // its client repeats
        }
        let change = Change { port, local: local.clone(), header: *header, answer };
        self.fences.push(Fence { left, then: Then::Answer(change) });
    }

    fn tags(&self, fits: impl Fn(&InFlight) -> bool) -> Vec<u64> {
        let fitting = self.in_flight.iter().filter(|(_, command)| fits(command));
        fitting.map(|(key, _)| key as u64).collect()
    }

    /// The command of this tag has ended.
    pub(super) fn passed(&mut self, tag: u64) {
        for fence in &mut self.fences {
            fence.left.retain(|left| *left != tag);
        }
        while let Some(at) = self.fences.iter().position(|fence| fence.left.is_empty()) {
            match self.fences.remove(at).then {
                Then::Acknowledge(shard, ask) => self.fenced.push_back((shard, ask)),
                Then::Answer(Change { port, local, header, answer }) => {
                    self.answer(port, &local, &header, answer);
                }
            }
        }
    }
}
