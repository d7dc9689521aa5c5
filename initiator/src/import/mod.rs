//! Other programs' configuration, read as it stands.
//!
//! ```text
//! syntax.rs     multipath.conf to sections, with the line of everything
//! keywords.rs   every keyword that multipath-tools knows, and what becomes of it
//! multipath.rs  sections to initiator.toml
//! ```
//!
//! Every line is either carried over, or named in a comment with the reason why not.

mod keywords;
mod multipath;
mod syntax;
#[cfg(test)]
mod tests;

pub use multipath::multipath;

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The text of an initiator.toml.
    pub toml: String,
    /// What could not be understood, each with its line. It stands in the text as well.
    pub warnings: Vec<String>,
}
