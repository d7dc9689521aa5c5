//! One thread, one ring: operations in, completions out.
//!
//! Every operation owns its memory and hands it back with its completion. Every outcome comes
//! through one door, [`Reactor::turn`]: also of operations on memory stores, on stale handles,
//! and of those that found the submission queue full.

mod complete;
mod files;
mod idle;
mod message;
mod op;
mod sys;
#[cfg(test)]
mod tests;
mod turn;
mod watch;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corbel_proto::memory::{Buffer, Slice};

pub use message::Message;
pub use op::{Completion, Event, Failure, FailureKind, File, Hole, Op, OpId};
pub(crate) use sys::Ring;

use crate::memory::{Arena, ArenaConfig, Buf, Region, Registrar};
use crate::packet::Port;
use crate::pool::{Pool, PoolConfig};
use crate::probe::{self, Report, SetupError};
use crate::store::{Returned, Store};
use crate::wake::Waker;
use files::Files;
use idle::Idle;
use sys::{Flight, Flights, Work};

/// The buffer group of the receive pool.
const POOL_GROUP: u16 = 0;
/// The kernel's limit of registered buffers.
const BUFFERS_MAX: u16 = 1 << 14;
/// Packet ports whose rings are registered buffers; more work, slower.
const PORTS_MAX: u16 = 64;
/// Messages kept for reuse.
const MESSAGES_SPARE_MAX: usize = 256;
/// How long a dropped reactor waits for the kernel to give memory back.
const DROP_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long it waits before it resets connections whose peers do not acknowledge.
const DROP_WAIT_PEERS: Duration = Duration::from_secs(1);

/// How large a reactor is.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Submissions queued between two turns without an extra system call.
    pub entries: u32,
    /// Files held at once that get a place in the kernel's registered table; more work, slower.
    pub files_max: u32,
    /// Payload memory.
    pub arena: ArenaConfig,
    /// Receive memory shared by connections.
    pub pool: PoolConfig,
    /// Messages with at least this much payload are sent without copying where the kernel can;
    /// below it, a copy is cheaper than the bookkeeping. `None`: always copy.
    pub zero_copy_bytes_min: Option<u32>,
    /// How long to look for completions before sleeping, at most, while they come that fast. Saves
    /// wake-ups where requests come one at a time; see `idle.rs` for when it is not done. Zero:
    /// never.
    pub busy_poll: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            entries: 512,
            files_max: 4096,
            arena: ArenaConfig::default(),
            pool: PoolConfig::default(),
            zero_copy_bytes_min: Some(32 * 1024),
            busy_poll: Duration::ZERO,
        }
    }
}

/// The machine room of one shard. Stays on the thread that made it.
#[derive(Debug)]
pub struct Reactor {
    flights: Flights,
    ready: VecDeque<Completion>,
    /// Entries that found no room in the submission queue, in order.
    backlog: VecDeque<u32>,
    /// Entries whose cancellation found no room there.
    uncancelled: Vec<u32>,
    /// Pooled receives that wait for pool memory.
    starved: VecDeque<u32>,
    /// Entries to start again at a time: a full interface queue, no descriptors left.
    delayed: Vec<(Instant, u32)>,
    /// Something is queued that somebody waits for; receives are not.
    urgent: bool,
    /// Reads or writes are queued that no system call has submitted.
    disk_waits: bool,
    /// Turns in a row without a system call.
    free_turns: u32,
    idle: Idle,
    /// Of this thread, when it was last asked.
    interruptions: i64,
    began: Instant,
    files: Files,
    messages: Vec<Message>,
    /// Reads whose loan came back.
    returned: Returned,
    watches: Vec<watch::Watch>,
    report: Report,
    config: Config,
    arena: Arena,
    waker: Waker,
    bell: File,
    multishot_recv: bool,
    /// The receive rings of packet ports that have registered-buffer numbers, which begin with
    /// this one. A number is used again once its ring is gone.
    port_buffers: (u16, Vec<Weak<Region>>),
    pool: Pool,
    ring: Rc<Ring>,
}

