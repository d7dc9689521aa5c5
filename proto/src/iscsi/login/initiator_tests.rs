//! Both halves of a login against each other.

use super::super::directory::{Access, Directory, Grant};
use super::super::target;
use super::*;
use crate::iscsi::chap::{Policy, Secret};
use crate::iscsi::name::Name;
use crate::iscsi::params::Digest;

struct House(Option<Policy>);

impl Directory for House {
    fn discovery(&self, _: &Name) -> Access {
        self.grant()
    }

    fn target(&self, target: &Name, _: &Name) -> Access {
        if target.as_str() == TARGET { self.grant() } else { Access::NotFound }
    }
}

impl House {
    fn grant(&self) -> Access {
        let (portal_group_tag, alias) = (1, None);
        Access::Granted(Grant { authentication: self.0.clone(), portal_group_tag, alias })
    }
}

const TARGET: &str = "iqn.2026-11.org.example:disk";

fn credentials(name: &str, secret: &str) -> Credentials {
    Credentials { name: name.into(), secret: Secret::new(secret.into()) }
}

fn options() -> Options {
    Options {
        initiator: "iqn.2026-11.org.example:us".into(),
        target: Some(TARGET.into()),
        isid: Isid([0x80, 0, 0, 1, 0, 0]),
        cid: 0,
        limits: Limits::default(),
        chap: None,
    }
}

fn chap(secret: &str, theirs: Option<&str>) -> Option<Chap> {
    Some(Chap {
        algorithms: Algorithm::ALL.to_vec(),
        ours: credentials("us", secret),
        theirs: theirs.map(|secret| credentials("shelf", secret)),
    })
}

fn policy() -> Policy {
    Policy {
        algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
        incoming: vec![credentials("us", "our long secret")],
        outgoing: Some(credentials("shelf", "their long secret")),
    }
}

/// Talks until either side is done.
fn talk(options: Options, policy: Option<Policy>) -> Result<Admitted, Refusal> {
    let house = House(policy);
    let mut server = target::Login::new(Limits::default(), 64);
    let (mut login, mut ask) = Login::new(options);
    loop {
        let (request, text) = (ask.request, &ask.text);
        let mut theirs = |bytes: &mut [u8]| bytes.fill(7);
        let reply = match server.handle(&request, text, &house, &mut theirs) {
            target::Step::Reply(reply) | target::Step::Refuse(reply, _) => reply,
            target::Step::Admit(_) => server.finish(77),
        };
        let mut ours = |bytes: &mut [u8]| bytes.fill(9);
        match login.handle(&reply.response, &reply.text, &mut ours)? {
            Step::Ask(next) => ask = next,
            Step::Admitted(admitted) => return Ok(*admitted),
        }
    }
}

#[test]
fn both_halves_agree_without_authentication() {
    let admitted = talk(options(), None).unwrap();
    assert_eq!(admitted.tsih, 77);
    assert!(!admitted.agreed.initial_r2t && admitted.agreed.immediate_data);
    assert_eq!(admitted.agreed.peer_segment_bytes_max, 262_144);
}

#[test]
fn digests_we_insist_on_are_agreed() {
    let crc = vec![Digest::Crc32c];
    let limits = Limits { header_digests: crc.clone(), data_digests: crc, ..Limits::default() };
    let agreed = talk(Options { limits, ..options() }, None).unwrap().agreed;
    assert_eq!((agreed.header_digest, agreed.data_digest), (Digest::Crc32c, Digest::Crc32c));
}

#[test]
fn the_right_secrets_let_in_and_no_others() {
    let attempt = |chap| talk(Options { chap, ..options() }, Some(policy()));
    assert!(attempt(chap("our long secret", None)).is_ok());
    assert!(attempt(chap("our long secret", Some("their long secret"))).is_ok());
    let wrong = attempt(chap("another secret", None));
    assert_eq!(wrong, Err(Refusal::Status(Status::AUTHENTICATION_FAILURE)));
    let impostor = attempt(chap("our long secret", Some("not their secret")));
    assert!(matches!(impostor, Err(Refusal::Security(_))), "{impostor:?}");
    assert!(attempt(None).is_err());
}

#[test]
fn a_target_without_chap_is_not_let_to_skip_it() {
    let skipped = talk(Options { chap: chap("our long secret", None), ..options() }, None);
    assert!(skipped.is_err(), "{skipped:?}");
}

#[test]
fn discovery_needs_no_target_and_an_unknown_one_is_not_found() {
    assert!(talk(Options { target: None, ..options() }, None).is_ok());
    let target = Some("iqn.2026-11.org.example:other".into());
    let unknown = talk(Options { target, ..options() }, None);
    assert_eq!(unknown, Err(Refusal::Status(Status::NOT_FOUND)));
}

#[test]
fn secrets_do_not_show() {
    let shown = format!("{:?}", Options { chap: chap("our long secret", None), ..options() });
    assert!(!shown.contains("our long secret"));
}
