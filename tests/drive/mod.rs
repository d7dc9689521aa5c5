//! A real target as the test programs see it: a disk of blocks, over either protocol, with many
//! commands under way, each measured from before it was sent to after it was answered.
//!
//! The pure path clients of `corbel_proto` do the talking, `corbel_initiator::blocking` the
//! waiting.

mod disk;
pub mod process;

use std::fmt::Display;
use std::net::SocketAddr;
use std::process::ExitCode;

pub use disk::{AoeDisk, Disk, Ended, IscsiDisk, Operation};

use corbel_initiator::blocking::Error;
use corbel_initiator::blocking::aoe::{Client, Port};
use corbel_initiator::blocking::login::{self, Options};
use corbel_proto::aoe::initiator::discover::Found;
use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::time::Duration;

/// How long any answer may take before a test says that the target hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Whatever went wrong.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A test program's exit code: 0, or 1 with the reason on stderr.
pub fn end<E: Display>(program: &str, done: Result<(), E>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where the device under test is, over either protocol: a program's options.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// The iSCSI portal.
    #[arg(long, value_name = "ADDR:PORT")]
    pub portal: SocketAddr,
    /// The iSCSI target's name.
    #[arg(long, value_name = "IQN")]
    pub target: String,
    /// The unit.
    #[arg(long, default_value_t = 0)]
    pub lun: u16,
    /// The same device over AoE.
    #[arg(long, value_name = "SHELF.SLOT@IFACE")]
    pub aoe: AoePlace,
}

impl Places {
    /// The unit.
    pub fn iscsi(&self) -> IscsiPlace {
        IscsiPlace { portal: self.portal, target: self.target.clone(), lun: self.lun }
    }
}

/// Where a LUN is.
#[derive(Debug, Clone)]
pub struct IscsiPlace {
    /// Address and port of the portal.
    pub portal: SocketAddr,
    /// The target's name.
    pub target: String,
    /// The unit.
    pub lun: u16,
}

impl IscsiPlace {
    /// Logs in as `initiator`, a name of the caller's own: sessions of one name and ISID replace
    /// each other.
    ///
    /// # Errors
    /// If the target does not let us in.
    pub fn connect(&self, initiator: u32) -> Result<IscsiDisk, Error> {
        self.connect_as(&options(initiator))
    }

    /// Logs in with these options; the target's name is put in.
    ///
    /// # Errors
    /// If the target does not let us in.
    pub fn connect_as(&self, options: &Options) -> Result<IscsiDisk, Error> {
        let options = Options { target: Some(self.target.clone()), ..options.clone() };
        let session = login::connect(self.portal, &options)?;
        IscsiDisk::new(session, Lun::new(self.lun))
    }
}

/// Login options of the test's `initiator`-th session.
pub fn options(initiator: u32) -> Options {
    let [a, b, c, d] = initiator.to_be_bytes();
    Options {
        initiator: "iqn.2026-11.org.example:corbel-tests".to_owned(),
        isid: [0x80, a, b, c, d, 0],
        ..Options::default()
    }
}

/// Where a shelf is.
#[derive(Debug, Clone)]
pub struct AoePlace {
    /// Local interface.
    pub interface: String,
    /// Shelf.
    pub shelf: u16,
    /// Slot.
    pub slot: u8,
}

impl std::str::FromStr for AoePlace {
    type Err = String;

    /// Reads `SHELF.SLOT@INTERFACE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not SHELF.SLOT@INTERFACE");
        let (address, interface) = text.split_once('@').ok_or_else(wrong)?;
        let (shelf, slot) = address.split_once('.').ok_or_else(wrong)?;
        Ok(Self {
            interface: interface.to_owned(),
            shelf: shelf.parse().map_err(|_| wrong())?,
            slot: slot.parse().map_err(|_| wrong())?,
        })
    }
}

impl AoePlace {
    /// Finds the shelf, and speaks to it with tags of the test's `number`-th client.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn connect(&self, number: u32) -> Result<AoeDisk, Error> {
        let (port, found) = self.find()?;
        // Tag spaces of 2^20 commands each, so that clients on one port never mix up.
        Ok(AoeDisk::new(Client::new(port, &found, PATIENCE, number << 20)))
    }

    /// Who serves the shelf and slot, if that is one server.
    ///
    /// # Errors
    /// If nobody answers, or more than one.
    pub fn find(&self) -> Result<(Port, Found), Error> {
        let mut port = Port::open(&self.interface)?;
        for _ in 0..20 {
            let mut found = port.discover(Duration::from_millis(100))?;
            found.retain(|f| (f.shelf, f.slot) == (self.shelf, self.slot));
            if found.len() > 1 {
                return Err(Error::Command(format!("more than one answer: {found:?}")));
            }
            if let Some(found) = found.pop() {
                return Ok((port, found));
            }
        }
        Err(Error::Timeout(Duration::from_secs(2)))
    }
}
