//! How other threads reach a shard: a [`Waker`] that ends its wait, and a mailbox.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// Ends a reactor's wait, from any thread. Made before the reactor, since a reactor is made on
/// its own thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    fd: OwnedFd,
    rung: AtomicBool,
}

impl Waker {
    /// A waker, to be given to [`Reactor::new`](crate::Reactor::new).
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Bell { fd, rung: AtomicBool::new(false) })))
    }

    /// Makes the reactor's current or next wait return. Free if that is going to happen anyway.
    pub fn wake(&self) {
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // Cannot fail before 2^64 wakes.
            let _ = rustix::io::write(&self.0.fd, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// From here on a wake counts for the next wait. Called before the mailboxes are drained.
    pub(crate) fn quieten(&self) {
        // The counter is never read: the ring's poll answers to each write, not to the level.
        self.0.rung.swap(false, Ordering::AcqRel);
    }
}

/// The sending end of a mailbox.
#[derive(Debug)]
pub struct Sender<T> {
    letters: Arc<Mutex<VecDeque<T>>>,
    waker: Waker,
}

/// The shard's end of a mailbox.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Mutex<VecDeque<T>>>);

/// A queue from any thread to the shard that `waker` wakes. For what is off the hot path: it
/// takes a lock. What is sent must be bounded by what sends it.
pub fn mailbox<T>(waker: Waker) -> (Sender<T>, Receiver<T>) {
    let letters = Arc::new(Mutex::new(VecDeque::new()));
    (Sender { letters: letters.clone(), waker }, Receiver(letters))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { letters: self.letters.clone(), waker: self.waker.clone() }
    }
}

impl<T> Sender<T> {
    /// Queues `letter`; wakes the shard if it may not know that there is something.
    pub fn send(&self, letter: T) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let first = letters.is_empty();
        letters.push_back(letter);
        drop(letters);
        if first {
            self.waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// Moves everything sent so far to `out`. Call it after every turn.
    pub fn drain(&self, out: &mut VecDeque<T>) {
        out.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
