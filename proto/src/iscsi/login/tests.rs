//! Transcripts of logins against the target's half.

use super::directory::{Access, DigestsRequired, Directory, Grant};
use super::fault::Fault;
use super::target::{Admission, Login, Step};
use crate::iscsi::chap::{Algorithm, Credentials, Policy, Secret, respond};
use crate::iscsi::name::Name;
use crate::iscsi::params::{Limits, SessionType};
use crate::iscsi::pdu::login::{Isid, LoginRequest, Stage, Status};
use crate::iscsi::text::{Keys, binary, binary_text};
use proptest::prelude::*;

const NAMES: &str =
    "InitiatorName=iqn.1994-05.com.redhat:a|TargetName=iqn.2026-11.org.example:md3|";

struct House(Option<Policy>);

impl Directory for House {
    fn discovery(&self, _: &Name) -> Access {
        Access::Granted(Grant {
            authentication: self.0.clone(),
            portal_group_tag: 1,
            alias: None,
            digests_required: DigestsRequired::default(),
            terms: Default::default(),
        })
    }

    fn target(&self, target: &Name, _: &Name) -> Access {
        match target.as_str() {
            "iqn.2026-11.org.example:md3" => Access::Granted(Grant {
                authentication: self.0.clone(),
                portal_group_tag: 1,
                alias: Some("md3".into()),
                digests_required: DigestsRequired::default(),
                terms: Default::default(),
            }),
            "iqn.2026-11.org.example:locked" => Access::Forbidden,
            "iqn.2026-11.org.example:gone" => Access::Removed,
            "iqn.2026-11.org.example:busy" => Access::Busy,
            "iqn.2026-11.org.example:moved" => {
                Access::Redirect { address: "[::1]:3260".into(), permanent: true }
            }
            _ => Access::NotFound,
        }
    }
}

fn policy(algorithms: &[Algorithm]) -> Policy {
    let credentials = |name: &str, secret: &str| Credentials {
        name: name.into(),
        secret: Secret::new(secret.into()),
    };
    Policy {
        algorithms: algorithms.into(),
        incoming: vec![credentials("dom0", "the secret of dom0")],
        outgoing: Some(credentials("corbel", "the secret of corbel")),
    }
}

fn request(flags: u8) -> LoginRequest {
    let mut bhs = [0; 48];
    (bhs[0], bhs[1]) = (0x43, flags);
    bhs[8..14].copy_from_slice(&[0, 2, 0x3d, 0, 0, 1]);
    (bhs[27], bhs[31]) = (5, 9);
    LoginRequest::parse(&bhs).unwrap()
}

/// Security, staying; to operational; to full feature. Operational, staying; to full feature.
const SECURITY: u8 = 0x00;
const TO_OPERATIONAL: u8 = 0x81;
const SECURITY_TO_FULL: u8 = 0x83;
const OPERATIONAL: u8 = 0x04;
const TO_FULL: u8 = 0x87;
const MORE_SECURITY: u8 = 0x40;

struct Wire<'a> {
    login: Login,
    house: &'a House,
}

impl<'a> Wire<'a> {
    fn new(house: &'a House) -> Self {
        Self { login: Login::new(Limits::default(), 64), house }
    }

    fn send(&mut self, flags: u8, text: &str) -> Step {
        let text = text.replace('|', "\0");
        self.login.handle(&request(flags), text.as_bytes(), self.house, &mut |b| b.fill(7))
    }

    /// The reply's text, with `|` for NUL, and whether it agreed to leave the stage.
    fn reply(&mut self, flags: u8, text: &str) -> (String, bool) {
        match self.send(flags, text) {
            Step::Reply(reply) => {
                assert_eq!(reply.response.tsih, 0, "no TSIH before the final reply");
                assert_eq!(reply.response.data_len as usize, reply.text.len());
                let text = String::from_utf8(reply.text).unwrap().replace('\0', "|");
                (text, reply.response.transit)
            }
            step => panic!("{step:?}"),
        }
    }

