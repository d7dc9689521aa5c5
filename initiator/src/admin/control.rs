//! What may be done to a running initiator, whoever asks. Requests to a device come as they may;
//! configurations are taken up one after the other; the end comes once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::calls;
use super::devices::{Answer, Command, Devices};
use super::events::Events;
use super::protocol::{ErrorKind, PATIENCE_MAX, Request, Response};
use super::reload::Reloader;
use super::signals::systemd;
use super::status::Status;
use super::text;
use crate::config::{PathSettings, PathSpec, Setting, Wrong};

/// Reloads that may wait for their turn. One more would read the same file as they will.
const RELOADS_MAX: usize = 64;

/// What those who asked for the end get to take their answer.
const FAREWELL: Duration = Duration::from_secs(1);

type Waiting = oneshot::Sender<Response>;

/// The handle that everybody who may change something holds.
#[derive(Clone)]
pub(super) struct Control {
    devices: Arc<dyn Devices>,
    events: Events,
    since: Instant,
    reloads: mpsc::Sender<Option<Waiting>>,
    stop: Arc<watch::Sender<bool>>,
    ended: Arc<watch::Sender<bool>>,
}

impl Control {
    /// `reloader` knows where a reload finds the next configuration.
    pub(super) fn new(devices: Arc<dyn Devices>, events: Events, reloader: Reloader) -> Self {
        let (reloads, orders) = mpsc::channel(RELOADS_MAX);
        tokio::spawn(reload_each(reloader, orders));
        let (stop, ended) = (watch::Sender::new(false), watch::Sender::new(false));
        let since = Instant::now();
        Self { devices, events, since, reloads, stop: Arc::new(stop), ended: Arc::new(ended) }
    }

    /// The answer to a request. Who asks for the end is answered at once, and can then wait for
    /// [`Control::end`].
    pub(super) async fn answer(&self, request: Request) -> Response {
        let (device, commands) = match request {
            Request::Status { device, colour } => return self.tell(device, colour).await,
            Request::Reload {} => return self.reload_and_wait().await,
            Request::Stop {} => {
                self.stop();
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

    async fn reload_and_wait(&self) -> Response {
        let ending = || Response::failed("the daemon is ending");
        let (answer, answered) = oneshot::channel();
        if self.reloads.send(Some(answer)).await.is_err() {
            return ending();
        }
        answered.await.unwrap_or_else(|_| ending())
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

    /// Turns true when every device is detached.
    pub(super) fn end(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Every device is detached. Gives those who waited for it the time to be told.
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

async fn reload_each(mut reloader: Reloader, mut orders: mpsc::Receiver<Option<Waiting>>) {
    while let Some(waiting) = orders.recv().await {
        systemd::reloading();
        let response = reloader.reload().await;
        systemd::ready();
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
        if let Some(waiting) = waiting {
            // A client that went away has its answer in the log.
            let _ = waiting.send(response);
        }
    }
}
