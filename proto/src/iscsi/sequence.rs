//! Serial numbers (RFC 7143 4.2.2, RFC 1982) and the command window.

use core::cmp::Ordering;

/// How `a` stands to `b` on the circle of 2^32 serial numbers.
///
/// Numbers exactly half the circle apart have no defined order (RFC 1982 3.2); they count as
/// greater here, so that such a number is never taken for one inside a window.
pub const fn compare(a: u32, b: u32) -> Ordering {
    match a.wrapping_sub(b) {
        0 => Ordering::Equal,
        1..=0x8000_0000 => Ordering::Greater,
        _ => Ordering::Less,
    }
}

/// `a` comes before `b`.
pub const fn before(a: u32, b: u32) -> bool {
    matches!(compare(a, b), Ordering::Less)
}

/// The target's side of the command window (RFC 7143 4.2.2.1).
///
/// `ExpCmdSN` moves with each command taken in order; `MaxCmdSN` with each one finished, and
/// never backwards. What lies between them is what the initiator may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    expected: u32,
    max: u32,
}

impl Window {
    /// A window that expects `first` and is `depth` commands wide.
    pub const fn new(first: u32, depth: u32) -> Self {
        Self { expected: first, max: first.wrapping_add(depth).wrapping_sub(1) }
    }

    /// ExpCmdSN.
    pub const fn expected(&self) -> u32 {
        self.expected
    }

    /// MaxCmdSN.
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// True if a non-immediate command with this number may be taken now or later.
    pub const fn contains(&self, cmd_sn: u32) -> bool {
        !before(cmd_sn, self.expected) && !before(self.max, cmd_sn)
    }

    /// The command with number ExpCmdSN has arrived.
    pub const fn advance(&mut self) {
        self.expected = self.expected.wrapping_add(1);
    }

    /// Lets the initiator be up to `room` commands past ExpCmdSN. A smaller room than was granted
    /// before takes effect only as commands arrive: MaxCmdSN never goes backwards.
    pub const fn grant(&mut self, room: u32) {
        let max = self.expected.wrapping_add(room).wrapping_sub(1);
        if before(self.max, max) {
            self.max = max;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_goes_round_the_circle() {
        assert!(before(0xffff_ffff, 0));
        assert!(before(0, 0x7fff_ffff));
        assert!(!before(5, 5));
        assert!(!before(0, 0x8000_0000) || !before(0x8000_0000, 0));
    }

    #[test]
    fn window_closes_as_commands_arrive_and_opens_as_they_finish() {
        let mut window = Window::new(0xffff_fffe, 4);
        assert!(window.contains(0xffff_fffe) && window.contains(1));
        assert!(!window.contains(2) && !window.contains(0xffff_fffd));
        for _ in 0..4 {
            window.advance();
        }
        assert!(!window.contains(2));
        window.grant(1);
        assert!(window.contains(2) && !window.contains(3));
    }

    #[test]
    fn max_never_goes_backwards() {
        let mut window = Window::new(10, 8);
        window.grant(2);
        assert_eq!(window.max(), 17);
    }
}
