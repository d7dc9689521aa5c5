//! A shard's raw Ethernet ports, and what happens to their interfaces.
//!
//! # Order
//!
//! An AoE client repeats a write it got no answer for, under a new tag and on another interface
//! if it likes. Once one copy is acknowledged, the client may write something else to the same
//! place; the other copy must not be executed after that. The volume's range lock sees to it for
//! copies that it has seen, but not for one that still lies in a receive ring. Frames for one
//! shelf and slot are therefore executed in the order in which this host's kernel took them:
//!
//! - All of them go to one shard, on every interface: each shard's socket has a filter that
//!   knows its share by the bytes of shelf and slot. Frames are not spread by load or by when a
//!   socket joined, and a full ring does not overflow into another shard's. A broadcast reaches
//!   one shard by the same rule, which answers for all slots.
//! - A shard takes frames from all its ports by the kernel's time stamps, oldest first.
//!
//! No target can order what happened before: a copy that a switch, a network card or a kernel
//! on a stalled processor hands on only after a newer write was executed is executed last. Nor
//! does the order between *two* interfaces hold for frames that lie in the rings while the wall
//! clock, which the kernel stamps them by, is set back.
//!
//! # A device that hangs
//!
//! Writes lie in the receive ring while their device works on them. Those of a device that hangs
//! would stop the ring, and with it every other device's frames; a port held up for
//! [`BLOCKED_MAX`] gets a fresh ring, from which payload is copied until the old one is free.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use corbel_proto::aoe::{ATA_DATA_OFFSET, ETHERTYPE, Mac};
use corbel_proto::memory::Slice;
use corbel_proto::time::{Duration, Instant};
use corbel_ring::memory::{Arena, Buf};
use corbel_ring::packet::{
    LinkEvent, Links, Port, PortConfig, PortError, PortStatistics, Share, first_received,
};
use corbel_ring::reactor::{File, Op, Reactor};

use crate::aoe::{AoeServer, Frame, PortId};

/// Frames that a port's receive ring holds: more than the windows of several clients.
const RING_FRAMES: usize = 512;

/// Frames taken, for each port, before anything else gets its turn.
const BURST: usize = 64;

/// Where shelf and slot lie in a frame (AoE r11, section 2.1).
const ADDRESS_OFFSET: u16 = 16;
const ADDRESS_BYTES: u8 = 3;

/// How long one write may keep the next slot of the ring occupied, and frames be lost for it.
const BLOCKED_MAX: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Open {
    port: Port,
    file: File,
    /// The ring may hold frames that were not taken yet.
    ready: bool,
    /// Since when the ring has been held up, and by which slot.
    blocked: Option<(Instant, u32)>,
}

impl Open {
    fn renew(&mut self, reactor: &mut Reactor, tag: u64) -> Result<(), PortError> {
        let fresh = self.port.fresh()?;
        let name = || fresh.interface().name.clone();
        let attached = reactor.attach_port(&fresh);
        let file = attached.map_err(|error| PortError::Io { name: name(), error })?;
        reactor.close(self.file);
        reactor.watch(file, &fresh, tag);
        *self = Self { port: fresh, file, ready: true, blocked: None };
        Ok(())
    }
}

#[derive(Debug)]
struct Entry {
    name: String,
    open: Option<Open>,
}

/// What a status report says of a port.
#[derive(Debug, Clone)]
pub(super) struct PortReport {
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) statistics: PortStatistics,
}

/// The ports of one shard.
#[derive(Debug)]
pub(super) struct Ports {
    entries: BTreeMap<PortId, Entry>,
    links: Option<(Links, File)>,
    /// Which of the interfaces' frames are for this shard.
    share: Option<Share>,
    /// Operation tags: one base for readiness and one for frames sent.
    tags: Tags,
}

/// How completions of ports are told apart; the port's number is added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tags {
    pub(super) readable: u64,
    pub(super) sent: u64,
    pub(super) links: u64,
}

impl Ports {
    /// The ports of shard number `shard` of `shards`.
    pub(super) fn new(shard: u16, shards: u16, tags: Tags) -> Self {
        let (key_offset, key_bytes) = (ADDRESS_OFFSET, ADDRESS_BYTES);
        let share = Share { key_offset, key_bytes, shards, shard };
        let share = Some(share).filter(|_| shards > 1);
        Self { entries: BTreeMap::new(), links: None, share, tags }
    }

