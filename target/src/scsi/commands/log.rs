//! LOG SENSE (SPC-4 6.7, 7.3).

use corbel_proto::scsi::Sense;
use corbel_proto::scsi::cdb::LogSense;

use crate::scsi::Plan;

/// Supported log pages, and the same with subpages.
const SUPPORTED: u8 = 0x00;
const SUPPORTED_SUBPAGES: u8 = 0xff;

/// Only the lists of pages: there is no temperature, no error counter and no self-test that would
/// be true of whatever lies below.
pub(in crate::scsi) fn plan(command: &LogSense) -> Result<Plan, Sense> {
    if command.save {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    if command.page != SUPPORTED {
        return Err(Sense::invalid_cdb(2, Some(5)));
    }
    if command.pointer != 0 {
        return Err(Sense::invalid_cdb(5, None));
    }
    let data = match command.subpage {
        0x00 => vec![SUPPORTED, 0x00, 0, 1, SUPPORTED],
        SUPPORTED_SUBPAGES => {
            let pages = [SUPPORTED, 0x00, SUPPORTED, SUPPORTED_SUBPAGES];
            [&[SUPPORTED | 0x40, SUPPORTED_SUBPAGES, 0, 4][..], &pages].concat() // SPF
        }
        _ => return Err(Sense::invalid_cdb(3, None)),
    };
    Ok(Plan::data(data, u32::from(command.allocation)))
}
