//! The server's end of one NBD connection, without I/O.
//!
//! ```text
//! wire.rs         numbers and fixed messages of the protocol
//! export.rs       what is served; flags, block sizes, error numbers
//! handshake.rs    options before the first request
//! connection.rs   bytes to requests; back-pressure
//! jobs.rs         requests to pieces, and outcomes to replies
//! ```
//!
//! The owner gives a [`Connection`] what it received ([`Connection::received`]) while
//! [`Connection::wants_read`], takes requests ([`Connection::poll_request`]), gives outcomes back
//! ([`Connection::complete`]) and sends what [`Connection::transmit`] yields. After outcomes and
//! transmissions it calls [`Connection::resume`] if [`Connection::wants_resume`]: what had to wait
//! for room goes on then. Everything is bounded by [`Bounds`]: a client that does not read its
//! replies is not read from either.

mod connection;
mod export;
mod handshake;
mod jobs;
#[cfg(test)]
mod tests;
pub mod wire;

use corbel_proto::error::Malformed;
use corbel_proto::memory::Slice;

pub use connection::Connection;
pub use export::Export;

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// With the fixed newstyle handshake.
    Handshake,
    /// With the first request: the kernel's client, which is told of the export over netlink. It
    /// knows simple replies only.
    Transmission,
}

/// What a connection may hold at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests that have not been answered; further ones are not read. 1 to 65536.
    pub requests_max: u32,
    /// Payload memory. Also the longest read or write, if less than 32 MiB, so at least one block
    /// of the device, and no more than the arena can lend if nobody else borrows.
    pub bytes_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { requests_max: 256, bytes_max: 32 << 20 }
    }
}

/// Bytes to send: `head`, then `data`.
#[derive(Debug)]
pub struct Reply<B> {
    /// Headers; may be empty.
    pub head: wire::Head,
    /// Payload.
    pub data: Option<Slice<B>>,
}

/// Why a connection is ended by us. The client is told nothing: it broke the protocol, and would
/// not find an answer in the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Bytes that cannot be read as what they should be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Flags that we did not offer.
    #[error("the client chose flags that were not offered ({0:#x})")]
    ClientFlags(u32),
    /// NBD_OPT_EXPORT_NAME has no other way to say no.
    #[error("the client asked for the export {0:?}, which is not here")]
    UnknownExport(String),
    /// Longer than anybody needs.
    #[error("the client sent an option with {0} bytes of data")]
    OptionTooLong(u32),
    /// It talks and talks.
    #[error("the client sent hundreds of options and chose no export")]
    TooManyOptions,
}
