//! SPC-4 5.13, action by action.

use corbel_proto::scsi::reservation::{Moving, OutAction, OutList, Type};
use corbel_proto::scsi::transport_id::TransportId;
use corbel_proto::scsi::{Condition, Sense};
use proptest::prelude::*;

use super::*;

const TYPES: [Type; 6] = [
    Type::WriteExclusive,
    Type::ExclusiveAccess,
    Type::WriteExclusiveRegistrantsOnly,
    Type::ExclusiveAccessRegistrantsOnly,
    Type::WriteExclusiveAllRegistrants,
    Type::ExclusiveAccessAllRegistrants,
];

fn nexus(name: char) -> NexusName {
    let initiator = format!("iqn.2026-11.org.example:{name},i,0x400001370000");
    NexusName::new(&initiator, "iqn.2026-11.org.example:disk,t,0x0001", 1)
}

fn list(key: u64, action_key: u64) -> OutList {
    OutList {
        key,
        action_key,
        persist: false,
        all_target_ports: false,
        others: Vec::new(),
        moving: None,
    }
}

fn order(action: OutAction, key: u64, action_key: u64, kind: Option<Type>) -> Order {
    Order { action, kind, list: list(key, action_key) }
}

/// All known nexuses are attached; nothing needs the disk unless a test says so.
struct Bench(Reservations);

impl Bench {
    /// `a`, `b`, `c` are there; those in `registered` have the keys 1, 2, 3.
    fn new(registered: &str) -> Self {
        let bench = Self(Reservations::default());
        "abc".chars().for_each(|name| bench.0.attach(&nexus(name)));
        for name in registered.chars() {
            bench.good(name, &order(OutAction::Register, 0, key(name), None));
        }
        bench
    }

    fn give(&self, who: char, order: &Order) -> Proposal {
        self.0.propose(&nexus(who), order, &[1, 2])
    }

    fn good(&self, who: char, order: &Order) -> Vec<NexusName> {
        match self.give(who, order) {
            Proposal::Done(ended) => ended.registered.into_iter().map(|one| one.nexus).collect(),
            other => panic!("{order:?} of {who}: {other:?}"),
        }
    }

    fn refused(&self, who: char, order: &Order) -> Refusal {
        match self.give(who, order) {
            Proposal::Refused(refusal) => refusal,
            other => panic!("{order:?} of {who}: {other:?}"),
        }
    }

    fn reserve(&self, who: char, kind: Type) {
        self.good(who, &order(OutAction::Reserve, key(who), 0, Some(kind)));
    }

    fn rights(&self, who: char) -> Rights {
        self.0.look(&nexus(who)).0
    }

    fn told(&self, who: char) -> Vec<Notice> {
        self.0.look(&nexus(who)).1
    }

    fn state(&self) -> State {
        self.0.state().expect("no SPC-2 reservation")
    }

    fn keys(&self) -> Vec<u64> {
        self.state().registrations.iter().map(|one| one.key).collect()
    }
}

fn key(name: char) -> u64 {
    u64::from(name) - u64::from('a') + 1
}

/// Table 65: holder, registrant, outsider.
#[test]
fn each_type_lets_in_whom_it_says() {
    let rights = |read, change| Rights { ready: true, read, change };
    let expected = [
        (rights(true, false), rights(true, false)),
        (rights(false, false), rights(false, false)),
        (Rights::ALL, rights(true, false)),
        (Rights::ALL, rights(false, false)),
        (Rights::ALL, rights(true, false)),
        (Rights::ALL, rights(false, false)),
    ];
    for (kind, (registrant, outsider)) in TYPES.into_iter().zip(expected) {
        let bench = Bench::new("ab");
        bench.reserve('a', kind);
        assert_eq!(bench.rights('a'), Rights::ALL, "{kind:?}");
        assert_eq!(bench.rights('b'), registrant, "{kind:?}");
        assert_eq!(bench.rights('c'), outsider, "{kind:?}");
        let aoe = bench.0.outsiders();
        assert_eq!((aoe.read, aoe.change), (outsider.read, outsider.change), "{kind:?}");
    }
}

