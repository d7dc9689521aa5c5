//! How a running initiator is, as stable JSON: docs/status.md names every field.

use serde::Serialize;

use super::devices::Report;

/// A running initiator.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// Its process.
    pub pid: u32,
    /// Time since its start.
    pub uptime_seconds: u64,
    /// Events that were not told to the hook: too many waited.
    pub events_dropped: u64,
    /// Times that the hook failed or took too long.
    pub hook_failures: u64,
    /// Every device, in the order in which they were attached.
    pub devices: Vec<Known>,
}

/// What is known of a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Known {
    /// All of it.
    Report(Box<Report>),
    /// It did not answer in time.
    Silent {
        /// Its name.
        name: String,
        /// Why.
        error: String,
    },
}

impl Known {
    /// The device's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Report(report) => &report.device.name,
            Self::Silent { name, .. } => name,
        }
    }
}
