//! The shell: drives shards on rings, and carries out what the control plane wants.
//!
//! ```text
//! access.rs    states of port groups, as the operator wants them
//! mod.rs       start, apply a configuration, report, stop
//! volumes.rs   exports to open volumes
//! plan.rs      a configuration to who is served what, and where
//! worker.rs    one shard's thread
//! host.rs      what a shard may ask for, on its ring
//! ports.rs     raw Ethernet ports and their interfaces
//! streams.rs   listeners and TCP connections
//! letter.rs    what other threads tell a shard
//! report.rs    what a shard tells of itself
//! targets.rs   configured targets to logical units
//! status.rs    all of them together, for people and programs
//! state.rs     small state files, replaced crash-safely
//! survey.rs    what image files hold
//! space.rs     how much room they take and have left
//! ```
//!
//! No decision about a protocol is made here, and nothing here waits for a disk: a device that
//! hangs holds up its own requests only.

mod access;
mod encryption;
mod host;
mod letter;
mod plan;
mod ports;
mod report;
mod space;
mod state;
mod status;
mod streams;
mod survey;
mod targets;
#[cfg(test)]
mod tests;
mod volumes;
mod worker;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use corbel_ring::packet::PortError;
use corbel_ring::tcp::{self, ListenError};
use corbel_ring::thread::ask_for_short_turns;
use corbel_ring::{ArenaConfig, Config as RingConfig, Reactor, Report, SetupError, Waker, mailbox};
use thiserror::Error;

use self::host::RingHost;
use self::letter::{Letter, Mailboxes};
use self::plan::Planner;
use self::space::Watch;
use self::state::StateWriter;
use self::survey::Surveyor;
use self::volumes::Volumes;
use self::worker::Worker;
use crate::aoe::AoeServer;
use crate::config::{Config, diff};
use crate::host::ShardId;
use crate::iscsi::model::Targets;
use crate::iscsi::registry::Registry;
use crate::iscsi::server::IscsiServer;

/// Why the target did not start, or a configuration was not taken up.
#[derive(Debug, Error)]
pub enum StartError {
    /// An export cannot be served.
    #[error("export `{export}`: {why}")]
    Export {
        /// Its name.
        export: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// No raw Ethernet.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Nothing listens.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] SetupError),
    /// A thread or a state file.
    #[error("{0}")]
    System(String),
}

/// What is not in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartOptions {
    /// Keep AoE config strings, masks and reservations in the state folder.
    pub persist: bool,
}

/// How long a shard runs while others wait for its core, if the scheduler is kind: more than what
/// a turn of its ring takes, and far below what others take, so that it is let in when it wakes.
const TURN: Duration = Duration::from_micros(200);

/// How long a shard may take to do what a letter asks. Shards never wait for storage, so one that
/// takes longer is broken.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A running target.
#[derive(Debug)]
pub struct Running {
    mailboxes: Arc<Mailboxes>,
    inner: Mutex<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    features: Report,
    started: Instant,
    writer: StateWriter,
    watch: Watch,
}

/// What the control plane changes, one change at a time.
#[derive(Debug)]
struct Inner {
    config: Config,
    volumes: Volumes,
    planner: Planner,
    /// What shards listen on.
    portals: Vec<SocketAddr>,
}

/// Starts the target: opens every device, port and portal, and serves.
///
/// # Errors
/// The first thing that cannot be served. Nothing is left running then.
pub fn start(config: &Config, options: StartOptions) -> Result<Running, StartError> {
    let state_dir = options.persist.then(|| config.daemon.state_dir.clone());
    let mut volumes = Volumes::default();
    for export in &config.exports {
        volumes.add(export)?;
    }
    let writer = StateWriter::spawn(state_dir.clone())
        .map_err(|error| StartError::System(error.to_string()))?;
    let registry = Arc::new(plan::registry(config));
    let shards = shard_count(config)?;
    let (mailboxes, threads, features) = spawn(config, shards, &writer, &registry)?;
    let running = Running {
        mailboxes,
        inner: Mutex::new(Inner {
            config: config.clone(),
            volumes,
            planner: Planner::new(state_dir),
            portals: Vec::new(),
        }),
        threads: Mutex::new(threads),
        features,
        started: Instant::now(),
        writer,
        watch: Watch::spawn()
            .map_err(|e| StartError::System(format!("a thread does not start: {e}")))?,
    };
    let installed = {
        let mut inner = running.inner();
        let names: Vec<_> = config.exports.iter().map(|export| export.name.clone()).collect();
        running.hand_out(&inner.volumes, &names);
        running.install(&mut inner, config)
    };
    match installed {
        Ok(()) => Ok(running),
        Err(error) => {
            running.stop();
            running.wait();
            Err(error)
        }
    }
}

