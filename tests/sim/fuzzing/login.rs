//! The target's half of a login, with any requests and texts, and with a client that can prove
//! itself when the script says so.
//!
//! Nobody is admitted to a target that asks for CHAP without the right proof, nor by a refused
//! login, nor to more connections or another recovery level than the target's terms; who is sent
//! elsewhere is told where. Answers fit the initiator's limit, count StatSN and can be read.

use corbel_proto::iscsi::chap::{Algorithm, Credentials, Policy, Secret, respond};
use corbel_proto::iscsi::login::REQUESTS_MAX;
use corbel_proto::iscsi::login::directory::{Access, Directory, Grant, Terms};
use corbel_proto::iscsi::login::target::{Login, Step};
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::params::Limits;
use corbel_proto::iscsi::pdu::login::{LoginRequest, LoginResponse, Stage, Status};
use corbel_proto::iscsi::text::{Keys, binary, binary_text, put};

use super::script::Script;

const KEYS: [&str; 32] = [
    "InitiatorName",
    "TargetName",
    "SessionType",
    "AuthMethod",
    "CHAP_A",
    "CHAP_N",
    "CHAP_R",
    "CHAP_I",
    "CHAP_C",
    "InitiatorAlias",
    "HeaderDigest",
    "DataDigest",
    "MaxRecvDataSegmentLength",
    "MaxBurstLength",
    "FirstBurstLength",
    "InitialR2T",
    "ImmediateData",
    "MaxOutstandingR2T",
    "MaxConnections",
    "ErrorRecoveryLevel",
    "DefaultTime2Wait",
    "DefaultTime2Retain",
    "DataPDUInOrder",
    "IFMarker",
    "OFMarkInt",
    "TaskReporting",
    "iSCSIProtocolLevel",
    "SendTargets",
    "TargetAlias",
    "RDMAExtensions",
    "X-com.example.key",
    "TargetPortalGroupTag",
];

const VALUES: [&str; 27] = [
    "iqn.1994-05.com.redhat:a",
    "iqn.2026-11.org.example:md3",
    "iqn.2026-11.org.example:locked",
    "iqn.2026-11.org.example:moved",
    "Normal",
    "Discovery",
    "None",
    "CHAP,None",
    "CHAP",
    "5,7",
    "7",
    "dom0",
    "Yes",
    "No",
    "CRC32C,None",
    "512",
    "262144",
    "16777215",
    "0x200",
    "0",
    "4294967296",
    "0xff00ff00ff00ff00",
    "0bAAAA",
    "RFC3720,ResponseFence",
    "1",
    "2",
    "32",
];

/// Everybody may log in to md3; with a policy, only who proves to be dom0.
struct House {
    policy: Option<Policy>,
    terms: Terms,
    /// What was elsewhere is there for good.
    permanent: bool,
}

/// Where the target went that moved.
const ELSEWHERE: &str = "[::1]:3260";

impl House {
    fn grant(&self) -> Access {
        let alias = Some("md3".into());
        Access::Granted(Grant {
            authentication: self.policy.clone(),
            portal_group_tag: 1,
            alias,
            digests_required: Default::default(),
            terms: self.terms,
        })
    }
}

impl Directory for House {
    fn discovery(&self, _: &Name) -> Access {
        self.grant()
    }

    fn target(&self, target: &Name, _: &Name) -> Access {
        match target.as_str().rsplit(':').next() {
            Some("md3") => self.grant(),
            Some("locked") => Access::Forbidden,
            Some("moved") => {
                Access::Redirect { address: ELSEWHERE.into(), permanent: self.permanent }
            }
            _ => Access::NotFound,
        }
    }
}

struct Bench {
    house: House,
    login: Login,
    requests: u32,
    stat_sn: Option<u32>,
    /// The pieces of an answer so far.
    hearing: Vec<u8>,
    /// The answer with the last challenge.
    challenge: Vec<u8>,
    /// The right proof was sent at some time.
    proven: bool,
    over: bool,
    admitted: bool,
}

