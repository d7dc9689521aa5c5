//! What a seed decides: how many machines, which paths, what goes wrong, what is asked.
//!
//! Each seed draws first *which kinds* of trouble there are, then how much of each (a swarm):
//! a run in which everything goes wrong at once hides what two faults alone would show.

use std::collections::BTreeMap;

use corbel_initiator::multipath::policy::{
    Cache, Failback, Grouping, Hedge, NoPath, Policy, Selector,
};
use corbel_initiator::multipath::rules::Rules;
use corbel_initiator::path::{aoe, iscsi};
use corbel_initiator::request::IoError;
use corbel_proto::time::{Duration, Instant};

use super::head::Plan as HeadPlan;
use super::host::{HostPlan, PathPlan, Speaks};
use super::judge::Law;
use super::load::Habits;
use super::net::{Link, Manners, between};
use super::trouble;
use crate::rng::Rng;

/// Sectors of the device.
pub const SECTORS: usize = 64;

/// What was sent takes effect within this, or never. Nothing in a run breaks that; initiators are
/// told so (`doubt_hold`).
pub const WIRE_LIFE: Duration = Duration::from_secs(10);

/// Everything about a run.
#[derive(Debug)]
pub struct Plan {
    /// Targets.
    pub heads: Vec<HeadPlan>,
    /// Caches behind them: one for all, or one each.
    pub domains: usize,
    /// Cables.
    pub links: Vec<Link>,
    /// Initiators and what is asked of them.
    pub hosts: Vec<(HostPlan, Habits)>,
    /// What changes when.
    pub changes: Vec<(Instant, super::fault::Change)>,
    /// When everything is repaired.
    pub repaired: Instant,
    /// The device's size from then on.
    pub sectors: usize,
    /// What may happen.
    pub law: Law,
    /// Disks take up to this for half an operation.
    pub disk_delay_max: Duration,
    /// Heads with AoE clients may stand still, and frames be very late.
    pub stalls: bool,
}

/// Milliseconds.
pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn pick<T: Clone>(rng: &mut Rng, of: &[T]) -> T {
    of[usize::try_from(rng.below(of.len() as u64)).expect("few")].clone()
}

/// Draws a run.
pub fn draw(rng: &mut Rng, rules: Rules) -> Plan {
    let heads = 1 + usize::from(rng.percent(60));
    // Frames may be in a queue for long, and initiators are told so; or they may not.
    let stalls = rng.percent(50);
    let domains = if heads == 2 && rng.percent(50) { 2 } else { 1 };
    // Two heads that are configured alike: a session at one is none at the other.
    let alike = heads == 2 && domains == 1 && rng.percent(50);
    let lease = rng.percent(15);
    let ends = Instant::ZERO + ms(4_000 + rng.below(14_000));
    let mtu = pick(rng, &[1500, 1500, 9000]);
    let mut links = Vec::new();
    let mut hosts = Vec::new();
    for index in 0..1 + usize::from(lease) {
        let paths = paths(rng, index, (heads, alike), (mtu, stalls), &mut links);
        let mtus: BTreeMap<usize, u32> = paths.iter().map(|path| (path.link, mtu)).collect();
        let seed = rng.next();
        let depth = pick(rng, &[1, 4, 32_u16]);
        let policy = policy(rng, domains);
        let (knows, aloud) = (rng.percent(50), false);
        let plan = HostPlan { index, paths, policy, rules, mtus, depth, seed, knows, aloud };
        let mut habits = habits(rng, ends);
        if plan.paths.iter().any(|path| matches!(path.speaks, Speaks::Aoe(_))) {
            // AoE has no such command; a device with such a path does not offer it.
            habits.weights[4] = 0;
        }
        hosts.push((plan, habits));
    }
    let plans = (0..heads)
        .map(|head| HeadPlan {
            name: if alike { 0 } else { head },
            links: (0..links.len()).filter(|&n| links[n].head == head).map(|n| (n, mtu)).collect(),
            memory_bytes: pick(rng, &[64 << 10, 1 << 20]),
            block_bytes: 512,
            announces: rng.percent(50),
            ping: (pick(rng, &[ms(2_000), ms(30_000)]), pick(rng, &[ms(2_000), ms(30_000)])),
        })
        .collect();
    let mut plan = Plan {
        heads: plans,
        domains,
        links,
        hosts,
        changes: Vec::new(),
        repaired: ends,
        sectors: SECTORS,
        law: Law {
            errors: Vec::new(),
            flush_errors: false,
            write_age_max: None,
            deposed: None,
            doubled: false,
            grown: (SECTORS as u64, Vec::new()),
        },
        disk_delay_max: pick(rng, &[ms(1), ms(4), ms(20)]),
        stalls,
    };
    for (host, _) in &plan.hosts {
        if !matches!(host.policy.no_path, NoPath::Queue) {
            plan.law.errors.push(IoError::Io);
        }
    }
    plan.law.doubled = plan.links.iter().any(|link| link.manners.double_percent > 0);
    if lease {
        hand_over(rng, &mut plan);
    }
    trouble::draw(rng, &mut plan);
    plan
}

