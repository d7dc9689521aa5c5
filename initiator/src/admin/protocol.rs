//! The control socket's language: a line of JSON each way, as often as the client likes.

use std::path::Path;
use std::time::Duration;

pub use corbel_daemon::ask::AskError;
pub use corbel_daemon::request::ErrorKind;
use corbel_daemon::{ask, request};
use serde::{Deserialize, Serialize};

/// A request's longest line in bytes, newline included.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// How long an answer may take beyond what was asked for.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// The longest patience that may be asked for.
pub(super) const PATIENCE_MAX: Duration = Duration::from_secs(3600);

/// What a client wants, as `{"command":"fail","device":"vmstore","path":"aoe:0.0@eth1"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Say how things are.
    Status {
        /// One device only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<String>,
        /// With colours, in the text for people.
        #[serde(default)]
        colour: bool,
    },
    /// Read the configuration again.
    Reload {},
    /// End.
    Stop {},
    /// Use a path no more, until it is reinstated.
    Fail {
        /// Its device.
        device: String,
        /// As configured.
        path: String,
    },
    /// Use a path again.
    Reinstate {
        /// Its device.
        device: String,
        /// As configured.
        path: String,
    },
    /// One more path.
    AddPath {
        /// Its device.
        device: String,
        /// As in the configuration.
        path: String,
        /// As in the configuration.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight: Option<u32>,
    },
    /// One path less.
    RemovePath {
        /// Its device.
        device: String,
        /// As configured.
        path: String,
    },
    /// End a path's quarantine.
    Accept {
        /// Its device.
        device: String,
        /// As configured.
        path: String,
    },
    /// Change one key of a device's policy.
    Set {
        /// Which device.
        device: String,
        /// As in the configuration, with `-` or `_`.
        key: String,
        /// As in the configuration, without quotes.
        value: String,
    },
    /// Use this path group.
    SwitchGroup {
        /// Which device.
        device: String,
        /// Counted from 1, in the order of `status`.
        group: usize,
    },
    /// Take up the size that the paths report.
    Resize {
        /// Which device.
        device: String,
    },
    /// Refuse everything; answered when nothing is on its way to the storage any more.
    Fence {
        /// Which device.
        device: String,
    },
    /// Serve again.
    Unfence {
        /// Which device.
        device: String,
    },
    /// Take a device away.
    Detach {
        /// Which device.
        device: String,
        /// Even if it is in use.
        #[serde(default)]
        force: bool,
        /// How long what is in flight may take; then it fails.
        #[serde(default = "patience_ms")]
        patience_ms: u64,
    },
}

fn patience_ms() -> u64 {
    u64::try_from(super::PATIENCE.as_millis()).unwrap_or(u64::MAX)
}

impl request::Request for Request {
    type Response = Response;

    const BYTES_MAX: usize = REQUEST_BYTES_MAX;
    const EXAMPLE: &'static str = "{\"command\":\"status\"}, or what the manual names";
    const ANSWER_MAX: Duration = ANSWER_MAX;

    fn patience(&self) -> Duration {
        match self {
            Self::Detach { patience_ms, .. } => {
                ANSWER_MAX + Duration::from_millis(*patience_ms).min(PATIENCE_MAX)
            }
            _ => ANSWER_MAX,
        }
    }

    fn ends(&self) -> bool {
        *self == Self::Stop {}
    }

    fn refusal(kind: ErrorKind, message: String) -> Response {
        Response::Error { kind, message }
    }
}

/// What it is answered, as `{"result":"done","notes":[]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Response {
    /// How things are.
    Status {
        /// All that is known: see docs/status.md.
        status: serde_json::Value,
        /// The same for people.
        text: String,
    },
    /// It is done.
    Done {
        /// What is to be said about it.
        notes: Vec<String>,
    },
    /// The new configuration is in force.
    Reloaded {
        /// What is different, in words.
        changes: Vec<String>,
    },
    /// Every device is detached; the process ends now.
    Stopped,
    /// It was not done.
    Error {
        /// Whose turn it is.
        kind: ErrorKind,
        /// What is wrong, and what would be right.
        message: String,
    },
}

impl Response {
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Error { kind: ErrorKind::Failed, message: message.into() }
    }

    pub(super) fn wrong(message: impl std::fmt::Display) -> Self {
        Self::Error { kind: ErrorKind::Request, message: message.to_string() }
    }
}

/// Asks the daemon that listens at `path`.
///
/// # Errors
/// If there is no daemon, or it gives no answer.
pub fn ask(path: &Path, request: &Request) -> Result<Response, AskError> {
    ask::ask("corbel-initiator", path, request).map(|(response, _)| response)
}