    fn refused(&mut self, flags: u8, text: &str) -> u16 {
        match self.send(flags, text) {
            Step::Refuse(reply, _) => {
                assert!(!reply.response.transit);
                reply.response.status.code()
            }
            step => panic!("{step:?}"),
        }
    }

    fn admitted(&mut self, flags: u8, text: &str) -> (Box<Admission>, String) {
        match self.send(flags, text) {
            Step::Admit(admission) => {
                let reply = self.login.finish(77);
                assert_eq!(reply.response.tsih, 77);
                assert_eq!(reply.response.next, Some(Stage::FullFeature));
                assert_eq!(admission.stat_sn, reply.response.stat_sn + 1);
                (admission, String::from_utf8(reply.text).unwrap().replace('\0', "|"))
            }
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn open_iscsi_logs_in_without_authentication() {
    let house = House(None);
    let mut wire = Wire::new(&house);
    let first = format!("{NAMES}InitiatorAlias=dom0|SessionType=Normal|AuthMethod=None|");
    let (text, transit) = wire.reply(TO_OPERATIONAL, &first);
    assert_eq!(text, "TargetPortalGroupTag=1|TargetAlias=md3|AuthMethod=None|");
    assert!(transit);
    let (admission, text) = wire.admitted(
        TO_FULL,
        "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|\
         OFMarker=No|ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=16776192|\
         FirstBurstLength=262144|MaxOutstandingR2T=1|MaxConnections=1|DataPDUInOrder=Yes|\
         DataSequenceInOrder=Yes|MaxRecvDataSegmentLength=262144|",
    );
    assert_eq!(
        text,
        "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|\
         OFMarker=No|ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=16776192|\
         MaxConnections=1|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|\
         FirstBurstLength=262144|MaxOutstandingR2T=1|MaxRecvDataSegmentLength=262144|"
    );
    assert_eq!(admission.isid, Isid([0, 2, 0x3d, 0, 0, 1]));
    assert_eq!((admission.stat_sn, admission.exp_cmd_sn), (11, 5));
    assert_eq!(admission.initiator_alias.as_deref(), Some("dom0"));
    assert!(!admission.agreed.initial_r2t);
    assert_eq!(admission.agreed.peer_segment_bytes_max, 262_144);
}

#[test]
fn libiscsi_may_say_its_names_again_but_not_change_them() {
    let house = House(None);
    let names = format!("{NAMES}SessionType=Normal|");
    for (again, sound) in [
        (names.clone(), true),
        (names.replace("redhat:a", "redhat:b"), false),
        (names.replace("md3", "md4"), false),
        (names.replace("Normal", "Discovery"), false),
    ] {
        let mut wire = Wire::new(&house);
        wire.reply(TO_OPERATIONAL, &format!("{names}AuthMethod=CHAP,None|"));
        if sound {
            wire.admitted(TO_FULL, &again);
        } else {
            assert_eq!(wire.refused(TO_FULL, &again), 0x0200);
        }
    }
}

#[test]
fn segment_length_out_of_its_range_is_rejected_and_ours_waits_for_the_next_text() {
    let house = House(None);
    let mut wire = Wire::new(&house);
    wire.reply(TO_OPERATIONAL, &format!("{NAMES}AuthMethod=None|"));
    let (text, _) = wire.reply(OPERATIONAL, "MaxRecvDataSegmentLength=511|");
    assert_eq!(text, "MaxRecvDataSegmentLength=Reject|");
    let (_, text) = wire.admitted(TO_FULL, "");
    assert_eq!(text, "MaxRecvDataSegmentLength=262144|");
}

fn log_in_with_chap(algorithm: Algorithm, secret: &str, mutual: bool) -> Result<String, u16> {
    let house = House(Some(policy(&[algorithm])));
    let mut wire = Wire::new(&house);
    wire.reply(SECURITY, &format!("{NAMES}AuthMethod=CHAP,None|"));
    let (text, _) = wire.reply(SECURITY, "CHAP_A=8,7,6,5|");
    let text = text.replace('|', "\0");
    let keys = Keys::parse(text.as_bytes()).unwrap();
    assert_eq!(keys.value("CHAP_A"), Some(algorithm.number().to_string().as_str()));
    let identifier = keys.value("CHAP_I").unwrap().parse().unwrap();
    let challenge = binary(keys.value("CHAP_C").unwrap()).unwrap();
    let response = respond(algorithm, identifier, &Secret::new(secret.into()), &challenge);
    let mut proof = format!("CHAP_N=dom0|CHAP_R={}|", binary_text(&response));
    if mutual {
        proof += "CHAP_I=3|CHAP_C=0b////|";
    }
    match wire.send(TO_OPERATIONAL, &proof) {
        Step::Reply(reply) => {
            assert!(reply.response.transit);
            let (admission, _) = wire.admitted(TO_FULL, "");
            assert_eq!(admission.authenticated_as.as_deref(), Some("dom0"));
            Ok(String::from_utf8(reply.text).unwrap().replace('\0', "|"))
        }
        Step::Refuse(reply, _) => Err(reply.response.status.code()),
        Step::Admit(_) => panic!("admitted before the operational stage"),
    }
}

#[test]
fn chap_admits_the_right_secret_with_each_algorithm_and_no_other() {
    for algorithm in Algorithm::ALL {
        assert_eq!(log_in_with_chap(algorithm, "the secret of dom0", false), Ok(String::new()));
        assert_eq!(log_in_with_chap(algorithm, "another secret", false), Err(0x0201));
        let proof = respond(algorithm, 3, &Secret::new("the secret of corbel".into()), &[0xff; 3]);
        let expected = format!("CHAP_N=corbel|CHAP_R={}|", binary_text(&proof));
        assert_eq!(log_in_with_chap(algorithm, "the secret of dom0", true), Ok(expected));
    }
}

#[test]
fn authentication_cannot_be_skipped() {
    let house = House(Some(policy(&Algorithm::ALL)));
    let first = |flags, keys: &str| Wire::new(&house).refused(flags, &format!("{NAMES}{keys}"));
    assert_eq!(first(TO_FULL, ""), 0x0201);
    assert_eq!(first(OPERATIONAL, ""), 0x0201);
    assert_eq!(first(SECURITY_TO_FULL, ""), 0x0201);
    assert_eq!(first(TO_OPERATIONAL, "AuthMethod=None|"), 0x0201);
    assert_eq!(first(SECURITY, "CHAP_N=dom0|CHAP_R=0x00|"), 0x0200);
    let mut wire = Wire::new(&house);
    assert!(!wire.reply(TO_OPERATIONAL, &format!("{NAMES}AuthMethod=CHAP|")).1);
    assert!(!wire.reply(TO_OPERATIONAL, "CHAP_A=7|").1);
    assert_eq!(wire.refused(TO_FULL, ""), 0x0200);
    let mut wire = Wire::new(&house);
    wire.reply(SECURITY, &format!("{NAMES}AuthMethod=CHAP|"));
    assert_eq!(wire.refused(SECURITY, "CHAP_A=1|"), 0x0201);
}

/// A name that looks like a binary value is still a name, compared as it is written.
#[test]
fn a_chap_name_that_looks_like_a_binary_value_is_plain_text() {
    for (ours, sent, sound) in [
        ("0x646f6d30", "0x646f6d30", true),
        ("0bZG9tMA==", "0bZG9tMA==", true),
        ("dom0", "0x646f6d30", false),
        ("dom0", "0bZG9tMA==", false),
        ("0x646f6d30", "dom0", false),
        ("0x646f6d30", "0x646F6D30", false),
    ] {
        let mut policy = policy(&[Algorithm::Md5]);
        policy.incoming[0].name = ours.into();
        let house = House(Some(policy));
        let mut wire = Wire::new(&house);
        wire.reply(SECURITY, &format!("{NAMES}AuthMethod=CHAP|"));
        wire.reply(SECURITY, "CHAP_A=5|");
        let right = respond(Algorithm::Md5, 7, &Secret::new("the secret of dom0".into()), &[7; 32]);
        let proof = format!("CHAP_N={sent}|CHAP_R={}|", binary_text(&right));
        if sound {
            assert!(wire.reply(TO_OPERATIONAL, &proof).1, "{ours} {sent}");
        } else {
            assert_eq!(wire.refused(TO_OPERATIONAL, &proof), 0x0201, "{ours} {sent}");
        }
    }
}

#[test]
fn a_chap_response_in_base64_is_as_good_and_an_oversized_one_is_not() {
    let attempt = |response: &str| {
        let house = House(Some(policy(&[Algorithm::Md5])));
        let mut wire = Wire::new(&house);
        wire.reply(SECURITY, &format!("{NAMES}AuthMethod=CHAP|"));
        wire.reply(SECURITY, "CHAP_A=5|");
        match wire.send(TO_OPERATIONAL, &format!("CHAP_N=dom0|CHAP_R={response}|")) {
            Step::Reply(reply) => reply.response.transit,
            Step::Refuse(..) => false,
            Step::Admit(_) => panic!("admitted before the operational stage"),
        }
    };
    let right = respond(Algorithm::Md5, 7, &Secret::new("the secret of dom0".into()), &[7; 32]);
    assert!(attempt(&binary_text(&right)));
    assert!(attempt(&format!("0b{}", base64(&right))));
    let longer = [&right[..], &[0; 3]].concat();
    assert!(!attempt(&format!("0b{}", base64(&longer))));
    assert!(!attempt(&format!("0b{}", base64(&longer.repeat(200)))));
    assert!(!attempt(&format!("0b{}", base64(&right).trim_end_matches('='))));
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | usize::from(*group.get(n).unwrap_or(&0)));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit > group.len() { '=' } else { DIGITS[value].into() });
        }
    }
    text
}

