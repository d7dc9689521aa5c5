//! The control plane over real sockets, with a target that is none.

mod hostile;
mod rendering;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::config::Daemon as DaemonConfig;

/// A target that serves nothing, and remembers what it was told.
#[derive(Debug, Default)]
struct Fake {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    applied: Vec<Config>,
    refuse: Option<String>,
    stopped: bool,
}

impl Daemon for Fake {
    fn status(&self) -> Status {
        Status { version: "0.0.0".into(), pid: 7, ..Status::default() }
    }

    fn apply(&self, config: &Config) -> Result<Vec<String>, String> {
        let mut state = self.state.lock().unwrap();
        if let Some(why) = &state.refuse {
            return Err(why.clone());
        }
        state.applied.push(config.clone());
        Ok(vec![format!("{} exports", config.exports.len())])
    }

    fn stop(&self) {
        self.state.lock().unwrap().stopped = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !state.stopped).unwrap());
    }
}

fn config(socket: &Path) -> Config {
    let admin_socket = Some(socket.to_owned());
    let daemon = DaemonConfig { admin_socket, ..DaemonConfig::default() };
    Config { daemon, exports: Vec::new(), targets: Vec::new() }
}

/// A running control plane.
struct World {
    _folder: TempDir,
    socket: PathBuf,
    fake: Arc<Fake>,
    thread: JoinHandle<(Result<(), RunError>, String)>,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("target.sock");
        let config = config(&socket);
        let source = Source::Fixed(Box::new(config.clone()));
        Self::with(folder, Plan { config, source, announce: true })
    }

    fn with(folder: TempDir, plan: Plan) -> Self {
        let fake = Arc::new(Fake::default());
        let socket = plan.config.daemon.admin_socket.clone().unwrap();
        let daemon = fake.clone();
        let thread = std::thread::spawn(move || {
            let mut out = Vec::new();
            let result = run(plan, move |_| Ok(daemon as Arc<dyn Daemon>), &mut out);
            (result, String::from_utf8(out).unwrap())
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while ask(&socket, Request::Status).is_err() {
            assert!(Instant::now() < deadline, "the control socket never answered");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { _folder: folder, socket, fake, thread }
    }

    fn ask(&self, request: Request) -> Response {
        ask(&self.socket, request).unwrap().0
    }

    /// Ends it; gives what it printed.
    fn stop(self) -> String {
        assert_eq!(self.ask(Request::Stop), Response::Stopped);
        assert!(!self.socket.exists(), "the socket is left behind");
        let (result, printed) = self.thread.join().unwrap();
        result.unwrap();
        printed
    }
}

#[test]
fn status_reload_and_stop_are_answered() {
    let world = World::start();
    let Response::Status { status } = world.ask(Request::Status) else { panic!() };
    assert_eq!(status.pid, 7);
    let reloaded = Response::Reloaded { changes: vec!["0 exports".into()] };
    assert_eq!(world.ask(Request::Reload), reloaded);
    assert_eq!(world.fake.state.lock().unwrap().applied.len(), 1);
    assert_eq!(world.stop(), "ready\n");
}

#[test]
fn the_socket_is_for_its_owner_only() {
    let world = World::start();
    let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.stop();
}

#[test]
fn a_second_daemon_is_told_that_the_first_one_runs() {
    let world = World::start();
    let config = config(&world.socket);
    let source = Source::Fixed(Box::new(config.clone()));
    let plan = Plan { config, source, announce: false };
    let launch = |_: &Config| -> Result<Arc<dyn Daemon>, String> { panic!("nothing is opened") };
    let error = run(plan, launch, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("already running"), "{error}");
    assert!(matches!(world.ask(Request::Status), Response::Status { .. }));
    world.stop();
}

#[test]
fn a_socket_that_nobody_answers_at_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("target.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let config = config(&socket);
    let source = Source::Fixed(Box::new(config.clone()));
    World::with(folder, Plan { config, source, announce: false }).stop();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let config = config(&path);
    let source = Source::Fixed(Box::new(config.clone()));
    let launch = |_: &Config| Ok(Arc::new(Fake::default()) as Arc<dyn Daemon>);
    let plan = Plan { config, source, announce: false };
    let error = run(plan, launch, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[test]
fn a_target_that_does_not_start_leaves_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("target.sock");
    let config = config(&socket);
    let source = Source::Fixed(Box::new(config.clone()));
    let launch = |_: &Config| Err("no such device".to_owned());
    let plan = Plan { config, source, announce: true };
    let mut out = Vec::new();
    assert_eq!(run(plan, launch, &mut out).unwrap_err().to_string(), "no such device");
    assert!(out.is_empty() && !socket.exists());
}

#[test]
fn nobody_who_reads_what_is_served_is_no_reason_to_end() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("target.sock");
    let config = config(&socket);
    let source = Source::Fixed(Box::new(config.clone()));
    let plan = Plan { config, source, announce: true };
    let launch = |_: &Config| Ok(Arc::new(Fake::default()) as Arc<dyn Daemon>);
    let thread = std::thread::spawn(move || run(plan, launch, &mut Closed));
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(&socket, Request::Stop).is_err() {
        assert!(Instant::now() < deadline && !thread.is_finished(), "it does not serve");
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.join().unwrap().unwrap();
}

#[test]
fn a_bad_file_leaves_the_old_configuration_and_says_where_it_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("target.toml");
    let socket = folder.path().join("target.sock");
    let good = format!("[daemon]\nadmin_socket = \"{}\"\n", socket.display());
    std::fs::write(&file, &good).unwrap();
    let config = crate::config::load(&file).unwrap().config;
    let plan = Plan { config, source: Source::File(file.clone()), announce: false };
    let world = World::with(folder, plan);
    std::fs::write(&file, format!("{good}colour = 1\n")).unwrap();
    let Response::Error { kind, message } = world.ask(Request::Reload) else { panic!() };
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(message.contains("target.toml:3:1") && message.contains("colour"), "{message}");
    assert!(world.fake.state.lock().unwrap().applied.is_empty());
    std::fs::write(&file, format!("{good}threads = 3\n")).unwrap();
    assert!(matches!(world.ask(Request::Reload), Response::Reloaded { .. }));
    let threads = world.fake.state.lock().unwrap().applied[0].daemon.threads;
    assert_eq!(threads.map(u16::from), Some(3));
    world.stop();
}

#[test]
fn what_cannot_be_served_is_the_answer_to_a_reload() {
    let world = World::start();
    world.fake.state.lock().unwrap().refuse = Some("export `a`: no such device".into());
    let Response::Error { kind, message } = world.ask(Request::Reload) else { panic!() };
    assert_eq!((kind, message.as_str()), (ErrorKind::Failed, "export `a`: no such device"));
    world.stop();
}

#[test]
fn several_requests_may_come_at_once_on_one_connection() {
    let world = World::start();
    let mut stream = UnixStream::connect(&world.socket).unwrap();
    stream.write_all(b"{\"command\":\"status\"}\n{\"command\":\"reload\"}\n{\"comm").unwrap();
    stream.write_all(b"and\":\"status\"}\n").unwrap();
    let mut lines = BufReader::new(&stream).lines();
    let results: Vec<_> = (0..3)
        .map(|_| {
            let line = lines.next().unwrap().unwrap();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()["result"].clone()
        })
        .collect();
    assert_eq!(results, ["status", "reloaded", "status"]);
    drop(stream);
    world.stop();
}

fn http(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn prometheus_is_answered_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("target.sock"));
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.daemon.metrics = Some(free);
    let source = Source::Fixed(Box::new(config.clone()));
    let world = World::with(folder, Plan { config, source, announce: false });
    let good = http(free, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
    assert!(good.contains("corbel_flush_failures_total 0") && good.ends_with("# EOF\n"), "{good}");
    for (request, status) in [
        (&b"GET /etc/passwd HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"GET /metrics SPDY/9\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
        (&[b'x'; 8192], "431"),
    ] {
        assert_eq!(&http(free, request)[9..12], status);
    }
    assert!(http(free, b"HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
    world.stop();
}
