//! What may be done to a running target, whoever asks. Requests to read come as they may;
//! configurations are taken up one after the other; the end comes once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use corbel_daemon::orders::{Orders, Reloads};
use corbel_daemon::service::Service;
use tokio::time::timeout;

use super::isns::Registrar;
use super::protocol::{AccessOrder, ErrorKind, Line, Request, Response};
use super::run::Source;
use super::{Daemon, Status, metrics};
use crate::config::{Config, load};

/// A status that takes longer will not come.
const STATUS_MAX: Duration = Duration::from_secs(15);

/// The handle that everybody who may change something holds.
#[derive(Clone)]
pub(super) struct Control {
    daemon: Arc<dyn Daemon>,
    orders: Orders<Response>,
    isns: Arc<Registrar>,
}

impl Control {
    /// `source` is where a reload finds the next configuration.
    pub(super) fn new(daemon: Arc<dyn Daemon>, source: Source) -> Self {
        let (orders, reloads) = Orders::new();
        let isns = Arc::new(Registrar::default());
        tokio::spawn(reload_each(daemon.clone(), source, reloads, isns.clone()));
        Self { daemon, orders, isns }
    }

    /// Who tells iSNS servers.
    pub(super) fn isns(&self) -> &Registrar {
        &self.isns
    }

    /// How things are; `None` if the daemon does not say in time.
    pub(super) async fn status(&self) -> Option<Status> {
        let daemon = self.daemon.clone();
        let status = tokio::task::spawn_blocking(move || daemon.status());
        let mut status = timeout(STATUS_MAX, status).await.ok()?.ok()?;
        status.isns = self.isns.status();
        Some(status)
    }
}

impl Control {
    async fn set_access(&self, order: AccessOrder) -> Response {
        let daemon = self.daemon.clone();
        let done = tokio::task::spawn_blocking(move || daemon.set_access(&order)).await;
        match done.unwrap_or_else(|_| Err("the change broke off".to_owned())) {
            Ok(changes) => {
                changes.iter().for_each(|change| tracing::info!("set: {change}"));
                Response::Changed { changes }
            }
            Err(message) => {
                tracing::error!("not set: {message}");
                Response::failed(message)
            }
        }
    }
}

impl Service for Control {
    type Request = Line;

    async fn answer(&self, Line { command }: Line) -> Response {
        match command {
            Request::Status => match self.status().await {
                Some(status) => Response::Status { status: Box::new(status) },
                None => Response::failed("the serving threads do not answer; see the log"),
            },
            Request::Reload => {
                let reloaded = self.orders.reloaded().await;
                reloaded.unwrap_or_else(|| Response::failed("the daemon is ending"))
            }
            Request::Access(order) => self.set_access(order).await,
            Request::Stop => {
                self.orders.stop();
                Response::Stopped
            }
        }
    }

    fn orders(&self) -> &Orders<Response> {
        &self.orders
    }

    async fn figures(&self) -> Option<String> {
        self.status().await.map(metrics::text)
    }

    /// While the serving threads answer.
    async fn is_well(&self) -> bool {
        let answers = self.status().await.is_some();
        if !answers {
            tracing::error!("the serving threads do not answer");
        }
        answers
    }
}

async fn reload_each(
    daemon: Arc<dyn Daemon>,
    source: Source,
    mut reloads: Reloads<Response>,
    isns: Arc<Registrar>,
) {
    while let Some(order) = reloads.next().await {
        let (daemon, source) = (daemon.clone(), source.clone());
        let reloaded = tokio::task::spawn_blocking(move || reload(&*daemon, &source));
        let response = match reloaded.await {
            Ok(Ok((config, changes))) => {
                isns.apply(&config);
                Response::Reloaded { changes }
            }
            Ok(Err(refused)) => refused,
            Err(_) => Response::failed("the reload broke off"),
        };
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
            Response::Status { .. } | Response::Changed { .. } | Response::Stopped => {}
        }
        order.over(response);
    }
}

/// Gives what is served from now on, and what changed.
fn reload(daemon: &dyn Daemon, source: &Source) -> Result<(Config, Vec<String>), Response> {
    let config = match source {
        Source::Fixed(config) => (**config).clone(),
        Source::File(path) => read(path)
            .map_err(|message| Response::Error { kind: ErrorKind::Configuration, message })?,
    };
    let changes = daemon.apply(&config).map_err(Response::failed)?;
    Ok((config, changes))
}

fn read(path: &Path) -> Result<Config, String> {
    let loaded = load(path).map_err(|problems| problems.to_string())?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(loaded.config)
}