#[test]
fn operational_keys_in_the_security_stage_are_answered_there() {
    let house = House(Some(policy(&[Algorithm::Md5])));
    let mut wire = Wire::new(&house);
    let early = "HeaderDigest=CRC32C|MaxRecvDataSegmentLength=65536|";
    let (text, _) = wire.reply(SECURITY, &format!("{NAMES}AuthMethod=CHAP|{early}"));
    assert!(text.contains("HeaderDigest=CRC32C|") && text.contains("AuthMethod=CHAP|"), "{text}");
    wire.reply(SECURITY, "CHAP_A=5|");
    let right = respond(Algorithm::Md5, 7, &Secret::new("the secret of dom0".into()), &[7; 32]);
    let proof = format!("CHAP_N=dom0|CHAP_R={}|MaxBurstLength=65536|", binary_text(&right));
    assert_eq!(wire.reply(TO_OPERATIONAL, &proof), ("MaxBurstLength=65536|".into(), true));
    let (admission, text) = wire.admitted(TO_FULL, "");
    assert_eq!(text, "MaxRecvDataSegmentLength=262144|");
    let agreed = admission.agreed;
    assert_eq!((agreed.burst_bytes_max, agreed.peer_segment_bytes_max), (65_536, 65_536));
    assert_eq!(agreed.first_burst_bytes_max, 65_536);
}

