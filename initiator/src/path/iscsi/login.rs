//! From a connected stream to a session: login, and redirection.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use corbel_proto::iscsi::framer::{Framer, Step as Framed, trailer};
use corbel_proto::iscsi::login::initiator::{Ask, Fault, Login, Outcome, Step};
use corbel_proto::iscsi::pdu::login::{LoginResponse, Status};
use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::config::Reinstatement;
use super::session::Session;
use super::wire::{Chunk, StreamId, Wire};
use super::{Aim, IscsiPath, PathEvent, PathFault, Phase, Place};

/// Longest text of one Login Response.
const TEXT_BYTES_MAX: u32 = 64 * 1024;
/// Redirections in a row that are followed.
const HOPS_MAX: u8 = 4;
/// The port of a portal that names none (RFC 7143 13.8).
const PORT: u16 = 3260;

/// A login under way.
#[derive(Debug)]
pub(super) struct LoggingIn<B> {
    pub(super) stream: StreamId,
    pub(super) portal: SocketAddr,
    pub(super) aim: Aim,
    pub(super) until: Instant,
    pub(super) graced: bool,
    pub(super) out: VecDeque<Chunk<B>>,
    login: Login,
    framer: Framer,
    text: Vec<u8>,
}

/// What a login came to.
enum End {
    In(Box<Outcome>),
    Redirect { address: String, permanent: bool },
    Failed(PathFault, String),
}

/// The longest that a login may take after several that got no answer, unless one may always take
/// longer.
const LOGIN_MAX: Duration = Duration::from_secs(20);

impl<B: Buffer> IscsiPath<B> {
    pub(super) fn log_in(&mut self, now: Instant, stream: StreamId, portal: SocketAddr, aim: Aim) {
        let mut login = match Login::new(self.config.login()) {
            Ok(login) => login,
            Err(violation) => {
                return self.gone(now, PathFault::LoginRefused, violation.to_string());
            }
        };
        let first = chunk(&login.start());
        self.phase = Phase::LoggingIn(Box::new(LoggingIn {
            stream,
            portal,
            aim,
            until: now + self.login_patience(aim),
            graced: false,
            out: VecDeque::from([first]),
            login,
            framer: Framer::new(),
            text: Vec::new(),
        }));
    }

    /// How long this login may take. A target that serves logins one by one, and gives a dead
    /// connection 15 s (LIO), would never come to ours if we hung up and queued anew each time: the
    /// next one gets twice as long.
    pub(super) fn login_patience(&self, aim: Aim) -> Duration {
        if let Aim::Proof { .. } = aim {
            return self.proof_patience();
        }
        let usual = self.config.timers.login;
        usual.saturating_mul(1 << self.silent_logins.min(8)).min(LOGIN_MAX).max(usual)
    }

    pub(super) fn login_bytes(&mut self, now: Instant, bytes: &[u8]) {
        let Phase::LoggingIn(login) = &mut self.phase else { return };
        let random = &mut self.random;
        let Some((end, rest)) = login.bytes(bytes, &mut |bytes| random.fill(bytes)) else { return };
        let (stream, portal, aim) = (login.stream, login.portal, login.aim);
        match (end, aim) {
            (End::Failed(fault, why), _) => self.gone(now, fault, why),
            (End::In(outcome), Aim::Proof { place, upto }) => {
                self.proven(now, (place, upto), outcome.portal_group_tag);
            }
            (End::Redirect { .. }, Aim::Proof { .. }) => self.proof_failed(now, false),
            (End::Redirect { address, permanent }, Aim::Session { hops }) => {
                self.redirect(now, stream, hops, &address, permanent);
            }
            (End::In(outcome), Aim::Session { .. }) => {
                let place = Place { portal, group: outcome.portal_group_tag, process: None };
                let replaced = match self.config.reinstatement {
                    Reinstatement::Nothing => None,
                    Reinstatement::Portal | Reinstatement::Group => self.doubts.replaced(place),
                };
                self.events.extend(replaced.map(PathEvent::Quiet));
                let width = self.config.depth.max(1);
                let session = Session::new(now, stream, place, &outcome, self.config.lun, width);
                self.phase = Phase::Session(Box::new(session));
                self.session_bytes(now, rest);
            }
        }
    }

    fn redirect(
        &mut self,
        now: Instant,
        stream: StreamId,
        hops: u8,
        address: &str,
        permanent: bool,
    ) {
        let refused = PathFault::LoginRefused;
        let Some(portal) = portal(address) else {
            let why = format!("the target has moved to {address:?}, which is no IP address");
            return self.gone(now, refused, why);
        };
        if hops >= HOPS_MAX {
            let why = format!("the target has moved too often, last to {portal}");
            return self.gone(now, refused, why);
        }
        if permanent {
            self.home = portal;
        }
        self.wires.push_back(Wire::Close { stream });
        self.connect(now, portal, hops + 1);
    }
}

