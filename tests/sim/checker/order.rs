//! The order that a history forces upon its commands.

use std::collections::HashMap;

use super::{Action, Command, Content, Fault, WriteId};

/// Who comes before whom, closed under transitivity: a row of bits for each command.
struct Before {
    rows: Vec<Vec<u64>>,
}

impl Before {
    fn new(count: usize) -> Self {
        Self { rows: vec![vec![0; count.div_ceil(64)]; count] }
    }

    fn has(&self, earlier: usize, later: usize) -> bool {
        self.rows[earlier][later / 64] >> (later % 64) & 1 != 0
    }

    fn set(&mut self, earlier: usize, later: usize) {
        self.rows[earlier][later / 64] |= 1 << (later % 64);
    }

    /// `earlier` precedes `later`, and all that follows from it. False if that is a circle.
    fn add(&mut self, earlier: usize, later: usize) -> bool {
        if earlier == later || self.has(later, earlier) {
            return false;
        }
        if self.has(earlier, later) {
            return true;
        }
        let mut follows = self.rows[later].clone();
        follows[later / 64] |= 1 << (later % 64);
        for row in 0..self.rows.len() {
            if row == earlier || self.has(row, earlier) {
                for (word, more) in self.rows[row].iter_mut().zip(&follows) {
                    *word |= more;
                }
            }
        }
        true
    }
}

/// A block of a read, and the write it came from (`None`: never written).
struct Seen {
    read: usize,
    write: Option<usize>,
    block: u64,
}

pub(super) fn check(commands: &[Command]) -> Result<(), Fault> {
    let mut before = real_time(commands);
    let writers = writers_by_block(commands);
    let seen = sources(commands, &writers);
    for Seen { read, write, block } in &seen {
        if let Some(write) = *write
            && !before.add(write, *read)
        {
            return Err(fault(commands, *block, *read, write, "was sent only after the read"));
        }
    }
    loop {
        let mut news = false;
        for Seen { read, write, block } in &seen {
            for &other in writers.get(block).into_iter().flatten() {
                if Some(other) != *write {
                    news |= conclude(commands, &mut before, *read, *write, other, *block)?;
                }
            }
        }
        if !news {
            return Ok(());
        }
    }
}

/// `read` saw `write` in `block`, so `other` came before that write or after that read. True if
/// something new followed.
fn conclude(
    commands: &[Command],
    before: &mut Before,
    read: usize,
    write: Option<usize>,
    other: usize,
    block: u64,
) -> Result<bool, Fault> {
    let after_write = write.is_none_or(|write| before.has(write, other));
    if after_write {
        let known = before.has(read, other);
        if !before.add(read, other) {
            return Err(fault(commands, block, read, other, "had replaced what the read returned"));
        }
        return Ok(!known);
    }
    let Some(write) = write.filter(|_| before.has(other, read)) else {
        return Ok(false);
    };
    let known = before.has(other, write);
    if !before.add(other, write) {
        return Err(fault(commands, block, read, other, "had replaced what the read returned"));
    }
    Ok(!known)
}

fn real_time(commands: &[Command]) -> Before {
    // Being acknowledged before another begins is transitive by itself.
    let mut before = Before::new(commands.len());
    for (earlier, first) in commands.iter().enumerate() {
        let Some(ended) = first.ended else { continue };
        for (later, second) in commands.iter().enumerate() {
            // The initial contents (0..0) precede everything, each other excepted.
            if ended < second.began {
                before.set(earlier, later);
            }
        }
    }
    before
}

fn writers_by_block(commands: &[Command]) -> HashMap<u64, Vec<usize>> {
    let mut writers: HashMap<u64, Vec<usize>> = HashMap::new();
    for (place, command) in commands.iter().enumerate() {
        if matches!(command.action, Action::Write(_)) {
            for block in command.blocks.clone() {
                writers.entry(block).or_default().push(place);
            }
        }
    }
    writers
}

/// The write with this number that touched `block`.
pub(super) fn writer(commands: &[Command], id: WriteId, block: u64) -> Option<usize> {
    commands
        .iter()
        .position(|command| command.action == Action::Write(id) && command.blocks.contains(&block))
}

fn sources(commands: &[Command], writers: &HashMap<u64, Vec<usize>>) -> Vec<Seen> {
    let mut all = Vec::new();
    for (read, command) in commands.iter().enumerate() {
        let Action::Read(contents) = &command.action else { continue };
        for (block, content) in command.blocks.clone().zip(contents) {
            let write = match content {
                Content::Of(id) if *id != 0 => writers.get(&block).and_then(|writers| {
                    writers.iter().copied().find(|&w| commands[w].action == Action::Write(*id))
                }),
                _ => None,
            };
            all.push(Seen { read, write, block });
        }
    }
    all
}

fn fault(commands: &[Command], block: u64, read: usize, write: usize, why: &str) -> Fault {
    let what = format!(
        "client {} read blocks {:?} during {:?}; in block {block} that contradicts the write {:?} \
         of client {} to blocks {:?} during {:?}, which {why}",
        commands[read].client,
        commands[read].blocks,
        (commands[read].began, commands[read].ended),
        commands[write].action,
        commands[write].client,
        commands[write].blocks,
        (commands[write].began, commands[write].ended),
    );
    Fault { what, commands: vec![read, write] }
}

/// Wing and Gong: any command that no other must precede may be next.
pub(super) fn exhaustive(commands: &[Command]) -> bool {
    assert!(commands.len() <= 64, "exhaustive search is for small histories");
    let mut state = HashMap::new();
    search(commands, 0, &mut state, &mut Vec::new())
}

type Failed = Vec<(u64, Vec<(u64, WriteId)>)>;

fn search(
    commands: &[Command],
    done: u64,
    state: &mut HashMap<u64, WriteId>,
    failed: &mut Failed,
) -> bool {
    let left = |place: usize| done >> place & 1 == 0;
    let open = (0..commands.len()).filter(|&p| left(p) && commands[p].ended.is_some());
    let Some(first_end) = open.filter_map(|p| commands[p].ended).min() else {
        return true;
    };
    let mut key: Vec<_> = state.iter().map(|(&b, &w)| (b, w)).collect();
    key.sort_unstable();
    if failed.contains(&(done, key.clone())) {
        return false;
    }
    for place in 0..commands.len() {
        let command = &commands[place];
        if !left(place) || command.began > first_end {
            continue;
        }
        let old = state.clone();
        if apply(command, state) && search(commands, done | 1 << place, state, failed) {
            return true;
        }
        *state = old;
    }
    failed.push((done, key));
    false
}

/// Performs a command; false if it could not have seen what it saw.
fn apply(command: &Command, state: &mut HashMap<u64, WriteId>) -> bool {
    match &command.action {
        Action::Write(id) => state.extend(command.blocks.clone().map(|block| (block, *id))),
        Action::Read(seen) => {
            let mut both = command.blocks.clone().zip(seen);
            return both.all(|(block, content)| {
                *content == Content::Of(state.get(&block).copied().unwrap_or(0))
            });
        }
    }
    true
}
