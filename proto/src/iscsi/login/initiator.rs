//! The initiator's half of a login.
//!
//! ```text
//! Security: AuthMethod [-> CHAP_A -> CHAP_N, CHAP_R] --> Operational: every offer --> Done
//! ```
//!
//! Drive it: send [`Login::start`], hand every Login Response to [`Login::handle`], send what it
//! asks, until it gives another [`Step`] or a [`Fault`].

use std::collections::VecDeque;

use thiserror::Error;

use super::REQUESTS_MAX;
use crate::error::{Malformed, Violation};
use crate::iscsi::chap::{self, Algorithm, CHALLENGE_BYTES_MAX, Challenge, Credentials, respond};
use crate::iscsi::initiator::Start;
use crate::iscsi::name::Name;
use crate::iscsi::params::{self, Limits, Negotiated, Negotiator, SessionType};
use crate::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage, Status};
use crate::iscsi::text::{self, Accumulator, Keys, VALUE_BYTES_MAX, binary, binary_text, put};

/// Who logs in where, and what it wants.
#[derive(Debug, Clone)]
pub struct Config {
    /// InitiatorName.
    pub initiator: Name,
    /// InitiatorAlias, for people to read.
    pub alias: Option<String>,
    /// TargetName; `None` makes it a discovery session.
    pub target: Option<Name>,
    /// Sessions of one initiator name, ISID and portal group replace each other.
    pub isid: Isid,
    /// Zero for a new session; otherwise the session this connection joins.
    pub tsih: u16,
    /// Connection identifier.
    pub cid: u16,
    /// CmdSN of the session's next command; any number starts a new session.
    pub cmd_sn: u32,
    /// What to offer.
    pub limits: Limits,
    /// How to authenticate. With it, a target that does not ask for CHAP is left again; without,
    /// one that does.
    pub chap: Option<Chap>,
}

/// The initiator's part in CHAP.
#[derive(Debug, Clone)]
pub struct Chap {
    /// What we offer, most wanted first.
    pub algorithms: Vec<Algorithm>,
    /// Who we are.
    pub ours: Credentials,
    /// What the target must prove (mutual CHAP).
    pub theirs: Option<Credentials>,
}

/// A Login Request and its text, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The header; its `data_len` fits `text`.
    pub request: LoginRequest,
    /// The data segment, without padding.
    pub text: Vec<u8>,
}

/// What to do after a Login Response.
#[derive(Debug)]
pub enum Step {
    /// Send; the login goes on.
    Ask(Ask),
    /// We are in.
    Done(Box<Outcome>),
    /// Close, and log in there instead.
    Redirect {
        /// As the target wrote it: `host[:port][,portal group tag]`.
        address: String,
        /// For good, not just for now.
        permanent: bool,
    },
    /// The target will not have us; close.
    Refused(Status),
}

/// How the login left the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The target's handle of the session.
    pub tsih: u16,
    /// Connection identifier.
    pub cid: u16,
    /// TargetPortalGroupTag, if the target said one.
    pub portal_group_tag: Option<u16>,
    /// TargetAlias, if the target has one.
    pub target_alias: Option<String>,
    /// The target proved to know its own secret.
    pub target_proven: bool,
    /// The terms.
    pub agreed: Negotiated,
    /// CmdSN of the next command.
    pub cmd_sn: u32,
    /// MaxCmdSN of the last response.
    pub max_cmd_sn: u32,
    /// StatSN expected next.
    pub exp_stat_sn: u32,
}

impl Outcome {
    /// Where the full feature phase begins.
    pub const fn start(&self) -> Start {
        Start {
            agreed: self.agreed,
            cid: self.cid,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
            max_cmd_sn: self.max_cmd_sn,
        }
    }
}

/// Why we break off a login. Close the connection; the target is told nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// The target's text cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The target broke the rules of the login phase.
    #[error(transparent)]
    Conduct(#[from] Violation),
    /// The target did not authenticate as we insist.
    #[error("authentication failed: {0}")]
    Authentication(&'static str),
    /// More than [`REQUESTS_MAX`] exchanges.
    #[error("the login takes too many requests")]
    TooManyRequests,
}

/// What the security stage waits for.
#[derive(Debug)]
enum Security {
    ExpectMethod,
    ExpectChallenge,
    /// Leave to go on; in mutual CHAP also the response to this challenge of ours.
    ExpectProof(Option<Challenge>),
    Settled {
        target_proven: bool,
    },
}

const SECURITY_KEYS: [&str; 6] = ["AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"];

impl Security {
    const fn expects(&self) -> &'static [&'static str] {
        match self {
            Self::ExpectMethod => &["AuthMethod"],
            Self::ExpectChallenge => &["CHAP_A", "CHAP_I", "CHAP_C"],
            Self::ExpectProof(Some(_)) => &["CHAP_N", "CHAP_R"],
            Self::ExpectProof(None) | Self::Settled { .. } => &[],
        }
    }
}

