//! What a device is, and what it does, for presenters, people and scripts.

use corbel_proto::memory::Buffer;
use corbel_proto::time::{Duration, Instant};

use super::Engine;
use super::paths::Path;
use super::policy::NoPath;
use super::status::{DeviceState, DeviceStatus, GroupStatus, PathState, PathStatus};
use super::table::{Entry, Role, State};
use crate::path::Facts;

/// What a presenter has to know of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Bytes of a logical block: the largest of all paths.
    pub block_bytes: u32,
    /// Bytes of a physical block: the largest of all paths.
    pub physical_block_bytes: u32,
    /// What a request is best long, in bytes; 0 is unknown.
    pub optimal_bytes: u32,
    /// The device must not be written, over any path.
    pub read_only: bool,
    /// Acknowledged writes may be in a volatile cache until flushed, over some path.
    pub volatile_cache: bool,
    /// Discard works, over every path.
    pub discard: bool,
    /// Write zeroes works, over every path.
    pub write_zeroes: bool,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time from now, in words.
fn from_now(now: Instant, at: Instant) -> String {
    format!("{:.1} s", at.since(now).as_secs_f64())
}

/// Requests that only wait.
#[derive(Debug, Default)]
struct Queue {
    requests: u64,
    bytes: u64,
    oldest: Option<Instant>,
    in_flight: u64,
}

impl<B: Buffer> Engine<B> {
    /// What the device is; `None` before the first path was ready.
    pub fn geometry(&self) -> Option<Geometry> {
        let device = self.device.as_ref().filter(|device| !device.unconfirmed)?;
        let known = self.paths.iter().filter(|path| !path.removed && path.quarantine.is_none());
        let facts: Vec<&Facts> = known.filter_map(|path| path.facts.as_deref()).collect();
        let block_bytes = device.identity.block_bytes;
        let physical = facts.iter().map(|facts| facts.physical_block_bytes).max();
        Some(Geometry {
            size_bytes: device.identity.size_bytes,
            block_bytes,
            physical_block_bytes: physical.unwrap_or(0).max(block_bytes),
            optimal_bytes: facts.iter().map(|facts| facts.optimal_bytes).max().unwrap_or(0),
            read_only: !facts.is_empty() && facts.iter().all(|facts| facts.read_only),
            volatile_cache: facts.iter().any(|facts| facts.volatile_cache),
            discard: !facts.is_empty() && facts.iter().all(|facts| facts.discard),
            write_zeroes: !facts.is_empty() && facts.iter().all(|facts| facts.write_zeroes),
        })
    }

    /// Everything about the device, which is called `name`.
    pub fn status(&self, now: Instant, name: String) -> DeviceStatus {
        let now = now.max(self.now);
        let identity = self.device.as_ref().map(|device| &device.identity);
        let known = identity.filter(|identity| identity.size_bytes > 0);
        let queue = self.queue();
        let ready = self.paths.iter().filter(|p| !p.removed && p.state == PathState::Ready);
        let no_path_since = self.no_path_since.filter(|_| self.groups.working.is_empty());
        DeviceStatus {
            name,
            wwid: identity.and_then(|identity| identity.wwn.clone()),
            model: known.map(|identity| identity.model.clone()),
            size_bytes: known.map(|identity| identity.size_bytes),
            block_bytes: known.map(|identity| identity.block_bytes),
            read_only: self.geometry().is_some_and(|geometry| geometry.read_only),
            state: self.state(now),
            policy: self.policy.clone(),
            paths_ready: u32::try_from(ready.count()).unwrap_or(u32::MAX),
            queued_requests: queue.requests,
            queued_bytes: queue.bytes,
            queued_oldest_ms: queue.oldest.map_or(0, |oldest| millis(now.since(oldest))),
            in_flight: queue.in_flight,
            doubts: self.doubts.len() as u64,
            no_path_since_ms: no_path_since.map(|since| millis(now.since(since))),
            next: self.next_words(now),
            counters: self.counters,
            groups: self.group_status(now),
        }
    }

