//! What an administrator decides about one iSCSI path, and its time limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use corbel_proto::iscsi::chap::{Algorithm, Credentials, Secret, respond};
use corbel_proto::iscsi::login::initiator as login;
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::params::{Digest, Limits};
use corbel_proto::iscsi::pdu::login::Isid;
use corbel_proto::time::Duration;

use crate::multipath::status::Limit;

/// One path.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our iSCSI name.
    pub initiator: Name,
    /// Our part of the session's identity. Always the same for one path of one host, also after a
    /// restart: only so a new session replaces the old one. See [`isid_for`].
    pub isid: [u8; 6],
    /// The target's iSCSI name.
    pub target: Name,
    /// The logical unit behind it.
    pub lun: u16,
    /// Where it is.
    pub portal: SocketAddr,
    /// How to authenticate, if at all.
    pub chap: Option<Chap>,
    /// CRC32C over headers.
    pub header_digest: Digests,
    /// CRC32C over data.
    pub data_digest: Digests,
    /// Time limits.
    pub timers: Timers,
    /// Commands on the wire at a time; at least 1.
    pub depth: u32,
    /// Priority of the path in place of the one that the target tells.
    pub weight: Option<u32>,
    /// An earlier process of this host may have left commands under way: crash recovery.
    pub recovering: bool,
    /// What a login that replaces a session proves.
    pub reinstatement: Reinstatement,
}

/// What a login that replaces a session proves about the commands of that session.
///
/// RFC 7143 6.3.5: the target ends the old session and its tasks before the new one is told that
/// it is in. Corbel's target keeps to it (it fences the volume first); of others it is an
/// assumption, and without it only [`Timers::doubt_hold`] proves anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reinstatement {
    /// Nothing: for portal addresses that move between target nodes that do not fence one another.
    Nothing,
    /// That they are over, if it was at the portal of the old session; and at another portal of
    /// the same portal group, if the target shows that one process of it answers at both.
    #[default]
    Portal,
    /// That they are over, at any portal of the same target and portal group: as RFC 7143 has it,
    /// but two servers that are configured alike break it.
    Group,
}

/// Names and secrets.
#[derive(Debug, Clone)]
pub struct Chap {
    /// Who we are.
    pub ours: Credentials,
    /// What the target must prove (mutual CHAP).
    pub theirs: Option<Credentials>,
}

/// Whether PDUs carry digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Digests {
    /// Never.
    #[default]
    None,
    /// If the target can.
    Prefer,
    /// Or there is no login.
    Require,
}

impl Digests {
    fn offer(self) -> Vec<Digest> {
        match self {
            Self::None => vec![Digest::None],
            Self::Prefer => vec![Digest::Crc32c, Digest::None],
            Self::Require => vec![Digest::Crc32c],
        }
    }
}

impl Config {
    /// A path with the defaults of everything that has one.
    pub fn new(initiator: Name, isid: [u8; 6], target: Name, lun: u16, portal: SocketAddr) -> Self {
        Self {
            initiator,
            isid,
            target,
            lun,
            portal,
            chap: None,
            header_digest: Digests::None,
            data_digest: Digests::None,
            timers: Timers::default(),
            depth: 128,
            weight: None,
            recovering: false,
            reinstatement: Reinstatement::default(),
        }
    }

    /// What the login machine is told. Every login starts a new session (TSIH 0) of the same ISID.
    pub(super) fn login(&self) -> login::Config {
        let chap = self.chap.as_ref().map(|chap| login::Chap {
            algorithms: Algorithm::ALL.to_vec(),
            ours: chap.ours.clone(),
            theirs: chap.theirs.clone(),
        });
        login::Config {
            initiator: self.initiator.clone(),
            alias: None,
            target: Some(self.target.clone()),
            isid: Isid(self.isid),
            tsih: 0,
            cid: 0,
            cmd_sn: 1,
            limits: Limits {
                header_digests: self.header_digest.offer(),
                data_digests: self.data_digest.offer(),
                time2wait_s: 0,
                ..Limits::default()
            },
            chap,
        }
    }
}

/// Time limits of a path.
///
/// A path that goes dead without a word is noticed after `ping_after` and `ping_answer`, if both
/// directions carry nothing else. Both must exceed what the network needs for the bytes that the
/// socket may have queued; keep that queue short (TCP_NOTSENT_LOWAT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timers {
    /// A TCP connection must stand after this long.
    pub connect: Duration,
    /// A login must be done after this long.
    pub login: Duration,
    /// The unit must have said who it is after this long.
    pub identify: Duration,
    /// Ping after this long without a byte, while commands are under way.
    pub ping_after: Duration,
    /// Ping after this long without a byte, while none are.
    pub ping_idle: Duration,
    /// A ping must be followed by bytes after this long.
    pub ping_answer: Duration,
    /// A command that takes longer is aborted.
    pub command: Duration,
    /// An abort must be answered after this long, or the session is given up.
    pub abort: Duration,
    /// The same of a logout.
    pub logout: Duration,
    /// What was sent in a session takes effect no later than this after its stream was closed.
    pub doubt_hold: Duration,
    /// First wait between attempts to come back; the very first attempt is made at once.
    pub retry_min: Duration,
    /// Waits double up to this. A returned target is found again after at most this, and a login.
    pub retry_max: Duration,
    /// Timers this much late say that we stood still, not the target: it gets one more chance.
    pub freeze: Duration,
    /// Where those that are not defaults come from, by [name](Self::NAMES).
    pub origins: BTreeMap<&'static str, String>,
}

