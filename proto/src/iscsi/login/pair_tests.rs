//! Logins between our own two halves, in every combination.

use super::directory::{Access, Directory, Grant};
use super::initiator::{Chap, Config, Fault, Login, Outcome, Step};
use super::{fault, target};
use crate::iscsi::chap::{Algorithm, Credentials, Policy, Secret};
use crate::iscsi::name::Name;
use crate::iscsi::params::{Digest, Limits, Negotiated, SessionType};
use crate::iscsi::pdu::login::{Isid, LoginRequest, LoginResponse, Status};

/// A directory with one answer for everybody.
struct House(Access);

impl Directory for House {
    fn discovery(&self, _: &Name) -> Access {
        self.0.clone()
    }

    fn target(&self, _: &Name, _: &Name) -> Access {
        self.0.clone()
    }
}

fn credentials(name: &str, secret: &str) -> Credentials {
    Credentials { name: name.into(), secret: Secret::new(secret.into()) }
}

fn ours() -> Credentials {
    credentials("dom0", "the secret of dom0")
}

fn theirs() -> Credentials {
    credentials("corbel", "the secret of corbel")
}

fn open() -> Access {
    granted(None)
}

fn granted(authentication: Option<Policy>) -> Access {
    Access::Granted(Grant {
        authentication,
        portal_group_tag: 7,
        alias: Some("md3".into()),
        digests_required: Default::default(),
        terms: Default::default(),
    })
}

/// A target that asks for CHAP with `algorithms`, and can prove itself.
fn guarded(algorithms: &[Algorithm]) -> Access {
    granted(Some(Policy {
        algorithms: algorithms.into(),
        incoming: vec![ours()],
        outgoing: Some(theirs()),
    }))
}

fn config(chap: Option<Chap>) -> Config {
    Config {
        initiator: "iqn.2026-11.org.example:dom0".parse().unwrap(),
        alias: Some("dom0".into()),
        target: Some("iqn.2026-11.org.example:md3".parse().unwrap()),
        isid: Isid([0x80, 1, 2, 3, 4, 5]),
        tsih: 0,
        cid: 1,
        cmd_sn: 100,
        limits: Limits::default(),
        chap,
    }
}

fn one_way(algorithms: &[Algorithm]) -> Option<Chap> {
    Some(Chap { algorithms: algorithms.into(), ours: ours(), theirs: None })
}

fn mutual(algorithms: &[Algorithm]) -> Option<Chap> {
    Some(Chap { algorithms: algorithms.into(), ours: ours(), theirs: Some(theirs()) })
}

/// How a login ended, on both sides.
#[derive(Debug)]
enum End {
    In(Box<Outcome>, Box<target::Admission>),
    Refused(Status, fault::Fault),
    Redirected(String, bool),
    Broken(Fault),
}

impl End {
    fn both_in(self) -> (Outcome, target::Admission) {
        match self {
            Self::In(outcome, admission) => (*outcome, *admission),
            end => panic!("{end:?}"),
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::Refused(status, fault) => {
                assert_eq!(status, fault.status());
                status.code()
            }
            end => panic!("{end:?}"),
        }
    }

    fn fault(self) -> Fault {
        match self {
            Self::Broken(fault) => fault,
            end => panic!("{end:?}"),
        }
    }
}

/// Runs a login, every header over its 48 bytes on the wire.
fn log_in(config: Config, access: Access) -> End {
    log_in_within(config, access, Limits::default())
}

fn log_in_within(config: Config, access: Access, limits: Limits) -> End {
    let mut drawn = 0;
    let mut random = |bytes: &mut [u8]| {
        drawn += 1;
        bytes.fill(drawn);
    };
    let house = House(access);
    let mut initiator = Login::new(config).unwrap();
    let mut target = target::Login::new(limits, 64);
    let mut ask = initiator.start();
    loop {
        assert_eq!(ask.request.data_len as usize, ask.text.len());
        let request = LoginRequest::parse(&ask.request.emit()).unwrap();
        let (reply, ended) = match target.handle(&request, &ask.text, &house, &mut random) {
            target::Step::Reply(reply) => (reply, None),
            target::Step::Admit(admission) => (target.finish(77), Some(Ok(admission))),
            target::Step::Refuse(reply, fault) => (reply, Some(Err(fault))),
        };
        let response = LoginResponse::parse(&reply.response.emit()).unwrap();
        match (initiator.handle(&response, &reply.text, &mut random), ended) {
            (Ok(Step::Ask(next)), None) => ask = next,
            (Ok(Step::Done(outcome)), Some(Ok(admission))) => return End::In(outcome, admission),
            (Ok(Step::Refused(status)), Some(Err(fault))) => return End::Refused(status, fault),
            (Ok(Step::Redirect { address, permanent }), Some(Err(_))) => {
                return End::Redirected(address, permanent);
            }
            (Err(fault), _) => return End::Broken(fault),
            (step, ended) => panic!("the sides disagree: {step:?} {ended:?}"),
        }
    }
}