#[test]
fn a_first_burst_beyond_the_burst_is_cut_to_it_in_whatever_order_they_come() {
    for offer in [
        "FirstBurstLength=262144|MaxBurstLength=65536|",
        "MaxBurstLength=65536|FirstBurstLength=262144|",
    ] {
        let house = House(None);
        let (admission, text) = Wire::new(&house).admitted(TO_FULL, &format!("{NAMES}{offer}"));
        assert!(text.contains("MaxBurstLength=65536|FirstBurstLength=65536|"), "{text}");
        assert_eq!(admission.agreed.first_burst_bytes_max, 65_536);
    }
    let house = House(None);
    let offer = format!("{NAMES}FirstBurstLength=16776192|");
    let (_, text) = Wire::new(&house).admitted(TO_FULL, &offer);
    assert!(text.contains("FirstBurstLength=262144|"), "{text}");
}

#[test]
fn a_reflected_challenge_is_refused() {
    let house = House(Some(policy(&[Algorithm::Md5])));
    let mut wire = Wire::new(&house);
    wire.reply(SECURITY, &format!("{NAMES}AuthMethod=CHAP|"));
    wire.reply(SECURITY, "CHAP_A=5|");
    let right = respond(Algorithm::Md5, 7, &Secret::new("the secret of dom0".into()), &[7; 32]);
    let (right, same) = (binary_text(&right), binary_text(&[7; 32]));
    let proof = format!("CHAP_N=dom0|CHAP_R={right}|CHAP_I=9|CHAP_C={same}|");
    assert_eq!(wire.refused(TO_OPERATIONAL, &proof), 0x0201);
}

