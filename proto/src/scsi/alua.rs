//! REPORT TARGET PORT GROUPS data (SPC-4 6.37): which way to a unit is good for what.

/// Asymmetric access state of a target port group (SPC-4 table 311).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessState {
    /// Commands run at full speed.
    Optimized = 0x0,
    /// Commands run, but the long way round.
    NonOptimized,
    /// Only commands about the unit run.
    Standby,
    /// As standby, with less.
    Unavailable,
    /// It depends on the block.
    BlockDependent,
    /// The ports cannot be used.
    Offline,
    /// On its way to another state.
    Transitioning,
}

impl AccessState {
    /// The state of four bits; `None` for reserved ones.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code & 0x0f {
            0x0 => Self::Optimized,
            0x1 => Self::NonOptimized,
            0x2 => Self::Standby,
            0x3 => Self::Unavailable,
            0x4 => Self::BlockDependent,
            0xe => Self::Offline,
            0xf => Self::Transitioning,
            _ => return None,
        })
    }
}

/// One target port group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortGroup {
    /// TARGET PORT GROUP, as in the designator of VPD page 83.
    pub group: u16,
    /// What it is good for now.
    pub state: AccessState,
    /// PREF: use it if you can.
    pub preferred: bool,
}

/// The data (SPC-4 6.37): `groups` with their relative target ports, all active/optimized for ever;
/// with the longer header if `extended`.
pub fn emit_optimized(groups: &[(u16, Vec<u16>)], extended: bool) -> Vec<u8> {
    // FORMAT TYPE 001b; no transition takes any time.
    let mut body = if extended { vec![0x10, 0, 0, 0] } else { Vec::new() };
    for (group, ports) in groups {
        // The state, and that it is the only one supported; no status code.
        body.extend_from_slice(&[AccessState::Optimized as u8, 0x01]);
        body.extend_from_slice(&group.to_be_bytes());
        body.extend_from_slice(&[0, 0, 0, u8::try_from(ports.len()).unwrap_or(u8::MAX)]);
        for port in ports.iter().take(usize::from(u8::MAX)) {
            body.extend_from_slice(&u32::from(*port).to_be_bytes());
        }
    }
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], &body].concat()
}

/// Reads the data in either format, as far as it is whole; groups in a reserved state are left out.
pub fn parse(bytes: &[u8]) -> Vec<PortGroup> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Vec::new() };
    let told = u32::from_be_bytes(*head) as usize;
    let mut rest = &rest[..told.min(rest.len())];
    // Extended format: four more bytes of header, which begin with FORMAT TYPE 001b.
    if rest.first().is_some_and(|byte| byte & 0x70 == 0x10) {
        rest = rest.get(4..).unwrap_or_default();
    }
    let mut groups = Vec::new();
    while let Some((d, ports)) = rest.split_first_chunk::<8>() {
        groups.extend(AccessState::from_code(d[0]).map(|state| PortGroup {
            group: u16::from_be_bytes([d[2], d[3]]),
            state,
            preferred: d[0] & 0x80 != 0,
        }));
        rest = ports.get(4 * usize::from(d[7])..).unwrap_or_default();
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const TWO: [u8; 28] = [
        0, 0, 0, 24,                // RETURN DATA LENGTH
        0x80, 0x0f, 0, 1,           // preferred, optimized; states supported; group 1
        0, 0, 0, 1, 0, 0, 0, 1,     // one port
        0x02, 0x0f, 0, 2,           // standby; group 2
        0, 0, 0, 0, 0, 0, 0, 0,     // no port; the start of another descriptor
    ];

    #[test]
    fn groups_are_read_past_their_ports_and_cuts_end_them() {
        let first = PortGroup { group: 1, state: AccessState::Optimized, preferred: true };
        let second = PortGroup { group: 2, state: AccessState::Standby, preferred: false };
        assert_eq!(parse(&TWO), [first, second]);
        assert_eq!(parse(&TWO[..23]), [first]);
        for len in 0..TWO.len() {
            parse(&TWO[..len]);
        }
    }

    #[test]
    fn the_extended_header_is_skipped() {
        let mut extended = TWO.to_vec();
        extended.splice(4..4, [0x10, 60, 0, 0]);
        extended[3] += 4;
        assert_eq!(parse(&extended), parse(&TWO));
    }

    #[test]
    #[rustfmt::skip]
    fn what_is_emitted_is_laid_out_as_the_standard_says_and_reads_back() {
        let groups = [(1, vec![1]), (2, vec![2, 3])];
        assert_eq!(emit_optimized(&groups, false), [
            0, 0, 0, 28,
            0x00, 0x01, 0, 1, 0, 0, 0, 1,   // optimized; AO_SUP; group 1; one port
            0, 0, 0, 1,
            0x00, 0x01, 0, 2, 0, 0, 0, 2,
            0, 0, 0, 2, 0, 0, 0, 3,
        ]);
        for extended in [false, true] {
            let read: Vec<u16> =
                parse(&emit_optimized(&groups, extended)).iter().map(|g| g.group).collect();
            assert_eq!(read, [1, 2]);
        }
    }

    #[test]
    fn reserved_states_are_no_state() {
        let known = (0..16).filter_map(AccessState::from_code).count();
        assert_eq!(known, 7);
    }
}
