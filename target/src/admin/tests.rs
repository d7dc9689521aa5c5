//! The control plane over real sockets, with a target that is none.

mod rendering;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
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

    fn set_access(&self, order: &AccessOrder) -> Result<Vec<String>, String> {
        let AccessOrder { exports, group, state } = order;
        match exports.is_empty() {
            true => Ok(vec![format!("{group} {}", state.name())]),
            false => Err(format!("no {}", exports.join(" "))),
        }
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
fn what_is_no_request_is_answered_with_what_would_be() {
    let world = World::start();
    let mut stream = UnixStream::connect(&world.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let answers = BufReader::new(stream.try_clone().unwrap());
    let mut answers = answers.lines();
    for line in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\n",
        b"{\"command\":\"format\"}\n",
        b"{\"command\":\"stop\",\"force\":true}\n",
        b"{\"command\":{}}\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
        b"\xff\xfe\0\n",
    ] {
        stream.write_all(line).unwrap();
        let answer = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        let Response::Error { kind, message } = answer else { panic!("{line:?}") };
        assert_eq!(kind, ErrorKind::Request);
        assert!(message.contains("{\"command\":\"status\"}"), "{message}");
    }
    assert!(!world.fake.state.lock().unwrap().stopped);
    drop((stream, answers));
    world.stop();
}

#[test]
fn prometheus_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("target.sock"));
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.daemon.metrics = Some(free);
    let source = Source::Fixed(Box::new(config.clone()));
    let world = World::with(folder, Plan { config, source, announce: false });
    let mut stream = TcpStream::connect(free).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let page = std::io::read_to_string(stream).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("corbel_flush_failures_total 0") && page.ends_with("# EOF\n"), "{page}");
    world.stop();
}

#[test]
fn a_state_of_a_port_group_is_set_over_the_socket() {
    use crate::config::AccessState;
    let world = World::start();
    let order = |exports: &[&str]| {
        let exports = exports.iter().map(|name| (*name).to_owned()).collect();
        Request::Access(AccessOrder { exports, group: 2, state: AccessState::NonOptimized })
    };
    let done = Response::Changed { changes: vec!["2 non-optimized".into()] };
    assert_eq!(world.ask(order(&[])), done);
    assert_eq!(world.ask(order(&["x"])), Response::failed("no x"));
    world.stop();
}

#[test]
fn status_tells_of_isns_servers() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("target.sock"));
    // Nobody listens there any more.
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.daemon.isns = Some(crate::config::Isns { servers: vec![away], entity: None });
    let name = "iqn.2026-11.org.example:a".parse().unwrap();
    config.targets.push(crate::config::Target::new(name));
    let source = Source::Fixed(Box::new(config.clone()));
    let world = World::with(folder, Plan { config, source, announce: false });
    let deadline = Instant::now() + Duration::from_secs(20);
    let told = loop {
        let Response::Status { status } = world.ask(Request::Status) else { panic!() };
        let [told] = &status.isns[..] else { panic!("{:?}", status.isns) };
        if told.last_error.is_some() {
            break told.clone();
        }
        assert!(Instant::now() < deadline, "it never fails");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!((told.server, told.registered), (away.to_string(), false));
    assert!(told.last_error.unwrap().contains("not reachable"));
    world.stop();
}
