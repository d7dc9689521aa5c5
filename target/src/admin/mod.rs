//! The control plane: what a running target is asked and told, over its control socket, by
//! signals, by systemd and by Prometheus.
//!
//! ```text
//! run.rs       from a configuration to a running target, and its end
//! control.rs   what may be done to it, one thing at a time where that matters
//! isns.rs      iSNS servers are told of the targets
//! protocol.rs  requests and responses
//! metrics.rs   figures for Prometheus
//! status.rs    what is known of a running target, as stable JSON
//! text.rs      the same for people
//! ```
//!
//! The rest stands in `corbel_daemon`: control socket, signals, systemd, the HTTP of a scrape.
//!
//! It runs on the main thread, on tokio; nothing here touches the data path. Whatever it asks of
//! a [`Daemon`] runs on a thread of its own, so that signals are heard at all times.

mod control;
mod isns;
mod metrics;
mod protocol;
mod run;
pub mod status;
#[cfg(test)]
mod tests;
mod text;

use crate::config::Config;

pub use protocol::{AccessOrder, AskError, ErrorKind, Request, Response, ask};
pub use run::{Plan, RunError, Source, run};
pub use status::Status;
pub use text::{endpoint_lines, render};

/// A running target, as the control plane sees it. Calls take at most some ten seconds and never
/// wait for storage, [`Daemon::wait`] apart.
pub trait Daemon: Send + Sync {
    /// How things are now.
    fn status(&self) -> Status;

    /// Takes up a new configuration; gives what changed, in words, an entry a line.
    ///
    /// # Errors
    /// What cannot be served, and what would be right. The old configuration stays in force.
    fn apply(&self, config: &Config) -> Result<Vec<String>, String>;

    /// Gives a port group another state; gives what changed, in words, an entry a line.
    ///
    /// # Errors
    /// What could not be done.
    fn set_access(&self, order: &AccessOrder) -> Result<Vec<String>, String>;

    /// Begins to end: finishes what is in flight, tells initiators. Returns at once.
    fn stop(&self);

    /// Returns when it has ended.
    fn wait(&self);
}
