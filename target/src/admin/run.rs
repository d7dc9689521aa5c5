//! From a configuration to a running target, and its end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corbel_daemon::http;
use corbel_daemon::signals::{Signals, systemd};
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Daemon;
use super::control::Control;
use super::socket::ControlSocket;
use super::text::endpoint_lines;
use crate::config::Config;

/// A target that has not ended by then does not end by itself: shards give up waiting for
/// storage long before.
const END_MAX: Duration = Duration::from_secs(45);

/// What calls into a target that does not answer get before the process ends without them.
const FAREWELL: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is served.
    pub config: Config,
    /// Where a reload finds the next configuration.
    pub source: Source,
    /// Print a line per endpoint, and `ready`.
    pub announce: bool,
}

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, read again at every reload.
    File(PathBuf),
    /// A command line. A reload looks for devices that have another size.
    Fixed(Box<Config>),
}

/// Why the target does not run, or did not end well.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl RunError {
    fn system(what: &str, error: &std::io::Error) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Starts a target by means of `launch`, serves until told to end, and ends it. `out` is told
/// what is served, if the plan says so; that nobody reads it does no harm.
///
/// # Errors
/// If it does not start, or does not end.
pub fn run<L>(plan: Plan, launch: L, out: &mut dyn Write) -> Result<(), RunError>
where
    L: FnOnce(&Config) -> Result<Arc<dyn Daemon>, String> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(64)
        .build()
        .map_err(|error| RunError::system("no control plane", &error))?;
    let result = runtime.block_on(start(plan, launch, out));
    runtime.shutdown_timeout(FAREWELL);
    result
}

async fn start<L>(plan: Plan, launch: L, out: &mut dyn Write) -> Result<(), RunError>
where
    L: FnOnce(&Config) -> Result<Arc<dyn Daemon>, String> + Send + 'static,
{
    let mut signals = Signals::new().map_err(|error| RunError::system("no signals", &error))?;
    let Plan { config, source, announce } = plan;
    // Before any device is opened: a second daemon must not touch what the first one serves.
    let socket = config.daemon.admin_socket.as_deref().map(ControlSocket::bind).transpose();
    let socket = socket.map_err(RunError)?;
    let metrics = match config.daemon.metrics {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let launched = tokio::task::spawn_blocking(move || launch(&config));
    let daemon = tokio::select! {
        launched = launched => launched
            .map_err(|error| RunError(format!("the start broke off: {error}")))?
            .map_err(RunError)?,
        () = signals.end() => {
            tracing::info!("told to end before anything was served");
            // A device that hangs while it is opened holds its thread for ever.
            drop(socket);
            std::process::exit(0);
        }
    };
    let control = Control::new(daemon.clone(), source);
    let mut tasks = vec![tokio::spawn(systemd::watchdog(control.clone()))];
    tasks.extend(metrics.map(|listener| tokio::spawn(http::serve(listener, control.clone()))));
    if announce {
        self::announce(&control, out).await;
    }
    tracing::info!("serving");
    systemd::ready();
    let result = serve(&control, socket.as_ref(), &mut signals, daemon).await;
    tasks.iter().for_each(JoinHandle::abort);
    // Those who asked for the end may start the next one as soon as they are told.
    drop(socket);
    control.orders().ended().await;
    tracing::info!("ended");
    result
}

async fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    tokio::net::TcpListener::bind(address).await.map_err(|error| {
        RunError(format!("no metrics on {address}: {error}; give another address in `metrics`"))
    })
}

async fn announce(control: &Control, out: &mut dyn Write) {
    let Some(status) = control.status().await else {
        tracing::error!("the serving threads do not answer");
        return;
    };
    let mut text: String = endpoint_lines(&status).iter().map(|line| format!("{line}\n")).collect();
    text.push_str("ready\n");
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads what is served");
    }
}

/// Serves the control plane's clients until the target has ended.
async fn serve(
    control: &Control,
    socket: Option<&ControlSocket>,
    signals: &mut Signals,
    daemon: Arc<dyn Daemon>,
) -> Result<(), RunError> {
    let clients = async {
        match socket {
            Some(socket) => socket.serve(control.clone()).await,
            None => std::future::pending().await,
        }
    };
    let end = async {
        control.orders().stop_asked().await;
        systemd::stopping();
        let ending = tokio::task::spawn_blocking(move || {
            daemon.stop();
            daemon.wait();
        });
        match timeout(END_MAX, ending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(RunError(format!("the end broke off: {error}"))),
            Err(_) => Err(RunError(format!(
                "the serving threads have not ended in {} s; the process ends without them",
                END_MAX.as_secs()
            ))),
        }
    };
    tokio::select! {
        result = end => result,
        () = signals.serve(control.orders()) => {
            Err(RunError("told twice to end; not everything was finished".into()))
        }
        () = clients => Err(RunError("the control socket broke".into())),
    }
}
