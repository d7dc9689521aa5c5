//! MODE SENSE and MODE SELECT (SPC-4 6.9 to 6.12).

use corbel_proto::scsi::cdb::{ModeSelect, ModeSense};
use corbel_proto::scsi::mode::{self, BlockDescriptor, Parameters};
use corbel_proto::scsi::provisioning as wire;
use corbel_proto::scsi::{Condition, Sense, Status};

use super::provisioning;
use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::mode_pages::Change;
use crate::scsi::plan::{Action, Kept, ParameterKind};
use crate::scsi::{LogicalUnit, Nexus, Plan, Reply};

const CHANGEABLE: u8 = 1;
const DEFAULT: u8 = 2;
const SAVED: u8 = 3;
const ALL_SUBPAGES: u8 = 0xff;

fn geometry(lu: &LogicalUnit, long: bool) -> BlockDescriptor {
    let block_bytes = lu.volume.facts.block_bytes;
    BlockDescriptor { blocks: lu.volume.blocks(), block_bytes, long }
}

pub(in crate::scsi) fn sense(lu: &LogicalUnit, command: &ModeSense) -> Result<Plan, Sense> {
    let parameters = match command.control {
        CHANGEABLE => lu.mode.changeable(),
        DEFAULT => lu.mode.defaults(),
        SAVED if lu.mode.savable() => lu.mode.saved(),
        SAVED => return Err(Condition::SAVING_PARAMETERS_NOT_SUPPORTED.into()),
        _ => lu.mode.current(),
    };
    let changeable = command.control == CHANGEABLE;
    let wanted = |page: &u8| command.page == mode::ALL_PAGES || command.page == *page;
    let thresholds = provisioning::room(lu).map(|_| provisioning::threshold(lu));
    let below = thresholds.filter(|_| wanted(&wire::MODE_PAGE));
    let below = below.map(|sets| wire::mode_page(sets, changeable));
    let below = match (command.subpage, below) {
        (0x00, _) | (ALL_SUBPAGES, None) => Vec::new(),
        (ALL_SUBPAGES, Some(page)) => page,
        (wire::MODE_SUBPAGE, Some(page)) if command.page == wire::MODE_PAGE => {
            return Ok(answer(lu, command, &page));
        }
        _ => return Err(Sense::invalid_cdb(3, None)),
    };
    let recovery = thresholds.filter(|_| wanted(&wire::ERROR_RECOVERY));
    let recovery = recovery.map(|sets| wire::error_recovery(sets.is_some() && !changeable));
    let pages = mode::PAGES
        .into_iter()
        .filter(wanted)
        .filter_map(|code| {
            let mut page = mode::page(code, &parameters, changeable)?;
            if lu.mode.savable() && mode::SAVABLE.contains(&code) {
                page[0] |= mode::PS;
            }
            Some(page)
        })
        .flatten();
    let pages: Vec<u8> = recovery.into_iter().flatten().chain(pages).chain(below).collect();
    if pages.is_empty() {
        return Err(Sense::invalid_cdb(2, Some(5)));
    }
    Ok(answer(lu, command, &pages))
}

/// Pages in which nothing can be changed, and that not all units have.
fn fixed(lu: &LogicalUnit) -> Vec<Vec<u8>> {
    let thresholds = provisioning::room(lu).map(|_| provisioning::threshold(lu));
    let pages = |sets: Option<u32>| {
        vec![wire::error_recovery(sets.is_some()), wire::mode_page(sets, false)]
    };
    thresholds.map(pages).unwrap_or_default()
}

fn answer(lu: &LogicalUnit, command: &ModeSense, pages: &[u8]) -> Plan {
    let descriptor = (!command.no_descriptor).then(|| geometry(lu, command.long_lba));
    let protected = lu.protection().is_some();
    let data = mode::sense_data(command.ten, protected, descriptor, pages);
    Plan::data(data, u32::from(command.allocation))
}

/// Only the standard's pages can be set. Without a list nothing is, but what is in force may be
/// saved.
pub(in crate::scsi) fn select(nexus: &Nexus, command: &ModeSelect) -> Result<Plan, Sense> {
    let &ModeSelect { ten, page_format, save, len } = command;
    if save && !nexus.lu.mode.savable() {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    if !page_format && len > 0 {
        return Err(Sense::invalid_cdb(1, Some(4)));
    }
    match (len, save) {
        (0, true) => {
            let now = nexus.lu.mode.current();
            Ok(change(nexus, (&now, &now), true))
        }
        (0, false) => Ok(Plan::good()),
        _ => Ok(Plan::parameters(ParameterKind::ModeSelect { ten, save }, len)),
    }
}

/// Other initiators get a unit attention.
pub(in crate::scsi) fn resume(
    nexus: &Nexus,
    (ten, save): (bool, bool),
    list: &[u8],
) -> Result<Plan, Sense> {
    let lu = &nexus.lu;
    let (now, may) = (lu.mode.current(), lu.mode.changeable());
    let geometry = geometry(lu, false);
    let wanted = mode::parse_select(list, ten, &now, &may, &geometry, &fixed(lu))?;
    Ok(change(nexus, (&now, &wanted), save))
}

fn change(nexus: &Nexus, (seen, wanted): (&Parameters, &Parameters), save: bool) -> Plan {
    let lu = &nexus.lu;
    match lu.mode.propose(seen, wanted, save, &nexus.name) {
        Change::Busy => Plan::respond(Reply::status(Status::Busy)),
        Change::Persist(bytes) => {
            let (file, then) = (lu.mode_name(), Kept::ModePages);
            Plan::action(Action::Keep { file, bytes, then })
        }
        Change::Made { before, now } => match flush(&before, &now) {
            Some(media) => Plan::media(media, 0, 0),
            None => Plan::good(),
        },
    }
}

/// Switching the cache off makes all of it stable first: who reads WCE=0 may rely on every write
/// acknowledged before, too.
fn flush(before: &Parameters, now: &Parameters) -> Option<MediaPlan> {
    let off = before.write_cache && !now.write_cache;
    off.then(|| MediaPlan::new(MediaKind::Flush, true))
}

impl LogicalUnit {
    /// The state file is stable, or could not be written, and then nothing has changed.
    pub(in crate::scsi) fn mode_kept(&self, ok: bool) -> Plan {
        let (before, now) = self.mode.settle(ok);
        if !ok {
            let failed = Condition::INTERNAL_TARGET_FAILURE.into();
            return Plan::respond(Reply::check(failed, self.descriptor_sense()));
        }
        match flush(&before, &now) {
            // Also if the command was aborted while the file was written.
            Some(media) => Plan::action(Action::Detach(media)),
            None => Plan::good(),
        }
    }
}
