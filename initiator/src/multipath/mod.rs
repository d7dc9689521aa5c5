//! The multipath engine: many paths, one device, nothing lost, nothing stuck.
//!
//! ```text
//! policy.rs    what an administrator decides
//! status.rs    what is told to people and scripts
//! ```

pub mod policy;
pub mod status;
