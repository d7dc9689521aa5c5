//! The target's half of a login.
//!
//! ```text
//! ExpectFirst --InitiatorName, TargetName--> Security --authenticated--> Operational --> Ended
//!      \___ only where no authentication is asked for ________________________^
//! ```
//!
//! Every refusal is a [`Fault`]; [`Fault::status`] is the whole table of what goes on the wire.

use std::collections::VecDeque;

use super::directory::{Access, Directory, Grant};
use super::fault::Fault;
use super::{REQUESTS_MAX, Reply};
use crate::error::Violation;
use crate::iscsi::chap::{self, Algorithm, Challenge};
use crate::iscsi::name::Name;
use crate::iscsi::params::{self, Digest, Limits, Negotiated, Negotiator, SessionType};
use crate::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage, Status};
use crate::iscsi::text::{self, Accumulator, Keys, binary, binary_text, put};

/// What the upper layer decides on once all is agreed.
#[derive(Debug, Clone)]
pub struct Admission {
    /// What the session is for.
    pub session: SessionType,
    /// InitiatorName.
    pub initiator: Name,
    /// InitiatorAlias.
    pub initiator_alias: Option<String>,
    /// TargetName; `None` for discovery.
    pub target: Option<Name>,
    /// TargetPortalGroupTag.
    pub portal_group_tag: u16,
    /// Initiator's part of the session identity.
    pub isid: Isid,
    /// Zero: a new session, which reinstates an old one of the same names, ISID and group tag.
    /// Otherwise: this connection wants to join, or be reinstated in, the session of this TSIH.
    pub tsih: u16,
    /// Connection identifier.
    pub cid: u16,
    /// CHAP_N that was proven.
    pub authenticated_as: Option<String>,
    /// The terms.
    pub agreed: Negotiated,
    /// StatSN of the first response after the login.
    pub stat_sn: u32,
    /// CmdSN of the first command after the login.
    pub exp_cmd_sn: u32,
}

/// What to do after a Login Request.
#[derive(Debug)]
pub enum Step {
    /// Send; the login goes on.
    Reply(Reply),
    /// All is agreed. Fence any session this one replaces, then call [`Login::finish`] or
    /// [`Login::refuse`].
    Admit(Box<Admission>),
    /// Send, then close. The fault is for the log.
    Refuse(Reply, Fault),
}

/// One login on one connection.
#[derive(Debug)]
pub struct Login {
    limits: Limits,
    command_window: u32,
    requests: u32,
    stat_sn: u32,
    /// The request being answered; the first one fixes what may not change.
    last: Option<LoginRequest>,
    stage: Stage,
    text: Accumulator,
    /// Pieces of a long reply, yet to be asked for.
    pieces: VecDeque<Vec<u8>>,
    /// Known from the first whole text on.
    peer: Option<Peer>,
    /// The last reply, while the upper layer decides; none once ended.
    ending: Option<Reply>,
    ended: bool,
}

/// Who logs in, and how far it is.
#[derive(Debug)]
struct Peer {
    session: SessionType,
    initiator: Name,
    alias: Option<String>,
    target: Option<Name>,
    grant: Grant,
    security: Security,
    negotiator: Negotiator,
    declared: bool,
    /// The naming keys as sent: they may be said again, but not changed.
    said: Vec<(String, String)>,
}

/// What the security stage waits for.
#[derive(Debug)]
enum Security {
    ExpectMethod,
    ExpectAlgorithm,
    ExpectResponse(Challenge),
    /// Let in as it is.
    Open,
    /// CHAP_N that was proven.
    Proven(String),
}

impl Security {
    const fn expects(&self) -> &'static [&'static str] {
        match self {
            Self::ExpectMethod => &["AuthMethod"],
            Self::ExpectAlgorithm => &["CHAP_A"],
            Self::ExpectResponse(_) => &["CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"],
            Self::Open | Self::Proven(_) => &[],
        }
    }
}