impl Reactor {
    /// Opens a ring, registers its tables, and listens to `waker`.
    pub fn new(config: Config, waker: Waker) -> Result<Self, SetupError> {
        let (uring, mut report) = probe::open(config.entries)?;
        let pool = Pool::new(&uring, POOL_GROUP, config.pool).map_err(|error| {
            SetupError::Limit { error, cause: "RLIMIT_MEMLOCK may be too low".to_owned() }
        })?;
        let submitter = uring.submitter();
        let files_fixed = files::table_size(config.files_max);
        report.features.fixed_files = submitter.register_files_sparse(files_fixed).is_ok();
        let chunks = config.arena.bytes_max.div_ceil(crate::memory::CHUNK_BYTES).max(1);
        let chunks = u16::try_from(chunks).unwrap_or(u16::MAX).min(BUFFERS_MAX - PORTS_MAX);
        let buffers = u32::from(chunks + PORTS_MAX);
        report.features.fixed_buffers = submitter.register_buffers_sparse(buffers).is_ok();
        report.finish();
        let ring = Rc::new(Ring::new(uring));
        let table = report.features.fixed_files.then_some(files_fixed);
        let files = Files::new(ring.clone(), table, report.features.prompt_release);
        let registrar = report.features.fixed_buffers.then(|| ring.clone() as _);
        let mut reactor = Self {
            flights: Flights::new(ring.clone(), config.entries as usize * 4, POOL_GROUP),
            ready: VecDeque::with_capacity(config.entries as usize),
            backlog: VecDeque::new(),
            uncancelled: Vec::new(),
            starved: VecDeque::new(),
            delayed: Vec::new(),
            urgent: false,
            disk_waits: false,
            free_turns: 0,
            idle: Idle::new(config.busy_poll),
            interruptions: 0,
            began: Instant::now(),
            files,
            messages: Vec::new(),
            returned: Returned::default(),
            watches: Vec::new(),
            multishot_recv: report.features.multishot_recv,
            report,
            config,
            arena: Arena::new(config.arena, registrar),
            bell: File { key: 0, generation: 0 },
            port_buffers: (chunks, Vec::new()),
            waker,
            pool,
            ring,
        };
        reactor.listen_to_waker().map_err(|error| SetupError::Limit {
            error,
            cause: "too many open files".to_owned(),
        })?;
        Ok(reactor)
    }

    fn listen_to_waker(&mut self) -> io::Result<()> {
        let bell = self.waker.fd().try_clone_to_owned()?;
        self.bell = self.files.insert(files::Held::Descriptor(bell));
        self.submit(Op::PollReadable { file: self.bell }, 0);
        Ok(())
    }

    /// What the kernel has and has not.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// This shard's payload memory.
    pub fn arena(&self) -> Arena {
        self.arena.clone()
    }

    /// What wakes this reactor.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Operations that have not ended, delayed ones included (one is the reactor's own).
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Takes over a socket or any other descriptor. It is made blocking: waiting is the
    /// kernel's work, and it does not wait on non-blocking descriptors.
    pub fn attach(&mut self, fd: OwnedFd) -> File {
        if let Ok(flags) = rustix::fs::fcntl_getfl(&fd) {
            // Cannot fail on a descriptor whose flags were just read.
            let _ = rustix::fs::fcntl_setfl(&fd, flags - rustix::fs::OFlags::NONBLOCK);
        }
        self.files.insert(files::Held::Descriptor(fd))
    }

    /// Takes a share in a packet port: to poll it, to send through it, and to write to stores
    /// what lies in its ring.
    pub fn attach_port(&mut self, port: &Port) -> io::Result<File> {
        let (fd, region) = port.parts()?;
        let able = self.report.features.fixed_buffers;
        let index = if able { self.port_buffer(region) } else { None };
        let registered = index.map(|index| self.ring.register(index, region));
        if let Some(Err(error)) = registered {
            tracing::warn!(%error, "a receive ring is not registered with the kernel");
        }
        Ok(self.attach(fd))
    }