/// One login on one connection.
#[derive(Debug)]
pub struct Login {
    config: Config,
    stage: Stage,
    security: Security,
    negotiator: Negotiator,
    /// The operational keys we offered, as sent.
    offered: Vec<u8>,
    /// The last request; what the response must fit.
    asked: LoginRequest,
    requests: u32,
    text: Accumulator,
    /// Pieces of a long request, yet to be sent.
    pieces: VecDeque<Vec<u8>>,
    portal_group_tag: Option<u16>,
    target_alias: Option<String>,
    ended: bool,
}

impl Login {
    /// A login that has not begun.
    ///
    /// # Errors
    /// If a text of `config` cannot be sent, CHAP has no algorithm, or one secret serves in both
    /// directions (RFC 7143 9.2.1).
    pub fn new(config: Config) -> Result<Self, Violation> {
        let texts = config.alias.iter().chain(config.chap.iter().map(|chap| &chap.ours.name));
        if texts.into_iter().any(|text| text.len() > VALUE_BYTES_MAX || text.contains('\0')) {
            return Err(Violation::new("an alias or CHAP name", "not 255 bytes", "RFC 7143 6.1"));
        }
        if let Some(chap) = &config.chap {
            chap.check()?;
        }
        let session =
            if config.target.is_some() { SessionType::Normal } else { SessionType::Discovery };
        let negotiator = Negotiator::new(config.limits.clone(), session, config.tsih == 0);
        let asked = LoginRequest {
            transit: false,
            continues: false,
            current: Stage::Security,
            next: None,
            version_max: 0,
            version_min: 0,
            data_len: 0,
            isid: config.isid,
            tsih: config.tsih,
            task_tag: 0,
            cid: config.cid,
            cmd_sn: config.cmd_sn,
            exp_stat_sn: 0,
        };
        Ok(Self {
            config,
            stage: Stage::Security,
            security: Security::ExpectMethod,
            negotiator,
            offered: Vec::new(),
            asked,
            requests: 0,
            text: Accumulator::default(),
            pieces: VecDeque::new(),
            portal_group_tag: None,
            target_alias: None,
            ended: false,
        })
    }

    /// The first request. Call it once, before anything else.
    pub fn start(&mut self) -> Ask {
        let mut text = Vec::new();
        put(&mut text, "InitiatorName", self.config.initiator.as_str());
        if let Some(alias) = &self.config.alias {
            put(&mut text, "InitiatorAlias", alias);
        }
        match &self.config.target {
            Some(target) => {
                put(&mut text, "TargetName", target.as_str());
                put(&mut text, "SessionType", "Normal");
            }
            None => put(&mut text, "SessionType", "Discovery"),
        }
        put(&mut text, "AuthMethod", self.method());
        self.ask(&text)
    }

