//! A target of one unit, that does what a test tells it to: the target's half of the protocol, and
//! a small disk behind it.

use std::collections::VecDeque;

use corbel_proto::iscsi::login::directory::{Access, Directory, Grant};
use corbel_proto::iscsi::login::target::{Login, Step};
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::params::Limits;
use corbel_proto::iscsi::pdu::task::TaskOutcome;
use corbel_proto::iscsi::target::{Command, Config, Connection, DataIn, Event, Response};
use corbel_proto::memory::{HeapArena, HeapBuffer};
use corbel_proto::scsi::capacity::Capacity;
use corbel_proto::scsi::inquiry::{DISK, Inquiry};
use corbel_proto::scsi::mode::{self, Parameters};
use corbel_proto::scsi::sense::Key;
use corbel_proto::scsi::vpd::{self, BlockLimits, Designator};
use corbel_proto::scsi::{self, Condition, Sense, cdb};
use corbel_proto::time::Instant;

pub(super) const BLOCK: usize = 512;

/// What the unit does with one command, in place of what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trick {
    /// CHECK CONDITION.
    Sense(Key, u8, u8),
    /// The same, about an earlier command.
    Deferred(Key, u8, u8),
    Status(u8),
    /// Never answered, unless it is aborted.
    Hang,
    /// Done, but with fewer bytes than there should be.
    Short,
}

/// The unit, and the target around it.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) bytes: Vec<u8>,
    pub(super) naa: u64,
    pub(super) serial: String,
    /// Sixteen times this is the name of its boot, and of its process.
    pub(super) instance: u8,
    pub(super) tells_process: bool,
    pub(super) write_cache: bool,
    pub(super) write_protected: bool,
    pub(super) limits: BlockLimits,
    pub(super) thin: bool,
    /// REPORT SUPPORTED OPERATION CODES is there.
    pub(super) tells_opcodes: bool,
    /// Byte 0 of the port group's descriptor, if there are groups.
    pub(super) access: Option<u8>,
    /// What is done in place of the next command of this operation code.
    pub(super) tricks: VecDeque<(u8, Trick)>,
    /// Operation codes performed or played with, in order.
    pub(super) log: Vec<u8>,
    pub(super) cdbs: Vec<Vec<u8>>,
    /// What task management is answered; `None`: never.
    pub(super) abort: Option<TaskOutcome>,
    pub(super) logout: bool,
    pub(super) login: Access,
    /// What the next connections are answered before that.
    pub(super) first: VecDeque<Access>,
    pub(super) limits_of_login: Limits,
    pub(super) window: u32,
}

impl Disk {
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            bytes: vec![0; blocks * BLOCK],
            naa: 0x3000_0000_0000_0001,
            serial: "S1".into(),
            instance: 1,
            tells_process: true,
            write_cache: true,
            write_protected: false,
            limits: BlockLimits::default(),
            thin: false,
            tells_opcodes: false,
            access: None,
            tricks: VecDeque::new(),
            log: Vec::new(),
            cdbs: Vec::new(),
            abort: Some(TaskOutcome::Complete),
            logout: true,
            login: granted(),
            first: VecDeque::new(),
            limits_of_login: Limits::default(),
            window: 64,
        }
    }

    /// Plays this trick on the next command of this operation code.
    pub(super) fn play(&mut self, code: u8, trick: Trick) {
        self.tricks.push_back((code, trick));
    }

    pub(super) fn count(&self, code: u8) -> usize {
        self.log.iter().filter(|seen| **seen == code).count()
    }
}

pub(super) fn granted() -> Access {
    Access::Granted(Grant {
        authentication: None,
        portal_group_tag: 1,
        alias: None,
        digests_required: Default::default(),
        terms: Default::default(),
    })
}

#[derive(Debug)]
struct House(Access);

impl Directory for House {
    fn discovery(&self, _: &Name) -> Access {
        Access::Forbidden
    }

    fn target(&self, _: &Name, _: &Name) -> Access {
        self.0.clone()
    }
}

/// One connection with it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connection: Connection<HeapBuffer>,
    login: Login,
    house: Option<House>,
    arena: HeapArena,
    /// Commands that take data, until it is here.
    taking: Vec<(u32, Vec<u8>)>,
    pub(super) hanging: Vec<u32>,
    pub(super) isid: Option<[u8; 6]>,
}

impl Peer {
    pub(super) fn new(now: Instant, disk: &Disk) -> Self {
        let config = Config { window: disk.window, ..Config::default() };
        Self {
            connection: Connection::new(config, now),
            login: Login::new(disk.limits_of_login.clone(), disk.window),
            house: None,
            arena: HeapArena::new(1 << 24),
            taking: Vec::new(),
            hanging: Vec::new(),
            isid: None,
        }
    }

