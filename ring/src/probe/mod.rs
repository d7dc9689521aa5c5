//! What this kernel's io_uring can do: asked of the kernel itself, never read off a version.

mod sys;

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// What the ring uses where it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// IORING_SETUP_SINGLE_ISSUER.
    pub single_issuer: bool,
    /// IORING_SETUP_DEFER_TASKRUN.
    pub defer_taskrun: bool,
    /// IORING_SETUP_COOP_TASKRUN, used where the above is missing.
    pub coop_taskrun: bool,
    /// A sparse table of registered files.
    pub fixed_files: bool,
    /// A file leaves that table when its own operations have ended. Before Linux 6.13 it had to
    /// wait for all that began before it was taken out, a receive that waits for ever among them;
    /// sockets are then kept out of the table.
    pub prompt_release: bool,
    /// A sparse table of registered buffers.
    pub fixed_buffers: bool,
    /// Receive again and again with one submission.
    pub multishot_recv: bool,
    /// IORING_OP_SENDMSG_ZC.
    pub send_zero_copy: bool,
    /// IORING_OP_FALLOCATE.
    pub fallocate: bool,
}

/// Something the kernel does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Its name in the kernel's documentation.
    pub what: &'static str,
    /// What working without it costs.
    pub cost: &'static str,
}

/// The outcome of probing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What is there.
    pub features: Features,
    /// What is not.
    pub missing: Vec<Missing>,
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// io_uring is switched off or forbidden.
    #[error(
        "io_uring is not available here ({error}): {cause}. Corbel needs it; see \
         io_uring_setup(2)"
    )]
    Forbidden {
        /// What the kernel said.
        error: io::Error,
        /// The likely reason.
        cause: String,
    },
    /// io_uring is there but too old.
    #[error(
        "this kernel's io_uring lacks {missing}; Linux 5.19 or later has it (6.1 or later is \
         advised)"
    )]
    TooOld {
        /// What is needed and not there.
        missing: &'static str,
    },
    /// A limit of this process.
    #[error("no memory for the ring ({error}): {cause}")]
    Limit {
        /// What the kernel said.
        error: io::Error,
        /// The likely reason.
        cause: String,
    },
}

/// Opens a small ring, looks, and closes it.
pub fn probe() -> Result<Report, SetupError> {
    open(8).map(|(_, report)| report)
}

/// Opens a ring with room for `entries` submissions, with the best setup the kernel has.
pub(crate) fn open(entries: u32) -> Result<(IoUring, Report), SetupError> {
    let (uring, mut features) = build(entries)?;
    require(&uring)?;
    let mut known = Probe::new();
    uring
        .submitter()
        .register_probe(&mut known)
        .map_err(|_| SetupError::TooOld { missing: "IORING_REGISTER_PROBE" })?;
    let needed = [
        (opcode::Accept::CODE, "IORING_OP_ACCEPT"),
        (opcode::Recv::CODE, "IORING_OP_RECV"),
        (opcode::SendMsg::CODE, "IORING_OP_SENDMSG"),
        (opcode::ReadFixed::CODE, "IORING_OP_READ_FIXED"),
        (opcode::WriteFixed::CODE, "IORING_OP_WRITE_FIXED"),
        (opcode::Fsync::CODE, "IORING_OP_FSYNC"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    ];
    if let Some((_, missing)) = needed.iter().find(|(code, _)| !known.is_supported(*code)) {
        return Err(SetupError::TooOld { missing });
    }
    features.send_zero_copy = known.is_supported(opcode::SendMsgZc::CODE);
    features.fallocate = known.is_supported(opcode::Fallocate::CODE);
    features.multishot_recv = sys::multishot_recv_works()
        .map_err(|_| SetupError::TooOld { missing: "provided buffer rings" })?;
    features.prompt_release = sys::files_are_released_promptly().unwrap_or(false);
    Ok((uring, Report { features, missing: Vec::new() }))
}

fn build(entries: u32) -> Result<(IoUring, Features), SetupError> {
    // Each attempt leaves out what the one before could not have; older kernels answer EINVAL.
    for attempt in 0..4 {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(entries.saturating_mul(4));
        let mut features = Features::default();
        if attempt < 3 {
            builder.setup_submit_all();
        }
        if attempt < 2 {
            builder.setup_single_issuer();
            features.single_issuer = true;
        }
        if attempt == 0 {
            builder.setup_defer_taskrun().setup_taskrun_flag();
            features.defer_taskrun = true;
        } else if attempt < 3 {
            builder.setup_coop_taskrun().setup_taskrun_flag();
            features.coop_taskrun = true;
        }
        match builder.build(entries) {
            Ok(uring) => return Ok((uring, features)),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(explain(error)),
        }
    }
    Err(SetupError::TooOld { missing: "every setup we know" })
}

fn require(uring: &IoUring) -> Result<(), SetupError> {
    let params = uring.params();
    match () {
        () if !params.is_feature_nodrop() => {
            Err(SetupError::TooOld { missing: "IORING_FEAT_NODROP" })
        }
        () if !params.is_feature_ext_arg() => {
            Err(SetupError::TooOld { missing: "IORING_FEAT_EXT_ARG" })
        }
        () => Ok(()),
    }
}

fn explain(error: io::Error) -> SetupError {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => SetupError::Forbidden {
            error,
            cause: "the kernel was built without it, or a container's seccomp filter hides it"
                .to_owned(),
        },
        Some(libc::EPERM | libc::EACCES) => {
            let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            let cause = match sysctl.as_deref().map(str::trim) {
                Ok("2") => "sysctl kernel.io_uring_disabled is 2; set it to 0".to_owned(),
                Ok("1") => "sysctl kernel.io_uring_disabled is 1, and this process has neither \
                            CAP_SYS_ADMIN nor the group of kernel.io_uring_group"
                    .to_owned(),
                _ => "a seccomp filter of the container or unit, or a security module, forbids \
                      it (docker: --security-opt seccomp=…; systemd: SystemCallFilter=@io-event)"
                    .to_owned(),
            };
            SetupError::Forbidden { error, cause }
        }
        Some(libc::ENOMEM) => SetupError::Limit {
            error,
            cause: "RLIMIT_MEMLOCK is too low; raise it (systemd: LimitMEMLOCK=infinity)"
                .to_owned(),
        },
        Some(libc::EMFILE | libc::ENFILE) => SetupError::Limit {
            error,
            cause: "too many open files (systemd: LimitNOFILE=)".to_owned(),
        },
        _ => SetupError::Limit { error, cause: "see io_uring_setup(2)".to_owned() },
    }
}

