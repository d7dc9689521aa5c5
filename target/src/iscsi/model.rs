//! Targets, portals and access: one snapshot of what the operator configured.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use corbel_proto::iscsi::chap;
use corbel_proto::iscsi::login::directory::{
    Access as Answer, DigestsRequired, Directory, Grant, Terms,
};
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::target::Connection;
use corbel_proto::memory::Buffer;
use corbel_proto::scsi::lun::Lun;
use corbel_proto::time::Duration;

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The addresses that share the first `bits` bits with `address`; `None` if it has fewer.
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        let max = if address.is_ipv4() { 32 } else { 128 };
        (bits <= max).then_some(Self { address, bits })
    }

    /// True if `address` is one of them. An IPv4 address in IPv6 clothes is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let shift = 32 - u32::from(self.bits.min(32));
                let differing = u32::from(ours) ^ u32::from(theirs);
                differing.checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let shift = 128 - u32::from(self.bits);
                let differing = u128::from(ours) ^ u128::from(theirs);
                differing.checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// Who may use a target. A name *and* an address must fit; an empty list fits everyone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allow {
    /// Initiator names; one `*` stands for any run of characters.
    pub initiators: Vec<String>,
    /// Where initiators may come from.
    pub addresses: Vec<Prefix>,
}

impl Allow {
    /// True if both fit.
    pub fn admits(&self, initiator: &Name, address: IpAddr) -> bool {
        let named = self.initiators.is_empty()
            || self.initiators.iter().any(|pattern| fits(pattern, initiator.as_str()));
        let placed = self.addresses.is_empty()
            || self.addresses.iter().any(|prefix| prefix.contains(address));
        named && placed
    }
}

/// True if `name` is `pattern`, in which one `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        }
    }
}

/// Portals that are reached alike, and share sessions (RFC 7143 4.4.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortalGroup {
    /// TargetPortalGroupTag.
    pub tag: u16,
    /// Where it listens; an unspecified address stands for all addresses of the machine.
    pub portals: Vec<SocketAddr>,
}

impl PortalGroup {
    /// True if a connection to `local` comes in here.
    fn covers(&self, local: SocketAddr) -> bool {
        self.portals.iter().any(|portal| {
            let address = portal.ip().to_canonical();
            portal.port() == local.port()
                && (portal.ip().is_unspecified() || address == local.ip().to_canonical())
        })
    }
}

/// One iSCSI target.
#[derive(Debug)]
pub struct Target<D> {
    /// Its name.
    pub name: Name,
    /// For people to read.
    pub alias: Option<String>,
    /// Logical units by number.
    pub luns: BTreeMap<u16, Arc<D>>,
    /// Where it is reached.
    pub groups: Vec<PortalGroup>,
    /// Who may use it.
    pub allow: Allow,
    /// What initiators must prove.
    pub chap: Option<chap::Policy>,
    /// Sessions at a time.
    pub sessions_max: u32,
    /// Digests without which nobody logs in.
    pub digests_required: DigestsRequired,
    /// What may be agreed beyond the plainest session.
    pub terms: Terms,
    /// Commands a session may have outstanding, if not as many as the server's default.
    pub commands_max: Option<u32>,
    /// Silence after which an initiator is pinged (zero: never), and after a ping for which it is
    /// taken for dead, if not the server's defaults.
    pub pings: Option<(Duration, Duration)>,
    /// Where new logins are sent instead.
    pub redirect: Option<Redirect>,
}

/// The target is elsewhere (RFC 7143 11.13.5, classes 0101 and 0102).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// There.
    pub address: SocketAddr,
    /// For good, not just for now.
    pub permanent: bool,
}

impl<D> Target<D> {
    /// Tells a connection what is this target's own. Before its login completes.
    pub(super) fn tune<B: Buffer>(&self, wire: &mut Connection<B>) {
        if let Some(commands) = self.commands_max {
            wire.set_window(commands);
        }
        if let Some((interval, timeout)) = self.pings {
            wire.set_pings(interval, timeout);
        }
    }

    /// Numbers of all logical units, ascending.
    pub fn lun_list(&self) -> Vec<Lun> {
        self.luns.keys().filter_map(|&number| Lun::new(number)).collect()
    }

