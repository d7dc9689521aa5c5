//! What initiators in the field really send, byte for byte, against the target's half.
//!
//! libiscsi 1.19 and QEMU 7.2 were recorded on the wire for these tests; their challenge was
//! [`CHALLENGE`], which the tests draw again. ESX is from a public packet capture of 2012.
//! iPXE and open-iscsi are from what their sources write.

use super::directory::{Access, Directory, Grant};
use super::target::{Admission, Login, Step};
use crate::iscsi::chap::{Algorithm, Credentials, Policy, Secret, respond};
use crate::iscsi::name::Name;
use crate::iscsi::params::{Digest, Limits, SessionType};
use crate::iscsi::pdu::login::{LoginRequest, Stage};
use crate::iscsi::text::{Keys, binary, binary_text};

/// Every random byte the tests draw.
const CHALLENGE: u8 = 7;

/// A header in hexadecimal without its last 16 bytes, which are all zero, and the text with `|`
/// for NUL.
type Request = (&'static str, &'static str);

struct House(Option<Policy>);

impl House {
    const fn open() -> Self {
        Self(None)
    }

    fn guarded(user: &str) -> Self {
        let credentials = |name: &str, secret: &str| Credentials {
            name: name.into(),
            secret: Secret::new(secret.into()),
        };
        Self(Some(Policy {
            algorithms: Algorithm::ALL.into(),
            incoming: vec![credentials(user, "thesecretofdom0")],
            outgoing: Some(credentials("corbel", "thesecretofcorbel")),
        }))
    }

    fn access(&self) -> Access {
        let authentication = self.0.clone();
        Access::Granted(Grant {
            authentication,
            portal_group_tag: 1,
            alias: None,
            digests_required: Default::default(),
            terms: Default::default(),
        })
    }
}

impl Directory for House {
    fn discovery(&self, _: &Name) -> Access {
        self.access()
    }

    fn target(&self, _: &Name, _: &Name) -> Access {
        self.access()
    }
}

/// The text of each reply, the last stage each agreed to, and the admission.
struct Transcript {
    replies: Vec<(String, Option<Stage>)>,
    admission: Admission,
}

fn read(header: &str, text: &str) -> (LoginRequest, String) {
    let mut bhs = [0; 48];
    bhs[..32].copy_from_slice(&binary(&format!("0x{header}")).unwrap());
    (LoginRequest::parse(&bhs).unwrap(), text.replace('|', "\0"))
}

fn replay(house: &House, requests: &[Request]) -> Transcript {
    replay_within(house, Limits::default(), requests)
}

fn replay_within(house: &House, limits: Limits, requests: &[Request]) -> Transcript {
    let mut login = Login::new(limits, 64);
    let mut replies = Vec::new();
    let mut admission = None;
    for (header, text) in requests {
        assert!(admission.is_none(), "in before {text}");
        let (request, text) = read(header, text);
        assert_eq!(request.data_len as usize, text.len(), "the capture is whole");
        let step = login.handle(&request, text.as_bytes(), house, &mut |b| b.fill(CHALLENGE));
        let reply = match step {
            Step::Reply(reply) => reply,
            Step::Admit(admitted) => {
                admission = Some(*admitted);
                login.finish(1)
            }
            Step::Refuse(_, fault) => panic!("refused: {fault}"),
        };
        let text = String::from_utf8(reply.text).unwrap().replace('\0', "|");
        replies.push((text, reply.response.next));
    }
    Transcript { replies, admission: admission.expect("the requests lead in") }
}

fn refused(house: &House, requests: &[Request]) -> u16 {
    let mut login = Login::new(Limits::default(), 64);
    for (header, text) in requests {
        let (request, text) = read(header, text);
        let step = login.handle(&request, text.as_bytes(), house, &mut |b| b.fill(CHALLENGE));
        if let Step::Refuse(reply, _) = step {
            return reply.response.status.code();
        }
    }
    panic!("not refused");
}

/// `iscsi-ls`.
const LIBISCSI_DISCOVERY: [Request; 1] = [(
    "438700000000018b8072e97400000000124cc3c1000000006878fc1700000001",
    "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-ls|SessionType=Discovery|\
     HeaderDigest=None|DataDigest=None|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
     FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=0|MaxOutstandingR2T=1|\
     ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|\
     MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|",
)];

/// `iscsi-inq` without authentication.
const LIBISCSI: [Request; 1] = [(
    "43870000000001b78062fb2d000000001fb083ba0000000047166f3100000001",
    "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq|\
     TargetName=iqn.2026-11.org.example:md3|SessionType=Normal|HeaderDigest=None,CRC32C|\
     DataDigest=None|InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|\
     FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=0|MaxOutstandingR2T=1|\
     ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|\
     MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|",
)];

