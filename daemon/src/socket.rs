//! The control socket: for its owner only, a bounded number of clients, each bounded in what it
//! may send and how long it may be silent.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind as IoErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::request::{ErrorKind, Request};
use crate::service::{Response, Service};

/// Clients at a time.
pub const CLIENTS_MAX: usize = 32;

/// A client that takes longer for one request, or for taking its answer, is left.
pub const IDLE_MAX: Duration = Duration::from_secs(5);

/// A bound control socket. Dropping it takes the file away.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Held as long as the socket is ours: two daemons that start at once must not take each
    /// other's socket for a stale one.
    _lock: File,
}

impl ControlSocket {
    /// Binds `path` for `program`, mode 0600. A socket that nobody answers at is replaced.
    ///
    /// # Errors
    /// In words, with the cure.
    pub(crate) fn bind(program: &str, path: &Path) -> Result<Self, String> {
        let at = path.display();
        let failed = |error: io::Error| format!("no control socket at {at}: {error}");
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            match std::fs::create_dir(folder) {
                Err(error) if error.kind() != IoErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        let running = || {
            format!(
                "{program} is already running at {at}; stop it first ({program} stop), or give \
                 this one another admin_socket"
            )
        };
        let lock = lock_file(path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(running()),
            Err(error) => return Err(failed(error.into())),
        }
        if BlockingStream::connect(path).is_ok() {
            return Err(running());
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => {
                return Err(format!(
                    "{at} is there and is no socket; give another path as admin_socket"
                ));
            }
            Err(error) if error.kind() == IoErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = listen(path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// Serves clients until dropped.
    pub(crate) async fn serve<S: Service>(&self, service: &S) {
        let places = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a control client was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                refuse::<S>(&stream);
                continue;
            };
            let service = service.clone();
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &service).await {
                    tracing::debug!(%error, "a control client was left");
                }
                drop(place);
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was not removed");
        }
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(name)
}

/// Nobody can connect before the mode is set: the socket does not listen yet.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

fn refuse<S: Service>(stream: &UnixStream) {
    let message = format!("{CLIENTS_MAX} clients are connected; try again");
    let response = S::Request::refusal(ErrorKind::Failed, message);
    // A new stream has room for a short line; if not, the client sees the end alone.
    let _ = stream.try_write(&line::<S>(&response));
}

async fn converse<S: Service>(mut stream: UnixStream, service: &S) -> io::Result<()> {
    let mut buffer = vec![0; S::Request::BYTES_MAX];
    let mut filled = 0;
    let mut deadline = Instant::now() + IDLE_MAX;
    let wrong = |message| S::Request::refusal(ErrorKind::Request, message);
    loop {
        let Some(end) = buffer[..filled].iter().position(|byte| *byte == b'\n') else {
            if filled == buffer.len() {
                let response = wrong(format!("a request has at most {filled} bytes"));
                return say::<S>(&mut stream, &response).await;
            }
            let received = timeout_at(deadline, stream.read(&mut buffer[filled..])).await??;
            if received == 0 {
                return Ok(());
            }
            filled += received;
            continue;
        };
        let response = match serde_json::from_slice::<S::Request>(&buffer[..end]) {
            Ok(request) if request.ends() => return stop(stream, service, request).await,
            Ok(request) => service.answer(request).await,
            Err(error) => wrong(format!("no request: {error}; send {}", S::Request::EXAMPLE)),
        };
        say::<S>(&mut stream, &response).await?;
        buffer.copy_within(end + 1..filled, 0);
        filled -= end + 1;
        deadline = Instant::now() + IDLE_MAX;
    }
}

/// Answers when everything has ended, and hangs up when the process does: then its devices are
/// free for the next one.
async fn stop<S: Service>(
    mut stream: UnixStream,
    service: &S,
    request: S::Request,
) -> io::Result<()> {
    let mut end = service.orders().end();
    let response = service.answer(request).await;
    let _ = end.wait_for(|ended| *ended).await;
    let said = say::<S>(&mut stream, &response).await;
    drop(end);
    said?;
    std::future::pending().await
}

fn line<S: Service>(response: &Response<S>) -> Vec<u8> {
    let mut line = serde_json::to_vec(response).expect("maps have text keys only");
    line.push(b'\n');
    line
}

async fn say<S: Service>(stream: &mut UnixStream, response: &Response<S>) -> io::Result<()> {
    timeout(IDLE_MAX, stream.write_all(&line::<S>(response))).await?
}
