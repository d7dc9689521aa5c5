//! Signals in, words to the service manager out.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::control::Control;

/// SIGTERM and SIGINT (end), SIGHUP (read the configuration again).
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals do nothing by themselves.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Comes back when the process is told to end.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Hands signals on. The first that ends begins the end; the second comes back.
    pub(super) async fn serve(&mut self, control: &Control) {
        let mut ending = false;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    control.reload();
                    continue;
                }
            }
            if ending {
                return;
            }
            ending = true;
            tracing::info!("told to end; finishing what is in flight. Again: end at once");
            control.stop();
        }
    }
}

/// What systemd is told, if it wants to hear.
pub(super) mod systemd {
    use std::time::Duration;

    use sd_notify::NotifyState;

    fn tell(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "the service manager was not told");
        }
    }

    pub(in super::super) fn ready() {
        tell(&[NotifyState::Ready]);
    }

    pub(in super::super) fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager was not told"),
        }
    }

    pub(in super::super) fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    /// Tells the watchdog twice in its time that the control plane lives. Devices that do not
    /// answer are no reason to end all others: their state outlives no restart either.
    pub(in super::super) async fn watchdog() {
        let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO)
        else {
            return;
        };
        let mut ticks = tokio::time::interval(limit / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }
}
