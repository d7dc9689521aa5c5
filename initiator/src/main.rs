//! `corbel-initiator`: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use corbel_initiator::cli;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
