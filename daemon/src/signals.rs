//! Signals in, words to the service manager out.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::orders::Orders;

/// SIGTERM and SIGINT (end), SIGHUP (read the configuration again).
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals do nothing by themselves.
    ///
    /// # Errors
    /// If the system does not let the process hear them.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Comes back when the process is told to end.
    pub async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Hands signals on. The first that ends begins the end; the second comes back.
    pub async fn serve<R: Send>(&mut self, orders: &Orders<R>) {
        let mut ending = false;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    orders.reload();
                    continue;
                }
            }
            if ending {
                return;
            }
            ending = true;
            tracing::info!("told to end; finishing what is in flight. Again: end at once");
            orders.stop();
        }
    }
}

/// What systemd is told, if it wants to hear.
pub mod systemd {
    use std::time::Duration;

    use sd_notify::NotifyState;

    use crate::service::Service;

    fn tell(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "the service manager was not told");
        }
    }

    /// It serves; or goes on as before, once a reload is over.
    pub fn ready() {
        tell(&[NotifyState::Ready]);
    }

    /// It reads its configuration again.
    pub fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager was not told"),
        }
    }

    /// It ends.
    pub fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    /// Tells the watchdog twice in its time that all is well, but only while it is.
    pub async fn watchdog(service: impl Service) {
        let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO)
        else {
            return;
        };
        let mut ticks = tokio::time::interval(limit / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if service.is_well().await {
                tell(&[NotifyState::Watchdog]);
            }
        }
    }
}
