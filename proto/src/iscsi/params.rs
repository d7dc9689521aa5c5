//! The keys of RFC 7143 section 13, and how each one is settled.
//!
//! `RULES` is the whole table. A [`Negotiator`] answers a peer's offers by it (the target's
//! half) or judges the peer's answers to our own (the initiator's half).

use super::text::{boolean, boolean_text, list, number, put};
use crate::error::Violation;
use crate::time::Duration;

/// Data segment length in force until the peer declares another (13.12).
pub const SEGMENT_BYTES_DEFAULT: u32 = 8192;
/// The largest value of the burst and segment length keys (13.12 to 13.14).
pub const LENGTH_BYTES_MAX: u32 = 0x00ff_ffff;

/// Whether PDUs carry a CRC32C (13.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Digest {
    /// No digest.
    #[default]
    None,
    /// CRC32C.
    Crc32c,
}

impl Digest {
    const fn text(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Crc32c => "CRC32C",
        }
    }
}

/// What a session is for (13.21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SessionType {
    /// Serves one target.
    #[default]
    Normal,
    /// Only asks which targets there are.
    Discovery,
}

/// What our side offers and takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Header digests we take; as an initiator, most wanted first.
    pub header_digests: Vec<Digest>,
    /// Data digests we take; as an initiator, most wanted first.
    pub data_digests: Vec<Digest>,
    /// MaxRecvDataSegmentLength we declare, bytes.
    pub segment_bytes_max: u32,
    /// MaxBurstLength, bytes.
    pub burst_bytes_max: u32,
    /// FirstBurstLength, bytes.
    pub first_burst_bytes_max: u32,
    /// InitialR2T: true forbids unsolicited Data-Out.
    pub initial_r2t: bool,
    /// ImmediateData: false forbids data inside commands.
    pub immediate_data: bool,
    /// MaxOutstandingR2T.
    pub outstanding_r2t_max: u16,
    /// MaxConnections.
    pub connections_max: u16,
    /// ErrorRecoveryLevel, 0 to 2.
    pub recovery_level_max: u8,
    /// DataPDUInOrder: true insists on it.
    pub data_pdu_in_order: bool,
    /// DataSequenceInOrder: true insists on it.
    pub data_sequence_in_order: bool,
    /// DefaultTime2Wait, seconds; the greater of both sides' counts.
    pub time2wait_s: u16,
    /// DefaultTime2Retain, seconds; the lesser of both sides' counts.
    pub time2retain_s: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_digests: vec![Digest::None, Digest::Crc32c],
            data_digests: vec![Digest::None, Digest::Crc32c],
            segment_bytes_max: 262_144,
            burst_bytes_max: 16_776_192,
            first_burst_bytes_max: 262_144,
            initial_r2t: false,
            immediate_data: true,
            outstanding_r2t_max: 8,
            connections_max: 1,
            recovery_level_max: 0,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            time2wait_s: 2,
            time2retain_s: 0,
        }
    }
}

/// What both sides agreed on; starts as the defaults of section 13.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// Digest of headers.
    pub header_digest: Digest,
    /// Digest of data segments.
    pub data_digest: Digest,
    /// The most the peer takes in one data segment, bytes: our bound when sending.
    pub peer_segment_bytes_max: u32,
    /// The most we take in one data segment, bytes.
    pub segment_bytes_max: u32,
    /// Bound of one solicited burst and one Data-In sequence, bytes.
    pub burst_bytes_max: u32,
    /// Bound of unsolicited data per command, bytes; never above `burst_bytes_max`.
    pub first_burst_bytes_max: u32,
    /// True: every Data-Out needs an R2T.
    pub initial_r2t: bool,
    /// True: commands may carry data.
    pub immediate_data: bool,
    /// R2Ts outstanding per command.
    pub outstanding_r2t_max: u16,
    /// Connections in the session.
    pub connections_max: u16,
    /// ErrorRecoveryLevel.
    pub recovery_level: u8,
    /// Data PDUs of one sequence come at rising offsets.
    pub data_pdu_in_order: bool,
    /// Data sequences come at rising offsets.
    pub data_sequence_in_order: bool,
    /// Seconds before reconnecting.
    pub time2wait_s: u16,
    /// Seconds that tasks survive a lost connection.
    pub time2retain_s: u16,
}

