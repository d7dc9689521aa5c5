//! The initiator's half of a login: who we are, and what we would like.
//!
//! With CHAP there are four requests: the method, the algorithm, our proof (and our challenge, if
//! the target is to prove itself too), the operational keys. Without, the first and the last.

use thiserror::Error;

use crate::error::{Malformed, Violation};
use crate::iscsi::chap::{Algorithm, Challenge, Credentials, respond};
use crate::iscsi::params::{Limits, Negotiated, Negotiator, SessionType};
use crate::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Stage, Status};
use crate::iscsi::text::{Accumulator, Keys, binary, binary_text, number, put};

use super::REQUESTS_MAX;

/// How we prove ourselves, and whether the target must.
#[derive(Debug, Clone)]
pub struct Chap {
    /// Algorithms we take, most wanted first.
    pub algorithms: Vec<Algorithm>,
    /// Our name and secret.
    pub ours: Credentials,
    /// The target's; `None` lets any target be right.
    pub theirs: Option<Credentials>,
}

/// What a login is for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Our name.
    pub initiator: String,
    /// The target's name; `None` asks which targets there are.
    pub target: Option<String>,
    /// Our half of the session's identity. A session of the same names and ISID is replaced.
    pub isid: Isid,
    /// Connection ID.
    pub cid: u16,
    /// What we offer and take.
    pub limits: Limits,
    /// Authentication, if any.
    pub chap: Option<Chap>,
}

/// A Login Request and its text, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The header; its `data_len` fits `text`.
    pub request: LoginRequest,
    /// The data segment, without padding.
    pub text: Vec<u8>,
}

