//! LOG SENSE (SPC-4 6.7, 7.3).

use corbel_proto::scsi::Sense;
use corbel_proto::scsi::cdb::LogSense;
use corbel_proto::scsi::provisioning as wire;

use super::provisioning;
use crate::scsi::{LogicalUnit, Plan};

/// Supported log pages, and the same with subpages.
const SUPPORTED: u8 = 0x00;
const SUPPORTED_SUBPAGES: u8 = 0xff;

/// The lists of pages, and the room of thin units where it is known. There is no temperature, no
/// error counter and no self-test that would be true of whatever lies below.
pub(in crate::scsi) fn plan(lu: &LogicalUnit, command: &LogSense) -> Result<Plan, Sense> {
    if command.save {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    let room = provisioning::room(lu);
    let beyond = || Sense::invalid_cdb(5, None);
    let data = match (command.page, command.subpage, room) {
        (wire::LOG_PAGE, 0x00, Some(room)) => {
            wire::log_page(room, command.pointer).ok_or_else(beyond)?
        }
        (SUPPORTED, _, _) if command.pointer != 0 => return Err(beyond()),
        (SUPPORTED, 0x00, _) => {
            let pages = [&[SUPPORTED][..], room.map_or(&[], |_| &[wire::LOG_PAGE])].concat();
            list(&[SUPPORTED, 0x00], &pages)
        }
        (SUPPORTED, SUPPORTED_SUBPAGES, _) => {
            let own = [SUPPORTED, 0x00, SUPPORTED, SUPPORTED_SUBPAGES];
            let pages = [&own[..], room.map_or(&[], |_| &[wire::LOG_PAGE, 0x00])].concat();
            list(&[SUPPORTED | 0x40, SUPPORTED_SUBPAGES], &pages) // SPF
        }
        (SUPPORTED, ..) | (wire::LOG_PAGE, _, Some(_)) => return Err(Sense::invalid_cdb(3, None)),
        _ => return Err(Sense::invalid_cdb(2, Some(5))),
    };
    Ok(Plan::data(data, u32::from(command.allocation)))
}

fn list(code: &[u8; 2], pages: &[u8]) -> Vec<u8> {
    let len = u8::try_from(pages.len()).expect("a few pages");
    [&code[..], &[0, len], pages].concat()
}
