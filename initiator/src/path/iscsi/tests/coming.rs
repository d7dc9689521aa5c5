use corbel_proto::iscsi::chap::{Algorithm, Credentials, Policy, Secret};
use corbel_proto::iscsi::login::directory::{Access, Grant};
use corbel_proto::iscsi::params::{Digest, Limits};
use corbel_proto::iscsi::pdu::asynchronous::AsyncEvent;
use corbel_proto::time::{Duration, Instant};

use super::super::config::{Chap, Config, Digests};
use super::bench::{Bench, ISID, config, ms};
use super::peer::{Disk, Trick, granted};
use crate::path::{PathEvent, PathFault, Verdict};

#[test]
fn a_path_says_who_the_unit_is_before_it_takes_anything() {
    let mut bench = Bench::new(config(), Disk::new(4096));
    let early = bench.write(0, 1, 1);
    assert_eq!(bench.verdict(early), Some(Verdict::Elsewhere(PathFault::Starting)));
    bench.path.start(bench.now);
    bench.run();
    let facts = bench.take_ready().unwrap();
    assert_eq!(facts.identity.wwn.as_deref(), Some("3000000000000001"));
    assert_eq!((facts.identity.serial.as_str(), facts.identity.size_bytes), ("S1", 4096 * 512));
    assert_eq!((facts.physical_block_bytes, facts.priority), (4096, 50));
    assert_eq!((facts.volatile_cache, facts.read_only), (true, false));
    assert_eq!((facts.discard, facts.write_zeroes), (false, false));
    assert_eq!(facts.cache_domain, "iqn.2026-11.org.example:md3,1");
    assert_eq!(facts.group_serial, "S1");
    assert_eq!(bench.peer().isid, Some(ISID));
    assert!(bench.disk.count(0x2a) == 0 && bench.path.is_quiet());
}

#[test]
fn the_first_retry_is_made_at_once_and_later_ones_ever_more_rarely() {
    let mut bench = Bench::new(config(), Disk::new(64));
    bench.accepts = false;
    bench.path.start(bench.now);
    bench.pass(Duration::from_secs(4));
    let times: Vec<Instant> = bench.attempts.iter().map(|(at, _)| *at).collect();
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps[0], Duration::ZERO);
    let limits = [100, 200, 400, 700, 700];
    for (gap, limit) in gaps[1..].iter().zip(limits) {
        assert!(*gap <= ms(limit) && *gap >= ms(limit * 3 / 4), "{gap:?} for {limit}");
    }
    assert_eq!(bench.take_down(), Some(PathFault::Unreachable));
    assert_eq!(bench.path.why().as_deref(), Some("refused"));
    assert!(bench.path.next(bench.now).unwrap().starts_with("connects again in 0."));
    assert!(bench.events.is_empty(), "one Down for one fault: {:?}", bench.events);
}

#[test]
fn a_restarted_target_is_found_within_a_second_however_long_it_was_gone() {
    for gone in [ms(0), ms(50), ms(950), Duration::from_secs(3), Duration::from_secs(600)] {
        let mut bench = Bench::up(config(), Disk::new(64));
        bench.pass(Duration::from_secs(10));
        bench.accepts = false;
        bench.reset();
        bench.pass(gone);
        bench.accepts = true;
        let back = bench.now;
        bench.take_down();
        while bench.take_ready().is_none() {
            bench.pass(ms(10));
            assert!(bench.now - back <= ms(1000), "gone for {gone:?}");
        }
    }
}

#[test]
fn a_session_that_never_lasts_is_not_tried_without_pause() {
    let mut bench = Bench::up(config(), Disk::new(64));
    for _ in 0..40 {
        while bench.peer.is_none() {
            bench.pass(ms(5));
        }
        bench.reset();
    }
    let [(first, _), .., (last, _)] = bench.attempts[..] else { panic!("many attempts") };
    assert!(last - first > Duration::from_secs(15), "{:?}", last - first);
}

#[test]
fn a_portal_that_says_nothing_is_unreachable_and_a_login_without_answer_silent() {
    let mut bench = Bench::new(config(), Disk::new(64));
    bench.cable = false;
    bench.path.start(bench.now);
    bench.pass(ms(1499));
    assert_eq!(bench.take_down(), None);
    bench.pass(ms(1));
    assert_eq!(bench.take_down(), Some(PathFault::Unreachable));

    let mut bench = Bench::new(config(), Disk::new(64));
    bench.path.start(bench.now);
    let Some(super::super::wire::Wire::Connect { stream, .. }) = bench.path.poll_wire() else {
        panic!("it connects");
    };
    bench.path.connected(bench.now, stream);
    bench.cable = false;
    bench.pass(ms(2999));
    assert_eq!(bench.take_down(), None);
    bench.pass(ms(1));
    assert_eq!(bench.take_down(), Some(PathFault::Silent));
}

