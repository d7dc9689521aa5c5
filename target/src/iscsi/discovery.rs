//! SendTargets (RFC 7143 appendix C): what an initiator may see, and where it is reached.

use std::net::SocketAddr;

use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::text::{Keys, put};

use super::model::Targets;

/// Who asks.
#[derive(Debug)]
pub struct Asker<'a> {
    /// Its name.
    pub initiator: &'a Name,
    /// The target of its session; `None` in discovery.
    pub target: Option<&'a Name>,
    /// Where it is.
    pub peer: SocketAddr,
    /// What it reached.
    pub local: SocketAddr,
}

/// Appends what is to be said to the keys of one whole text.
pub fn answer<D>(keys: &Keys<'_>, asker: &Asker<'_>, targets: &Targets<D>, text: &mut Vec<u8>) {
    for (key, value) in keys.iter() {
        if key != "SendTargets" {
            put(text, key, "NotUnderstood");
            continue;
        }
        match wanted(value, asker) {
            Some(wanted) => list(wanted.as_ref(), asker, targets, text),
            None => put(text, key, "Reject"),
        }
    }
}

/// Which target is asked for: `Some(None)` is all of them, `None` nothing that may be asked.
fn wanted(value: &str, asker: &Asker<'_>) -> Option<Option<Name>> {
    match (value, asker.target) {
        ("All", None) => Some(None),
        ("All", Some(_)) | ("", None) => None,
        ("", Some(own)) => Some(Some(own.clone())),
        (name, own) => {
            let name: Name = name.parse().ok()?;
            own.is_none_or(|own| *own == name).then_some(Some(name))
        }
    }
}

fn list<D>(wanted: Option<&Name>, asker: &Asker<'_>, targets: &Targets<D>, text: &mut Vec<u8>) {
    let visible = targets.visible_to(asker.initiator, asker.peer);
    for target in visible.into_iter().filter(|t| wanted.is_none_or(|name| *name == t.name)) {
        put(text, "TargetName", target.name.as_str());
        for (address, tag) in target.addresses(asker.local) {
            put(text, "TargetAddress", &format!("{address},{tag}"));
        }
    }
}
