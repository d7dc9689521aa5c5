//! A host: the initiator's own code, and the application above it.

use std::collections::BTreeMap;

use corbel_initiator::device::{Config, Device, PathConfig};
use corbel_initiator::multipath::policy::Policy;
use corbel_initiator::multipath::rules::Rules;
use corbel_initiator::multipath::status::{DeviceStatus, Notice};
use corbel_initiator::multipath::{Geometry, Legacy};
use corbel_initiator::path::PathId;
use corbel_initiator::path::aoe::{self, Link};
use corbel_initiator::path::iscsi::{self, Chunk, StreamId, Wire};
use corbel_initiator::request::Request;
use corbel_proto::memory::{HeapArena, HeapBuffer};
use corbel_proto::time::Instant;

use super::fabric::{Input, Node, Output};
use super::head::{ADDRESS, host_mac, link_of, portal, target_name};
use super::load::Load;
use super::plan::SECTORS;
use super::store::SECTOR_BYTES;

/// A path of a host.
#[derive(Debug, Clone)]
pub struct PathPlan {
    /// The link it goes over.
    pub link: usize,
    /// The head at its end.
    pub head: usize,
    /// The number in the name of its target.
    pub name: usize,
    /// How it speaks.
    pub speaks: Speaks,
}

/// A protocol, and its time limits.
#[derive(Debug, Clone)]
pub enum Speaks {
    /// iSCSI.
    Iscsi(iscsi::Timers),
    /// AoE.
    Aoe(aoe::Timers),
}

/// How a host uses the storage.
#[derive(Debug, Clone)]
pub struct HostPlan {
    /// Its number.
    pub index: usize,
    /// Its paths.
    pub paths: Vec<PathPlan>,
    /// What its administrator decided.
    pub policy: Policy,
    /// The rules that its initiator keeps.
    pub rules: Rules,
    /// MTU of each of its links.
    pub mtus: BTreeMap<usize, u32>,
    /// Commands on a path at a time.
    pub depth: u16,
    /// Decides whatever is to look random.
    pub seed: u64,
    /// Its administrator has written down which device it is; else the first that answers is.
    pub knows: bool,
    /// It tells what it does.
    pub aloud: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    plan: HostPlan,
    /// The application.
    pub load: Load,
    device: Option<Device<HeapArena>>,
    lives: u64,
    /// What an administrator was told, in order.
    pub notices: Vec<(Instant, Notice)>,
    /// The device's name, once known.
    wwid: Option<String>,
    /// The caches it writes to, as the daemon has written them down, and which version of that.
    caches: (u64, Legacy),
    grown: Option<Instant>,
    /// The links of connections that are being made: path, stream, link.
    connecting: Vec<(u16, u64, usize)>,
}

/// Memory for second copies of reads.
const HEDGE_BYTES: usize = 64 << 10;

impl Machine {
    /// A machine on which nothing runs yet.
    pub fn new(plan: HostPlan, load: Load) -> Self {
        let wwid = plan.knows.then(|| super::head::wwid(false));
        Self {
            plan,
            load,
            device: None,
            lives: 0,
            notices: Vec::new(),
            wwid,
            caches: (0, Legacy::default()),
            grown: None,
            connecting: Vec::new(),
        }
    }

    /// When its device said first that it is larger than it was in the beginning.
    pub const fn grown(&self) -> Option<Instant> {
        self.grown
    }

    /// What the device says of itself.
    pub fn status(&mut self, now: Instant) -> Option<DeviceStatus> {
        self.device.as_mut().map(|device| device.status(now))
    }

    fn path(&self, number: usize, path: &PathPlan) -> (String, PathConfig) {
        let recovering = self.lives > 1;
        match &path.speaks {
            Speaks::Iscsi(timers) => {
                let initiator = format!("iqn.2026-11.org.example:host{}", self.plan.index);
                let index = u8::try_from(self.plan.index).expect("few hosts");
                let number = u8::try_from(number).expect("few paths");
                let config = iscsi::Config {
                    timers: timers.clone(),
                    depth: self.plan.depth.into(),
                    recovering,
                    ..iscsi::Config::new(
                        initiator.parse().expect("a name"),
                        [0x80, 0, 0, 0, index, number],
                        target_name(path.name).parse().expect("a name"),
                        0,
                        portal(path.link),
                    )
                };
                (format!("iscsi:{number}"), PathConfig::Iscsi(Box::new(config)))
            }
            Speaks::Aoe(timers) => {
                let (shelf, slot) = ADDRESS;
                let config = aoe::Config {
                    timers: *timers,
                    depth: self.plan.depth,
                    recovering,
                    ..aoe::Config::new(shelf, slot)
                };
                (format!("aoe:{number}"), PathConfig::Aoe(interface(path.link), Box::new(config)))
            }
        }
    }

    fn link(&self, link: usize, up: bool) -> Link {
        Link { mac: host_mac(link), mtu: self.plan.mtus[&link], up }
    }

