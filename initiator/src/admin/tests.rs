//! The control plane over real sockets, with devices that are none.

mod fake;
mod reloading;
pub(super) mod sample;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::*;
use fake::World;

fn status(device: &str) -> Request {
    Request::Status { device: Some(device.to_owned()), colour: false }
}

fn all() -> Request {
    Request::Status { device: None, colour: false }
}

#[test]
fn status_commands_and_stop_are_answered() {
    let world = World::start(&["vm", "db"]);
    let Response::Status { status, text } = world.ask(&all()) else { panic!() };
    assert_eq!(status["devices"][0]["name"], "vm");
    assert_eq!(status["devices"][1]["name"], "db");
    assert_eq!(status["devices"][0]["presented"]["by"], "nbd");
    assert!(text.contains("vm (no wwid yet) nbd+unix:///?socket=/vm"), "{text}");
    assert_eq!(world.ask(&Request::Reload {}), Response::Reloaded { changes: Vec::new() });
    let printed = world.stop();
    let mut lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.pop(), Some("ready"));
    lines.sort_unstable();
    assert_eq!(lines, ["nbd+unix:///?socket=/db", "nbd+unix:///?socket=/vm"]);
}

#[test]
fn each_request_reaches_its_device_as_the_command_it_means() {
    let world = World::start(&["vm"]);
    let (device, path) = (|| "vm".to_owned(), || "aoe:0.0@eth1".to_owned());
    for (request, command) in [
        (Request::Fail { device: device(), path: path() }, "Fail { path: \"aoe:0.0@eth1\" }"),
        (
            Request::Reinstate { device: device(), path: path() },
            "Reinstate { path: \"aoe:0.0@eth1\" }",
        ),
        (Request::Accept { device: device(), path: path() }, "Accept { path: \"aoe:0.0@eth1\" }"),
        (
            Request::RemovePath {
                device: device(),
                path: "iscsi:iqn.2026-11.org.example:a@[::1]".into(),
            },
            "RemovePath { path: \"iscsi:iqn.2026-11.org.example:a/0@[::1]:3260\" }",
        ),
        (Request::SwitchGroup { device: device(), group: 2 }, "SwitchGroup(1)"),
        (Request::Resize { device: device() }, "Resize"),
        (Request::Fence { device: device() }, "Fence"),
        (Request::Unfence { device: device() }, "Unfence"),
        (
            Request::Detach { device: device(), force: true, patience_ms: 1500 },
            "Detach { force: true, patience: 1.5s }",
        ),
    ] {
        assert_eq!(world.ask(&request), Response::Done { notes: Vec::new() });
        assert_eq!(world.fake.commands(), [format!("vm: {command}")], "{request:?}");
    }
    world.stop();
}

#[test]
fn a_path_text_that_means_several_is_done_for_each() {
    let world = World::start(&["vm"]);
    let path = "aoe:0.0@eth1,eth2".to_owned();
    world.ask(&Request::AddPath { device: "vm".into(), path, weight: Some(7) });
    let commands = world.fake.commands();
    assert_eq!(commands.len(), 2);
    assert!(commands[1].contains("interface: \"eth2\"") && commands[1].contains("Some(7)"));
    world.stop();
}

#[test]
fn what_a_device_refuses_is_told_in_its_words() {
    let world = World::start(&["vm"]);
    world.fake.refuse("vm", "there is no such path");
    let failed = world.ask(&Request::Resize { device: "vm".into() });
    assert_eq!(failed, Response::failed("there is no such path"));
    world.stop();
}

#[test]
fn requests_that_mean_nothing_are_wrong_usage_and_reach_no_device() {
    let world = World::start(&["vm"]);
    let device = || "vm".to_owned();
    let set = |key: &str, value: &str| Request::Set {
        device: device(),
        key: key.into(),
        value: value.into(),
    };
    for request in [
        Request::Fail { device: device(), path: "eth1".into() },
        Request::AddPath { device: device(), path: "aoe:0.0@eth1".into(), weight: Some(0) },
        Request::SwitchGroup { device: device(), group: 0 },
        set("colour", "red"),
        set("selector", "fastest"),
        set("ping-after", "1s"),
    ] {
        let Response::Error { kind, message } = world.ask(&request) else { panic!("{request:?}") };
        assert_eq!(kind, ErrorKind::Request, "{message}");
    }
    assert!(world.fake.commands().is_empty());
    let Response::Error { message, .. } = world.ask(&status("other")) else { panic!() };
    assert_eq!(message, "there is no device `other`; there are: vm");
    world.stop();
}