fn paths(
    rng: &mut Rng,
    host: usize,
    (heads, alike): (usize, bool),
    (mtu, stalls): (u32, bool),
    links: &mut Vec<Link>,
) -> Vec<PathPlan> {
    let count = 1 + usize::try_from(rng.below(4)).expect("few");
    let aoe_percent = pick(rng, &[0, 50, 100]);
    let iscsi = iscsi_timers(rng);
    let aoe = aoe_timers(rng, stalls);
    let mut manners = manners(rng);
    if heads > 1 {
        // The second of two equal frames may be at one head's disk while a newer write passes
        // through the other; no initiator can do anything about that.
        manners.double_percent = 0;
    }
    if !stalls {
        manners.late_max = manners.late_max.min(ms(300));
    }
    let mut paths: Vec<PathPlan> = Vec::new();
    for number in 0..count {
        let head = number % heads;
        let speaks =
            if rng.percent(aoe_percent) { Speaks::Aoe(aoe) } else { Speaks::Iscsi(iscsi.clone()) };
        links.push(Link {
            host,
            head,
            carrier: true,
            blocked_to_head: false,
            blocked_to_host: false,
            passes_bytes: mtu,
            mtu,
            manners,
        });
        let name = if alike { 0 } else { head };
        paths.push(PathPlan { link: links.len() - 1, head, name, speaks });
    }
    paths
}

fn iscsi_timers(rng: &mut Rng) -> iscsi::Timers {
    let defaults = iscsi::Timers::default();
    let mut timers = iscsi::Timers { doubt_hold: WIRE_LIFE, ..defaults };
    if rng.percent(50) {
        timers.ping_after = ms(100 + rng.below(300));
        timers.ping_answer = ms(100 + rng.below(600));
        timers.command = ms(500 + rng.below(8_000));
        timers.retry_max = ms(150 + rng.below(2_000));
    }
    timers
}

fn aoe_timers(rng: &mut Rng, stalls: bool) -> aoe::Timers {
    let base = pick(rng, &[aoe::Timers::DEFAULT, aoe::Timers::DEFAULT, aoe::Timers::QUICK]);
    let copy_hold = if stalls { WIRE_LIFE } else { base.copy_hold };
    aoe::Timers { doubt_hold: WIRE_LIFE, copy_hold, ..base }
}

fn manners(rng: &mut Rng) -> Manners {
    let on = |rng: &mut Rng, max: u64| if rng.percent(40) { rng.below(max + 1) } else { 0 };
    Manners {
        delay_min: Duration::from_micros(10 + rng.below(90)),
        delay_max: pick(rng, &[Duration::from_micros(100), ms(1), ms(5)]),
        loss_percent: on(rng, 10),
        double_percent: on(rng, 20),
        late_percent: on(rng, 10),
        late_max: pick(rng, &[ms(20), ms(300), ms(3_000)]),
        cut_percent: on(rng, 60),
    }
}

fn policy(rng: &mut Rng, domains: usize) -> Policy {
    let defaults = Policy::default();
    let cache = match domains {
        1 => pick(rng, &[Cache::Trust, Cache::Trust, Cache::Multi, Cache::Fua]),
        _ => pick(rng, &[Cache::Multi, Cache::Multi, Cache::Fua]),
    };
    let mut flap = defaults.flap;
    if rng.percent(70) {
        flap.failures = 0;
    } else {
        (flap.hold, flap.hold_max) = (ms(1_000), ms(4_000));
    }
    Policy {
        grouping: pick(
            rng,
            &[
                Grouping::Failover,
                Grouping::Multibus,
                Grouping::Multibus,
                Grouping::GroupByPrio,
                Grouping::GroupBySerial,
            ],
        ),
        selector: pick(rng, &[Selector::RoundRobin, Selector::QueueLength, Selector::ServiceTime]),
        requests_per_turn: pick(rng, &[1, 4]),
        failback: pick(rng, &[Failback::Immediate, Failback::Manual, Failback::After(ms(1_500))]),
        no_path: pick(
            rng,
            &[
                NoPath::Queue,
                NoPath::Queue,
                NoPath::Queue,
                NoPath::Queue,
                NoPath::Fail,
                NoPath::For(ms(3_000)),
            ],
        ),
        fast_io_fail: pick(rng, &[ms(500), ms(5_000)]),
        cache,
        flap,
        hedge: rng
            .percent(25)
            .then(|| Hedge { per_mille: pick(rng, &[500, 900]), after_min: ms(1) }),
        ..defaults
    }
}

fn habits(rng: &mut Rng, ends: Instant) -> Habits {
    let count = 40 + rng.below(180);
    let spread = ends.since(Instant::ZERO).as_nanos() * 2 / u128::from(count);
    let mut weight = |most: u64| if rng.percent(80) { 1 + rng.below(most) } else { 0 };
    let weights = [weight(40), weight(60) + 5, weight(20), weight(10), weight(10)];
    Habits {
        begins: Instant::ZERO + ms(5),
        count,
        depth: pick(rng, &[1, 4, 12, 24]),
        pause_max: Duration::from_nanos(u64::try_from(spread).expect("seconds")),
        sectors: pick(rng, &[4, 16, SECTORS as u64]),
        sectors_max: pick(rng, &[1, 4, 16]),
        block_sectors: 1,
        weights,
        fua_percent: pick(rng, &[0, 0, 20]),
        outside_percent: 0,
    }
    .fitting()
}

/// Host 0 uses the storage under a lease; it loses it, and host 1 takes over when nothing of host
/// 0 can take effect any more.
fn hand_over(rng: &mut Rng, plan: &mut Plan) {
    let age = ms(1_000 + rng.below(3_000));
    let lost = plan.repaired;
    let over = lost + age + WIRE_LIFE;
    plan.hosts[0].0.policy.write_age_max = Some(age);
    plan.hosts[1].1.begins = over;
    plan.changes.push((lost, super::fault::Change::Rest(0)));
    plan.law.errors.push(IoError::TooOld);
    plan.law.write_age_max = Some((0, age + WIRE_LIFE));
    plan.law.deposed = Some((0, over));
    plan.repaired = over + ms(2_000) + between(ms(4_000), rng);
}