/// Table 68.
#[test]
fn register_needs_the_right_key_and_register_and_ignore_does_not() {
    let bench = Bench::new("a");
    use OutAction::{Register, RegisterAndIgnoreExistingKey as Ignore};
    assert_eq!(bench.refused('a', &order(Register, 9, 5, None)), Refusal::Conflict);
    assert_eq!(bench.refused('b', &order(Register, 9, 5, None)), Refusal::Conflict);
    bench.good('b', &order(Register, 0, 0, None));
    assert_eq!((bench.keys(), bench.state().generation), (vec![1], 1));
    bench.good('a', &order(Register, 1, 5, None));
    bench.good('b', &order(Ignore, 77, 6, None));
    bench.good('a', &order(Ignore, 77, 7, None));
    assert_eq!((bench.keys(), bench.state().generation), (vec![7, 6], 4));
    bench.good('a', &order(Register, 7, 0, None));
    assert_eq!(bench.keys(), [6]);
}

/// 5.13.7: SPEC_I_PT registers others too, a device by the ports that are there.
#[test]
fn register_names_others_who_keep_a_key_they_have() {
    let bench = Bench::new("c");
    let mut all = order(OutAction::Register, 0, 9, None);
    all.list.others = vec![
        TransportId::Port(nexus('z').initiator),
        TransportId::Port(nexus('c').initiator),
        TransportId::Device("iqn.2026-11.org.example:b".into()),
        TransportId::Device("iqn.2026-11.org.example:nobody".into()),
    ];
    bench.good('a', &all);
    assert_eq!(bench.keys(), [3, 9, 9, 9]);
    // Registered already: others cannot be named (table 68).
    all.list.key = 9;
    let refused = Refusal::Sense(Sense::invalid_parameter(20, Some(3)));
    assert_eq!(bench.refused('a', &all), refused);
}

#[test]
fn a_registration_for_all_target_ports_counts_at_each() {
    let bench = Bench::new("");
    let mut all = order(OutAction::Register, 0, 1, None);
    all.list.all_target_ports = true;
    bench.good('a', &all);
    bench.reserve('a', Type::ExclusiveAccess);
    let elsewhere = NexusName { port: 2, target: "iqn.x:other".into(), ..nexus('a') };
    assert_eq!(bench.0.look(&elsewhere).0, Rights::ALL);
    assert!(!bench.rights('b').read);
}

#[test]
fn nothing_but_register_is_for_strangers_and_wrong_keys() {
    use OutAction::{Clear, Preempt, PreemptAndAbort, RegisterAndMove, Release, Reserve};
    let bench = Bench::new("a");
    for action in [Clear, Preempt, PreemptAndAbort, RegisterAndMove, Release, Reserve] {
        let wrong = order(action, 9, 1, Some(Type::WriteExclusive));
        assert_eq!(bench.refused('a', &wrong), Refusal::Conflict, "{action:?}");
        assert_eq!(bench.refused('b', &wrong), Refusal::Conflict, "{action:?}");
    }
    let no_type = bench.refused('a', &order(Reserve, 1, 0, None));
    assert_eq!(no_type, Refusal::Sense(Sense::invalid_cdb(2, Some(3))));
}

/// 5.13.9, 5.13.11.2.2.
#[test]
fn reserve_again_is_good_and_another_type_or_holder_conflicts() {
    let bench = Bench::new("ab");
    bench.reserve('a', Type::WriteExclusive);
    bench.reserve('a', Type::WriteExclusive);
    let other = order(OutAction::Reserve, 1, 0, Some(Type::ExclusiveAccess));
    assert_eq!(bench.refused('a', &other), Refusal::Conflict);
    let theirs = order(OutAction::Reserve, 2, 0, Some(Type::WriteExclusive));
    assert_eq!(bench.refused('b', &theirs), Refusal::Conflict);
    let wrong = bench.refused('a', &order(OutAction::Release, 1, 0, Some(Type::ExclusiveAccess)));
    let sense = Condition::INVALID_RELEASE_OF_PERSISTENT_RESERVATION.into();
    assert_eq!(wrong, Refusal::Sense(sense));
    bench.good('b', &order(OutAction::Release, 2, 0, Some(Type::WriteExclusive)));
    assert!(bench.state().held.is_some());
    bench.good('a', &order(OutAction::Release, 1, 0, Some(Type::WriteExclusive)));
    assert_eq!((bench.state().held, bench.told('b')), (None, vec![]));
}

