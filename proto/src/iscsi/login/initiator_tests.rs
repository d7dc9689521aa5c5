//! The initiator's half against targets that are strange, broken or hostile.

use super::REQUESTS_MAX;
use super::initiator::{Ask, Chap, Config, Fault, Login, Outcome, Step};
use crate::iscsi::chap::{Algorithm, Credentials, Secret};
use crate::iscsi::params::Limits;
use crate::iscsi::pdu::login::{Isid, LoginResponse, Stage, Status};
use proptest::prelude::*;

fn credentials(name: &str, secret: &str) -> Credentials {
    Credentials { name: name.into(), secret: Secret::new(secret.into()) }
}

fn mutual() -> Option<Chap> {
    Some(Chap {
        algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
        ours: credentials("dom0", "the secret of dom0"),
        theirs: Some(credentials("corbel", "the secret of corbel")),
    })
}

fn one_way() -> Option<Chap> {
    mutual().map(|chap| Chap { theirs: None, ..chap })
}

fn config(chap: Option<Chap>) -> Config {
    Config {
        initiator: "iqn.2026-11.org.example:dom0".parse().unwrap(),
        alias: None,
        target: Some("iqn.2026-11.org.example:md3".parse().unwrap()),
        isid: Isid([0x80, 1, 2, 3, 4, 5]),
        tsih: 0,
        cid: 1,
        cmd_sn: 100,
        limits: Limits::default(),
        chap,
    }
}

/// A login and the request that the next response answers.
struct Wire {
    login: Login,
    ask: Ask,
}

impl Wire {
    fn new(chap: Option<Chap>) -> Self {
        let mut login = Login::new(config(chap)).unwrap();
        let ask = login.start();
        Self { login, ask }
    }

    /// At the first request of the operational stage.
    fn operational() -> Self {
        let mut wire = Self::new(None);
        wire.asks(true, "TargetPortalGroupTag=1|AuthMethod=None|");
        assert_eq!(wire.ask.request.current, Stage::Operational);
        wire
    }

    /// At the algorithms.
    fn chap(chap: Option<Chap>) -> Self {
        let mut wire = Self::new(chap);
        assert_eq!(wire.asks(false, "TargetPortalGroupTag=1|AuthMethod=CHAP|"), "CHAP_A=7,5|");
        wire
    }

    /// The response to our request; `leave` agrees to what it asks for.
    fn response(&self, leave: bool) -> LoginResponse {
        let request = &self.ask.request;
        LoginResponse {
            transit: leave,
            continues: false,
            current: request.current,
            next: request.next.filter(|_| leave),
            version_max: 0,
            version_active: 0,
            data_len: 0,
            isid: request.isid,
            tsih: if leave && request.next == Some(Stage::FullFeature) { 9 } else { 0 },
            task_tag: request.task_tag,
            stat_sn: request.exp_stat_sn,
            exp_cmd_sn: request.cmd_sn,
            max_cmd_sn: request.cmd_sn,
            status: Status::SUCCESS,
        }
    }

    fn take(&mut self, response: &LoginResponse, text: &str) -> Result<Step, Fault> {
        let text = text.replace('|', "\0");
        let step = self.login.handle(response, text.as_bytes(), &mut |bytes| bytes.fill(7));
        if let Ok(Step::Ask(ask)) = &step {
            self.ask = ask.clone();
        }
        step
    }

    /// The text of our next request.
    fn asks(&mut self, leave: bool, text: &str) -> String {
        match self.take(&self.response(leave), text) {
            Ok(Step::Ask(ask)) => String::from_utf8(ask.text).unwrap().replace('\0', "|"),
            step => panic!("{step:?}"),
        }
    }

    fn done(&mut self, text: &str) -> Outcome {
        match self.take(&self.response(true), text) {
            Ok(Step::Done(outcome)) => *outcome,
            step => panic!("{step:?}"),
        }
    }

    fn breaks(&mut self, leave: bool, text: &str) -> Fault {
        self.take(&self.response(leave), text).unwrap_err()
    }
}