const SECURITY_KEYS: [&str; 6] = ["AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"];
const NAMING_KEYS: [&str; 4] = ["InitiatorName", "InitiatorAlias", "TargetName", "SessionType"];
const TARGETS_KEYS: [&str; 4] =
    ["TargetAlias", "TargetAddress", "TargetPortalGroupTag", "SendTargets"];

/// DefaultTime2Retain where recovery level 2 is on offer: the default of RFC 7143 13.16.
const TIME2RETAIN_S: u16 = 20;

impl Login {
    /// A login that has not begun. `command_window` commands may follow it at once.
    pub fn new(limits: Limits, command_window: u32) -> Self {
        Self {
            limits,
            command_window,
            requests: 0,
            stat_sn: 0,
            last: None,
            stage: Stage::Security,
            text: Accumulator::default(),
            pieces: VecDeque::new(),
            peer: None,
            ending: None,
            ended: false,
        }
    }

    /// Takes one Login Request with its data segment (padding cut off). `random` fills a slice
    /// with unpredictable bytes.
    pub fn handle(
        &mut self,
        request: &LoginRequest,
        text: &[u8],
        directory: &dyn Directory,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Step {
        let checked = self.check_header(request);
        if self.last.is_none() {
            self.stat_sn = request.exp_stat_sn;
            self.stage = request.current;
        }
        self.last = Some(*request);
        let step = checked.and_then(|()| self.step(request, text, directory, random));
        step.unwrap_or_else(|fault| self.refuse_as(request, fault))
    }

    /// The final response, after [`Step::Admit`]. `tsih` is the session's, never zero.
    ///
    /// # Panics
    /// If the last step was not [`Step::Admit`].
    pub fn finish(&mut self, tsih: u16) -> Reply {
        let mut reply = self.ending.take().expect("finish follows Admit");
        reply.response.tsih = tsih;
        reply
    }

    /// Refuses after [`Step::Admit`], for reasons only the upper layer knows:
    /// [`Status::SESSION_DOES_NOT_EXIST`], [`Status::TOO_MANY_CONNECTIONS`] and the like.
    ///
    /// # Panics
    /// If the last step was not [`Step::Admit`].
    pub fn refuse(&mut self, status: Status) -> Reply {
        let mut reply = self.ending.take().expect("refuse follows Admit");
        let response = &mut reply.response;
        (response.status, response.transit, response.next) = (status, false, None);
        response.data_len = 0;
        reply.text.clear();
        reply
    }

    fn check_header(&mut self, request: &LoginRequest) -> Result<(), Fault> {
        let conduct =
            |why| Fault::Conduct(Violation::new("a Login Request", why, "RFC 7143 11.12"));
        self.requests += 1;
        if self.ended {
            return Err(conduct("the login is over"));
        }
        if self.requests > REQUESTS_MAX {
            return Err(Fault::TooManyRequests);
        }
        if request.version_min > 0 {
            return Err(Fault::Version);
        }
        let Some(last) = &self.last else { return Ok(()) };
        let identity = |r: &LoginRequest| (r.isid, r.tsih, r.cid, r.task_tag);
        if identity(request) != identity(last) {
            return Err(conduct("ISID, TSIH, CID or task tag changed"));
        }
        if request.current != self.stage {
            return Err(conduct("not the stage that was agreed"));
        }
        Ok(())
    }

    fn step(
        &mut self,
        request: &LoginRequest,
        text: &[u8],
        directory: &dyn Directory,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Step, Fault> {
        if let Some(piece) = self.pieces.pop_front() {
            if !text.is_empty() || request.continues {
                let why = "text before our long answer has ended";
                return Err(Violation::new("a Login Request", why, "RFC 7143 6.2").into());
            }
            return self.send(request, piece);
        }
        let Some(whole) = self.text.push(text, request.continues).map_err(|_| Fault::TooLong)?
        else {
            return Ok(Step::Reply(self.reply(request, Vec::new())));
        };
        let keys = Keys::parse(&whole)?;
        let mut answer = Vec::new();
        let mut peer = match self.peer.take() {
            Some(peer) => peer,
            None => Peer::meet(request, &keys, directory, &self.limits, &mut answer)?,
        };
        peer.answer(request.current, request.transit, &keys, random, &mut answer)?;
        let segment = peer.negotiator.agreed().peer_segment_bytes_max as usize;
        self.peer = Some(peer);
        self.pieces = answer.chunks(segment).map(<[u8]>::to_vec).collect();
        let first = self.pieces.pop_front().unwrap_or_default();
        self.send(request, first)
    }

    /// Sends one piece of an answer; with the last one the stage may change.
    fn send(&mut self, request: &LoginRequest, piece: Vec<u8>) -> Result<Step, Fault> {
        let more = !self.pieces.is_empty();
        let may_leave = self.peer.as_ref().is_some_and(|peer| peer.may_leave(self.stage));
        let next = request.next.filter(|_| !more && may_leave);
        let mut reply = self.reply(request, piece);
        reply.response.continues = more;
        reply.response.transit = next.is_some();
        reply.response.next = next;
        let Some(next) = next else { return Ok(Step::Reply(reply)) };
        self.stage = next;
        if next != Stage::FullFeature {
            return Ok(Step::Reply(reply));
        }
        self.ended = true;
        let peer = self.peer.take().expect("may_leave looked at it");
        let admission = peer.admission(request, self.stat_sn)?;
        self.ending = Some(reply);
        Ok(Step::Admit(Box::new(admission)))
    }

    fn reply(&mut self, request: &LoginRequest, text: Vec<u8>) -> Reply {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.wrapping_add(1);
        let window = self.command_window.saturating_sub(1);
        let response = LoginResponse {
            transit: false,
            continues: false,
            current: request.current,
            next: None,
            version_max: 0,
            version_active: 0,
            data_len: u32::try_from(text.len()).expect("our answers are below 16 MiB"),
            isid: request.isid,
            tsih: request.tsih,
            task_tag: request.task_tag,
            stat_sn,
            exp_cmd_sn: request.cmd_sn,
            max_cmd_sn: request.cmd_sn.wrapping_add(window),
            status: Status::SUCCESS,
        };
        Reply { response, text }
    }

    fn refuse_as(&mut self, request: &LoginRequest, fault: Fault) -> Step {
        self.ended = true;
        let mut text = Vec::new();
        if let Fault::Redirect { address, .. } = &fault {
            put(&mut text, "TargetAddress", address);
        }
        let mut reply = self.reply(request, text);
        reply.response.status = fault.status();
        Step::Refuse(reply, fault)
    }
}

impl Peer {
    /// Reads the names in the first text, which must be there (6.3.1), and asks the directory.
    fn meet(
        request: &LoginRequest,
        keys: &Keys<'_>,
        directory: &dyn Directory,
        limits: &Limits,
        answer: &mut Vec<u8>,
    ) -> Result<Self, Fault> {
        let name = keys.value("InitiatorName").ok_or(Fault::Missing("InitiatorName"))?;
        let initiator: Name = name.parse()?;
        let session = match keys.value("SessionType") {
            None | Some("Normal") => SessionType::Normal,
            Some("Discovery") => SessionType::Discovery,
            Some(_) => return Err(Fault::SessionType),
        };
        let (target, access) = if session == SessionType::Discovery {
            (None, directory.discovery(&initiator))
        } else {
            let name = keys.value("TargetName").ok_or(Fault::Missing("TargetName"))?;
            let target: Name = name.parse().map_err(|_| Fault::NotFound)?;
            let access = directory.target(&target, &initiator);
            (Some(target), access)
        };
        let grant = match access {
            Access::Granted(grant) => grant,
            Access::NotFound => return Err(Fault::NotFound),
            Access::Forbidden => return Err(Fault::Forbidden),
            Access::Removed => return Err(Fault::Removed),
            Access::Busy => return Err(Fault::Busy),
            Access::Redirect { address, permanent } => {
                return Err(Fault::Redirect { address, permanent });
            }
        };
        if grant.authentication.is_some() && request.current != Stage::Security {
            return Err(Fault::Authentication("the security stage was skipped"));
        }
        if target.is_some() {
            put(answer, "TargetPortalGroupTag", &grant.portal_group_tag.to_string());
            if let Some(alias) = &grant.alias {
                put(answer, "TargetAlias", alias);
            }
        }
        let terms = terms(limits, &grant);
        let security = match grant.authentication {
            None if request.current != Stage::Security => Security::Open,
            _ => Security::ExpectMethod,
        };
        Ok(Self {
            session,
            initiator,
            alias: keys.value("InitiatorAlias").map(str::to_owned),
            target,
            grant,
            security,
            negotiator: Negotiator::new(terms, session, request.tsih == 0),
            declared: false,
            said: Vec::new(),
        })
    }

    fn answer(
        &mut self,
        stage: Stage,
        transit: bool,
        keys: &Keys<'_>,
        random: &mut dyn FnMut(&mut [u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let stray = |why| Fault::Conduct(Violation::new("a text key", why, "RFC 7143 6.3"));
        let mut terms = Vec::new();
        let mut rejected = false;
        for (key, value) in keys.iter() {
            if NAMING_KEYS.contains(&key) {
                self.hear(key, value)?;
            } else if TARGETS_KEYS.contains(&key) {
                return Err(stray("not the initiator's to send in a login"));
            } else if SECURITY_KEYS.contains(&key) {
                if stage != Stage::Security || !self.security.expects().contains(&key) {
                    return Err(stray("not at this point of the authentication"));
                }
            } else {
                // Operational keys do not belong in the security stage. Yet they do no harm
                // there: nothing that is agreed counts until the login is through.
                terms.push((key, value));
            }
        }
        terms.sort_by_key(|&(key, _)| self.negotiator.rank(key));
        for (key, value) in terms {
            let before = answer.len();
            self.negotiator.answer(key, value, answer)?;
            // A good declaration needs no answer. Where theirs is rejected, ours has to wait:
            // a key stands once in a text.
            rejected |= key == params::SEGMENT && answer.len() > before;
        }
        if stage == Stage::Security {
            self.authenticate(transit, keys, random, answer)?;
        } else if !rejected && !core::mem::replace(&mut self.declared, true) {
            put(answer, params::SEGMENT, &self.negotiator.declare().to_string());
        }
        Ok(())
    }

    /// Naming keys may be said again with the same value (libiscsi does so in the operational
    /// stage). Said late or changed, they would slip past the directory.
    fn hear(&mut self, key: &str, value: &str) -> Result<(), Fault> {
        match self.said.iter().find(|(other, _)| other == key) {
            Some((_, said)) if said != value => {
                Err(Violation::new("a name", "changed during the login", "RFC 7143 6.3").into())
            }
            Some(_) => Ok(()),
            None => {
                self.said.push((key.to_owned(), value.to_owned()));
                let said_late = match key {
                    "TargetName" => {
                        self.target.as_ref().is_some_and(|t| value.parse().as_ref() != Ok(t))
                    }
                    "SessionType" => (value == "Discovery") != (self.target.is_none()),
                    _ => false,
                };
                if said_late {
                    let why = "not said in the first request";
                    return Err(Violation::new("a name", why, "RFC 7143 6.3.1").into());
                }
                Ok(())
            }
        }
    }

    fn authenticate(
        &mut self,
        transit: bool,
        keys: &Keys<'_>,
        random: &mut dyn FnMut(&mut [u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let fail = |why| Err(Fault::Authentication(why));
        match (&self.security, &self.grant.authentication) {
            (Security::ExpectMethod, policy) => {
                let wanted = if policy.is_some() { "CHAP" } else { "None" };
                match keys.value("AuthMethod") {
                    Some(offer) if text::list(offer).any(|method| method == wanted) => {
                        put(answer, "AuthMethod", wanted);
                    }
                    Some(_) => return fail("no common method"),
                    None if policy.is_some() && transit => return fail("none was offered"),
                    None => return Ok(()),
                }
                self.security =
                    if policy.is_some() { Security::ExpectAlgorithm } else { Security::Open };
            }
            (Security::ExpectAlgorithm, Some(policy)) => {
                let offer = keys.value("CHAP_A").unwrap_or_default();
                let Some(algorithm) = Algorithm::choose(&policy.algorithms, offer) else {
                    return fail("no common CHAP algorithm");
                };
                let challenge = Challenge::draw(algorithm, random);
                put(answer, "CHAP_A", &algorithm.number().to_string());
                put(answer, "CHAP_I", &challenge.identifier.to_string());
                put(answer, "CHAP_C", &binary_text(&challenge.bytes));
                self.security = Security::ExpectResponse(challenge);
            }
            (Security::ExpectResponse(challenge), Some(policy)) => {
                let name = prove(policy, challenge, keys, answer)?;
                self.security = Security::Proven(name);
            }
            // Open and proven: nothing left to do. The others always have a policy.
            _ => {}
        }
        Ok(())
    }

    fn may_leave(&self, stage: Stage) -> bool {
        stage != Stage::Security
            || self.grant.authentication.is_none()
            || matches!(self.security, Security::Proven(_))
    }

    fn admission(self, request: &LoginRequest, stat_sn: u32) -> Result<Admission, Fault> {
        Ok(Admission {
            session: self.session,
            agreed: self.negotiator.finish()?,
            initiator: self.initiator,
            initiator_alias: self.alias,
            target: self.target,
            portal_group_tag: self.grant.portal_group_tag,
            isid: request.isid,
            tsih: request.tsih,
            cid: request.cid,
            authenticated_as: match self.security {
                Security::Proven(name) => Some(name),
                _ => None,
            },
            stat_sn,
            exp_cmd_sn: request.cmd_sn,
        })
    }
}

/// What our side offers, within what the target lets an initiator ask for.
fn terms(limits: &Limits, grant: &Grant) -> Limits {
    let mut terms = limits.clone();
    terms.connections_max = grant.terms.connections_max;
    terms.recovery_level_max = grant.terms.recovery_level_max;
    if terms.recovery_level_max == 2 {
        terms.time2retain_s = TIME2RETAIN_S;
    }
    let required = grant.digests_required;
    for (required, digests) in
        [(required.header, &mut terms.header_digests), (required.data, &mut terms.data_digests)]
    {
        if required {
            digests.retain(|digest| *digest != Digest::None);
        }
    }
    terms
}

/// Judges the initiator's CHAP response and, if it asks, proves ourselves. Gives its CHAP_N.
fn prove(
    policy: &chap::Policy,
    challenge: &Challenge,
    keys: &Keys<'_>,
    answer: &mut Vec<u8>,
) -> Result<String, Fault> {
    let fail = |why| Err(Fault::Authentication(why));
    let (Some(name), Some(response)) =
        (keys.value("CHAP_N"), keys.value("CHAP_R").and_then(binary))
    else {
        return fail("CHAP_N or CHAP_R is missing or no value");
    };
    if !policy.proves(challenge, name, &response) {
        return fail("wrong name or secret");
    }
    let (identifier, theirs) = match (keys.value("CHAP_I"), keys.value("CHAP_C")) {
        (None, None) => return Ok(name.to_owned()),
        (Some(identifier), Some(theirs)) => (identifier, theirs),
        _ => return fail("CHAP_I and CHAP_C go together"),
    };
    let Some(ours) = &policy.outgoing else {
        return fail("we have nothing to prove ourselves with");
    };
    let identifier = text::number(identifier).and_then(|n| u8::try_from(n).ok());
    let (Some(identifier), Some(theirs)) = (identifier, binary(theirs)) else {
        return fail("CHAP_I or CHAP_C is no value");
    };
    let Ok(proof) = challenge.answer(identifier, &theirs, &ours.secret) else {
        return fail("a reflected or unsound challenge");
    };
    put(answer, "CHAP_N", &ours.name);
    put(answer, "CHAP_R", &binary_text(&proof));
    Ok(name.to_owned())
}
