//! Against a server on loopback that is played by hand.

use corbel_proto::isns::message::{
    Attributes, Framer, HEADER_BYTES, Header, Writer, flag, function, tag,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Daemon, Portal, Target};

fn config(servers: &[SocketAddr], names: &[&str]) -> Config {
    let isns = Isns { servers: servers.to_vec(), entity: Some("shelf".into()) };
    let isns = (!servers.is_empty()).then_some(isns);
    let target = |name: &&str| {
        let mut target = Target::new(name.parse().unwrap());
        let address = "127.0.0.1:3260".parse().unwrap();
        target.portals = vec![Portal { address, group: 1 }];
        target
    };
    Config {
        daemon: Daemon { isns, ..Daemon::default() },
        exports: Vec::new(),
        targets: names.iter().map(target).collect(),
    }
}

const ONE: &str = "iqn.2026-11.org.example:a";
const TWO: &str = "iqn.2026-11.org.example:b";

/// What a server has of one client.
struct Peer {
    stream: TcpStream,
    framer: Framer,
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        let accepted = timeout(Duration::from_secs(20), listener.accept()).await;
        Self { stream: accepted.expect("it connects").unwrap().0, framer: Framer::default() }
    }

    /// The next question: its function, the names in it, and its transaction.
    async fn asked(&mut self) -> (u16, Vec<String>, u16) {
        loop {
            if let Some((header, payload)) = self.framer.next_message().unwrap() {
                let names = Attributes::new(&payload).map(Result::unwrap);
                let names = names.filter(|attribute| attribute.tag == tag::NAME);
                let names = names.map(|name| name.text().unwrap().to_owned()).collect();
                return (header.function, names, header.transaction);
            }
            let mut bytes = [0; 4096];
            let read = timeout(Duration::from_secs(20), self.stream.read(&mut bytes)).await;
            let len = read.expect("it asks").unwrap();
            assert!(len > 0, "it hung up");
            self.framer.push(&bytes[..len]);
        }
    }

    async fn answer(&mut self, function: u16, transaction: u16, status: u32) {
        let mut message = Writer::default().message(function | function::RESPONSE, 0);
        message.extend(status.to_be_bytes());
        message[4..6].copy_from_slice(&4_u16.to_be_bytes());
        Header::set_transaction(&mut message, transaction);
        assert_eq!(message.len(), HEADER_BYTES + 4);
        // In two pieces, as a network may.
        let (first, second) = message.split_at(7);
        for piece in [first, second] {
            self.stream.write_all(piece).await.unwrap();
            self.stream.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Answers a question of this function with success; gives the names in it.
    async fn grants(&mut self, function: u16) -> Vec<String> {
        let (asked, names, transaction) = self.asked().await;
        assert_eq!(asked, function);
        self.answer(function, transaction, 0).await;
        names
    }

    async fn is_left(&mut self) {
        let read = timeout(Duration::from_secs(20), self.stream.read(&mut [0; 64])).await;
        assert_eq!(read.expect("it hangs up").unwrap_or(0), 0);
    }
}

async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server to which target `ONE` is about to be told.
async fn told_one() -> (TcpListener, SocketAddr, Registrar, Peer) {
    let (listener, address) = server().await;
    let registrar = Registrar::default();
    registrar.apply(&config(&[address], &[ONE]));
    let peer = Peer::accept(&listener).await;
    (listener, address, registrar, peer)
}

fn on_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn a_server_that_comes_back_is_told_again_and_at_the_end_that_all_is_gone() {
    on_runtime(async {
        let (listener, address, registrar, mut peer) = told_one().await;
        assert_eq!(peer.grants(function::REGISTER).await, [ONE, ONE]);
        drop((peer, listener));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.grants(function::REGISTER).await, [ONE, ONE]);
        let ended = std::cell::Cell::new(false);
        let end = async {
            registrar.end().await;
            ended.set(true);
        };
        let server = async {
            assert_eq!(peer.grants(function::DEREGISTER).await, [ONE]);
            assert!(!ended.get(), "it is told while the end waits, not because it waited in vain");
            peer.is_left().await;
        };
        tokio::join!(end, server);
    });
}

#[test]
fn a_change_is_told_and_a_server_that_is_no_longer_named_is_left() {
    on_runtime(async {
        let (listener, address, registrar, mut peer) = told_one().await;
        peer.grants(function::REGISTER).await;
        registrar.apply(&config(&[address], &[ONE, TWO]));
        assert_eq!(peer.grants(function::REGISTER).await, [ONE, ONE, TWO]);
        registrar.apply(&config(&[], &[ONE, TWO]));
        assert_eq!(peer.grants(function::DEREGISTER).await, [ONE]);
        peer.is_left().await;
        // Named again, it is told again.
        registrar.apply(&config(&[address], &[TWO]));
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.grants(function::REGISTER).await, [TWO, TWO]);
    });
}

