//! NBD on a device's thread: clients on a socket, or the kernel's own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use corbel_ring::memory::{Arena, Buf};
use corbel_ring::reactor::{Event, File, Op, Reactor};
use corbel_ring::tcp;
use slab::Slab;

use super::super::run_state::RunState;
use super::super::tag;
use super::News;
use super::kernel_nbd::{Kernel, Stream};
use crate::admin::Presented;
use crate::multipath::Geometry;
use crate::present::nbd::machine::{Bounds, Connection, Export, Mode};
use crate::request::{Outcome, Request};

/// Replies that go out in one message, and its bytes.
const MESSAGE_REPLIES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: u64 = 512 * 1024;
/// Clients at a time.
const CLIENTS_MAX: usize = 64;

#[derive(Debug)]
struct Client {
    number: u32,
    machine: Connection<Buf>,
    file: File,
    receiving: bool,
    sending: bool,
    /// Closed; waits for its operations and requests to end.
    dead: bool,
}

/// Who the clients are.
#[derive(Debug)]
enum Door {
    Unix(PathBuf),
    Tcp,
    Kernel(Kernel),
}

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Nbd {
    export: Export,
    door: Door,
    listener: Option<File>,
    clients: Slab<Client>,
    next_number: u32,
    news: VecDeque<News>,
    stopping: bool,
}

impl Nbd {
    pub(super) fn unix(
        name: &str,
        path: PathBuf,
        geometry: &Geometry,
        reactor: &mut Reactor,
    ) -> Result<Self, String> {
        // One that nobody listens on any more is in the way.
        if UnixStream::connect(&path).is_err() {
            let _ = std::fs::remove_file(&path);
        }
        let said = |error: std::io::Error| format!("{}: {error}", path.display());
        let listener = UnixListener::bind(&path).map_err(said)?;
        let uri = format!("nbd+unix:///{name}?socket={}", path.display());
        Ok(Self::listen(name, uri, Door::Unix(path), listener.into(), geometry, reactor))
    }

    pub(super) fn tcp(
        name: &str,
        address: SocketAddr,
        geometry: &Geometry,
        reactor: &mut Reactor,
    ) -> Result<Self, String> {
        let options = tcp::Options { reuse_port: false, ..tcp::Options::default() };
        let listener = tcp::listen(address, &options).map_err(|error| error.to_string())?;
        let uri = format!("nbd://{address}/{name}");
        Ok(Self::listen(name, uri, Door::Tcp, listener, geometry, reactor))
    }

    fn listen(
        name: &str,
        uri: String,
        door: Door,
        listener: OwnedFd,
        geometry: &Geometry,
        reactor: &mut Reactor,
    ) -> Self {
        let file = reactor.attach(listener);
        reactor.submit(Op::Accept { file }, tag::of(tag::NBD_LISTENER, 0));
        let ready = Presented { by: "nbd", at: uri, link: None };
        Self {
            export: export(name, geometry),
            door,
            listener: Some(file),
            clients: Slab::new(),
            next_number: 0,
            news: VecDeque::from([News::Ready(ready)]),
            stopping: false,
        }
    }

    pub(super) fn kernel(
        name: &str,
        index: Option<u32>,
        geometry: &Geometry,
        state: RunState,
        reactor: &mut Reactor,
    ) -> Result<Self, String> {
        let export = export(name, geometry);
        let kernel = Kernel::begin(name, index, &export, state, reactor)?;
        Ok(Self {
            export,
            door: Door::Kernel(kernel),
            listener: None,
            clients: Slab::new(),
            next_number: 0,
            news: VecDeque::new(),
            stopping: false,
        })
    }

    fn admit(&mut self, file: File, mode: Mode) {
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let machine = Connection::new(number, self.export.clone(), mode, Bounds::default());
        self.clients.insert(Client {
            number,
            machine,
            file,
            receiving: false,
            sending: false,
            dead: false,
        });
    }

    pub(super) fn completed(
        &mut self,
        kind: u64,
        key: usize,
        event: Event,
        more: bool,
        reactor: &mut Reactor,
        arena: &mut Arena,
    ) {
        match (kind, event) {
            (tag::NBD_LISTENER, Event::Accepted(accepted)) => {
                match accepted {
                    Ok(file) if self.clients.len() < CLIENTS_MAX && !self.stopping => {
                        self.admit(file, Mode::Handshake);
                    }
                    Ok(file) => reactor.close(file),
                    Err(failure) => tracing::debug!(%failure, "no NBD client accepted"),
                }
                if let Some(file) = self.listener.filter(|_| !more) {
                    reactor.submit(Op::Accept { file }, tag::of(tag::NBD_LISTENER, 0));
                }
            }
            (tag::NBD_RECEIVED, event) => self.received(key, event, more, reactor, arena),
            (tag::NBD_SENT, event) => {
                let Some(client) = self.clients.get_mut(key) else { return };
                client.sending = false;
                if let Event::Sent(Err(failure)) = event {
                    self.end(key, reactor, &failure.to_string());
                }
            }
            _ => {}
        }
    }