    pub(super) fn hear(&mut self, now: Instant, bytes: &[u8], disk: &mut Disk) {
        self.connection.handle_bytes(bytes, &mut self.arena, now);
        while let Some(event) = self.connection.poll() {
            self.event(now, event, disk);
        }
    }

    pub(super) fn say(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(pdu) = self.connection.poll_transmit() {
            bytes.extend_from_slice(pdu.header());
            bytes.extend_from_slice(pdu.data.bytes());
            bytes.extend_from_slice(pdu.trailer());
        }
        bytes
    }

    fn event(&mut self, now: Instant, event: Event<HeapBuffer>, disk: &mut Disk) {
        match event {
            Event::Login(request, text) => {
                self.isid = Some(request.isid.0);
                let mut access = || disk.first.pop_front().unwrap_or_else(|| disk.login.clone());
                let house = &*self.house.get_or_insert_with(|| House(access()));
                let mut random = |bytes: &mut [u8]| bytes.fill(7);
                match self.login.handle(&request, &text, house, &mut random) {
                    Step::Reply(reply) | Step::Refuse(reply, _) => {
                        self.connection.login_response(&reply.response, &reply.text);
                    }
                    Step::Admit(admission) => {
                        let reply = self.login.finish(1);
                        self.connection.login_response(&reply.response, &reply.text);
                        self.connection.enter_full_feature(&admission.agreed, now);
                    }
                }
            }
            Event::Command(command) => self.command(&command, disk),
            Event::DataOut { itt, data } => {
                let at = self.taking.iter().position(|(tag, _)| *tag == itt).unwrap();
                let (_, cdb) = self.taking.remove(at);
                let bytes: Vec<u8> = data.iter().flat_map(|part| part.bytes().to_vec()).collect();
                let wanted = bytes.len() as u64;
                let result = perform(disk, &cdb, &bytes);
                self.answer(itt, result, wanted);
            }
            Event::DataFailed { itt, .. } => self.respond(itt, 2, &[], Vec::new(), 0),
            Event::Task(request) => {
                if let Some(outcome) = disk.abort {
                    if outcome == TaskOutcome::Complete {
                        self.connection.abort(request.referenced);
                    }
                    self.connection.task_response(request.itt, outcome);
                }
            }
            Event::Logout(request) => {
                if disk.logout {
                    self.connection.logout_response(request.itt, 0);
                }
            }
            Event::Text(..) | Event::Elsewhere(..) | Event::Passed(_) | Event::Closed(_) => {}
        }
    }

    fn command(&mut self, command: &Command, disk: &mut Disk) {
        let (itt, code) = (command.itt, command.cdb[0]);
        disk.log.push(code);
        disk.cdbs.push(command.cdb.to_vec());
        if let Some(at) = disk.tricks.iter().position(|(of, _)| *of == code) {
            let (_, trick) = disk.tricks.remove(at).unwrap();
            return self.trick(itt, trick);
        }
        if command.write && command.edtl > 0 {
            self.taking.push((itt, command.cdb.to_vec()));
            self.connection.begin_data_out(itt, u64::from(command.edtl), &mut self.arena);
            return;
        }
        let result = perform(disk, &command.cdb, &[]);
        self.answer(itt, result, 0);
    }

    fn trick(&mut self, itt: u32, trick: Trick) {
        let encode = |key, asc, ascq| Sense::from(Condition { key, asc, ascq }).encode(false);
        match trick {
            Trick::Sense(key, asc, ascq) => {
                self.respond(itt, 2, encode(key, asc, ascq).as_slice(), Vec::new(), 0);
            }
            Trick::Deferred(key, asc, ascq) => {
                let mut sense = encode(key, asc, ascq).as_slice().to_vec();
                sense[0] = 0x71;
                self.respond(itt, 2, &sense, Vec::new(), 0);
            }
            Trick::Status(status) => self.respond(itt, status, &[], Vec::new(), 0),
            Trick::Hang => self.hanging.push(itt),
            Trick::Short => self.respond(itt, 0, &[], Vec::new(), 0),
        }
    }

    fn answer(&mut self, itt: u32, result: Result<Vec<u8>, Condition>, taken: u64) {
        match result {
            Ok(data) => {
                let wanted = taken.max(data.len() as u64);
                self.respond(itt, 0, &[], data, wanted);
            }
            Err(condition) => {
                let sense = Sense::from(condition).encode(false);
                self.respond(itt, 2, sense.as_slice(), Vec::new(), 0);
            }
        }
    }

    pub(super) fn respond(
        &mut self,
        itt: u32,
        status: u8,
        sense: &[u8],
        data: Vec<u8>,
        wanted: u64,
    ) {
        let data = if data.is_empty() { DataIn::None } else { DataIn::Bytes(data.into()) };
        let response = Response { status, sense: sense.into(), data, wanted };
        self.connection.respond(itt, response);
    }
}

