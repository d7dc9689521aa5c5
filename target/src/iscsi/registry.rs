//! All sessions of the process: their handles, their limits, and who replaces whom.
//!
//! One small mutex, taken when a session begins or ends and by nobody in between.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use corbel_proto::iscsi::login::target::Admission;
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::pdu::login::Isid;

use crate::host::ShardId;

/// What makes two logins the same session (RFC 7143 6.3.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    initiator: Name,
    isid: Isid,
    target: Option<Name>,
    group: u16,
}

/// A new session's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its handle, never zero.
    pub tsih: u16,
    /// The session it replaces, which must be fenced first, and where that one lives.
    pub replaces: Option<(u16, ShardId)>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The process has as many sessions as it may.
    Process,
    /// The target has.
    Target,
}

#[derive(Debug)]
struct Known {
    key: Key,
    shard: ShardId,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<u16, Known>,
    newest: HashMap<Key, u16>,
    last: u16,
}

/// The sessions of the process. Shared by all shards.
#[derive(Debug)]
pub struct Registry {
    sessions_max: usize,
    state: Mutex<State>,
}

impl Registry {
    /// Room for `sessions_max` sessions (65534 at most).
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions_max: sessions_max.min(65_534), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a session on `shard` its place. A session that is replaced still counts until it is
    /// over, but does not keep its successor out of its target.
    pub fn enter(
        &self,
        admission: &Admission,
        shard: ShardId,
        target_sessions_max: u32,
    ) -> Result<Entry, Full> {
        let key = Key {
            initiator: admission.initiator.clone(),
            isid: admission.isid,
            target: admission.target.clone(),
            group: admission.portal_group_tag,
        };
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.sessions.len() >= self.sessions_max {
            return Err(Full::Process);
        }
        // A discovery session has no tasks to protect, and Linux opens several at once.
        let discovery = key.target.is_none();
        let replaced = state.newest.get(&key).copied().filter(|_| !discovery);
        if !discovery && replaced.is_none() {
            let others = state.newest.keys().filter(|other| other.target == key.target).count();
            if others >= target_sessions_max as usize {
                return Err(Full::Target);
            }
        }
        let mut tsih = state.last;
        loop {
            tsih = tsih.checked_add(1).unwrap_or(1);
            if !state.sessions.contains_key(&tsih) {
                break;
            }
        }
        state.last = tsih;
        let replaces =
            replaced.and_then(|old| state.sessions.get(&old).map(|known| (old, known.shard)));
        if !discovery {
            state.newest.insert(key.clone(), tsih);
        }
        state.sessions.insert(tsih, Known { key, shard });
        Ok(Entry { tsih, replaces })
    }

    /// The session is over, and none of its work has any effect any more.
    pub fn leave(&self, tsih: u16) {
        let mut state = self.lock();
        if let Some(known) = state.sessions.remove(&tsih)
            && state.newest.get(&known.key) == Some(&tsih)
        {
            state.newest.remove(&known.key);
        }
    }

    /// Where the session of this handle lives.
    pub fn shard_of(&self, tsih: u16) -> Option<ShardId> {
        self.lock().sessions.get(&tsih).map(|known| known.shard)
    }

    /// Sessions now.
    pub fn count(&self) -> usize {
        self.lock().sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corbel_proto::iscsi::params::{Negotiated, SessionType};

    fn admission(initiator: &str, isid: u8, target: Option<&str>) -> Admission {
        Admission {
            session: if target.is_some() { SessionType::Normal } else { SessionType::Discovery },
            initiator: initiator.parse().unwrap(),
            initiator_alias: None,
            target: target.map(|name| name.parse().unwrap()),
            portal_group_tag: 1,
            isid: Isid([isid; 6]),
            tsih: 0,
            cid: 0,
            authenticated_as: None,
            agreed: Negotiated::default(),
            stat_sn: 0,
            exp_cmd_sn: 0,
        }
    }

    const A: &str = "iqn.2026-11.org.example:a";
    const T: &str = "iqn.2026-11.org.example:t";

    #[test]
    fn the_same_name_and_isid_replace_and_others_do_not() {
        let registry = Registry::new(10);
        let first = registry.enter(&admission(A, 1, Some(T)), 3, 10).unwrap();
        assert_eq!(first.replaces, None);
        assert_eq!(registry.enter(&admission(A, 2, Some(T)), 0, 10).unwrap().replaces, None);
        let second = registry.enter(&admission(A, 1, Some(T)), 0, 10).unwrap();
        assert_eq!(second.replaces, Some((first.tsih, 3)));
        // The old one's end does not make the new one forgotten.
        registry.leave(first.tsih);
        let third = registry.enter(&admission(A, 1, Some(T)), 0, 10).unwrap();
        assert_eq!(third.replaces, Some((second.tsih, 0)));
    }

    #[test]
    fn limits_hold_but_never_keep_a_successor_out() {
        let registry = Registry::new(2);
        registry.enter(&admission(A, 1, Some(T)), 0, 1).unwrap();
        assert_eq!(registry.enter(&admission(A, 2, Some(T)), 0, 1), Err(Full::Target));
        assert!(registry.enter(&admission(A, 1, Some(T)), 0, 1).is_ok());
        assert_eq!(registry.enter(&admission(A, 9, None), 0, 1), Err(Full::Process));
    }
}
