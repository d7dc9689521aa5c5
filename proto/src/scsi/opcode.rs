//! The one table of commands.
//!
//! It serves three masters: the CDB's length and service action for [`cdb`](super::cdb), the usage
//! masks for REPORT SUPPORTED OPERATION CODES, and [`Class`], by which a logical unit decides what
//! a command needs (a medium, a writable one, the right side of a reservation) before it runs.

/// What a command touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Tells who is there. Never refused by unit attentions, reservations or readiness
    /// (SAM-5 5.14; SPC-4 table 65).
    Identify,
    /// Asks about the unit, not the medium.
    Inspect,
    /// Changes how the unit behaves.
    Configure,
    /// Asks about reservations or changes them; they decide themselves.
    Reserve,
    /// Asks about the medium.
    Medium,
    /// Reads blocks.
    Read,
    /// Changes blocks.
    Write,
    /// Makes written blocks stable.
    Flush,
    /// Makes all blocks unreadable, or ends an attempt to.
    Erase,
}

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Opcode {
    /// Its name in the standard.
    pub name: &'static str,
    /// OPERATION CODE.
    pub code: u8,
    /// SERVICE ACTION (low five bits of byte 1), for operation codes that have them.
    pub service_action: Option<u8>,
    /// What it touches.
    pub class: Class,
    /// CDB USAGE DATA (SPC-4 6.35.3): the CDB's length is its length, a one bit is evaluated.
    pub usage: &'static [u8],
}

impl Opcode {
    /// Finds the command that `cdb` names.
    pub fn find(cdb: &[u8]) -> Option<&'static Self> {
        let code = *cdb.first()?;
        let action = cdb.get(1).map_or(0, |b| b & 0x1f);
        let at = BY_CODE[usize::from(code)];
        OPCODES[usize::from(at)..]
            .iter()
            .take_while(|op| op.code == code)
            .find(|op| op.service_action.is_none_or(|a| a == action))
    }

    /// True if `code` has service actions in the table.
    pub fn has_service_actions(code: u8) -> bool {
        OPCODES.iter().any(|op| op.code == code && op.service_action.is_some())
    }
}

const fn op(name: &'static str, class: Class, usage: &'static [u8]) -> Opcode {
    Opcode { name, code: usage[0], service_action: None, class, usage }
}

const fn action(name: &'static str, action: u8, class: Class, usage: &'static [u8]) -> Opcode {
    Opcode { name, code: usage[0], service_action: Some(action), class, usage }
}

/// First row of each operation code; past the end for codes that have none.
const BY_CODE: [u8; 256] = {
    #[expect(clippy::cast_possible_truncation, reason = "far fewer than 256 rows")]
    let mut first = [OPCODES.len() as u8; 256];
    let mut i = OPCODES.len();
    while i > 0 {
        i -= 1;
        #[expect(clippy::cast_possible_truncation, reason = "far fewer than 256 rows")]
        let row = i as u8;
        first[OPCODES[i].code as usize] = row;
    }
    first
};