/// How a login ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// The target's half of the session's identity.
    pub tsih: u16,
    /// What was agreed.
    pub agreed: Negotiated,
    /// CmdSN of the first command.
    pub cmd_sn: u32,
    /// StatSN expected next.
    pub exp_stat_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Ask(Ask),
    /// Full feature phase.
    Admitted(Box<Admitted>),
}

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The target says no.
    #[error("the target refuses the login with status {:#06x}", .0.code())]
    Status(Status),
    /// The target is elsewhere: its TargetAddress.
    #[error("the target has moved to {0}")]
    Moved(String),
    /// The target does not offer what we need, or did not prove itself.
    #[error("{0}")]
    Security(&'static str),
    /// The bytes are wrong.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The conduct is.
    #[error(transparent)]
    Violation(#[from] Violation),
}

#[derive(Debug)]
enum Expect {
    /// The target's choice of method.
    Method,
    /// The target's challenge.
    Challenge,
    /// The way on, and the target's proof if we asked for it.
    Proof(Option<Challenge>),
    /// Answers to our offers.
    Operational,
}

/// A login under way.
#[derive(Debug)]
pub struct Login {
    options: Options,
    negotiator: Negotiator,
    expect: Expect,
    offered: Vec<u8>,
    gathered: Accumulator,
    stat_sn: Option<u32>,
    requests: u32,
}

/// The number login starts with; any would do.
const CMD_SN: u32 = 1;

impl Login {
    /// A login, and the first request of it.
    pub fn new(options: Options) -> (Self, Ask) {
        let (session, kind) = match options.target {
            Some(_) => (SessionType::Normal, "Normal"),
            None => (SessionType::Discovery, "Discovery"),
        };
        let mut text = Vec::new();
        put(&mut text, "InitiatorName", &options.initiator);
        put(&mut text, "SessionType", kind);
        if let Some(target) = &options.target {
            put(&mut text, "TargetName", target);
        }
        let method = if options.chap.is_some() { "CHAP" } else { "None" };
        put(&mut text, "AuthMethod", method);
        let transit = options.chap.is_none();
        let mut login = Self {
            negotiator: Negotiator::new(options.limits.clone(), session, true),
            options,
            expect: Expect::Method,
            offered: Vec::new(),
            gathered: Accumulator::default(),
            stat_sn: None,
            requests: 0,
        };
        let ask = login.ask(Stage::Security, transit.then_some(Stage::Operational), text);
        (login, ask)
    }

    /// The target's response, and its text. `random` draws our challenge.
    ///
    /// # Errors
    /// Why the login has failed; close the connection.
    pub fn handle(
        &mut self,
        response: &LoginResponse,
        text: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Step, Refusal> {
        let wrong = |why| Violation::new("a Login Response", why, "RFC 7143 11.13");
        if self.stat_sn.is_some_and(|sn| sn.wrapping_add(1) != response.stat_sn) {
            return Err(wrong("its status number is out of order").into());
        }
        self.stat_sn = Some(response.stat_sn);
        if self.requests >= REQUESTS_MAX {
            return Err(wrong("the login goes on for ever").into());
        }
        if response.status.class() > 1 {
            return Err(Refusal::Status(response.status));
        }
        let stage = self.stage();
        let Some(text) = self.gathered.push(text, response.continues)? else {
            return Ok(Step::Ask(self.ask(stage, None, Vec::new())));
        };
        let keys = Keys::parse(&text)?;
        if response.status.class() == 1 {
            let address = keys.value("TargetAddress").unwrap_or("an address it does not tell");
            return Err(Refusal::Moved(address.to_owned()));
        }
        if response.current != stage {
            return Err(wrong("it belongs to another stage").into());
        }
        match std::mem::replace(&mut self.expect, Expect::Operational) {
            Expect::Method => self.method(response, &keys),
            Expect::Challenge => self.challenge(&keys, random),
            Expect::Proof(ours) => self.proof(response, &keys, ours.as_ref()),
            Expect::Operational => self.operational(response, &keys),
        }
    }

    fn stage(&self) -> Stage {
        match self.expect {
            Expect::Operational => Stage::Operational,
            _ => Stage::Security,
        }
    }

    fn method(&mut self, response: &LoginResponse, keys: &Keys<'_>) -> Result<Step, Refusal> {
        let chosen = keys.value("AuthMethod");
        let Some(chap) = &self.options.chap else {
            if chosen.is_some_and(|method| method != "None") {
                return Err(Refusal::Security("the target wants CHAP, and none is set"));
            }
            return self.after_security(response);
        };
        if chosen != Some("CHAP") {
            return Err(Refusal::Security("the target does not take CHAP"));
        }
        let mut text = Vec::new();
        put(&mut text, "CHAP_A", &Algorithm::list(&chap.algorithms));
        self.expect = Expect::Challenge;
        Ok(Step::Ask(self.ask(Stage::Security, None, text)))
    }

    fn challenge(
        &mut self,
        keys: &Keys<'_>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Step, Refusal> {
        let incomplete = Refusal::Security("the target's challenge is incomplete");
        let chap = self.options.chap.as_ref().expect("only CHAP is challenged");
        let value = |key| keys.value(key).ok_or_else(|| incomplete.clone());
        let algorithm = number(value("CHAP_A")?).and_then(Algorithm::from_number);
        let algorithm = algorithm.filter(|algorithm| chap.algorithms.contains(algorithm));
        let identifier = number(value("CHAP_I")?).and_then(|n| u8::try_from(n).ok());
        let bytes = binary(value("CHAP_C")?).filter(|bytes| !bytes.is_empty());
        let (Some(algorithm), Some(identifier), Some(bytes)) = (algorithm, identifier, bytes)
        else {
            return Err(incomplete);
        };
        let mut text = Vec::new();
        put(&mut text, "CHAP_N", &chap.ours.name);
        let proof = respond(algorithm, identifier, &chap.ours.secret, &bytes);
        put(&mut text, "CHAP_R", &binary_text(&proof));
        let ours = chap.theirs.is_some().then(|| Challenge::draw(algorithm, random));
        if let Some(challenge) = &ours {
            put(&mut text, "CHAP_I", &challenge.identifier.to_string());
            put(&mut text, "CHAP_C", &binary_text(&challenge.bytes));
        }
        self.expect = Expect::Proof(ours);
        Ok(Step::Ask(self.ask(Stage::Security, Some(Stage::Operational), text)))
    }

    fn proof(
        &mut self,
        response: &LoginResponse,
        keys: &Keys<'_>,
        ours: Option<&Challenge>,
    ) -> Result<Step, Refusal> {
        let theirs = self.options.chap.as_ref().and_then(|chap| chap.theirs.as_ref());
        if let (Some(challenge), Some(theirs)) = (ours, theirs) {
            let proof = keys.value("CHAP_R").and_then(binary).unwrap_or_default();
            let proven = bool::from(challenge.matches(&theirs.secret, &proof));
            if !proven || keys.value("CHAP_N") != Some(&theirs.name) {
                return Err(Refusal::Security("the target could not prove who it is"));
            }
        }
        self.after_security(response)
    }

    fn after_security(&mut self, response: &LoginResponse) -> Result<Step, Refusal> {
        if !response.transit || response.next != Some(Stage::Operational) {
            return Err(Refusal::Security("the target does not leave the security stage"));
        }
        let mut text = Vec::new();
        self.negotiator.declare();
        self.negotiator.offer(&mut text);
        self.offered.clone_from(&text);
        self.expect = Expect::Operational;
        Ok(Step::Ask(self.ask(Stage::Operational, Some(Stage::FullFeature), text)))
    }

    fn operational(&mut self, response: &LoginResponse, keys: &Keys<'_>) -> Result<Step, Refusal> {
        let mut text = Vec::new();
        let offered = Keys::parse(&self.offered)?;
        for (key, value) in keys.iter() {
            let about_the_target =
                matches!(key, "TargetPortalGroupTag" | "TargetAlias" | "TargetAddress");
            if offered.value(key).is_some() {
                self.negotiator.accept(key, value)?;
            } else if !about_the_target {
                self.negotiator.answer(key, value, &mut text)?;
            }
        }
        if !response.transit || response.next != Some(Stage::FullFeature) || !text.is_empty() {
            return Ok(Step::Ask(self.ask(Stage::Operational, Some(Stage::FullFeature), text)));
        }
        Ok(Step::Admitted(Box::new(Admitted {
            tsih: response.tsih,
            agreed: self.negotiator.finish()?,
            cmd_sn: CMD_SN,
            exp_stat_sn: response.stat_sn.wrapping_add(1),
            max_cmd_sn: response.max_cmd_sn,
        })))
    }

    fn ask(&mut self, current: Stage, next: Option<Stage>, text: Vec<u8>) -> Ask {
        self.requests += 1;
        let request = LoginRequest {
            transit: next.is_some(),
            continues: false,
            current,
            next,
            version_max: 0,
            version_min: 0,
            data_len: u32::try_from(text.len()).expect("our own keys are short"),
            isid: self.options.isid,
            tsih: 0,
            task_tag: 0,
            cid: self.options.cid,
            cmd_sn: CMD_SN,
            exp_stat_sn: self.stat_sn.map_or(0, |sn| sn.wrapping_add(1)),
        };
        Ask { request, text }
    }
}

#[cfg(test)]
#[path = "initiator_tests.rs"]
mod tests;
