//! What may be done to a running initiator, whoever asks. Requests to a device come as they may;
//! configurations are taken up one after the other; the end comes once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corbel_daemon::orders::{Orders, Reloads};
use corbel_daemon::service::Service;

use super::calls;
use super::devices::{Answer, Command, Devices};
use super::events::Events;
use super::protocol::{ErrorKind, PATIENCE_MAX, Request, Response};
use super::reload::Reloader;
use super::status::Status;
use super::{metrics, text};
use crate::config::{PathSettings, PathSpec, Setting, Wrong};

/// The handle that everybody who may change something holds.
#[derive(Clone)]
pub(super) struct Control {
    devices: Arc<dyn Devices>,
    events: Events,
    since: Instant,
    orders: Orders<Response>,
}

impl Control {
    /// `reloader` knows where a reload finds the next configuration.
    pub(super) fn new(devices: Arc<dyn Devices>, events: Events, reloader: Reloader) -> Self {
        let (orders, reloads) = Orders::new();
        tokio::spawn(reload_each(reloader, reloads));
        Self { devices, events, since: Instant::now(), orders }
    }

    async fn tell(&self, device: Option<String>, colour: bool) -> Response {
        let names = self.devices.names();
        if let Some(device) = device.as_ref().filter(|device| !names.contains(device)) {
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Response::failed(format!("there is no device `{device}`; there are: {known}"));
        }
        let detail = device.is_some();
        let status = self.status(device).await;
        let text = text::render(&status, colour, detail);
        match serde_json::to_value(&status) {
            Ok(status) => Response::Status { status, text },
            Err(error) => Response::failed(format!("the status cannot be told: {error}")),
        }
    }

    /// How things are: one device, or all.
    pub(super) async fn status(&self, device: Option<String>) -> Status {
        let names = device.map_or_else(|| self.devices.names(), |device| vec![device]);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: self.since.elapsed().as_secs(),
            events_dropped: self.events.dropped(),
            hook_failures: self.events.failures(),
            devices: calls::reports(&self.devices, names).await,
        }
    }
}

impl Service for Control {
    type Request = Request;

    async fn answer(&self, request: Request) -> Response {
        let (device, commands) = match request {
            Request::Status { device, colour } => return self.tell(device, colour).await,
            Request::Reload {} => {
                let reloaded = self.orders.reloaded().await;
                return reloaded.unwrap_or_else(|| Response::failed("the daemon is ending"));
            }
            Request::Stop {} => {
                self.orders.stop();
                return Response::Stopped;
            }
            request => match orders(request) {
                Ok(orders) => orders,
                Err(wrong) => return Response::wrong(wrong),
            },
        };
        let mut notes = Vec::new();
        for command in commands {
            match calls::call(&self.devices, &device, command).await {
                Ok(Answer::Note(note)) => notes.push(note),
                Ok(_) => {}
                Err(message) => return Response::failed(message),
            }
        }
        Response::Done { notes }
    }

    fn orders(&self) -> &Orders<Response> {
        &self.orders
    }

    async fn figures(&self) -> Option<String> {
        Some(metrics::text(self.status(None).await))
    }

    /// As long as the control plane lives. Devices that do not answer are no reason to end all
    /// others: their state outlives no restart either.
    async fn is_well(&self) -> bool {
        true
    }
}

/// What a request means for its device.
fn orders(request: Request) -> Result<(String, Vec<Command>), Wrong> {
    let each = |path: &str, order: fn(String) -> Command| {
        Ok::<_, Wrong>(named(path)?.into_iter().map(order).collect())
    };
    Ok(match request {
        Request::Status { .. } | Request::Reload {} | Request::Stop {} => {
            return Err(Wrong::new("this is about no device", "send it without one"));
        }
        Request::Fail { device, path } => (device, each(&path, |path| Command::Fail { path })?),
        Request::Reinstate { device, path } => {
            (device, each(&path, |path| Command::Reinstate { path })?)
        }
        Request::RemovePath { device, path } => {
            (device, each(&path, |path| Command::RemovePath { path })?)
        }
        Request::Accept { device, path } => (device, each(&path, |path| Command::Accept { path })?),
        Request::AddPath { device, path, weight } => {
            if weight.is_some_and(|weight| !(1..=1000).contains(&weight)) {
                return Err(Wrong::new("the weight is out of range", "give 1 to 1000"));
            }
            let order = |spec| Command::AddPath(Box::new(PathSettings { spec, weight }));
            (device, PathSpec::parse_all(&path)?.into_iter().map(order).collect())
        }
        Request::Set { device, key, value } => {
            (device, vec![Command::Set(Setting::parse(&key, &value)?)])
        }
        Request::SwitchGroup { device, group } => {
            let right = "groups are counted from 1; `status` shows them";
            let index = group.checked_sub(1);
            let index = index.ok_or_else(|| Wrong::new("there is no group 0", right))?;
            (device, vec![Command::SwitchGroup(index)])
        }
        Request::Resize { device } => (device, vec![Command::Resize]),
        Request::Fence { device } => (device, vec![Command::Fence]),
        Request::Unfence { device } => (device, vec![Command::Unfence]),
        Request::Detach { device, force, patience_ms } => {
            let patience = Duration::from_millis(patience_ms).min(PATIENCE_MAX);
            (device, vec![Command::Detach { force, patience }])
        }
    })
}

/// The names of the paths that `text` means. One that is no path as people write them (an address
/// that was found by itself) is taken as it stands.
fn named(text: &str) -> Result<Vec<String>, Wrong> {
    match PathSpec::parse_all(text) {
        Ok(paths) => Ok(paths.iter().map(ToString::to_string).collect()),
        Err(_) if text.starts_with("aoe:") || text.starts_with("iscsi:") => {
            Ok(vec![text.to_owned()])
        }
        Err(wrong) => Err(wrong),
    }
}

async fn reload_each(mut reloader: Reloader, mut reloads: Reloads<Response>) {
    while let Some(order) = reloads.next().await {
        let response = reloader.reload().await;
        match &response {
            Response::Error { kind: ErrorKind::Configuration, message } => {
                tracing::error!("not reloaded, the old configuration stays: {message}");
            }
            Response::Error { message, .. } => tracing::error!("reloaded in part: {message}"),
            Response::Reloaded { changes } if changes.is_empty() => {
                tracing::info!("reloaded: nothing changed");
            }
            Response::Reloaded { changes } => {
                changes.iter().for_each(|change| tracing::info!("reloaded: {change}"));
            }
            Response::Status { .. } | Response::Done { .. } | Response::Stopped => {}
        }
        order.over(response);
    }
}
