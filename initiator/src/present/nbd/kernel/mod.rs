//! The kernel's NBD client, over generic netlink: `/dev/nbdN` from one end of a socket pair.
//!
//! ```text
//! message.rs   netlink messages, pure
//! device.rs    what sysfs tells
//! ```
//!
//! The calls block for milliseconds, [`Client::disconnect`] until requests under way have failed;
//! they are for a thread that serves no device.
//!
//! # Why one socket, no timeout, and a tick
//!
//! A device that queues while it has no path must never be killed by its own timeout, and a daemon
//! that died and came back must be asked again what the dead one had not answered. The kernel has
//! one place for both: the block layer's timer, which looks at each request a *tick* after it was
//! sent, and again every tick.
//!
//! * With one socket and NBD_ATTR_TIMEOUT 0 it does nothing but write a line to its log ("Possible
//!   stuck request"), unless the socket was replaced since: then the request is sent again. With
//!   a timeout, or more sockets, it would shut a socket down under requests that merely wait.
//! * The tick is 30 s by default, so requests of a dead daemon would wait up to 30 s after the
//!   next one has come. It is set shorter when the device is attached, and never after: newer
//!   kernels hold every request up while they change it, until those under way have ended.
//! * Requests that are new while the socket is dead wait in the kernel for
//!   NBD_ATTR_DEAD_CONN_TIMEOUT, which is ten years here, and are sent once there is a socket.
//!
//! The price of a short tick is lines in the kernel's log while the device hangs: one per request
//! (at most 128) and tick.
//!
//! Measured by `tests/interop/guest-nbd.sh`, from the new socket to the last answer that the dead
//! daemon owed, with 16 requests under way: with a tick of 5 s, 4.8 s (kernel 6.12) and 4.0 s (6.1)
//! after a return at once, 1.2 s and 5.4 s after an absence of ten; with the kernel's own tick of
//! 30 s, 30.0 s and 26.2 s. The bound is one tick, whatever the absence.

pub mod device;
mod message;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::machine::Export;
pub use message::BadAnswer;
use message::{Answer, Attributes, Request, answers, attribute, command};

/// A tick that suits most: how long a request of a dead daemon waits at most once the next one is
/// there.
pub const TICK: Duration = Duration::from_secs(5);
/// How long requests wait for a daemon that is gone: ten years, in seconds.
const DEAD_CONNECTION_SECONDS: u64 = 10 * 365 * 86_400;
const FAMILY: &str = "nbd";
const VERSION: u8 = 1;
/// The answer to a status request names every device; this is enough for more than a thousand.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes that a socket pair holds in each direction; the kernel doubles it.
const PAIR_BYTES: usize = 1 << 20;
/// How long a killed process may keep its socket, and how often we look.
const OLD_SOCKET_WAIT_MAX: Duration = Duration::from_secs(15);
const OLD_SOCKET_PAUSE: Duration = Duration::from_millis(20);
/// The kernel is not a network: it answers, or something is broken.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// Why the kernel's client does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No module.
    #[error(
        "the kernel has no NBD client: {0}; `modprobe nbd` loads it where it is installed \
         (Debian: linux-image-amd64, not -cloud-), or present the device as nbd:unix:SOCKET"
    )]
    NoModule(String),
    /// Not root.
    #[error("attaching NBD devices needs root (CAP_SYS_ADMIN)")]
    NotAllowed,
    /// Somebody else has it.
    #[error("/dev/nbd{0} is in use; name another device, or none to take the first that is free")]
    Busy(u32),
    /// There is nothing to reconfigure or disconnect.
    #[error("/dev/nbd{0} is not connected, or to something else than {1}")]
    NotOurs(u32, String),
    /// The old socket is still alive, so a new one has no place.
    #[error("/dev/nbd{0} still has a live connection: another process serves it; end that first")]
    Connected(u32),
    /// Anything else.
    #[error("the kernel's NBD client: {what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        error: io::Error,
    },
    /// Not what we expected.
    #[error(transparent)]
    BadAnswer(#[from] BadAnswer),
}

/// A device as STATUS tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// N of `/dev/nbdN`.
    pub index: u32,
    /// It is set up, whether its socket lives or not.
    pub connected: bool,
}

/// A conversation with the kernel.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
}

/// A pair of sockets: the kernel's end, and ours. The kernel's may be dropped once it was given
/// away; ours is a stream on which the kernel is the client.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kernel, ours) = UnixStream::pair()?;
    for end in [&kernel, &ours] {
        // Less room is slower, not wrong.
        let _ = sockopt::set_socket_send_buffer_size(end, PAIR_BYTES);
    }
    Ok((kernel.into(), ours.into()))
}

