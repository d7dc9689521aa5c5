//! Asking a unit who it is, how large, and what it can: one command after the other.
//!
//! Unit attentions are absorbed: each new session meets some. Whatever the unit changes while it is
//! being asked tells itself by another one, and the asking begins again.

use std::collections::VecDeque;

use corbel_proto::iscsi::initiator::Answer;
use corbel_proto::scsi::alua;
use corbel_proto::scsi::capacity::Capacity;
use corbel_proto::scsi::inquiry::{DISK, InquiryData};
use corbel_proto::scsi::sense::Key;
use corbel_proto::scsi::vpd::{self, BlockLimits, Designator};
use corbel_proto::scsi::{Condition, Sense, Status, mode};

use super::judge::words;
use super::unit::{Unit, WriteSame};
use crate::path::PathFault;

/// Unit attentions and aborts that one round of asking puts up with.
const SETBACKS_MAX: u32 = 64;
/// Allocation length of the pages; 255 and below is what old units read of it.
const PAGE_BYTES: u16 = 252;
/// A longer page 83 is asked for again, up to this.
const PAGE_BYTES_MAX: u16 = 4096;
/// Groups that are read, at most: 8 bytes and a few ports each.
const GROUPS_BYTES: u32 = 4096;

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Ready,
    Inquiry,
    Pages,
    Page { code: u8, bytes: u16 },
    Capacity16,
    Capacity10,
    Mode,
    WriteSame,
    Groups,
}

/// What is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Needs {
    /// Everything; nothing else is sent meanwhile.
    pub(super) all: bool,
    /// Is it there?
    pub(super) check: bool,
    pub(super) capacity: bool,
    pub(super) mode: bool,
    pub(super) groups: bool,
}

impl Needs {
    pub(super) const ALL: Self =
        Self { all: true, check: false, capacity: false, mode: false, groups: false };

    pub(super) fn any(self) -> bool {
        self != Self::default()
    }
}

/// How far a round is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next question is waiting.
    Next,
    /// The unit is busy: ask again in a while.
    Busy,
    /// It is not fit for work.
    Unfit(PathFault, String),
}

/// A round of asking.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) needs: Needs,
    pub(super) unit: Unit,
    todo: VecDeque<Step>,
    setbacks: u32,
}

impl Probe {
    /// `known`: what was told before; it is amended.
    pub(super) fn new(needs: Needs, known: Option<&Unit>) -> Self {
        let (unit, needs) = match known {
            Some(unit) if !needs.all => (unit.clone(), needs),
            _ => (Unit::default(), Needs { all: true, ..needs }),
        };
        let mut probe = Self { needs, unit, todo: VecDeque::new(), setbacks: 0 };
        probe.restart();
        probe
    }

    fn restart(&mut self) {
        let Needs { all, check, capacity, mode, groups } = self.needs;
        if all {
            self.unit = Unit::default();
        }
        let steps = [
            (all || check, Step::Ready),
            (all, Step::Inquiry),
            (all, Step::Pages),
            (all || capacity, Step::Capacity16),
            (all || mode, Step::Mode),
            (all, Step::WriteSame),
            (all || groups && self.unit.grouped, Step::Groups),
        ];
        self.todo =
            steps.into_iter().filter_map(|(is_wanted, step)| is_wanted.then_some(step)).collect();
    }

    /// The next question: CDB and bytes expected. `None`: all is answered.
    pub(super) fn question(&self) -> Option<([u8; 16], u32)> {
        self.todo.front().map(|step| step.command())
    }

    /// The answer to [`Self::question`], with the data that came.
    pub(super) fn answer(&mut self, answer: &Answer, data: &[u8]) -> Progress {
        let Some(step) = self.todo.front().copied() else { return Progress::Next };
        match Status::from_code(answer.status) {
            Some(Status::Good) => match self.take(step, data) {
                Ok(()) => Progress::Next,
                Err((fault, why)) => Progress::Unfit(fault, why.to_owned()),
            },
            Some(Status::CheckCondition) => self.refused(step, &answer.sense),
            // Another host's reservation is no reason to call the path bad.
            Some(Status::ReservationConflict) if step.is_optional() || step == Step::Ready => {
                self.skip()
            }
            Some(Status::Busy | Status::TaskSetFull) => Progress::Busy,
            _ => self.setback(answer.status, &answer.sense),
        }
    }

