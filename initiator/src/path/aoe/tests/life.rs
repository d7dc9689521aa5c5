//! How a path comes up, goes down and comes back.

use super::*;

fn fault_of(farm: &Farm) -> Vec<PathFault> {
    farm.downs().into_iter().map(|(_, fault)| fault).collect()
}

#[test]
fn it_asks_everyone_identifies_who_answers_and_says_what_it_found() {
    let mut farm = Farm::started(Config::new(7, 1), 1500);
    farm.run(50);
    let (_, query) = &farm.sent[0];
    assert_eq!((query.len(), &query[..6]), (60, &[0xff; 6][..]));
    assert_eq!(query[16..19], [0, 7, 1]);
    let (_, facts) = farm.took_ready().unwrap();
    assert_eq!(facts.identity, crate::identity::Identity::from_ata(&identify()));
    assert_eq!(facts.cache_domain, "aoe 7.1 02:00:00:00:00:02");
    assert_eq!(facts.group_serial, "7.1 02:00:00:00:00:02");
    assert_eq!((facts.physical_block_bytes, facts.priority), (4096, 50));
    let can = (facts.discard, facts.write_zeroes, facts.volatile_cache, facts.read_only);
    assert_eq!(can, (true, false, false, false));
    assert_eq!(farm.path.config_string(), b"label");
    assert_eq!((farm.path.why(farm.now), farm.path.next(farm.now)), (None, None));
}

#[test]
fn a_configured_address_is_asked_alone() {
    let config = Config { remote: Some(REMOTE), weight: Some(7), ..Config::new(7, 1) };
    let mut farm = Farm::started(config, 1500);
    farm.run(15_000);
    assert!(farm.sent.iter().all(|(_, frame)| frame[..6] == REMOTE.0));
    assert_eq!(farm.took_ready().unwrap().1.priority, 7);
}

#[test]
fn queries_grow_rare_and_silence_is_told_once() {
    let mut farm = Farm::new(Config::new(7, 1));
    farm.fate = black_hole();
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 1500, up: true });
    farm.run(30_000);
    let times: Vec<_> = farm.sent.iter().map(|(moment, _)| *moment).collect();
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[0] >= 75 * MS && pauses[0] <= 125 * MS, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 1250 * MS));
    assert!(times.len() < 50 && times.len() > 24, "{}", times.len());
    assert_eq!(fault_of(&farm), [PathFault::Silent]);
    assert!(farm.path.why(farm.now).unwrap().contains("7.1"));
    assert!(farm.path.next(farm.now).unwrap().starts_with("asks again in"));
}

#[test]
fn others_that_answer_are_told_once_each_and_eight_at_most() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    for number in 3..20 {
        for _ in 0..2 {
            farm.server.mac = Mac([2, 0, 0, 0, 0, number]);
            farm.path.query(true);
            farm.run(10);
        }
    }
    let told: Vec<_> = std::iter::from_fn(|| farm.path.poll_sibling()).collect();
    assert_eq!(told, (3..11).map(|n| Mac([2, 0, 0, 0, 0, n])).collect::<Vec<_>>());
    assert_eq!(farm.path.remote(), Some(REMOTE));
}

#[test]
fn who_speaks_unasked_is_not_believed() {
    let mut farm = Farm::new(Config::new(7, 1));
    farm.fate = black_hole();
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 1500, up: true });
    let announcement = farm.server.announcement();
    farm.path.frame(farm.now, &announcement);
    assert_eq!(farm.path.remote(), None);
}

/// When it is down, after the first frame into a black hole was sent.
fn detects(timers: Timers, load: u64) -> Duration {
    let mut farm = Farm::ready(Config { timers, ..Config::new(7, 1) }, 1500);
    for id in 0..20 {
        farm.read(id, 0, 65536);
        farm.run(10);
    }
    farm.forget();
    farm.fate = black_hole();
    let start = farm.now;
    for id in 0..load {
        farm.read(100 + id, 0, 4096);
    }
    farm.run(5000);
    let (moment, fault) = farm.downs()[0];
    assert_eq!((fault, farm.downs().len()), (PathFault::Silent, 1));
    let ended = farm.tried().map(|(ended, _)| ended).max().unwrap();
    assert!(ended <= moment, "every try ended before");
    assert_eq!(farm.verdicts().len() as u64, load);
    moment - start
}

#[test]
fn a_black_hole_is_noticed_within_a_second_and_if_tuned_within_half_a_second() {
    for load in [1, 4, 100] {
        let usual = detects(Timers::DEFAULT, load);
        assert!(usual >= 700 * MS && usual <= 1000 * MS, "{load}: {usual:?}");
        let quick = detects(Timers::QUICK, load);
        assert!(quick >= 300 * MS && quick < 500 * MS, "{load}: {quick:?}");
    }
}

