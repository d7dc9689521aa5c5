//! Refusals, sorted by who erred.
//!
//! [`Malformed`]: the bytes are wrong, whoever sent them. [`Violation`]: the bytes are fine, the
//! conduct is not. Each names the section of its standard. What we answer on the wire is decided
//! in one place per protocol, by a total `match`.

use thiserror::Error;

/// Bytes that cannot be read as what they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{what} is malformed: {why} ({section})")]
pub struct Malformed {
    /// The unit, in the standard's own words: "ATA header", "Login Request".
    pub what: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
    /// Where the standard says so.
    pub section: &'static str,
}

impl Malformed {
    /// A refusal of `what` because of `why`, by `section`.
    pub const fn new(what: &'static str, why: &'static str, section: &'static str) -> Self {
        Self { what, why, section }
    }
}

/// Well-formed bytes at the wrong time, or outside what was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{what} is not allowed: {why} ({section})")]
pub struct Violation {
    /// What the peer did.
    pub what: &'static str,
    /// Why that is not allowed now.
    pub why: &'static str,
    /// Where the standard says so.
    pub section: &'static str,
}

impl Violation {
    /// A refusal of the conduct `what` because of `why`, by `section`.
    pub const fn new(what: &'static str, why: &'static str, section: &'static str) -> Self {
        Self { what, why, section }
    }
}