    /// Serves on `name` from now on, as soon as it is there.
    pub(super) fn add(
        &mut self,
        id: PortId,
        name: &str,
        reactor: &mut Reactor,
        aoe: &mut AoeServer<Buf>,
    ) -> Result<(), PortError> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        self.watch(reactor);
        self.entries.insert(id, Entry { name: name.to_owned(), open: None });
        self.open(id, reactor, aoe)
    }

    /// Leaves every port that `keep` does not name.
    pub(super) fn retain(
        &mut self,
        keep: &[PortId],
        reactor: &mut Reactor,
        aoe: &mut AoeServer<Buf>,
    ) {
        let gone: Vec<_> = self.entries.keys().filter(|id| !keep.contains(id)).copied().collect();
        for id in gone {
            self.close(id, reactor, aoe);
            self.entries.remove(&id);
        }
    }

    fn watch(&mut self, reactor: &mut Reactor) {
        if self.links.is_some() {
            return;
        }
        let watched = Links::open().and_then(|links| {
            let file = reactor.attach(links.descriptor().as_fd().try_clone_to_owned()?);
            reactor.submit(Op::PollReadable { file }, self.tags.links);
            Ok((links, file))
        });
        match watched {
            Ok(links) => self.links = Some(links),
            Err(error) => tracing::warn!(
                %error,
                "interfaces are not watched: one that comes back is not served until a reload"
            ),
        }
    }

    fn open(
        &mut self,
        id: PortId,
        reactor: &mut Reactor,
        aoe: &mut AoeServer<Buf>,
    ) -> Result<(), PortError> {
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(()) };
        let config = PortConfig {
            ethertype: ETHERTYPE,
            payload_offset: ATA_DATA_OFFSET,
            frames: RING_FRAMES,
            share: self.share,
        };
        let port = Port::open(&entry.name, config)?;
        let name = entry.name.clone();
        let file = reactor.attach_port(&port).map_err(|error| PortError::Io { name, error })?;
        reactor.watch(file, &port, self.tags.readable + u64::from(id.0));
        let interface = port.interface();
        aoe.port_up(id, Mac(interface.mac), interface.mtu);
        entry.open = Some(Open { port, file, ready: true, blocked: None });
        Ok(())
    }

    fn close(&mut self, id: PortId, reactor: &mut Reactor, aoe: &mut AoeServer<Buf>) {
        aoe.port_down(id);
        if let Some(open) = self.entries.get_mut(&id).and_then(|entry| entry.open.take()) {
            reactor.close(open.file);
        }
    }

    /// Takes no more frames; answers still go out.
    pub(super) fn stop(&mut self, reactor: &mut Reactor) {
        self.all_open().for_each(|(_, open)| reactor.unwatch(open.file));
    }

    /// A port said that it has frames.
    pub(super) fn readable(&mut self, id: PortId) {
        if let Some(open) = self.entries.get_mut(&id).and_then(|entry| entry.open.as_mut()) {
            open.ready = true;
        }
    }

    /// True if some port may hold frames: do not wait.
    pub(super) fn has_frames(&self) -> bool {
        self.entries.values().any(|entry| entry.open.as_ref().is_some_and(|open| open.ready))
    }

    fn all_open(&mut self) -> impl Iterator<Item = (PortId, &mut Open)> {
        self.entries.iter_mut().filter_map(|(id, entry)| Some((*id, entry.open.as_mut()?)))
    }

    /// Takes at most a burst of frames, in the order in which the kernel took them. A port that
    /// has not said so yet may hold the oldest.
    pub(super) fn receive(&mut self, arena: &Arena, mut take: impl FnMut(PortId, Slice<Buf>)) {
        if !self.has_frames() {
            return;
        }
        for _ in 0..BURST * self.entries.len() {
            let look = || {
                self.all_open().filter_map(|(id, open)| Some((open.port.next_time()?, id))).min()
            };
            let Some((_, id)) = first_received(look) else {
                return self.all_open().for_each(|(_, open)| open.ready = false);
            };
            let open = self.entries.get_mut(&id).and_then(|entry| entry.open.as_mut());
            if let Some(frame) = open.and_then(|open| open.port.receive(arena)) {
                take(id, frame);
            }
        }
    }

    /// Ports whose ring is held up get another one in time.
    pub(super) fn unblock(&mut self, now: Instant, reactor: &mut Reactor) {
        let readable = self.tags.readable;
        for (id, open) in self.all_open() {
            let slot = open.port.blocked_by().filter(|_| !open.port.is_copying());
            let Some(slot) = slot else {
                open.blocked = None;
                continue;
            };
            // A disk that is slow, but gets on, is known by another slot each time.
            let known = open.blocked.filter(|(_, by)| *by == slot);
            let (since, _) = *open.blocked.insert(known.unwrap_or((now, slot)));
            if now.since(since) < BLOCKED_MAX {
                continue;
            }
            let name = open.port.interface().name.clone();
            match open.renew(reactor, readable + u64::from(id.0)) {
                Ok(()) => tracing::warn!(
                    interface = name,
                    "storage has not finished writes for a whole round of the receive ring; \
                     copying frames until it has"
                ),
                Err(error) => {
                    tracing::warn!(%error, "no other receive ring for one that is held up");
                    open.blocked = Some((now, slot));
                }
            }
        }
    }

    /// When [`Self::unblock`] has something to do at the latest.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let open = self.entries.values().filter_map(|entry| entry.open.as_ref());
        open.filter_map(|open| Some(open.blocked?.0 + BLOCKED_MAX)).min()
    }

    /// Sends a frame, or forgets it if its port is gone: clients repeat.
    pub(super) fn send(&self, frame: Frame<Buf>, reactor: &mut Reactor) {
        let Some(entry) = self.entries.get(&frame.port) else { return };
        let Some(open) = &entry.open else { return };
        let mut message = reactor.message();
        message.bytes(frame.header()).bytes(&frame.body);
        for payload in frame.payload {
            message.payload(payload);
        }
        message.frame();
        let tag = self.tags.sent + u64::from(frame.port.0);
        reactor.submit(Op::Send { file: open.file, message }, tag);
    }

    /// The interfaces said something. Gives the ports that clients should hear from.
    pub(super) fn link_events(
        &mut self,
        reactor: &mut Reactor,
        aoe: &mut AoeServer<Buf>,
    ) -> Vec<PortId> {
        let Some((links, _)) = &mut self.links else { return Vec::new() };
        let events = match links.events() {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "interfaces cannot be watched");
                return Vec::new();
            }
        };
        let mut announce = Vec::new();
        for event in events {
            let (LinkEvent::Added(interface)
            | LinkEvent::Removed(interface)
            | LinkEvent::Up(interface)
            | LinkEvent::Down(interface)
            | LinkEvent::MtuChanged(interface)
            | LinkEvent::AddressChanged(interface)) = &event;
            let known = self.entries.iter().find(|(_, entry)| entry.name == interface.name);
            let Some(id) = known.map(|(id, _)| *id) else { continue };
            tracing::info!(interface = interface.name, mtu = interface.mtu, ?event, "link event");
            match event {
                LinkEvent::Removed(_) => self.close(id, reactor, aoe),
                LinkEvent::Down(_) => continue,
                LinkEvent::Up(_) if self.is_open(id) => {}
                LinkEvent::Added(_)
                | LinkEvent::Up(_)
                | LinkEvent::MtuChanged(_)
                | LinkEvent::AddressChanged(_) => {
                    self.close(id, reactor, aoe);
                    if let Err(error) = self.open(id, reactor, aoe) {
                        tracing::warn!(%error, "port not opened");
                        continue;
                    }
                }
            }
            announce.push(id);
        }
        announce
    }

    fn is_open(&self, id: PortId) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.open.is_some())
    }

    /// All ports.
    pub(super) fn ids(&self) -> Vec<PortId> {
        self.entries.keys().copied().collect()
    }

    /// For a status report.
    pub(super) fn report(&mut self) -> Vec<PortReport> {
        let interfaces = self.links.as_ref().map(|(links, _)| links);
        let up = |name: &str| {
            interfaces.is_none_or(|links| links.interfaces().any(|i| i.name == name && i.up))
        };
        self.entries
            .values_mut()
            .map(|entry| {
                let up = up(&entry.name);
                match &mut entry.open {
                    Some(Open { port, .. }) => PortReport {
                        name: entry.name.clone(),
                        mac: Some(Mac(port.interface().mac)),
                        mtu: port.interface().mtu,
                        up,
                        statistics: port.statistics(),
                    },
                    None => PortReport {
                        name: entry.name.clone(),
                        mac: None,
                        mtu: 0,
                        up: false,
                        statistics: PortStatistics::default(),
                    },
                }
            })
            .collect()
    }
}
