//! The control plane: what a running initiator is asked and told, over its control socket, by
//! signals, by systemd and by Prometheus.
//!
//! ```text
//! devices.rs   what it asks of the devices: the trait, commands and answers
//! ```

mod devices;

use std::time::Duration;

pub use devices::{Answer, Command, Devices, Presented, Reply, Report};

/// A device that has not answered by then is busy; what was asked may still happen.
pub const CALL_MAX: Duration = Duration::from_secs(2);
