//! The ways to a device. Each has a ring of its own and stays on the thread that made it.

mod aoe;
mod device;
mod iscsi;

use corbel_initiator::blocking::aoe::random_tag;
use corbel_proto::memory::SEGMENT_BYTES_MAX;
use corbel_proto::time::{Duration, Instant};
use corbel_ring::thread::ask_for_short_turns;
use corbel_ring::{ArenaConfig, Config, PoolConfig, Reactor, Waker};

use crate::pattern::Rng;
use crate::place::Way;

/// What a job needs of its transport.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Which job this is, from 0.
    pub(crate) job: usize,
    /// Requests at a time.
    pub(crate) slots: u32,
    /// Bytes of a request; whole blocks of the device.
    pub(crate) io_bytes: u32,
    /// Bytes of a block of the device.
    pub(crate) block_bytes: u32,
    /// What is read is looked at, and what is written is told.
    pub(crate) verify: bool,
    /// When a write counts as done.
    pub(crate) durable: Durable,
    /// How long to look for an answer before sleeping.
    pub(crate) busy_poll: std::time::Duration,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    /// When it is answered, whatever that means there.
    AsAnswered,
    /// It is asked to be on stable storage when it is answered.
    Through,
    /// When a request to empty the cache has been answered, which is sent after it.
    Emptied,
}

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) slot: u32,
    /// How it failed, if it did. Of a write that failed nothing is known.
    pub(crate) result: Result<(), String>,
}

/// A way to a device.
pub(crate) trait Transport {
    /// Takes a request at byte `offset`. It goes out with the next [`Self::turn`]. `data` is what
    /// to write; without it, something is written. The slot is free.
    fn submit(&mut self, now: Instant, slot: u32, write: bool, offset: u64, data: Option<&[u8]>);

    /// Sends what there is, waits for something to end, at most for `wait`, and appends it.
    ///
    /// # Errors
    /// If nothing more can come: requests under way are in doubt.
    fn turn(&mut self, wait: Duration, ended: &mut Vec<Ended>) -> Result<(), String>;

    /// What the slot's request has read, if it was to be verified.
    fn fetch(&self, slot: u32, into: &mut [u8]);

    /// Commands sent again so far.
    fn repeated(&self) -> u64;

    /// Takes leave of the target.
    fn leave(&mut self);
}

/// Opens a way, on the thread that will use it.
///
/// # Errors
/// If the device does not answer.
pub(crate) fn open(way: &Way, shape: Shape) -> Result<Box<dyn Transport>, String> {
    Ok(match way {
        Way::Iscsi { portal, lun, options } => {
            Box::new(iscsi::Iscsi::open(*portal, *lun, options, shape)?)
        }
        Way::Aoe { interface, found } => Box::new(aoe::Aoe::open(interface, found, shape)?),
        Way::Device(store) => Box::new(device::Local::open(store.clone(), shape)?),
    })
}

/// Receive memory: pieces as large as a batch of answers, few enough to stay in a core's cache.
const POOL: PoolConfig = PoolConfig { buffers: 16, buffer_bytes: 64 * 1024 };

/// How long a job runs while others wait for its core: short, so that it is let in when it wakes.
const TURN: std::time::Duration = std::time::Duration::from_micros(200);

/// A ring with payload memory for `bytes`.
fn reactor(bytes: usize, zero_copy: bool, shape: Shape) -> Result<Reactor, String> {
    let config = Config {
        files_max: 8,
        arena: ArenaConfig { bytes_max: bytes },
        pool: POOL,
        busy_poll: shape.busy_poll,
        zero_copy_bytes_min: if zero_copy { Config::default().zero_copy_bytes_min } else { None },
        ..Config::default()
    };
    // Where that cannot be had it is measured without.
    let _ = ask_for_short_turns(TURN);
    let waker = Waker::new().map_err(|error| error.to_string())?;
    Reactor::new(config, waker).map_err(|error| error.to_string())
}

/// Bytes that do not compress, to be written where nobody looks at them.
fn noise(bytes: &mut [u8]) {
    Rng::new(u64::from(random_tag())).fill(bytes);
}

/// Lengths of the pieces in which `bytes` lie in payload memory.
fn pieces(bytes: u32) -> impl Iterator<Item = u32> {
    let longest = u32::try_from(SEGMENT_BYTES_MAX).expect("a small constant");
    (0..bytes).step_by(SEGMENT_BYTES_MAX).map(move |at| longest.min(bytes - at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_long_as_memory_is_lent_and_nothing_is_left_over() {
        let lengths = |bytes| pieces(bytes).collect::<Vec<_>>();
        assert_eq!(lengths(4096), [4096]);
        assert_eq!(lengths(262_144), [262_144]);
        assert_eq!(lengths(262_144 * 2 + 512), [262_144, 262_144, 512]);
    }
}