#[test]
fn releasing_what_registrants_share_is_told_to_the_others() {
    for kind in TYPES.into_iter().filter(|kind| kind.admits_registrants()) {
        let bench = Bench::new("ab");
        bench.reserve('a', kind);
        bench.good('a', &order(OutAction::Release, 1, 0, Some(kind)));
        assert_eq!(bench.told('b'), [Notice::ReservationsReleased], "{kind:?}");
        assert_eq!((bench.told('b'), bench.told('a'), bench.told('c')), (vec![], vec![], vec![]));
    }
}

/// 5.13.11.2.3: of all registrants the last one ends it.
#[test]
fn unregistering_ends_what_only_that_one_held() {
    for kind in TYPES {
        let bench = Bench::new("ab");
        bench.reserve('a', kind);
        bench.good('a', &order(OutAction::Register, 1, 0, None));
        assert_eq!(bench.state().held.is_some(), kind.held_by_all(), "{kind:?}");
        bench.good('b', &order(OutAction::Register, 2, 0, None));
        assert_eq!(bench.state().held, None);
        assert_eq!(bench.rights('c'), Rights::ALL);
    }
}

#[test]
fn clear_takes_everything_and_tells_the_others() {
    let bench = Bench::new("ab");
    bench.reserve('a', Type::ExclusiveAccess);
    bench.good('b', &order(OutAction::Clear, 2, 0, None));
    let state = bench.state();
    assert!(state.registrations.is_empty() && state.held.is_none());
    assert_eq!(state.generation, 3);
    assert_eq!((bench.told('a'), bench.told('b')), (vec![Notice::ReservationsPreempted], vec![]));
}

/// 5.13.11.2.4: the fence. The victim loses registration and reservation, and is told.
#[test]
fn preempting_the_holder_takes_its_place() {
    let bench = Bench::new("abc");
    bench.reserve('a', Type::WriteExclusive);
    let kind = Type::ExclusiveAccessRegistrantsOnly;
    let aborted = bench.good('b', &order(OutAction::PreemptAndAbort, 2, 1, Some(kind)));
    assert_eq!(aborted, [nexus('a')]);
    assert_eq!(bench.keys(), [2, 3]);
    let held = Held { kind, holder: Some(nexus('b')) };
    assert_eq!(bench.state().held, Some(held));
    assert_eq!(bench.told('a'), [Notice::RegistrationsPreempted]);
    assert_eq!(bench.told('c'), [Notice::ReservationsReleased]);
    assert!(!bench.rights('a').read && bench.rights('c').change);
    assert_eq!(bench.state().generation, 4);
}

#[test]
fn preempt_without_abort_ends_no_commands() {
    let bench = Bench::new("ab");
    let aborted = bench.good('b', &order(OutAction::Preempt, 2, 1, None));
    assert!(aborted.is_empty());
    assert_eq!((bench.keys(), bench.told('a')), (vec![2], vec![Notice::RegistrationsPreempted]));
}

/// 5.13.11.2.4.4: others than the holder lose their registrations only.
#[test]
fn preempting_who_does_not_hold_removes_registrations_and_needs_a_key() {
    let bench = Bench::new("abc");
    bench.reserve('a', Type::WriteExclusive);
    bench.good('b', &order(OutAction::Preempt, 2, 3, None));
    assert_eq!(bench.keys(), [1, 2]);
    assert_eq!(bench.state().held.unwrap().holder, Some(nexus('a')));
    assert_eq!(bench.refused('b', &order(OutAction::Preempt, 2, 9, None)), Refusal::Conflict);
    let zero = bench.refused('b', &order(OutAction::Preempt, 2, 0, None));
    assert_eq!(zero, Refusal::Sense(Sense::invalid_parameter(8, None)));
}

