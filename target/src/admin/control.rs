//! What may be done to a running target, whoever asks. Requests to read come as they may;
//! configurations are taken up one after the other; the end comes once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::protocol::{ErrorKind, Request, Response};
use super::run::Source;
use super::signals::systemd;
use super::{Daemon, Status};
use crate::config::{Config, load};

/// A status that takes longer will not come.
const STATUS_MAX: Duration = Duration::from_secs(15);

/// Reloads that may wait for their turn. One more would read the same file as they will.
const RELOADS_MAX: usize = 64;

/// What those who asked for the end get to take their answer.
const FAREWELL: Duration = Duration::from_secs(1);

type Answer = oneshot::Sender<Response>;

/// The handle that everybody who may change something holds.
#[derive(Clone)]
pub(super) struct Control {
    daemon: Arc<dyn Daemon>,
    reloads: mpsc::Sender<Option<Answer>>,
    stop: Arc<watch::Sender<bool>>,
    ended: Arc<watch::Sender<bool>>,
}

impl Control {
    /// `source` is where a reload finds the next configuration.
    pub(super) fn new(daemon: Arc<dyn Daemon>, source: Source) -> Self {
        let (reloads, orders) = mpsc::channel(RELOADS_MAX);
        tokio::spawn(reload_each(daemon.clone(), source, orders));
        let (stop, ended) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { daemon, reloads, stop: Arc::new(stop), ended: Arc::new(ended) }
    }

    /// The answer to a request. Who asks for the end is answered at once, and can then wait for
    /// [`Control::end`].
    pub(super) async fn answer(&self, request: Request) -> Response {
        match request {
            Request::Status => match self.status().await {
                Some(status) => Response::Status { status: Box::new(status) },
                None => Response::failed("the serving threads do not answer; see the log"),
            },
            Request::Reload => {
                let (answer, answered) = oneshot::channel();
                if self.reloads.send(Some(answer)).await.is_err() {
                    return Response::failed("the daemon is ending");
                }
                let ending = || Response::failed("the daemon is ending");
                answered.await.unwrap_or_else(|_| ending())
            }
            Request::Stop => {
                self.stop();
                Response::Stopped
            }
        }
    }

    /// How things are; `None` if the daemon does not say in time.
    pub(super) async fn status(&self) -> Option<Status> {
        let daemon = self.daemon.clone();
        let status = tokio::task::spawn_blocking(move || daemon.status());
        timeout(STATUS_MAX, status).await.ok()?.ok()
    }

    /// Reads the configuration again, as SIGHUP asks for; nobody waits for the answer.
    pub(super) fn reload(&self) {
        // If there is no room, those who wait read the file later than now.
        let _ = self.reloads.try_send(None);
    }

    /// Begins the end.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Turns true when the target has ended.
    pub(super) fn end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// The target has ended. Gives those who waited for it the time to be told.
    pub(super) async fn ended(&self) {
        self.ended.send_replace(true);
        let told = async {
            while self.ended.receiver_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(FAREWELL, told).await;
    }

    /// Comes back when the end was asked for.
    pub(super) async fn stop_asked(&self) {
        let _ = self.stop.subscribe().wait_for(|asked| *asked).await;
    }
}

async fn reload_each(
    daemon: Arc<dyn Daemon>,
    source: Source,
    mut orders: mpsc::Receiver<Option<Answer>>,
) {
    while let Some(answer) = orders.recv().await {
        systemd::reloading();
        let (daemon, source) = (daemon.clone(), source.clone());
        let reloaded = tokio::task::spawn_blocking(move || reload(&*daemon, &source));
        let response = reloaded.await.unwrap_or_else(|_| Response::failed("the reload broke off"));
        systemd::ready();
        match &response {
            Response::Error { message, .. } => {
                tracing::error!("not reloaded, the old configuration stays: {message}");
            }
            Response::Reloaded { changes } if changes.is_empty() => {
                tracing::info!("reloaded: nothing changed");
            }
            Response::Reloaded { changes } => {
                changes.iter().for_each(|change| tracing::info!("reloaded: {change}"));
            }
            Response::Status { .. } | Response::Stopped => {}
        }
        if let Some(answer) = answer {
            // A client that went away has its answer in the log.
            let _ = answer.send(response);
        }
    }
}

fn reload(daemon: &dyn Daemon, source: &Source) -> Response {
    let config = match source {
        Source::Fixed(config) => Ok((**config).clone()),
        Source::File(path) => read(path),
    };
    match config {
        Ok(config) => match daemon.apply(&config) {
            Ok(changes) => Response::Reloaded { changes },
            Err(message) => Response::failed(message),
        },
        Err(message) => Response::Error { kind: ErrorKind::Configuration, message },
    }
}

fn read(path: &Path) -> Result<Config, String> {
    let loaded = load(path).map_err(|problems| problems.to_string())?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(loaded.config)
}
