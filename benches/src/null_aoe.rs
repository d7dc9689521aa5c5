//! `corbel-bench null-aoe`: an AoE target without a store. It answers READ and WRITE at once and
//! touches no data: frames are taken where the kernel put them, in a ring that it shares with us,
//! and each is answered by one system call. What a target beside it takes longer is the target's
//! own work, and all else is the network's.

use std::io::Write;

use clap::Args;
use corbel_proto::aoe::config::Command as ConfigCommand;
use corbel_proto::aoe::{
    ATA_DATA_OFFSET, AtaPacket, AtaRepr, Code, ConfigRepr, ETHERTYPE, FRAME_BYTES_MIN,
    HEADER_BYTES, HeaderPacket, HeaderRepr, Mac, SECTOR_BYTES, SHELF_BROADCAST, SLOT_BROADCAST,
    sectors_advertised,
};
use corbel_proto::ata::{Command, Identify, Registers, status};
use corbel_ring::packet::{Port, PortConfig};
use corbel_ring::{Arena, ArenaConfig};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendFlags, send};

use crate::cli::{Failure, print};
use crate::units;

/// Frames that the receive ring holds, and requests that clients may have under way.
const RING_FRAMES: usize = 512;
const BUFFER_COUNT: u16 = 256;

/// `null-aoe`
#[derive(Debug, Args)]
pub(crate) struct NullAoeArgs {
    /// Shelf
    shelf: u16,
    /// Slot
    slot: u8,
    /// Network interface
    interface: String,
    /// Bytes that it says to have
    #[arg(long, default_value = "256M", value_name = "SIZE", value_parser = units::bytes)]
    size: u64,
}

