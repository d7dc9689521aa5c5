//! AoE on one interface.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};

use corbel_proto::aoe::initiator::discover::{self, Found};
use corbel_proto::aoe::initiator::{CommandId, Config, Failure, Operation, Path, Timeouts};
use corbel_proto::aoe::{ETHERTYPE, FRAME_BYTES_MIN, Mac, sectors_fitting};
use corbel_proto::time::{Duration, Instant};
use pnet_datalink::{Channel, ChannelType, DataLinkReceiver, DataLinkSender};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

use super::{Error, now};

/// How long one receive waits before the timers are looked at.
const TICK: Duration = Duration::from_millis(2);

/// Longest frame, bytes.
const FRAME_BYTES_MAX: usize = 1 << 16;

/// Room for frames that came in while nobody looked, bytes as the kernel counts them: several
/// windows of short frames. What the kernel grants unasked holds some forty.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Most servers that one discovery tells of, so that nobody fills our memory with inventions.
const FOUND_MAX: usize = 1 << 16;

/// A raw Ethernet socket on one interface. Needs CAP_NET_RAW.
pub struct Port {
    /// The interface's name.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({} {} mtu {})", self.name, self.mac, self.mtu)
    }
}

impl Port {
    /// Opens the interface `name`.
    ///
    /// # Errors
    /// If it does not exist, has no address, is down, or raw sockets are not permitted.
    pub fn open(name: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Interface { name: name.to_owned(), why: why.to_owned() };
        let all = pnet_datalink::interfaces();
        let interface = all.iter().find(|i| i.name == name).ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|i| i.name.as_str()).collect();
            wrong(&format!("there is none of that name; there are {}", names.join(", ")))
        })?;
        let mac = interface.mac.ok_or_else(|| wrong("it has no Ethernet address"))?;
        if !interface.is_up() {
            return Err(wrong("it is down; `ip link set … up` brings it up"));
        }
        let mtu = fs::read_to_string(format!("/sys/class/net/{name}/mtu"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1500);
        let refused = |error: io::Error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                wrong("raw sockets need root or CAP_NET_RAW")
            } else {
                Error::Io(error)
            }
        };
        let config = pnet_datalink::Config {
            read_timeout: Some(TICK),
            read_buffer_size: FRAME_BYTES_MAX,
            write_buffer_size: FRAME_BYTES_MAX,
            // Frames of this type only: all others, and those that this host sends (which are
            // shown to sockets for all types), would take their room.
            channel_type: ChannelType::Layer3(ETHERTYPE),
            promiscuous: false,
            // It closes the socket, also if it fails.
            socket_fd: Some(raw_socket().map_err(refused)?.into_raw_fd()),
            ..Default::default()
        };
        let channel = pnet_datalink::channel(interface, config).map_err(refused)?;
        let Channel::Ethernet(sender, receiver) = channel else {
            return Err(wrong("it does not carry Ethernet frames"));
        };
        Ok(Self { name: name.to_owned(), mac: Mac(mac.octets()), mtu, sender, receiver })
    }

    /// Sends a frame, padded to the shortest that Ethernet carries.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), Error> {
        let mut padded = [0; FRAME_BYTES_MIN];
        let bytes = if frame.len() < FRAME_BYTES_MIN {
            padded[..frame.len()].copy_from_slice(frame);
            &padded[..]
        } else {
            frame
        };
        match self.sender.send_to(bytes, None) {
            Some(result) => Ok(result?),
            None => Err(io::Error::from(io::ErrorKind::WriteZero).into()),
        }
    }

    /// The next AoE frame; `None` if none came for some milliseconds.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn receive(&mut self) -> Result<Option<&[u8]>, Error> {
        match self.receiver.next() {
            Ok(frame) => Ok(Some(frame)),
            Err(error) if is_pause(error.kind()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks everyone on the link, and gathers the answers that come within `wait`, sorted by
    /// shelf, slot and address.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn discover(&mut self, wait: Duration) -> Result<Vec<Found>, Error> {
        let end = now() + wait;
        let tag = random_tag();
        let mut found: BTreeMap<_, Found> = BTreeMap::new();
        self.send(&discover::everyone(self.mac, tag))?;
        while now() < end {
            let local = self.mac;
            let answer = self.receive()?.and_then(|frame| discover::answer(local, tag, frame));
            if let Some(answer) = answer.filter(|_| found.len() < FOUND_MAX) {
                found.insert((answer.shelf, answer.slot, answer.remote), answer);
            }
        }
        Ok(found.into_values().collect())
    }
}

