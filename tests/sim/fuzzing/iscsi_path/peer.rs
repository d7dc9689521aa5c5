//! The target, as the script wants it.

use corbel_proto::iscsi::bhs::Lun;
use corbel_proto::iscsi::login::directory::{Access, Directory, Grant};
use corbel_proto::iscsi::login::target::{Login, Step};
use corbel_proto::iscsi::name::Name;
use corbel_proto::iscsi::params::Limits;
use corbel_proto::iscsi::pdu::asynchronous::AsyncEvent;
use corbel_proto::iscsi::pdu::task::TaskOutcome;
use corbel_proto::iscsi::target::{Command, Config, Connection, DataIn, Event, Response};
use corbel_proto::memory::{HeapArena, HeapBuffer};
use corbel_proto::scsi::capacity::Capacity;
use corbel_proto::scsi::inquiry::{DISK, Inquiry};
use corbel_proto::scsi::vpd::{self, BlockLimits, Designator};
use corbel_proto::scsi::{Condition, Sense, cdb, mode, sense::Key};
use corbel_proto::time::Instant;

use super::super::script::Script;

const BLOCKS: u64 = 64;

struct House(Access);

impl Directory for House {
    fn discovery(&self, _: &Name) -> Access {
        Access::Forbidden
    }

    fn target(&self, _: &Name, _: &Name) -> Access {
        self.0.clone()
    }
}

fn access(how: u8) -> Access {
    match how & 31 {
        1 => Access::Busy,
        2 => Access::Redirect { address: "10.0.0.2:3260".into(), permanent: how & 32 != 0 },
        3 => Access::Redirect { address: "nowhere".into(), permanent: false },
        _ => Access::Granted(Grant {
            authentication: None,
            portal_group_tag: 1 + u16::from(how >> 6),
            alias: None,
            digests_required: Default::default(),
            terms: Default::default(),
        }),
    }
}

pub(super) struct Peer {
    connection: Connection<HeapBuffer>,
    login: Login,
    house: Option<House>,
    arena: HeapArena,
    /// Commands that were not answered.
    open: Vec<u32>,
}

