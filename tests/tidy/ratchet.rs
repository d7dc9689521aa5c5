//! What is tolerated for now: `ratchet.txt`, lines of `RULE PATH AMOUNT`. A file may be as bad as
//! its line says, and no better: once it is, the line must come down, so that it stays down.

use std::collections::BTreeMap;

use crate::Finding;

const RATCHET: &str = include_str!("ratchet.txt");

fn parse(text: &str) -> BTreeMap<(String, String), usize> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [rule, path, amount] = fields[..] else {
                panic!("ratchet.txt: `{line}` is not RULE PATH AMOUNT");
            };
            let amount = amount.parse().expect("ratchet.txt: AMOUNT is a number");
            ((rule.to_owned(), path.to_owned()), amount)
        })
        .collect()
}

/// The findings that are not tolerated, as text.
pub(crate) fn apply(findings: Vec<Finding>) -> Vec<String> {
    compare(findings, RATCHET)
}

pub(crate) fn compare(findings: Vec<Finding>, ratchet: &str) -> Vec<String> {
    let tolerated = parse(ratchet);
    let mut groups: BTreeMap<(String, String), Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        let key = (finding.rule.to_owned(), finding.path.clone());
        groups.entry(key).or_default().push(finding);
    }
    let mut left = Vec::new();
    for ((rule, path), group) in groups {
        let amount: usize = group.iter().map(|finding| finding.amount).sum();
        match tolerated.get(&(rule.clone(), path.clone())) {
            Some(&most) if amount == most => {}
            Some(&most) if amount < most => left.push(format!(
                "{path}: {rule}: better than tolerated; lower its line in ratchet.txt to {amount}"
            )),
            _ => left.extend(group.iter().map(Finding::to_string)),
        }
    }
    left
}

/// Lines of the ratchet that name a file which is gone.
pub(crate) fn stale() -> Vec<String> {
    let tolerated = parse(RATCHET);
    let gone = tolerated.keys().filter(|(_, path)| !crate::root().join(path).exists());
    gone.map(|(rule, path)| format!("ratchet.txt: {rule} {path}: no such file; drop the line"))
        .collect()
}
