//! Responses that have to come before others (RFC 7143 4.2.2.3).
//!
//! Within a connection responses come in the order they were given. Where the answer to a task
//! management function may only be seen after what went out before it on the session's other
//! connections, each of those raises a fence: it is passed once the initiator has acknowledged, by
//! ExpStatSN, every response that had its StatSN by then. An initiator that is silent is pinged, so
//! that it says how far it has got.

use super::output::StatSn;
use super::{Connection, Event, Phase, QUEUE_PDUS_MAX};
use crate::iscsi::bhs::{Lun, TAG_NONE};
use crate::iscsi::pdu::Numbers;
use crate::iscsi::pdu::nop::NopIn;
use crate::iscsi::sequence;
use crate::memory::Buffer;

/// See the module.
#[derive(Debug)]
pub(super) struct Fence {
    number: u64,
    /// What ExpStatSN has to reach.
    until: u32,
}

impl<B: Buffer> Connection<B> {
    /// Raises a fence behind every response that is on its way. False if all of them are
    /// acknowledged; else [`Event::Passed`] with this number follows once they are, or when the
    /// connection ends.
    pub fn raise_fence(&mut self, number: u64) -> bool {
        let until = self.next_unqueued();
        if self.phase != Phase::Full || self.has_reached(until) {
            return false;
        }
        let asked = self.fences.iter().any(|fence| fence.until == until);
        self.fences.push(Fence { number, until });
        if !asked && self.control.len() < QUEUE_PDUS_MAX {
            let ttt = self.new_ttt();
            let ping = NopIn { lun: Lun(0), itt: TAG_NONE, ttt, numbers: Numbers::default() };
            self.queue(ping.emit(), StatSn::Peek, &[], false);
        }
        true
    }

    /// Nobody waits for this fence any more.
    pub fn lower_fence(&mut self, number: u64) {
        self.fences.retain(|fence| fence.number != number);
    }

    /// The StatSN that the next response will have that is not in the queue yet. Answers to
    /// commands have theirs when their status is sent.
    pub(super) fn next_unqueued(&self) -> u32 {
        let consumes = self.control.iter().filter(|control| control.stat == StatSn::Consume);
        consumes.fold(self.stat_sn, |sn, _| sn.wrapping_add(1))
    }

    fn has_reached(&self, until: u32) -> bool {
        let said = self.exp_stat_sn;
        !sequence::before(said, until) && !sequence::before(self.stat_sn, said)
    }

    /// Something was acknowledged.
    pub(super) fn pass_fences(&mut self) {
        let fences = core::mem::take(&mut self.fences);
        for fence in fences {
            if self.has_reached(fence.until) {
                self.events.push_back(Event::Passed(fence.number));
            } else {
                self.fences.push(fence);
            }
        }
    }

    /// The connection is over: nothing of it comes any more.
    pub(super) fn drop_fences(&mut self) {
        let passed = self.fences.drain(..).map(|fence| Event::Passed(fence.number));
        self.events.extend(passed);
    }
}