    fn refused(&mut self, step: Step, bytes: &[u8]) -> Progress {
        let status = Status::CheckCondition.code();
        let Some(Sense { condition, .. }) = Sense::parse(bytes) else {
            return self.setback(status, bytes);
        };
        let unfit =
            |fault| Progress::Unfit(fault, format!("the unit says {}", words(status, bytes)));
        match condition {
            Condition { key: Key::UnitAttention, .. } => {
                // Before the first question about the unit they are old news.
                if self.needs.all && step != Step::Ready {
                    self.restart();
                }
                self.setback(status, bytes)
            }
            Condition { key: Key::NotReady, asc: 0x04, ascq: 0x0a..=0x0c } => {
                unfit(PathFault::Standby)
            }
            Condition { key: Key::NotReady, .. } if step.is_optional() => self.skip(),
            Condition { key: Key::NotReady, .. } => unfit(PathFault::CommandsFail),
            Condition { key: Key::IllegalRequest, asc: 0x25, .. } => unfit(PathFault::NoDevice),
            Condition { key: Key::IllegalRequest, .. } if step == Step::Capacity16 => {
                self.todo[0] = Step::Capacity10;
                Progress::Next
            }
            Condition { key: Key::AbortedCommand, .. } => self.setback(status, bytes),
            _ if step.is_optional() => self.skip(),
            _ => unfit(PathFault::CommandsFail),
        }
    }

    fn skip(&mut self) -> Progress {
        self.todo.pop_front();
        Progress::Next
    }

    fn setback(&mut self, status: u8, sense: &[u8]) -> Progress {
        self.setbacks += 1;
        if self.setbacks <= SETBACKS_MAX {
            return Progress::Next;
        }
        let why = format!("the unit says nothing but {}", words(status, sense));
        Progress::Unfit(PathFault::CommandsFail, why)
    }

    fn take(&mut self, step: Step, data: &[u8]) -> Result<(), (PathFault, &'static str)> {
        const BROKEN: PathFault = PathFault::CommandsFail;
        self.todo.pop_front();
        let unit = &mut self.unit;
        match step {
            Step::Pages => self.choose_pages(data),
            Step::Page { code, bytes } => self.page(code, bytes, data),
            Step::Ready => {}
            Step::Inquiry => {
                let inquiry =
                    InquiryData::parse(data).ok_or((BROKEN, "INQUIRY data is too short"))?;
                match inquiry.peripheral {
                    DISK => {}
                    other if other >> 5 == 0 => {
                        return Err((PathFault::Mismatch, "the unit is not a disk"));
                    }
                    _ => return Err((PathFault::NoDevice, "there is no such unit")),
                }
                unit.inquiry = Some(inquiry);
                unit.grouped = data[5] & 0x30 != 0; // TPGS
                if !unit.grouped {
                    self.todo.retain(|step| *step != Step::Groups);
                }
            }
            Step::Capacity16 => {
                unit.capacity =
                    Capacity::parse16(data).ok_or((BROKEN, "READ CAPACITY data is too short"))?;
            }
            Step::Capacity10 => {
                unit.capacity = Capacity::parse10(data)
                    .filter(|capacity| capacity.last_lba < u64::from(u32::MAX))
                    .ok_or((BROKEN, "the unit does not tell its capacity"))?;
            }
            Step::Mode => unit.mode = mode::parse_sense6(data),
            Step::WriteSame => {
                // SUPPORT 011b: as the standard says; the usage mask begins after four bytes.
                let known = data.get(1).is_some_and(|byte| byte & 0x07 == 0x03);
                let no_payload = data.get(5).is_some_and(|usage| usage & 0x01 != 0);
                unit.write_same = known.then_some(WriteSame { no_payload });
            }
            Step::Groups => {
                let ours = unit.port_group();
                let groups = alua::parse(data);
                unit.access = groups.into_iter().find(|group| Some(group.group) == ours);
            }
        }
        let known = matches!(step, Step::Capacity10 | Step::Capacity16);
        if known && !self.unit.is_sound() {
            return Err((PathFault::CommandsFail, "the unit has an impossible capacity"));
        }
        Ok(())
    }