/// Longest wait before recovery for which tasks are kept, seconds. The greater of both sides'
/// numbers counts, so an initiator could ask for an hour of memory.
const TIME2WAIT_S_MAX: u16 = 60;

impl Negotiated {
    /// How long the tasks of a lost connection are kept; zero if they are not. Longer than the
    /// initiator may take (7.15): it counts from when it noticed.
    pub fn retention(&self) -> Duration {
        let keeps = self.recovery_level == 2
            && self.time2retain_s > 0
            && self.time2wait_s <= TIME2WAIT_S_MAX;
        let seconds = u64::from(self.time2wait_s) + u64::from(self.time2retain_s);
        if keeps { Duration::from_secs(seconds) } else { Duration::ZERO }
    }
}

impl Default for Negotiated {
    fn default() -> Self {
        Self {
            header_digest: Digest::None,
            data_digest: Digest::None,
            peer_segment_bytes_max: SEGMENT_BYTES_DEFAULT,
            segment_bytes_max: SEGMENT_BYTES_DEFAULT,
            burst_bytes_max: 262_144,
            first_burst_bytes_max: 65_536,
            initial_r2t: true,
            immediate_data: true,
            outstanding_r2t_max: 1,
            connections_max: 1,
            recovery_level: 0,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            time2wait_s: 2,
            time2retain_s: 20,
        }
    }
}

/// How a key is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The first of the offered list that the other side takes.
    Digest,
    /// The lesser of two numbers in `low..=high`.
    Least(u32, u32),
    /// The greater of two numbers in `low..=high`.
    Greatest(u32, u32),
    /// Yes if both say yes.
    And,
    /// Yes if either says yes.
    Or,
    /// Each side declares its own number in `low..=high`.
    Declared(u32, u32),
    /// Always answered with this word.
    Fixed(&'static str),
    /// TaskReporting: RFC3720 if it is in the list, else Reject.
    Reporting,
}

/// One key of section 13.
struct Rule {
    key: &'static str,
    kind: Kind,
    /// Means something in a discovery session.
    in_discovery: bool,
    /// Only on the first connection of a session.
    leading_only: bool,
}

const fn rule(key: &'static str, kind: Kind, in_discovery: bool, leading_only: bool) -> Rule {
    Rule { key, kind, in_discovery, leading_only }
}

/// Every operational key. Names and addresses (13.4 to 13.9, 13.21) are the login machine's.
const RULES: [Rule; 21] = [
    rule("HeaderDigest", Kind::Digest, true, false),
    rule("DataDigest", Kind::Digest, true, false),
    rule("MaxConnections", Kind::Least(1, 65_535), false, true),
    rule("InitialR2T", Kind::Or, false, true),
    rule("ImmediateData", Kind::And, false, true),
    rule(SEGMENT, Kind::Declared(512, LENGTH_BYTES_MAX), true, false),
    rule("MaxBurstLength", Kind::Least(512, LENGTH_BYTES_MAX), false, true),
    rule("FirstBurstLength", Kind::Least(512, LENGTH_BYTES_MAX), false, true),
    rule("DefaultTime2Wait", Kind::Greatest(0, 3600), true, true),
    rule("DefaultTime2Retain", Kind::Least(0, 3600), true, true),
    rule("MaxOutstandingR2T", Kind::Least(1, 65_535), false, true),
    rule("DataPDUInOrder", Kind::Or, false, true),
    rule("DataSequenceInOrder", Kind::Or, false, true),
    rule("ErrorRecoveryLevel", Kind::Least(0, 2), true, true),
    rule("TaskReporting", Kind::Reporting, false, true),
    rule("iSCSIProtocolLevel", Kind::Least(0, 31), true, true),
    // 13.25: obsolete; these must never be answered with NotUnderstood.
    rule("IFMarker", Kind::Fixed("No"), true, false),
    rule("OFMarker", Kind::Fixed("No"), true, false),
    rule("IFMarkInt", Kind::Fixed("Reject"), true, false),
    rule("OFMarkInt", Kind::Fixed("Reject"), true, false),
    // RFC 5046 keys, which a TCP connection has no use for.
    rule("RDMAExtensions", Kind::Fixed("No"), true, true),
];