    /// Lets the application ask, and passes on what the device has to say.
    fn pump(&mut self, now: Instant, out: &mut Vec<Output>) {
        loop {
            let Some(device) = &mut self.device else {
                while self.load.ask(now).is_some() {}
                return;
            };
            let mut quiet = true;
            let larger = |now: Geometry| now.size_bytes > (SECTORS * SECTOR_BYTES) as u64;
            if device.geometry().is_some_and(larger) {
                self.grown.get_or_insert(now);
            }
            while let Some(number) = self.load.ask(now) {
                let request = self.load.request(now, number).expect("it was just asked for");
                if self.plan.aloud {
                    let Request { operation, extent, .. } = &request;
                    let (first, count) = (extent.offset / 512, extent.len / 512);
                    out.push(Output::Say(format!("{number:#x} {operation:?} {first}+{count}")));
                }
                device.submit(now, request);
                quiet = false;
            }
            while let Some(outcome) = device.poll_outcome() {
                self.load.answered(now, &outcome);
                if self.plan.aloud {
                    let (number, result) = (outcome.id.0, outcome.result);
                    out.push(Output::Say(format!("{number:#x} ended {result:?}")));
                }
                quiet = false;
            }
            while let Some(notice) = device.poll_notice() {
                if self.plan.aloud {
                    out.push(Output::Say(format!("{notice:?}")));
                }
                self.notices.push((now, notice));
            }
            while let Some((PathId(path), wire)) = device.poll_wire() {
                out.push(match wire {
                    Wire::Connect { stream, portal } => {
                        let link = link_of(portal).expect("portals are links'");
                        self.connecting.push((path, stream.0, link));
                        Output::Connect(path, stream.0, link)
                    }
                    Wire::Close { stream } => Output::Close(path, stream.0),
                });
                quiet = false;
            }
            if self.caches.0 != device.legacy_version() {
                self.caches = (device.legacy_version(), device.legacy());
            }
            quiet &= !transmit(device, out);
            if quiet {
                return;
            }
        }
    }
}

/// Takes everything that is to be sent. False if there was nothing.
fn transmit(device: &mut Device<HeapArena>, out: &mut Vec<Output>) -> bool {
    let before = out.len();
    for path in device.stream_paths().collect::<Vec<_>>() {
        while let Some((StreamId(stream), chunk)) = device.transmit(path) {
            out.push(Output::Bytes(path.0, stream, bytes(&chunk)));
        }
    }
    for name in device.interfaces().map(str::to_owned).collect::<Vec<_>>() {
        while let Some(frame) = device.transmit_frame(&name) {
            let mut bytes = frame.head.to_vec();
            bytes.extend(frame.data.iter().flat_map(|data| data.bytes()));
            bytes.resize(bytes.len().max(60), 0);
            let link = name.strip_prefix("eth").and_then(|link| link.parse().ok());
            out.push(Output::Frame(link.expect("we name interfaces"), bytes));
        }
    }
    out.len() > before
}

fn bytes(chunk: &Chunk<HeapBuffer>) -> Vec<u8> {
    let mut bytes = chunk.head.to_vec();
    bytes.extend(chunk.data.iter().flat_map(|data| data.bytes()));
    bytes.extend_from_slice(&chunk.tail);
    bytes
}

fn interface(link: usize) -> String {
    format!("eth{link}")
}

impl Node for Machine {
    fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        let link = match &input {
            Input::Carrier(link, up) => Some((*link, self.link(*link, *up))),
            _ => None,
        };
        if let Some(device) = &mut self.device {
            match input {
                Input::Connected(path, stream) => {
                    // As the kernel's routes have it: not always the path's own link.
                    let is = |one: &&(u16, u64, usize)| (one.0, one.1) == (path, stream);
                    let link = self.connecting.iter().find(is).map(|(.., link)| *link);
                    self.connecting.retain(|one| one.0 != path || one.1 > stream);
                    device.connected(now, PathId(path), StreamId(stream), link.map(interface));
                }
                Input::Refused(path, stream) => {
                    let why = "connection refused".to_owned();
                    device.connect_failed(now, PathId(path), StreamId(stream), why);
                }
                Input::Bytes(path, stream, bytes) => {
                    device.received(now, PathId(path), StreamId(stream), &bytes);
                }
                Input::Closed(path, stream) => {
                    let why = "connection reset by peer".to_owned();
                    device.closed(now, PathId(path), StreamId(stream), why);
                }
                Input::Frame(link, bytes) => device.frame(now, &interface(link), &bytes),
                Input::Carrier(..) => {
                    let (number, link) = link.expect("made above");
                    device.link(now, &interface(number), link);
                }
                Input::Wake => {
                    if device.poll_timeout().is_some_and(|due| due <= now) {
                        device.handle_timeout(now);
                    }
                }
            }
        }
        self.pump(now, out);
    }

    fn wake_at(&self) -> Option<Instant> {
        let device = self.device.as_ref().and_then(Device::poll_timeout);
        [device, self.load.next_at()].into_iter().flatten().min()
    }

    fn kill(&mut self, now: Instant) {
        // The daemon writes down what the device is called.
        let learned = self.device.as_mut().and_then(|device| device.status(now).wwid);
        self.wwid = self.wwid.take().or(learned);
        self.device = None;
        self.connecting.clear();
    }

    fn start(&mut self, now: Instant, carriers: &[(usize, bool)], out: &mut Vec<Output>) {
        self.lives += 1;
        let config = Config {
            name: "fleet".to_owned(),
            policy: self.plan.policy.clone(),
            rules: self.plan.rules,
            wwid: self.wwid.clone(),
        };
        let seed = self.plan.seed.wrapping_add(self.lives);
        let mut device = Device::new(now, config, HeapArena::new(HEDGE_BYTES), seed);
        device.inherit(self.caches.1.clone());
        for (number, up) in carriers {
            device.link(now, &interface(*number), self.link(*number, *up));
        }
        for (number, path) in self.plan.paths.iter().enumerate() {
            let (text, config) = self.path(number, path);
            device.add_path(now, &text, config, false);
        }
        for number in self.load.open_numbers() {
            let request = self.load.request(now, number).expect("it is open");
            device.submit(now, request);
        }
        device.taken_over(now);
        self.device = Some(device);
        self.pump(now, out);
    }

    fn rest(&mut self) {
        self.load.rest();
    }
}