#[test]
fn requests_say_what_they_should() {
    let mut wire = Wire::new(None);
    let text = String::from_utf8(wire.ask.text.clone()).unwrap().replace('\0', "|");
    assert_eq!(
        text,
        "InitiatorName=iqn.2026-11.org.example:dom0|TargetName=iqn.2026-11.org.example:md3|\
         SessionType=Normal|AuthMethod=None|"
    );
    assert_eq!(wire.ask.request.next, Some(Stage::Operational));
    assert_eq!(
        wire.asks(true, "TargetPortalGroupTag=1|AuthMethod=None|"),
        "HeaderDigest=None,CRC32C|DataDigest=None,CRC32C|DefaultTime2Wait=2|DefaultTime2Retain=0|\
         ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=16776192|\
         FirstBurstLength=262144|MaxOutstandingR2T=8|MaxConnections=1|DataPDUInOrder=Yes|\
         DataSequenceInOrder=Yes|MaxRecvDataSegmentLength=262144|"
    );
    let mut login = Login::new(Config { target: None, ..config(one_way()) }).unwrap();
    let ask = login.start();
    let text = String::from_utf8(ask.text).unwrap().replace('\0', "|");
    let expected = "InitiatorName=iqn.2026-11.org.example:dom0|SessionType=Discovery|";
    assert_eq!(text, format!("{expected}AuthMethod=CHAP|"));
    assert!(!ask.request.transit);
}

#[test]
fn a_connection_that_joins_offers_only_what_is_its_own() {
    let mut login = Login::new(Config { tsih: 9, ..config(None) }).unwrap();
    let mut wire = Wire { ask: login.start(), login };
    assert_eq!(
        wire.asks(true, ""),
        "HeaderDigest=None,CRC32C|DataDigest=None,CRC32C|MaxRecvDataSegmentLength=262144|"
    );
}

#[test]
fn a_target_that_answers_nothing_leaves_the_defaults() {
    let agreed = Wire::operational().done("").agreed;
    assert_eq!((agreed.burst_bytes_max, agreed.first_burst_bytes_max), (262_144, 65_536));
    assert_eq!((agreed.peer_segment_bytes_max, agreed.initial_r2t), (8192, true));
}

#[test]
fn a_target_that_lingers_is_asked_again_and_its_own_offers_are_answered() {
    let mut wire = Wire::new(None);
    assert_eq!(wire.asks(false, "MaxRecvDataSegmentLength=65536|"), "");
    assert_eq!(wire.ask.request.next, Some(Stage::Operational));
    wire.asks(true, "");
    let offers = "TaskReporting=RFC3720,FastAbort|X-org.example=1|HeaderDigest=CRC32C|";
    assert_eq!(wire.asks(false, offers), "TaskReporting=RFC3720|X-org.example=NotUnderstood|");
    assert_eq!(wire.ask.request.next, Some(Stage::FullFeature));
    assert_eq!(wire.asks(false, ""), "");
    let outcome = wire.done("");
    assert_eq!(outcome.agreed.header_digest, crate::iscsi::params::Digest::Crc32c);
    assert_eq!(outcome.agreed.peer_segment_bytes_max, 65_536);
    assert_eq!((outcome.exp_stat_sn, outcome.tsih), (5, 9));
}

#[test]
fn text_of_the_target_in_pieces_is_one_text() {
    let mut wire = Wire::operational();
    for piece in ["MaxBurst", "Length=512|Targ", "etAlias=m"] {
        let response = LoginResponse { continues: true, ..wire.response(false) };
        let step = wire.take(&response, piece);
        assert!(matches!(step, Ok(Step::Ask(ask)) if ask.text.is_empty()));
    }
    let outcome = wire.done("d3|");
    assert_eq!(outcome.target_alias.as_deref(), Some("md3"));
    assert_eq!(outcome.agreed.burst_bytes_max, 512);
}