/// MaxRecvDataSegmentLength, the one key that both sides declare (13.12).
pub const SEGMENT: &str = "MaxRecvDataSegmentLength";

/// Settles the operational keys of one login.
#[derive(Debug, Clone)]
pub struct Negotiator {
    limits: Limits,
    session: SessionType,
    leading: bool,
    seen: Vec<&'static str>,
    agreed: Negotiated,
}

impl Negotiator {
    /// For a session of this type; `leading` on its first connection.
    pub fn new(limits: Limits, session: SessionType, leading: bool) -> Self {
        Self { limits, session, leading, seen: Vec::new(), agreed: Negotiated::default() }
    }

    /// What is agreed so far.
    pub const fn agreed(&self) -> Negotiated {
        self.agreed
    }

    /// Whether the peer has offered or declared `key`.
    pub fn has_seen(&self, key: &str) -> bool {
        self.seen.contains(&key)
    }

    /// Our answer to the peer's offer of one key, appended to `reply`. Keys that others bound come
    /// after those: see [`rank`].
    ///
    /// # Errors
    /// If the key was offered before in this login, or is only for a session's first connection.
    pub fn answer(&mut self, key: &str, value: &str, reply: &mut Vec<u8>) -> Result<(), Violation> {
        let Some(rule) = RULES.iter().find(|rule| rule.key == key) else {
            put(reply, key, "NotUnderstood");
            return Ok(());
        };
        self.see(rule)?;
        if self.session == SessionType::Discovery && !rule.in_discovery {
            put(reply, key, "Irrelevant");
            return Ok(());
        }
        match self.settle(rule, value) {
            Some(answer) if answer.is_empty() => {}
            // 13.14: it must not exceed MaxBurstLength, whatever was offered.
            Some(_) if rule.key == "FirstBurstLength" => {
                let agreed = &mut self.agreed;
                agreed.first_burst_bytes_max =
                    agreed.first_burst_bytes_max.min(agreed.burst_bytes_max);
                put(reply, key, &agreed.first_burst_bytes_max.to_string());
            }
            // 13.19: recovery within a command knows only the last R2T, if sequences are in order.
            Some(_) if rule.key == "MaxOutstandingR2T" && self.is_last_only() => {
                self.agreed.outstanding_r2t_max = 1;
                put(reply, key, "1");
            }
            Some(answer) => put(reply, key, &answer),
            None => put(reply, key, "Reject"),
        }
        Ok(())
    }

    /// Takes the peer's answer to one of the keys that [`offer`](Self::offer) wrote.
    ///
    /// # Errors
    /// If we offered no such key, it was answered before, or the answer is not one that the
    /// rules allow for what we offered.
    pub fn accept(&mut self, key: &str, value: &str) -> Result<(), Violation> {
        let broken =
            Violation::new("an answer to a text key", "not one of those offered", "RFC 7143 6.2");
        let rule = RULES.iter().find(|rule| rule.key == key).ok_or(broken)?;
        self.see(rule)?;
        if matches!(value, "Reject" | "Irrelevant" | "NotUnderstood") {
            return Ok(());
        }
        let settled = self.settle(rule, value).ok_or(broken)?;
        // Settling an answer that keeps the rules changes nothing of it.
        let same = match (rule.kind, number(&settled), number(value)) {
            (Kind::Declared(..) | Kind::Fixed(_), ..) => true,
            (_, Some(settled), Some(answer)) => settled == answer,
            _ => settled == value,
        };
        if same { Ok(()) } else { Err(broken) }
    }

