//! `corbel-bench`: a load generator made of the path clients of `corbel-proto`, and a comparison of
//! targets.
//!
//! ```text
//! units.rs       sizes, times and rates as people write and read them
//! pattern.rs     which block is next, and whether it is read or written
//! pace.rs        when the next request is due
//! stamp.rs       sectors that say what they are, and what is wrong with one
//! ledger.rs      what each block holds, as far as its writer knows; kept between runs
//! tally.rs       counts and latencies of one job, and of all together
//! cpu.rs         CPU time and memory of threads and processes
//! place.rs       what is measured: a path, a block device, a file
//! transport/     the ways there: iSCSI, AoE, a local device
//! job.rs         one thread, one ring, one stream of requests
//! run.rs         `corbel-bench run`: jobs from start to end
//! report.rs      its figures, for people and for programs
//! compare/       `corbel-bench compare`: several targets, in turn, on the same store
//! scale/         `corbel-bench scale`: one target as work grows
//! null_aoe.rs    a target without a store, for comparison
//! cli.rs         the command line
//! ```
//!
//! A job has as many *slots* as its queue is deep; a request occupies one from the moment it is
//! handed to the transport until it has ended. Memory is taken at the start: a request allocates
//! nothing.
#![forbid(unsafe_code)]

mod child;
pub mod cli;
mod compare;
mod cpu;
mod job;
mod ledger;
mod null_aoe;
mod pace;
mod pattern;
mod place;
mod report;
mod run;
mod scale;
mod stamp;
mod tally;
mod transport;
mod units;