    fn received(
        &mut self,
        key: usize,
        event: Event,
        more: bool,
        reactor: &mut Reactor,
        arena: &mut Arena,
    ) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.receiving = more;
        if client.dead {
            return;
        }
        match event {
            Event::Pooled(Ok(Some(data))) => {
                if let Err(refusal) = client.machine.received(arena, data.bytes()) {
                    self.end(key, reactor, &refusal.to_string());
                }
            }
            Event::Pooled(Ok(None)) => self.end(key, reactor, "the client is gone"),
            Event::Pooled(Err(failure)) => self.end(key, reactor, &failure.to_string()),
            _ => {}
        }
    }

    fn end(&mut self, key: usize, reactor: &mut Reactor, why: &str) {
        let client = &mut self.clients[key];
        if !client.dead {
            tracing::debug!(why, "an NBD connection ends");
            client.dead = true;
            reactor.close(client.file);
        }
    }

    pub(super) fn take(&mut self, arena: &mut Arena, out: &mut Vec<Request<Buf>>) {
        for (_, client) in &mut self.clients {
            let waits = client.machine.is_starved() || client.machine.wants_resume();
            if waits && let Err(refusal) = client.machine.resume(arena) {
                tracing::warn!(%refusal, "an NBD client broke the protocol");
                client.machine.drain();
            }
            while let Some(request) = client.machine.poll_request() {
                out.push(request);
            }
        }
    }

    pub(super) fn complete(&mut self, outcome: Outcome<Buf>) {
        // The upper half of a request's name is its connection's number.
        let number = u32::try_from(outcome.id.0 >> 32).expect("32 bits");
        let found = self.clients.iter_mut().find(|(_, client)| client.number == number);
        if let Some((_, client)) = found {
            client.machine.complete(outcome);
        }
    }

    pub(super) fn flush(&mut self, reactor: &mut Reactor, _arena: &mut Arena) -> bool {
        self.hear(reactor);
        let mut again = false;
        let keys: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            let client = &mut self.clients[key];
            if client.dead {
                while client.machine.transmit().is_some() {}
                let idle = !client.receiving && !client.sending;
                if idle && client.machine.in_flight() == 0 {
                    self.clients.remove(key);
                }
                continue;
            }
            if !client.sending {
                client.sending = send(client, key, reactor);
            }
            if !client.sending && client.machine.is_over() {
                self.end(key, reactor, "it has taken leave");
                continue;
            }
            if !client.receiving && client.machine.wants_read() {
                client.receiving = true;
                let op = Op::RecvPooled { file: client.file, len_max: 0, repeat: false };
                reactor.submit(op, tag::of(tag::NBD_RECEIVED, key));
            }
            again |= client.machine.is_starved() || client.machine.wants_resume();
        }
        self.finish(reactor);
        again
    }

    /// Hears what the thread that talks to the kernel has done.
    fn hear(&mut self, reactor: &mut Reactor) {
        loop {
            let Door::Kernel(kernel) = &mut self.door else { return };
            match kernel.poll(&mut self.news) {
                Some(Stream::Begins(socket)) => {
                    let file = reactor.attach(socket);
                    self.admit(file, Mode::Transmission);
                }
                Some(Stream::Ends) => self.end_clients(reactor),
                None => return,
            }
        }
    }

    fn finish(&mut self, reactor: &mut Reactor) {
        if self.stopping && self.clients.is_empty() {
            self.stopping = false;
            if let Door::Unix(path) = &self.door {
                // Somebody else removed it: gone as it should be.
                let _ = std::fs::remove_file(path);
            }
            if let Some(file) = self.listener.take() {
                reactor.close(file);
            }
            self.news.push_back(News::Gone);
        }
    }

    pub(super) fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    pub(super) fn is_kernels(&self) -> bool {
        matches!(self.door, Door::Kernel(_))
    }

    pub(super) fn resize(&mut self, size_bytes: u64) {
        self.export.size_bytes = size_bytes;
        for (_, client) in &mut self.clients {
            client.machine.resized(size_bytes);
        }
        if let Door::Kernel(kernel) = &mut self.door {
            kernel.resize(&self.export);
        }
    }

    pub(super) fn stop(&mut self, force: bool, reactor: &mut Reactor) {
        match &mut self.door {
            // The kernel may still have to write; its client ends once the device is gone.
            Door::Kernel(kernel) => kernel.disconnect(force),
            Door::Unix(_) | Door::Tcp => {
                let clients = self.clients.iter().filter(|(_, client)| !client.dead).count();
                if clients > 0 && !force {
                    return self.news.push_back(News::InUse(format!("{clients} NBD clients")));
                }
                self.end_clients(reactor);
            }
        }
    }

    fn end_clients(&mut self, reactor: &mut Reactor) {
        self.stopping = true;
        if let Some(file) = self.listener.take() {
            reactor.close(file);
        }
        for (_, client) in &mut self.clients {
            client.machine.drain();
        }
    }
}

fn send(client: &mut Client, key: usize, reactor: &mut Reactor) -> bool {
    let mut message = reactor.message();
    for _ in 0..MESSAGE_REPLIES_MAX {
        let Some(reply) = client.machine.transmit() else { break };
        message.bytes(&reply.head);
        if let Some(data) = reply.data {
            message.payload(data);
        }
        if message.len() >= MESSAGE_BYTES_MAX {
            break;
        }
    }
    if message.is_empty() {
        reactor.unsent(message);
        return false;
    }
    reactor.submit(Op::Send { file: client.file, message }, tag::of(tag::NBD_SENT, key));
    true
}

fn export(name: &str, geometry: &Geometry) -> Export {
    Export {
        name: name.to_owned(),
        description: String::new(),
        size_bytes: geometry.size_bytes,
        block_bytes: geometry.block_bytes,
        physical_block_bytes: geometry.physical_block_bytes,
        read_only: geometry.read_only,
        discard: geometry.discard,
        write_zeroes: geometry.write_zeroes,
    }
}