#[test]
fn an_idle_path_notices_too_and_says_when_all_is_well() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.run(9000);
    let checks = farm.events.iter().filter(|(_, e)| matches!(e, PathEvent::Checked)).count();
    assert_eq!(checks, 4);
    farm.path.check(farm.now);
    farm.run(10);
    let checks = farm.events.iter().filter(|(_, e)| matches!(e, PathEvent::Checked)).count();
    assert_eq!(checks, 5);
    farm.fate = black_hole();
    farm.run(3000);
    assert_eq!(fault_of(&farm), [PathFault::Silent]);
    farm.fate = well();
    farm.run(1500);
    assert!(farm.took_ready().is_some());
}

#[test]
fn lost_frames_alone_do_not_take_a_path_down() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    let mut random = Random(9);
    farm.fate = Box::new(move |_| {
        ((random.next() % 10 > 1).then_some(MS), (random.next() % 10 > 1).then_some(MS))
    });
    for id in 0..200 {
        farm.read(id, 0, 4096);
        farm.run(50);
    }
    assert_eq!(farm.downs(), []);
}

#[test]
fn a_host_that_stood_still_gives_one_more_round() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = Box::new(|_| (Some(Duration::ZERO), Some(3000 * MS)));
    farm.read(1, 0, 512);
    farm.now = farm.now + 5000 * MS;
    farm.path.handle_timeout(farm.now);
    farm.pass();
    assert!(farm.verdicts().is_empty() && farm.downs().is_empty(), "nobody looked in that time");
    farm.run(10);
    assert_eq!(farm.verdicts(), [(1, Verdict::Done)]);
    farm.fate = black_hole();
    farm.read(2, 0, 512);
    farm.now = farm.now + 5000 * MS;
    farm.path.handle_timeout(farm.now);
    farm.run(3000);
    assert_eq!(fault_of(&farm), [PathFault::Silent], "one round, not more");
}

#[test]
fn a_link_that_goes_down_ends_every_try_at_once_and_one_that_returns_is_used_at_once() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.fate = black_hole();
    farm.read(1, 0, 512);
    farm.write(2, 0, vec![1; 512]);
    let down = Link { mac: LOCAL, mtu: 1500, up: false };
    farm.path.link(farm.now, down);
    farm.pass();
    assert_eq!(fault_of(&farm), [PathFault::LinkDown]);
    let verdicts = farm.verdicts();
    assert!(matches!(verdicts[0], (1, Verdict::Elsewhere(PathFault::LinkDown))));
    assert!(matches!(verdicts[1], (2, Verdict::InDoubt(PathFault::LinkDown, _))));
    assert!(farm.path.why(farm.now).unwrap().contains("interface"));
    farm.sent.clear();
    farm.run(5000);
    assert!(farm.sent.is_empty());
    farm.read(3, 0, 512);
    assert_eq!(farm.verdicts()[2], (3, Verdict::Elsewhere(PathFault::LinkDown)));
    farm.fate = well();
    farm.path.link(farm.now, Link { up: true, ..down });
    farm.run(100);
    assert!(farm.took_ready().is_some());
    assert_eq!(fault_of(&farm), [PathFault::LinkDown]);
}

#[test]
fn another_mtu_is_used_at_once() {
    let mut farm = Farm::ready(Config::new(7, 1), 9000);
    assert_eq!(farm.path.sectors, 16);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 1500, up: true });
    farm.run(100);
    assert!(farm.took_ready().is_some());
    assert_eq!(farm.path.sectors, 2);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 500, up: true });
    farm.run(100);
    assert!(farm.path.why(farm.now).unwrap().contains("MTU"));
}

#[test]
fn a_server_that_says_no_sectors_gets_two() {
    let mut farm = Farm::new(Config::new(7, 1));
    farm.server.sectors = 0;
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 9000, up: true });
    farm.run(100);
    assert_eq!((farm.path.sectors, farm.took_ready().is_some()), (2, true));
}

/// A switch that drops what is longer than plain Ethernet.
fn jumbo_hole() -> Wire {
    Box::new(|frame| {
        let sectors = usize::from(frame[26]) * usize::from(is_command(frame, 0x24));
        let passes = frame.len() <= 1514 && sectors <= 2;
        (passes.then_some(MS), passes.then_some(MS))
    })
}

#[test]
fn long_frames_that_do_not_come_through_are_noticed_before_the_first_request() {
    let mut farm = Farm::new(Config::new(7, 1));
    farm.fate = jumbo_hole();
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 9000, up: true });
    farm.run(2000);
    assert!(farm.took_ready().unwrap().0 - at(1000) < 1000 * MS);
    let why = farm.path.why(farm.now).unwrap();
    assert!(why.contains("2 instead of 16 sectors"), "{why}");
    assert!(farm.path.next(farm.now).unwrap().contains("longer frames"));
    farm.write(1, 0, vec![3; 65536]);
    farm.run(1000);
    assert!(matches!(farm.verdicts()[..], [(1, Verdict::Done)]));
    farm.run(130_000);
    assert_eq!((farm.path.sectors, farm.downs().len()), (2, 0));
    farm.fate = well();
    farm.run(61_000);
    assert_eq!((farm.path.sectors, farm.path.why(farm.now)), (16, None));
}

