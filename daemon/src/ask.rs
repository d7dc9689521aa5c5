//! The asking side of the control socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::request::Request;

/// A response's longest line in bytes; some hundred thousand sessions fit.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens.
    #[error(
        "no {program} answers at {}: {error}; start it, or name its socket with --socket",
        path.display()
    )]
    Absent {
        /// Who should listen.
        program: &'static str,
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

/// Asks the `program` that listens at `path`. Gives its answer, and the line as it came.
///
/// # Errors
/// If there is no daemon, or it gives no answer.
pub fn ask<R: Request>(
    program: &'static str,
    path: &Path,
    request: &R,
) -> Result<(R::Response, String), AskError> {
    let stream = UnixStream::connect(path).map_err(|error| AskError::Absent {
        program,
        path: path.to_owned(),
        error,
    })?;
    let lost = |error| AskError::Lost { path: path.to_owned(), error };
    let line = exchange(stream, request).map_err(lost)?;
    let strange = |error| AskError::Strange { path: path.to_owned(), error };
    Ok((serde_json::from_str(&line).map_err(strange)?, line))
}

fn exchange<R: Request>(mut stream: UnixStream, request: &R) -> std::io::Result<String> {
    stream.set_read_timeout(Some(request.patience()))?;
    stream.set_write_timeout(Some(R::ANSWER_MAX))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    if line.len() > R::BYTES_MAX {
        return Err(std::io::Error::other("the request is too long"));
    }
    stream.write_all(&line)?;
    let mut answer = String::new();
    let mut answers = BufReader::new(stream.take(RESPONSE_BYTES_MAX));
    answers.read_line(&mut answer)?;
    if !answer.ends_with('\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    if request.ends() {
        // The daemon hangs up as its process ends.
        let _ = answers.read_line(&mut String::new());
    }
    Ok(answer)
}