/// The terms as the other side should see them.
fn mirrored(agreed: Negotiated) -> Negotiated {
    Negotiated {
        peer_segment_bytes_max: agreed.segment_bytes_max,
        segment_bytes_max: agreed.peer_segment_bytes_max,
        ..agreed
    }
}

#[test]
fn both_sides_agree_without_authentication() {
    let (outcome, admission) = log_in(config(None), open()).both_in();
    assert_eq!(outcome.agreed, mirrored(admission.agreed));
    assert_eq!((outcome.tsih, outcome.portal_group_tag), (77, Some(7)));
    assert_eq!(outcome.target_alias.as_deref(), Some("md3"));
    assert_eq!(outcome.exp_stat_sn, admission.stat_sn);
    assert_eq!((outcome.cmd_sn, outcome.max_cmd_sn), (100, 163));
    assert_eq!(admission.exp_cmd_sn, 100);
    assert_eq!(admission.initiator_alias.as_deref(), Some("dom0"));
    assert_eq!((outcome.target_proven, admission.authenticated_as), (false, None));
    assert_eq!(outcome.start().agreed.burst_bytes_max, 16_776_192);
}

#[test]
fn chap_with_each_algorithm_one_way_and_mutual() {
    for algorithm in Algorithm::ALL {
        for (chap, proven) in [(one_way(&[algorithm]), false), (mutual(&[algorithm]), true)] {
            let end = log_in(config(chap), guarded(&Algorithm::ALL));
            let (outcome, admission) = end.both_in();
            assert_eq!(outcome.target_proven, proven, "{algorithm:?}");
            assert_eq!(admission.authenticated_as.as_deref(), Some("dom0"));
            assert_eq!(outcome.agreed, mirrored(admission.agreed));
        }
    }
}

#[test]
fn a_discovery_session_agrees_on_what_it_needs() {
    let discovery = Config { target: None, ..config(mutual(&Algorithm::ALL)) };
    let (outcome, admission) = log_in(discovery, guarded(&Algorithm::ALL)).both_in();
    assert_eq!((admission.session, admission.target), (SessionType::Discovery, None));
    assert_eq!((outcome.portal_group_tag, outcome.target_proven), (None, true));
    assert_eq!(outcome.agreed, mirrored(admission.agreed));
}

#[test]
fn one_common_algorithm_is_enough_and_without_one_nobody_comes_in() {
    let weak = [Algorithm::Sha1, Algorithm::Md5];
    log_in(config(one_way(&weak)), guarded(&Algorithm::ALL)).both_in();
    let end = log_in(config(one_way(&weak)), guarded(&[Algorithm::Sha256]));
    assert_eq!(end.status(), 0x0201);
}

#[test]
fn our_wrong_secret_or_name_is_refused_by_the_target() {
    for wrong in [credentials("dom0", "not the secret"), credentials("dom1", "the secret of dom0")]
    {
        for theirs in [None, Some(theirs())] {
            let algorithms = Algorithm::ALL.to_vec();
            let chap = Chap { algorithms, ours: wrong.clone(), theirs };
            let end = log_in(config(Some(chap)), guarded(&Algorithm::ALL));
            assert_eq!(end.status(), 0x0201);
        }
    }
}

#[test]
fn a_target_with_a_wrong_secret_or_name_is_left_by_us() {
    for wrong in [credentials("corbel", "a guess"), credentials("lebroc", "the secret of corbel")] {
        let algorithms = Algorithm::ALL.to_vec();
        let chap = Chap { algorithms, ours: ours(), theirs: Some(wrong) };
        let end = log_in(config(Some(chap)), guarded(&Algorithm::ALL));
        assert_eq!(end.fault(), Fault::Authentication("wrong name or secret of the target"));
    }
}

