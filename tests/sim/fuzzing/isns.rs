//! What an iSNS server sends: the client that asks it, and the attributes themselves.

use std::net::{IpAddr, Ipv4Addr};

use corbel_proto::isns::client::{Action, Client, Node, Registration};
use corbel_proto::isns::message::{
    Attributes, Framer, HEADER_BYTES, Header, MESSAGE_BYTES_MAX, Writer, function,
};
use corbel_proto::time::{Duration, Instant};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

fn registration(targets: u8) -> Registration {
    let node = |at: u8| Node {
        name: format!("iqn.2026-11.org:{at}"),
        alias: (at == 1).then(|| "a shelf".to_owned()),
        portals: vec![("0.0.0.0:3260".parse().expect("a portal"), at.into())],
    };
    Registration { entity: "shelf".into(), nodes: (0..targets).map(node).collect() }
}

/// The first byte says how many bytes come at once, the next how many targets there are. Then come
/// records: what happens (a byte), how many bytes belong to it (two), and those.
pub(super) fn isns_client(input: &[u8]) {
    let &[piece, targets, ref records @ ..] = input else { return };
    stream(records, usize::from(piece).max(1));
    let mut world = World::new(targets % 4);
    let mut rest = records;
    while let &[what, high, low, ref tail @ ..] = rest {
        let (bytes, after) =
            tail.split_at(usize::from(u16::from_be_bytes([high, low])).min(tail.len()));
        rest = after;
        world.happens(what, bytes, usize::from(piece).max(1));
    }
    world.ends();
}

/// Any bytes as a stream of messages, in pieces: memory stays bounded, attributes read back.
fn stream(bytes: &[u8], piece: usize) {
    let mut framer = Framer::default();
    for bytes in bytes.chunks(piece) {
        framer.push(bytes);
        loop {
            match framer.next_message() {
                Ok(Some((header, payload))) => {
                    assert!(payload.len() <= MESSAGE_BYTES_MAX);
                    assert_eq!(Header::parse(&header.emit()), Ok(header));
                    attributes(&payload);
                    attributes(payload.get(4..).unwrap_or_default());
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn attributes(bytes: &[u8]) {
    let Ok(all) = Attributes::new(bytes).collect::<Result<Vec<_>, _>>() else { return };
    let mut again = Writer::default();
    for attribute in &all {
        again.put(attribute.tag, attribute.value);
        let _ = (attribute.number(), attribute.text(), attribute.address(), attribute.port());
    }
    // What has no padding of its own gets some.
    let message = again.message(function::QUERY, 0);
    let reread = Attributes::new(&message[HEADER_BYTES..]).map(|one| one.expect("as we write"));
    for (ours, theirs) in reread.zip(&all) {
        assert_eq!(
            (ours.tag, ours.value.get(..theirs.value.len())),
            (theirs.tag, Some(theirs.value))
        );
    }
}

/// A client and what its host knows.
struct World {
    client: Client,
    now: Instant,
    connecting: bool,
    open: bool,
    stopped: bool,
    /// The question that was sent last.
    question: Vec<u8>,
}

impl World {
    fn new(targets: u8) -> Self {
        let now = Instant::ZERO;
        let client = Client::new(registration(targets), now);
        let (connecting, open, stopped) = (false, false, false);
        let mut world = Self { client, now, connecting, open, stopped, question: Vec::new() };
        world.client.handle_timeout(now);
        world.acts();
        world
    }

    fn happens(&mut self, what: u8, bytes: &[u8], piece: usize) {
        let Self { client, now, .. } = self;
        match what % 8 {
            0 if self.open => bytes.chunks(piece).for_each(|bytes| client.received(bytes, *now)),
            // An answer to what was asked: status and attributes come from the input.
            1 if self.open && !self.question.is_empty() => {
                let answer = answer(&self.question, bytes);
                answer.chunks(piece).for_each(|bytes| client.received(bytes, *now));
            }
            2 if self.connecting => {
                (self.connecting, self.open) = (false, true);
                client.connected(HERE, *now);
            }
            3 if self.connecting || self.open => {
                (self.connecting, self.open) = (false, false);
                client.closed(*now);
            }
            4 => client.register(registration(bytes.first().map_or(0, |byte| byte % 4)), *now),
            5 => {
                let seconds = bytes.first().copied().unwrap_or(1);
                *now = *now + Duration::from_secs(seconds.into());
                client.handle_timeout(*now);
            }
            6 => {
                if let Some(due) = client.poll_timeout() {
                    *now = due.max(*now);
                    client.handle_timeout(*now);
                }
            }
            7 if bytes.len() == 7 => {
                self.stopped = true;
                client.stop(*now);
            }
            _ => {}
        }
        self.acts();
    }

    /// Does what the client wants; it is never much.
    fn acts(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.client.poll() {
            actions += 1;
            assert!(actions <= 70_000, "it has no end");
            match action {
                Action::Connect => {
                    assert!(!self.connecting && !self.open, "one connection at a time");
                    self.connecting = true;
                }
                Action::Send(message) => {
                    assert!(self.open, "nothing is sent without a connection");
                    let header = message.first_chunk().expect("a header");
                    let header = Header::parse(header).expect("as the standard says");
                    assert_eq!(usize::from(header.payload_bytes) + HEADER_BYTES, message.len());
                    assert!(Attributes::new(&message[HEADER_BYTES..]).all(|one| one.is_ok()));
                    self.question = message;
                }
                Action::Close => (self.connecting, self.open) = (false, false),
                Action::Tell(news) => assert!(!news.to_string().is_empty()),
            }
        }
        if self.client.is_over() {
            assert!(self.stopped && !self.open && !self.connecting, "it ends when it is told to");
        } else if self.connecting || self.open {
            assert!(self.client.poll_timeout().is_some(), "no connection is waited for for ever");
        }
    }

    /// Whatever was said before, its end comes with time alone.
    fn ends(&mut self) {
        self.client.stop(self.now);
        self.stopped = true;
        self.acts();
        for _ in 0..4 {
            self.happens(6, &[], 1);
        }
        assert!(self.client.is_over(), "it does not end");
    }
}

fn answer(question: &[u8], payload: &[u8]) -> Vec<u8> {
    let asked = question.first_chunk().and_then(|header| Header::parse(header).ok());
    let Some(asked) = asked else { return Vec::new() };
    let payload = &payload[..payload.len() / 4 * 4];
    let header = Header {
        function: asked.function | function::RESPONSE,
        payload_bytes: u16::try_from(payload.len()).unwrap_or(0),
        flags: 0x0c00,
        transaction: asked.transaction,
        sequence: 0,
    };
    [&header.emit()[..], payload].concat()
}