#[test]
fn an_end_does_not_wait_for_a_silent_server_for_longer_than_it_says() {
    on_runtime(async {
        let (_listener, _, registrar, mut peer) = told_one().await;
        peer.grants(function::REGISTER).await;
        let begin = std::time::Instant::now();
        registrar.end().await;
        assert!(begin.elapsed() < FAREWELL_MAX + Duration::from_secs(5));
        assert_eq!(peer.asked().await.0, function::DEREGISTER);
    });
}

#[test]
fn each_message_is_marked_as_a_clients() {
    on_runtime(async {
        let (_listener, _, _registrar, mut peer) = told_one().await;
        let mut header = [0; HEADER_BYTES];
        peer.stream.read_exact(&mut header).await.unwrap();
        let header = Header::parse(&header).unwrap();
        assert_ne!(header.flags & flag::CLIENT, 0);
    });
}

/// As `status` tells it, once it is so.
async fn told(registrar: &Registrar, is: impl Fn(&IsnsServer) -> bool) -> IsnsServer {
    let wait = async {
        loop {
            let [told] = &registrar.status()[..] else { panic!("one server") };
            if is(told) {
                return told.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.expect("it is told")
}

#[test]
fn status_tells_whether_each_server_knows_the_targets_and_why_not() {
    on_runtime(async {
        let (listener, address) = server().await;
        let registrar = Registrar::default();
        assert_eq!(registrar.status(), []);
        registrar.apply(&config(&[address], &[ONE]));
        let fresh = IsnsServer { server: address.to_string(), ..IsnsServer::default() };
        assert_eq!(registrar.status(), [fresh]);
        let mut peer = Peer::accept(&listener).await;
        let (asked, _, transaction) = peer.asked().await;
        peer.answer(asked, transaction, 8).await;
        let refused = told(&registrar, |server| server.last_error.is_some()).await;
        assert!(!refused.registered && refused.since_seconds.is_none());
        assert!(refused.last_error.unwrap().contains("source unauthorized"));
        assert_eq!(refused.last_error_seconds, Some(0));
        let mut peer = Peer::accept(&listener).await;
        peer.grants(function::REGISTER).await;
        let registered = told(&registrar, |server| server.registered).await;
        assert!(registered.since_seconds.is_some());
        assert!(registered.last_error.unwrap().contains("source unauthorized"), "the last one");
        drop((peer, listener));
        let lost = told(&registrar, |server| !server.registered).await;
        assert!(lost.last_error.unwrap().contains("connection was lost"));
        registrar.apply(&config(&[], &[ONE]));
        assert_eq!(registrar.status(), [], "it is no longer to be told");
    });
}

#[test]
fn a_change_does_not_begin_the_registration_anew() {
    let (begin, mut known) = (Clock::now(), Known::default());
    let at = |seconds| begin + Duration::from_secs(seconds);
    let address = "10.0.0.9:3205".parse().unwrap();
    let since = |known: &Known| known.status(address, at(100)).since_seconds;
    known.hear(News::Registered, at(10));
    known.hear(News::Registered, at(20));
    assert_eq!(since(&known), Some(90));
    known.hear(News::Silent, at(30));
    assert_eq!(
        (since(&known), known.status(address, at(100)).last_error_seconds),
        (None, Some(70))
    );
    known.hear(News::Registered, at(40));
    assert_eq!(since(&known), Some(60));
    known.hear(News::Gone, at(50));
    assert_eq!(since(&known), None);
    known.hear(News::Nothing, at(60));
    assert!(known.status(address, at(100)).last_error.unwrap().contains("no target has a portal"));
}

#[test]
fn a_registration_has_each_target_with_its_alias_and_portal_groups() {
    let mut config = config(&["10.0.0.9:3205".parse().unwrap()], &[ONE, TWO]);
    config.targets[1].alias = Some("the shelf's".into());
    config.targets[1].portals[0].group = 7;
    let mut isns = config.daemon.isns.clone().unwrap();
    let told = registration(&isns, &config);
    assert_eq!(told.entity, "shelf");
    let of = |at: usize| (told.nodes[at].alias.as_deref(), told.nodes[at].portals[0].1);
    assert_eq!((of(0), of(1)), ((None, 1), (Some("the shelf's"), 7)));
    isns.entity = None;
    assert!(!registration(&isns, &config).entity.is_empty(), "the host's name");
}
