//! Target and initiator, both as shipped, in one process and in virtual time: machines, cables
//! and disks that a seed decides about, and that fail as the seed wants it.
//!
//! ```text
//! agenda.rs   what happens when
//! net.rs      cables: frames and streams
//! store.rs    the disk behind the heads, and everything it ever held
//! head.rs     one target process and its machine
//! load.rs     the application on a host
//! host.rs     the initiator below it
//! fabric.rs   all of them together
//! fault.rs    what goes wrong
//! judge.rs    was it right?
//! trace.rs    what happened
//! plan.rs     what a seed decides
//! trouble.rs  of that, what goes wrong
//! run.rs      a seed, and what came of it
//! ```

pub mod agenda;
pub mod fabric;
pub mod fault;
pub mod head;
pub mod host;
pub mod judge;
pub mod load;
pub mod net;
pub mod plan;
pub mod run;
pub mod store;
pub mod trace;
mod trouble;

#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod tests;
