//! The control plane: what a running initiator is asked and told, over its control socket, by
//! signals, by systemd and by Prometheus.
//!
//! ```text
//! run.rs       from a configuration to a running initiator, and its end
//! devices.rs   what it asks of the devices: the trait, commands and answers
//! calls.rs     the asking: never for longer than a device may take
//! control.rs   what may be done, one thing at a time where that matters
//! reload.rs    from one configuration to the next, device by device
//! events.rs    what happens to devices: to the log, to the hook, to udev
//! protocol.rs  requests and responses
//! metrics.rs   figures for Prometheus
//! status.rs    how all devices are, as stable JSON;  text.rs  the same for people
//! udev.rs      what udev is told of a device
//! limits.rs    what the system lets the process use
//! ```
//!
//! The rest stands in `corbel_daemon`: control socket, signals, systemd, the HTTP of a scrape.
//!
//! It runs on the main thread, on tokio; nothing here touches the data path. A device that does
//! not answer delays nothing that is asked about another one.

mod calls;
mod control;
mod devices;
mod events;
mod limits;
mod metrics;
mod protocol;
mod reload;
mod run;
mod status;
mod sys;
#[cfg(test)]
mod tests;
mod text;
pub mod udev;

use std::time::Duration;

pub use devices::{Answer, Command, Devices, NoticeSink, Presented, Reply, Report};
pub use limits::stay_in_memory;
pub use protocol::{AskError, ErrorKind, Request, Response, ask};
pub use run::{Plan, RunError, Source, run};
pub use status::{Known, Status};
pub use text::render;

/// A device that has not answered by then is busy; what was asked may still happen.
pub const CALL_MAX: Duration = Duration::from_secs(2);

/// How long requests under way may take when the daemon ends or a device leaves the
/// configuration; then they fail.
pub const PATIENCE: Duration = Duration::from_secs(10);
