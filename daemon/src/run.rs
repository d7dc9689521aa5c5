//! The life of a program around what it serves: what it holds before it opens anything, what it
//! does while it serves, and its end.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::http;
use crate::service::Service;
use crate::signals::{Signals, systemd};
use crate::socket::ControlSocket;

/// What has not ended by then does not end by itself: threads give up waiting for storage long
/// before.
const END_MAX: Duration = Duration::from_secs(45);

/// What calls that do not come back get before the process ends without them.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the program does not run, or did not end well.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl RunError {
    fn system(what: &str, error: &std::io::Error) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Lives a program's `life` on this thread. Blocking calls have threads of their own, and are
/// left behind if they have not come back at the end.
///
/// # Errors
/// Those of `life`.
pub fn run(life: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()
        .map_err(|error| RunError::system("no control plane", &error))?;
    let result = runtime.block_on(life);
    runtime.shutdown_timeout(FAREWELL);
    result
}

/// What a program meets its clients with: signals, control socket, metrics.
#[derive(Debug)]
pub struct Front {
    signals: Signals,
    socket: Option<ControlSocket>,
    metrics: Option<TcpListener>,
    tasks: JoinSet<()>,
}

impl Front {
    /// To be opened before any device is: a second daemon must not touch what the first one
    /// serves.
    ///
    /// # Errors
    /// If `program` runs already, or one of the two places cannot be taken.
    pub async fn open(
        program: &str,
        admin_socket: Option<&Path>,
        metrics: Option<SocketAddr>,
    ) -> Result<Self, RunError> {
        let signals = Signals::new().map_err(|error| RunError::system("no signals", &error))?;
        let socket = admin_socket.map(|path| ControlSocket::bind(program, path)).transpose();
        let socket = socket.map_err(RunError)?;
        let metrics = match metrics {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self { signals, socket, metrics, tasks: JoinSet::new() })
    }

    /// Starts what is served. If the program is told to end meanwhile, the process ends: nothing
    /// was `done` ("served", "attached") yet.
    ///
    /// # Errors
    /// Those of `launch`.
    pub async fn launch<T: Send + 'static>(
        &mut self,
        launch: impl FnOnce() -> Result<T, String> + Send + 'static,
        done: &str,
    ) -> Result<T, RunError> {
        tokio::select! {
            launched = spawn_blocking(launch) => launched
                .map_err(|error| RunError(format!("the start broke off: {error}")))?
                .map_err(RunError),
            () = self.signals.end() => {
                tracing::info!("told to end before anything was {done}");
                // A device that hangs while it is opened holds its thread for ever.
                self.socket = None;
                std::process::exit(0);
            }
        }
    }

    /// Begins to answer scrapes, and to tell the watchdog.
    pub fn begin(&mut self, service: &impl Service) {
        self.tasks.spawn(systemd::watchdog(service.clone()));
        if let Some(listener) = self.metrics.take() {
            self.tasks.spawn(http::serve(listener, service.clone()));
        }
    }

    /// Serves the control plane's clients until the end was asked for and `end` is done, which ends
    /// what `whom` ("devices") names; it is not polled before.
    ///
    /// # Errors
    /// If not everything was finished.
    pub async fn serve(
        &mut self,
        service: &impl Service,
        whom: &str,
        end: impl Future<Output = Result<(), JoinError>>,
    ) -> Result<(), RunError> {
        let Self { signals, socket, .. } = self;
        let clients = async {
            match socket {
                Some(socket) => socket.serve(service).await,
                None => std::future::pending().await,
            }
        };
        let end = async {
            service.orders().stop_asked().await;
            systemd::stopping();
            match timeout(END_MAX, end).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(RunError(format!("the end broke off: {error}"))),
                Err(_) => Err(RunError(format!(
                    "{whom} have not ended in {} s; the process ends without them",
                    END_MAX.as_secs()
                ))),
            }
        };
        tokio::select! {
            result = end => result,
            () = signals.serve(service.orders()) => {
                Err(RunError("told twice to end; not everything was finished".into()))
            }
            () = clients => Err(RunError("the control socket broke".into())),
        }
    }

    /// Nothing is served any more: tells those who waited for it.
    pub async fn close(mut self, service: &impl Service) {
        self.tasks.abort_all();
        // Those who asked for the end may start the next one as soon as they are told.
        drop(self.socket);
        service.orders().ended().await;
        tracing::info!("ended");
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| {
        RunError(format!("no metrics on {address}: {error}; give another address in `metrics`"))
    })
}