/// Performs a command that has all its data.
fn perform(disk: &mut Disk, bytes: &[u8], data: &[u8]) -> Result<Vec<u8>, Condition> {
    if bytes[0] == 0xa3 && bytes[1] & 0x1f == 0x0a {
        let state = disk.access.ok_or(Condition::INVALID_FIELD_IN_CDB)?;
        return Ok(vec![0, 0, 0, 12, state, 0x0f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
    }
    let (command, _) = cdb::parse(bytes).map_err(|sense| sense.condition)?;
    match command {
        cdb::Command::TestUnitReady => Ok(Vec::new()),
        cdb::Command::Inquiry { page, allocation } => {
            Ok(scsi::truncate(inquiry(disk, page)?, u32::from(allocation)))
        }
        cdb::Command::ReadCapacity16 { .. } => Ok(capacity(disk).emit16()),
        cdb::Command::ReadCapacity10 => Ok(capacity(disk).emit10()),
        cdb::Command::ModeSense(_) => {
            let parameters = Parameters {
                write_cache: disk.write_cache,
                descriptor_sense: false,
                software_write_protect: false,
            };
            let page = mode::page(mode::CACHING, &parameters, false).unwrap();
            Ok(mode::sense_data(false, disk.write_protected, None, &page))
        }
        cdb::Command::ReportOpcodes(_) if disk.tells_opcodes => {
            let mut usage = vec![0, 3, 0, 16, 0x93, 0xf9];
            usage.resize(20, 0xff);
            Ok(usage)
        }
        cdb::Command::Read { extent, .. } => {
            let range = range(disk, extent.lba, extent.blocks)?;
            Ok(disk.bytes[range].to_vec())
        }
        cdb::Command::Write { extent, .. } => {
            let range = range(disk, extent.lba, extent.blocks)?;
            disk.bytes[range].copy_from_slice(data);
            Ok(Vec::new())
        }
        cdb::Command::SynchronizeCache { .. } => Ok(Vec::new()),
        cdb::Command::Unmap { .. } if disk.thin => {
            for extent in scsi::unmap::parse(data, 16).map_err(|sense| sense.condition)? {
                let range = range(disk, extent.lba, extent.blocks)?;
                disk.bytes[range].fill(0);
            }
            Ok(Vec::new())
        }
        cdb::Command::WriteSame(same) => {
            let range = range(disk, same.extent.lba, same.extent.blocks)?;
            disk.bytes[range].fill(0);
            Ok(Vec::new())
        }
        _ => Err(Condition::INVALID_COMMAND_OPERATION_CODE),
    }
}

fn range(disk: &Disk, lba: u64, blocks: u32) -> Result<std::ops::Range<usize>, Condition> {
    let (start, len) = (usize::try_from(lba).unwrap() * BLOCK, blocks as usize * BLOCK);
    if start + len > disk.bytes.len() {
        return Err(Condition::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    }
    Ok(start..start + len)
}

fn capacity(disk: &Disk) -> Capacity {
    Capacity {
        last_lba: (disk.bytes.len() / BLOCK) as u64 - 1,
        block_bytes: u32::try_from(BLOCK).unwrap(),
        physical_exponent: 3,
        thin: disk.thin,
        thin_zeroes: disk.thin,
    }
}

fn inquiry(disk: &Disk, page: Option<u8>) -> Result<Vec<u8>, Condition> {
    let body = match page {
        None => {
            let inquiry = Inquiry {
                peripheral: DISK,
                removable: false,
                vendor: "CORBEL",
                product: "PEER",
                revision: "1",
                several_ports: false,
                explicit_access: false,
            };
            let mut data = inquiry.emit();
            data[5] |= if disk.access.is_some() { 0x10 } else { 0 };
            return Ok(data);
        }
        Some(vpd::SUPPORTED_PAGES) => vec![0, 0x80, 0x83, 0xb0, 0xb2, 0xc0],
        Some(vpd::UNIT_SERIAL_NUMBER) => disk.serial.clone().into_bytes(),
        Some(vpd::DEVICE_IDENTIFICATION) => {
            vpd::identification(&[Designator::Naa(disk.naa), Designator::TargetPortGroup(1)])
        }
        Some(vpd::BLOCK_LIMITS) => disk.limits.emit(),
        Some(vpd::LOGICAL_BLOCK_PROVISIONING) => vpd::provisioning(disk.thin, true, true, 0),
        // One that tells its boot only is of an older release.
        Some(vpd::INSTANCE) => vec![disk.instance; if disk.tells_process { 32 } else { 16 }],
        Some(_) => return Err(Condition::INVALID_FIELD_IN_CDB),
    };
    Ok(vpd::page(DISK, page.unwrap_or(0), body))
}
