//! The control socket's language: a line of JSON each way, as often as the client likes.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Status;

/// A request's longest line in bytes, newline included.
pub(super) const REQUEST_BYTES_MAX: usize = 4096;

/// A response's longest line in bytes; some hundred thousand sessions fit.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;

/// How long an answer may take: the end of a daemon with commands in flight takes longest.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A request's line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) command: Request,
}

/// What a client wants, as `{"command":"status"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Say how things are.
    Status,
    /// Read the configuration again.
    Reload,
    /// Finish what is in flight and end.
    Stop,
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

/// Why nothing was changed.
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
        "no corbel-target answers at {}: {error}; start it, or name its socket with --socket",
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

/// Asks the daemon that listens at `path`. Gives its answer, and the line as it came.
///
/// # Errors
/// If there is no daemon, or it gives no answer.
pub fn ask(path: &Path, request: Request) -> Result<(Response, String), AskError> {
    let stream = UnixStream::connect(path)
        .map_err(|error| AskError::Absent { path: path.to_owned(), error })?;
    let lost = |error| AskError::Lost { path: path.to_owned(), error };
    let line = exchange(stream, request).map_err(lost)?;
    let strange = |error| AskError::Strange { path: path.to_owned(), error };
    Ok((serde_json::from_str(&line).map_err(strange)?, line))
}

fn exchange(mut stream: UnixStream, request: Request) -> std::io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let mut line = serde_json::to_vec(&Line { command: request })?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    let mut answers = BufReader::new(stream.take(RESPONSE_BYTES_MAX));
    answers.read_line(&mut answer)?;
    if !answer.ends_with('\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if request == Request::Stop {
        // The daemon hangs up as its process ends.
        let _ = answers.read_line(&mut String::new());
    }
    Ok(answer)
}
