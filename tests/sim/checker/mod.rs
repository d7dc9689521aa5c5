//! Did the device behave like one device?
//!
//! A history is what clients saw: reads and writes of block ranges, when each began and when it was
//! acknowledged. The device is right if there is *one* order of all commands in which
//!
//! - a command acknowledged before another began comes before it,
//! - every read returns, in each of its blocks, the last write before it,
//! - every command is one step: a read never sees half of a write.
//!
//! [`History::check`] draws the conclusions that must hold in every such order, until nothing new
//! follows: who reads from whom, and for each other write of that block whether it came before the
//! write or after the read. A circle among them is a proof that no order exists, so **every
//! complaint is a real fault**. What follows only from trying both orders of two unrelated writes
//! is not tried; [`History::exhaustive`] does that for small histories, and the tests compare the
//! two.
//!
//! A write whose acknowledgement never came may have happened at any later time, or not at all.
//!
//! Cost: n^2 bits of memory and at worst n^4/64 steps for n commands; some hundreds are checked in
//! milliseconds. Long runs are cut into epochs: all clients pause, one reads everything, and what
//! it read is the next epoch's start ([`History::starting_with`]).

mod ledger;
mod order;
pub mod stamp;

use std::fmt;
use std::ops::Range;

pub use ledger::{Ledger, Work};
pub use stamp::{Content, WriteId};

/// A moment, in any unit, on one clock for all clients.
pub type Moment = u64;

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Wrote its number into every block of the range.
    Write(WriteId),
    /// Saw these contents, one for each block of the range.
    Read(Vec<Content>),
}

/// One command as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Who, for the message.
    pub client: u32,
    /// Blocks touched.
    pub blocks: Range<u64>,
    /// Sent not before this.
    pub began: Moment,
    /// Acknowledged not after this; `None` if its outcome is unknown.
    pub ended: Option<Moment>,
    /// What it did.
    pub action: Action,
}

/// Why a history is impossible for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, for a person.
    pub what: String,
    /// The commands concerned, by their place in the history.
    pub commands: Vec<usize>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (commands {:?})", self.what, self.commands)
    }
}

/// What all clients saw.
#[derive(Debug, Clone, Default)]
pub struct History {
    commands: Vec<Command>,
}

impl History {
    /// A history on a device that holds only zeros.
    pub const fn new() -> Self {
        Self { commands: Vec::new() }
    }

    /// A history on a device whose blocks from 0 on hold `contents`.
    ///
    /// # Errors
    /// If one of them is broken.
    pub fn starting_with(contents: &[Content]) -> Result<Self, Fault> {
        let mut history = Self::new();
        for (block, &content) in (0..).zip(contents) {
            match content {
                Content::Of(0) => {}
                Content::Of(id) => history.push(Command {
                    client: u32::MAX,
                    blocks: block..block + 1,
                    began: 0,
                    ended: Some(0),
                    action: Action::Write(id),
                }),
                Content::Broken => return Err(broken(block, Vec::new())),
            }
        }
        Ok(history)
    }

    /// Adds a command; the order of additions does not matter.
    ///
    /// # Panics
    /// If the command contradicts itself: no blocks, a write number of 0, contents that are not one
    /// for each block, or an end before its beginning.
    pub fn push(&mut self, command: Command) {
        let blocks = command.blocks.end.saturating_sub(command.blocks.start);
        assert!(blocks > 0, "a command touches blocks");
        assert!(command.ended.is_none_or(|end| command.began <= end), "time goes forwards");
        match &command.action {
            Action::Write(id) => assert!(*id != 0, "0 means never written"),
            Action::Read(seen) => assert_eq!(seen.len() as u64, blocks, "one content a block"),
        }
        self.commands.push(command);
    }

    /// The commands.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Draws every necessary conclusion.
    ///
    /// # Errors
    /// The first contradiction found: a proof that no correct device behaves so.
    pub fn check(&self) -> Result<(), Fault> {
        self.sources_exist()?;
        order::check(&self.commands)
    }

    /// Tries every order (Wing and Gong). True if there is a right one. For small histories: the
    /// time grows exponentially with the commands that overlap in time.
    pub fn exhaustive(&self) -> bool {
        self.sources_exist().is_ok() && order::exhaustive(&self.commands)
    }

    /// Every content read was written, there, and not only after the read had ended.
    fn sources_exist(&self) -> Result<(), Fault> {
        for (place, command) in self.commands.iter().enumerate() {
            let Action::Read(seen) = &command.action else { continue };
            for (block, content) in command.blocks.clone().zip(seen) {
                match content {
                    Content::Of(0) => {}
                    Content::Of(id) => {
                        if order::writer(&self.commands, *id, block).is_none() {
                            let what = format!(
                                "client {} read in block {block} write {id:#x}, which nobody sent",
                                command.client
                            );
                            return Err(Fault { what, commands: vec![place] });
                        }
                    }
                    Content::Broken => return Err(broken(block, vec![place])),
                }
            }
        }
        Ok(())
    }
}

fn broken(block: u64, commands: Vec<usize>) -> Fault {
    let what = format!("block {block} holds a mixture, or a block of another address");
    Fault { what, commands }
}

#[cfg(test)]
mod tests;