/// Serves until it is killed.
///
/// # Errors
/// If the interface cannot be used.
pub(crate) fn serve(args: &NullAoeArgs) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let config = PortConfig {
        ethertype: ETHERTYPE,
        payload_offset: ATA_DATA_OFFSET,
        frames: RING_FRAMES,
        share: None,
    };
    let mut port = Port::open(&args.interface, config).map_err(|error| failed(&error))?;
    let null = Null::new(args, Mac(port.interface().mac), port.interface().mtu);
    // Only a ring that is held up needs memory, and nothing is held here.
    let arena = Arena::unregistered(ArenaConfig { bytes_max: 1 });
    let mut reply = vec![0; ATA_DATA_OFFSET + 256 * SECTOR_BYTES];
    print("ready")?;
    std::io::stdout().flush()?;
    loop {
        while let Some(frame) = port.receive(&arena) {
            if let Some(bytes) = null.answer(frame.bytes(), &mut reply) {
                // What is lost here is asked for again, as on any wire.
                let _ = send(port.descriptor(), &reply[..bytes], SendFlags::empty());
            }
        }
        let socket = port.descriptor();
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// What is told to clients; pure.
#[derive(Debug)]
struct Null {
    mac: Mac,
    shelf: u16,
    slot: u8,
    sectors: u8,
    identify: [u8; 512],
}

impl Null {
    fn new(args: &NullAoeArgs, mac: Mac, mtu: u32) -> Self {
        let identify = Identify {
            serial: "null".to_owned(),
            firmware: "0".to_owned(),
            model: "corbel-bench null-aoe".to_owned(),
            naa: 0x5000_0000_0000_0001,
            sectors: args.size / SECTOR_BYTES as u64,
            physical_exponent: 3,
            write_cache: false,
            trim_blocks: 0,
            trim_zeroes: false,
            rotational: false,
        };
        let (shelf, slot, sectors) = (args.shelf, args.slot, sectors_advertised(mtu));
        Self { mac, shelf, slot, sectors, identify: identify.emit() }
    }

    /// Writes the answer to `frame` and gives its length; `None` if there is none to give. What
    /// `reply` held before is what a client reads.
    fn answer(&self, frame: &[u8], reply: &mut [u8]) -> Option<usize> {
        let request = HeaderRepr::parse(&HeaderPacket::new_checked(frame).ok()?);
        let shelf = [self.shelf, SHELF_BROADCAST].contains(&request.shelf);
        if request.response || !shelf || ![self.slot, SLOT_BROADCAST].contains(&request.slot) {
            return None;
        }
        let bytes = match request.code {
            Code::Ata => self.ata(&frame[HEADER_BYTES..], &mut reply[HEADER_BYTES..])?,
            Code::Config => {
                let config = ConfigRepr {
                    buffer_count: BUFFER_COUNT,
                    firmware: 0,
                    sectors: self.sectors,
                    command: ConfigCommand::Read,
                    string: &[],
                };
                config.emit(&mut reply[HEADER_BYTES..]);
                config.buffer_len()
            }
            _ => return None,
        };
        let header = request.reply(self.mac, self.shelf, self.slot, None);
        header.emit(&mut HeaderPacket::new_unwritten(&mut *reply));
        Some((HEADER_BYTES + bytes).max(FRAME_BYTES_MIN))
    }

    fn ata(&self, argument: &[u8], reply: &mut [u8]) -> Option<usize> {
        let packet = AtaPacket::new_checked(argument).ok()?;
        let asked = AtaRepr::parse(&packet);
        let data = match Command::parse(&asked.registers) {
            Command::Read(extent) if extent.sectors <= self.sectors.into() => {
                extent.sectors as usize * SECTOR_BYTES
            }
            Command::Write(extent) => {
                let told = packet.data().len() / SECTOR_BYTES;
                (told >= extent.sectors as usize).then_some(0)?
            }
            Command::Flush => 0,
            Command::Identify => {
                reply[asked.buffer_len()..][..512].copy_from_slice(&self.identify);
                512
            }
            _ => return None,
        };
        let registers = Registers { command_status: status::READY, ..Registers::default() };
        let told = AtaRepr { registers, ..asked };
        told.emit(reply);
        Some(told.buffer_len() + data)
    }
}

#[cfg(test)]
mod tests {
    use corbel_proto::aoe::initiator::discover;
    use corbel_proto::aoe::initiator::{CommandId, Config, Operation, Path, Timeouts};
    use corbel_proto::time::{Duration, Instant};

    use super::*;

    const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn null(mtu: u32) -> Null {
        let args = NullAoeArgs { shelf: 3, slot: 1, interface: String::new(), size: 1 << 20 };
        Null::new(&args, Mac([2, 0, 0, 0, 0, 2]), mtu)
    }

    /// What our own client makes of the answer.
    fn asked(null: &Null, operation: Operation<Vec<u8>>) -> Option<Vec<u8>> {
        let mut path = Path::new(Config {
            local: CLIENT,
            remote: null.mac,
            shelf: 3,
            slot: 1,
            sectors_max: u8::MAX,
            window_max: 1,
            give_up_after: Duration::from_secs(1),
            timeouts: Timeouts::DEFAULT,
            first_tag: 7,
        });
        let now = Instant::from_nanos(0);
        path.submit(now, CommandId(1), operation);
        let frame = path.poll_transmit(now)?;
        let mut bytes = frame.head.to_vec();
        bytes.extend(frame.data.into_iter().flatten());
        let mut reply = vec![0; 10_000];
        let len = null.answer(&bytes, &mut reply)?;
        let ended = path.handle_frame(now, &reply[..len])?;
        ended.result.ok().map(<[u8]>::to_vec)
    }

    #[test]
    fn a_client_finds_it_and_learns_its_size() {
        let (null, mut reply) = (null(1500), vec![0; 2000]);
        let len = null.answer(&discover::query(CLIENT, 3, 1, 9), &mut reply).unwrap();
        let found = discover::answer(CLIENT, 9, &reply[..len]).unwrap();
        assert_eq!((found.shelf, found.slot, found.sectors), (3, 1, 2));
        let block = asked(&null, Operation::Identify).unwrap();
        assert_eq!(Identify::parse(&block).unwrap().sectors, 2048);
    }

    #[test]
    fn reads_and_writes_end_well_at_their_length() {
        let null = null(9000);
        assert_eq!(asked(&null, Operation::Read { lba: 8, sectors: 16 }).unwrap().len(), 8192);
        assert_eq!(asked(&null, Operation::Write { lba: 8, data: vec![1; 4096] }), Some(vec![]));
        assert_eq!(asked(&null, Operation::Flush), Some(vec![]));
    }

    #[test]
    fn what_is_for_others_or_makes_no_sense_is_not_answered() {
        let (null, mut reply) = (null(1500), vec![0; 2000]);
        assert!(null.answer(&discover::query(CLIENT, 3, 2, 9), &mut reply).is_none());
        assert!(null.answer(&[0; 20], &mut reply).is_none());
        // More than a frame holds.
        assert!(asked(&null, Operation::Read { lba: 0, sectors: 3 }).is_none());
    }
}
