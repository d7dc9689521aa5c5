//! MODE SENSE and MODE SELECT (SPC-4 6.9 to 6.12).

use std::sync::atomic::Ordering;

use corbel_proto::scsi::cdb::{ModeSelect, ModeSense};
use corbel_proto::scsi::mode::{self, BlockDescriptor};
use corbel_proto::scsi::{Condition, Sense};

use crate::scsi::media::{MediaKind, MediaPlan};
use crate::scsi::plan::ParameterKind;
use crate::scsi::{LogicalUnit, Nexus, Plan};

const CHANGEABLE: u8 = 1;
const DEFAULT: u8 = 2;
const SAVED: u8 = 3;

fn geometry(lu: &LogicalUnit, long: bool) -> BlockDescriptor {
    let block_bytes = lu.volume.facts.block_bytes;
    BlockDescriptor { blocks: lu.volume.blocks(), block_bytes, long }
}

pub(in crate::scsi) fn sense(lu: &LogicalUnit, command: &ModeSense) -> Result<Plan, Sense> {
    let parameters = match command.control {
        CHANGEABLE => lu.changeable_parameters(),
        DEFAULT => lu.default_parameters(),
        SAVED => return Err(Condition::SAVING_PARAMETERS_NOT_SUPPORTED.into()),
        _ => lu.parameters(),
    };
    let changeable = command.control == CHANGEABLE;
    if !matches!(command.subpage, 0x00 | 0xff) {
        return Err(Sense::invalid_cdb(3, None));
    }
    let wanted = |page: &u8| command.page == mode::ALL_PAGES || command.page == *page;
    let pages: Vec<u8> = mode::PAGES
        .into_iter()
        .filter(wanted)
        .filter_map(|page| mode::page(page, &parameters, changeable))
        .flatten()
        .collect();
    if pages.is_empty() {
        return Err(Sense::invalid_cdb(2, Some(5)));
    }
    let descriptor = (!command.no_descriptor).then(|| geometry(lu, command.long_lba));
    let protected = lu.protection().is_some();
    let data = mode::sense_data(command.ten, protected, descriptor, &pages);
    Ok(Plan::data(data, u32::from(command.allocation)))
}

/// Nothing can be saved, and only the standard's pages can be set.
pub(in crate::scsi) fn select(command: &ModeSelect) -> Result<Plan, Sense> {
    if command.save {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    if !command.page_format && command.len > 0 {
        return Err(Sense::invalid_cdb(1, Some(4)));
    }
    if command.len == 0 {
        return Ok(Plan::good());
    }
    Ok(Plan::parameters(ParameterKind::ModeSelect { ten: command.ten }, command.len))
}

/// Other initiators get a unit attention. Switching the cache off makes all of it stable first:
/// who reads WCE=0 may rely on every write acknowledged before, too.
pub(in crate::scsi) fn resume(nexus: &mut Nexus, ten: bool, list: &[u8]) -> Result<Plan, Sense> {
    let lu = &nexus.lu;
    let (now, may) = (lu.parameters(), lu.changeable_parameters());
    let wanted = mode::parse_select(list, ten, &now, &may, &geometry(lu, false))?;
    if wanted == now {
        return Ok(Plan::good());
    }
    lu.store(&wanted);
    let before = lu.mode_generation.fetch_add(1, Ordering::AcqRel);
    if before == nexus.seen.mode {
        nexus.seen.mode = before + 1; // its own doing is no news
    }
    if now.write_cache && !wanted.write_cache {
        return Ok(Plan::media(MediaPlan::new(MediaKind::Flush, true), 0, 0));
    }
    Ok(Plan::good())
}
