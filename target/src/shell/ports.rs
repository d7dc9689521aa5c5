//! A shard's raw Ethernet ports, and what happens to their interfaces.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use corbel_proto::aoe::{ATA_DATA_OFFSET, ETHERTYPE, Mac};
use corbel_proto::memory::Slice;
use corbel_ring::memory::Buf;
use corbel_ring::packet::{LinkEvent, Links, Port, PortConfig, PortError, PortStatistics};
use corbel_ring::reactor::{File, Op, Reactor};

use crate::aoe::{AoeServer, Frame, PortId};

/// Frames that a port's receive ring holds: more than the windows of several clients.
const RING_FRAMES: usize = 512;

/// Frames taken from one port before others get their turn.
const BURST: usize = 64;

#[derive(Debug)]
struct Open {
    port: Port,
    file: File,
    /// The ring may hold frames that were not taken yet.
    ready: bool,
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
    /// Several shards share the interfaces' frames.
    shared: bool,
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
    pub(super) fn new(shared: bool, tags: Tags) -> Self {
        Self { entries: BTreeMap::new(), links: None, shared, tags }
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
            fanout: self.shared.then(|| fanout_group(id)),
        };
        let port = Port::open(&entry.name, config)?;
        let name = entry.name.clone();
        let file = reactor.attach_port(&port).map_err(|error| PortError::Io { name, error })?;
        reactor.submit(Op::PollReadable { file }, self.tags.readable + u64::from(id.0));
        let interface = port.interface();
        aoe.port_up(id, Mac(interface.mac), interface.mtu);
        entry.open = Some(Open { port, file, ready: true });
        Ok(())
    }

    fn close(&mut self, id: PortId, reactor: &mut Reactor, aoe: &mut AoeServer<Buf>) {
        aoe.port_down(id);
        if let Some(open) = self.entries.get_mut(&id).and_then(|entry| entry.open.take()) {
            reactor.close(open.file);
        }
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

    /// Takes at most a burst of frames from every port that has some.
    pub(super) fn receive(&mut self, mut take: impl FnMut(PortId, Slice<Buf>)) {
        for (id, entry) in &mut self.entries {
            let Some(open) = entry.open.as_mut().filter(|open| open.ready) else { continue };
            for _ in 0..BURST {
                let Some(frame) = open.port.receive() else {
                    open.ready = false;
                    break;
                };
                take(*id, frame);
            }
        }
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

/// A number that is this process's and this port's alone, as far as 16 bits go.
fn fanout_group(id: PortId) -> u16 {
    let process = std::process::id().to_le_bytes();
    u16::from_le_bytes([process[0], process[1]]).wrapping_mul(31).wrapping_add(id.0)
}
