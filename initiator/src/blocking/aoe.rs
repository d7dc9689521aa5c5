//! AoE on one interface.

use std::fs;
use std::io;

use corbel_proto::aoe::initiator::discover::{self, Found};
use corbel_proto::aoe::initiator::{CommandId, Config, Failure, Operation, Path, Timeouts};
use corbel_proto::aoe::{FRAME_BYTES_MIN, Mac, sectors_fitting};
use corbel_proto::time::{Duration, Instant};
use pnet_datalink::{Channel, DataLinkReceiver, DataLinkSender};

use super::{Error, now};

/// How long one receive waits before the timers are looked at.
const TICK: Duration = Duration::from_millis(2);

/// Room for frames that came in while nobody looked, bytes.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

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
        let config = pnet_datalink::Config {
            read_timeout: Some(TICK),
            read_buffer_size: SOCKET_BUFFER_BYTES,
            write_buffer_size: SOCKET_BUFFER_BYTES,
            ..Default::default()
        };
        let channel = pnet_datalink::channel(interface, config).map_err(|error| {
            if error.kind() == io::ErrorKind::PermissionDenied {
                wrong("raw sockets need root or CAP_NET_RAW")
            } else {
                Error::Io(error)
            }
        })?;
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

    /// The next frame of any kind; `None` if none came for some milliseconds.
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

    /// Asks everyone on the link, and gathers the answers that come within `wait`.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn discover(&mut self, wait: Duration) -> Result<Vec<Found>, Error> {
        let end = now() + wait;
        let mut found: Vec<Found> = Vec::new();
        let tag = u32::from_be_bytes([0, 0, self.mac.0[4], self.mac.0[5]]);
        let query = discover::everyone(self.mac, tag);
        self.send(&query)?;
        while now() < end {
            let answer = self.receive()?.and_then(discover::parse);
            if let Some(answer) = answer.filter(|answer| !found.contains(answer)) {
                found.push(answer);
            }
        }
        found.sort_by_key(|f| (f.shelf, f.slot, f.remote));
        Ok(found)
    }
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
            Some((_, Err(failure))) => Err(Error::Command(format!("{failure:?}"))),
            None => Err(Error::Timeout(give_up)),
        }
    }
}