/// A target that has a queue of connections before ours, each of which takes it 15 s.
#[test]
fn a_login_without_answer_gives_the_next_one_more_time() {
    let mut bench = Bench::new(config(), Disk::new(64));
    bench.deaf = true;
    bench.path.start(bench.now);
    bench.pass(Duration::from_secs(70));
    let began: Vec<_> = bench.attempts.iter().map(|(at, _)| *at).collect();
    let took = began.windows(2).map(|two| (two[1] - two[0]).as_millis() / 1000);
    assert_eq!(took.collect::<Vec<_>>(), [3, 6, 12, 20, 20]);
}

fn credentials(name: &str, secret: &str) -> Credentials {
    Credentials { name: name.into(), secret: Secret::new(secret.into()) }
}

fn guarded() -> Access {
    let policy = Policy {
        algorithms: Algorithm::ALL.to_vec(),
        incoming: vec![credentials("dom0", "the secret of dom0")],
        outgoing: Some(credentials("md3", "the secret of md3")),
    };
    let Access::Granted(grant) = granted() else { unreachable!() };
    Access::Granted(Grant { authentication: Some(policy), ..grant })
}

fn with_chap(secret: &str, theirs: Option<&str>) -> Config {
    let theirs = theirs.map(|secret| credentials("md3", secret));
    Config { chap: Some(Chap { ours: credentials("dom0", secret), theirs }), ..config() }
}

#[test]
fn chap_one_way_and_mutual_lets_in_and_says_in_words_why_not() {
    let ours = "the secret of dom0";
    for (config, why) in [
        (with_chap(ours, None), None),
        (with_chap(ours, Some("the secret of md3")), None),
        (with_chap("wrong", None), Some("it does not accept our CHAP name or secret")),
        (with_chap(ours, Some("wrong")), Some("wrong name or secret of the target")),
        (config(), Some("it does not accept our CHAP name or secret")),
        (with_chap(ours, Some(ours)), Some("one CHAP secret for both directions")),
    ] {
        let mut bench = Bench::new(config, Disk { login: guarded(), ..Disk::new(64) });
        bench.path.start(bench.now);
        bench.run();
        assert_eq!(bench.take_ready().is_some(), why.is_none(), "{why:?}");
        let Some(words) = why else { continue };
        assert_eq!(bench.take_down(), Some(PathFault::LoginRefused));
        let said = bench.path.why().unwrap();
        assert!(said.contains(words) && !said.contains("of dom0"), "{said}");
    }
}

#[test]
fn digests_are_agreed_on_as_configured() {
    let crc = [Digest::Crc32c];
    let none = [Digest::None];
    for (ours, theirs, works) in [
        (Digests::None, &none[..], true),
        (Digests::Prefer, &none[..], true),
        (Digests::Prefer, &crc[..], true),
        (Digests::Require, &crc[..], true),
        (Digests::Require, &none[..], false),
    ] {
        let config = Config { header_digest: ours, data_digest: ours, ..config() };
        let limits_of_login = Limits {
            header_digests: theirs.to_vec(),
            data_digests: theirs.to_vec(),
            ..Limits::default()
        };
        let mut bench = Bench::new(config, Disk { limits_of_login, ..Disk::new(64) });
        bench.path.start(bench.now);
        bench.run();
        assert_eq!(bench.take_ready().is_some(), works, "{ours:?} {theirs:?}");
        if works {
            let write = bench.write(1, 3, 9);
            assert_eq!(bench.verdict(write), Some(Verdict::Done));
        } else {
            assert_eq!(bench.take_down(), Some(PathFault::LoginRefused));
        }
    }
}

#[test]
fn redirections_are_followed_for_now_or_for_good_and_not_for_ever() {
    let address = "10.0.0.2:3261".to_owned();
    for permanent in [false, true] {
        let redirect = Access::Redirect { address: address.clone(), permanent };
        let mut bench = Bench::new(config(), Disk { first: [redirect].into(), ..Disk::new(64) });
        bench.path.start(bench.now);
        bench.run();
        assert!(bench.take_ready().is_some());
        assert_eq!(bench.attempts[1].1, address.parse().unwrap());
        bench.reset();
        bench.pass(ms(10));
        let home = if permanent { address.parse().unwrap() } else { config().portal };
        assert_eq!(bench.attempts[2].1, home);
    }
    let redirect = Access::Redirect { address, permanent: false };
    let mut bench = Bench::new(config(), Disk { login: redirect, ..Disk::new(64) });
    bench.path.start(bench.now);
    bench.run();
    assert_eq!(bench.take_down(), Some(PathFault::LoginRefused));
    assert!(bench.path.why().unwrap().contains("moved too often"));
    let name = Access::Redirect { address: "storage.example.org".into(), permanent: false };
    let mut bench = Bench::new(config(), Disk { login: name, ..Disk::new(64) });
    bench.path.start(bench.now);
    bench.run();
    assert!(bench.path.why().unwrap().contains("no IP address"));
}

