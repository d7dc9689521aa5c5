//! TCP streams of iSCSI paths.

use std::net::SocketAddr;

use corbel_proto::time::Instant;
use corbel_ring::memory::Arena;
use corbel_ring::reactor::{Event, File, Op, Reactor};
use corbel_ring::tcp;
use slab::Slab;

use super::tag;
use crate::device::Device;
use crate::path::PathId;
use crate::path::iscsi::{StreamId, Wire};

/// PDUs and bytes that go out in one message.
const MESSAGE_PDUS_MAX: usize = 64;
const MESSAGE_BYTES_MAX: u64 = 512 * 1024;

#[derive(Debug)]
struct Stream {
    path: PathId,
    id: StreamId,
    file: File,
    connected: bool,
    receiving: bool,
    sending: bool,
    /// Closed by us or the peer; waits for its operations to end.
    dead: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Streams(Slab<Stream>);

impl Streams {
    /// Makes or ends a connection.
    pub(super) fn wire(
        &mut self,
        now: Instant,
        (path, wire): (PathId, Wire),
        reactor: &mut Reactor,
        device: &mut Device<Arena>,
    ) {
        match wire {
            Wire::Connect { stream, portal } => {
                // A login may be waited for longer than it takes a host to start anew.
                let keepalive = Some(std::time::Duration::from_secs(3));
                let options = tcp::Options { keepalive, ..tcp::Options::default() };
                match tcp::connect(portal, None, &options) {
                    Ok(fd) => self.begin(path, stream, reactor.attach(fd), reactor),
                    Err(error) => device.connect_failed(now, path, stream, error.to_string()),
                }
            }
            Wire::Close { stream } => {
                let found = self.0.iter().find(|(_, s)| (s.path, s.id) == (path, stream));
                if let Some((key, _)) = found {
                    self.kill(key, reactor);
                }
            }
        }
    }

    fn begin(&mut self, path: PathId, id: StreamId, file: File, reactor: &mut Reactor) {
        let key = self.0.insert(Stream {
            path,
            id,
            file,
            connected: false,
            receiving: false,
            // The wait for the connection counts as one.
            sending: true,
            dead: false,
        });
        reactor.submit(Op::PollWritable { file }, tag::of(tag::CONNECTED, key));
    }

    /// Ends a stream at once: what the peer has not got is dropped.
    fn kill(&mut self, key: usize, reactor: &mut Reactor) {
        let stream = &mut self.0[key];
        if !stream.dead {
            stream.dead = true;
            reactor.abort(stream.file);
        }
        self.forget(key);
    }

    fn forget(&mut self, key: usize) {
        let stream = &self.0[key];
        if stream.dead && !stream.sending && !stream.receiving {
            self.0.remove(key);
        }
    }

    /// A connection attempt has ended.
    pub(super) fn connected(
        &mut self,
        now: Instant,
        key: usize,
        reactor: &mut Reactor,
        device: &mut Device<Arena>,
    ) {
        let Some(stream) = self.0.get_mut(key) else { return };
        stream.sending = false;
        if stream.dead {
            return self.forget(key);
        }
        let (path, id) = (stream.path, stream.id);
        let outcome = reactor
            .descriptor(stream.file)
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected))
            .and_then(|fd| tcp::connected(fd).and_then(|()| tcp::addresses(fd)));
        match outcome {
            Ok((local, _)) => {
                stream.connected = true;
                device.connected(now, path, id, interface_of(local));
            }
            Err(error) => {
                self.kill(key, reactor);
                device.connect_failed(now, path, id, error.to_string());
            }
        }
    }

    /// Bytes came, or the stream ended.
    pub(super) fn received(
        &mut self,
        now: Instant,
        key: usize,
        event: Event,
        more: bool,
        reactor: &mut Reactor,
        device: &mut Device<Arena>,
    ) {
        let Some(stream) = self.0.get_mut(key) else { return };
        stream.receiving = more;
        if stream.dead {
            return self.forget(key);
        }
        let (path, id) = (stream.path, stream.id);
        let why = match event {
            Event::Pooled(Ok(Some(data))) => {
                return device.received(now, path, id, data.bytes());
            }
            Event::Pooled(Ok(None)) => "the target closed the connection".to_owned(),
            Event::Pooled(Err(failure)) => failure.to_string(),
            _ => return,
        };
        self.kill(key, reactor);
        device.closed(now, path, id, why);
    }

    /// A message went out, or never will.
    pub(super) fn sent(
        &mut self,
        now: Instant,
        key: usize,
        event: Event,
        reactor: &mut Reactor,
        device: &mut Device<Arena>,
    ) {
        let Some(stream) = self.0.get_mut(key) else { return };
        stream.sending = false;
        if stream.dead {
            return self.forget(key);
        }
        let (path, id) = (stream.path, stream.id);
        if let Event::Sent(Err(failure)) = event {
            self.kill(key, reactor);
            device.closed(now, path, id, failure.to_string());
        }
    }

    /// Sends what there is to send, and receives.
    pub(super) fn pump(&mut self, reactor: &mut Reactor, device: &mut Device<Arena>) {
        for (key, stream) in &mut self.0 {
            if stream.dead || !stream.connected {
                continue;
            }
            if !stream.sending {
                stream.sending = send(stream, key, reactor, device);
            }
            if !stream.receiving {
                stream.receiving = true;
                let op = Op::RecvPooled { file: stream.file, len_max: 0, repeat: true };
                reactor.submit(op, tag::of(tag::RECEIVED, key));
            }
        }
    }

    /// True if there is no stream, closing ones included.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Everything that is queued, up to a bound, in one message. True if there was something.
fn send(stream: &Stream, key: usize, reactor: &mut Reactor, device: &mut Device<Arena>) -> bool {
    let mut message = reactor.message();
    for _ in 0..MESSAGE_PDUS_MAX {
        let Some((id, chunk)) = device.transmit(stream.path) else { break };
        // Bytes of a stream that is gone already go with it.
        if id == stream.id {
            message.bytes(&chunk.head);
            if let Some(data) = chunk.data {
                message.payload(data);
            }
            message.bytes(&chunk.tail);
        }
        if message.len() >= MESSAGE_BYTES_MAX {
            break;
        }
    }
    if message.is_empty() {
        reactor.unsent(message);
        return false;
    }
    reactor.submit(Op::Send { file: stream.file, message }, tag::of(tag::SENT, key));
    true
}

/// The interface that has this address.
fn interface_of(local: SocketAddr) -> Option<String> {
    let holds =
        |i: &pnet_datalink::NetworkInterface| i.ips.iter().any(|net| net.ip() == local.ip());
    pnet_datalink::interfaces().into_iter().find(holds).map(|interface| interface.name)
}
