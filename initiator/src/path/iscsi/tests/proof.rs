use std::net::SocketAddr;

use corbel_proto::iscsi::login::directory::Access;
use corbel_proto::time::Duration;

use super::super::config::{Config, Reinstatement};
use super::bench::{Bench, config, ms};
use super::peer::{Disk, Trick};
use crate::path::PathFault;

fn other_portal() -> SocketAddr {
    ([10, 0, 1, 1], 3260).into()
}

/// A path whose link has died over a write that was not answered.
fn bereft(config: Config, disk: Disk) -> Bench {
    let mut bench = Bench::up(config, disk);
    bench.disk.play(0x2a, Trick::Hang);
    bench.write(0, 1, 1);
    bench.path.link(bench.now, false);
    bench.run();
    assert_eq!(bench.take_down(), Some(PathFault::LinkDown));
    bench.attempts.clear();
    bench
}

/// Another path of the same device.
fn helper(disk: Disk) -> Bench {
    Bench::up(Config { portal: other_portal(), isid: [0x80, 9, 9, 9, 9, 9], ..config() }, disk)
}

/// Where `bench` can have it proven.
fn portal(bench: &Bench, helper: &Bench) -> Option<SocketAddr> {
    helper.path.can_prove(&bench.path.need()?, false)
}

#[test]
fn a_login_at_another_portal_of_the_same_process_ends_the_doubts_of_a_dead_path() {
    let mut bench = bereft(config(), Disk::new(64));
    let helper = helper(Disk::new(64));
    assert_eq!(portal(&bench, &helper), Some(other_portal()));
    bench.path.prove(bench.now, other_portal());
    assert!(bench.path.next(bench.now).unwrap().contains("proving at 10.0.1.1:3260"));
    bench.run();
    assert_eq!(bench.take_quiet(), [0]);
    assert!(bench.path.is_quiet() && bench.peer.is_none());
    assert!(bench.take_down().is_none() && bench.take_ready().is_none(), "it was for that alone");
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.attempts.len(), 1, "the link is still down");
    bench.path.link(bench.now, true);
    bench.run();
    assert!(bench.take_ready().is_some());
    assert_eq!(bench.attempts[1].1, config().portal);
}

#[test]
fn who_has_no_doubts_or_comes_back_by_itself_needs_nobody() {
    let mut idle = Bench::up(config(), Disk::new(64));
    idle.path.link(idle.now, false);
    assert!(idle.path.need().is_none());
    let mut back = Bench::up(config(), Disk::new(64));
    back.disk.play(0x2a, Trick::Hang);
    back.write(0, 1, 1);
    back.reset();
    assert!(back.path.need().is_none());
    assert_eq!(back.take_quiet(), [0]);
}

#[test]
fn another_process_or_one_that_does_not_tell_can_prove_nothing() {
    let bench = bereft(config(), Disk::new(64));
    assert_eq!(portal(&bench, &helper(Disk { instance: 2, ..Disk::new(64) })), None);
    let silent = || Disk { tells_process: false, ..Disk::new(64) };
    assert_eq!(portal(&bench, &helper(silent())), None);
    let bench = bereft(config(), silent());
    assert_eq!(portal(&bench, &helper(silent())), None);
    let group = Config { reinstatement: Reinstatement::Group, ..config() };
    let bench = bereft(group, silent());
    assert_eq!(portal(&bench, &helper(silent())), Some(other_portal()));
    let nothing = Config { reinstatement: Reinstatement::Nothing, ..config() };
    let bench = bereft(nothing, Disk::new(64));
    assert_eq!(portal(&bench, &helper(Disk::new(64))), None);
}

#[test]
fn a_path_that_is_not_in_use_can_prove_nothing() {
    let bench = bereft(config(), Disk::new(64));
    let mut other = helper(Disk::new(64));
    other.path.link(other.now, false);
    assert_eq!(portal(&bench, &other), None);
}

#[test]
fn a_proof_that_is_refused_is_tried_again_only_after_an_attempt_of_ones_own() {
    let mut bench = bereft(config(), Disk::new(64));
    bench.disk.first.push_back(Access::Forbidden);
    bench.path.prove(bench.now, other_portal());
    bench.run();
    assert!(bench.take_quiet().is_empty() && bench.path.need().is_none());
    bench.accepts = false;
    bench.path.link(bench.now, true);
    bench.run();
    assert!(bench.path.need().is_some());
}

#[test]
fn a_target_that_has_to_wait_for_its_disk_gets_more_and_more_time() {
    let mut bench = bereft(config(), Disk::new(64));
    bench.deaf = true;
    for patience in [700, 1400, 2800] {
        bench.path.prove(bench.now, other_portal());
        bench.pass(ms(patience - 1));
        assert!(bench.path.need().is_none());
        bench.pass(ms(1));
        assert!(bench.path.need().is_some() && bench.peer.is_none());
    }
    bench.deaf = false;
    bench.path.prove(bench.now, other_portal());
    bench.run();
    assert_eq!(bench.take_quiet(), [0]);
}

#[test]
fn a_link_that_returns_meanwhile_waits_for_the_end_of_the_proof() {
    let mut bench = bereft(config(), Disk::new(64));
    bench.deaf = true;
    bench.path.prove(bench.now, other_portal());
    bench.run();
    bench.path.link(bench.now, true);
    bench.run();
    assert_eq!(bench.attempts.len(), 1, "two logins of one ISID would end one another");
    bench.deaf = false;
    bench.pass(ms(700));
    assert_eq!(bench.attempts.last().unwrap().1, config().portal);
    assert_eq!(bench.take_quiet(), [0]);
    assert!(bench.take_ready().is_some());
}

#[test]
fn a_path_that_is_stopped_gives_up_its_proof() {
    let mut bench = bereft(config(), Disk::new(64));
    bench.deaf = true;
    bench.path.prove(bench.now, other_portal());
    bench.run();
    bench.path.stop(bench.now, PathFault::Disabled);
    bench.run();
    assert!(bench.path.is_closed() && bench.peer.is_none() && bench.path.need().is_none());
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.take_quiet(), [0], "by time");
}