/// `iscsi-inq` as `dom0` with the secret `thesecretofdom0`.
const LIBISCSI_CHAP: [Request; 4] = [
    (
        "4381000000000090809320ba000000005e410de000000000684e1f5300000001",
        "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq|\
     TargetName=iqn.2026-11.org.example:md3|SessionType=Normal|AuthMethod=CHAP,None|",
    ),
    ("4301000000000009809320ba000000005e410de000000000684e1f5300000002", "CHAP_A=5|"),
    (
        "4381000000000036809320ba000000005e410de000000000684e1f5300000003",
        "CHAP_N=dom0|CHAP_R=0xA8E31230BA1171558C0BB50A196960A1|",
    ),
    (
        "438700000000013c809320ba000000005e410de000000000684e1f5300000004",
        "HeaderDigest=None,CRC32C|DataDigest=None|InitialR2T=No|ImmediateData=Yes|\
     MaxBurstLength=262144|FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=0|\
     MaxOutstandingR2T=1|ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|\
     MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|",
    ),
];

/// The same, and the target is to prove `thesecretofcorbel` too.
const LIBISCSI_MUTUAL: [Request; 4] = [
    (
        "438100000000009080ec3559000000005fea821b0000000073ed5b1400000001",
        "InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq|\
     TargetName=iqn.2026-11.org.example:md3|SessionType=Normal|AuthMethod=CHAP,None|",
    ),
    ("430100000000000980ec3559000000005fea821b0000000073ed5b1400000002", "CHAP_A=5|"),
    (
        "438100000000008980ec3559000000005fea821b0000000073ed5b1400000003",
        "CHAP_N=dom0|CHAP_R=0xA8E31230BA1171558C0BB50A196960A1|CHAP_I=1|\
     CHAP_C=0x740699A45EB70576228258A7DC76B521B88E92CB7F6FEF6D2FEFE07448FB88BC|",
    ),
    (
        "438700000000013c80ec3559000000005fea821b0000000073ed5b1400000004",
        "HeaderDigest=None,CRC32C|DataDigest=None|InitialR2T=No|ImmediateData=Yes|\
     MaxBurstLength=262144|FirstBurstLength=262144|DefaultTime2Wait=2|DefaultTime2Retain=0|\
     MaxOutstandingR2T=1|ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|MaxConnections=1|\
     MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|",
    ),
];

/// `qemu-img info iscsi://..`.
const QEMU: [Request; 1] = [(
    "438700000000019e8016a85600000000293861c0000000003da6ae2d00000001",
    "InitiatorName=iqn.2008-11.org.linux-kvm|TargetName=iqn.2026-11.org.example:md3|\
     SessionType=Normal|HeaderDigest=None,CRC32C|DataDigest=None|InitialR2T=No|\
     ImmediateData=Yes|MaxBurstLength=262144|FirstBurstLength=262144|DefaultTime2Wait=2|\
     DefaultTime2Retain=0|MaxOutstandingR2T=1|ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|\
     MaxConnections=1|MaxRecvDataSegmentLength=262144|DataPDUInOrder=Yes|\
     DataSequenceInOrder=Yes|",
)];

/// Dynamic discovery of an ESX host.
const ESX_DISCOVERY: [Request; 1] = [(
    "43870000000000e700023d000000000000000000000000000000000100000000",
    "InitiatorName=iqn.1998-01.com.vmware:wdc-tse-h171-3c00d9ce|SessionType=Discovery|\
     HeaderDigest=None|DataDigest=None|DefaultTime2Wait=0|DefaultTime2Retain=0|IFMarker=No|\
     OFMarker=No|ErrorRecoveryLevel=0|MaxRecvDataSegmentLength=32768|",
)];

/// iPXE sets T in every request, ready or not.
const IPXE_CHAP: [Request; 4] = [
    (
        "4381000000000077400027230000000000000000000000000000000000000001",
        "InitiatorName=iqn.2010-04.org.ipxe:dom0|TargetName=iqn.2026-11.org.example:md3|\
     SessionType=Normal|AuthMethod=CHAP,None|",
    ),
    ("4381000000000009400027230000000000000000000000000000000000000002", "CHAP_A=5|"),
    (
        "4381000000000036400027230000000000000000000000000000000000000003",
        "CHAP_N=dom0|CHAP_R=0xa8e31230ba1171558c0bb50a196960a1|",
    ),
    (
        "43870000000000e1400027230000000000000000000000000000000000000004",
        "HeaderDigest=None|DataDigest=None|InitialR2T=Yes|MaxRecvDataSegmentLength=8192|\
     MaxBurstLength=262144|DefaultTime2Wait=0|DefaultTime2Retain=0|MaxOutstandingR2T=1|\
     DataPDUInOrder=Yes|DataSequenceInOrder=Yes|ErrorRecoveryLevel=0|",
    ),
];

