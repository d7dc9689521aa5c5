//! One file per pair of PDUs, RFC 7143 section 11: the request and its response.

pub mod login;
pub mod text;