#[test]
fn each_refusal_has_its_status() {
    let house = House(None);
    let first = |flags, text: &str| Wire::new(&house).refused(flags, text);
    let to = |name: &str| first(TO_FULL, &NAMES.replace("md3", name));
    assert_eq!(first(TO_FULL, ""), 0x0207);
    assert_eq!(first(TO_FULL, "InitiatorName=iqn.1994-05.com.redhat:a|"), 0x0207);
    assert_eq!(first(TO_FULL, "InitiatorName=nobody|SessionType=Discovery|"), 0x0200);
    assert_eq!(first(TO_FULL, &format!("{NAMES}SessionType=Other|")), 0x0209);
    assert_eq!(first(TO_FULL, &format!("{NAMES}InitiatorName=x|")), 0x0200);
    assert_eq!(first(TO_FULL, &format!("{NAMES}TargetAddress=x|")), 0x0200);
    assert_eq!(first(TO_OPERATIONAL, &format!("{NAMES}AuthMethod=CHAP|")), 0x0201);
    assert_eq!((to("nothing"), to("locked"), to("gone")), (0x0203, 0x0202, 0x0204));
    assert_eq!((to("busy"), to("moved")), (0x0301, 0x0102));
    let mut wire = Wire::new(&house);
    let newer = LoginRequest { version_min: 1, ..request(TO_FULL) };
    let step = wire.login.handle(&newer, b"", &house, &mut |_| {});
    assert!(matches!(step, Step::Refuse(_, Fault::Version)));
}

#[test]
fn a_redirect_says_where() {
    let house = House(None);
    match Wire::new(&house).send(TO_FULL, &NAMES.replace("md3", "moved")) {
        Step::Refuse(reply, _) => assert_eq!(reply.text, b"TargetAddress=[::1]:3260\0"),
        step => panic!("{step:?}"),
    }
}

#[test]
fn identity_must_not_change_and_the_upper_layer_may_refuse() {
    let house = House(None);
    let mut wire = Wire::new(&house);
    wire.reply(TO_OPERATIONAL, NAMES);
    let other = LoginRequest { task_tag: 99, ..request(TO_FULL) };
    let step = wire.login.handle(&other, b"", &house, &mut |_| {});
    assert!(matches!(step, Step::Refuse(_, Fault::Conduct(_))));

    let mut wire = Wire::new(&house);
    let joining = LoginRequest { tsih: 5, ..request(TO_FULL) };
    let text = NAMES.replace('|', "\0");
    let step = wire.login.handle(&joining, text.as_bytes(), &house, &mut |_| {});
    assert!(matches!(step, Step::Admit(admission) if admission.tsih == 5));
    let reply = wire.login.refuse(Status::SESSION_DOES_NOT_EXIST);
    assert_eq!((reply.response.status.code(), reply.text.len()), (0x020a, 0));
}

