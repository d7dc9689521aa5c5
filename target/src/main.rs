//! `corbel-target`: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use corbel_target::admin::Daemon;
use corbel_target::cli;
use corbel_target::config::Config;
use corbel_target::shell;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse(), launch)
}

/// The one place where the target itself is started.
fn launch(config: &Config, persist: bool) -> Result<Arc<dyn Daemon>, String> {
    let running = shell::start(config, shell::StartOptions { persist });
    running.map(|running| Arc::new(running) as _).map_err(|error| error.to_string())
}
