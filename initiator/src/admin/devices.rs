//! What the control plane asks of the devices.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::config::{DeviceSettings, Origins, PathSettings, Setting};
use crate::multipath::policy::Policy;
use crate::multipath::status::{DeviceStatus, Limit, Notice};

/// Is told what happens to a device, by its name. Called on the device's thread: it never waits.
pub type NoticeSink = Arc<dyn Fn(&str, &Notice) + Send + Sync>;

/// Takes the answer to a call. Called once, from any thread, at any time; it never blocks.
pub type Reply = Box<dyn FnOnce(Result<Answer, String>) + Send>;

/// The devices of a running initiator, as the control plane sees them.
///
/// No method blocks: calls are handed over, and answered by the [`Reply`]. A device that does not
/// answer keeps nobody but its own callers waiting, and those not for long: the control plane
/// gives up on a reply after [`CALL_MAX`](super::CALL_MAX). A reply that is dropped unanswered
/// means that the device is gone.
pub trait Devices: Send + Sync {
    /// Names of all attached devices, those that have no path yet included, in the order in which
    /// they were attached.
    fn names(&self) -> Vec<String>;

    /// Attaches a device. From now on it is listed, has a status and takes commands. The reply is
    /// [`Answer::Attached`] as soon as it can be used here, which takes a path that works: it may
    /// come late, or never. An error means that it cannot be attached, and is not listed.
    fn attach(&self, device: DeviceSettings, reply: Reply);

    /// Asks the device called `device`. There being none is an error, in words.
    fn call(&self, device: &str, command: Command, reply: Reply);

    /// Begins to end: every device finishes what is in flight for at most `patience`, then fails
    /// the rest. Returns at once. Asked again, the shorter patience counts.
    fn stop(&self, patience: Duration);

    /// Returns when all have ended. Called on a thread of its own.
    fn wait(&self);
}

/// What a device is told or asked.
///
/// A path is named as in [`PathStatus::path`](crate::multipath::status::PathStatus::path).
#[derive(Debug, Clone)]
pub enum Command {
    /// Say how it is: [`Answer::Status`].
    Status,
    /// Use this path no more, until it is reinstated.
    Fail {
        /// Which.
        path: String,
    },
    /// Use this path again.
    Reinstate {
        /// Which.
        path: String,
    },
    /// One more path.
    AddPath(Box<PathSettings>),
    /// One path less; what is under way on it ends first.
    RemovePath {
        /// Which.
        path: String,
    },
    /// What this path leads to is the device, whatever it looked like: end its quarantine.
    Accept {
        /// Which.
        path: String,
    },
    /// Change one key of the policy; its origin becomes a command.
    Set(Setting),
    /// Take up a whole policy (after a reload), and where each key comes from.
    SetPolicy(Box<Policy>, Origins),
    /// Use this path group, counted from 0 in the order of `status`.
    SwitchGroup(usize),
    /// Take up the size that its paths report, even if that is not done by itself.
    Resize,
    /// Drop what waits, refuse everything from now on, and answer when nothing of it can reach the
    /// storage any more.
    Fence,
    /// Serve again.
    Unfence,
    /// Take it away. [`Answer::Done`] when it is gone.
    Detach {
        /// Even if it is in use.
        force: bool,
        /// How long what is in flight may take; then it fails.
        patience: Duration,
    },
}

/// What a device says.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Done.
    Done,
    /// Done, and this is to be said about it.
    Note(String),
    /// How it is.
    Status(Box<Report>),
    /// It can be used here.
    Attached(Presented),
}

/// How a device is, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What the engine knows.
    #[serde(flatten)]
    pub device: DeviceStatus,
    /// Time limits of its policy. Those of its paths stand with them.
    pub limits: Vec<Limit>,
    /// Where it can be used, once it can.
    pub presented: Option<Presented>,
}

/// Where a device can be used on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Presented {
    /// `ublk` or `nbd`.
    pub by: &'static str,
    /// `/dev/ublkb0`, `/dev/nbd0`, or the NBD URI (`nbd+unix:///?socket=…`, `nbd://…`).
    pub at: String,
    /// The name that lasts: `/dev/corbel/NAME`. NBD servers have none.
    pub link: Option<String>,
}

impl std::fmt::Display for Presented {
    /// `/dev/corbel/NAME -> /dev/ublkb0`, or the URI.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.link {
            Some(link) => write!(f, "{link} -> {}", self.at),
            None => f.write_str(&self.at),
        }
    }
}
