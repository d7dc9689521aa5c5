//! ublk: a block device whose driver is this process.
//!
//! ```text
//! abi.rs       numbers and layouts of the driver's interface
//! sys.rs       the rings and the shared descriptors: all unsafe code
//! control.rs   control commands, each of which may wait
//! jobs.rs      the thread that waits in them
//! names.rs     /dev/corbel/NAME, queue settings, who has a device open
//! pool.rs      memory for requests
//! serve.rs     requests out of the driver, their ends back into it
//! ```
//!
//! A [`Ublk`] lives on the thread that also drives the device's network ring. Requests come
//! through a small ring of its own, whose descriptor the network's reactor polls: the driver
//! posts a request by task work of this thread, which runs when the thread leaves any system
//! call, or sleeps in the reactor's. Each turn costs one more system call, and only when requests
//! ended in it:
//!
//! ```no_run
//! use corbel_initiator::present::ublk::{Event, Ublk, Wanted};
//! use corbel_initiator::request::{Outcome, Request};
//! use corbel_ring::{Buf, Config, Op, Reactor, Waker};
//!
//! fn serve(
//!     wanted: Wanted,
//!     answer: impl Fn(Request<Buf>) -> Outcome<Buf>,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut reactor = Reactor::new(Config::default(), Waker::new()?)?;
//!     let mut ublk = Ublk::attach(wanted, reactor.arena(), reactor.waker())?;
//!     let ring = reactor.attach(ublk.fd()?);
//!     reactor.submit(Op::PollRing { file: ring }, 0);
//!     let (mut done, mut requests) = (Vec::new(), Vec::new());
//!     loop {
//!         ublk.take(&mut requests);
//!         requests.drain(..).for_each(|request| ublk.complete(answer(request)));
//!         ublk.flush()?;
//!         while let Some(event) = ublk.poll_event() {
//!             if event == Event::Stopped {
//!                 return Ok(());
//!             }
//!         }
//!         reactor.turn(None, &mut done)?;
//!         done.clear();
//!     }
//! }
//! ```
//!
//! *One queue.* A device has one engine, which is on one thread, and the driver wants each queue
//! served by the thread that fetched. More queues would only have the engine's thread pick up
//! from several rings what the kernel has spread over them.
//!
//! *Memory.* The driver copies: a write's bytes into memory named in advance, by task work of this
//! thread, and a read's bytes out of the memory that its end names. Memory of a write that a slow
//! path still holds is not given to the driver again; the tag gets other memory, and waits if
//! there is none.
//!
//! *Crash.* The device, its users and their requests outlive this process; the next one that
//! attaches with the same number and mark takes over, and is given again what was under way. So
//! what the dead process sent may still land: the engine's fences apply.
//!
//! *Price.* A user that shares its only mount namespace with this process can deadlock both by
//! remounting under memory pressure, and a socket in user space may need memory that only its
//! own writes would free: swap on such a device is not safe.

mod abi;
mod control;
mod jobs;
mod names;
mod pool;
mod serve;
mod sys;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use corbel_proto::memory::SEGMENT_BYTES_MAX;
use corbel_ring::{Arena, Buf, Waker};

pub use abi::{Features, Shape};
use control::Control;
use jobs::{Answer, Attached, Helper, Job};
use serve::Serving;

use crate::request::{Outcome, Request};

/// Why there is no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// No `/dev/ublk-control`.
    #[error("the kernel has no ublk driver loaded: `modprobe ublk_drv` (Linux 6.4 or newer)")]
    NoModule,
    /// Not root.
    #[error("no permission for ublk: CAP_SYS_ADMIN is needed")]
    NotPermitted,
    /// io_uring is off or lacks something.
    #[error("ublk needs io_uring, which refuses (see sysctl kernel.io_uring_disabled): {0}")]
    IoUring(String),
    /// The driver lacks something.
    #[error("this kernel's ublk driver lacks {0}")]
    TooOld(&'static str),
    /// The number is taken.
    #[error("ublk device {0} belongs to somebody else")]
    Foreign(u32),
    /// Two daemons.
    #[error("ublk device {id} is served by process {pid}, which lives")]
    Served {
        /// The device.
        id: u32,
        /// The process.
        pid: i32,
    },
    /// What was asked for is impossible, or does not fit what is there.
    #[error("{0}")]
    Unfit(String),
    /// The arena is too small.
    #[error("payload memory for {count} requests of {io_bytes} bytes is not there")]
    NoMemory {
        /// Requests.
        count: usize,
        /// Bytes of each.
        io_bytes: u32,
    },
    /// The kernel refused.
    #[error("ublk: {what}: {}", io::Error::from_raw_os_error(*.errno))]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// The errno.
        errno: i32,
    },
}