#[test]
fn our_long_text_goes_in_pieces_the_target_can_take() {
    let mut wire = Wire::operational();
    let unknown: String = (0..60).map(|n| format!("X-{n}=1|")).collect();
    let mut whole = wire.asks(false, &format!("MaxRecvDataSegmentLength=512|{unknown}"));
    let mut pieces = 1;
    while wire.ask.request.continues {
        assert_eq!(wire.ask.text.len(), 512);
        assert!(!wire.ask.request.transit);
        whole += &wire.asks(false, "");
        pieces += 1;
    }
    assert!(pieces > 2 && wire.ask.request.transit);
    assert_eq!(whole.matches("=NotUnderstood|").count(), 60);
    wire.done("");

    let mut wire = Wire::operational();
    wire.asks(false, &format!("MaxRecvDataSegmentLength=512|{unknown}"));
    assert!(matches!(wire.breaks(false, "X-a=1|"), Fault::Conduct(_)));
}

#[test]
fn a_target_cannot_talk_us_out_of_authentication() {
    let authentication = |fault| matches!(fault, Fault::Authentication(_));
    for method in ["AuthMethod=None|", "AuthMethod=Reject|", "AuthMethod=SRP|", ""] {
        assert!(authentication(Wire::new(mutual()).breaks(false, method)), "{method}");
        assert!(authentication(Wire::new(one_way()).breaks(false, method)), "{method}");
    }
    let challenge = "CHAP_A=7|CHAP_I=1|CHAP_C=0x0102|";
    // No proof, half of one, none of the value's form, one that proves nothing, ours reflected.
    let mut wire = Wire::chap(mutual());
    let proof = wire.asks(false, challenge);
    let ours = proof.split('|').find(|pair| pair.starts_with("CHAP_R=")).unwrap().to_owned();
    for answer in [
        String::new(),
        "CHAP_N=corbel|".to_owned(),
        "CHAP_N=corbel|CHAP_R=0x|".to_owned(),
        "CHAP_N=corbel|CHAP_R=0x00|".to_owned(),
        format!("CHAP_N=corbel|{ours}|"),
        format!("CHAP_N=dom0|{ours}|"),
    ] {
        for leave in [false, true] {
            let mut wire = Wire::chap(mutual());
            assert_eq!(wire.asks(false, challenge), proof);
            assert!(authentication(wire.breaks(leave, &answer)), "{answer}");
        }
    }
    // Leaving the stage before it is time.
    let mut wire = Wire::new(mutual());
    let early =
        LoginResponse { transit: true, next: Some(Stage::Operational), ..wire.response(false) };
    assert!(matches!(wire.take(&early, "AuthMethod=None|"), Err(Fault::Conduct(_))));
}

#[test]
fn unsound_challenges_are_not_answered() {
    let long = format!("CHAP_A=7|CHAP_I=1|CHAP_C=0x{}|", "00".repeat(1025));
    // With the test's source of randomness, the one we would draw.
    let same = format!("CHAP_A=7|CHAP_I=1|CHAP_C=0x{}|", "07".repeat(32));
    for text in [
        "",
        "CHAP_A=7|CHAP_I=1|",
        "CHAP_A=7|CHAP_C=0x01|",
        "CHAP_A=7|CHAP_I=256|CHAP_C=0x01|",
        "CHAP_A=7|CHAP_I=1|CHAP_C=01|",
        "CHAP_A=8|CHAP_I=1|CHAP_C=0x01|",
        "CHAP_A=7,5|CHAP_I=1|CHAP_C=0x01|",
        "CHAP_A=Reject|CHAP_I=1|CHAP_C=0x01|",
        &long,
        &same,
    ] {
        let fault = Wire::chap(mutual()).breaks(false, text);
        assert!(matches!(fault, Fault::Authentication(_)), "{text} {fault}");
    }
}

#[test]
fn keys_out_of_turn_break_the_login() {
    let conduct = |fault| matches!(fault, Fault::Conduct(_));
    assert!(conduct(Wire::new(one_way()).breaks(false, "AuthMethod=CHAP|CHAP_A=7|")));
    assert!(conduct(Wire::new(None).breaks(true, "MaxBurstLength=512|")));
    assert!(conduct(Wire::operational().breaks(true, "AuthMethod=None|")));
    assert!(conduct(Wire::operational().breaks(true, "TaskReporting=RFC3720|")));
    assert!(conduct(Wire::operational().breaks(false, "X-a=NotUnderstood|")));
    for beyond in ["MaxBurstLength=16777215|", "HeaderDigest=None,CRC32C|", "ImmediateData=1|"] {
        assert!(conduct(Wire::operational().breaks(true, beyond)), "{beyond}");
    }
    assert!(conduct(Wire::operational().breaks(false, "TargetPortalGroupTag=65536|")));
    let text = "MaxBurstLength=512|MaxBurstLength=512|";
    assert!(matches!(Wire::operational().breaks(true, text), Fault::Malformed(_)));
}

