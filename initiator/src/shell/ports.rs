//! Interfaces: raw Ethernet ports of AoE paths, and what happens to every link.
//!
//! Each device has its own port on each interface it uses. The kernel hands every AoE frame to all
//! of them; a frame of another shelf and slot is looked at and forgotten. That costs with many
//! devices, and keeps one device's trouble out of another's way.

use std::os::fd::AsFd;

use corbel_proto::aoe::{ATA_DATA_OFFSET, ETHERTYPE, Mac};
use corbel_proto::time::Instant;
use corbel_ring::memory::{Arena, Buf};
use corbel_ring::packet::{LinkEvent, Links, Port, PortConfig, PortError};
use corbel_ring::reactor::{File, Op, Reactor};

use super::tag;
use crate::device::Device;
use crate::path::aoe::{Frame, Link};

/// Frames that a receive ring holds: more than a window of replies.
const RING_FRAMES: usize = 512;
/// Frames taken before anything else gets its turn.
const BURST: usize = 256;

#[derive(Debug)]
struct Open {
    port: Port,
    file: File,
    ready: bool,
}

#[derive(Debug)]
struct Entry {
    name: String,
    open: Option<Open>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ports {
    entries: Vec<Entry>,
    links: Option<Links>,
}

impl Ports {
    /// Begins to watch the links and tells the device of each.
    pub(super) fn watch(
        &mut self,
        now: Instant,
        reactor: &mut Reactor,
        device: &mut Device<Arena>,
    ) {
        let watched = Links::open().and_then(|links| {
            let file = reactor.attach(links.descriptor().as_fd().try_clone_to_owned()?);
            reactor.submit(Op::PollReadable { file }, tag::of(tag::LINKS, 0));
            Ok(links)
        });
        match watched {
            Ok(links) => {
                for interface in links.interfaces() {
                    device.link(now, &interface.name, link(interface));
                }
                self.links = Some(links);
            }
            Err(error) => tracing::warn!(
                %error,
                "interfaces cannot be watched: a lost carrier is noticed by silence alone"
            ),
        }
    }

    /// Opens ports on interfaces that the device's paths use and that have none.
    pub(super) fn open_wanted(&mut self, reactor: &mut Reactor, device: &Device<Arena>) {
        let wanted: Vec<String> = device.interfaces().map(str::to_owned).collect();
        for name in wanted {
            if !self.entries.iter().any(|entry| entry.name == name) {
                self.entries.push(Entry { name, open: None });
                let index = self.entries.len() - 1;
                if let Err(error) = self.open(index, reactor) {
                    tracing::warn!(%error, "no port yet");
                }
            }
        }
    }

    fn open(&mut self, index: usize, reactor: &mut Reactor) -> Result<(), PortError> {
        let entry = &mut self.entries[index];
        let config = PortConfig {
            ethertype: ETHERTYPE,
            payload_offset: ATA_DATA_OFFSET,
            frames: RING_FRAMES,
            share: None,
        };
        let port = Port::open(&entry.name, config)?;
        let name = entry.name.clone();
        let file = reactor.attach_port(&port).map_err(|error| PortError::Io { name, error })?;
        reactor.watch(file, &port, tag::of(tag::PORT_READABLE, index));
        if let Some(old) = entry.open.replace(Open { port, file, ready: true }) {
            reactor.close(old.file);
        }
        Ok(())
    }

    /// A port has frames.
    pub(super) fn readable(&mut self, index: usize) {
        if let Some(open) = self.entries.get_mut(index).and_then(|entry| entry.open.as_mut()) {
            open.ready = true;
        }
    }

    /// True if some port may hold frames: do not wait.
    pub(super) fn has_frames(&self) -> bool {
        self.entries.iter().any(|entry| entry.open.as_ref().is_some_and(|open| open.ready))
    }

    /// Hands frames to the device.
    pub(super) fn receive(&mut self, now: Instant, device: &mut Device<Arena>, arena: &Arena) {
        for entry in &mut self.entries {
            let Some(open) = entry.open.as_mut().filter(|open| open.ready) else { continue };
            for _ in 0..BURST {
                let Some(frame) = open.port.receive(arena) else {
                    open.ready = open.port.next_time().is_some();
                    break;
                };
                device.frame(now, &entry.name, frame.bytes());
            }
        }
    }

    /// Sends what the device has to send.
    pub(super) fn send(&mut self, reactor: &mut Reactor, device: &mut Device<Arena>) {
        for (index, entry) in self.entries.iter().enumerate() {
            while let Some(frame) = device.transmit_frame(&entry.name) {
                let Some(open) = &entry.open else { continue };
                let message = message(reactor, frame);
                let tag = tag::of(tag::FRAME_SENT, index);
                reactor.submit(Op::Send { file: open.file, message }, tag);
            }
        }
    }

    /// The interfaces said something.
    pub(super) fn link_events(
        &mut self,
        now: Instant,
        reactor: &mut Reactor,
        device: &mut Device<Arena>,
    ) {
        let Some(links) = &mut self.links else { return };
        let events = match links.events() {
            Ok(events) => events,
            Err(error) => return tracing::warn!(%error, "interfaces cannot be watched"),
        };
        for event in events {
            let (LinkEvent::Added(interface)
            | LinkEvent::Removed(interface)
            | LinkEvent::Up(interface)
            | LinkEvent::Down(interface)
            | LinkEvent::MtuChanged(interface)
            | LinkEvent::AddressChanged(interface)) = &event;
            let (name, mut link) = (interface.name.clone(), link(interface));
            tracing::info!(interface = name, ?event, "link event");
            let index = self.entries.iter().position(|entry| entry.name == name);
            match &event {
                LinkEvent::Removed(_) => {
                    link.up = false;
                    let open = index.and_then(|index| self.entries[index].open.take());
                    open.into_iter().for_each(|open| reactor.close(open.file));
                }
                LinkEvent::Down(_) => {}
                LinkEvent::Up(_) if index.is_some_and(|i| self.entries[i].open.is_some()) => {}
                LinkEvent::Up(_)
                | LinkEvent::Added(_)
                | LinkEvent::MtuChanged(_)
                | LinkEvent::AddressChanged(_) => {
                    if let Some(Err(error)) = index.map(|index| self.open(index, reactor)) {
                        tracing::warn!(%error, "port not opened");
                    }
                }
            }
            device.link(now, &name, link);
        }
    }
}

fn link(interface: &corbel_ring::packet::Interface) -> Link {
    Link { mac: Mac(interface.mac), mtu: interface.mtu, up: interface.up }
}

fn message(reactor: &mut Reactor, frame: Frame<Buf>) -> corbel_ring::reactor::Message {
    let mut message = reactor.message();
    message.bytes(&frame.head);
    if let Some(data) = frame.data {
        message.payload(data);
    }
    message.frame();
    message
}
