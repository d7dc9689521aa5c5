//! How a command of either program ends: what it prints, what it says, its exit code.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::ask::AskError;
use crate::config::{Problem, Problems, Wrong};
use crate::run::RunError;

/// Why a command did not do what it should.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 2.
    Usage(String),
    /// Exit code 1.
    Failed(String),
}

impl Failure {
    /// It could not be done.
    pub fn failed(why: impl Display) -> Self {
        Self::Failed(why.to_string())
    }

    /// The daemon's answer is to another question.
    pub fn strange_answer() -> Self {
        Self::failed("the daemon answered something else")
    }
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Self::Usage(wrong.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Usage(problems.to_string())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        Self::failed(error)
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::failed(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

/// The exit code of `program`: 0 done, 1 failed, 2 wrong usage or configuration. What went wrong is
/// said on stderr.
pub fn exit_code(program: &str, done: Result<(), Failure>) -> ExitCode {
    let (code, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (1, message),
        Err(Failure::Usage(message)) => (2, message),
    };
    say(program, &message);
    ExitCode::from(code)
}

/// Says something on stderr.
pub fn say(who: &str, what: &str) {
    // Without stderr there is only the exit code.
    let _ = writeln!(std::io::stderr(), "{who}: {what}");
}

/// Says what is probably not meant, on stderr.
pub fn warn(warnings: &[Problem]) {
    warnings.iter().for_each(|warning| say("warning", &warning.to_string()));
}

/// Prints to whoever still listens: `status | head` is no failure.
///
/// # Errors
/// If it cannot be printed.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints what a reload changed, in words.
///
/// # Errors
/// If it cannot be printed.
pub fn print_changes(changes: &[String]) -> Result<(), Failure> {
    if changes.is_empty() {
        return print("nothing changed\n");
    }
    print(&changes.iter().map(|change| format!("{change}\n")).collect::<String>())
}

/// The text of a file that another program wrote, whatever its encoding.
///
/// # Errors
/// If it cannot be read.
pub fn text_of(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `1 export`, `2 exports`.
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