impl Peer {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            connection: Connection::new(Config { window: 8, ..Config::default() }, now),
            login: Login::new(Limits::default(), 8),
            house: None,
            arena: HeapArena::new(1 << 20),
            open: Vec::new(),
        }
    }

    pub(super) fn hear(&mut self, now: Instant, bytes: &[u8], script: &mut Script<'_>) {
        self.connection.handle_bytes(bytes, &mut self.arena, now);
        while let Some(event) = self.connection.poll() {
            self.event(now, event, script);
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

    /// Says something of its own, or answers what it left open.
    pub(super) fn act(&mut self, _: Instant, script: &mut Script<'_>) {
        let what = script.u8();
        let event = match what & 7 {
            0 => AsyncEvent::LogoutRequest { within_s: 1 },
            1 => AsyncEvent::DropSession { time_to_wait_s: 2, time_to_retain_s: 0 },
            2 => AsyncEvent::Scsi,
            3 => AsyncEvent::Other(what),
            _ => {
                if !self.open.is_empty() {
                    let itt = self.open.remove(script.index(self.open.len()));
                    self.answer(itt, what >> 3, script);
                }
                return;
            }
        };
        self.connection.send_async(Lun(0), event, &[]);
    }

    fn event(&mut self, now: Instant, event: Event<HeapBuffer>, script: &mut Script<'_>) {
        match event {
            Event::Login(request, text) => {
                let house = self.house.get_or_insert_with(|| House(access(script.u8())));
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
            Event::Command(command) => self.command(&command, script),
            Event::DataOut { itt, .. } | Event::DataFailed { itt, .. } => {
                self.answer(itt, 0, script);
            }
            Event::Task(request) => match script.u8() & 7 {
                0 => {}
                1 => drop(self.connection.task_response(request.itt, TaskOutcome::NoSuchTask)),
                2 => drop(self.connection.task_response(request.itt, TaskOutcome::Unsupported)),
                _ => {
                    self.connection.abort(request.referenced);
                    self.open.retain(|itt| *itt != request.referenced);
                    self.connection.task_response(request.itt, TaskOutcome::Complete);
                }
            },
            Event::Logout(request) => {
                if script.u8() & 3 != 1 {
                    self.connection.logout_response(request.itt, 0);
                }
            }
            Event::Text(..) | Event::Elsewhere(..) | Event::Passed(_) | Event::Closed(_) => {}
        }
    }

    fn command(&mut self, command: &Command, script: &mut Script<'_>) {
        let how = script.u8();
        if how & 0x0f >= 0x0d {
            return self.open.push(command.itt);
        }
        if how & 0x0f >= 0x0a {
            return self.answer(command.itt, how, script);
        }
        if command.write && command.edtl > 0 {
            let edtl = u64::from(command.edtl);
            return self.connection.begin_data_out(command.itt, edtl, &mut self.arena);
        }
        match perform(&command.cdb) {
            Some(data) => self.respond(command.itt, 0, &[], data),
            None => {
                let sense = Sense::from(Condition::INVALID_COMMAND_OPERATION_CODE).encode(false);
                self.respond(command.itt, 2, sense.as_slice(), Vec::new());
            }
        }
    }

    /// An answer of the script's making; of `how` zero, a good one.
    fn answer(&mut self, itt: u32, how: u8, script: &mut Script<'_>) {
        if how & 0x1f == 0 {
            return self.respond(itt, 0, &[], Vec::new());
        }
        let (status, asc, ascq) = (script.u8(), script.u8(), script.u8());
        match (status & 3, Key::from_code(status >> 4)) {
            (0..=2, Some(key)) => {
                let sense = Sense::from(Condition { key, asc, ascq }).encode(status & 4 != 0);
                self.respond(itt, 2, sense.as_slice(), Vec::new());
            }
            _ => self.respond(itt, status, &[asc, ascq], vec![ascq; usize::from(asc)]),
        }
    }

    fn respond(&mut self, itt: u32, status: u8, sense: &[u8], data: Vec<u8>) {
        let wanted = data.len() as u64;
        let data = if data.is_empty() { DataIn::None } else { DataIn::Bytes(data.into()) };
        self.connection.respond(itt, Response { status, sense: sense.into(), data, wanted });
    }
}

/// What a small disk says.
fn perform(bytes: &[u8]) -> Option<Vec<u8>> {
    let (command, _) = cdb::parse(bytes).ok()?;
    let capacity = Capacity {
        last_lba: BLOCKS - 1,
        block_bytes: 512,
        physical_exponent: 0,
        thin: true,
        thin_zeroes: true,
    };
    match command {
        cdb::Command::Inquiry { page, .. } => inquiry(page),
        cdb::Command::ReadCapacity16 { .. } => Some(capacity.emit16()),
        cdb::Command::ModeSense(_) => {
            let write_cache = true;
            let parameters = mode::Parameters {
                write_cache,
                descriptor_sense: false,
                software_write_protect: false,
            };
            let page = mode::page(mode::CACHING, &parameters, false)?;
            Some(mode::sense_data(false, false, None, &page))
        }
        cdb::Command::Read { extent, .. } => Some(vec![3; extent.blocks as usize * 512]),
        cdb::Command::ReportOpcodes(_) => None,
        _ => Some(Vec::new()),
    }
}

fn inquiry(page: Option<u8>) -> Option<Vec<u8>> {
    let limits = BlockLimits {
        transfer_max: 4,
        unmap_blocks_max: 4,
        unmap_extents_max: 1,
        ..BlockLimits::default()
    };
    let body = match page {
        None => {
            let text = ("FUZZ", "DISK", "1");
            let inquiry = Inquiry {
                peripheral: DISK,
                removable: false,
                vendor: text.0,
                product: text.1,
                revision: text.2,
                several_ports: false,
                explicit_access: false,
            };
            return Some(inquiry.emit());
        }
        Some(vpd::SUPPORTED_PAGES) => vec![0, 0x83, 0xb0, 0xb2],
        Some(vpd::DEVICE_IDENTIFICATION) => vpd::identification(&[Designator::Naa(3 << 60)]),
        Some(vpd::BLOCK_LIMITS) => limits.emit(),
        Some(vpd::LOGICAL_BLOCK_PROVISIONING) => vpd::provisioning(true, true, true, 0),
        Some(_) => return None,
    };
    Some(vpd::page(DISK, page.unwrap_or(0), body))
}