/// A socket for whole Ethernet frames, with room for many. It receives nothing until it is bound.
fn raw_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    // Beyond the system's limit, if we may.
    sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES))?;
    Ok(socket)
}

/// A tag that nobody guesses.
pub fn random_tag() -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the kernel's random source works from boot on");
    u32::from_be_bytes(bytes)
}

fn is_pause(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// What ended: the command, and what was read or why it failed.
pub type Done = (CommandId, Result<Vec<u8>, Failure>);

/// One shelf.slot over one port.
#[derive(Debug)]
pub struct Client {
    port: Port,
    path: Path<Vec<u8>>,
    /// Percent of frames sent twice, for tests. Needs no seed: it counts.
    pub duplicate_percent: u8,
    /// Waits so much longer than the path would before a frame is repeated. A copy that the
    /// network or the server holds up may be executed after a newer write of someone else's: no
    /// server can prevent that, so a test of the server's order does not repeat early.
    pub patience: Duration,
    sent: u64,
}

impl Client {
    /// Speaks to `found` over `port`. `first_tag` is best random.
    pub fn new(port: Port, found: &Found, give_up_after: Duration, first_tag: u32) -> Self {
        let fitting = u8::try_from(sectors_fitting(port.mtu)).unwrap_or(u8::MAX);
        let config = Config {
            local: port.mac,
            remote: found.remote,
            shelf: found.shelf,
            slot: found.slot,
            sectors_max: found.sectors.min(fitting).max(1),
            window_max: found.buffer_count.min(128),
            give_up_after,
            timeouts: Timeouts::DEFAULT,
            first_tag,
        };
        Self {
            port,
            path: Path::new(config),
            duplicate_percent: 0,
            patience: Duration::ZERO,
            sent: 0,
        }
    }

    /// The path, to submit commands to.
    pub const fn path(&mut self) -> &mut Path<Vec<u8>> {
        &mut self.path
    }

    /// Most sectors in one command on this path.
    pub const fn sectors_max(&self) -> u8 {
        self.path.config().sectors_max
    }

    /// Sends what may be sent.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn flush(&mut self) -> Result<(), Error> {
        while let Some(frame) = self.path.poll_transmit(now()) {
            let mut bytes = frame.head.to_vec();
            bytes.extend_from_slice(frame.data.map_or(&[], Vec::as_slice));
            self.sent += 1;
            self.port.send(&bytes)?;
            if self.sent % 100 < u64::from(self.duplicate_percent) {
                self.port.send(&bytes)?;
            }
        }
        Ok(())
    }

    /// Waits for the next command to end, at most until `end`.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn next(&mut self, end: Instant) -> Result<Option<Done>, Error> {
        loop {
            self.flush()?;
            let moment = now();
            if self.path.poll_timeout().is_some_and(|due| due + self.patience <= moment) {
                self.path.handle_timeout(moment);
            }
            if let Some(failed) = self.path.poll_failed() {
                let failure = failed.result.err().unwrap_or(Failure::TimedOut);
                return Ok(Some((failed.id, Err(failure))));
            }
            if moment >= end {
                return Ok(None);
            }
            let Some(frame) = self.port.receive()? else { continue };
            if let Some(done) = self.path.handle_frame(now(), frame) {
                return Ok(Some((done.id, done.result.map(<[u8]>::to_vec))));
            }
        }
    }

    /// Performs one command and waits for its end.
    ///
    /// # Errors
    /// If it fails, or others are under way.
    pub fn run(&mut self, operation: Operation<Vec<u8>>) -> Result<Vec<u8>, Error> {
        assert!(self.path.is_empty(), "one command at a time, or `next` for many");
        self.path.submit(now(), CommandId(u64::MAX), operation);
        let give_up = self.path.config().give_up_after + Duration::from_secs(1);
        match self.next(now() + give_up)? {
            Some((_, Ok(data))) => Ok(data),
            Some((_, Err(Failure::TimedOut))) | None => Err(Error::Timeout(give_up)),
            Some((_, Err(failure))) => Err(Error::Command(format!("{failure:?}"))),
        }
    }
}
