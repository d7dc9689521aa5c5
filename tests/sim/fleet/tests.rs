//! The cables and the heads, without an initiator: what the simulator itself must do.

use corbel_proto::aoe::HEADER_BYTES;
use corbel_proto::aoe::initiator::discover;
use corbel_proto::time::{Duration, Instant};

use super::fabric::{Fabric, Input, Node, Output};
use super::fault::Change;
use super::head::{Head, Plan, host_mac};
use super::net::{Link, Manners};
use super::store::Store;
use super::trace::Trace;
use crate::rng::Rng;

const MTU: u32 = 1500;

/// Does as it is told, and writes down what it hears.
#[derive(Debug, Default)]
struct Ear {
    at_start: Vec<Output>,
    heard: Vec<(Instant, Input)>,
}

impl Ear {
    fn count(&self, wanted: impl Fn(&Input) -> bool) -> usize {
        self.heard.iter().filter(|(_, input)| wanted(input)).count()
    }
}

impl Node for Ear {
    fn handle(&mut self, now: Instant, input: Input, _: &mut Vec<Output>) {
        self.heard.push((now, input));
    }

    fn wake_at(&self) -> Option<Instant> {
        None
    }

    fn kill(&mut self, _: Instant) {}

    fn start(&mut self, _: Instant, _: &[(usize, bool)], out: &mut Vec<Output>) {
        out.append(&mut self.at_start);
    }

    fn rest(&mut self) {}
}

fn fabric(seed: u64, loss_percent: u64, at_start: Vec<Output>) -> Fabric<Ear> {
    let manners = Manners {
        delay_min: Duration::from_micros(20),
        delay_max: Duration::from_micros(200),
        loss_percent,
        double_percent: 30,
        late_percent: 10,
        late_max: Duration::from_millis(10),
        cut_percent: 30,
    };
    let link = Link {
        host: 0,
        head: 0,
        carrier: true,
        blocked_to_head: false,
        blocked_to_host: false,
        passes_bytes: MTU,
        mtu: MTU,
        manners,
    };
    let ping = (Duration::from_secs(30), Duration::from_secs(30));
    let plan = Plan {
        name: 0,
        links: vec![(0, MTU)],
        memory_bytes: 1 << 20,
        block_bytes: 512,
        announces: false,
        ping,
    };
    let heads = vec![Head::new(plan, 0, 64)];
    let node = Ear { at_start, heard: Vec::new() };
    let stores = [Store::new(64, 1), Store::new(64, 1)];
    Fabric::new(Rng::new(seed), Trace::new(false), heads, vec![node], vec![link], stores)
}

fn query() -> Output {
    let query = discover::everyone(host_mac(0), 7);
    assert!(query.len() >= HEADER_BYTES);
    Output::Frame(0, query.to_vec())
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

fn run(fabric: &mut Fabric<Ear>, changes: &[(u64, Change)]) {
    for (millis, change) in changes {
        fabric.plan(at(*millis), *change);
    }
    fabric.run_until(at(60_000), |_| false);
}

fn is_frame(input: &Input) -> bool {
    matches!(input, Input::Frame(0, _))
}

#[test]
fn a_head_answers_on_aoe_and_one_that_hangs_answers_when_it_goes_on() {
    let mut fabric = fabric(1, 0, vec![query()]);
    let changes = [
        (1, Change::Start(0)),
        (2, Change::Hang(0)),
        (3, Change::StartHost(0)),
        (500, Change::Resume(0)),
    ];
    run(&mut fabric, &changes);
    let ear = &fabric.hosts[0].node;
    assert!(ear.count(is_frame) >= 1);
    assert!(ear.heard.iter().all(|(when, _)| *when >= at(500)), "{:?}", ear.heard);
}

#[test]
fn a_machine_without_the_process_refuses_and_one_that_is_off_is_silent() {
    let connect = || vec![Output::Connect(0, 1, 0)];
    let mut dead = fabric(2, 0, connect());
    run(&mut dead, &[(1, Change::Start(0)), (2, Change::Crash(0)), (3, Change::StartHost(0))]);
    assert_eq!(dead.hosts[0].node.count(|i| matches!(i, Input::Refused(0, 1))), 1);
    let mut off = fabric(2, 0, connect());
    run(&mut off, &[(3, Change::StartHost(0))]);
    assert!(off.hosts[0].node.heard.is_empty());
}

#[test]
fn a_connection_stands_until_the_process_behind_it_crashes() {
    let mut fabric = fabric(3, 20, vec![Output::Connect(0, 1, 0)]);
    let changes = [(1, Change::Start(0)), (2, Change::StartHost(0)), (9_000, Change::Crash(0))];
    run(&mut fabric, &changes);
    let heard: Vec<_> = fabric.hosts[0].node.heard.iter().map(|(_, input)| input).collect();
    assert!(matches!(heard[..], [Input::Connected(0, 1), Input::Closed(0, 1)]), "{heard:?}");
}

#[test]
fn a_link_that_passes_one_way_only_answers_nothing() {
    let mut fabric = fabric(4, 0, vec![query(), Output::Connect(0, 1, 0)]);
    let changes = [
        (1, Change::Start(0)),
        (2, Change::Block(0, false, true)),
        (3, Change::StartHost(0)),
        (4_000, Change::Block(0, false, false)),
    ];
    run(&mut fabric, &changes);
    let ear = &fabric.hosts[0].node;
    assert_eq!(ear.count(is_frame), 0, "frames are not sent again by anybody");
    assert_eq!(ear.count(|i| matches!(i, Input::Connected(0, 1))), 1, "TCP tries again");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_another() {
    let hash = |seed| {
        let mut fabric = fabric(seed, 10, vec![query(), query(), Output::Connect(0, 1, 0)]);
        run(&mut fabric, &[(1, Change::Start(0)), (2, Change::StartHost(0))]);
        fabric.trace.hash()
    };
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
}