/// True if nobody has the other end any more.
fn is_hung_up(socket: &impl AsFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    rustix::event::poll(&mut polled, Some(&Timespec::default()))?;
    Ok(polled[0].revents().contains(PollFlags::HUP))
}

impl Client {
    /// Finds the kernel's client; loads its module if it is not there.
    pub fn open() -> Result<Self, KernelError> {
        let protocol = Some(netlink::GENERIC);
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .and_then(|socket| {
            sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WAIT_MAX))?;
            Ok(socket)
        })
        .map_err(|error| io_error("opening a netlink socket", error.raw_os_error()))?;
        let mut client = Self { socket, family: message::CONTROLLER, sequence: 0 };
        client.family = match client.find_family()? {
            Some(family) => family,
            None => {
                load_module().map_err(KernelError::NoModule)?;
                let lacking = || KernelError::NoModule("it is loaded, but not there".to_owned());
                client.find_family()?.ok_or_else(lacking)?
            }
        };
        Ok(client)
    }

    fn find_family(&mut self) -> Result<Option<u16>, KernelError> {
        let request = self.request(command::GET_FAMILY).text(attribute::FAMILY_NAME, FAMILY);
        let mut family = None;
        match self.ask(request, |found| family = found.u16(attribute::FAMILY_ID))? {
            0 => Ok(family),
            libc::ENOENT => Ok(None),
            errno => Err(io_error("looking for the nbd family", errno)),
        }
    }

    /// Makes `socket` a device: `/dev/nbdN` for the N returned, which is `index` or the first that
    /// is free and that nobody has open. `backend` says whose it is ([`device::find`]); `tick` is
    /// explained above. Somebody must answer on the other end at once: udev will read from the
    /// device, and this call may wait for that.
    pub fn connect(
        &mut self,
        index: Option<u32>,
        export: &Export,
        backend: &str,
        tick: Duration,
        socket: impl AsFd,
    ) -> Result<u32, KernelError> {
        let mut request = self.request(command::CONNECT);
        if let Some(index) = index {
            request = request.u32(attribute::INDEX, index);
        }
        let request = sized(request, export)
            .u64(attribute::TIMEOUT, 0)
            .u64(attribute::DEAD_CONN_TIMEOUT, DEAD_CONNECTION_SECONDS)
            .u64(attribute::SERVER_FLAGS, export.flags(false).into())
            .text(attribute::BACKEND_IDENTIFIER, backend);
        let mut given = None;
        let errno = self.ask(with_socket(request, &socket), |told| {
            given = told.u32(attribute::INDEX);
        })?;
        match (errno, index) {
            (0, _) => {}
            (libc::EPERM, _) => return Err(KernelError::NotAllowed),
            (libc::EBUSY | libc::EEXIST, Some(index)) => return Err(KernelError::Busy(index)),
            (errno, _) => return Err(io_error("attaching", errno)),
        }
        let index = given.or(index).ok_or_else(|| io_error("attaching", libc::ENODEV))?;
        let failed = |error| KernelError::Io { what: "setting its tick", error };
        device::set_tick(index, tick).map_err(failed)?;
        Ok(index)
    }

    /// Gives the device a new socket for its dead one, after a restart of the daemon; returns our
    /// end of it. Requests that were under way are sent again, each at its next tick.
    ///
    /// A process that was killed is gone before its io_uring is, and with that the socket. A kernel
    /// that has not seen the end of the old one drops the new one, and calls that a success; so we
    /// look whether it was taken, and ask until it is.
    pub fn reconfigure(&mut self, index: u32, backend: &str) -> Result<OwnedFd, KernelError> {
        let until = Instant::now() + OLD_SOCKET_WAIT_MAX;
        loop {
            let failed = |error| KernelError::Io { what: "making a socket for it", error };
            let (theirs, ours) = pair().map_err(failed)?;
            let request = self.ours(command::RECONFIGURE, index, backend);
            match self.ask(with_socket(request, &theirs), |_| {})? {
                0 | libc::ENOSPC => {}
                errno => return Err(self.refused("giving it a new socket", index, backend, errno)),
            }
            drop(theirs);
            if !is_hung_up(&ours).map_err(failed)? {
                return Ok(ours);
            }
            if Instant::now() >= until {
                return Err(KernelError::Connected(index));
            }
            std::thread::sleep(OLD_SOCKET_PAUSE);
        }
    }

    /// Tells the kernel another size. Whoever has the device open is told by it.
    pub fn resize(
        &mut self,
        index: u32,
        backend: &str,
        export: &Export,
    ) -> Result<(), KernelError> {
        let request = sized(self.ours(command::RECONFIGURE, index, backend), export);
        match self.ask(request, |_| {})? {
            0 => Ok(()),
            errno => Err(self.refused("resizing", index, backend, errno)),
        }
    }

    /// Takes the device away. Requests that are not answered by then fail. Ask
    /// [`users::objection`](crate::present::users::objection) first.
    pub fn disconnect(&mut self, index: u32) -> Result<(), KernelError> {
        let request = self.request(command::DISCONNECT).u32(attribute::INDEX, index);
        match self.ask(request, |_| {})? {
            0 => Ok(()),
            errno => Err(self.refused("detaching", index, "anything", errno)),
        }
    }

    /// All devices, or the one numbered `index`.
    pub fn status(&mut self, index: Option<u32>) -> Result<Vec<Status>, KernelError> {
        let mut request = self.request(command::STATUS);
        if let Some(index) = index {
            request = request.u32(attribute::INDEX, index);
        }
        let mut devices = Vec::new();
        let errno = self.ask(request, |told| {
            for (_, item) in told.within(attribute::DEVICE_LIST) {
                let item = Attributes::of(item);
                let connected = item.get(attribute::DEVICE_CONNECTED).is_some_and(|c| c != [0]);
                let index = item.u32(attribute::DEVICE_INDEX);
                devices.extend(index.map(|index| Status { index, connected }));
            }
        })?;
        if errno == 0 { Ok(devices) } else { Err(io_error("asking for status", errno)) }
    }

    fn request(&mut self, command: u8) -> Request {
        self.sequence = self.sequence.wrapping_add(1);
        Request::new(self.family, command, VERSION, self.sequence)
    }

    fn ours(&mut self, command: u8, index: u32, backend: &str) -> Request {
        let request = self.request(command).u32(attribute::INDEX, index);
        request.text(attribute::BACKEND_IDENTIFIER, backend)
    }

    fn refused(&self, what: &'static str, index: u32, backend: &str, errno: i32) -> KernelError {
        match errno {
            libc::EPERM => KernelError::NotAllowed,
            libc::EINVAL | libc::ENODEV | libc::ENOENT => {
                KernelError::NotOurs(index, backend.to_owned())
            }
            _ => io_error(what, errno),
        }
    }

    /// Sends `request`, shows the attributes of what comes to `told`, and returns the errno at the
    /// end, or 0.
    fn ask(
        &mut self,
        request: Request,
        mut told: impl FnMut(Attributes<'_>),
    ) -> Result<i32, KernelError> {
        let io = |error: rustix::io::Errno| io_error("talking to it", error.raw_os_error());
        rustix::net::send(&self.socket, &request.finish(), SendFlags::empty()).map_err(io)?;
        let mut bytes = vec![0; ANSWER_BYTES_MAX];
        loop {
            let received =
                rustix::net::recv(&self.socket, bytes.as_mut_slice(), RecvFlags::empty());
            let len = match received {
                Ok((len, _)) => len,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io(error)),
            };
            for answer in answers(&bytes[..len], self.sequence)? {
                match answer {
                    Answer::End(errno) => return Ok(errno),
                    Answer::Attributes(attributes) => told(attributes),
                }
            }
        }
    }
}

fn io_error(what: &'static str, errno: i32) -> KernelError {
    KernelError::Io { what, error: io::Error::from_raw_os_error(errno) }
}

fn sized(request: Request, export: &Export) -> Request {
    request
        .u64(attribute::SIZE_BYTES, export.size_bytes)
        .u64(attribute::BLOCK_SIZE_BYTES, export.block_bytes.into())
}

fn with_socket(request: Request, socket: &impl AsFd) -> Request {
    let fd = u32::try_from(socket.as_fd().as_raw_fd()).expect("descriptors are not negative");
    request.nested(attribute::SOCKETS, |list| {
        list.nested(attribute::ITEM, |item| item.u32(attribute::SOCKET_FD, fd))
    })
}

/// Loads the module with the administrator's own parameters (`/etc/modprobe.d`); `nbds_max` only
/// says how many devices there are before any is attached.
fn load_module() -> Result<(), String> {
    let path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
    let output = Command::new("modprobe")
        .arg("nbd")
        .env("PATH", path)
        .output()
        .map_err(|error| format!("modprobe cannot be run ({error})"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("modprobe failed").to_owned())
}