    /// Writes all the keys an initiator offers (open-iscsi's set, in its order).
    pub fn offer(&self, text: &mut Vec<u8>) {
        let names = |digests: &[Digest]| {
            digests.iter().map(|digest| digest.text()).collect::<Vec<_>>().join(",")
        };
        let limits = &self.limits;
        put(text, "HeaderDigest", &names(&limits.header_digests));
        put(text, "DataDigest", &names(&limits.data_digests));
        if self.leading {
            put(text, "DefaultTime2Wait", &limits.time2wait_s.to_string());
            put(text, "DefaultTime2Retain", &limits.time2retain_s.to_string());
            put(text, "ErrorRecoveryLevel", "0");
        }
        if self.leading && self.session == SessionType::Normal {
            put(text, "InitialR2T", boolean_text(limits.initial_r2t));
            put(text, "ImmediateData", boolean_text(limits.immediate_data));
            put(text, "MaxBurstLength", &limits.burst_bytes_max.to_string());
            put(text, "FirstBurstLength", &limits.first_burst_bytes_max.to_string());
            put(text, "MaxOutstandingR2T", &limits.outstanding_r2t_max.to_string());
            put(text, "MaxConnections", &limits.connections_max.to_string());
            put(text, "DataPDUInOrder", "Yes");
            put(text, "DataSequenceInOrder", "Yes");
        }
        put(text, SEGMENT, &limits.segment_bytes_max.to_string());
    }

    /// The MaxRecvDataSegmentLength we now declare: it binds the peer from its next PDU on.
    pub const fn declare(&mut self) -> u32 {
        self.agreed.segment_bytes_max = self.limits.segment_bytes_max;
        self.limits.segment_bytes_max
    }

    /// The agreement at the end of the login.
    ///
    /// # Errors
    /// If a digest that our side insists on was not agreed.
    pub fn finish(&self) -> Result<Negotiated, Violation> {
        let digests = [
            (&self.limits.header_digests, self.agreed.header_digest),
            (&self.limits.data_digests, self.agreed.data_digest),
        ];
        if digests.iter().any(|(ours, agreed)| !ours.is_empty() && !ours.contains(agreed)) {
            return Err(Violation::new(
                "a login without digest",
                "one is required",
                "RFC 7143 13.1",
            ));
        }
        let mut agreed = self.agreed;
        if self.is_last_only() {
            agreed.outstanding_r2t_max = 1;
        }
        agreed.first_burst_bytes_max = agreed.first_burst_bytes_max.min(agreed.burst_bytes_max);
        Ok(agreed)
    }

    /// See [`rank`]. Where level 2 is on offer, what is agreed bounds DefaultTime2Retain too.
    pub fn rank(&self, key: &str) -> u8 {
        let times = key == "DefaultTime2Retain" && self.limits.recovery_level_max == 2;
        rank(key).max(u8::from(times))
    }

    /// Level 2 was on offer, and less was agreed on.
    fn is_below_what_is_offered(&self) -> bool {
        self.limits.recovery_level_max == 2
            && self.has_seen("ErrorRecoveryLevel")
            && self.agreed.recovery_level < 2
    }

    /// One R2T at a time (13.19).
    const fn is_last_only(&self) -> bool {
        self.agreed.recovery_level > 0 && self.agreed.data_sequence_in_order
    }

    fn see(&mut self, rule: &Rule) -> Result<(), Violation> {
        if self.seen.contains(&rule.key) {
            return Err(Violation::new("a text key", "already negotiated", "RFC 7143 6.3"));
        }
        if rule.leading_only && !self.leading {
            return Err(Violation::new("a text key", "for the leading login only", "RFC 7143 13"));
        }
        self.seen.push(rule.key);
        Ok(())
    }

    /// The value a key takes for the peer's `value`; `None` if that is not a possible one, and
    /// empty if it is a declaration, which has no answer.
    fn settle(&mut self, rule: &Rule, value: &str) -> Option<String> {
        match rule.kind {
            Kind::Digest => self.settle_digest(rule.key, value).map(|d| d.text().into()),
            Kind::Least(low, high) => {
                let result = bounded(value, low, high)?.min(self.our_number(rule.key));
                Some(self.set_number(rule.key, result).to_string())
            }
            Kind::Greatest(low, high) => {
                let result = bounded(value, low, high)?.max(self.our_number(rule.key));
                Some(self.set_number(rule.key, result).to_string())
            }
            Kind::And | Kind::Or => {
                let (ours, theirs) = (self.our_boolean(rule.key), boolean(value)?);
                let result = if rule.kind == Kind::And { ours && theirs } else { ours || theirs };
                match rule.key {
                    "InitialR2T" => self.agreed.initial_r2t = result,
                    "ImmediateData" => self.agreed.immediate_data = result,
                    "DataPDUInOrder" => self.agreed.data_pdu_in_order = result,
                    "DataSequenceInOrder" => self.agreed.data_sequence_in_order = result,
                    _ => {}
                }
                Some(boolean_text(result).into())
            }
            Kind::Declared(low, high) => {
                self.agreed.peer_segment_bytes_max = bounded(value, low, high)?;
                Some(String::new())
            }
            Kind::Fixed(answer) => Some(answer.into()),
            Kind::Reporting => list(value).any(|v| v == "RFC3720").then(|| "RFC3720".into()),
        }
    }

