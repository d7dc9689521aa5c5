//! NBD: the kernel's client over netlink, and any client over a socket.
//!
//! ```text
//! machine/   the server's end of a connection, pure
//! uri.rs     where a server listens, and what clients are told of it
//! ```

pub mod machine;
pub mod uri;
