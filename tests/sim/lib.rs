//! The simulated world: the target's own code, in one thread, in virtual time, on a disk and a
//! network that a seed decides about.
//!
//! ```text
//! checker/   did the device behave like one device?
//! ../drive/  real targets over real sockets, for the test programs
//! rng.rs     the seed, and everything drawn from it
//! world.rs   virtual time, mailboxes between shards, the host that shards see
//! house.rs   the whole target behind a network, with clients of both protocols
//! farm.rs    engines of several shards on one simulated disk
//! fleet/     targets and initiators, their networks, and everything that can go wrong
//! disk.rs    a disk with a volatile cache, delays, errors and a power switch
//! ```
//!
//! A run is a function of its seed. A test that fails prints the seed; `CORBEL_SEED=…` replays it.
#![forbid(unsafe_code)]

pub mod checker;
pub mod disk;
#[path = "../drive/mod.rs"]
pub mod drive;
pub mod farm;
pub mod fleet;
pub mod fuzzing;
pub mod house;
pub mod rng;
pub mod world;

/// Runs `test` for `count` seeds, or for the one in `CORBEL_SEED`.
///
/// # Panics
/// With the seed in the message, if `test` does.
pub fn for_seeds(count: u64, test: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let one = std::env::var("CORBEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        if let Err(cause) = std::panic::catch_unwind(|| test(seed)) {
            eprintln!("failed with seed {seed}; replay it with CORBEL_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}
