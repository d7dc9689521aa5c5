//! The login phase, RFC 7143 6.3: who is there, may they, and under which terms.
//!
//! [`initiator::Login`] asks and [`target::Login`] answers. Each is handed one PDU at a time and
//! hands back what to send; they know neither sockets, nor time, nor how sessions are kept.

pub mod directory;
pub mod fault;
pub mod initiator;
pub mod target;

#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod initiator_tests;
#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod tests;

use super::pdu::login::LoginResponse;

/// The most Login Requests in one login. CHAP with both stages takes four; the rest is room
/// for long texts.
pub const REQUESTS_MAX: u32 = 64;

/// A Login Response and its text, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The header; its `data_len` fits `text`.
    pub response: LoginResponse,
    /// The data segment, without padding.
    pub text: Vec<u8>,
}
