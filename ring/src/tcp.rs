//! Listening and connecting TCP sockets, set up the way a storage service needs them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// How sockets are set up. Accepted ones inherit all of it from their listener.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Connections that wait to be accepted.
    pub backlog: i32,
    /// Several sockets of this user may listen on the address; the kernel spreads connections
    /// over them.
    pub reuse_port: bool,
    /// Idle time before the peer is asked whether it is there; asked five times, a tenth of it
    /// apart. `None`: never.
    pub keepalive: Option<Duration>,
    /// Unacknowledged data ends the connection after this time (TCP_USER_TIMEOUT).
    pub user_timeout: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: 1024,
            reuse_port: true,
            keepalive: Some(Duration::from_secs(30)),
            user_timeout: None,
        }
    }
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error("{address} is in use{by}; stop that, or choose another address or port")]
    InUse {
        /// The address wanted.
        address: SocketAddr,
        /// By whom, as far as the system tells.
        by: String,
    },
    /// No interface has the address.
    #[error(
        "{address}: no interface of this host has this address; `ip address` lists those it has"
    )]
    NotHere {
        /// The address wanted.
        address: SocketAddr,
    },
    /// A port below 1024.
    #[error("{address}: ports below 1024 need root or CAP_NET_BIND_SERVICE")]
    Privileged {
        /// The address wanted.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("{address}: {error}")]
    Io {
        /// The address wanted.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// A socket that listens on `address`.
pub fn listen(address: SocketAddr, options: &Options) -> Result<OwnedFd, ListenError> {
    let opened = (|| {
        let socket = new_socket(address, options)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // An IPv6 address means IPv6: whoever wants both listens on both.
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_port(options.reuse_port)?;
        socket.bind(&address.into())?;
        socket.listen(options.backlog)?;
        Ok(socket.into())
    })();
    opened.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, by: who_listens(address) },
        io::ErrorKind::AddrNotAvailable => ListenError::NotHere { address },
        io::ErrorKind::PermissionDenied => ListenError::Privileged { address },
        _ => ListenError::Io { address, error },
    })
}

/// A socket that is connecting to `address`, from `source` if given. It becomes writable when
/// it is connected or has failed ([`Op::PollWritable`](crate::Op)); [`connected`] tells.
pub fn connect(
    address: SocketAddr,
    source: Option<SocketAddr>,
    options: &Options,
) -> io::Result<OwnedFd> {
    let socket = new_socket(address, options)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        _ => {}
    }
    Ok(socket.into())
}

/// What became of a connection attempt.
pub fn connected(fd: BorrowedFd<'_>) -> io::Result<()> {
    SockRef::from(&fd).take_error()?.map_or(Ok(()), Err)
}

/// The addresses of a connected socket: our own, and the peer's.
pub fn addresses(fd: BorrowedFd<'_>) -> io::Result<(SocketAddr, SocketAddr)> {
    let socket = SockRef::from(&fd);
    let not_inet = || io::Error::from(io::ErrorKind::Unsupported);
    let local = socket.local_addr()?.as_socket().ok_or_else(not_inet)?;
    let peer = socket.peer_addr()?.as_socket().ok_or_else(not_inet)?;
    Ok((local, peer))
}

/// The address that a listener listens on.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let address = SockRef::from(&fd).local_addr()?.as_socket();
    address.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn new_socket(address: SocketAddr, options: &Options) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(idle) = options.keepalive {
        let idle = idle.max(Duration::from_secs(1));
        let step = (idle / 10).max(Duration::from_secs(1));
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(step).with_retries(5);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout(options.user_timeout)?;
    Ok(socket)
}

/// ", by process 12 (tgtd)" or nothing, from /proc/net/tcp and /proc/*/fd.
fn who_listens(address: SocketAddr) -> String {
    let table = if address.is_ipv6() { "/proc/net/tcp6" } else { "/proc/net/tcp" };
    let found = fs::read_to_string(table).ok().and_then(|text| {
        let inode = text.lines().skip(1).find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (_, port) = words.get(1)?.rsplit_once(':')?;
            let port = u16::from_str_radix(port, 16).ok()?;
            // State 0A is LISTEN.
            let listens = port == address.port() && words.get(3) == Some(&"0A");
            words.get(9).filter(|_| listens).copied()
        });
        process_of_socket(inode?)
    });
    found.map_or_else(String::new, |process| format!(", by {process}"))
}

fn process_of_socket(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let is_it = |f: fs::DirEntry| {
            fs::read_link(f.path()).is_ok_and(|l| l.as_os_str() == wanted.as_str())
        };
        if files.flatten().any(is_it) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", command.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_port_in_use_names_its_holder() {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let text = listen(address, &Options::default()).unwrap_err().to_string();
        let me = format!("by process {}", std::process::id());
        assert!(text.contains(&address.to_string()) && text.contains(&me), "{text}");
    }

    #[test]
    fn shards_share_a_port() {
        let first = listen("127.0.0.1:0".parse().unwrap(), &Options::default()).unwrap();
        let address = local_address(first.as_fd()).unwrap();
        listen(address, &Options::default()).unwrap();
    }

    #[test]
    fn an_ipv6_listener_leaves_the_ipv4_port_alone() {
        let six = listen("[::]:0".parse().unwrap(), &Options::default()).unwrap();
        let port = local_address(six.as_fd()).unwrap().port();
        let options = Options { reuse_port: false, ..Options::default() };
        listen(SocketAddr::from(([0, 0, 0, 0], port)), &options).unwrap();
    }

    #[test]
    fn an_address_of_another_host_is_refused_by_name() {
        let text =
            listen("192.0.2.1:1".parse().unwrap(), &Options::default()).unwrap_err().to_string();
        assert!(text.contains("no interface"), "{text}");
    }
}