#[test]
fn text_split_over_pdus_is_one_text_and_has_an_end() {
    let house = House(None);
    let mut wire = Wire::new(&house);
    let (head, tail) = NAMES.split_at(20);
    assert_eq!(wire.reply(MORE_SECURITY, head), (String::new(), false));
    assert!(wire.reply(TO_OPERATIONAL, tail).1);

    let mut wire = Wire::new(&house);
    for _ in 0..8 {
        wire.reply(MORE_SECURITY, &"a".repeat(8192));
    }
    assert_eq!(wire.refused(MORE_SECURITY, "a"), 0x0302);

    let mut wire = Wire::new(&house);
    for _ in 0..super::REQUESTS_MAX {
        wire.reply(MORE_SECURITY, "");
    }
    assert_eq!(wire.refused(MORE_SECURITY, ""), 0x0200);
}

#[test]
fn a_long_answer_comes_in_pieces_and_only_the_last_changes_the_stage() {
    let house = House(None);
    let mut wire = Wire::new(&house);
    let unknown: String = (0..100).map(|n| format!("X-{n}=1|")).collect();
    let offers = format!("{NAMES}MaxRecvDataSegmentLength=512|{unknown}");
    let mut whole = Vec::new();
    let mut step = wire.send(TO_FULL, &offers);
    loop {
        match step {
            Step::Reply(reply) => {
                assert!(reply.response.continues && !reply.response.transit);
                assert_eq!(reply.text.len(), 512);
                whole.extend(reply.text);
            }
            Step::Admit(_) => break,
            Step::Refuse(..) => panic!("refused"),
        }
        step = wire.send(TO_FULL, "");
    }
    let last = wire.login.finish(1);
    assert!(!last.response.continues && last.response.transit);
    whole.extend(last.text);
    let keys = Keys::parse(&whole).unwrap();
    assert_eq!(keys.value("X-99"), Some("NotUnderstood"));
    assert_eq!(keys.value("MaxRecvDataSegmentLength"), Some("262144"));
}

#[test]
fn discovery_needs_no_target_name_and_gets_no_group_tag() {
    let house = House(None);
    let text = "InitiatorName=iqn.1994-05.com.redhat:a|SessionType=Discovery|MaxBurstLength=512|";
    let (admission, text) = Wire::new(&house).admitted(TO_FULL, text);
    assert_eq!(admission.session, SessionType::Discovery);
    assert_eq!(text, "MaxBurstLength=Irrelevant|MaxRecvDataSegmentLength=262144|");
}

proptest! {
    #[test]
    fn any_requests_end_in_a_step(
        requests in proptest::collection::vec((any::<[u8; 48]>(), any::<u8>(), ".{0,80}"), 0..12),
        chap: bool,
    ) {
        let house = House(chap.then(|| policy(&Algorithm::ALL)));
        let mut login = Login::new(Limits::default(), 1);
        for (mut bhs, pick, text) in requests {
            (bhs[0], bhs[4]) = (0x43, 0);
            let Ok(request) = LoginRequest::parse(&bhs) else { continue };
            let request = LoginRequest { version_min: 0, isid: Isid::default(), tsih: 0, cid: 0,
                task_tag: 0, ..request };
            let text = match pick % 4 {
                0 => NAMES.replace('|', "\0") + &text,
                1 => format!("AuthMethod=CHAP\0{text}"),
                2 => format!("CHAP_A=5\0{text}"),
                _ => text,
            };
            let _ = login.handle(&request, text.as_bytes(), &house, &mut |b| b.fill(1));
        }
    }
}