    fn settle_digest(&mut self, key: &str, value: &str) -> Option<Digest> {
        let header = key == "HeaderDigest";
        let ours = if header { &self.limits.header_digests } else { &self.limits.data_digests };
        let digest = list(value)
            .find_map(|name| ours.iter().copied().find(|digest| digest.text() == name))?;
        let agreed =
            if header { &mut self.agreed.header_digest } else { &mut self.agreed.data_digest };
        *agreed = digest;
        Some(digest)
    }

    fn our_number(&self, key: &str) -> u32 {
        match key {
            "MaxConnections" => self.limits.connections_max.into(),
            "MaxBurstLength" => self.limits.burst_bytes_max,
            "FirstBurstLength" => self.limits.first_burst_bytes_max,
            "DefaultTime2Wait" => self.limits.time2wait_s.into(),
            // Below level 2 no task outlives its connection.
            "DefaultTime2Retain" if self.is_below_what_is_offered() => 0,
            "DefaultTime2Retain" => self.limits.time2retain_s.into(),
            "MaxOutstandingR2T" => self.limits.outstanding_r2t_max.into(),
            "iSCSIProtocolLevel" => 1,
            "ErrorRecoveryLevel" if self.session == SessionType::Normal => {
                self.limits.recovery_level_max.into()
            }
            // A discovery session has nothing to recover.
            _ => 0,
        }
    }

    fn set_number(&mut self, key: &str, value: u32) -> u32 {
        let short = u16::try_from(value).unwrap_or(u16::MAX);
        match key {
            "MaxConnections" => self.agreed.connections_max = short,
            "MaxBurstLength" => self.agreed.burst_bytes_max = value,
            "FirstBurstLength" => self.agreed.first_burst_bytes_max = value,
            "DefaultTime2Wait" => self.agreed.time2wait_s = short,
            "DefaultTime2Retain" => self.agreed.time2retain_s = short,
            "MaxOutstandingR2T" => self.agreed.outstanding_r2t_max = short,
            "ErrorRecoveryLevel" => {
                self.agreed.recovery_level = u8::try_from(value).unwrap_or(0);
            }
            // The protocol level has one value that we speak.
            _ => {}
        }
        value
    }

    fn our_boolean(&self, key: &str) -> bool {
        match key {
            "InitialR2T" => self.limits.initial_r2t,
            "ImmediateData" => self.limits.immediate_data,
            "DataPDUInOrder" => self.limits.data_pdu_in_order,
            _ => self.limits.data_sequence_in_order,
        }
    }
}

/// Where a key stands in the order in which keys of one text are settled: those that bound others
/// come before them (13.14, 13.19).
pub fn rank(key: &str) -> u8 {
    u8::from(matches!(key, "FirstBurstLength" | "MaxOutstandingR2T"))
}

/// True for the keys of the table, which belong to the operational stage.
pub fn is_operational(key: &str) -> bool {
    RULES.iter().any(|rule| rule.key == key)
}

/// A MaxRecvDataSegmentLength that a peer may declare, also in the full feature phase.
pub fn segment_bytes(value: &str) -> Option<u32> {
    bounded(value, 512, LENGTH_BYTES_MAX)
}

fn bounded(value: &str, low: u32, high: u32) -> Option<u32> {
    let number = u32::try_from(number(value)?).ok()?;
    (low..=high).contains(&number).then_some(number)
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