    fn port_buffer(&mut self, region: &Rc<Region>) -> Option<u16> {
        let (first, rings) = &mut self.port_buffers;
        let free = rings.iter().position(|ring| ring.strong_count() == 0);
        let place = free.unwrap_or(rings.len());
        let index = u16::try_from(place).ok().filter(|index| *index < PORTS_MAX)?;
        if place == rings.len() {
            rings.push(Weak::new());
        }
        rings[place] = Rc::downgrade(region);
        Some(*first + index)
    }

    /// Takes a share in a store, for block operations on it.
    pub fn attach_store(&mut self, store: Arc<Store>) -> File {
        self.files.insert(files::Held::Store(store))
    }

    /// The descriptor behind `file`, for the calls that have no operation (addresses, options).
    pub fn descriptor(&self, file: File) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.files.descriptor(file)
    }

    /// An empty message, in memory used before if there is some.
    pub fn message(&mut self) -> Message {
        self.messages.pop().unwrap_or_default()
    }

    /// Takes back a message that is not sent after all, so that its memory is used again.
    pub fn unsent(&mut self, message: Message) {
        self.recycle(message);
    }

    /// Starts `op`. Its completion carries `tag` and comes out of a later [`Self::turn`].
    ///
    /// # Panics
    /// If memory to be filled is shared, a slice reaches outside its buffer, or there is nothing
    /// to transfer: mistakes of the caller, never of a peer.
    pub fn submit(&mut self, op: Op, tag: u64) -> OpId {
        let (file, work) = self.work_of(op);
        let target = match self.files.target(file) {
            Ok(target) => target,
            Err(files::NoTarget::Stale) => return self.refuse(tag, work, libc::EBADF),
            Err(files::NoTarget::Memory(store)) => return self.perform(tag, work, &store),
        };
        let id = self.flights.insert(Flight::new(tag, file, target, work));
        self.start(id.key);
        id
    }

    /// Memory of a store in memory, so many bytes from an offset, to be sent and not looked at
    /// ([`Buffer::is_loan`]). Once the last handle to it is gone, `tag` comes out of
    /// [`Self::next_returned`]; until then nothing should be written there. `None`: it is to be
    /// read, as are those of other stores.
    pub fn lend(&mut self, file: File, range: (u64, u32), tag: u64) -> Option<Buf> {
        self.files.lend(file, range, tag, &self.returned)
    }

    /// The tag of the next loan that came back: see [`Self::lend`]. Ask before sleeping.
    pub fn next_returned(&mut self) -> Option<u64> {
        self.returned.borrow_mut().pop()
    }

    /// True if [`Self::next_returned`] has something.
    pub fn has_returned(&self) -> bool {
        !self.returned.borrow().is_empty()
    }

    /// Asks that `id` end early. It still completes: with what it had done, or as cancelled.
    pub fn cancel(&mut self, id: OpId) {
        if self.flights.contains(id) {
            self.cancel_key(id.key);
        }
    }

    /// Gives `file` up: sockets are shut down, its operations cancelled; they still complete.
    pub fn close(&mut self, file: File) {
        let Some(held) = self.files.get(file) else { return };
        if let files::Held::Descriptor(fd) = held {
            // Ends receives and sends at once; not a socket, or not connected: nothing to end.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Both);
        }
        self.give_up(file);
    }

    /// Gives `file` up to another reactor, unharmed: its operations are cancelled here, so there
    /// should be none.
    ///
    /// # Errors
    /// If it has no descriptor, or the process has too many; it is closed then.
    pub fn detach(&mut self, file: File) -> io::Result<OwnedFd> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let fd = self.files.descriptor(file).ok_or_else(missing)?.try_clone_to_owned();
        match fd {
            Ok(_) => self.give_up(file),
            Err(_) => self.close(file),
        }
        fd
    }

    fn give_up(&mut self, file: File) {
        self.watches.retain(|watch| !watch.is_of(file));
        for key in self.flights.keys(Some(file)) {
            self.cancel_key(key);
        }
        // What is queued names the file's place in the table. Were the place given to another
        // file before the kernel has read that, a write could land there.
        if self.flush() {
            self.files.remove(file);
        } else {
            self.files.abandon(file);
        }
    }

    /// Like [`Self::close`], but at once: what the peer has not acknowledged is dropped and the
    /// connection reset. A peer that stopped reading can so not hold payload memory.
    pub fn abort(&mut self, file: File) {
        if let Some(fd) = self.files.descriptor(file) {
            // Not a socket: nothing to reset.
            let _ = socket2::SockRef::from(&fd).set_linger(Some(Duration::ZERO));
            // Not only by the last close: operations that the kernel still works on hold the file,
            // and an attempt to connect would go on for minutes. It fails where it is not TCP, or
            // (EBUSY) somebody waits in the kernel; then the last close does it.
            let _ = rustix::net::connect_unspec(fd);
        }
        self.give_up(file);
    }

    /// Sends on `file` copy from now on. For peers on this host: the kernel copies what it is lent
    /// for them in any case, after it has pinned each page.
    pub fn copy_always(&mut self, file: File) {
        self.files.forbid_zero_copy(file);
    }

    /// Ends one direction of a stream: the peer sees the end once it has read what was sent.
    pub fn shutdown_write(&mut self, file: File) {
        if let Some(fd) = self.files.descriptor(file) {
            // ENOTCONN: the peer went first.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
        }
    }

    fn reap(&mut self) {
        while let Some(cqe) = self.ring.reap() {
            if let Some(key) = self.flights.owner(&cqe) {
                self.complete(key, cqe);
            }
        }
    }

    /// Puts operations on the queue again that had to wait.
    fn resume(&mut self) {
        for key in std::mem::take(&mut self.uncancelled) {
            // Its place may have a new holder by now; that one was not cancelled.
            if self.flights.is_cancelled(key) {
                self.cancel_key(key);
            }
        }
        for _ in 0..self.backlog.len() {
            let Some(key) = self.backlog.pop_front() else { break };
            self.start(key);
        }
        let able = self.starved.len().min(self.pool.free() as usize);
        for _ in 0..able {
            let Some(key) = self.starved.pop_front() else { break };
            self.start(key);
        }
        if !self.delayed.is_empty() {
            let now = Instant::now();
            let due: Vec<_> = self.delayed.extract_if(.., |(at, _)| *at <= now).collect();
            due.into_iter().for_each(|(_, key)| self.start(key));
        }
    }

    /// Hands an entry to the kernel, or ends it if it was cancelled: its file may be gone, and
    /// the file's place taken.
    fn start(&mut self, key: u32) {
        if self.flights.get(key).cancelled {
            return self.finish_failed(key, libc::ECANCELED);
        }
        let work = self.flights.get(key).work();
        self.urgent |= !work.is_receive();
        match work {
            Work::Read { .. } | Work::Write { .. } => self.disk_waits = true,
            Work::Send { .. } => self.hasten_disk(),
            _ => {}
        }
        if self.flights.start(key).is_err() {
            self.backlog.push_back(key);
        }
    }

    fn start_later(&mut self, key: u32, delay: Duration) {
        self.delayed.push((Instant::now() + delay, key));
    }

    fn cancel_key(&mut self, key: u32) {
        let flight = self.flights.get(key);
        if flight.delivered {
            return;
        }
        flight.cancelled = true;
        if flight.is_busy() {
            self.urgent = true;
            if self.flights.cancel(key).is_err() {
                self.uncancelled.push(key);
            }
            return;
        }
        self.backlog.retain(|k| *k != key);
        self.starved.retain(|k| *k != key);
        self.delayed.retain(|(_, k)| *k != key);
        self.finish_failed(key, libc::ECANCELED);
    }

    /// Makes the kernel read everything queued; says whether it did.
    fn flush(&mut self) -> bool {
        for _ in 0..16 {
            if self.ring.queued() == 0 {
                return true;
            }
            // EBUSY: completions must be taken before more can be submitted.
            let _ = self.ring.enter(true, Some(Duration::ZERO));
            if self.ring.queued() > 0 {
                self.reap();
            }
        }
        self.ring.queued() == 0
    }

    fn work_of(&mut self, op: Op) -> (File, Work) {
        match op {
            Op::Accept { file } => (file, Work::Accept),
            Op::Recv { file, data, exact } => {
                check_fill(&data);
                (file, Work::Recv { data, done: 0, exact })
            }
            Op::RecvPooled { file, len_max, repeat } => {
                let multishot = repeat && len_max == 0 && self.multishot_recv;
                (file, Work::RecvPooled { len_max, repeat, multishot })
            }
            Op::Send { file, message } => {
                assert!(!message.is_empty(), "nothing to send");
                let enough = u64::from(self.config.zero_copy_bytes_min.unwrap_or(u32::MAX));
                let able = self.report.features.send_zero_copy && self.files.zero_copy(file);
                let body = &message.body;
                let able = able && !body.frame && !body.at_once;
                let zero_copy = able && message.payload_bytes() >= enough;
                (file, Work::Send { message, zero_copy })
            }
            Op::Read { file, offset, data } => {
                check_fill(&data);
                (file, Work::Read { data, done: 0, offset })
            }
            Op::Write { file, offset, data, durable } => {
                check_range(&data);
                (file, Work::Write { data, done: 0, offset, durable })
            }
            Op::Sync { file } => (file, Work::Sync),
            Op::Fallocate { file, mode, offset, len } => {
                let mode = match mode {
                    Hole::Punch => libc::FALLOC_FL_PUNCH_HOLE,
                    Hole::Zero => libc::FALLOC_FL_ZERO_RANGE,
                };
                let mode = mode | libc::FALLOC_FL_KEEP_SIZE;
                (file, Work::Fallocate { mode, offset, len })
            }
            Op::PollReadable { file } => (file, Work::PollReadable),
            Op::PollRing { file } => (file, Work::PollRing),
            Op::PollWritable { file } => (file, Work::PollWritable),
        }
    }
}

