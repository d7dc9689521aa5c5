//! The driver's control commands, each of which may wait: never on a thread that does I/O.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Why;
use super::abi::{self, Features, INFO_BYTES, Info, PARAMS_BYTES, Shape};
use super::sys::ControlRing;

const CONTROL: &str = "/dev/ublk-control";
/// The number of a device that may have any.
const ANY: u32 = u32::MAX;
/// How long udev may take to make a device's node.
const NODE_WAIT: Duration = Duration::from_secs(5);

/// An open `/dev/ublk-control`.
pub(super) struct Control {
    file: File,
    ring: ControlRing,
}

impl Control {
    pub(super) fn open() -> Result<Self, Why> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Why::NoModule,
            io::ErrorKind::PermissionDenied => Why::NotPermitted,
            _ => Why::kernel("open /dev/ublk-control", &error),
        })?;
        let ring = ControlRing::new().map_err(|error| Why::IoUring(error.to_string()))?;
        Ok(Self { file, ring })
    }

    fn execute(&mut self, code: u32, id: u32, inline: u64, data: &mut [u8]) -> io::Result<i32> {
        self.ring.execute(self.file.as_fd(), code, id, inline, data)
    }

    /// As [`Self::execute`], with a name for the error.
    fn run(&mut self, name: &'static str, code: u32, id: u32, inline: u64) -> Result<(), Why> {
        match self.execute(code, id, inline, &mut []) {
            Ok(_) => Ok(()),
            Err(error) => Err(Why::kernel(name, &error)),
        }
    }

    /// What the driver can do; an error if that is not enough.
    pub(super) fn features(&mut self) -> Result<Features, Why> {
        let mut bits = [0; 8];
        if let Err(error) = self.execute(abi::GET_FEATURES, ANY, 0, &mut bits) {
            return Err(match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENODEV) => {
                    Why::TooOld("the question what it can do")
                }
                _ => Why::kernel("GET_FEATURES", &error),
            });
        }
        let features = Features(u64::from_ne_bytes(bits));
        features.missing().map_or(Ok(features), |missing| Err(Why::TooOld(missing)))
    }

    /// A device as the driver knows it; `None` if there is none of that number.
    pub(super) fn info(&mut self, id: u32) -> Result<Option<Info>, Why> {
        let mut bytes = [0; INFO_BYTES];
        match self.execute(abi::GET_DEV_INFO, id, 0, &mut bytes) {
            Ok(_) => Ok(Some(Info::parse(&bytes))),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(Why::kernel("GET_DEV_INFO", &error)),
        }
    }

    /// Makes a device; with the number `id` if it is given.
    pub(super) fn add(&mut self, id: Option<u32>, wanted: Info) -> Result<Info, Why> {
        let id = id.unwrap_or(ANY);
        let mut bytes = Info { id, ..wanted }.bytes();
        match self.execute(abi::ADD_DEV, id, 0, &mut bytes) {
            Ok(_) => Ok(Info::parse(&bytes)),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(Why::NotPermitted),
            Err(error) => Err(Why::kernel("ADD_DEV", &error)),
        }
    }

    pub(super) fn set_shape(&mut self, id: u32, shape: &Shape, io_bytes: u32) -> Result<(), Why> {
        let mut params = shape.params(io_bytes);
        let done = self.execute(abi::SET_PARAMS, id, 0, &mut params);
        done.map(drop).map_err(|error| Why::kernel("SET_PARAMS", &error))
    }

    /// Logical block and size, in bytes.
    pub(super) fn block_and_size(&mut self, id: u32) -> Result<(u32, u64), Why> {
        let mut params = [0; PARAMS_BYTES];
        let len = u32::try_from(PARAMS_BYTES).expect("small");
        params[..4].copy_from_slice(&len.to_ne_bytes());
        self.execute(abi::GET_PARAMS, id, 0, &mut params)
            .map_err(|error| Why::kernel("GET_PARAMS", &error))?;
        Ok(abi::block_and_size(&params))
    }

    /// Makes the block device. Returns after its partition table was read, through the queue.
    pub(super) fn start(&mut self, id: u32) -> Result<(), Why> {
        self.run("START_DEV", abi::START_DEV, id, std::process::id().into())
    }

    /// Takes over a device whose server has died. `Ok(false)`: it has not yet.
    pub(super) fn begin_recovery(&mut self, id: u32) -> Result<bool, Why> {
        match self.execute(abi::START_USER_RECOVERY, id, 0, &mut []) {
            Ok(_) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EBUSY) => Ok(false),
                // Begun before, by a server that died before it had fetched.
                Some(libc::EINVAL) => Ok(true),
                _ => Err(Why::kernel("START_USER_RECOVERY", &error)),
            },
        }
    }

    /// The block device goes on. Returns after every tag was fetched.
    pub(super) fn end_recovery(&mut self, id: u32) -> Result<(), Why> {
        self.run("END_USER_RECOVERY", abi::END_USER_RECOVERY, id, std::process::id().into())
    }

    /// Takes the block device away. Returns after every request that was told us has ended; those
    /// the kernel still has fail.
    pub(super) fn stop(&mut self, id: u32) -> Result<(), Why> {
        self.run("STOP_DEV", abi::STOP_DEV, id, 0)
    }

    /// As [`Self::stop`] if nobody has it open, else `Ok(false)`.
    pub(super) fn try_stop(&mut self, id: u32) -> Result<bool, Why> {
        match self.execute(abi::TRY_STOP_DEV, id, 0, &mut []) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(false),
            Err(error) => Err(Why::kernel("TRY_STOP_DEV", &error)),
        }
    }

    /// Forgets the device. Returns after everybody has closed `/dev/ublkcN`.
    pub(super) fn delete(&mut self, id: u32) -> Result<(), Why> {
        match self.execute(abi::DEL_DEV, id, 0, &mut []) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(error) => Err(Why::kernel("DEL_DEV", &error)),
        }
    }

    pub(super) fn resize(&mut self, id: u32, size_bytes: u64) -> Result<(), Why> {
        self.run("UPDATE_SIZE", abi::UPDATE_SIZE, id, size_bytes / abi::SECTOR_BYTES)
    }
}

/// `/dev/ublkcN`, as soon as it is there and nobody else has it open.
pub(super) fn open_node(id: u32) -> Result<OwnedFd, Why> {
    let deadline = Instant::now() + NODE_WAIT;
    loop {
        let opened = OpenOptions::new().read(true).write(true).open(format!("/dev/ublkc{id}"));
        match opened {
            Ok(file) => return Ok(file.into()),
            Err(error) => {
                let soon = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EBUSY));
                if !soon || Instant::now() > deadline {
                    return Err(Why::kernel("open /dev/ublkcN", &error));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
