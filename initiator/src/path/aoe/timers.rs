//! How patient a path is.

use corbel_proto::aoe::initiator::Timeouts;
use corbel_proto::time::Duration;

/// See each field. The defaults suit a storage LAN with disks that may take their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// A command is repeated for so long; then its try ends, and another path may do it.
    pub give_up: Duration,
    /// The path is down when nothing at all was heard for so long, although commands wait and one
    /// of them was repeated three times.
    pub silence: Duration,
    /// How often the device is asked who it is, load or no load.
    pub check_every: Duration,
    /// How long after its last copy a command may land that was never answered.
    pub doubt_hold: Duration,
    /// How long after its last copy a command may land once more that was answered: far above the
    /// life of a frame in a LAN.
    pub copy_hold: Duration,
    /// When a command is repeated.
    pub repeat: Timeouts,
    /// How often longer frames are tried again after they did not come through.
    pub widen_every: Duration,
}

impl Timers {
    /// For a quiet network of fast disks: a dead path is known in less than half a second.
    pub const QUICK: Self = Self {
        give_up: Duration::from_millis(400),
        silence: Duration::from_millis(300),
        check_every: Duration::from_secs(1),
        ..Self::DEFAULT
    };

    /// See [`Timers`].
    pub const DEFAULT: Self = Self {
        give_up: Duration::from_secs(1),
        silence: Duration::from_millis(700),
        check_every: Duration::from_secs(2),
        doubt_hold: Duration::from_secs(10),
        copy_hold: Duration::from_secs(1),
        repeat: Timeouts {
            first: Duration::from_millis(250),
            min: Duration::from_millis(20),
            max: Duration::from_millis(500),
        },
        widen_every: Duration::from_secs(60),
    };
}

impl Default for Timers {
    fn default() -> Self {
        Self::DEFAULT
    }
}