impl<B: Buffer> LoggingIn<B> {
    /// Takes bytes up to the end of the login; what follows is the session's.
    fn bytes<'a>(
        &mut self,
        mut bytes: &'a [u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<(End, &'a [u8])> {
        let broken = |why: String| End::Failed(PathFault::Protocol, why);
        loop {
            let (taken, step) = match self.framer.push(bytes) {
                Ok(pushed) => pushed,
                Err(malformed) => return Some((broken(malformed.to_string()), &[])),
            };
            bytes = &bytes[taken..];
            match step {
                Framed::More => return None,
                Framed::Header if self.framer.bhs().data_bytes() > TEXT_BYTES_MAX => {
                    return Some((broken("the login's text is too long".to_owned()), &[]));
                }
                Framed::Header => self.text.clear(),
                Framed::Data(part) => self.text.extend_from_slice(part),
                Framed::End { .. } => {
                    let response = match LoginResponse::parse(&self.framer.bhs().0) {
                        Ok(response) => response,
                        Err(malformed) => return Some((broken(malformed.to_string()), &[])),
                    };
                    if let Some(end) = self.response(&response, random) {
                        return Some((end, bytes));
                    }
                }
            }
        }
    }

    fn response(
        &mut self,
        response: &LoginResponse,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<End> {
        let refused = |why: String| End::Failed(PathFault::LoginRefused, why);
        match self.login.handle(response, &self.text, random) {
            Ok(Step::Ask(ask)) => {
                self.out.push_back(chunk(&ask));
                None
            }
            Ok(Step::Done(outcome)) => Some(End::In(outcome)),
            Ok(Step::Redirect { address, permanent }) => Some(End::Redirect { address, permanent }),
            Ok(Step::Refused(status)) => Some(refused(refusal(status))),
            Err(fault @ (Fault::Malformed(_) | Fault::TooManyRequests)) => {
                Some(End::Failed(PathFault::Protocol, fault.to_string()))
            }
            Err(fault @ (Fault::Conduct(_) | Fault::Authentication(_))) => {
                Some(refused(fault.to_string()))
            }
        }
    }
}

fn chunk<B: Buffer>(ask: &Ask) -> Chunk<B> {
    let mut bytes = ask.request.emit().to_vec();
    bytes.extend_from_slice(&ask.text);
    let (tail, len) = trailer(ask.request.data_len, None);
    bytes.extend_from_slice(&tail[..len]);
    Chunk::bytes(&bytes)
}

/// `host[:port][,portal group tag]` (RFC 7143 13.8). Names cannot be looked up here.
fn portal(address: &str) -> Option<SocketAddr> {
    let host = address.split_once(',').map_or(address, |(host, _)| host);
    if let Ok(portal) = host.parse::<SocketAddr>() {
        return Some(portal);
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, PORT))
}

/// A refusal as an administrator can act on it.
pub(crate) fn refusal(status: Status) -> String {
    let why = match status {
        Status::AUTHENTICATION_FAILURE => {
            "it does not accept our CHAP name or secret, or wants one"
        }
        Status::AUTHORIZATION_FAILURE => "we are not allowed to use it",
        Status::NOT_FOUND => "it does not know the target",
        Status::TARGET_REMOVED => "the target was removed",
        Status::TOO_MANY_CONNECTIONS => "too many connections",
        Status::MISSING_PARAMETER => "a parameter is missing (does it ask for CHAP?)",
        Status::SERVICE_UNAVAILABLE => "the service is not available now",
        Status::OUT_OF_RESOURCES => "it is out of resources",
        _ => "no reason that is known here",
    };
    format!("the login is refused: {why} (status {:04x}h)", status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portals_are_read_as_targets_write_them() {
        for (text, portal_text) in [
            ("10.0.0.2:3261,1", "10.0.0.2:3261"),
            ("10.0.0.2", "10.0.0.2:3260"),
            ("10.0.0.2,7", "10.0.0.2:3260"),
            ("[fd00::2]:3261,1", "[fd00::2]:3261"),
            ("[fd00::2]", "[fd00::2]:3260"),
        ] {
            assert_eq!(portal(text), Some(portal_text.parse().unwrap()), "{text}");
        }
        for text in ["", "storage.example.org:3260", "10.0.0.2:99999", "[10.0.0.2", ","] {
            assert_eq!(portal(text), None, "{text}");
        }
    }
}