    /// TargetAddress values for an initiator that reached us at `local`: each portal of the
    /// target with its group tag; a portal on all addresses is told as the one that was reached.
    pub fn addresses(&self, local: SocketAddr) -> Vec<(SocketAddr, u16)> {
        let mut all = Vec::new();
        for group in &self.groups {
            for portal in &group.portals {
                let mut address = *portal;
                if portal.ip().is_unspecified() {
                    address.set_ip(local.ip().to_canonical());
                }
                if !all.contains(&(address, group.tag)) {
                    all.push((address, group.tag));
                }
            }
        }
        all
    }
}

/// All targets, as one unchanging snapshot.
#[derive(Debug)]
pub struct Targets<D> {
    by_name: BTreeMap<Name, Arc<Target<D>>>,
    /// What initiators must prove before they may ask which targets there are.
    pub discovery_chap: Option<chap::Policy>,
}

impl<D> Default for Targets<D> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), discovery_chap: None }
    }
}

impl<D> Targets<D> {
    /// These targets. Of two with one name the last counts.
    pub fn new(
        targets: impl IntoIterator<Item = Target<D>>,
        discovery_chap: Option<chap::Policy>,
    ) -> Self {
        let by_name = targets.into_iter().map(|t| (t.name.clone(), Arc::new(t))).collect();
        Self { by_name, discovery_chap }
    }

    /// The target of this name.
    pub fn find(&self, name: &Name) -> Option<&Arc<Target<D>>> {
        self.by_name.get(name)
    }

    /// What `initiator`, connected from `peer` to `local`, may see of them.
    pub fn visible_to(&self, initiator: &Name, peer: SocketAddr) -> Vec<&Arc<Target<D>>> {
        self.by_name.values().filter(|t| t.allow.admits(initiator, peer.ip())).collect()
    }
}

/// The targets as seen by one connection.
#[derive(Debug)]
pub struct View<'a, D> {
    /// All of them.
    pub targets: &'a Targets<D>,
    /// Where the initiator is.
    pub peer: SocketAddr,
    /// What it reached.
    pub local: SocketAddr,
}

