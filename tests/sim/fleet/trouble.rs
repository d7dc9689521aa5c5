//! What goes wrong in a run.

use corbel_initiator::multipath::policy::Cache;
use corbel_initiator::request::IoError;
use corbel_proto::time::{Duration, Instant};

use super::fault::Change;
use super::host::{HostPlan, Speaks};
use super::load::Habits;
use super::net::between;
use super::plan::{Plan, SECTORS, ms};
use crate::rng::Rng;

/// Longest time that a head or its disk stands still; together with what a cable and a kernel can
/// keep, that is less than [`WIRE_LIFE`](super::plan::WIRE_LIFE).
const STALL_MAX: Duration = Duration::from_secs(3);

/// How long a head is gone before it comes back as another device: AoE has no sessions, so only a
/// silence tells a client to ask again who is there.
const GONE_MIN: Duration = Duration::from_secs(6);

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cut,
    Silence,
    OneWay,
    SmallFrames,
    Loss,
    Resets,
    Crash,
    Power,
    CacheLost,
    Hang,
    DiskHangs,
    BadSector,
    Alien,
    Grown,
    Killed,
    Frozen,
}

const KINDS: [Kind; 16] = [
    Kind::Cut,
    Kind::Silence,
    Kind::OneWay,
    Kind::SmallFrames,
    Kind::Loss,
    Kind::Resets,
    Kind::Crash,
    Kind::Power,
    Kind::CacheLost,
    Kind::Hang,
    Kind::DiskHangs,
    Kind::BadSector,
    Kind::Alien,
    Kind::Grown,
    Kind::Killed,
    Kind::Frozen,
];

/// Draws what goes wrong.
pub(super) fn draw(rng: &mut Rng, plan: &mut Plan) {
    let percent = [0, 15, 35, 60][usize::try_from(rng.below(4)).expect("four")];
    for kind in KINDS {
        if rng.percent(percent) {
            for _ in 0..1 + rng.below(3) {
                Episode::draw(rng, plan, kind).enter(rng, plan);
            }
        }
    }
}

struct Episode {
    kind: Kind,
    from: Instant,
    until: Instant,
    link: usize,
    head: usize,
    host: usize,
}

impl Episode {
    fn draw(rng: &mut Rng, plan: &Plan, kind: Kind) -> Self {
        let whole = plan.repaired.since(Instant::ZERO);
        let from = Instant::ZERO + ms(20) + between(whole, rng);
        let lasts = match rng.below(4) {
            0 => ms(1 + rng.below(100)),
            1 | 2 => ms(100 + rng.below(1_500)),
            _ => ms(1_500 + rng.below(7_000)),
        };
        let mut one_of = |len: usize| usize::try_from(rng.below(len as u64)).expect("few");
        Self {
            kind,
            from,
            until: from + lasts,
            link: one_of(plan.links.len()),
            head: one_of(plan.heads.len()),
            host: one_of(plan.hosts.len()),
        }
    }

    fn enter(self, rng: &mut Rng, plan: &mut Plan) {
        let Self { kind, from, until, link, head, host } = self;
        match kind {
            Kind::Cut => {
                let (begin, end) = (Change::Carrier(link, false), Change::Carrier(link, true));
                between_them(plan, from, begin, until, end);
            }
            Kind::Silence | Kind::OneWay => {
                let to_head = kind == Kind::Silence || rng.percent(50);
                let to_host = kind == Kind::Silence || !to_head;
                let begin = Change::Block(link, to_head, to_host);
                between_them(plan, from, begin, until, Change::Block(link, false, false));
            }
            Kind::SmallFrames => {
                let whole = plan.links[link].mtu;
                let (begin, end) = (Change::Passes(link, 1400), Change::Passes(link, whole));
                between_them(plan, from, begin, until, end);
            }
            Kind::Loss => {
                let usual = plan.links[link].manners.loss_percent;
                let begin = Change::Loses(link, 20 + rng.below(70));
                between_them(plan, from, begin, until, Change::Loses(link, usual));
            }
            Kind::Resets => plan.changes.push((from, Change::ResetStreams(link))),
            // What is to be another device after a silence must not come back before.
            Kind::Crash | Kind::Power | Kind::CacheLost
                if has(plan, |change| matches!(change, Change::Alien(..))) => {}
            Kind::Crash => {
                between_them(plan, from, Change::Crash(head), until, Change::Start(head))
            }
            Kind::Power => {
                // Who comes back after a loss of power may have lost its cache; flushes say so.
                plan.law.flush_errors = true;
                let begin = Change::PowerOff(head, false);
                plan.changes.push((from, begin));
                let name = plan.heads[head].name;
                for other in (0..plan.heads.len()).filter(|&n| plan.heads[n].name == name) {
                    plan.changes.push((until, Change::Start(other)));
                }
            }
            Kind::CacheLost => cache_lost(plan, from, until, head),
            Kind::Hang | Kind::DiskHangs => stall(plan, &self),
            Kind::BadSector => {
                // ATA has no word for a write that the medium does not take.
                plan.law.errors.extend([IoError::Medium, IoError::Io]);
                let sector = rng.below(SECTORS as u64);
                let (begin, end) = (Change::BadSector(sector), Change::GoodSector(sector));
                between_them(plan, from, begin, until, end);
            }
            Kind::Alien => alien(plan, &self),
            Kind::Grown => grown(plan, rng),
            Kind::Killed => {
                between_them(plan, from, Change::KillHost(host), until, Change::StartHost(host));
            }
            Kind::Frozen => {
                between_them(plan, from, Change::Freeze(host), until, Change::Thaw(host))
            }
        }
    }
}