    /// Takes one Login Response with its data segment (padding cut off). `random` fills a slice
    /// with unpredictable bytes.
    ///
    /// # Errors
    /// If the target breaks the rules or does not prove itself; the login is then over.
    pub fn handle(
        &mut self,
        response: &LoginResponse,
        text: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Step, Fault> {
        let step = self.step(response, text, random);
        self.ended |= !matches!(step, Ok(Step::Ask(_)));
        step
    }

    fn step(
        &mut self,
        response: &LoginResponse,
        text: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Step, Fault> {
        if self.ended {
            return Err(conduct("the login is over"));
        }
        match response.status.class() {
            0 => self.check_header(response)?,
            1 => return redirect(response.status, text),
            2 | 3 => return Ok(Step::Refused(response.status)),
            _ => return Err(conduct("an unknown status class")),
        }
        self.asked.exp_stat_sn = response.stat_sn.wrapping_add(1);
        if self.requests >= REQUESTS_MAX {
            return Err(Fault::TooManyRequests);
        }
        if let Some(piece) = self.pieces.pop_front() {
            if !text.is_empty() || response.continues || response.transit {
                return Err(conduct("an answer before our long request has ended"));
            }
            return Ok(Step::Ask(self.send(piece)));
        }
        let Some(whole) = self.text.push(text, response.continues)? else {
            return Ok(Step::Ask(self.send(Vec::new())));
        };
        let mut answer = Vec::new();
        self.hear(&Keys::parse(&whole)?, random, &mut answer)?;
        match response.next {
            None => Ok(Step::Ask(self.ask(&answer))),
            Some(Stage::FullFeature) => self.finish(response, &answer),
            Some(_) => self.enter_operational(answer),
        }
    }

    fn check_header(&self, response: &LoginResponse) -> Result<(), Fault> {
        let asked = &self.asked;
        if (response.task_tag, response.isid) != (asked.task_tag, asked.isid) {
            return Err(conduct("another task tag or ISID than in the request"));
        }
        if response.version_active != 0 {
            return Err(conduct("a version we did not offer"));
        }
        if response.current != self.stage {
            return Err(conduct("not the stage of the request"));
        }
        if response.transit && response.next != asked.next {
            return Err(conduct("a change of stage we did not ask for"));
        }
        Ok(())
    }

    /// Takes every key of one whole text, and writes our answers.
    fn hear(
        &mut self,
        keys: &Keys<'_>,
        random: &mut dyn FnMut(&mut [u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        for (key, value) in keys.iter() {
            match key {
                "TargetPortalGroupTag" => {
                    let tag = text::number(value).and_then(|tag| u16::try_from(tag).ok());
                    self.portal_group_tag = Some(tag.ok_or(conduct("no portal group tag"))?);
                }
                "TargetAlias" => self.target_alias = Some(value.to_owned()),
                // Says something only together with a redirection.
                "TargetAddress" => {}
                _ if SECURITY_KEYS.contains(&key) => {
                    if self.stage != Stage::Security || !self.security.expects().contains(&key) {
                        return Err(conduct("a security key out of turn"));
                    }
                }
                // A declaration is taken at any time; all else waits for our offers.
                _ if self.stage == Stage::Security
                    && params::is_operational(key)
                    && key != params::SEGMENT =>
                {
                    return Err(conduct("an operational key before we offered any"));
                }
                _ if self.is_offered(key) => self.negotiator.accept(key, value)?,
                _ if matches!(value, "Reject" | "Irrelevant" | "NotUnderstood") => {
                    return Err(conduct("an answer to what we did not offer"));
                }
                // The target's own offer.
                _ => self.negotiator.answer(key, value, answer)?,
            }
        }
        if self.stage == Stage::Security {
            self.authenticate(keys, random, answer)?;
        }
        Ok(())
    }

    fn is_offered(&self, key: &str) -> bool {
        Keys::parse(&self.offered).is_ok_and(|offered| offered.value(key).is_some())
    }

    /// All that is ever offered: who has a secret insists on using it.
    const fn method(&self) -> &'static str {
        if self.config.chap.is_some() { "CHAP" } else { "None" }
    }

    fn authenticate(
        &mut self,
        keys: &Keys<'_>,
        random: &mut dyn FnMut(&mut [u8]),
        answer: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        const NO_PROOF: Security = Security::Settled { target_proven: false };
        match (&self.security, &self.config.chap) {
            (Security::ExpectMethod, chap) => {
                // Where we offer nothing else, silence is consent.
                let silence = if chap.is_none() { "None" } else { "" };
                if keys.value("AuthMethod").unwrap_or(silence) != self.method() {
                    return fail("the target did not take the method that we offered");
                }
                self.security = match chap {
                    None => NO_PROOF,
                    Some(chap) => {
                        put(answer, "CHAP_A", &Algorithm::list(&chap.algorithms));
                        Security::ExpectChallenge
                    }
                };
            }
            (Security::ExpectChallenge, Some(chap)) => {
                let challenge = chap.answer(keys, random, answer)?;
                self.security = Security::ExpectProof(challenge);
            }
            (Security::ExpectProof(None), _) => self.security = NO_PROOF,
            (Security::ExpectProof(Some(challenge)), Some(chap)) => {
                let response = keys.value("CHAP_R").and_then(binary);
                let (Some(name), Some(response)) = (keys.value("CHAP_N"), response) else {
                    return fail("the target does not prove itself");
                };
                if !chap.policy().proves(challenge, name, &response) {
                    return fail("wrong name or secret of the target");
                }
                self.security = Security::Settled { target_proven: true };
            }
            // Settled; and without CHAP nothing else is ever expected.
            _ => {}
        }
        Ok(())
    }

    fn enter_operational(&mut self, mut answer: Vec<u8>) -> Result<Step, Fault> {
        if !matches!(self.security, Security::Settled { .. }) {
            return fail("the target left the security stage too early");
        }
        self.stage = Stage::Operational;
        self.negotiator.declare();
        self.negotiator.offer(&mut self.offered);
        answer.extend_from_slice(&self.offered);
        Ok(Step::Ask(self.ask(&answer)))
    }

    fn finish(&self, response: &LoginResponse, unsaid: &[u8]) -> Result<Step, Fault> {
        if !unsaid.is_empty() {
            return Err(conduct("an offer in the last response"));
        }
        let ours = self.config.tsih;
        if response.tsih == 0 || (ours != 0 && ours != response.tsih) {
            return Err(conduct("no TSIH of ours in the last response"));
        }
        Ok(Step::Done(Box::new(Outcome {
            tsih: response.tsih,
            cid: self.config.cid,
            portal_group_tag: self.portal_group_tag,
            target_alias: self.target_alias.clone(),
            target_proven: matches!(self.security, Security::Settled { target_proven: true }),
            agreed: self.negotiator.finish()?,
            cmd_sn: self.config.cmd_sn,
            max_cmd_sn: response.max_cmd_sn,
            exp_stat_sn: self.asked.exp_stat_sn,
        })))
    }

    /// A request with the whole of `text`, or with its first piece.
    fn ask(&mut self, text: &[u8]) -> Ask {
        let segment = self.negotiator.agreed().peer_segment_bytes_max as usize;
        self.pieces = text.chunks(segment).map(<[u8]>::to_vec).collect();
        let first = self.pieces.pop_front().unwrap_or_default();
        self.send(first)
    }

    fn send(&mut self, text: Vec<u8>) -> Ask {
        self.requests += 1;
        let ready = match (self.stage, &self.security) {
            (Stage::Security, Security::ExpectMethod) => self.config.chap.is_none(),
            (Stage::Security, Security::ExpectChallenge) => false,
            _ => true,
        };
        let next =
            if self.stage == Stage::Security { Stage::Operational } else { Stage::FullFeature };
        let request = &mut self.asked;
        request.continues = !self.pieces.is_empty();
        request.transit = ready && !request.continues;
        request.current = self.stage;
        request.next = request.transit.then_some(next);
        request.data_len = u32::try_from(text.len()).expect("our requests are below 16 MiB");
        Ask { request: *request, text }
    }
}

impl Chap {
    fn check(&self) -> Result<(), Violation> {
        if self.theirs.is_some() {
            return self.policy().check();
        }
        if self.algorithms.is_empty() {
            return Err(Violation::new("CHAP", "no algorithm is set", "RFC 7143 12.1.3"));
        }
        Ok(())
    }

    /// The policy by which the target's proof is judged.
    fn policy(&self) -> chap::Policy {
        chap::Policy {
            algorithms: self.algorithms.clone(),
            incoming: self.theirs.iter().cloned().collect(),
            outgoing: Some(self.ours.clone()),
        }
    }

    /// Proves who we are, and in mutual CHAP draws a challenge for the target.
    fn answer(
        &self,
        keys: &Keys<'_>,
        random: &mut dyn FnMut(&mut [u8]),
        answer: &mut Vec<u8>,
    ) -> Result<Option<Challenge>, Fault> {
        let number = |key| keys.value(key).and_then(text::number);
        let algorithm = number("CHAP_A").and_then(Algorithm::from_number);
        let Some(algorithm) = algorithm.filter(|chosen| self.algorithms.contains(chosen)) else {
            return fail("the target took no CHAP algorithm that we offered");
        };
        let identifier = number("CHAP_I").and_then(|number| u8::try_from(number).ok());
        let theirs = keys.value("CHAP_C").and_then(binary);
        let (Some(identifier), Some(theirs)) = (identifier, theirs) else {
            return fail("CHAP_I or CHAP_C is missing or no value");
        };
        if theirs.len() > CHALLENGE_BYTES_MAX {
            return fail("a challenge of more than 1024 bytes");
        }
        let response = respond(algorithm, identifier, &self.ours.secret, &theirs);
        put(answer, "CHAP_N", &self.ours.name);
        put(answer, "CHAP_R", &binary_text(&response));
        if self.theirs.is_none() {
            return Ok(None);
        }
        let challenge = Challenge::draw(algorithm, random);
        // 9.2.1 forbids it; only a broken source of randomness could bring it about.
        if challenge.bytes == *theirs {
            return fail("the target's challenge is the one we drew");
        }
        put(answer, "CHAP_I", &challenge.identifier.to_string());
        put(answer, "CHAP_C", &binary_text(&challenge.bytes));
        Ok(Some(challenge))
    }
}

/// A status of class 1 must say where the target is (11.13.5).
fn redirect(status: Status, text: &[u8]) -> Result<Step, Fault> {
    let address = Keys::parse(text)?.value("TargetAddress").map(str::to_owned);
    let address = address.ok_or(conduct("a redirection to nowhere"))?;
    Ok(Step::Redirect { address, permanent: status == Status::MOVED_PERMANENTLY })
}

const fn conduct(why: &'static str) -> Fault {
    Fault::Conduct(Violation::new("a Login Response", why, "RFC 7143 6.3"))
}

const fn fail<T>(why: &'static str) -> Result<T, Fault> {
    Err(Fault::Authentication(why))
}
