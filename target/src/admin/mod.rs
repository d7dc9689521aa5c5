//! The control plane: what a running target is asked and told, over its control socket, by
//! signals, by systemd and by Prometheus.
//!
//! ```text
//! status.rs    what is known of a running target, as stable JSON
//! ```
//!
//! It runs on the main thread, on tokio; nothing here touches the data path. Whatever it asks of
//! a [`Daemon`] runs on a thread of its own, so that signals are heard at all times.

pub mod status;

use crate::config::Config;

pub use status::Status;

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

    /// Begins to end: finishes what is in flight, tells initiators. Returns at once.
    fn stop(&self);

    /// Returns when it has ended.
    fn wait(&self);
}
