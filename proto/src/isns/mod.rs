//! iSNS, RFC 4171: where initiators find out which targets there are.
//!
//! ```text
//! message.rs  headers and attributes: what goes over the wire
//! client.rs   what a target says to a server, and when
//! news.rs     what an operator learns of it
//! ```
//!
//! The target registers itself: an entity with its portals and nodes, which the server forgets
//! unless it hears of it within the registration period.

pub mod client;
pub mod message;
pub mod news;