/// See the head of this file.
pub(super) fn iscsi_login(input: &[u8]) {
    let mut script = Script::new(input);
    let mode = script.u8();
    let secret = |name: &str| Credentials { name: name.into(), secret: secret_of(name) };
    let policy = Policy {
        algorithms: Algorithm::ALL.into(),
        incoming: vec![secret("dom0")],
        outgoing: (mode & 2 == 2).then(|| secret("corbel")),
    };
    let mut bench = Bench {
        house: House {
            policy: (mode & 1 == 1).then_some(policy),
            terms: Terms {
                connections_max: [1, 2, 4, 32][usize::from(mode >> 2 & 3)],
                recovery_level_max: [0, 1, 2, 1][usize::from(mode >> 4 & 3)],
            },
            permanent: mode & 64 == 64,
        },
        login: Login::new(Limits::default(), 64),
        requests: 0,
        stat_sn: None,
        hearing: Vec::new(),
        challenge: Vec::new(),
        proven: false,
        over: false,
        admitted: false,
    };
    while !script.is_over() && bench.requests < REQUESTS_MAX + 8 {
        bench.request(&mut script);
    }
    assert!(bench.over || bench.requests <= REQUESTS_MAX, "a login goes on for ever");
}

fn secret_of(name: &str) -> Secret {
    Secret::new(format!("the secret of {name}").into_bytes())
}

impl Bench {
    fn request(&mut self, script: &mut Script<'_>) {
        let flags = script.u8();
        let mut bhs = [0; 48];
        // The stages that a client goes through, or anything.
        bhs[1] = match flags >> 5 {
            0 => 0x00,
            1 => 0x81,
            2 => 0x87,
            3 => 0x04,
            4 => 0x40,
            5 => 0x83,
            _ => script.u8(),
        };
        bhs[0] = 0x43;
        (bhs[27], bhs[31]) = (5, 9);
        if flags & 0x10 == 0x10 {
            let at = 8 + script.index(24);
            bhs[at] = script.u8();
        }
        let text = self.text(flags & 15, script);
        let Ok(request) = LoginRequest::parse(&bhs) else { return };
        self.requests += 1;
        let random = &mut |bytes: &mut [u8]| bytes.fill(7);
        match self.login.handle(&request, &text, &self.house, random) {
            Step::Reply(reply) => {
                assert!(!self.over, "an answer after the end");
                assert_eq!(reply.response.status, Status::SUCCESS);
                assert!(reply.response.next != Some(Stage::FullFeature), "in without Admit");
                self.check(&request, &reply.response.emit(), &reply.text);
                self.hear(&reply.text, reply.response.continues);
            }
            Step::Refuse(reply, fault) => {
                assert!(reply.response.status.class() != 0 && !fault.to_string().is_empty());
                assert!(!reply.response.transit);
                self.moved(reply.response.status, &reply.text);
                self.check(&request, &reply.response.emit(), &reply.text);
                self.over = true;
            }
            Step::Admit(admission) => {
                assert!(!self.over && !self.admitted, "admitted after the end");
                (self.over, self.admitted) = (true, true);
                let asked = self.house.policy.is_some();
                assert!(self.proven || !asked, "admitted without a proof");
                assert_eq!(admission.authenticated_as.is_some(), asked);
                let reply = self.login.finish(77);
                assert_eq!(reply.response.next, Some(Stage::FullFeature));
                assert_eq!(admission.stat_sn, reply.response.stat_sn.wrapping_add(1));
                self.check(&request, &reply.response.emit(), &reply.text);
                let agreed = admission.agreed;
                assert!(agreed.first_burst_bytes_max <= agreed.burst_bytes_max);
                assert!((512..1 << 24).contains(&agreed.peer_segment_bytes_max));
                let terms = self.house.terms;
                assert!((1..=terms.connections_max).contains(&agreed.connections_max));
                assert!(agreed.recovery_level <= terms.recovery_level_max);
            }
        }
    }

