//! Asymmetric access (SPC-4 5.15): which way to a unit is good for what. REPORT TARGET PORT GROUPS
//! data (6.37) and the list of SET TARGET PORT GROUPS (6.44).

use super::sense::Sense;

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

    /// What operators call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Standby => "standby",
            Self::Unavailable => "unavailable",
            Self::BlockDependent => "block-dependent",
            Self::Offline => "offline",
            Self::Transitioning => "transitioning",
        }
    }
}

/// Why a group is in its state (STATUS CODE, SPC-4 table 313).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cause {
    /// It always was.
    #[default]
    None = 0,
    /// SET TARGET PORT GROUPS.
    Explicit,
    /// The target.
    Implicit,
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

/// A target port group, as a target tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<'a> {
    /// Number, state and preference.
    pub group: PortGroup,
    /// Why it is in this state.
    pub cause: Cause,
    /// Relative identifiers of its target ports; at most 255 are told.
    pub ports: &'a [u16],
}

/// The states that a unit can be told to be in: all but offline and block dependent, and
/// transitioning as a state of its own.
const SUPPORTED: u8 = 0x8f;

/// The data (SPC-4 6.37), with the longer header if `extended`: no transition takes any time.
pub fn emit(reports: &[Report<'_>], extended: bool) -> Vec<u8> {
    // FORMAT TYPE 001b; IMPLICIT TRANSITION TIME is not told.
    let mut body = if extended { vec![0x10, 0, 0, 0] } else { Vec::new() };
    for Report { group, cause, ports } in reports {
        body.push(u8::from(group.preferred) << 7 | group.state as u8);
        body.push(SUPPORTED);
        body.extend_from_slice(&group.group.to_be_bytes());
        let count = u8::try_from(ports.len()).unwrap_or(u8::MAX);
        body.extend_from_slice(&[0, *cause as u8, 0, count]);
        for port in ports.iter().take(usize::from(u8::MAX)) {
            body.extend_from_slice(&u32::from(*port).to_be_bytes());
        }
    }
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes()[..], &body].concat()
}

/// Reads the list of SET TARGET PORT GROUPS (SPC-4 6.44): groups and the states they shall have.
///
/// # Errors
/// INVALID FIELD IN PARAMETER LIST for a descriptor that is cut off, and for a state that cannot be
/// set.
pub fn parse_set(list: &[u8]) -> Result<Vec<(u16, AccessState)>, Sense> {
    let descriptors = list.get(4..).unwrap_or_default();
    let mut orders = Vec::with_capacity(descriptors.len() / 4);
    for (index, descriptor) in descriptors.chunks(4).enumerate() {
        let at = u16::try_from(4 + 4 * index).unwrap_or(u16::MAX);
        let &[state, _, high, low] = descriptor else {
            return Err(Sense::invalid_parameter(at, None));
        };
        let state = match AccessState::from_code(state) {
            // Offline and block dependent are not supported; transitioning cannot be asked for.
            Some(
                AccessState::BlockDependent | AccessState::Offline | AccessState::Transitioning,
            )
            | None => return Err(Sense::invalid_parameter(at, Some(3))),
            Some(state) => state,
        };
        orders.push((u16::from_be_bytes([high, low]), state));
    }
    Ok(orders)
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
        let first = PortGroup { group: 1, state: AccessState::Optimized, preferred: true };
        let second = PortGroup { group: 2, state: AccessState::Standby, preferred: false };
        let reports = [
            Report { group: first, cause: Cause::None, ports: &[1] },
            Report { group: second, cause: Cause::Implicit, ports: &[2, 3] },
        ];
        assert_eq!(emit(&reports, false), [
            0, 0, 0, 28,
            0x80, 0x8f, 0, 1, 0, 0, 0, 1,   // PREF, optimized; T, U, S, AN, AO; group 1; one port
            0, 0, 0, 1,
            0x02, 0x8f, 0, 2, 0, 2, 0, 2,   // standby; altered implicitly
            0, 0, 0, 2, 0, 0, 0, 3,
        ]);
        for extended in [false, true] {
            assert_eq!(parse(&emit(&reports, extended)), [first, second]);
        }
        assert_eq!(emit(&reports, true)[..8], [0, 0, 0, 32, 0x10, 0, 0, 0]);
    }

    #[test]
    fn states_that_cannot_be_set_and_cut_descriptors_are_pointed_at() {
        let list = |descriptors: &[u8]| parse_set(&[&[0; 4], descriptors].concat());
        assert_eq!(parse_set(&[]), Ok(vec![]));
        let orders = list(&[0, 0, 0, 1, 2, 0, 1, 0]).unwrap();
        assert_eq!(orders, [(1, AccessState::Optimized), (256, AccessState::Standby)]);
        for state in [0x4, 0x5, 0xd, 0xe, 0xf] {
            let refused = list(&[0, 0, 0, 1, state, 0, 0, 2]);
            assert_eq!(refused, Err(Sense::invalid_parameter(8, Some(3))));
        }
        for cut in 1..4 {
            assert_eq!(list(&[0, 0, 0][..cut]), Err(Sense::invalid_parameter(4, None)));
        }
    }

    #[test]
    fn reserved_states_are_no_state() {
        let known = (0..16).filter_map(AccessState::from_code).count();
        assert_eq!(known, 7);
    }
}