impl Report {
    /// Lists what is not there, with its price.
    pub(crate) fn finish(&mut self) {
        let f = self.features;
        let all = [
            (
                f.single_issuer,
                "IORING_SETUP_SINGLE_ISSUER",
                "the kernel locks the ring on every submission",
            ),
            (
                f.defer_taskrun,
                "IORING_SETUP_DEFER_TASKRUN",
                "completions interrupt the thread instead of waiting for its next turn",
            ),
            (
                f.defer_taskrun || f.coop_taskrun,
                "IORING_SETUP_COOP_TASKRUN",
                "every completion sends the thread an inter-processor interrupt",
            ),
            (
                f.fixed_files,
                "registered files",
                "each operation looks its descriptor up and counts references",
            ),
            (
                f.prompt_release,
                "registered files that are released one by one (Linux 6.13)",
                "each operation on a socket looks its descriptor up and counts references",
            ),
            (
                f.fixed_buffers,
                "registered buffers",
                "each disk operation walks page tables and pins its pages",
            ),
            (
                f.multishot_recv,
                "multishot receive",
                "each piece received needs a submission of its own",
            ),
            (f.send_zero_copy, "IORING_OP_SENDMSG_ZC", "the kernel copies all payload sent"),
            (f.fallocate, "IORING_OP_FALLOCATE", "discards are refused"),
        ];
        let missing = all.into_iter().filter(|(there, ..)| !there);
        self.missing = missing.map(|(_, what, cost)| Missing { what, cost }).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_we_need() {
        let report = probe().expect("tests need io_uring");
        assert!(report.features.fallocate);
    }

    #[test]
    fn what_is_missing_is_named_with_its_price() {
        let mut report = Report::default();
        report.finish();
        assert!(report.missing.iter().any(|m| m.what == "IORING_OP_SENDMSG_ZC"));
        assert!(report.missing.iter().all(|m| !m.cost.is_empty()));
    }

    #[test]
    fn refusals_name_their_likely_cause() {
        let text = explain(io::Error::from_raw_os_error(libc::ENOMEM)).to_string();
        assert!(text.contains("RLIMIT_MEMLOCK"), "{text}");
        let text = explain(io::Error::from_raw_os_error(libc::EPERM)).to_string();
        assert!(text.contains("io_uring_disabled") || text.contains("seccomp"), "{text}");
    }
}