#[test]
fn a_device_that_hangs_delays_nothing_about_another() {
    let world = World::start(&["stuck", "vm"]);
    world.fake.hang("stuck");
    let (socket, begun) = (world.socket.clone(), Instant::now());
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let socket = socket.clone();
            let request = Request::Resize { device: "stuck".into() };
            std::thread::spawn(move || ask(&socket, &request).unwrap())
        })
        .collect();
    let Response::Status { text, .. } = world.ask(&status("vm")) else { panic!() };
    assert!(text.starts_with("vm "), "{text}");
    assert!(matches!(world.ask(&Request::Fence { device: "vm".into() }), Response::Done { .. }));
    assert!(begun.elapsed() < CALL_MAX, "{:?}", begun.elapsed());
    for thread in waiting {
        let Response::Error { message, .. } = thread.join().unwrap() else { panic!() };
        assert!(message.contains("device `stuck` is busy"), "{message}");
    }
    // All of them at once: the one that hangs is told as such, after its time.
    let Response::Status { text, status } = world.ask(&all()) else { panic!() };
    assert!(text.contains("stuck no answer: device `stuck` is busy"), "{text}");
    assert_eq!(status["devices"][1]["state"], "starting");
    assert!(begun.elapsed() < CALL_MAX * 4, "{:?}", begun.elapsed());
    world.stop();
}

#[test]
fn a_device_that_ends_while_it_is_asked_is_gone() {
    let world = World::start(&["vm"]);
    world.fake.drop_replies("vm");
    let gone = world.ask(&Request::Resize { device: "vm".into() });
    assert_eq!(gone, Response::failed("device `vm` is gone"));
    world.stop();
}

#[test]
fn attach_is_ready_when_the_device_can_be_used() {
    let world = World::begin(&["vm"], |fake| fake.hold_back("vm"));
    let Response::Status { status, .. } = world.ask(&all()) else { panic!() };
    assert_eq!(status["devices"][0]["presented"], serde_json::Value::Null);
    assert_eq!(world.printed(), "");
    world.fake.let_go("vm");
    world.wait_for_print("nbd+unix:///?socket=/vm\nready\n");
    world.stop();
}

#[test]
fn a_device_that_cannot_be_attached_ends_the_daemon_that_has_no_other() {
    let world = World::begin(&["vm"], |fake| fake.refuse("vm", "no such driver"));
    let (printed, result) = world.ended();
    assert_eq!(printed, "");
    let why = result.unwrap_err().to_string();
    assert_eq!(why, "device `vm` is not attached: no such driver");
}

#[test]
fn a_device_that_cannot_be_attached_leaves_the_others() {
    let world = World::begin(&["bad", "vm"], |fake| fake.refuse("bad", "no such driver"));
    world.wait_for_print("nbd+unix:///?socket=/vm\nready\n");
    world.stop();
}

#[test]
fn the_socket_is_for_its_owner_only_and_guards_against_a_second_daemon() {
    let world = World::start(&["vm"]);
    let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let plan = Plan { settings: fake::settings(&world.socket, &[]), source: Source::Fixed };
    let launch = |_: &crate::config::Settings, _| -> Result<std::sync::Arc<dyn Devices>, String> {
        panic!("nothing is started")
    };
    let error = run(plan, launch, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("already running"), "{error}");
    world.stop();
}

#[test]
fn lines_that_are_no_requests_are_answered_and_endless_ones_are_not_kept() {
    let world = World::start(&["vm"]);
    let mut stream = UnixStream::connect(&world.socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let deep = format!("{}\n", "[".repeat(5000));
    for line in
        ["\n", "{}\n", "{\"command\":\"nothing\"}\n", "{\"command\":7}\n", &deep, "\u{fe}\n"]
    {
        stream.write_all(line.as_bytes()).unwrap();
    }
    stream
        .write_all(b"{\"command\":\"fail\",\"device\":\"vm\",\"path\":\"x\",\"why\":1}\n")
        .unwrap();
    let mut lines = BufReader::new(&stream).lines();
    for _ in 0..7 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("\"kind\":\"request\""), "{line}");
    }
    // The daemon may hang up before it has taken all of this.
    let _ = stream.write_all(&[b'x'; 1 << 20]);
    let mut rest = Vec::new();
    let _ = (&stream).read_to_end(&mut rest);
    assert!(matches!(world.ask(&status("vm")), Response::Status { .. }));
    world.stop();
}

#[test]
fn prometheus_is_answered() {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::with(&["vm"], |_| {}, |settings| settings.daemon.metrics = Some(free));
    world.wait_for_print("nbd+unix:///?socket=/vm\nready\n");
    let mut stream = TcpStream::connect(free).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let page = std::io::read_to_string(stream).unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("corbel_initiator_device_answers{device=\"vm\"} 1"), "{page}");
    world.stop();
}
