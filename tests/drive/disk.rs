//! Reads and writes of blocks of 512 bytes, over either protocol.

use corbel_initiator::blocking::aoe::Client;
use corbel_initiator::blocking::iscsi::Session;
use corbel_initiator::blocking::{Error, now};
use corbel_proto::aoe::initiator as aoe;
use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::initiator::{Command, CommandId, Event, Transfer};
use corbel_proto::time::Instant;

use super::PATIENCE;

/// Bytes in a block.
pub(super) const BLOCK_BYTES: usize = 512;

/// A command on blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read this many blocks.
    Read {
        /// First block.
        first: u64,
        /// Blocks.
        blocks: u32,
    },
    /// Write these bytes.
    Write {
        /// First block.
        first: u64,
        /// Whole blocks.
        data: Vec<u8>,
    },
}

/// A command's end.
#[derive(Debug)]
pub struct Ended {
    /// The number it was submitted with.
    pub id: u64,
    /// What was read (empty for a write), or why it failed.
    pub result: Result<Vec<u8>, String>,
}

/// A disk with commands under way.
pub trait Disk: Send {
    /// Most blocks in one command.
    fn blocks_max(&self) -> u32;

    /// Size in blocks.
    ///
    /// # Errors
    /// If the target does not say.
    fn blocks(&mut self) -> Result<u64, Error>;

    /// Starts a command.
    fn submit(&mut self, id: u64, operation: Operation);

    /// Waits for the next end, at most until `end`.
    ///
    /// # Errors
    /// If the path breaks.
    fn next(&mut self, end: Instant) -> Result<Option<Ended>, Error>;

    /// Performs one command alone.
    ///
    /// # Errors
    /// If it fails or takes longer than [`PATIENCE`].
    fn run(&mut self, operation: Operation) -> Result<Vec<u8>, Error> {
        self.submit(u64::MAX, operation);
        match self.next(now() + PATIENCE)? {
            Some(Ended { result, .. }) => result.map_err(Error::Command),
            None => Err(Error::Timeout(PATIENCE)),
        }
    }
}

/// A disk over iSCSI. Its target must have blocks of 512 bytes.
#[derive(Debug)]
pub struct IscsiDisk {
    session: Session,
    lun: Lun,
}

impl IscsiDisk {
    /// A LUN over a session; takes in the unit attentions that await every new session.
    ///
    /// # Errors
    /// If the unit does not become ready.
    pub fn new(mut session: Session, lun: Lun) -> Result<Self, Error> {
        for _ in 0..8 {
            let (answer, _) = session.run(lun, [0; 16], Transfer::None, PATIENCE)?;
            if answer.status == 0 {
                return Ok(Self { session, lun });
            }
        }
        Err(Error::Command("the unit does not become ready".to_owned()))
    }

    /// The session, for what is not reading and writing.
    pub const fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The unit.
    pub const fn lun(&self) -> Lun {
        self.lun
    }
}

/// READ (16) or WRITE (16).
fn cdb(opcode: u8, first: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&first.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

impl Disk for IscsiDisk {
    fn blocks_max(&self) -> u32 {
        256
    }

    fn blocks(&mut self) -> Result<u64, Error> {
        let lun = self.lun;
        let identity = corbel_initiator::discover::identify_lun(&mut self.session, lun, PATIENCE)?;
        if identity.block_bytes as usize != BLOCK_BYTES {
            return Err(Error::Command(format!("blocks of {} bytes", identity.block_bytes)));
        }
        Ok(identity.size_bytes / BLOCK_BYTES as u64)
    }

    fn submit(&mut self, id: u64, operation: Operation) {
        let (cdb, transfer) = match operation {
            Operation::Read { first, blocks } => {
                let buffer = vec![0; blocks as usize * BLOCK_BYTES];
                (cdb(0x88, first, blocks), Transfer::Read(buffer))
            }
            Operation::Write { first, data } => {
                let blocks = u32::try_from(data.len() / BLOCK_BYTES).expect("a bounded transfer");
                (cdb(0x8a, first, blocks), Transfer::Write(data))
            }
        };
        let command = Command { id: CommandId(id), lun: self.lun, cdb, transfer };
        self.session.connection().submit(command);
    }

    fn next(&mut self, end: Instant) -> Result<Option<Ended>, Error> {
        while let Some(event) = self.session.next(end)? {
            let Event::Done { id, transfer, result } = event else { continue };
            let result = match result {
                Ok(answer) if answer.status == 0 => Ok(match transfer {
                    Transfer::Read(data) => data,
                    Transfer::Write(_) | Transfer::None => Vec::new(),
                }),
                other => Err(format!("{other:02x?}")),
            };
            return Ok(Some(Ended { id: id.0, result }));
        }
        Ok(None)
    }
}

/// A disk over AoE.
#[derive(Debug)]
pub struct AoeDisk {
    client: Client,
}

impl AoeDisk {
    pub(super) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client, for what is not reading and writing.
    pub const fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Disk for AoeDisk {
    fn blocks_max(&self) -> u32 {
        u32::from(self.client.sectors_max())
    }

    fn blocks(&mut self) -> Result<u64, Error> {
        let block = self.client.run(aoe::Operation::Identify)?;
        let identify = corbel_proto::ata::Identify::parse(&block)
            .map_err(|malformed| Error::Command(malformed.to_string()))?;
        Ok(identify.sectors)
    }

    fn submit(&mut self, id: u64, operation: Operation) {
        let operation = match operation {
            Operation::Read { first, blocks } => {
                let sectors = u8::try_from(blocks).expect("at most `blocks_max`");
                aoe::Operation::Read { lba: first, sectors }
            }
            Operation::Write { first, data } => aoe::Operation::Write { lba: first, data },
        };
        self.client.path().submit(now(), aoe::CommandId(id), operation);
    }

    fn next(&mut self, end: Instant) -> Result<Option<Ended>, Error> {
        let Some((id, result)) = self.client.next(end)? else { return Ok(None) };
        // Silence is no answer, and never a reason to ask again: the client has, all the time.
        if result == Err(aoe::Failure::TimedOut) {
            return Err(Error::Timeout(PATIENCE));
        }
        Ok(Some(Ended { id: id.0, result: result.map_err(|failure| format!("{failure:?}")) }))
    }
}
