//! From a configuration to a running initiator, and its end.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corbel_daemon::http;
use corbel_daemon::signals::{Signals, systemd};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::calls;
use super::control::Control;
use super::devices::{Devices, NoticeSink, Presented};
use super::events::Events;
use super::reload::Reloader;
use super::socket::ControlSocket;
use super::{PATIENCE, udev};
use crate::config::{DeviceSettings, Settings};

/// Devices that have not ended by then do not end by themselves: they give up waiting for storage
/// long before.
const END_MAX: Duration = Duration::from_secs(45);

/// The machine does not wait longer for storage that is not there; it comes when it comes.
const START_MAX: Duration = Duration::from_secs(20);

/// What calls that do not come back get before the process ends without them.
const FAREWELL: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is attached.
    pub settings: Settings,
    /// Where a reload finds the next configuration.
    pub source: Source,
}

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, read again at every reload. The daemon is ready after a while, whatever is missing.
    File(PathBuf),
    /// A command line: one device, waited for as long as it takes.
    Fixed,
}

/// Why the initiator does not run, or did not end well.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct RunError(pub String);

impl RunError {
    fn system(what: &str, error: &std::io::Error) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Starts an initiator by means of `launch`, attaches its devices, serves until told to end, and
/// ends it. `out` is told where each device is, and then `ready`; that nobody reads it does no
/// harm.
///
/// # Errors
/// If it does not start, or does not end.
pub fn run<L>(plan: Plan, launch: L, out: &mut dyn Write) -> Result<(), RunError>
where
    L: FnOnce(&Settings, NoticeSink) -> Result<Arc<dyn Devices>, String> + Send + 'static,
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
    L: FnOnce(&Settings, NoticeSink) -> Result<Arc<dyn Devices>, String> + Send + 'static,
{
    let mut signals = Signals::new().map_err(|error| RunError::system("no signals", &error))?;
    let Plan { settings, source } = plan;
    // Before any device is attached: a second daemon must not touch what the first one serves.
    let socket = settings.daemon.admin_socket.as_deref().map(ControlSocket::bind).transpose();
    let socket = socket.map_err(RunError)?;
    let metrics = match settings.daemon.metrics {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let events = Events::new(settings.daemon.event_hook.clone());
    let (sink, wanted) = (events.sink(), settings.clone());
    let launched = tokio::task::spawn_blocking(move || launch(&wanted, sink));
    let devices = tokio::select! {
        launched = launched => launched
            .map_err(|error| RunError(format!("the start broke off: {error}")))?
            .map_err(RunError)?,
        () = signals.end() => {
            tracing::info!("told to end before anything was attached");
            drop(socket);
            std::process::exit(0);
        }
    };
    let wait_for_all = matches!(source, Source::Fixed);
    let attaching = attach_all(&devices, &settings.devices);
    let reloader = Reloader::new(devices.clone(), events.clone(), source, settings);
    let control = Control::new(devices.clone(), events, reloader);
    let mut tasks = vec![tokio::spawn(systemd::watchdog(control.clone()))];
    tasks.extend(metrics.map(|listener| tokio::spawn(http::serve(listener, control.clone()))));
    let serving = serve(&control, socket.as_ref(), &mut signals, devices.clone());
    let begun = begin(attaching, wait_for_all, &control, out);
    let result = both(begun, serving).await;
    tasks.iter().for_each(JoinHandle::abort);
    // Those who asked for the end may start the next one as soon as they are told.
    drop(socket);
    control.orders().ended().await;
    tracing::info!("ended");
    result
}

/// Serves while the beginning goes on. If nothing could begin, all ends, with that as the reason.
async fn both(
    begun: impl Future<Output = Result<(), RunError>>,
    serving: impl Future<Output = Result<(), RunError>>,
) -> Result<(), RunError> {
    let (failed, why) = oneshot::channel();
    let begin = async {
        if let Err(error) = begun.await {
            let _ = failed.send(error);
        }
        std::future::pending::<()>().await;
    };
    let served = tokio::select! {
        served = serving => served,
        () = begin => Ok(()),
    };
    let mut why = why;
    match why.try_recv() {
        Ok(error) => Err(error),
        Err(_) => served,
    }
}

async fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    tokio::net::TcpListener::bind(address).await.map_err(|error| {
        RunError(format!("no metrics on {address}: {error}; give another address in `metrics`"))
    })
}

type Attached = (String, Result<Presented, String>);

/// Attaches every device at once; each says when it can be used, or that it never will.
fn attach_all(devices: &Arc<dyn Devices>, wanted: &[DeviceSettings]) -> JoinSet<Attached> {
    let mut attaching = JoinSet::new();
    for device in wanted {
        let (name, devices, device) = (device.name.clone(), devices.clone(), device.clone());
        attaching.spawn(async move { (name, calls::attach(devices, device).await) });
    }
    attaching
}

/// Tells what can be used, and when all that was waited for is there. Goes on with what comes late.
async fn begin(
    mut attaching: JoinSet<Attached>,
    wait_for_all: bool,
    control: &Control,
    out: &mut dyn Write,
) -> Result<(), RunError> {
    let (mut ready, mut failures, wanted) = (false, Vec::new(), attaching.len());
    let patience = sleep(START_MAX);
    tokio::pin!(patience);
    loop {
        if !ready && attaching.is_empty() {
            ready = true;
            announce(out, "ready");
            systemd::ready();
        }
        let next = tokio::select! {
            Some(next) = attaching.join_next(), if !attaching.is_empty() => next,
            () = &mut patience, if !ready && !wait_for_all => {
                ready = true;
                tracing::warn!("{} devices have no path yet; they come later", attaching.len());
                announce(out, "ready");
                systemd::ready();
                continue;
            }
            else => return Ok(()),
        };
        match next {
            Ok((_, Ok(presented))) => announce(out, &presented.to_string()),
            Ok((name, Err(why))) => {
                tracing::error!("device `{name}` is not attached: {why}");
                failures.push(format!("device `{name}` is not attached: {why}"));
                if failures.len() == wanted {
                    control.orders().stop();
                    return Err(RunError(failures.join("\n")));
                }
            }
            Err(error) => tracing::error!(%error, "a device's beginning broke off"),
        }
    }
}

fn announce(out: &mut dyn Write, line: &str) {
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads where devices are");
    }
}

/// Serves the control plane's clients until every device is detached.
async fn serve(
    control: &Control,
    socket: Option<&ControlSocket>,
    signals: &mut Signals,
    devices: Arc<dyn Devices>,
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
        let names = devices.names();
        devices.stop(PATIENCE);
        let ending = tokio::task::spawn_blocking(move || {
            devices.wait();
            names.iter().for_each(|name| udev::withdraw(name));
        });
        match timeout(END_MAX, ending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(RunError(format!("the end broke off: {error}"))),
            Err(_) => Err(RunError(format!(
                "devices have not ended in {} s; the process ends without them",
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
