//! Asking a device, never for longer than it may take.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::devices::{Answer, Command, Devices, Presented, Reply, Report};
use super::{CALL_MAX, Known, udev};
use crate::config::DeviceSettings;

/// A fence is answered when the storage is quiet: what the target cannot prove is waited for.
const FENCE_MAX: Duration = Duration::from_secs(60);

/// A reply, and where it arrives.
fn reply() -> (Reply, oneshot::Receiver<Result<Answer, String>>) {
    let (sender, receiver) = oneshot::channel();
    // Who does not wait any more is told nothing.
    (Box::new(move |answer| drop(sender.send(answer))), receiver)
}

/// Asks `device`.
///
/// # Errors
/// What it says, or that it says nothing.
pub(super) async fn call(
    devices: &Arc<dyn Devices>,
    device: &str,
    command: Command,
) -> Result<Answer, String> {
    let most = CALL_MAX
        + match &command {
            Command::Detach { patience, .. } => *patience,
            Command::Fence => FENCE_MAX,
            _ => Duration::ZERO,
        };
    let gone = matches!(command, Command::Detach { .. });
    let (reply, answer) = reply();
    devices.call(device, command, reply);
    let answer = wait(device, most, answer).await?;
    if gone {
        let name = device.to_owned();
        apart(move || udev::withdraw(&name)).await;
    }
    Ok(answer)
}

/// Attaches a device; comes back when it can be used and udev knows of it, however late.
///
/// # Errors
/// Why it never will.
pub(super) async fn attach(
    devices: Arc<dyn Devices>,
    device: DeviceSettings,
) -> Result<Presented, String> {
    let name = device.name.clone();
    let (reply, answer) = reply();
    devices.attach(device, reply);
    let presented = match answer.await {
        Ok(Ok(Answer::Attached(presented))) => presented,
        Ok(Ok(_)) => return Err("it answered something else".to_owned()),
        Ok(Err(why)) => return Err(why),
        Err(_) => return Err("it was detached before it could be used".to_owned()),
    };
    tracing::info!("device `{name}` attached: {presented}");
    let (report, told) = (report(&devices, &name).await.ok(), presented.clone());
    apart(move || udev::announce(&told, report.as_deref())).await;
    Ok(presented)
}

/// Does what may wait for anything on the machine, and is not waited for beyond what is fair.
async fn apart(work: impl FnOnce() + Send + 'static) {
    if timeout(CALL_MAX, tokio::task::spawn_blocking(work)).await.is_err() {
        tracing::warn!("udev is slow to be told");
    }
}

async fn wait(
    device: &str,
    most: Duration,
    answer: oneshot::Receiver<Result<Answer, String>>,
) -> Result<Answer, String> {
    match timeout(most, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(format!("device `{device}` is gone")),
        Err(_) => Err(format!(
            "device `{device}` is busy: no answer in {} s; what was asked may still happen",
            most.as_secs()
        )),
    }
}

/// How `device` is, or why that is not known.
pub(super) async fn report(
    devices: &Arc<dyn Devices>,
    device: &str,
) -> Result<Box<Report>, String> {
    match call(devices, device, Command::Status).await {
        Ok(Answer::Status(report)) => Ok(report),
        Ok(_) => Err(format!("device `{device}` answered something else")),
        Err(why) => Err(why),
    }
}

/// How all of `names` are, asked at once: the slowest decides how long it takes.
pub(super) async fn reports(devices: &Arc<dyn Devices>, names: Vec<String>) -> Vec<Known> {
    let asked: Vec<_> = names
        .into_iter()
        .map(|name| {
            let devices = devices.clone();
            tokio::spawn(async move {
                let report = report(&devices, &name).await;
                (name, report)
            })
        })
        .collect();
    let mut known = Vec::with_capacity(asked.len());
    for answer in asked {
        match answer.await {
            Ok((_, Ok(report))) => known.push(Known::Report(report)),
            Ok((name, Err(error))) => known.push(Known::Silent { name, error }),
            Err(error) => tracing::error!(%error, "a device was not asked"),
        }
    }
    known
}