impl<D> Directory for View<'_, D> {
    fn discovery(&self, _: &Name) -> Answer {
        let authentication = self.targets.discovery_chap.clone();
        Answer::Granted(Grant {
            authentication,
            portal_group_tag: 1,
            alias: None,
            digests_required: DigestsRequired::default(),
            terms: Terms::default(),
        })
    }

    fn target(&self, target: &Name, initiator: &Name) -> Answer {
        let Some(target) = self.targets.find(target) else { return Answer::NotFound };
        let Some(group) = target.groups.iter().find(|group| group.covers(self.local)) else {
            return Answer::NotFound;
        };
        if !target.allow.admits(initiator, self.peer.ip()) {
            return Answer::Forbidden;
        }
        // Only those who may come in learn where to.
        if let Some(Redirect { address, permanent }) = &target.redirect {
            return Answer::Redirect { address: address.to_string(), permanent: *permanent };
        }
        Answer::Granted(Grant {
            authentication: target.chap.clone(),
            portal_group_tag: group.tag,
            alias: target.alias.clone(),
            digests_required: target.digests_required,
            terms: target.terms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn prefix(text: &str, bits: u8) -> Prefix {
        Prefix::new(text.parse().unwrap(), bits).unwrap()
    }

    #[test]
    fn prefixes_of_every_length() {
        assert!(prefix("10.1.2.0", 24).contains("10.1.2.255".parse().unwrap()));
        assert!(!prefix("10.1.2.0", 24).contains("10.1.3.0".parse().unwrap()));
        assert!(prefix("0.0.0.0", 0).contains("192.0.2.1".parse().unwrap()));
        assert!(!prefix("0.0.0.0", 0).contains("fd00::1".parse().unwrap()));
        assert!(prefix("::", 0).contains("fd00::1".parse().unwrap()));
        assert!(prefix("fd00::1", 128).contains("fd00::1".parse().unwrap()));
        assert!(!prefix("fd00::1", 128).contains("fd00::2".parse().unwrap()));
        assert!(prefix("10.0.0.0", 8).contains("::ffff:10.9.9.9".parse().unwrap()));
        assert_eq!(Prefix::new("10.0.0.0".parse().unwrap(), 33), None);
    }

    /// tgt let an initiator in if its name *or* its address was allowed.
    #[test]
    fn name_and_address_must_both_fit() {
        let allow = Allow {
            initiators: vec!["iqn.2026-11.org.example:node*".to_owned()],
            addresses: vec![prefix("10.0.0.0", 24)],
        };
        let (good, bad) = (name("iqn.2026-11.org.example:node7"), name("iqn.2026-11.org.other:x"));
        assert!(allow.admits(&good, "10.0.0.9".parse().unwrap()));
        assert!(!allow.admits(&good, "10.0.1.9".parse().unwrap()));
        assert!(!allow.admits(&bad, "10.0.0.9".parse().unwrap()));
        assert!(Allow::default().admits(&bad, "10.0.1.9".parse().unwrap()));
    }

    #[test]
    fn portal_on_all_addresses_is_told_as_the_one_that_was_reached() {
        let target: Target<()> = Target {
            name: name("iqn.2026-11.org.example:a"),
            alias: None,
            luns: BTreeMap::new(),
            groups: vec![PortalGroup {
                tag: 3,
                portals: vec!["0.0.0.0:3260".parse().unwrap(), "10.0.0.1:3261".parse().unwrap()],
            }],
            allow: Allow::default(),
            chap: None,
            sessions_max: 1,
            digests_required: Default::default(),
            terms: Default::default(),
            commands_max: None,
            pings: None,
            redirect: None,
        };
        let local = "192.0.2.7:3260".parse().unwrap();
        let expected = vec![(local, 3), ("10.0.0.1:3261".parse().unwrap(), 3)];
        assert_eq!(target.addresses(local), expected);
    }

    #[test]
    fn target_is_not_found_through_a_portal_it_does_not_have() {
        let target: Target<()> = Target {
            name: name("iqn.2026-11.org.example:a"),
            alias: None,
            luns: BTreeMap::new(),
            groups: vec![PortalGroup { tag: 1, portals: vec!["10.0.0.1:3260".parse().unwrap()] }],
            allow: Allow::default(),
            chap: None,
            sessions_max: 1,
            digests_required: Default::default(),
            terms: Default::default(),
            commands_max: None,
            pings: None,
            redirect: None,
        };
        let targets = Targets::new([target], None);
        let peer = "10.0.0.9:1000".parse().unwrap();
        let ask = |local: &str| {
            let view = View { targets: &targets, peer, local: local.parse().unwrap() };
            let own = name("iqn.2026-11.org.example:node");
            view.target(&name("iqn.2026-11.org.example:a"), &own)
        };
        assert!(matches!(ask("10.0.0.1:3260"), Answer::Granted(_)));
        assert!(matches!(ask("10.0.0.2:3260"), Answer::NotFound));
    }

    #[test]
    fn only_those_who_may_come_in_learn_where_the_target_went() {
        let address = "[fd00::7]:3260".parse().unwrap();
        let target: Target<()> = Target {
            name: name("iqn.2026-11.org.example:a"),
            alias: None,
            luns: BTreeMap::new(),
            groups: vec![PortalGroup { tag: 1, portals: vec!["10.0.0.1:3260".parse().unwrap()] }],
            allow: Allow { addresses: vec![prefix("10.0.0.0", 24)], ..Allow::default() },
            chap: None,
            sessions_max: 1,
            digests_required: Default::default(),
            terms: Default::default(),
            commands_max: None,
            pings: None,
            redirect: Some(Redirect { address, permanent: true }),
        };
        let targets = Targets::new([target], None);
        let ask = |peer: &str| {
            let local = "10.0.0.1:3260".parse().unwrap();
            let view = View { targets: &targets, peer: peer.parse().unwrap(), local };
            let own = name("iqn.2026-11.org.example:node");
            view.target(&name("iqn.2026-11.org.example:a"), &own)
        };
        let Answer::Redirect { address, permanent: true } = ask("10.0.0.9:1000") else {
            panic!("it is elsewhere");
        };
        assert_eq!(address, "[fd00::7]:3260");
        assert!(matches!(ask("10.0.1.9:1000"), Answer::Forbidden));
    }
}