/// Such a change is planned already.
fn has(plan: &Plan, such: impl Fn(&Change) -> bool) -> bool {
    plan.changes.iter().any(|(_, change)| such(change))
}

fn between_them(plan: &mut Plan, from: Instant, begin: Change, until: Instant, end: Change) {
    plan.changes.push((from, begin));
    plan.changes.push((until, end));
}

/// The machine of a head loses its power, and every machine that shares its cache.
fn cache_lost(plan: &mut Plan, from: Instant, until: Instant, head: usize) {
    let all = plan.domains == 1;
    let trusts = |(host, _): &(HostPlan, Habits)| host.policy.cache == Cache::Trust;
    if all && plan.heads.len() > 1 && plan.hosts.iter().any(trusts) {
        // A host that trusts one flush for all asks the first head that comes back. That the other
        // one took writes, and lost them as well, it learns too late.
        return;
    }
    plan.law.flush_errors = true;
    plan.changes.push((from, Change::PowerOff(head, true)));
    for other in (0..plan.heads.len()).filter(|&other| all || other == head) {
        plan.changes.push((until, Change::Start(other)));
    }
}

/// AoE is spoken with this head.
fn speaks_aoe(plan: &Plan, head: usize) -> bool {
    let mut paths = plan.hosts.iter().flat_map(|(host, _)| &host.paths);
    paths.any(|path| path.head == head && matches!(path.speaks, Speaks::Aoe(_)))
}

/// Each head stands still once at most, it or its disk: two in a row could be longer than what was
/// sent may live.
fn stall(plan: &mut Plan, episode: &Episode) {
    let Episode { kind, from, until, head, .. } = *episode;
    let same = |change: &Change| match (change, kind) {
        (Change::Hang(other), Kind::Hang) => *other == head,
        (Change::DiskHangs(other, _), Kind::DiskHangs) => *other == head,
        _ => false,
    };
    let patient = plan.stalls || !speaks_aoe(plan, head);
    if !patient || has(plan, same) {
        return;
    }
    let lasts = until.since(from).min(STALL_MAX);
    if kind == Kind::DiskHangs {
        plan.changes.push((from, Change::DiskHangs(head, lasts)));
    } else {
        between_them(plan, from, Change::Hang(head), from + lasts, Change::Resume(head));
    }
}

/// A head comes back as another device, for a while.
fn alien(plan: &mut Plan, episode: &Episode) {
    let Episode { from, until, head, .. } = *episode;
    let gone = if speaks_aoe(plan, head) { GONE_MIN } else { ms(50) };
    let back = until + gone;
    let comes_back = |change: &Change| matches!(change, Change::Start(other) if *other == head);
    if back + gone >= plan.repaired || has(plan, comes_back) {
        return;
    }
    // Who was never told which device is meant takes the first that answers.
    plan.hosts.iter_mut().for_each(|(host, _)| host.knows = true);
    plan.changes.push((from, Change::Crash(head)));
    plan.changes.push((from, Change::Alien(head, true)));
    plan.changes.push((from + gone, Change::Start(head)));
    plan.changes.push((back, Change::Crash(head)));
    plan.changes.push((back, Change::Alien(head, false)));
    plan.changes.push((back + gone, Change::Start(head)));
}

/// The device grows on all heads, one after the other.
fn grown(plan: &mut Plan, rng: &mut Rng) {
    if plan.sectors != SECTORS {
        return;
    }
    plan.sectors = 2 * SECTORS;
    plan.hosts.iter_mut().for_each(|(_, habits)| habits.outside_percent = 5);
    let whole = plan.repaired.since(Instant::ZERO);
    for head in 0..plan.heads.len() {
        let at = Instant::ZERO + between(whole, rng);
        plan.changes.push((at, Change::Resize(head, plan.sectors)));
    }
}