#[test]
fn headers_that_do_not_fit_the_request_break_the_login() {
    let wrong: [fn(&mut LoginResponse); 7] = [
        |response| response.task_tag = 1,
        |response| response.isid = Isid([0; 6]),
        |response| response.version_active = 1,
        |response| response.current = Stage::Security,
        |response| response.tsih = 0,
        |response| response.status = Status::from_code(0x0400),
        |response| response.status = Status::MOVED_PERMANENTLY,
    ];
    for (index, spoil) in wrong.into_iter().enumerate() {
        let mut wire = Wire::operational();
        let mut response = wire.response(true);
        spoil(&mut response);
        assert!(wire.take(&response, "").is_err(), "{index}");
        assert!(wire.take(&wire.response(true), "").is_err(), "a broken login stays broken");
    }
    let mut wire = Wire::new(None);
    let far = LoginResponse { next: Some(Stage::FullFeature), ..wire.response(true) };
    assert!(matches!(wire.take(&far, ""), Err(Fault::Conduct(_))));
}

#[test]
fn a_login_without_end_ends() {
    let mut wire = Wire::operational();
    let mut asked = 2;
    while wire.take(&wire.response(false), "").is_ok() {
        asked += 1;
    }
    assert_eq!(asked, REQUESTS_MAX);
    let mut wire = Wire::operational();
    for _ in 0..8 {
        let response = LoginResponse { continues: true, ..wire.response(false) };
        wire.take(&response, &"a".repeat(8192)).unwrap();
    }
    let response = LoginResponse { continues: true, ..wire.response(false) };
    assert!(matches!(wire.take(&response, "a"), Err(Fault::Malformed(_))));
}

#[test]
fn what_cannot_be_safe_or_sent_is_refused_before_the_login() {
    let spoilt = |spoil: fn(&mut Chap)| {
        let mut chap = mutual().unwrap();
        spoil(&mut chap);
        Login::new(config(Some(chap))).is_err()
    };
    assert!(!spoilt(|_| {}));
    assert!(spoilt(|chap| chap.theirs = Some(credentials("corbel", "the secret of dom0"))));
    assert!(spoilt(|chap| chap.algorithms.clear()));
    assert!(spoilt(|chap| (chap.theirs, chap.algorithms) = (None, Vec::new())));
    assert!(spoilt(|chap| chap.ours.name = "a\0CHAP_I=1".into()));
    let alias = Some("x".repeat(256));
    assert!(Login::new(Config { alias, ..config(None) }).is_err());
}

#[test]
fn secrets_do_not_show() {
    let wire = Wire::chap(mutual());
    let shown = format!("{:?} {:?}", wire.login, config(mutual()));
    assert!(shown.contains("dom0") && !shown.contains("the secret"));
}

proptest! {
    #[test]
    fn any_responses_end_in_a_step(
        responses in proptest::collection::vec((any::<[u8; 48]>(), any::<u8>(), ".{0,80}"), 0..12),
        chap in 0..3u8,
    ) {
        let mut wire = Wire::new([None, one_way(), mutual()][usize::from(chap)].clone());
        for (mut bhs, pick, text) in responses {
            (bhs[0], bhs[4]) = (0x23, 0);
            let Ok(wild) = LoginResponse::parse(&bhs) else { continue };
            let response = if pick & 0x80 == 0 { wire.response(pick & 0x40 != 0) } else { wild };
            let text = match pick % 4 {
                0 => format!("AuthMethod=CHAP|{text}"),
                1 => "CHAP_A=5|CHAP_I=1|CHAP_C=0x01|".to_owned(),
                2 => format!("MaxBurstLength=512|{text}"),
                _ => text,
            };
            let _ = wire.take(&response, &text);
        }
    }
}
