//! An allocator that counts, for tests: the hot path must not allocate, and whether it does is
//! seen by nothing else. Programs do not use it.

mod sys;

pub use sys::{Counting, allocations};