impl Why {
    fn kernel(what: &'static str, error: &io::Error) -> Self {
        Self::Kernel { what, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }
}

/// A device that is to be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `/dev/corbel/NAME`.
    pub name: String,
    /// N of `/dev/ublkbN`; `None`: any that is free. Keep it over restarts: a device is found
    /// again by it.
    pub id: Option<u32>,
    /// Whose device it is (a hash of the identity): one with another mark is never taken over.
    pub mark: u64,
    /// Requests at a time, 4 to 4095.
    pub depth: u16,
    /// Memory for this many requests more, for when writes have ended but a slow path still holds
    /// their memory. Without any, such a tag waits.
    pub spare: u16,
    /// Longest request: a multiple of 4 KiB, at most 256 KiB.
    pub io_bytes: u32,
    /// How long to wait for the end of the process that served it before. A minute, since kernels
    /// before 6.16 may notice it only by a timeout of 30 s (see `names.rs`).
    pub recovery_wait: Duration,
    /// What it is like.
    pub shape: Shape,
}

impl Wanted {
    /// Payload memory needed, bytes.
    pub fn memory_bytes(&self) -> usize {
        (usize::from(self.tags()) + usize::from(self.spare)) * self.io_bytes as usize
    }

    /// Tags of the queue: one is never used, see [`names::tune`].
    fn tags(&self) -> u16 {
        self.depth.saturating_add(1)
    }

    fn fault(&self) -> Option<String> {
        let io = self.io_bytes as usize;
        let depths = names::REQUESTS_MIN..abi::DEPTH_MAX;
        if !depths.contains(&self.depth) {
            return Some(format!("a depth of {}: not 4 to 4095", self.depth));
        }
        if io == 0 || io > SEGMENT_BYTES_MAX || !io.is_multiple_of(4096) {
            return Some(format!("requests of {io} bytes: not a multiple of 4096 up to 262144"));
        }
        names::name_fault(&self.name).or_else(|| self.shape.fault())
    }
}

/// What happened to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Users may come.
    Started {
        /// N of `/dev/ublkbN`.
        id: u32,
        /// `/dev/ublkbN`.
        path: PathBuf,
        /// The size the kernel knows: another than wanted if it was recovered.
        size_bytes: u64,
        /// It was taken over from a process that died, and its requests under way come again.
        recovered: bool,
    },
    /// It was not stopped: who uses it, or what went wrong. It is served on.
    NotStopped(String),
    /// It is gone. The last event.
    Stopped,
    /// It has this size now, in bytes.
    Resized(u64),
    /// It has the old size still.
    NotResized(Why),
    /// It cannot be served (any more). If it never had users, it is taken away ([`Self::Stopped`]
    /// follows if it was made at all); else their requests wait for another process.
    Failed(Why),
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Only if nobody has it open. What is in the page cache is written first.
    IfUnused,
    /// In any case; users see errors.
    Force,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Attaching,
    /// The helper makes users come; requests are served already.
    Starting,
    Live,
    /// The helper keeps users out; requests are still served.
    Stopping,
    /// Users are out; fetches are being given back.
    Ending,
    Deleting,
    Over,
}

/// A block device, served by this thread.
#[derive(Debug)]
pub struct Ublk {
    serving: Serving,
    helper: Helper,
    wanted: Wanted,
    state: State,
    id: Option<u32>,
    recovered: bool,
    stop: Option<Stop>,
    events: VecDeque<Event>,
}

impl Ublk {
    /// What this kernel can do, or why there can be no device at all. Never asks for a version.
    pub fn probe() -> Result<Features, Why> {
        Control::open()?.features()
    }

    /// Begins to make a device, or to take it over if there is one with that number and mark
    /// whose process died, or is about to. What becomes of it is told by [`Self::poll_event`].
    /// `waker` is the reactor's; `arena` lends [`Wanted::memory_bytes`] for as long as the device
    /// is there.
    pub fn attach(wanted: Wanted, arena: Arena, waker: Waker) -> Result<Self, Why> {
        if let Some(fault) = wanted.fault() {
            return Err(Why::Unfit(fault));
        }
        let serving = Serving::new(wanted.tags(), arena)?;
        let helper = Helper::new(wanted.clone(), waker)?;
        helper.send(Job::Attach);
        Ok(Self {
            serving,
            helper,
            wanted,
            state: State::Attaching,
            id: None,
            recovered: false,
            stop: None,
            events: VecDeque::new(),
        })
    }