/// open-iscsi with CHAP, its newest algorithm first.
const OPEN_ISCSI_CHAP: [Request; 4] = [
    (
        "438100000000008d00023d000001000000000000000000000000000100000000",
        "InitiatorName=iqn.1994-05.com.redhat:dom0|InitiatorAlias=dom0|\
     TargetName=iqn.2026-11.org.example:md3|SessionType=Normal|AuthMethod=CHAP,None|",
    ),
    ("430000000000000f00023d000001000000000000000000000000000100000001", "CHAP_A=8,7,6,5|"),
    (
        "438100000000005600023d000001000000000000000000000000000100000002",
        "CHAP_N=dom0|CHAP_R=0x89da9a459b635e1c2ac41f25fb29dfb78b1f1f930ad5d4a8c8e4626ef0dd57af|",
    ),
    (
        "438700000000013700023d000001000000000000000000000000000100000003",
        "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|IFMarker=No|\
     OFMarker=No|ErrorRecoveryLevel=0|InitialR2T=No|ImmediateData=Yes|\
     MaxBurstLength=16776192|FirstBurstLength=262144|MaxOutstandingR2T=1|MaxConnections=1|\
     DataPDUInOrder=Yes|DataSequenceInOrder=Yes|MaxRecvDataSegmentLength=262144|",
    ),
];

/// Discovery with nothing to negotiate: open-iscsi leaves the operational stage out.
const OPEN_ISCSI_DISCOVERY: [Request; 3] = [
    (
        "438300000000006900023d000001000000000000000000000000000100000000",
        "InitiatorName=iqn.1994-05.com.redhat:dom0|InitiatorAlias=dom0|SessionType=Discovery|\
     AuthMethod=CHAP,None|",
    ),
    ("430000000000000f00023d000001000000000000000000000000000100000001", "CHAP_A=8,7,6,5|"),
    (
        "438300000000005600023d000001000000000000000000000000000100000002",
        "CHAP_N=dom0|CHAP_R=0x89da9a459b635e1c2ac41f25fb29dfb78b1f1f930ad5d4a8c8e4626ef0dd57af|",
    ),
];

#[test]
fn libiscsi_discovers() {
    let transcript = replay(&House::open(), &LIBISCSI_DISCOVERY);
    assert_eq!(transcript.admission.session, SessionType::Discovery);
    let [(text, Some(Stage::FullFeature))] = &transcript.replies[..] else { panic!("one reply") };
    assert_eq!(
        text,
        "HeaderDigest=None|DataDigest=None|InitialR2T=Irrelevant|ImmediateData=Irrelevant|\
         MaxBurstLength=Irrelevant|DefaultTime2Wait=2|DefaultTime2Retain=0|\
         ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|\
         MaxConnections=Irrelevant|DataPDUInOrder=Irrelevant|DataSequenceInOrder=Irrelevant|\
         FirstBurstLength=Irrelevant|MaxOutstandingR2T=Irrelevant|MaxRecvDataSegmentLength=262144|"
    );
}

const SETTLED: &str = "InitialR2T=No|ImmediateData=Yes|MaxBurstLength=262144|DefaultTime2Wait=2|\
     DefaultTime2Retain=0|ErrorRecoveryLevel=0|IFMarker=No|OFMarker=No|\
     MaxConnections=1|DataPDUInOrder=Yes|DataSequenceInOrder=Yes|FirstBurstLength=262144|\
     MaxOutstandingR2T=1|MaxRecvDataSegmentLength=262144|";

#[test]
fn libiscsi_and_qemu_log_in_with_a_single_request() {
    for (requests, name) in [
        (&LIBISCSI, "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-inq"),
        (&QEMU, "iqn.2008-11.org.linux-kvm"),
    ] {
        let Transcript { replies, admission } = replay(&House::open(), requests);
        let digests = "HeaderDigest=None|DataDigest=None|";
        let expected = format!("TargetPortalGroupTag=1|{digests}{SETTLED}");
        assert_eq!(replies, [(expected, Some(Stage::FullFeature))]);
        assert_eq!(admission.initiator.as_str(), name);
        assert_eq!(admission.agreed.peer_segment_bytes_max, 262_144);
        assert!(!admission.agreed.initial_r2t && admission.agreed.immediate_data);
    }
}

