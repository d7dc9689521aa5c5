//! `corbel-target`: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use corbel_target::admin::Daemon;
use corbel_target::cli;
use corbel_target::config::Config;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse(), launch)
}

/// The one place where the target itself is started.
fn launch(_config: &Config, _persist: bool) -> Result<Arc<dyn Daemon>, String> {
    Err("this build serves nothing".into())
}