fn shard_count(config: &Config) -> Result<ShardId, StartError> {
    let wanted = match config.daemon.threads {
        Some(threads) => threads.get(),
        None => thread::available_parallelism()
            .ok()
            .and_then(|threads| u16::try_from(threads.get()).ok())
            .unwrap_or(1),
    };
    match wanted {
        1..=256 => Ok(wanted),
        _ => Err(StartError::System(format!("{wanted} threads: 1 to 256 are possible"))),
    }
}

type Spawned = (Arc<Mailboxes>, Vec<JoinHandle<()>>, Report);

/// Starts a thread per shard. Each makes its ring on its own thread, as the kernel wants it.
fn spawn(
    config: &Config,
    shards: ShardId,
    writer: &StateWriter,
    registry: &Arc<Registry>,
) -> Result<Spawned, StartError> {
    let system = |error: std::io::Error| StartError::System(format!("no thread: {error}"));
    let mut senders = Vec::new();
    let mut inboxes = Vec::new();
    for _ in 0..shards {
        let waker = Waker::new().map_err(system)?;
        let (sender, inbox) = mailbox(waker.clone());
        senders.push(sender);
        inboxes.push((waker, inbox));
    }
    let mailboxes = Arc::new(Mailboxes::new(senders));
    let surveyor = Surveyor::spawn().map_err(system)?;
    let memory = config.daemon.limits.memory / u64::from(shards);
    let bytes_max = usize::try_from(memory).unwrap_or(usize::MAX);
    let ring = RingConfig {
        arena: ArenaConfig { bytes_max },
        busy_poll: config.daemon.busy_poll,
        ..RingConfig::default()
    };
    let (ready, readiness) = mpsc::channel();
    let mut threads = Vec::new();
    for (shard, (waker, inbox)) in (0..shards).zip(inboxes) {
        let (mailboxes, writer, registry) = (mailboxes.clone(), writer.clone(), registry.clone());
        let surveyor = surveyor.clone();
        let (ready, settings) = (ready.clone(), plan::settings(config));
        let body = move || {
            if let Err(error) = ask_for_short_turns(TURN) {
                tracing::debug!(%error, "the scheduler gives this thread ordinary turns");
            }
            let reactor = match Reactor::new(ring, waker) {
                Ok(reactor) => reactor,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(reactor.report().clone()));
            let host = RingHost::new(reactor, shard, mailboxes, writer, surveyor);
            let iscsi = IscsiServer::new(settings.iscsi, registry, Arc::new(Targets::default()));
            let worker = Worker::new(host, AoeServer::new(settings.aoe), iscsi, inbox);
            if let Err(error) = worker.run() {
                tracing::error!(%error, shard, "the ring broke; the process ends");
                std::process::abort();
            }
        };
        let name = format!("shard-{shard}");
        threads.push(thread::Builder::new().name(name).spawn(body).map_err(system)?);
    }
    let mut features = None;
    for _ in 0..shards {
        let answer = readiness.recv_timeout(ANSWER_MAX);
        let report = answer.map_err(|_| StartError::System("a shard did not start".into()))?;
        match report {
            Ok(report) => features = Some(report),
            Err(error) => {
                mailboxes.send_all(|| Letter::Stop);
                return Err(error.into());
            }
        }
    }
    Ok((mailboxes, threads, features.expect("there is at least one shard")))
}

impl Running {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every shard the stores of these exports.
    fn hand_out(&self, volumes: &Volumes, names: &[String]) {
        for opened in names.iter().filter_map(|name| volumes.get(name)) {
            let (volume, base) = (opened.volume.id, opened.export.offset);
            self.watch.add(opened);
            self.mailboxes.send_all(|| Letter::Store(volume, opened.store.clone(), base));
        }
    }