#[test]
fn all_registrants_are_preempted_by_key_zero_and_else_by_their_own() {
    let kind = Type::WriteExclusiveAllRegistrants;
    let bench = Bench::new("abc");
    bench.reserve('a', kind);
    bench.good('b', &order(OutAction::Preempt, 2, 3, None));
    assert_eq!((bench.keys(), bench.state().held.unwrap().kind), (vec![1, 2], kind));
    bench.good('b', &order(OutAction::Preempt, 2, 0, Some(Type::ExclusiveAccess)));
    assert_eq!(bench.keys(), [2]);
    let held = Held { kind: Type::ExclusiveAccess, holder: Some(nexus('b')) };
    assert_eq!(bench.state().held, Some(held));
}

/// 5.13.8.
#[test]
fn register_and_move_hands_the_reservation_over() {
    let bench = Bench::new("ab");
    let mut hand = order(OutAction::RegisterAndMove, 1, 8, None);
    let to = |name| TransportId::Port(nexus(name).initiator);
    hand.list.moving = Some(Moving { unregister: true, target_port: 1, to: to('c') });
    assert_eq!(bench.refused('a', &hand), Refusal::Conflict);
    bench.reserve('a', Type::WriteExclusive);
    let mut bad = hand.clone();
    bad.list.moving = Some(Moving { unregister: true, target_port: 3, to: to('c') });
    assert_eq!(bench.refused('a', &bad), Refusal::Sense(Sense::invalid_parameter(18, None)));
    bad.list.moving = Some(Moving { unregister: false, target_port: 1, to: to('a') });
    assert_eq!(bench.refused('a', &bad), Refusal::Sense(Sense::invalid_parameter(24, None)));
    bad = hand.clone();
    bad.list.action_key = 0;
    assert_eq!(bench.refused('a', &bad), Refusal::Sense(Sense::invalid_parameter(8, None)));
    bench.good('a', &hand);
    assert_eq!(bench.keys(), [2, 8]);
    assert!(bench.rights('c').change && !bench.rights('a').change);
}

/// SPC-3 5.6.3, CRH; SPC-2 5.5.1.
#[test]
fn old_reservations_exclude_all_others_until_released_reset_or_gone() {
    let bench = Bench::new("");
    let (a, b) = (nexus('a'), nexus('b'));
    for end in 0..3 {
        assert!(bench.0.reserve(&a) && bench.0.reserve(&a) && !bench.0.reserve(&b));
        assert_eq!((bench.rights('a'), bench.rights('b')), (Rights::ALL, Rights::NONE));
        assert!(bench.0.state().is_none() && !bench.0.outsiders().read);
        let register = order(OutAction::Register, 0, 1, None);
        assert_eq!(bench.refused('a', &register), Refusal::Conflict);
        assert!(bench.0.release(&b), "it releases nothing, which is no error");
        assert!(!bench.0.outsiders().read);
        match end {
            0 => assert!(bench.0.release(&a)),
            1 => bench.0.reset(),
            _ => bench.0.detach(&a),
        }
        assert!(bench.0.outsiders().change);
    }
}

#[test]
fn old_reservations_go_with_persistent_ones_only_for_who_has_access() {
    let bench = Bench::new("ab");
    assert!(!bench.0.reserve(&nexus('a')), "registered, but nothing is reserved");
    bench.reserve('a', Type::WriteExclusive);
    assert!(bench.0.reserve(&nexus('a')) && bench.0.release(&nexus('a')));
    assert!(!bench.0.reserve(&nexus('b')) && !bench.0.release(&nexus('c')));
    assert!(bench.state().held.is_some());
}

