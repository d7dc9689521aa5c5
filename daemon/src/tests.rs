//! The control plane over real sockets, around a program that serves nothing.

mod hostile;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::ask::{AskError, ask};
use crate::orders::{Orders, Reloads};
use crate::request::{ErrorKind, Request};
use crate::run::{Front, RunError, run};
use crate::service::Service;

/// What it may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
enum Wish {
    Echo { text: String },
    Reload {},
    Stop {},
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
enum Answer {
    Echo { text: String },
    Reloaded { count: u32 },
    Stopped,
    Error { kind: ErrorKind, message: String },
}

impl Request for Wish {
    type Response = Answer;

    const BYTES_MAX: usize = 4096;
    const EXAMPLE: &'static str = "{\"command\":\"stop\"}";
    const ANSWER_MAX: Duration = Duration::from_secs(20);

    fn ends(&self) -> bool {
        *self == Self::Stop {}
    }

    fn refusal(kind: ErrorKind, message: String) -> Answer {
        Answer::Error { kind, message }
    }
}

/// A handle to it.
#[derive(Clone)]
struct Fake {
    orders: Orders<Answer>,
    figures: Option<&'static str>,
}

impl Service for Fake {
    type Request = Wish;

    async fn answer(&self, wish: Wish) -> Answer {
        match wish {
            Wish::Echo { text } => Answer::Echo { text },
            Wish::Reload {} => self.orders.reloaded().await.expect("it does not end"),
            Wish::Stop {} => {
                self.orders.stop();
                Answer::Stopped
            }
        }
    }

    fn orders(&self) -> &Orders<Answer> {
        &self.orders
    }

    async fn figures(&self) -> Option<String> {
        self.figures.map(str::to_owned)
    }

    async fn is_well(&self) -> bool {
        true
    }
}

async fn count_reloads(mut reloads: Reloads<Answer>) {
    let mut count = 0;
    while let Some(reload) = reloads.next().await {
        count += 1;
        reload.over(Answer::Reloaded { count });
    }
}

async fn live(
    socket: PathBuf,
    metrics: Option<SocketAddr>,
    figures: Option<&'static str>,
) -> Result<(), RunError> {
    let mut front = Front::open("corbel-fake", Some(&socket), metrics).await?;
    front.launch(|| Ok(()), "done").await?;
    let (orders, reloads) = Orders::new();
    tokio::spawn(count_reloads(reloads));
    let fake = Fake { orders, figures };
    front.begin(&fake);
    let result = front.serve(&fake, "all things", async { Ok(()) }).await;
    front.close(&fake).await;
    result
}

fn echo(text: &str) -> Wish {
    Wish::Echo { text: text.to_owned() }
}

/// A running control plane.
struct World {
    _folder: TempDir,
    socket: PathBuf,
    thread: JoinHandle<Result<(), RunError>>,
}

impl World {
    fn start() -> Self {
        Self::with(None, None)
    }

    fn with(metrics: Option<SocketAddr>, figures: Option<&'static str>) -> Self {
        Self::within(tempfile::tempdir().unwrap(), metrics, figures)
    }

    fn within(folder: TempDir, metrics: Option<SocketAddr>, figures: Option<&'static str>) -> Self {
        let socket = folder.path().join("fake.sock");
        let place = socket.clone();
        let thread = std::thread::spawn(move || run(live(place, metrics, figures)));
        let deadline = Instant::now() + Duration::from_secs(20);
        while try_ask(&socket, &echo("x")).is_err() {
            assert!(Instant::now() < deadline, "the control socket never answered");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { _folder: folder, socket, thread }
    }

    fn ask(&self, wish: &Wish) -> Answer {
        try_ask(&self.socket, wish).unwrap()
    }

    fn stop(self) {
        assert_eq!(self.ask(&Wish::Stop {}), Answer::Stopped);
        assert!(!self.socket.exists(), "the socket is left behind");
        self.thread.join().unwrap().unwrap();
    }
}

fn try_ask(socket: &Path, wish: &Wish) -> Result<Answer, AskError> {
    ask("corbel-fake", socket, wish).map(|(answer, _)| answer)
}

#[test]
fn requests_are_answered_until_the_end_is_asked_for() {
    let world = World::start();
    assert_eq!(world.ask(&echo("a\nb")), Answer::Echo { text: "a\nb".into() });
    assert_eq!(world.ask(&Wish::Reload {}), Answer::Reloaded { count: 1 });
    assert_eq!(world.ask(&Wish::Reload {}), Answer::Reloaded { count: 2 });
    let socket = world.socket.clone();
    world.stop();
    let absent = try_ask(&socket, &echo("x")).unwrap_err().to_string();
    assert!(absent.starts_with("no corbel-fake answers at "), "{absent}");
}

#[test]
fn a_request_that_the_daemon_would_refuse_for_its_length_is_not_sent() {
    let world = World::start();
    let lost = try_ask(&world.socket, &echo(&"x".repeat(5000))).unwrap_err().to_string();
    assert!(lost.ends_with("gave no answer: the request is too long"), "{lost}");
    world.stop();
}

#[test]
fn a_second_daemon_is_told_how_to_end_the_first() {
    let world = World::start();
    let error = run(live(world.socket.clone(), None, None)).unwrap_err().to_string();
    let at = world.socket.display();
    assert_eq!(
        error,
        format!(
            "corbel-fake is already running at {at}; stop it first (corbel-fake stop), or give \
             this one another admin_socket"
        )
    );
    assert_eq!(world.ask(&echo("x")), Answer::Echo { text: "x".into() });
    world.stop();
}

#[test]
fn the_socket_is_for_its_owner_only() {
    let world = World::start();
    let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.stop();
}

#[test]
fn a_socket_that_nobody_answers_at_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("fake.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    World::within(folder, None, None).stop();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = run(live(path.clone(), None, None)).unwrap_err().to_string();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[test]
fn several_requests_may_come_at_once_on_one_connection() {
    let world = World::start();
    let mut stream = UnixStream::connect(&world.socket).unwrap();
    let echo = r#"{"command":"echo","text":"x"}"#;
    stream.write_all(format!("{echo}\n{{\"command\":\"reload\"}}\n").as_bytes()).unwrap();
    stream.write_all(&echo.as_bytes()[..9]).unwrap();
    stream.write_all(format!("{}\n", &echo[9..]).as_bytes()).unwrap();
    let mut lines = BufReader::new(&stream).lines();
    let results: Vec<_> = (0..3)
        .map(|_| {
            let line = lines.next().unwrap().unwrap();
            serde_json::from_str::<serde_json::Value>(&line).unwrap()["result"].clone()
        })
        .collect();
    assert_eq!(results, ["echo", "reloaded", "echo"]);
    drop(stream);
    world.stop();
}

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn http(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn scrapes_are_answered_and_nothing_else_is() {
    let address = free();
    let world = World::with(Some(address), Some("corbel_up 1\n# EOF\n"));
    let good = http(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(good.starts_with("HTTP/1.1 200 OK\r\n"), "{good}");
    assert!(good.ends_with("\r\n\r\ncorbel_up 1\n# EOF\n"), "{good}");
    for (request, status) in [
        (&b"GET /etc/passwd HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"GET /metrics SPDY/9\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
        (&[b'x'; 8192], "431"),
    ] {
        assert_eq!(&http(address, request)[9..12], status);
    }
    assert!(http(address, b"HEAD / HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
    world.stop();
}

#[test]
fn a_scrape_of_a_program_that_hangs_is_told_so() {
    let address = free();
    let world = World::with(Some(address), None);
    let answer = http(address, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    world.stop();
}