    /// Who is sent elsewhere is told where, and nobody else is.
    fn moved(&self, status: Status, text: &[u8]) {
        let moved = match status {
            Status::MOVED_TEMPORARILY => !self.house.permanent,
            Status::MOVED_PERMANENTLY => self.house.permanent,
            _ => false,
        };
        assert_eq!(moved, status.class() == 1, "for good, or not");
        let address = Keys::parse(text).ok().and_then(|keys| {
            let address = keys.value("TargetAddress")?;
            Some(address.to_owned())
        });
        assert_eq!(address.as_deref(), moved.then_some(ELSEWHERE));
    }

    fn check(&mut self, request: &LoginRequest, response: &[u8; 48], text: &[u8]) {
        let parsed = LoginResponse::parse(response).expect("our own header can be read");
        assert!(parsed.data_len as usize == text.len() && text.len() < 1 << 18);
        assert!(!parsed.transit || request.transit, "nobody asked to leave the stage");
        assert_eq!((parsed.task_tag, parsed.isid), (request.task_tag, request.isid));
        let expected = self.stat_sn.unwrap_or(request.exp_stat_sn);
        assert_eq!(parsed.stat_sn, expected);
        self.stat_sn = Some(expected.wrapping_add(1));
    }

    fn hear(&mut self, text: &[u8], continues: bool) {
        self.hearing.extend(text);
        if !continues {
            let whole = std::mem::take(&mut self.hearing);
            let keys = Keys::parse(&whole).expect("our answer is text");
            if keys.value("CHAP_C").is_some() {
                self.challenge = whole;
            }
        }
    }

    fn text(&mut self, what: u8, script: &mut Script<'_>) -> Vec<u8> {
        let mut text = Vec::new();
        match what {
            0 => {}
            1 | 2 => {
                put(&mut text, "InitiatorName", VALUES[0]);
                put(&mut text, "TargetName", VALUES[1]);
                put(&mut text, "AuthMethod", if what == 1 { "None" } else { "CHAP,None" });
            }
            3 => put(&mut text, "CHAP_A", "8,7,6,5"),
            4 => self.prove(&mut text, script.u8()),
            5 => {
                let len = usize::from(script.u8());
                text.extend(script.bytes(len));
            }
            6 => text.resize(usize::from(script.u16()) % 9000, b'x'),
            _ => {
                for _ in 7..what {
                    let (key, value) = (script.u8(), script.u8());
                    let key = KEYS[usize::from(key) % KEYS.len()];
                    let value = match VALUES.get(usize::from(value)) {
                        Some(value) => (*value).to_owned(),
                        None => u32::from(value).pow(3).to_string(),
                    };
                    put(&mut text, key, &value);
                }
            }
        }
        text
    }

    /// The answer to the last challenge, right or wrong in one way.
    fn prove(&mut self, text: &mut Vec<u8>, how: u8) {
        let heard = std::mem::take(&mut self.challenge);
        let Ok(keys) = Keys::parse(&heard) else { return };
        let number = |key| keys.value(key).and_then(|value| value.parse::<u64>().ok());
        let algorithm = number("CHAP_A").and_then(Algorithm::from_number);
        let identifier = number("CHAP_I").and_then(|n| u8::try_from(n).ok());
        let challenge = keys.value("CHAP_C").and_then(binary);
        let (Some(algorithm), Some(identifier), Some(challenge)) =
            (algorithm, identifier, challenge)
        else {
            return;
        };
        let name = if how & 1 == 1 { "dom1" } else { "dom0" };
        let secret = secret_of(if how & 2 == 2 { "corbel" } else { "dom0" });
        let response = respond(algorithm, identifier, &secret, &challenge);
        self.proven |= how & 3 == 0;
        put(text, "CHAP_N", name);
        put(text, "CHAP_R", &binary_text(&response));
        if how & 4 == 4 {
            put(text, "CHAP_I", "3");
            // Our own challenge sent back to us must not be answered.
            let reflected = binary_text(&challenge);
            put(text, "CHAP_C", if how & 8 == 8 { &reflected } else { "0b////" });
        }
    }
}
