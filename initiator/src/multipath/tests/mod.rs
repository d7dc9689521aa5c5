//! Claims about the engine, on paths that do what the test says.

mod bench;
mod errors;
mod fence;
mod flush;
mod groups;
mod hedge;
mod identity;
mod legacy;
mod lifecycle;
mod no_path;
mod order;
mod report;

use bench::*;
