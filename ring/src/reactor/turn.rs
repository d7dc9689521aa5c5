//! One turn: whether the kernel is entered, and how long is waited for it.

use std::io;
use std::time::{Duration, Instant};

use super::idle::{self, Look};
use super::{Completion, Reactor};
use crate::thread;

/// Turns in a row that only hand out what needed no system call.
const FREE_TURNS_MAX: u32 = 4;
/// Looks between two readings of the clock.
const LOOKS_A_CLOCK: u32 = 8;

impl Reactor {
    /// Submits everything, waits at most `wait` (`None`: until something happens) and appends
    /// what completed to `out`. One system call, or none while operations on memory complete and
    /// nothing but receives is to be submitted. May return early with nothing: when another
    /// thread called the [`Waker`](crate::wake::Waker), or after a signal.
    ///
    /// # Errors
    /// Only if the ring itself broke; the reactor can then only be dropped.
    pub fn turn(&mut self, wait: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        self.resume();
        if self.is_free() {
            self.free_turns += 1;
            out.extend(self.ready.drain(..));
            return Ok(());
        }
        (self.urgent, self.disk_waits, self.free_turns) = (false, false, 0);
        let idle = self.ready.is_empty() && !self.ring.has_completions() && !self.sees_frames();
        let wait = if idle { self.wait_bound(wait) } else { Some(Duration::ZERO) };
        let needed = wait != Some(Duration::ZERO) || self.ring.queued() > 0;
        if needed || self.ring.has_put_off() || !self.report.features.defer_taskrun {
            match wait {
                Some(Duration::ZERO) => self.ring.enter(true, wait)?,
                _ if self.idle.is_on() => self.look_or_sleep(wait)?,
                _ => self.sleep(wait)?,
            }
        }
        self.reap();
        self.tell_frames();
        self.waker.quieten();
        out.extend(self.ready.drain(..));
        Ok(())
    }

    /// True if there is something to hand out that may lead to more to submit: the answer to what
    /// was read from memory goes out in one system call with the next receive.
    fn is_free(&self) -> bool {
        !self.ready.is_empty() && !self.urgent && self.free_turns < FREE_TURNS_MAX
    }

    /// Submits, and waits for something: awake as long as that is worth it, then asleep.
    fn look_or_sleep(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if self.ring.queued() > 0 {
            self.ring.enter(true, Some(Duration::ZERO))?;
            // What ends at once was not waited for.
            if self.ring.has_completions() {
                return Ok(());
            }
        }
        if self.ring.has_put_off() {
            return self.ring.enter(true, Some(Duration::ZERO));
        }
        let began = self.began.elapsed();
        let window = self.idle.window(began).map(|window| wait.map_or(window, |w| w.min(window)));
        if let Some(window) = window {
            let (look, now) = self.look(began, window);
            self.idle.looked(now, look);
            if look == Look::Found {
                self.idle.waited(now - began);
                let frames_only = !self.ring.has_put_off();
                return if frames_only {
                    Ok(())
                } else {
                    self.ring.enter(true, Some(Duration::ZERO))
                };
            }
        }
        self.sleep(wait)?;
        self.idle.waited(self.began.elapsed() - began);
        Ok(())
    }

    fn sleep(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let wait = if self.poll_ports() { wait } else { Some(Duration::ZERO) };
        self.ring.enter(true, wait)
    }

    /// Submits reads and writes before an answer joins them in the queue. The kernel passes those
    /// of one submission to their disk together, when it has gone through all of it: they would
    /// wait until everything is sent, 70 us with 16 frames.
    pub(super) fn hasten_disk(&mut self) {
        if std::mem::take(&mut self.disk_waits) {
            // What fails here stays queued, or fails again in the turn, which says so.
            let _ = self.ring.enter(false, Some(Duration::ZERO));
        }
    }

    /// Looks for completions until `window` is over. The kernel says in shared memory that it has
    /// some, so that takes no system call.
    fn look(&mut self, began: Duration, window: Duration) -> (Look, Duration) {
        let (mut last, mut stood_still, mut look) = (began, false, None);
        while look.is_none() {
            for _ in 0..LOOKS_A_CLOCK {
                if self.ring.has_put_off() || self.ring.has_completions() || self.sees_frames() {
                    look = Some(Look::Found);
                    break;
                }
                std::hint::spin_loop();
            }
            let now = self.began.elapsed();
            stood_still |= now - last > idle::STANDS_STILL;
            if now - began >= window {
                look = look.or(Some(Look::Missed));
            }
            last = now;
        }
        if stood_still {
            let known = std::mem::replace(&mut self.interruptions, thread::interruptions());
            if known != self.interruptions {
                look = Some(Look::Interrupted);
            }
        }
        (look.unwrap_or(Look::Missed), last)
    }

    fn wait_bound(&self, wait: Option<Duration>) -> Option<Duration> {
        if !self.backlog.is_empty() || !self.uncancelled.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.delayed.iter().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        due.chain(wait).min()
    }
}

#[cfg(test)]
mod tests;
