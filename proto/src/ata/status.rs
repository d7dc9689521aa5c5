//! Status and error registers (ACS-3 section 6).

use super::Registers;

/// BSY: none of the other bits means anything.
pub const BUSY: u8 = 0x80;
/// DRDY: ready for commands.
pub const READY: u8 = 0x40;
/// DF: the device has failed.
pub const DEVICE_FAULT: u8 = 0x20;
/// DRQ: data is to be moved; never set in AoE replies.
pub const DATA_REQUEST: u8 = 0x08;
/// ERR: look at the error register.
pub const ERROR: u8 = 0x01;

/// ICRC: the data was damaged between host and device.
pub const INTERFACE_CRC: u8 = 0x80;
/// UNC: the data could not be read. With ABRT, in ATA-4 to ATA-7, WP: the medium is
/// write-protected.
pub const UNCORRECTABLE: u8 = 0x40;
/// IDNF: no such address.
pub const ID_NOT_FOUND: u8 = 0x10;
/// ABRT: the command was not done.
pub const ABORTED: u8 = 0x04;
/// NM: there is no medium.
pub const NO_MEDIUM: u8 = 0x02;
/// AMNF, obsolete since ATA-4: the sector's address mark was not found.
pub const NO_ADDRESS_MARK: u8 = 0x01;

/// How a command can fail. What each looks like is decided here and nowhere else.
///
/// All of them set a bit for which the Linux client ends the I/O with an error at once; an AoE
/// error instead would make it repeat the request for three minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The command is not supported, or not with these parameters, or not now.
    Aborted,
    /// The addresses lie outside the device.
    IdNotFound,
    /// The medium could not be read.
    Uncorrectable,
    /// The device has failed: writing did, or it is gone.
    DeviceFault,
    /// The medium is write-protected.
    WriteProtected,
    /// There is no medium.
    NoMedium,
    /// The data was damaged on its way to or from the device. Not the device's fault.
    Transfer,
    /// The device is busy, and says nothing else.
    Busy,
}

impl Fault {
    /// Status and error registers.
    pub const fn bits(self) -> (u8, u8) {
        match self {
            Self::Aborted => (READY | ERROR, ABORTED),
            Self::IdNotFound => (READY | ERROR, ID_NOT_FOUND),
            Self::Uncorrectable => (READY | ERROR, UNCORRECTABLE),
            Self::DeviceFault => (READY | DEVICE_FAULT | ERROR, ABORTED),
            Self::WriteProtected => (READY | ERROR, UNCORRECTABLE | ABORTED),
            Self::NoMedium => (READY | ERROR, NO_MEDIUM | ABORTED),
            Self::Transfer => (READY | ERROR, INTERFACE_CRC | ABORTED),
            Self::Busy => (BUSY, 0),
        }
    }

    /// The fault that these reply registers tell of, if they do. For clients.
    pub const fn from_registers(registers: &Registers) -> Option<Self> {
        let (status, error) = (registers.command_status, registers.feature_error);
        if status & BUSY != 0 {
            return Some(Self::Busy);
        }
        if status & (DEVICE_FAULT | DATA_REQUEST) != 0 {
            return Some(Self::DeviceFault);
        }
        if status & ERROR == 0 {
            return None;
        }
        const PROTECTED: u8 = UNCORRECTABLE | ABORTED;
        Some(match error {
            e if e & INTERFACE_CRC != 0 => Self::Transfer,
            e if e & PROTECTED == PROTECTED => Self::WriteProtected,
            e if e & (UNCORRECTABLE | NO_ADDRESS_MARK) != 0 => Self::Uncorrectable,
            e if e & ID_NOT_FOUND != 0 => Self::IdNotFound,
            e if e & NO_MEDIUM != 0 => Self::NoMedium,
            _ => Self::Aborted,
        })
    }
}

impl Registers {
    /// The reply to these command registers when all went well: the address and the count stay.
    #[must_use]
    pub const fn done(self) -> Self {
        Self { feature_error: 0, command_status: READY, ..self }
    }

    /// The reply to these command registers after `fault`.
    #[must_use]
    pub const fn failed(self, fault: Fault) -> Self {
        let (status, error) = fault.bits();
        Self { feature_error: error, command_status: status, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the Linux client looks at: BSY, DF, DRQ or ERR.
    const LINUX_FAILS_ON: u8 = 0xa9;

    #[test]
    fn every_fault_is_one_for_linux_and_reads_back() {
        for fault in [
            Fault::Aborted,
            Fault::IdNotFound,
            Fault::Uncorrectable,
            Fault::DeviceFault,
            Fault::WriteProtected,
            Fault::NoMedium,
            Fault::Transfer,
            Fault::Busy,
        ] {
            let reply = Registers::default().failed(fault);
            assert_ne!(reply.command_status & LINUX_FAILS_ON, 0, "{fault:?}");
            assert_eq!(Fault::from_registers(&reply), Some(fault));
        }
    }

    #[test]
    fn success_is_success_for_linux() {
        let request = Registers { feature_error: 9, count: 2, command_status: 0x24, lba: [7; 6] };
        let reply = request.done();
        assert_eq!(reply.command_status & LINUX_FAILS_ON, 0);
        assert_eq!((reply.feature_error, reply.count, reply.lba), (0, 2, [7; 6]));
        assert_eq!(Fault::from_registers(&reply), None);
    }
}