/// All commands, rows of one operation code together, by operation code and service action.
/// Short names for the bytes of a usage mask: an LBA or length is all ones.
#[rustfmt::skip]
pub const OPCODES: &[Opcode] = {
    use Class::{Configure, Erase, Flush, Identify, Inspect, Medium, Read, Reserve, Write};
    const F: u8 = 0xff;
    const IN: &[u8] = &[0x5e, 0x1f, 0, 0, 0, 0, 0, F, F, 0];
    const SANITIZE: &[u8] = &[0x48, 0xff, F, F, F, F, F, F, F, 0];
    const OUT: &[u8] = &[0x5f, 0x1f, F, 0, 0, F, F, F, F, 0];
    &[
        op("TEST UNIT READY", Medium, &[0x00, 0, 0, 0, 0, 0]),
        op("REQUEST SENSE", Identify, &[0x03, 0x01, 0, 0, F, 0]),
        op("FORMAT UNIT", Erase, &[0x04, 0xff, 0, 0, 0x03, 0]),
        op("READ(6)", Read, &[0x08, 0x1f, F, F, F, 0]),
        op("WRITE(6)", Write, &[0x0a, 0x1f, F, F, F, 0]),
        op("INQUIRY", Identify, &[0x12, 0x01, F, F, F, 0]),
        op("MODE SELECT(6)", Configure, &[0x15, 0x11, 0, 0, F, 0]),
        op("RESERVE(6)", Reserve, &[0x16, 0x13, 0, 0, 0, 0]),
        op("RELEASE(6)", Reserve, &[0x17, 0x13, 0, 0, 0, 0]),
        op("MODE SENSE(6)", Inspect, &[0x1a, 0x08, F, F, F, 0]),
        op("START STOP UNIT", Configure, &[0x1b, 0x01, 0, 0, 0xf7, 0]),
        op("PREVENT ALLOW MEDIUM REMOVAL", Configure, &[0x1e, 0, 0, 0, 0x03, 0]),
        op("READ CAPACITY(10)", Medium, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        op("READ(10)", Read, &[0x28, 0xf8, F, F, F, F, 0, F, F, 0]),
        op("WRITE(10)", Write, &[0x2a, 0xf8, F, F, F, F, 0, F, F, 0]),
        op("WRITE AND VERIFY(10)", Write, &[0x2e, 0xf2, F, F, F, F, 0, F, F, 0]),
        op("VERIFY(10)", Read, &[0x2f, 0xf6, F, F, F, F, 0, F, F, 0]),
        op("PRE-FETCH(10)", Read, &[0x34, 0x02, F, F, F, F, 0, F, F, 0]),
        op("SYNCHRONIZE CACHE(10)", Flush, &[0x35, 0x02, F, F, F, F, 0, F, F, 0]),
        op("READ DEFECT DATA(10)", Read, &[0x37, 0, 0x1f, 0, 0, 0, 0, F, F, 0]),
        op("WRITE SAME(10)", Write, &[0x41, 0xf8, F, F, F, F, 0, F, F, 0]),
        op("UNMAP", Write, &[0x42, 0x01, 0, 0, 0, 0, 0, F, F, 0]),
        action("SANITIZE OVERWRITE", 0x01, Erase, SANITIZE),
        action("SANITIZE BLOCK ERASE", 0x02, Erase, SANITIZE),
        action("SANITIZE CRYPTOGRAPHIC ERASE", 0x03, Erase, SANITIZE),
        action("SANITIZE EXIT FAILURE MODE", 0x1f, Erase, SANITIZE),
        op("LOG SENSE", Inspect, &[0x4d, 0x01, F, F, 0, F, F, F, F, 0]),
        op("MODE SELECT(10)", Configure, &[0x55, 0x11, 0, 0, 0, 0, 0, F, F, 0]),
        op("RESERVE(10)", Reserve, &[0x56, 0x13, 0, 0, 0, 0, 0, 0, 0, 0]),
        op("RELEASE(10)", Reserve, &[0x57, 0x13, 0, 0, 0, 0, 0, 0, 0, 0]),
        op("MODE SENSE(10)", Inspect, &[0x5a, 0x18, F, F, 0, 0, 0, F, F, 0]),
        action("PERSISTENT RESERVE IN READ KEYS", 0x0, Reserve, IN),
        action("PERSISTENT RESERVE IN READ RESERVATION", 0x1, Reserve, IN),
        action("PERSISTENT RESERVE IN REPORT CAPABILITIES", 0x2, Reserve, IN),
        action("PERSISTENT RESERVE IN READ FULL STATUS", 0x3, Reserve, IN),
        action("PERSISTENT RESERVE OUT REGISTER", 0x0, Reserve, OUT),
        action("PERSISTENT RESERVE OUT RESERVE", 0x1, Reserve, OUT),
        action("PERSISTENT RESERVE OUT RELEASE", 0x2, Reserve, OUT),
        action("PERSISTENT RESERVE OUT CLEAR", 0x3, Reserve, OUT),
        action("PERSISTENT RESERVE OUT PREEMPT", 0x4, Reserve, OUT),
        action("PERSISTENT RESERVE OUT PREEMPT AND ABORT", 0x5, Reserve, OUT),
        action("PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY", 0x6, Reserve, OUT),
        action("PERSISTENT RESERVE OUT REGISTER AND MOVE", 0x7, Reserve, OUT),
        action("EXTENDED COPY(LID1)", 0x00, Read,
            &[0x83, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0]),
        action("POPULATE TOKEN", 0x10, Read,
            &[0x83, 0x1f, 0, 0, 0, 0, F, F, F, F, F, F, F, F, 0, 0]),
        action("WRITE USING TOKEN", 0x11, Write,
            &[0x83, 0x1f, 0, 0, 0, 0, F, F, F, F, F, F, F, F, 0, 0]),
        action("RECEIVE COPY STATUS(LID1)", 0x00, Inspect,
            &[0x84, 0x1f, F, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0]),
        action("RECEIVE COPY OPERATING PARAMETERS", 0x03, Inspect,
            &[0x84, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0]),
        action("RECEIVE ROD TOKEN INFORMATION", 0x07, Inspect,
            &[0x84, 0x1f, F, F, F, F, 0, 0, 0, 0, F, F, F, F, 0, 0]),
        op("READ(16)", Read, &[0x88, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("COMPARE AND WRITE", Write, &[0x89, 0xf8, F, F, F, F, F, F, F, F, 0, 0, 0, F, 0, 0]),
        op("WRITE(16)", Write, &[0x8a, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("ORWRITE(16)", Write, &[0x8b, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("WRITE AND VERIFY(16)", Write, &[0x8e, 0xf2, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("VERIFY(16)", Read, &[0x8f, 0xf6, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("PRE-FETCH(16)", Read, &[0x90, 0x02, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("SYNCHRONIZE CACHE(16)", Flush,
            &[0x91, 0x02, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("WRITE SAME(16)", Write, &[0x93, 0xf9, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("WRITE ATOMIC(16)", Write, &[0x9c, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        action("READ CAPACITY(16)", 0x10, Medium,
            &[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0]),
        action("GET LBA STATUS(16)", 0x12, Read,
            &[0x9e, 0x1f, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0]),
        op("REPORT LUNS", Identify, &[0xa0, 0, F, 0, 0, 0, F, F, F, F, 0, 0]),
        action("REPORT TARGET PORT GROUPS", 0x0a, Inspect,
            &[0xa3, 0xff, 0, 0, 0, 0, F, F, F, F, 0, 0]),
        action("REPORT SUPPORTED OPERATION CODES", 0x0c, Inspect,
            &[0xa3, 0x1f, 0x87, F, F, F, F, F, F, F, 0, 0]),
        action("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", 0x0d, Inspect,
            &[0xa3, 0x1f, 0x80, 0, 0, 0, F, F, F, F, 0, 0]),
        action("SET TARGET PORT GROUPS", 0x0a, Configure,
            &[0xa4, 0x1f, 0, 0, 0, 0, F, F, F, F, 0, 0]),
        op("READ(12)", Read, &[0xa8, 0xf8, F, F, F, F, F, F, F, F, 0, 0]),
        op("WRITE(12)", Write, &[0xaa, 0xf8, F, F, F, F, F, F, F, F, 0, 0]),
        op("WRITE AND VERIFY(12)", Write, &[0xae, 0xf2, F, F, F, F, F, F, F, F, 0, 0]),
        op("VERIFY(12)", Read, &[0xaf, 0xf6, F, F, F, F, F, F, F, F, 0, 0]),
        op("READ DEFECT DATA(12)", Read, &[0xb7, 0x1f, F, F, F, F, F, F, F, F, 0, 0]),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_the_group_code() {
        for op in OPCODES {
            let len = match op.code >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                5 => 12,
                group => panic!("{} is in group {group}", op.name),
            };
            assert_eq!(op.usage.len(), len, "{}", op.name);
        }
    }

    #[test]
    fn rows_are_sorted_and_each_is_found() {
        for pair in OPCODES.windows(2) {
            assert!(
                (pair[0].code, pair[0].service_action) < (pair[1].code, pair[1].service_action)
            );
        }
        for op in OPCODES {
            let found = Opcode::find(&[op.code, op.service_action.unwrap_or(0)]).unwrap();
            assert_eq!(found.name, op.name);
        }
    }

    #[test]
    fn unknown_codes_and_service_actions_are_not_found() {
        assert!(Opcode::find(&[0xff, 0]).is_none());
        assert!(Opcode::find(&[0x9e, 0x11]).is_none());
        assert!(Opcode::find(&[]).is_none());
        assert!(Opcode::has_service_actions(0x9e));
        assert!(!Opcode::has_service_actions(0x28));
    }
}
