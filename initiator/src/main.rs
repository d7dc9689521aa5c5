//! `corbel-initiator`: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use corbel_initiator::admin::{Devices, NoticeSink};
use corbel_initiator::cli;
use corbel_initiator::config::{Settings, initiator_name};
use corbel_initiator::shell::{Config, RUN_DIR, Shell};

fn main() -> ExitCode {
    cli::run(cli::Cli::parse(), launch)
}

/// The one place where the initiator itself is started.
fn launch(settings: &Settings, notices: NoticeSink) -> Result<Arc<dyn Devices>, String> {
    let initiator = initiator_name(&settings.daemon).map_err(|error| {
        format!("no iSCSI name: {error}; give one as initiator_name, or by --initiator")
    })?;
    // A machine without an id is told from others by its name alone.
    let host_id = std::fs::read("/etc/machine-id").unwrap_or_default();
    let config = Config { initiator, host_id, run_dir: RUN_DIR.into(), notices };
    Ok(Arc::new(Shell::new(config)))
}
