//! What all connections of a session share (RFC 7143 4.2.2.1): the order of commands and the
//! window.
//!
//! A session of one connection has its order inside that connection. Where there are several, the
//! session keeps it and lends it to the connection that something happens on: no lock, since all
//! of them live on one thread. A command whose turn comes while the order is with another
//! connection is handed on as a [`Passed`].

use std::collections::BTreeMap;

use super::input::Request;
use super::tasks::{Place, Task};
use super::{Connection, Event, Phase};
use crate::iscsi::sequence::Window;
use crate::memory::Buffer;

/// A request that came ahead of its turn.
#[derive(Debug)]
pub(super) struct Held {
    /// The connection that it came on.
    pub(super) link: u32,
    /// `None`: aborted before it came.
    pub(super) request: Option<Request>,
}

/// See the module.
#[derive(Debug)]
pub struct Order {
    pub(super) window: Window,
    /// Commands and functions that hold a place in the window.
    pub(super) active: u32,
    /// Arrived ahead of their turn.
    pub(super) held: BTreeMap<u32, Held>,
}

impl Order {
    pub(super) const fn new(window: Window) -> Self {
        Self { window, active: 0, held: BTreeMap::new() }
    }

    /// A task that waited for another connection is over: its place is free.
    pub fn free_place(&mut self) {
        self.active = self.active.saturating_sub(1);
    }
}

/// A request for another connection of the session, whose turn it is.
#[derive(Debug)]
pub struct Passed(pub(super) Request);

impl<B: Buffer> Connection<B> {
    /// Which connection of its session this is. Links of one session differ.
    pub fn set_link(&mut self, link: u32) {
        self.link = link;
    }

    /// Takes the order away. Until it is back, nothing may be called but what answers, and
    /// [`Self::poll`].
    pub fn take_order(&mut self) -> Order {
        let stale = Order::new(self.order.window);
        core::mem::replace(&mut self.order, stale)
    }

    /// Gives the order (back).
    pub fn give_order(&mut self, order: Order) {
        self.order = order;
    }

    /// It is the turn of a request that came on this connection: see [`Event::Elsewhere`].
    pub fn take_passed(&mut self, passed: Passed) {
        if self.phase == Phase::Full {
            self.take(passed.0);
        } else {
            self.reopen();
        }
    }

    /// What was held back by another connection of the session, which is gone, may go on.
    pub fn resume(&mut self) {
        if self.phase == Phase::Full {
            self.reopen();
            self.run_held();
        }
    }

    /// Takes what is next in order, as far as it has come.
    pub(super) fn run_held(&mut self) {
        while self.phase == Phase::Full {
            let order = &mut self.order;
            let Some(Held { link, request }) = order.held.remove(&order.window.expected()) else {
                return;
            };
            order.window.advance();
            match request {
                Some(request) if link == self.link => self.take(request),
                Some(request) => self.events.push_back(Event::Elsewhere(link, Passed(request))),
                None => self.reopen(),
            }
        }
    }

    /// The window after a number that holds no place in it.
    pub(super) fn reopen(&mut self) {
        let room = self.config.window.saturating_sub(self.order.active);
        self.order.window.grant(room);
    }

    pub(super) fn finish_one(&mut self) {
        self.order.active = self.order.active.saturating_sub(1);
        self.reopen();
    }

    /// This connection ends: nothing of it has a turn any more, or a place in the window.
    pub(super) fn leave_order(&mut self) {
        let link = self.link;
        self.order.held.retain(|_, held| held.link != link);
        // Tasks that wait for another connection keep their places.
        let tasks = if self.orphaned {
            0
        } else {
            let holds = |task: &&Task<B>| task.delivered && task.place == Place::Window;
            self.tasks.values().filter(holds).count()
        };
        let functions = self.functions.iter().filter(|(_, immediate)| !immediate).count();
        let mut answers = 0;
        for control in &mut self.control {
            answers += usize::from(core::mem::replace(&mut control.frees, false));
        }
        let places = u32::try_from(tasks + functions + answers).unwrap_or(u32::MAX);
        self.order.active = self.order.active.saturating_sub(places);
        self.reopen();
    }
}