#[test]
fn a_target_that_insists_on_header_digests_gets_them_from_libiscsi() {
    let limits = Limits { header_digests: vec![Digest::Crc32c], ..Limits::default() };
    let agreed = replay_within(&House::open(), limits, &LIBISCSI).admission.agreed;
    assert_eq!((agreed.header_digest, agreed.data_digest), (Digest::Crc32c, Digest::None));
}

#[test]
fn libiscsi_and_qemu_skip_the_security_stage_and_are_refused_where_it_counts() {
    assert_eq!(refused(&House::guarded("dom0"), &LIBISCSI), 0x0201);
    assert_eq!(refused(&House::guarded("dom0"), &QEMU), 0x0201);
    assert_eq!(refused(&House::guarded("dom0"), &LIBISCSI_DISCOVERY), 0x0201);
}

#[test]
fn libiscsi_proves_itself_by_chap() {
    let Transcript { replies, admission } = replay(&House::guarded("dom0"), &LIBISCSI_CHAP);
    assert_eq!(replies[0], ("TargetPortalGroupTag=1|AuthMethod=CHAP|".into(), None));
    let challenge = format!("CHAP_A=5|CHAP_I=7|CHAP_C={}|", binary_text(&[CHALLENGE; 32]));
    assert_eq!(replies[1], (challenge, None));
    assert_eq!(replies[2], (String::new(), Some(Stage::Operational)));
    assert_eq!(replies[3].1, Some(Stage::FullFeature));
    assert_eq!(admission.authenticated_as.as_deref(), Some("dom0"));
    assert_eq!(refused(&House::guarded("dom1"), &LIBISCSI_CHAP), 0x0201);
}

#[test]
fn we_prove_ourselves_to_libiscsi() {
    let Transcript { replies, .. } = replay(&House::guarded("dom0"), &LIBISCSI_MUTUAL);
    let theirs = LIBISCSI_MUTUAL[2].1.replace('|', "\0");
    let theirs = binary(Keys::parse(theirs.as_bytes()).unwrap().value("CHAP_C").unwrap()).unwrap();
    let secret = Secret::new("thesecretofcorbel".into());
    let proof = binary_text(&respond(Algorithm::Md5, 1, &secret, &theirs));
    let expected = format!("CHAP_N=corbel|CHAP_R={proof}|");
    assert_eq!(replies[2], (expected, Some(Stage::Operational)));
}

#[test]
fn esx_discovers() {
    let Transcript { replies, admission } = replay(&House::open(), &ESX_DISCOVERY);
    let expected = "HeaderDigest=None|DataDigest=None|DefaultTime2Wait=2|DefaultTime2Retain=0|\
                    IFMarker=No|OFMarker=No|ErrorRecoveryLevel=0|MaxRecvDataSegmentLength=262144|";
    assert_eq!(replies, [(expected.to_owned(), Some(Stage::FullFeature))]);
    assert_eq!(admission.agreed.peer_segment_bytes_max, 32_768);
}

#[test]
fn ipxe_is_held_in_the_security_stage_until_it_has_proven_itself() {
    let Transcript { replies, admission } = replay(&House::guarded("dom0"), &IPXE_CHAP);
    let stages: Vec<_> = replies.iter().map(|&(_, next)| next).collect();
    assert_eq!(stages, [None, None, Some(Stage::Operational), Some(Stage::FullFeature)]);
    assert!(admission.agreed.initial_r2t);
    assert_eq!(admission.agreed.peer_segment_bytes_max, 8192);
}

#[test]
fn open_iscsi_logs_in_by_chap_and_may_leave_out_the_operational_stage() {
    let Transcript { replies, admission } = replay(&House::guarded("dom0"), &OPEN_ISCSI_CHAP);
    let stages: Vec<_> = replies.iter().map(|&(_, next)| next).collect();
    assert_eq!(stages, [None, None, Some(Stage::Operational), Some(Stage::FullFeature)]);
    assert!(replies[1].0.starts_with("CHAP_A=8|"));
    assert_eq!(admission.agreed.burst_bytes_max, 16_776_192);

    let transcript = replay(&House::guarded("dom0"), &OPEN_ISCSI_DISCOVERY);
    let stages: Vec<_> = transcript.replies.iter().map(|&(_, next)| next).collect();
    assert_eq!(stages, [None, None, Some(Stage::FullFeature)]);
    assert_eq!(transcript.admission.agreed.segment_bytes_max, 8192, "none was declared");
}