    /// Of the pages that there are, those that are of use.
    fn choose_pages(&mut self, data: &[u8]) {
        let listed = vpd::body(data, vpd::SUPPORTED_PAGES).unwrap_or_default();
        let vendor = self.unit.inquiry.as_ref().map(|inquiry| inquiry.vendor.as_str());
        let instance = (vendor == Some("CORBEL")).then_some(vpd::INSTANCE);
        let wanted = [
            Some(vpd::LOGICAL_BLOCK_PROVISIONING),
            Some(vpd::BLOCK_LIMITS),
            instance,
            Some(vpd::UNIT_SERIAL_NUMBER),
            Some(vpd::DEVICE_IDENTIFICATION),
        ];
        for code in wanted.into_iter().flatten().filter(|code| listed.contains(code)) {
            self.todo.push_front(Step::Page { code, bytes: PAGE_BYTES });
        }
    }

    fn page(&mut self, code: u8, asked: u16, data: &[u8]) {
        // A page that says it is longer than what was asked for is asked for once more.
        let told = data.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]])).saturating_add(4);
        if told > asked && asked == PAGE_BYTES && told <= PAGE_BYTES_MAX {
            self.todo.push_front(Step::Page { code, bytes: told });
            return;
        }
        let Ok(body) = vpd::body(data, code) else { return };
        let unit = &mut self.unit;
        match code {
            vpd::UNIT_SERIAL_NUMBER => unit.page_80 = body.to_vec(),
            vpd::DEVICE_IDENTIFICATION => unit.page_83 = body.to_vec(),
            vpd::BLOCK_LIMITS => unit.limits = BlockLimits::parse(body).unwrap_or_default(),
            vpd::LOGICAL_BLOCK_PROVISIONING => {
                let flags = body.get(1).copied().unwrap_or(0);
                unit.unmap = flags & 0x80 != 0; // LBPU
                unit.unmap_by_write_same = flags & 0x40 != 0; // LBPWS
            }
            vpd::INSTANCE => {
                let (boot, process) = body.split_at_checked(16).unwrap_or((body, &[]));
                unit.instance = Some(boot.iter().map(|byte| format!("{byte:02x}")).collect());
                unit.process = process.first_chunk().copied();
            }
            _ => {}
        }
    }
}

impl Step {
    /// The unit can be used without an answer to it.
    const fn is_optional(self) -> bool {
        !matches!(self, Self::Ready | Self::Inquiry | Self::Capacity16 | Self::Capacity10)
    }

    fn command(self) -> ([u8; 16], u32) {
        let mut cdb = [0; 16];
        let len = match self {
            Self::Ready => 0,
            Self::Inquiry => inquiry(&mut cdb, None, 96),
            Self::Pages => inquiry(&mut cdb, Some(vpd::SUPPORTED_PAGES), PAGE_BYTES),
            Self::Page { code, bytes } => inquiry(&mut cdb, Some(code), bytes),
            Self::Capacity16 => {
                (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32);
                32
            }
            Self::Capacity10 => {
                cdb[0] = 0x25;
                8
            }
            Self::Mode => {
                // MODE SENSE (6): no block descriptor, current values of the caching page.
                (cdb[0], cdb[1], cdb[2], cdb[4]) = (0x1a, 0x08, mode::CACHING, 252);
                252
            }
            Self::WriteSame => {
                // REPORT SUPPORTED OPERATION CODES: this one, WRITE SAME (16).
                (cdb[0], cdb[1], cdb[2], cdb[3], cdb[9]) = (0xa3, 0x0c, 0x01, 0x93, 64);
                64
            }
            Self::Groups => {
                (cdb[0], cdb[1]) = (0xa3, 0x0a);
                cdb[6..10].copy_from_slice(&GROUPS_BYTES.to_be_bytes());
                GROUPS_BYTES
            }
        };
        (cdb, len)
    }
}

fn inquiry(cdb: &mut [u8; 16], page: Option<u8>, bytes: u16) -> u32 {
    (cdb[0], cdb[1], cdb[2]) = (0x12, u8::from(page.is_some()), page.unwrap_or(0));
    cdb[3..5].copy_from_slice(&bytes.to_be_bytes());
    u32::from(bytes)
}

impl Unit {
    /// The target port group of the port that was asked.
    fn port_group(&self) -> Option<u16> {
        let designators = vpd::parse_identification(&self.page_83).unwrap_or_default();
        designators.into_iter().find_map(|designator| match designator {
            Designator::TargetPortGroup(group) => Some(group),
            _ => None,
        })
    }
}
