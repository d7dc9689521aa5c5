//! What both long-running programs share outside the data plane.
//!
//! ```text
//! config/      reading a TOML file: keys, places, findings, secrets
//! log.rs       what is logged
//! command.rs   how a command ends: what is printed and said, the exit code
//! limits.rs    what the system lets the process use
//! service.rs   a running program, as its control plane sees it
//! run.rs       the life of a program around what it serves
//! request.rs   the control socket's language
//! socket.rs    the control socket: who may, how much, how long;  ask.rs  the asking side
//! orders.rs    read the configuration again; end
//! signals.rs   SIGTERM, SIGINT, SIGHUP; what systemd hears
//! metrics.rs   figures for Prometheus;  http.rs  the little HTTP that takes
//! ```
//!
//! It knows no protocol and no device: where the programs differ, they say so in a parameter.
#![forbid(unsafe_code)]

pub mod ask;
pub mod command;
pub mod config;
pub mod http;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod orders;
pub mod request;
pub mod run;
pub mod service;
pub mod signals;
pub mod socket;
#[cfg(test)]
mod tests;
