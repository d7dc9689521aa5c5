//! Claims about the engine, on paths that do what the test says.

mod bench;
mod errors;
mod fence;
mod flush;
mod no_path;
mod order;

use bench::*;
