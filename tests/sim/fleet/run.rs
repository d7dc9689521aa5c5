//! One run: a seed, and what came of it.

use std::fmt;

use corbel_initiator::multipath::rules::Rules;
use corbel_initiator::multipath::status::DeviceStatus;
use corbel_proto::time::{Duration, Instant};

use super::fabric::{Fabric, Node};
use super::fault::Change;
use super::head::{Head, Process};
use super::host::Machine;
use super::judge;
use super::load::Load;
use super::plan::{self, Plan, SECTORS, WIRE_LIFE, ms};
use super::store::Store;
use super::trace::Trace;
use crate::rng::Rng;

/// Once everything is repaired, everything that was asked is answered within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was not asked so long after the repair is not asked any more.
const ASKS_ON: Duration = Duration::from_secs(5);

/// A run that was right.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The same seed gives the same.
    pub hash: u64,
    /// Requests asked.
    pub requests: usize,
    /// Virtual time it took.
    pub took: Duration,
}

/// A run that was not.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// What was wrong, the worst first.
    pub what: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} complaints", self.seed, self.what.len())?;
        self.what.iter().take(8).try_for_each(|what| writeln!(f, "  {what}"))?;
        write!(
            f,
            "replay it: CORBEL_SEED={} CORBEL_TRACE=1 \
             cargo test -p corbel-tests --release --test fleet one_seed",
            self.seed
        )
    }
}

type Fleet = Fabric<Machine>;

/// Runs a seed under these rules. `aloud`: tells stderr what happens.
///
/// # Errors
/// What was wrong.
pub fn run(seed: u64, rules: Rules, aloud: bool) -> Result<Report, Failure> {
    let mut rng = Rng::new(seed);
    let mut plan = plan::draw(&mut rng, rules);
    plan.hosts.iter_mut().for_each(|(host, _)| host.aloud = aloud);
    if aloud {
        eprintln!("{plan:#?}");
    }
    let mut fleet = build(&plan, rng, aloud);
    let mut what = live(&mut fleet, &plan);
    let end = fleet.now();
    for domain in 0..plan.domains {
        fleet.lose_cache(domain);
    }
    let mut records = std::collections::BTreeMap::new();
    for host in &mut fleet.hosts {
        what.append(&mut host.node.load.complaints);
        records.append(&mut host.node.load.records);
    }
    plan.law.grown.1 = fleet.hosts.iter().map(|host| host.node.grown()).collect();
    let [ours, alien] = &fleet.stores;
    if let Err(faults) = judge::judge(ours, alien, &records, &plan.law) {
        what.splice(0..0, faults);
    }
    if !what.is_empty() {
        return Err(Failure { seed, what });
    }
    let took = end.since(Instant::ZERO);
    Ok(Report { hash: fleet.trace.hash(), requests: records.len(), took })
}

fn build(plan: &Plan, mut rng: Rng, aloud: bool) -> Fleet {
    let heads = plan.heads.iter().enumerate().map(|(number, head)| {
        let domain = if plan.domains > 1 { number } else { 0 };
        Head::new(head.clone(), domain, SECTORS)
    });
    let nodes = plan.hosts.iter().enumerate().map(|(number, (host, habits))| {
        Machine::new(host.clone(), Load::new(number, habits.clone(), rng.fork()))
    });
    let (heads, nodes) = (heads.collect(), nodes.collect());
    let stores = [Store::new(2 * SECTORS, plan.domains), Store::new(2 * SECTORS, plan.domains)];
    let links = plan.links.clone();
    let trace = Trace::new(aloud);
    let mut fleet = Fabric::new(rng.fork(), trace, heads, nodes, links, stores);
    fleet.disk_delay_max = plan.disk_delay_max;
    let at = |millis| Instant::ZERO + ms(millis);
    for head in 0..plan.heads.len() {
        fleet.plan(at(1 + rng.below(4)), Change::Start(head));
    }
    for host in 0..plan.hosts.len() {
        fleet.plan(at(1 + rng.below(4)), Change::StartHost(host));
    }
    for (when, change) in &plan.changes {
        fleet.plan(*when, *change);
    }
    fleet
}

/// Lets the run happen. What was wrong with its course.
fn live(fleet: &mut Fleet, plan: &Plan) -> Vec<String> {
    fleet.run_until(plan.repaired, |_| false);
    fleet.repair(plan.sectors);
    // Trouble that was to come later is over as well.
    fleet.cancel_changes();
    let mut what = Vec::new();
    for host in 0..fleet.hosts.len() {
        fleet.plan(fleet.now() + ASKS_ON, Change::Rest(host));
    }
    let deadline = fleet.now() + PATIENCE;
    let all_asked = |fleet: &Fleet| {
        fleet.hosts.iter().all(|host| host.node.load.is_resting() && host.node.load.open() == 0)
    };
    fleet.run_until(deadline, all_asked);
    if !all_asked(fleet) {
        what.push("requests hang although everything is repaired".to_owned());
    }
    // Nothing of it is left anywhere.
    fleet.run_until(fleet.now() + WIRE_LIFE + PATIENCE, |fleet| {
        fleet.now() > deadline && fleet.hosts.iter().all(|host| host.node.wake_at().is_none())
    });
    let now = fleet.now();
    for (number, host) in fleet.hosts.iter_mut().enumerate() {
        let paths = plan.hosts[number].0.paths.len();
        let status = host.node.status(now).expect("it runs");
        let left = (status.queued_requests, status.in_flight, status.doubts);
        if left != (0, 0, 0) || host.node.load.memory_in_use() > 0 {
            let memory = host.node.load.memory_in_use();
            let status = brief(&status);
            what.push(format!("host {number} still has {left:?} and {memory} bytes: {status}"));
        }
        if (status.paths_ready as usize) < paths {
            what.push(format!("host {number}: paths do not come back: {}", brief(&status)));
        }
    }
    for (number, head) in fleet.heads.iter().enumerate() {
        let lent = head.process.as_ref().map_or(0, Process::lent_bytes);
        if lent > 0 {
            what.push(format!("head {number} still holds {lent} bytes"));
        }
    }
    what
}

/// A status in few words.
fn brief(status: &DeviceStatus) -> String {
    let paths: Vec<String> = status
        .groups
        .iter()
        .flat_map(|group| &group.paths)
        .map(|p| format!("{} {:?} ({:?}; {:?})", p.path, p.state, p.why, p.next))
        .collect();
    format!("{:?}, {:?}, {paths:?}", status.state, status.next)
}
