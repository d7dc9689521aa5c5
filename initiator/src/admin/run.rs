//! From a configuration to a running initiator, and its end.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use corbel_daemon::run::RunError;
use corbel_daemon::run::{self, Front};
use corbel_daemon::service::Service;
use corbel_daemon::signals::systemd;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::calls;
use super::control::Control;
use super::devices::{Devices, NoticeSink, Presented};
use super::events::Events;
use super::reload::Reloader;
use super::{PATIENCE, udev};
use crate::config::{DeviceSettings, Settings};

/// The machine does not wait longer for storage that is not there; it comes when it comes.
const START_MAX: Duration = Duration::from_secs(20);

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
    run::run(start(plan, launch, out))
}

async fn start<L>(plan: Plan, launch: L, out: &mut dyn Write) -> Result<(), RunError>
where
    L: FnOnce(&Settings, NoticeSink) -> Result<Arc<dyn Devices>, String> + Send + 'static,
{
    let Plan { settings, source } = plan;
    let (socket, metrics) = (settings.daemon.admin_socket.as_deref(), settings.daemon.metrics);
    let mut front = Front::open("corbel-initiator", socket, metrics).await?;
    let events = Events::new(settings.daemon.event_hook.clone());
    let (sink, wanted) = (events.sink(), settings.clone());
    let devices = front.launch(move || launch(&wanted, sink), "attached").await?;
    let wait_for_all = matches!(source, Source::Fixed);
    let attaching = attach_all(&devices, &settings.devices);
    let reloader = Reloader::new(devices.clone(), events.clone(), source, settings);
    let control = Control::new(devices.clone(), events, reloader);
    front.begin(&control);
    let end = async {
        let names = devices.names();
        devices.stop(PATIENCE);
        spawn_blocking(move || {
            devices.wait();
            names.iter().for_each(|name| udev::withdraw(name));
        })
        .await
    };
    let serving = front.serve(&control, "devices", end);
    let result = both(begin(attaching, wait_for_all, &control, out), serving).await;
    front.close(&control).await;
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
