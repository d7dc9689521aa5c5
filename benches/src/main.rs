//! `corbel-bench`: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    corbel_benches::cli::run()
}
