//! Threads and rings: drives devices, presenters and the network.
//!
//! ```text
//! worker.rs      one device's thread
//! letter.rs      what other threads tell it
//! paths.rs       from settings to path clients
//! streams.rs     TCP streams of iSCSI paths
//! ports.rs       raw Ethernet ports of AoE paths; links
//! presenter/     ublk and NBD on that thread
//! run_state.rs   what the next process must know
//! clock.rs       the time
//! ```
//!
//! *One device, one thread, one ring.* The engine has one owner, so the fence of writes in doubt
//! needs no lock, and a device that hangs keeps nobody else waiting. The price: one device is
//! served by one core.

mod clock;
mod legacy_file;
mod letter;
mod paths;
mod ports;
mod presenter;
mod run_state;
mod streams;
mod tag;
mod worker;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corbel_proto::iscsi::name::Name;
use corbel_ring::memory::ArenaConfig;
use corbel_ring::reactor::{Config as RingConfig, Reactor};
use corbel_ring::{Receiver, Sender, Waker, mailbox};

use crate::admin::{Command, Devices, Reply};
use crate::config::DeviceSettings;
use crate::device::{self, Device};
use crate::multipath::rules::Rules;
use crate::multipath::status::Notice;
use legacy_file::LegacyFile;
use letter::Letter;
use paths::Host;
use run_state::RunState;
use worker::{Parts, Worker};

/// Is told of what happens to a device: its name, and what. Called on the device's thread: it must
/// not wait.
pub type NoticeSink = Arc<dyn Fn(&str, &Notice) + Send + Sync>;

/// Small state of this process's devices, gone after a reboot.
pub const RUN_DIR: &str = "/run/corbel/devices";

/// Payload memory of a device beyond what its presenter has.
const ARENA_BYTES: usize = 16 << 20;

/// How the shell works.
#[derive(Clone)]
pub struct Config {
    /// Our iSCSI name.
    pub initiator: Name,
    /// What tells this host from others that may have the same name (`/etc/machine-id`).
    pub host_id: Vec<u8>,
    /// Where to keep what the next process must know; [`RUN_DIR`].
    pub run_dir: PathBuf,
    /// Who is told of events.
    pub notices: NoticeSink,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("initiator", &self.initiator)
            .field("run_dir", &self.run_dir)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Thread {
    name: String,
    letters: Sender<Letter>,
}

#[derive(Debug, Default)]
struct Shared {
    threads: Mutex<Vec<Thread>>,
    ended: Condvar,
}

impl Shared {
    fn threads(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every device, each on its own thread.
#[derive(Debug)]
pub struct Shell {
    config: Config,
    shared: Arc<Shared>,
}

impl Shell {
    /// No device yet.
    pub fn new(config: Config) -> Self {
        Self { config, shared: Arc::default() }
    }

    fn start(&self, settings: DeviceSettings, reply: Reply) -> Result<(), (Reply, String)> {
        let waker = match Waker::new() {
            Ok(waker) => waker,
            Err(error) => return Err((reply, error.to_string())),
        };
        let (letters, inbox) = mailbox(waker.clone());
        let name = settings.name.clone();
        {
            let mut threads = self.shared.threads();
            if threads.iter().any(|thread| thread.name == name) {
                return Err((reply, format!("there is a device `{name}` already")));
            }
            threads.push(Thread { name: name.clone(), letters });
        }
        let (config, shared) = (self.config.clone(), self.shared.clone());
        let body = move || {
            let name = settings.name.clone();
            // Forgets the device however the thread ends.
            let _gone = Gone { name: &name, shared: &shared };
            run(settings, config, waker, inbox, reply);
        };
        let spawned = std::thread::Builder::new().name(format!("corbel-{name}")).spawn(body);
        if let Err(error) = spawned {
            // The reply went with the closure: whoever waits is told by its drop.
            tracing::error!(device = name, %error, "no thread");
            self.shared.threads().retain(|thread| thread.name != name);
        }
        Ok(())
    }
}

/// Takes a device off the list when its thread ends.
struct Gone<'a> {
    name: &'a str,
    shared: &'a Shared,
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.shared.threads().retain(|thread| thread.name != self.name);
        self.shared.ended.notify_all();
    }
}

fn run(
    settings: DeviceSettings,
    config: Config,
    waker: Waker,
    inbox: Receiver<Letter>,
    attached: Reply,
) {
    let bytes_max = presenter::memory_bytes(&settings.present) + ARENA_BYTES;
    let ring = RingConfig { arena: ArenaConfig { bytes_max }, ..RingConfig::default() };
    let reactor = match Reactor::new(ring, waker) {
        Ok(reactor) => reactor,
        Err(error) => return attached(Err(error.to_string())),
    };
    let (caches, left) = LegacyFile::load(&config.run_dir, &settings.name);
    let recovering = left.is_some() || RunState::is_left_behind(&config.run_dir, &settings.name);
    let host = Host { name: config.initiator, id: config.host_id, recovering };
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("the kernel's random source works from boot on");
    let begin = device::Config {
        name: settings.name.clone(),
        policy: settings.policy.clone(),
        rules: Rules::SOUND,
        wwid: settings.wwid.clone(),
    };
    let arena = reactor.arena();
    let mut device = Device::new(clock::now(), begin, arena, u64::from_ne_bytes(seed));
    device.inherit(left.unwrap_or_default());
    let (run_dir, notices) = (config.run_dir, config.notices);
    let name = settings.name.clone();
    let parts =
        Parts { reactor, device, settings, host, run_dir, caches, inbox, notices, attached };
    if let Err(error) = Worker::new(parts).run() {
        tracing::error!(device = name, %error, "the ring broke");
    }
}

impl Devices for Shell {
    fn names(&self) -> Vec<String> {
        self.shared.threads().iter().map(|thread| thread.name.clone()).collect()
    }

    fn attach(&self, device: DeviceSettings, reply: Reply) {
        if let Err((reply, why)) = self.start(device, reply) {
            reply(Err(why));
        }
    }

    fn call(&self, device: &str, command: Command, reply: Reply) {
        let threads = self.shared.threads();
        match threads.iter().find(|thread| thread.name == device) {
            Some(thread) => thread.letters.send(Letter::Call(command, reply)),
            None => {
                drop(threads);
                reply(Err(format!("there is no device `{device}`")));
            }
        }
    }

    fn stop(&self, patience: Duration) {
        for thread in self.shared.threads().iter() {
            thread.letters.send(Letter::Stop(patience));
        }
    }

    fn wait(&self) {
        let mut threads = self.shared.threads();
        while !threads.is_empty() {
            threads = self.shared.ended.wait(threads).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
