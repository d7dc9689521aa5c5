//! The machine room: io_uring, payload memory, sockets, raw Ethernet ports and block stores.
//!
//! The only crate with unsafe code, all of it in files called `sys.rs`. It knows no protocol:
//! what the bytes mean is for others.
//!
//! ```text
//! probe     what this kernel's io_uring can do, and what lacking things cost
//! memory    payload memory: an arena of aligned, registered, reference-counted buffers
//! pool      receive memory that connections share while they have nothing to say
//! reactor   one thread, one ring: operations in, completions out, one system call a turn
//! store     block devices, image files, `mem:` and `null:`
//! tcp       listening sockets
//! packet    raw Ethernet ports, and what happens to the interfaces under them
//! thread    how the scheduler treats a shard's thread
//! counting  an allocator that counts, for tests
//! wake      how other threads reach a shard
//! ```
//!
//! A shard's loop:
//!
//! ```no_run
//! use corbel_ring::{Config, Event, Op, Reactor, Waker, tcp};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reactor = Reactor::new(Config::default(), Waker::new()?)?;
//! let listener = tcp::listen("[::1]:0".parse()?, &tcp::Options::default())?;
//! let listener = reactor.attach(listener);
//! reactor.submit(Op::Accept { file: listener }, 0);
//! let mut done = Vec::new();
//! loop {
//!     reactor.turn(None, &mut done)?;
//!     for completion in done.drain(..) {
//!         match completion.event {
//!             Event::Accepted(Ok(file)) => {
//!                 reactor.submit(Op::RecvPooled { file, len_max: 0, repeat: true }, 1);
//!             }
//!             Event::Pooled(Ok(Some(data))) => println!("{} bytes", data.len),
//!             other => println!("{other:?}"),
//!         }
//!     }
//! }
//! # }
//! ```
//!
//! Two rules for callers. Memory to be filled (a receive, a read) must be the only handle to
//! its buffer: the operation takes it and its completion gives it back, so nobody looks at
//! bytes that the kernel is writing. And everything runs on one thread: reactors, arenas and
//! buffers do not leave it; a [`Waker`] and a [`mailbox`] do.
#![deny(unsafe_code)]

pub mod counting;
pub mod memory;
pub mod packet;
mod pool;
pub mod probe;
pub mod reactor;
pub mod store;
pub mod tcp;
pub mod thread;
mod wake;

pub use memory::{Arena, ArenaConfig, Buf};
pub use pool::PoolConfig;
pub use probe::{Report, SetupError, probe};
pub use reactor::{
    Completion, Config, Event, Failure, FailureKind, File, Hole, Message, Op, OpId, Reactor,
    call_in,
};
pub use store::Store;
pub use wake::{Receiver, Sender, Waker, mailbox};
