//! Reading a configuration file into types that cannot be wrong.
//!
//! ```text
//! keys.rs      every key once: what is known, and the reference page
//! reader.rs    walks the document, keeps the place of every value
//! problem.rs   what is wrong: where, what, and what would be right
//! file.rs      from a path to the document
//! secret.rs    CHAP secrets
//! ```

mod file;
mod keys;
mod problem;
mod reader;
mod secret;

pub use file::{document, text, unreadable};
pub use keys::{Key, Keys, key};
pub use problem::{Findings, Problem, Problems, Span, Wrong, nearest};
pub use reader::{At, Reader, Table, pick, short};
pub use secret::{Secret, SecretKey};