impl Default for Timers {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            connect: ms(1500),
            login: ms(3000),
            identify: ms(5000),
            ping_after: ms(400),
            ping_idle: ms(2000),
            ping_answer: ms(700),
            command: ms(20_000),
            abort: ms(2000),
            logout: ms(500),
            doubt_hold: ms(10_000),
            retry_min: ms(100),
            retry_max: ms(700),
            freeze: ms(200),
            origins: BTreeMap::new(),
        }
    }
}

impl Timers {
    /// Names of the limits, in the order of [`Self::limits`].
    pub const NAMES: [&'static str; 13] = [
        "connect_timeout",
        "login_timeout",
        "identify_timeout",
        "ping_after",
        "ping_idle",
        "answer_within",
        "command_timeout",
        "abort_timeout",
        "logout_timeout",
        "doubt_hold",
        "retry_min",
        "retry_max",
        "freeze_guard",
    ];

    /// Sets the limit called `name`; `from` says who wants it (`[defaults]`, `command`). False if
    /// there is none of that name.
    pub fn set(&mut self, name: &str, limit: Duration, from: &str) -> bool {
        let Some(at) = Self::NAMES.iter().position(|known| *known == name) else { return false };
        *self.fields_mut()[at] = limit;
        self.origins.insert(Self::NAMES[at], from.to_owned());
        true
    }

    /// All of them, for status.
    pub fn limits(&self) -> Vec<Limit> {
        let mut copy = self.clone();
        let values = copy.fields_mut().map(|limit| *limit);
        let limits = Self::NAMES.into_iter().zip(values);
        limits
            .map(|(name, limit)| Limit {
                name,
                ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                from: self.origins.get(name).cloned().unwrap_or_else(|| "default".to_owned()),
            })
            .collect()
    }

    fn fields_mut(&mut self) -> [&mut Duration; 13] {
        [
            &mut self.connect,
            &mut self.login,
            &mut self.identify,
            &mut self.ping_after,
            &mut self.ping_idle,
            &mut self.ping_answer,
            &mut self.command,
            &mut self.abort,
            &mut self.logout,
            &mut self.doubt_hold,
            &mut self.retry_min,
            &mut self.retry_max,
            &mut self.freeze,
        ]
    }
}

/// An ISID for the path of the host with this id (`/etc/machine-id`) to `target` at `portal`: of
/// the random format (type 10b, RFC 7143 11.12.5), and always the same for the same three.
pub fn isid_for(host: &[u8], portal: SocketAddr, target: &Name) -> [u8; 6] {
    let mut text = Vec::new();
    for part in [host, portal.to_string().as_bytes(), target.as_str().as_bytes()] {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    // SHA-256 over an empty secret: a plain digest.
    let digest = respond(Algorithm::Sha256, 0, &Secret::new(Vec::new()), &text);
    let mut isid = [0x80; 6];
    isid[1..].copy_from_slice(&digest[..5]);
    isid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isid(host: &[u8], port: u16, target: &str) -> [u8; 6] {
        isid_for(host, SocketAddr::from(([10, 0, 0, 1], port)), &target.parse().unwrap())
    }

    #[test]
    fn isids_are_stable_and_differ_by_host_portal_and_target() {
        let one = isid(b"host", 3260, "iqn.2026-11.org.example:a");
        assert_eq!(one, isid(b"host", 3260, "iqn.2026-11.org.example:a"));
        assert_eq!(one[0], 0x80);
        assert_ne!(one, isid(b"host2", 3260, "iqn.2026-11.org.example:a"));
        assert_ne!(one, isid(b"host", 3261, "iqn.2026-11.org.example:a"));
        assert_ne!(one, isid(b"host", 3260, "iqn.2026-11.org.example:b"));
    }

    #[test]
    fn many_isids_hardly_meet() {
        let mut seen = std::collections::BTreeSet::new();
        for host in 0..2000_u32 {
            seen.insert(isid(&host.to_be_bytes(), 3260, "iqn.2026-11.org.example:a"));
        }
        assert_eq!(seen.len(), 2000);
    }

    #[test]
    fn every_limit_can_be_set_by_name_and_says_where_it_is_from() {
        let mut timers = Timers::default();
        for name in Timers::NAMES {
            assert!(timers.set(name, Duration::from_millis(7), "[defaults]"), "{name}");
        }
        assert!(timers.limits().iter().all(|limit| limit.ms == 7 && limit.from == "[defaults]"));
        assert!(!timers.set("patience", Duration::ZERO, "[defaults]"));
        assert!(Timers::default().limits().iter().all(|limit| limit.from == "default"));
    }
}