    /// A descriptor that is readable while requests wait: for the reactor to poll, by
    /// [`Op::PollRing`](corbel_ring::Op::PollRing).
    pub fn fd(&self) -> io::Result<OwnedFd> {
        self.serving.ring()
    }

    /// N of `/dev/ublkbN`, once it is known.
    pub fn id(&self) -> Option<u32> {
        self.id
    }

    /// Appends the requests that have come. Call it every turn: it costs no system call. Every
    /// request is owed a [`Self::complete`], also while stopping.
    pub fn take(&mut self, out: &mut Vec<Request<Buf>>) {
        self.advance();
        self.serving.take(out);
        if let Some(errno) = self.serving.refused() {
            self.fail(Why::Kernel { what: "a command of the queue", errno });
        }
    }

    /// Ends a request. The driver is told by the next [`Self::flush`].
    pub fn complete(&mut self, outcome: Outcome<Buf>) {
        self.serving.complete(outcome);
    }

    /// Tells the driver everything: once a turn, before the reactor waits. At most one system call.
    /// `Ok(false)`: memory was short; flush again within milliseconds.
    pub fn flush(&mut self) -> io::Result<bool> {
        let flushed = self.serving.flush();
        self.advance();
        flushed
    }

    /// What happened, until `None`.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.advance();
        self.events.pop_front()
    }

    /// Changes the size, if the kernel can: else [`Event::NotResized`] says so, and the new size is
    /// seen once the device is attached anew.
    pub fn resize(&mut self, size_bytes: u64) {
        match self.id {
            Some(id) if self.state == State::Live => {
                self.helper.send(Job::Resize { id, size_bytes });
            }
            _ => {
                let why = Why::Unfit("the device has not started, or is being stopped".to_owned());
                self.events.push_back(Event::NotResized(why));
            }
        }
    }

    /// Begins to take the device away: [`Event::NotStopped`] or [`Event::Stopped`] follows. It ends
    /// only after every request has; go on serving.
    pub fn stop(&mut self, how: Stop) {
        self.stop = Some(how);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(answer) = self.helper.answer() {
            self.answered(answer);
        }
        let Some(id) = self.id else { return };
        if let (State::Live, Some(how)) = (self.state, self.stop) {
            self.stop = None;
            self.state = State::Stopping;
            self.helper.send(Job::Stop { id, how });
        }
        if self.state == State::Ending && self.serving.is_over() {
            self.serving.close();
            self.state = State::Deleting;
            self.helper.send(Job::Delete { id });
        }
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Attached(attached) => self.attached(attached),
            Answer::Started { size_bytes } => {
                self.state = State::Live;
                let Some(id) = self.id else { return };
                let (path, recovered) = (names::block_path(id), self.recovered);
                self.events.push_back(Event::Started { id, path, size_bytes, recovered });
            }
            Answer::NotStopped(why) => {
                self.state = State::Live;
                // Whoever has insisted meanwhile is not told of a scruple.
                if self.stop != Some(Stop::Force) {
                    self.events.push_back(Event::NotStopped(why));
                }
            }
            Answer::Down => self.state = State::Ending,
            Answer::Deleted => {
                self.state = State::Over;
                self.events.push_back(Event::Stopped);
            }
            Answer::Resized(size_bytes) => {
                self.wanted.shape.size_bytes = size_bytes;
                self.events.push_back(Event::Resized(size_bytes));
            }
            Answer::NotResized(why) => self.events.push_back(Event::NotResized(why)),
            Answer::Failed(why) => self.fail(why),
        }
    }

    fn attached(&mut self, attached: Attached) {
        let Attached { id, node, depth, io_bytes, recovered } = attached;
        (self.id, self.recovered) = (Some(id), recovered);
        let opened = self.serving.open(node, depth, self.wanted.spare, io_bytes).and_then(|()| {
            let flushed = self.serving.flush();
            flushed.map_err(|error| Why::kernel("FETCH_REQ", &error))
        });
        match opened {
            Ok(_) => {
                self.state = State::Starting;
                self.helper.send(Job::Start { id, recovered, tags: depth });
            }
            Err(why) => self.fail(why),
        }
    }

    /// The device cannot be served. One that never had users is taken away.
    fn fail(&mut self, why: Why) {
        if self.state == State::Over {
            return;
        }
        let unused = matches!(self.state, State::Attaching | State::Starting) && !self.recovered;
        self.events.push_back(Event::Failed(why));
        match self.id {
            Some(id) if unused => {
                self.state = State::Stopping;
                self.helper.send(Job::Stop { id, how: Stop::Force });
            }
            _ => self.state = State::Over,
        }
    }
}
