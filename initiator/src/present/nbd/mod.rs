//! NBD: the kernel's client over netlink, and any client over a socket.
