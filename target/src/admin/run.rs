//! From a configuration to a running target, and its end.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

pub use corbel_daemon::run::RunError;
use corbel_daemon::run::{self, Front};
use corbel_daemon::signals::systemd;
use tokio::task::spawn_blocking;

use super::Daemon;
use super::control::Control;
use super::text::endpoint_lines;
use crate::config::Config;

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

/// Starts a target by means of `launch`, serves until told to end, and ends it. `out` is told
/// what is served, if the plan says so; that nobody reads it does no harm.
///
/// # Errors
/// If it does not start, or does not end.
pub fn run<L>(plan: Plan, launch: L, out: &mut dyn Write) -> Result<(), RunError>
where
    L: FnOnce(&Config) -> Result<Arc<dyn Daemon>, String> + Send + 'static,
{
    run::run(start(plan, launch, out))
}

async fn start<L>(plan: Plan, launch: L, out: &mut dyn Write) -> Result<(), RunError>
where
    L: FnOnce(&Config) -> Result<Arc<dyn Daemon>, String> + Send + 'static,
{
    let Plan { config, source, announce } = plan;
    let (socket, metrics) = (config.daemon.admin_socket.as_deref(), config.daemon.metrics);
    let mut front = Front::open("corbel-target", socket, metrics).await?;
    let served = config.clone();
    let daemon = front.launch(move || launch(&served), "served").await?;
    let control = Control::new(daemon.clone(), source);
    control.isns().apply(&config);
    front.begin(&control);
    if announce {
        self::announce(&control, out).await;
    }
    tracing::info!("serving");
    systemd::ready();
    let end = async {
        let daemon = spawn_blocking(move || {
            daemon.stop();
            daemon.wait();
        });
        tokio::join!(daemon, control.isns().end()).0
    };
    let result = front.serve(&control, "the serving threads", end).await;
    front.close(&control).await;
    result
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
