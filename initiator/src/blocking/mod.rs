//! One path on one thread, over plain sockets: for tools and tests.
//!
//! Here are the clock, the sockets and the waiting that the pure path clients do without. Each
//! call waits for the network, none longer than it is told.

pub mod aoe;
pub mod iscsi;
pub mod login;

use std::io;
use std::sync::OnceLock;

use corbel_proto::time::{Duration, Instant};
use thiserror::Error;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The socket did.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The connection ended against its rules.
    #[error("the connection broke: {0}")]
    Fatal(#[from] corbel_proto::iscsi::initiator::Fatal),
    /// The target did not let us in.
    #[error("login failed: {0}")]
    Login(String),
    /// The target said why it did not.
    #[error("{}", crate::path::iscsi::refusal(*.0))]
    Refused(corbel_proto::iscsi::pdu::login::Status),
    /// The peer closed the connection.
    #[error("the target closed the connection")]
    Closed,
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// A command ended without an answer.
    #[error("the command failed: {0}")]
    Command(String),
    /// There is no such interface, or it cannot be used.
    #[error("interface {name}: {why}")]
    Interface {
        /// As the caller named it.
        name: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

/// Now, on a clock that all paths of this process share.
pub fn now() -> Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    let elapsed = ORIGIN.get_or_init(std::time::Instant::now).elapsed();
    Instant::ZERO + elapsed
}