/// What is acknowledged is on the disk, and what is not there was not acknowledged.
#[test]
fn a_change_to_be_kept_comes_into_force_when_it_is_stable_and_not_before() {
    let bench = Bench::new("");
    let mut keep = order(OutAction::Register, 0, 1, None);
    keep.list.persist = true;
    let refused = Refusal::Sense(Sense::invalid_parameter(20, Some(0)));
    assert_eq!(bench.refused('a', &keep), refused, "there is no place to keep it");
    bench.0.enable_persistence();
    let Proposal::Persist(bytes) = bench.give('a', &keep) else { panic!("it is written first") };
    assert!(bench.keys().is_empty());
    assert!(matches!(bench.give('b', &keep), Proposal::Busy));
    bench.0.settle(false);
    assert!(bench.keys().is_empty());
    assert!(matches!(bench.give('a', &keep), Proposal::Persist(again) if again == bytes));
    bench.0.settle(true);
    assert_eq!(bench.keys(), [1]);
    let after = Bench::new("");
    after.0.restore(&bytes).unwrap();
    assert_eq!((after.keys(), after.state().generation), (vec![1], 0));
    // Not to be kept any more: what was kept is overwritten.
    let Proposal::Persist(bytes) = bench.give('a', &order(OutAction::Register, 1, 1, None)) else {
        panic!("it is written first")
    };
    after.0.restore(&bytes).unwrap();
    assert!(after.keys().is_empty());
}

fn kept() -> State {
    let registrations = "abc".chars().map(|name| Registration {
        nexus: nexus(name),
        all_target_ports: name == 'b',
        key: key(name),
    });
    let held = Held { kind: Type::WriteExclusive, holder: Some(nexus('b')) };
    let registrations = registrations.collect();
    State { generation: 0, persists: true, registrations, held: Some(held) }
}

#[test]
fn what_was_written_comes_back_and_any_flipped_bit_or_lost_byte_is_noticed() {
    let good = kept().snapshot();
    assert_eq!(State::restore(&good), Ok(kept()));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(State::restore(&bad).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(State::restore(&good[..len]).is_err(), "{len} bytes");
    }
}

#[derive(Debug, Clone)]
struct Step(char, Order);

fn step() -> impl Strategy<Value = Step> {
    let actions = prop::sample::select(vec![
        OutAction::Register,
        OutAction::Reserve,
        OutAction::Release,
        OutAction::Clear,
        OutAction::Preempt,
        OutAction::PreemptAndAbort,
        OutAction::RegisterAndIgnoreExistingKey,
        OutAction::RegisterAndMove,
    ]);
    let who = prop::sample::select(vec!['a', 'b', 'c']);
    let types = prop::sample::select(TYPES.to_vec());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (who.clone(), actions, 0..3_u64, 0..3_u64, types, who, flags).prop_map(
        |(who, action, key, action_key, kind, to, (persist, all, unregister))| {
            let mut order = order(action, key, action_key, Some(kind));
            (order.list.persist, order.list.all_target_ports) = (persist, all);
            let to = TransportId::Port(nexus(to).initiator);
            order.list.moving = Some(Moving { unregister, target_port: 1, to });
            Step(who, order)
        },
    )
}

proptest! {
    /// Whatever happens: a holder is registered, keys are never zero, nobody is registered twice,
    /// and what is kept comes back.
    #[test]
    fn no_sequence_of_orders_breaks_the_state(steps in prop::collection::vec(step(), 0..40)) {
        let bench = Bench::new("");
        bench.0.enable_persistence();
        for Step(who, order) in steps {
            if let Proposal::Persist(bytes) = bench.give(who, &order) {
                bench.0.settle(true);
                let kept = State::restore(&bytes).unwrap();
                let now = bench.state();
                if now.persists {
                    prop_assert_eq!(&kept.registrations, &now.registrations);
                    prop_assert_eq!(&kept.held, &now.held);
                }
            }
            let state = bench.state();
            prop_assert!(state.registrations.iter().all(|one| one.key != 0));
            if let Some(held) = &state.held {
                prop_assert!(!state.registrations.is_empty());
                prop_assert_eq!(held.holder.is_none(), held.kind.held_by_all());
                let holder = held.holder.as_ref();
                prop_assert!(holder.is_none_or(|holder| state.find(holder).is_some()));
            }
            for one in "abc".chars().map(nexus) {
                let times = state.registrations.iter().filter(|r| r.is_of(&one)).count();
                prop_assert!(times <= 1, "{:?} is registered {} times", one, times);
            }
        }
    }
}