#[test]
fn a_target_that_asks_us_to_leave_gets_a_logout_and_us_back() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.pass(Duration::from_secs(2));
    let lun = corbel_proto::iscsi::bhs::Lun(0);
    bench.peer().connection.send_async(lun, AsyncEvent::LogoutRequest { within_s: 3 }, &[]);
    bench.run();
    assert_eq!(bench.take_down(), Some(PathFault::LogoutAsked));
    assert!(bench.take_ready().is_some(), "it is let in again");
    assert!(bench.path.is_quiet());
}

#[test]
fn a_target_that_drops_the_session_is_left_at_once() {
    for event in [
        AsyncEvent::DropConnection { cid: 0, time_to_wait_s: 2, time_to_retain_s: 0 },
        AsyncEvent::DropSession { time_to_wait_s: 2, time_to_retain_s: 0 },
        AsyncEvent::TasksTerminated,
    ] {
        let mut bench = Bench::up(config(), Disk::new(64));
        let lun = corbel_proto::iscsi::bhs::Lun(0);
        bench.peer().connection.send_async(lun, event, &[]);
        bench.run();
        assert_eq!(bench.take_down(), Some(PathFault::Closed));
    }
    let mut bench = Bench::up(config(), Disk::new(64));
    let lun = corbel_proto::iscsi::bhs::Lun(0);
    bench.peer().connection.send_async(lun, AsyncEvent::Scsi, &[0x70; 18]);
    bench.peer().connection.send_async(lun, AsyncEvent::Other(99), &[]);
    bench.run();
    assert_eq!(bench.take_down(), None);
}

#[test]
fn a_link_that_goes_down_ends_the_path_at_once_and_comes_back_with_it() {
    let mut bench = Bench::up(config(), Disk::new(64));
    bench.disk.play(0x2a, Trick::Hang);
    let write = bench.write(0, 1, 1);
    bench.path.link(bench.now, false);
    bench.run();
    assert_eq!(
        bench.verdict(write),
        Some(Verdict::InDoubt(PathFault::LinkDown, crate::path::Life(0)))
    );
    assert_eq!(bench.take_down(), Some(PathFault::LinkDown));
    bench.attempts.clear();
    bench.pass(Duration::from_secs(5));
    assert!(bench.attempts.is_empty(), "nothing to try without a link");
    bench.path.link(bench.now, true);
    bench.run();
    assert!(bench.take_ready().is_some());
    assert_eq!(bench.take_quiet(), [0]);
}

#[test]
fn events_of_an_old_stream_are_not_listened_to() {
    let mut bench = Bench::up(config(), Disk::new(64));
    let old = bench.peer.as_ref().unwrap().0;
    bench.reset();
    bench.pass(ms(10));
    assert!(bench.take_ready().is_some());
    bench.take_down();
    bench.path.received(bench.now, old, &[0xff; 48]);
    bench.path.closed(bench.now, old, "late".into());
    bench.path.connected(bench.now, old);
    bench.path.connect_failed(bench.now, old, "late".into());
    bench.run();
    assert_eq!(bench.take_down(), None);
}

#[test]
fn stop_logs_out_and_stays_away_until_start() {
    for answered in [true, false] {
        let mut bench = Bench::up(config(), Disk { logout: answered, ..Disk::new(64) });
        bench.path.stop(bench.now, PathFault::Disabled);
        bench.run();
        if !answered {
            assert_eq!(bench.take_down(), None);
            bench.pass(ms(500));
        }
        assert_eq!(bench.take_down(), Some(PathFault::Disabled));
        bench.attempts.clear();
        bench.pass(Duration::from_secs(60));
        assert!(bench.attempts.is_empty());
        assert_eq!(bench.path.next(bench.now), None);
        bench.path.start(bench.now);
        bench.run();
        assert!(bench.take_ready().is_some());
    }
}

#[test]
fn what_an_earlier_process_sent_haunts_until_a_login_or_the_hold() {
    let recovering = Config { recovering: true, ..config() };
    let mut bench = Bench::new(recovering.clone(), Disk::new(64));
    bench.path.start(bench.now);
    bench.run();
    assert!(matches!(bench.events[0], PathEvent::Haunted(crate::path::Life(0))));
    assert_eq!(bench.take_quiet(), [0]);

    let mut bench = Bench::new(recovering, Disk::new(64));
    bench.accepts = false;
    bench.path.start(bench.now);
    bench.pass(ms(9999));
    assert!(bench.take_quiet().is_empty());
    assert!(!bench.path.is_quiet());
    bench.pass(ms(1));
    assert_eq!(bench.take_quiet(), [0]);
    assert!(bench.path.is_quiet());
}

#[test]
fn a_target_that_tells_its_boot_is_known_to_have_been_restarted() {
    let mut bench = Bench::new(config(), Disk::new(64));
    bench.path.start(bench.now);
    bench.run();
    assert_eq!(bench.take_ready().unwrap().instance, Some("01".repeat(16)));
    bench.disk.instance = 2;
    bench.reset();
    assert_eq!(bench.take_ready().unwrap().instance, Some("02".repeat(16)));
}
