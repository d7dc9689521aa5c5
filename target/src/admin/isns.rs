//! Tells iSNS servers which targets there are; what is said, and when, is decided in
//! [`corbel_proto::isns`]. A server that does not answer holds up nobody.

use std::collections::HashMap;
use std::future::pending;
use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Clock};

use corbel_proto::isns::client::{Action, Client, Node, Registration};
use corbel_proto::isns::news::News;
use corbel_proto::time::Instant;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use super::status::IsnsServer;
use crate::config::{Config, Isns};

/// What servers get to confirm that they have forgotten us, all of them together.
const FAREWELL_MAX: Duration = Duration::from_secs(3);

/// The conversations with all servers.
#[derive(Debug, Default)]
pub(super) struct Registrar {
    sessions: Mutex<HashMap<SocketAddr, Session>>,
}

/// The conversation with one server.
#[derive(Debug)]
struct Session {
    /// What is to be registered; `None` ends it.
    wanted: watch::Sender<Option<Registration>>,
    task: JoinHandle<()>,
    known: Arc<Mutex<Known>>,
}

/// What came of it so far.
#[derive(Debug, Default)]
struct Known {
    registered: Option<Clock>,
    /// Why nothing was registered, the last time that nothing was.
    failed: Option<(Clock, News)>,
}

impl Known {
    fn hear(&mut self, news: News, now: Clock) {
        match news {
            News::Registered => {
                self.registered.get_or_insert(now);
            }
            News::Gone => self.registered = None,
            why => {
                self.registered = None;
                self.failed = Some((now, why));
            }
        }
    }

    fn status(&self, server: SocketAddr, now: Clock) -> IsnsServer {
        let age = |since: Clock| now.saturating_duration_since(since).as_secs();
        IsnsServer {
            server: server.to_string(),
            registered: self.registered.is_some(),
            since_seconds: self.registered.map(age),
            last_error: self.failed.map(|(_, why)| why.to_string()),
            last_error_seconds: self.failed.map(|(since, _)| age(since)),
        }
    }
}

impl Registrar {
    /// Has all servers of a configuration told of its targets, and the others that they are gone.
    /// To be called on the runtime.
    pub(super) fn apply(&self, config: &Config) {
        let servers = config.daemon.isns.as_ref().map_or(&[][..], |isns| &isns.servers);
        let mut sessions = self.sessions();
        sessions.retain(|_, session| !session.task.is_finished());
        for (server, session) in sessions.iter() {
            if !servers.contains(server) {
                session.wanted.send_replace(None);
            }
        }
        let Some(isns) = &config.daemon.isns else { return };
        let registration = registration(isns, config);
        for server in servers {
            match sessions.get(server) {
                Some(session) if session.wanted.borrow().is_some() => {
                    session.wanted.send_replace(Some(registration.clone()));
                }
                ending => {
                    if let Some(session) = ending {
                        session.task.abort();
                    }
                    let (wanted, told) = watch::channel(Some(registration.clone()));
                    let known = Arc::default();
                    let news = Arc::clone(&known);
                    let task = tokio::spawn(converse(*server, registration.clone(), told, news));
                    sessions.insert(*server, Session { wanted, task, known });
                }
            }
        }
    }

    /// How it stands with each server that is to be told, by address.
    pub(super) fn status(&self) -> Vec<IsnsServer> {
        let (sessions, now) = (self.sessions(), Clock::now());
        let named = sessions.iter().filter(|(_, session)| session.wanted.borrow().is_some());
        let mut named: Vec<_> = named.collect();
        named.sort_by_key(|(server, _)| **server);
        named.iter().map(|(server, session)| lock(&session.known).status(**server, now)).collect()
    }