#[test]
fn long_frames_that_stop_coming_through_are_done_without() {
    let mut farm = Farm::ready(Config::new(7, 1), 9000);
    farm.fate = jumbo_hole();
    farm.write(1, 0, vec![3; 65536]);
    farm.run(3000);
    assert!(matches!(farm.verdicts()[..], [(1, Verdict::InDoubt(PathFault::CommandTimeout, _))]));
    let (moment, _) = farm.took_ready().unwrap();
    assert!(moment - at(1100) < 2500 * MS);
    assert_eq!(farm.path.sectors, 2);
    farm.write(2, 0, vec![3; 65536]);
    farm.run(1000);
    assert!(matches!(farm.verdicts()[1], (2, Verdict::Done)));
}

#[test]
fn a_slow_server_is_not_taken_for_a_narrow_way() {
    let mut farm = Farm::new(Config::new(7, 1));
    let mut slow = 4;
    farm.fate = Box::new(move |frame| {
        let read = is_command(frame, 0x24);
        slow -= i32::from(read && slow > 0);
        (Some(Duration::ZERO), if read && slow > 0 { None } else { Some(MS) })
    });
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 9000, up: true });
    farm.run(3000);
    assert_eq!((farm.path.sectors, farm.took_ready().is_some()), (16, true));
}

#[test]
fn another_device_at_the_same_address_is_not_spoken_to_unseen() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.server.identify.naa += 1;
    let announcement = farm.server.announcement();
    farm.path.frame(farm.now, &announcement);
    farm.run(100);
    assert_eq!(fault_of(&farm), [PathFault::Mismatch]);
    let (_, facts) = farm.took_ready().unwrap();
    assert_eq!(facts.identity.wwn.as_deref(), Some("3000000000000002"));
}

/// Found by the simulator: the path went on probing through the silence, and then wrote to whoever
/// answered the probe.
#[test]
fn a_server_that_falls_silent_while_it_is_probed_is_asked_anew_who_it_is() {
    let mut farm = Farm::started(Config::new(7, 1), 1500);
    farm.fate = Box::new(|frame| {
        let passes = !is_command(frame, 0x24);
        (passes.then_some(MS), passes.then_some(MS))
    });
    farm.run(300);
    assert!(farm.took_ready().is_none(), "no read is answered");
    farm.fate = black_hole();
    farm.run(6_000);
    farm.server.identify.naa += 1;
    farm.fate = well();
    farm.run(3_000);
    let (_, facts) = farm.took_ready().unwrap();
    assert_eq!(facts.identity.wwn.as_deref(), Some("3000000000000002"));
}

#[test]
fn another_size_is_told_without_going_down() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    farm.server.identify.sectors = 8192;
    farm.run(2500);
    assert_eq!(farm.took_ready().unwrap().1.identity.size_bytes, 8192 * 512);
    assert_eq!(farm.downs(), []);
}

#[test]
fn damaged_identity_keeps_the_path_down() {
    let mut farm = Farm::new(Config::new(7, 1));
    farm.server.identify.sectors = 0;
    farm.path.start(farm.now);
    farm.path.link(farm.now, Link { mac: LOCAL, mtu: 1500, up: true });
    farm.run(5000);
    assert_eq!(fault_of(&farm), [PathFault::NoDevice]);
    assert!(farm.took_ready().is_none() && farm.sent.len() < 20);
    farm.server.identify.sectors = 4096;
    farm.run(1500);
    assert!(farm.took_ready().is_some());
}

#[test]
fn tags_are_never_used_twice_and_start_somewhere_else_for_each_seed() {
    let mut farm = Farm::ready(Config::new(7, 1), 1500);
    let mut tags = std::collections::BTreeSet::new();
    for round in 0..5 {
        farm.read(round, 0, 65536);
        farm.run(500);
        farm.path.link(farm.now, Link { mac: LOCAL, mtu: 1500, up: round % 2 == 1 });
        farm.run(500);
    }
    for (_, frame) in farm.sent.iter().filter(|(_, frame)| !is_query(frame)) {
        let tag = u32::from_be_bytes(frame[20..24].try_into().unwrap());
        assert!(tag & 0x8000_0000 != 0, "a tag of user space");
        assert!(tags.insert(tag), "used twice");
    }
    let other = AoePath::<HeapBuffer>::new(Config::new(7, 1), 43);
    assert_ne!(other.last_tag, AoePath::<HeapBuffer>::new(Config::new(7, 1), 42).last_tag);
}

#[test]
fn limits_tell_what_is_in_force() {
    let mut config = Config::new(7, 1);
    assert!(config.set("answer_within", Duration::from_millis(300), "[[device]]"));
    assert!(!config.set("login_timeout", Duration::from_millis(300), "[[device]]"));
    let limits = AoePath::<HeapBuffer>::new(config, 1).limits();
    let silence = limits.iter().find(|limit| limit.name == "answer_within").unwrap();
    assert_eq!((silence.ms, silence.from.as_str()), (300, "[[device]]"));
    let hold = limits.iter().find(|limit| limit.name == "doubt_hold").unwrap();
    assert_eq!((hold.ms, hold.from.as_str()), (10_000, "default"));
}
