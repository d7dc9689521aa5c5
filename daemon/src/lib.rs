//! What both long-running programs share outside the data plane.
//!
//! ```text
//! config/   reading a TOML file: keys, places, findings, secrets
//! ```
//!
//! It knows no protocol and no device: where the programs differ, they say so in a parameter.
#![forbid(unsafe_code)]

pub mod config;