    fn state(&self, now: Instant) -> DeviceState {
        let paths = self.paths.iter().filter(|path| !path.removed);
        let all_ready = paths.clone().all(|path| path.state == PathState::Ready);
        let fails = self.no_path_end().is_some_and(|end| end <= now);
        if self.fenced {
            DeviceState::Fenced
        } else if self.detaching.is_some() {
            DeviceState::Detaching
        } else if !self.groups.working.is_empty() {
            if all_ready { DeviceState::Active } else { DeviceState::Degraded }
        } else if fails {
            DeviceState::Failing
        } else if self.device.as_ref().is_none_or(|device| device.unconfirmed) {
            DeviceState::Starting
        } else {
            DeviceState::Queueing
        }
    }

    fn queue(&self) -> Queue {
        let mut queue = Queue::default();
        for (_, entry) in self.table.iter() {
            let waits = match entry.role {
                Role::Plain => entry.state != State::OnPath,
                Role::Flush { parts, .. } => parts == 0 || self.no_part_on_path(entry),
                Role::Part { .. } => continue,
            };
            if !waits {
                queue.in_flight += 1;
                continue;
            }
            queue.requests += 1;
            queue.bytes += entry.extent.len;
            let since = entry.submitted;
            queue.oldest = Some(queue.oldest.map_or(since, |oldest| oldest.min(since)));
        }
        let left_behind = self.tries.iter().filter(|(_, attempt)| attempt.request.is_none());
        queue.in_flight += left_behind.count() as u64;
        queue
    }

    fn no_part_on_path(&self, flush: &Entry<B>) -> bool {
        let of = |part: &Entry<B>| self.flush_of(part) == Some(flush.seq);
        !self.table.iter().any(|(_, part)| of(part) && part.state == State::OnPath)
    }

    /// What happens next on its own.
    fn next_words(&self, now: Instant) -> Option<String> {
        if self.fenced {
            return None;
        }
        if let Some(end) = self.detaching {
            return Some(format!("what is left fails in {}", from_now(now, end)));
        }
        if self.groups.working.is_empty() {
            return Some(match (self.no_path_end(), self.policy.no_path) {
                (Some(end), _) if end <= now => "requests fail until a path is back".to_owned(),
                (Some(end), _) => format!("requests fail in {}", from_now(now, end)),
                (None, NoPath::Queue) | (None, _) => "requests wait for a path".to_owned(),
            });
        }
        if let Some(at) = self.failback_at() {
            return Some(format!("the better group is used again in {}", from_now(now, at)));
        }
        if !self.doubts.is_empty() && !self.table.held.is_empty() {
            return Some("writes wait until old copies of theirs are proved dead".to_owned());
        }
        None
    }

    fn group_status(&self, now: Instant) -> Vec<GroupStatus> {
        let works = !self.groups.working.is_empty();
        let status = |group: &super::group::Group| GroupStatus {
            priority: group.priority,
            active: works && self.groups.active.as_ref() == Some(&group.key),
            paths: group.members.iter().map(|&at| self.path_status(now, at)).collect(),
        };
        self.groups.all.iter().map(status).collect()
    }

    fn path_status(&self, now: Instant, index: usize) -> PathStatus {
        let path: &Path = &self.paths[index];
        let damped = path.damped_until.filter(|_| path.state == PathState::Damped);
        let damped = damped.map(|until| format!("is used again in {}", from_now(now, until)));
        PathStatus {
            path: path.spec.name.clone(),
            state: path.state,
            fault: self.fault_of(index),
            why: path.quarantine.clone().filter(|_| path.up).or_else(|| path.why.clone()),
            since_ms: millis(now.since(path.since)),
            next: damped.or_else(|| path.next.clone()),
            in_flight: path.in_flight,
            completed: path.completed,
            failures: path.failures,
            bytes: path.bytes,
            latency_us: path.latency.map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX)),
            limits: path.spec.limits.clone(),
        }
    }
}
