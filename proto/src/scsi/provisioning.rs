//! What thin units tell of the room there is: log page 0C (SBC-3 6.3.4), mode page 1C/02 (6.4.8),
//! and LBPERE in mode page 01 (6.4.7). All counts are of threshold sets.

/// Mode page code of informational exceptions, whose subpage this is.
pub const MODE_PAGE: u8 = 0x1c;
/// Subpage code.
pub const MODE_SUBPAGE: u8 = 0x02;
/// Read-write error recovery mode page.
pub const ERROR_RECOVERY: u8 = 0x01;
/// Log page code.
pub const LOG_PAGE: u8 = 0x0c;

const AVAILABLE: u8 = 0x01;
const USED: u8 = 0x02;
/// SPF, in the first byte of a page with a subpage code.
const SPF: u8 = 0x40;

/// Room, in threshold sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Sets that can still be mapped. Others may take them, too.
    pub available: u32,
    /// Sets that are mapped.
    pub used: u32,
}

/// Log page 0C: available and used LBA mapping resources, from parameter `pointer` on. `None` if
/// there is none so far up.
pub fn log_page(room: Room, pointer: u16) -> Option<Vec<u8>> {
    // SCOPE: what is left may not be for this unit alone; what is used, is.
    let all = [(AVAILABLE, room.available, 0b10), (USED, room.used, 0b01)];
    let mut out = vec![LOG_PAGE, 0, 0, 0];
    for (code, count, scope) in all.iter().filter(|(code, ..)| u16::from(*code) >= pointer) {
        out.extend([0, *code, 0x03, 8]); // FORMAT AND LINKING 11b: a binary list
        out.extend(count.to_be_bytes());
        out.extend([*scope, 0, 0, 0]);
    }
    let len = u16::try_from(out.len() - 4).expect("two parameters at most");
    out[2..4].copy_from_slice(&len.to_be_bytes());
    (len > 0).then_some(out)
}

/// Mode page 1C/02, with one descriptor: a soft threshold of `available` sets, if any. Nothing in
/// it is changeable, so `changeable` leaves all bits zero.
pub fn mode_page(available: Option<u32>, changeable: bool) -> Vec<u8> {
    let mut out = vec![0; 24];
    out[..4].copy_from_slice(&[MODE_PAGE | SPF, MODE_SUBPAGE, 0, 20]);
    if changeable {
        return out;
    }
    // ENABLED; THRESHOLD TYPE and ARMING 000b: soft, and armed against decrease.
    out[16] = u8::from(available.is_some()) << 7;
    out[17] = AVAILABLE;
    out[20..24].copy_from_slice(&available.unwrap_or(0).to_be_bytes());
    out
}

/// Mode page 01, of which only LBPERE has a meaning here: thresholds are told of.
pub fn error_recovery(reports: bool) -> Vec<u8> {
    let mut out = vec![0; 12];
    out[..2].copy_from_slice(&[ERROR_RECOVERY, 10]);
    out[7] = u8::from(reports) << 7;
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_page_tells_both_counts_from_the_pointer_on() {
        let room = Room { available: 0x0102_0304, used: 5 };
        #[rustfmt::skip]
        assert_eq!(log_page(room, 0).unwrap(), [
            0x0c, 0, 0, 24,
            0, 1, 0x03, 8, 1, 2, 3, 4, 0b10, 0, 0, 0,
            0, 2, 0x03, 8, 0, 0, 0, 5, 0b01, 0, 0, 0,
        ]);
        assert_eq!(log_page(room, 2).unwrap()[..6], [0x0c, 0, 0, 12, 0, 2]);
        assert_eq!(log_page(room, 3), None);
    }

    #[test]
    fn mode_page_has_a_threshold_that_nobody_can_change() {
        let page = mode_page(Some(9), false);
        assert_eq!(page[..4], [0x5c, 0x02, 0, 20]);
        assert_eq!(page[16..], [0x80, 0x01, 0, 0, 0, 0, 0, 9]);
        assert_eq!(mode_page(None, false)[16], 0);
        assert!(mode_page(Some(9), true)[4..].iter().all(|byte| *byte == 0));
        assert_eq!(error_recovery(true), [0x01, 10, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0]);
        assert_eq!(error_recovery(false)[7], 0);
    }
}