/// Copies what a store has lent ([`Reactor::lend`]). Without memory for that it stays lent.
///
/// # Errors
/// If the store could not be read (an errno).
pub fn call_in(slice: &mut Slice<Buf>, arena: &Arena) -> Result<(), i32> {
    if !slice.buffer.is_loan() {
        return Ok(());
    }
    let Some(mut own) = arena.lend(slice.len as usize) else { return Ok(()) };
    let copied = slice.buffer.fetch(slice.start, own.bytes_mut())?;
    if copied < slice.len {
        return Err(libc::EIO);
    }
    *slice = Slice::whole(own);
    Ok(())
}

/// Memory that the kernel reads.
fn check_range(data: &Slice<Buf>) {
    let end = data.start as usize + data.len as usize;
    assert!(data.len > 0 && end <= data.buffer.len(), "a slice outside its buffer");
}

/// Memory that the kernel writes: while it does, no other handle may read it.
fn check_fill(data: &Slice<Buf>) {
    check_range(data);
    assert!(data.buffer.is_unique(), "memory to be filled is shared");
    assert!(!data.buffer.is_loan(), "memory to be filled is a store's own");
}

impl Drop for Reactor {
    fn drop(&mut self) {
        for key in self.flights.keys(None) {
            self.cancel_key(key);
        }
        let began = Instant::now();
        while self.flights.busy() > 0 && began.elapsed() < DROP_WAIT_MAX {
            self.ready.clear();
            if began.elapsed() > DROP_WAIT_PEERS {
                self.flights.held().into_iter().for_each(|file| self.abort(file));
            }
            if self.ring.enter(true, Some(Duration::from_millis(50))).is_err() {
                break;
            }
            self.reap();
            for key in self.flights.keys(None) {
                // Entries that were started again, or whose cancellation found no room.
                self.cancel_key(key);
            }
        }
        if self.flights.busy() > 0 {
            // `Flights` leaks the rest; the kernel may still fill a pool buffer, too.
            std::mem::forget(self.pool.clone());
        }
    }
}
