//! The control socket's language: a line of JSON each way, as often as the client likes.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a program's clients want of it.
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// What it is answered.
    type Response: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Its longest line in bytes, newline included.
    const BYTES_MAX: usize;

    /// What a client that sent something else is told to send.
    const EXAMPLE: &'static str;

    /// How long an answer may take, beyond what was asked for.
    const ANSWER_MAX: Duration;

    /// How long the answer to this one may take.
    fn patience(&self) -> Duration {
        Self::ANSWER_MAX
    }

    /// Whether it asks for the end of the program.
    fn ends(&self) -> bool;

    /// The answer to what is not done: why, and what would be right.
    fn refusal(kind: ErrorKind, message: String) -> Self::Response;
}

/// Why nothing was done.
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