    /// Makes a plan of `config` and has every shard serve by it.
    fn install(&self, inner: &mut Inner, config: &Config) -> Result<(), StartError> {
        let plan = Arc::new(inner.planner.plan(config, &inner.volumes)?);
        for &portal in plan.portals.iter().filter(|portal| !inner.portals.contains(portal)) {
            // Shards share their ports with each other (SO_REUSEPORT), and would with another
            // process of the same user, too: half of its initiators would come to us.
            let alone = tcp::Options { reuse_port: false, ..tcp::Options::default() };
            drop(tcp::listen(portal, &alone)?);
        }
        let (answer, answers) = mpsc::channel();
        self.mailboxes.send_all(|| Letter::Install(plan.clone(), answer.clone()));
        let mut result = Ok(());
        for _ in 0..self.mailboxes.shards() {
            let answer = answers.recv_timeout(ANSWER_MAX).unwrap_or_else(|_| {
                Err(StartError::System("a shard did not answer; see the log".into()))
            });
            result = result.and(answer);
        }
        if result.is_ok() {
            inner.portals.clone_from(&plan.portals);
        }
        result
    }

    /// Takes up a new configuration: what stays is not touched. Gives what changed, in words.
    ///
    /// # Errors
    /// If something in it cannot be served. The old configuration stays in force.
    pub fn apply(&self, config: &Config) -> Result<Vec<String>, StartError> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let old = inner.config.clone();
        let difference = diff(&old, config);
        for (before, after) in &difference.exports.changed {
            plan::same_device(before, after)?;
        }
        let added: Vec<_> = difference.exports.added.iter().map(|e| e.name.clone()).collect();
        for export in &difference.exports.added {
            if let Err(error) = inner.volumes.add(export) {
                self.drop_exports(inner, &added);
                return Err(error);
            }
        }
        self.hand_out(&inner.volumes, &added);
        config.exports.iter().for_each(|export| inner.volumes.update(export));
        if let Err(error) = self.install(inner, config) {
            old.exports.iter().for_each(|export| inner.volumes.update(export));
            if let Err(worse) = self.install(inner, &old) {
                tracing::error!(%worse, "the old configuration is not served whole any more");
            }
            self.drop_exports(inner, &added);
            return Err(error);
        }
        let removed: Vec<_> = difference.exports.removed.iter().map(|e| e.name.clone()).collect();
        self.drop_exports(inner, &removed);
        self.keep_access(inner, &difference.exports);
        let mut said = plan::in_words(&difference);
        inner.config = config.clone();
        said.extend(self.look_for_resizes(inner));
        Ok(said)
    }

    fn drop_exports(&self, inner: &mut Inner, names: &[String]) {
        for opened in names.iter().filter_map(|name| inner.volumes.remove(name)) {
            self.mailboxes.send_all(|| Letter::Forget(opened.volume.id));
        }
    }

    /// Compares every device's size with the volume's; tells clients of changes.
    fn look_for_resizes(&self, inner: &Inner) -> Vec<String> {
        let mut said = Vec::new();
        for opened in inner.volumes.iter() {
            let name = &opened.export.name;
            match opened.store.current_size() {
                Ok(bytes) => {
                    let before = opened.volume.size_bytes();
                    opened.volume.resize(opened.size_bytes(bytes));
                    let after = opened.volume.size_bytes();
                    if before != after {
                        said.push(format!("export `{name}`: {before} bytes, now {after}"));
                    }
                }
                Err(error) => tracing::warn!(export = name, %error, "its size cannot be read"),
            }
        }
        if !said.is_empty() {
            self.mailboxes.send_all(|| Letter::Announce);
        }
        said
    }

    /// Asks every shard to finish and end.
    pub fn stop(&self) {
        self.mailboxes.send_all(|| Letter::Stop);
    }

    /// Waits until every shard has ended.
    pub fn wait(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A shard that panicked has ended the process already (panic = abort).
            let _ = thread.join();
        }
        // Their devices are free for the next one.
        self.inner().volumes = Volumes::default();
    }
}
