//! What is logged, and where: on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Wrong;

/// Logs from now on, once in a process's life. `filter` was given on the command line; without one
/// `RUST_LOG` counts, and without that `info`. `example` is a good filter.
///
/// # Errors
/// What is wrong with the filter, and what would be right.
pub fn init(filter: Option<&str>, example: &str) -> Result<(), Wrong> {
    let asked = match filter {
        Some(filter) => Some(("--log", filter.to_owned())),
        None => std::env::var("RUST_LOG").ok().map(|filter| ("RUST_LOG", filter)),
    };
    let filter = match asked.filter(|(_, filter)| !filter.is_empty()) {
        Some((place, text)) => EnvFilter::try_new(&text).map_err(|error| {
            let what = format!("{place}: `{text}` is no filter: {error}");
            Wrong::new(what, format!("write it as {example}"))
        })?,
        None => EnvFilter::new("info"),
    };
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        // It would be said on stderr, with a panic if that is what is broken.
        .log_internal_errors(false)
        .init();
    Ok(())
}
