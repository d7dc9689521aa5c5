//! NBD: the kernel's client over netlink, and any client over a socket.
//!
//! ```text
//! kernel/    /dev/nbdN, over netlink
//! machine/   the server's end of a connection, pure
//! uri.rs     where a server listens, and what clients are told of it
//! ```

pub mod kernel;
pub mod machine;
pub mod uri;
