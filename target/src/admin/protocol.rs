//! The control socket's language: a line of JSON each way, as often as the client likes.

use std::path::Path;
use std::time::Duration;

pub use corbel_daemon::ask::AskError;
pub use corbel_daemon::request::ErrorKind;
use corbel_daemon::{ask, request};
use serde::{Deserialize, Serialize};

use super::Status;
use crate::config::{ACCESS_STATES, AccessState};

/// A request's longest line in bytes, newline included.
const REQUEST_BYTES_MAX: usize = 4096;

/// How long an answer may take: the end of a daemon with commands in flight takes longest.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A request's line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) command: Request,
}

impl request::Request for Line {
    type Response = Response;

    const BYTES_MAX: usize = REQUEST_BYTES_MAX;
    const EXAMPLE: &'static str = "{\"command\":\"status\"}, \"reload\" or \"stop\"";
    const ANSWER_MAX: Duration = ANSWER_MAX;

    fn ends(&self) -> bool {
        self.command == Request::Stop
    }

    fn refusal(kind: ErrorKind, message: String) -> Response {
        Response::Error { kind, message }
    }
}

/// What a client wants, as `{"command":"status"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Say how things are.
    Status,
    /// Read the configuration again.
    Reload,
    /// Give a port group another state: `{"command":{"access":{"exports":[],"group":2,"state":…}}}`
    Access(AccessOrder),
    /// Finish what is in flight and end.
    Stop,
}

/// How good a portal group is to be as a way to some devices (SPC-4 5.15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessOrder {
    /// Exports by name; none is all that have a portal in the group.
    pub exports: Vec<String>,
    /// Portal group tag.
    pub group: u16,
    /// One of [`ACCESS_STATES`], by its name.
    #[serde(with = "state")]
    pub state: AccessState,
}

mod state {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{ACCESS_STATES, AccessState};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(state: &AccessState, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(state.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AccessState, D::Error> {
        let name = String::deserialize(from)?;
        let known = ACCESS_STATES.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, state)| state).ok_or_else(|| D::Error::custom(format!("no state `{name}`")))
    }
}

/// What it is answered, as `{"result":"status","status":{…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Response {
    /// How things are.
    Status {
        /// All that is known.
        status: Box<Status>,
    },
    /// The new configuration is in force.
    Reloaded {
        /// What is different, in words.
        changes: Vec<String>,
    },
    /// It is done.
    Changed {
        /// What is different, in words.
        changes: Vec<String>,
    },
    /// Everything in flight is finished; the process ends now.
    Stopped,
    /// Nothing was changed.
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
}

/// Asks the daemon that listens at `path`. Gives its answer, and the line as it came.
///
/// # Errors
/// If there is no daemon, or it gives no answer.
pub fn ask(path: &Path, request: Request) -> Result<(Response, String), AskError> {
    ask::ask("corbel-target", path, &Line { command: request })
}
