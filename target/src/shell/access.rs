//! What the operator says about how good each way to a device is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Inner, Running};
use crate::admin::AccessOrder;
use crate::config::{AccessState, Changes, Export};
use crate::scsi::LogicalUnit;
use crate::scsi::port_groups::Change;

/// How long the state folder may take.
const WRITE_MAX: Duration = Duration::from_secs(8);
/// An initiator's change is written meanwhile: asked again this soon.
const AGAIN: Duration = Duration::from_millis(10);

impl Running {
    /// Gives a port group another state, for the exports named or for all that have it. Every
    /// initiator is told. Gives what changed, in words.
    ///
    /// # Errors
    /// What could not be done, and what has been done all the same.
    pub fn set_access(&self, order: &AccessOrder) -> Result<Vec<String>, String> {
        let inner = self.inner();
        let names = reached(&inner, order)?;
        let deadline = Instant::now() + WRITE_MAX;
        let (tell, told) = mpsc::channel();
        let mut waiting = BTreeSet::new();
        let mut failed = Vec::new();
        for name in names {
            let Some(unit) = inner.planner.unit(&name) else { continue };
            let name: Arc<str> = name.into();
            match propose(unit, order, deadline) {
                Change::Nothing => {}
                Change::Busy => failed.push(name),
                Change::Persist(bytes) => {
                    let (unit, tell, done) = (unit.clone(), tell.clone(), name.clone());
                    self.writer.replace(&unit.access_name(), bytes, move |kept| {
                        unit.port_groups.settle(kept);
                        // Nobody listens any more if it took too long.
                        let _ = tell.send((done, kept));
                    });
                    waiting.insert(name);
                }
            }
        }
        let mut said = Vec::new();
        while !waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((name, kept)) = told.recv_timeout(left) else { break };
            waiting.remove(&name);
            let state = order.state.name();
            match kept {
                true => said.push(format!("export `{name}`: port group {} {state}", order.group)),
                false => failed.push(name),
            }
        }
        failed.extend(waiting);
        if failed.is_empty() {
            return Ok(said);
        }
        let what = "the state folder did not take it; see the log, and ask again";
        Err(format!("not changed: {}: {what}; {} changed", failed.join(", "), said.len()))
    }

    /// A configuration was taken up: what it overrules is not to come back with a restart.
    pub(super) fn keep_access(&self, inner: &Inner, changes: &Changes<'_, Export>) {
        let of = |export: &Export| (export.alua, export.port_groups.clone());
        for (_, after) in changes.changed.iter().filter(|(old, new)| of(old) != of(new)) {
            let Some(unit) = inner.planner.unit(&after.name) else { continue };
            let bytes = unit.port_groups.snapshot();
            // A failure is in the log.
            self.writer.replace(&unit.access_name(), bytes, |_| {});
        }
    }
}

/// The exports that an order is about.
fn reached(inner: &Inner, order: &AccessOrder) -> Result<Vec<String>, String> {
    let AccessOrder { exports, group, .. } = order;
    let has = |name: &str| inner.config.port_groups(name).contains(group);
    for name in exports {
        if inner.planner.unit(name).is_none() {
            return Err(format!("there is no export `{name}`"));
        }
        if !has(name) {
            return Err(format!("export `{name}` has no portal in group {group}"));
        }
    }
    if !exports.is_empty() {
        return Ok(exports.clone());
    }
    let all = inner.config.exports.iter().map(|export| export.name.clone());
    let all: Vec<_> = all.filter(|name| has(name)).collect();
    match all.is_empty() {
        true => Err(format!("no export has a portal in group {group}")),
        false => Ok(all),
    }
}

fn propose(unit: &LogicalUnit, order: &AccessOrder, deadline: Instant) -> Change {
    let orders: [(u16, AccessState); 1] = [(order.group, order.state)];
    loop {
        match unit.port_groups.propose(&orders, None) {
            Change::Busy if Instant::now() < deadline => std::thread::sleep(AGAIN),
            change => return change,
        }
    }
}
