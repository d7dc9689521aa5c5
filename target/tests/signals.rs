//! Signals and the service manager, as a process hears and tells them. The process is this test
//! program once more, with a target that is none.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use corbel_target::admin::{
    AccessOrder, Daemon, Plan, Request, Response, Source, Status, ask, run,
};
use corbel_target::config::{Config, load};
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "CORBEL_TEST_TARGET";

/// A target that never ends if the configuration has an export of the name `stuck`.
#[derive(Debug, Default)]
struct Fake {
    stuck: bool,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Daemon for Fake {
    fn status(&self) -> Status {
        Status::default()
    }

    fn apply(&self, config: &Config) -> Result<Vec<String>, String> {
        Ok(vec![format!("{} exports now", config.exports.len())])
    }

    fn set_access(&self, _: &AccessOrder) -> Result<Vec<String>, String> {
        Err("nothing is served".to_owned())
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap() = !self.stuck;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let stopped = self.stopped.lock().unwrap();
        drop(self.changed.wait_while(stopped, |stopped| !*stopped).unwrap());
    }
}

/// Not a test by itself: the process that the tests below start.
#[test]
fn process() {
    let Some(file) = std::env::var_os(ROLE) else { return };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let file = Path::new(&file);
    let config = load(file).unwrap().config;
    let stuck = config.exports.iter().any(|export| export.name == "stuck");
    let launch =
        move |_: &Config| Ok(Arc::new(Fake { stuck, ..Fake::default() }) as Arc<dyn Daemon>);
    let plan = Plan { config, source: Source::File(file.to_owned()), announce: false };
    let code = match run(plan, launch, &mut std::io::sink()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    std::process::exit(code);
}

struct World {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
    child: Child,
}

impl World {
    fn start(exports: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("target.toml");
        let daemon = "[daemon]\nadmin_socket = \"target.sock\"\n";
        std::fs::write(&file, format!("{daemon}{exports}")).unwrap();
        let notify = folder.path().join("notify");
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process", "--nocapture"])
            .env(ROLE, &file)
            .env("NOTIFY_SOCKET", &notify)
            .env("WATCHDOG_USEC", "200000")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let world = Self { folder, manager, child };
        world.told("READY=1");
        world
    }

    /// Waits until the manager is told `what`.
    #[track_caller]
    fn told(&self, what: &str) {
        let mut message = [0; 512];
        for _ in 0..100 {
            let len = self.manager.recv(&mut message).expect(what);
            let text = std::str::from_utf8(&message[..len]).unwrap();
            if text.lines().any(|line| line == what) {
                return;
            }
        }
        panic!("the manager is never told {what}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; gives the exit code and what stood on stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let stderr = BufReader::new(self.child.stderr.take().unwrap());
        let lines: Vec<_> = stderr.lines().map_while(Result::ok).collect();
        (self.child.wait().unwrap().code(), lines.join("\n"))
    }
}

#[test]
fn sigterm_and_sigint_end_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::start("");
        world.signal(signal);
        world.told("STOPPING=1");
        let socket = world.folder.path().join("target.sock");
        let (code, log) = world.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(!socket.exists());
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::start("[[export]]\nname = \"stuck\"\npath = \"mem:1M\"\n");
    world.signal(Signal::TERM);
    world.told("STOPPING=1");
    let began = Instant::now();
    world.signal(Signal::TERM);
    let (code, log) = world.end();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("told twice"), "{log}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn sighup_reloads_and_a_bad_file_is_told_in_the_log() {
    let world = World::start("");
    let file = world.folder.path().join("target.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    world.signal(Signal::HUP);
    world.told("RELOADING=1");
    world.told("READY=1");
    std::fs::write(&file, "[daemon]\ncolour = 1\n").unwrap();
    world.signal(Signal::HUP);
    world.told("RELOADING=1");
    world.told("READY=1");
    std::fs::write(&file, good).unwrap();
    world.signal(Signal::TERM);
    let (code, log) = world.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("0 exports now"), "{log}");
    assert!(log.contains("the old configuration stays") && log.contains(":2:1:"), "{log}");
}

#[test]
fn the_watchdog_hears_while_all_is_well() {
    let world = World::start("");
    for _ in 0..3 {
        world.told("WATCHDOG=1");
    }
    world.signal(Signal::TERM);
    assert_eq!(world.end().0, Some(0));
}

#[test]
fn stop_returns_once_the_process_has_let_go() {
    let world = World::start("");
    let socket = world.folder.path().join("target.sock");
    assert_eq!(ask(&socket, Request::Stop).unwrap().0, Response::Stopped);
    assert_eq!(world.end().0, Some(0));
}