#[test]
fn who_insists_on_authentication_gets_it_or_stays_out() {
    // The target insists, we have nothing.
    assert_eq!(log_in(config(None), guarded(&Algorithm::ALL)).status(), 0x0201);
    // We insist, the target has nothing to prove itself with, or does not authenticate at all.
    let mute = Policy { algorithms: Algorithm::ALL.into(), incoming: vec![ours()], outgoing: None };
    assert_eq!(log_in(config(mutual(&Algorithm::ALL)), granted(Some(mute))).status(), 0x0201);
    assert_eq!(log_in(config(mutual(&Algorithm::ALL)), open()).status(), 0x0201);
    assert_eq!(log_in(config(one_way(&Algorithm::ALL)), open()).status(), 0x0201);
}

#[test]
fn each_side_may_want_refuse_or_insist_on_digests() {
    const NONE: &[Digest] = &[Digest::None];
    const CRC: &[Digest] = &[Digest::Crc32c];
    const EITHER: &[Digest] = &[Digest::None, Digest::Crc32c];
    const RATHER: &[Digest] = &[Digest::Crc32c, Digest::None];
    for (wanted, taken, agreed) in [
        (NONE, EITHER, Some(Digest::None)),
        (CRC, EITHER, Some(Digest::Crc32c)),
        (RATHER, EITHER, Some(Digest::Crc32c)),
        (EITHER, RATHER, Some(Digest::None)),
        (EITHER, CRC, Some(Digest::Crc32c)),
        (RATHER, NONE, Some(Digest::None)),
        (CRC, NONE, None),
        (NONE, CRC, None),
    ] {
        let limits = |digests: &[Digest]| Limits {
            header_digests: digests.into(),
            data_digests: digests.into(),
            ..Limits::default()
        };
        let wants = Config { limits: limits(wanted), ..config(None) };
        match (log_in_within(wants, open(), limits(taken)), agreed) {
            (End::In(outcome, _), Some(agreed)) => {
                assert_eq!(outcome.agreed.header_digest, agreed, "{wanted:?} {taken:?}");
                assert_eq!(outcome.agreed.data_digest, agreed);
            }
            (End::Refused(..) | End::Broken(_), None) => {}
            (end, _) => panic!("{wanted:?} {taken:?} {end:?}"),
        }
    }
}

#[test]
fn the_lesser_terms_win_whoever_asks_for_them() {
    let low = Limits {
        segment_bytes_max: 4096,
        burst_bytes_max: 65_536,
        first_burst_bytes_max: 16_384,
        initial_r2t: true,
        immediate_data: false,
        outstanding_r2t_max: 1,
        time2wait_s: 5,
        ..Limits::default()
    };
    let asks_low = Config { limits: low.clone(), ..config(None) };
    let ends = [log_in(asks_low, open()), log_in_within(config(None), open(), low)];
    let [ours, theirs] = ends.map(|end| end.both_in().0.agreed);
    assert_eq!((ours.segment_bytes_max, ours.peer_segment_bytes_max), (4096, 262_144));
    assert_eq!(theirs, mirrored(ours));
    assert_eq!((ours.burst_bytes_max, ours.first_burst_bytes_max), (65_536, 16_384));
    assert_eq!((ours.initial_r2t, ours.immediate_data), (true, false));
    assert_eq!((ours.outstanding_r2t_max, ours.time2wait_s), (1, 5));
}

#[test]
fn a_connection_that_joins_a_session_does_not_negotiate_its_terms_again() {
    let joining = Config { tsih: 77, cid: 2, ..config(None) };
    let (outcome, admission) = log_in(joining, open()).both_in();
    assert_eq!((outcome.tsih, outcome.cid), (77, 2));
    assert_eq!((admission.tsih, admission.cid), (77, 2));
}

#[test]
fn redirections_and_refusals_are_told_apart() {
    for permanent in [false, true] {
        let address = "[fd00::1]:3260".to_owned();
        let end = log_in(config(None), Access::Redirect { address, permanent });
        assert!(matches!(end, End::Redirected(a, p) if a == "[fd00::1]:3260" && p == permanent));
    }
    for (access, status) in [
        (Access::NotFound, 0x0203),
        (Access::Forbidden, 0x0202),
        (Access::Removed, 0x0204),
        (Access::Busy, 0x0301),
    ] {
        assert_eq!(log_in(config(None), access).status(), status);
    }
}