    /// Tells all servers that the targets are gone.
    pub(super) async fn end(&self) {
        let sessions = std::mem::take(&mut *self.sessions());
        for session in sessions.values() {
            session.wanted.send_replace(None);
        }
        let all = async {
            for session in sessions.into_values() {
                // One that panicked has said so.
                let _ = session.task.await;
            }
        };
        if timeout(FAREWELL_MAX, all).await.is_err() {
            tracing::warn!("not every iSNS server has confirmed that the targets are gone");
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SocketAddr, Session>> {
        lock(&self.sessions)
    }
}

/// No change under one of these locks can stop halfway.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn registration(isns: &Isns, config: &Config) -> Registration {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = |target: &crate::config::Target| Node {
        name: target.name.as_str().to_owned(),
        alias: target.alias.clone(),
        portals: target.portals.iter().map(|portal| (portal.address, portal.group)).collect(),
    };
    Registration {
        entity: isns.entity.clone().unwrap_or_else(host),
        nodes: config.targets.iter().map(node).collect(),
    }
}

/// Until the server was told that we are gone.
async fn converse(
    server: SocketAddr,
    registration: Registration,
    mut wanted: watch::Receiver<Option<Registration>>,
    known: Arc<Mutex<Known>>,
) {
    let start = tokio::time::Instant::now();
    let now = || Instant::ZERO + start.elapsed();
    let mut client = Client::new(registration, now());
    let (mut link, mut stopping) = (Link::Closed, false);
    loop {
        while let Some(action) = client.poll() {
            match action {
                Action::Connect => link = Link::Opening(Box::pin(TcpStream::connect(server))),
                Action::Close => link = Link::Closed,
                Action::Send(bytes) => link.send(&bytes),
                Action::Tell(news) => {
                    tell(server, news);
                    lock(&known).hear(news, Clock::now());
                }
            }
        }
        if client.is_over() {
            return;
        }
        let due = client.poll_timeout().map(|due| start + due.since(Instant::ZERO));
        let due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            event = link.next() => match event {
                Ok(Event::Nothing) => {}
                Ok(Event::Connected(local)) => client.connected(local, now()),
                Ok(Event::Received(bytes)) => client.received(&bytes, now()),
                Err(error) => {
                    tracing::debug!(%server, %error, "connection to an iSNS server");
                    link = Link::Closed;
                    client.closed(now());
                }
            },
            () = due => client.handle_timeout(now()),
            changed = wanted.changed(), if !stopping => {
                let registration = wanted.borrow_and_update().clone();
                match registration {
                    Some(registration) if changed.is_ok() => client.register(registration, now()),
                    _ => {
                        client.stop(now());
                        stopping = true;
                    }
                }
            }
        }
    }
}

fn tell(server: SocketAddr, news: News) {
    if news.is_failure() {
        tracing::warn!("iSNS server {server}: {news}; it is tried again");
    } else {
        tracing::info!("iSNS server {server}: {news}");
    }
}

/// A connection to a server, there or not.
enum Link {
    Closed,
    Opening(Pin<Box<dyn Future<Output = Result<TcpStream, Error>> + Send>>),
    Open { stream: TcpStream, unsent: Vec<u8> },
}

enum Event {
    Connected(IpAddr),
    Received(Vec<u8>),
    /// Something was sent.
    Nothing,
}

impl Link {
    fn send(&mut self, bytes: &[u8]) {
        if let Self::Open { unsent, .. } = self {
            unsent.extend_from_slice(bytes);
        }
    }

    /// Gives up at any point without loss.
    async fn next(&mut self) -> Result<Event, Error> {
        match self {
            Self::Closed => pending().await,
            Self::Opening(opening) => {
                let stream = opening.await?;
                let local = stream.local_addr()?.ip();
                *self = Self::Open { stream, unsent: Vec::new() };
                Ok(Event::Connected(local))
            }
            Self::Open { stream, unsent } => transfer(stream, unsent).await,
        }
    }
}

async fn transfer(stream: &TcpStream, unsent: &mut Vec<u8>) -> Result<Event, Error> {
    let interest = match unsent.is_empty() {
        true => Interest::READABLE,
        false => Interest::READABLE | Interest::WRITABLE,
    };
    let ready = stream.ready(interest).await?;
    if ready.is_readable() {
        let mut bytes = vec![0; 4096];
        match stream.try_read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                bytes.truncate(len);
                return Ok(Event::Received(bytes));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    if ready.is_writable() && !unsent.is_empty() {
        match stream.try_write(unsent) {
            Ok(len) => drop(unsent.drain(..len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Event::Nothing)
}

#[cfg(test)]
mod tests;
