//! The control socket's language: a line of JSON each way, as often as the client likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A request's longest line in bytes, newline included.
pub(super) const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// A response's longest line in bytes; some ten thousand paths fit.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;

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

impl Request {
    /// How long its answer may take.
    fn patience(&self) -> Duration {
        match self {
            Self::Detach { patience_ms, .. } => {
                ANSWER_MAX + Duration::from_millis(*patience_ms).min(PATIENCE_MAX)
            }
            _ => ANSWER_MAX,
        }
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

/// Why it was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The request is none.
    Request,
    /// The configuration is wrong.
    Configuration,
    /// It could not be done.
    Failed,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no corbel-initiator answers at {}: {error}; start it, or name its socket with --socket",
        path.display()
    )]
    Absent {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It went away, or is too slow.
    #[error("the daemon at {} gave no answer: {error}", path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It says something else.
    #[error(
        "the daemon at {} answers in another way: {error}; is it another version?",
        path.display()
    )]
    Strange {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
}

/// Asks the daemon that listens at `path`.
///
/// # Errors
/// If there is no daemon, or it gives no answer.
pub fn ask(path: &Path, request: &Request) -> Result<Response, AskError> {
    let stream = UnixStream::connect(path)
        .map_err(|error| AskError::Absent { path: path.to_owned(), error })?;
    let lost = |error| AskError::Lost { path: path.to_owned(), error };
    let line = exchange(stream, request).map_err(lost)?;
    let strange = |error| AskError::Strange { path: path.to_owned(), error };
    serde_json::from_str(&line).map_err(strange)
}

fn exchange(mut stream: UnixStream, request: &Request) -> std::io::Result<String> {
    stream.set_read_timeout(Some(request.patience()))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    if line.len() > REQUEST_BYTES_MAX {
        return Err(std::io::Error::other("the request is too long"));
    }
    stream.write_all(&line)?;
    let mut answer = String::new();
    let mut answers = BufReader::new(stream.take(RESPONSE_BYTES_MAX));
    answers.read_line(&mut answer)?;
    if !answer.ends_with('\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if *request == (Request::Stop {}) {
        // The daemon hangs up as its process ends.
        let _ = answers.read_line(&mut String::new());
    }
    Ok(answer)
}
