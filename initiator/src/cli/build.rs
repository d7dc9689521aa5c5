//! `attach`: a command line to the same [`Settings`] that a file would give.

use std::path::PathBuf;

use clap::Args;
use corbel_proto::iscsi::name::Name;

use crate::config::{
    Credentials, Daemon, DeviceSettings, Digests, Origin, PathSettings, PathSpec, Present,
    SANLOCK_IO_TIMEOUT, Secret, Settings, Wrong, device_name, present, wwid,
};

/// `attach`
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// A path to the device; repeat it
    #[arg(
        long = "path",
        required = true,
        value_name = "aoe:SHELF.SLOT@IFACE[,…]|iscsi:IQN[/LUN]@ADDR:PORT",
        value_parser = PathSpec::parse_all
    )]
    pub paths: Vec<std::vec::Vec<PathSpec>>,
    /// Its name, also in /dev/corbel; otherwise made from the first path
    #[arg(long, value_parser = device_name)]
    pub name: Option<String>,
    /// How it is offered here
    #[arg(
        long = "as",
        value_name = "ublk|nbd|nbd:unix:SOCKET|nbd:ADDR:PORT",
        default_value = "ublk",
        value_parser = present
    )]
    pub present: Present,
    /// N of /dev/ublkbN or /dev/nbdN
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=65535))]
    pub number: Option<u32>,
    /// The world-wide name that it must have
    #[arg(long, value_parser = wwid)]
    pub wwid: Option<String>,
    /// While no path works, requests wait for ever, fail soon, or wait so long
    #[arg(long, value_name = "queue|fail|SECONDS")]
    pub no_path_retry: Option<String>,
    /// With `--no-path-retry fail`: how long the last path may take to come back
    #[arg(long, value_name = "TIME")]
    pub fast_io_fail: Option<String>,
    /// Which path of a group is next
    #[arg(long, value_name = "service-time|round-robin|queue-length")]
    pub selector: Option<String>,
    /// Which paths stand in one group
    #[arg(long, value_name = "failover|multibus|group_by_prio|group_by_serial")]
    pub grouping: Option<String>,
    /// When a better group that is back is used again
    #[arg(long, value_name = "immediate|manual|SECONDS")]
    pub failback: Option<String>,
    /// Writes older than this are failed and never sent
    #[arg(long, value_name = "none|TIME")]
    pub write_age_max: Option<String>,
    /// It is shared under sanlock leases: queue and send no longer than 80 s
    #[arg(long)]
    pub shared: bool,
    /// Any other key of a device's policy or timers, as in initiator.toml; repeat it
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Our CHAP name
    #[arg(long, value_name = "NAME", requires = "chap_secret_file")]
    pub chap_user: Option<String>,
    /// File that holds our CHAP secret
    #[arg(long, value_name = "FILE", requires = "chap_user")]
    pub chap_secret_file: Option<PathBuf>,
    /// What targets must prove to be, by mutual CHAP
    #[arg(long, value_name = "NAME", requires_all = ["mutual_chap_secret_file", "chap_user"])]
    pub mutual_chap_user: Option<String>,
    /// File that holds the targets' secret
    #[arg(long, value_name = "FILE", requires = "mutual_chap_user")]
    pub mutual_chap_secret_file: Option<PathBuf>,
    /// Insist on header and data digests
    #[arg(long)]
    pub digests: bool,
    /// Our iSCSI name; otherwise /etc/corbel/initiatorname, or made from the machine's id
    #[arg(long, value_name = "IQN")]
    pub initiator: Option<Name>,
    /// Run this program for each event
    #[arg(long, value_name = "PROGRAM")]
    pub event_hook: Option<PathBuf>,
    /// Open a control socket here, for `status` and the others
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Keep small state here
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl AttachArgs {
    /// The configuration that this command line means.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn settings(self) -> Result<Settings, Wrong> {
        let paths: Vec<PathSpec> = self.paths.into_iter().flatten().collect();
        for (index, path) in paths.iter().enumerate() {
            if paths[..index].contains(path) {
                return Err(Wrong::new(format!("path {path} is given twice"), "give it once"));
            }
        }
        let name = self.name.unwrap_or_else(|| paths.first().map_or_else(String::new, name_of));
        let mut device = DeviceSettings::new(name);
        let path = |spec| PathSettings { spec, weight: None };
        device.paths = paths.into_iter().map(path).collect();
        device.wwid = self.wwid;
        device.present = numbered(self.present, self.number)?;
        if self.shared {
            device.share(SANLOCK_IO_TIMEOUT, Origin::Command);
        }
        for (key, value) in [
            ("no_path_retry", self.no_path_retry),
            ("fast_io_fail", self.fast_io_fail),
            ("selector", self.selector),
            ("grouping", self.grouping),
            ("failback", self.failback),
            ("write_age_max", self.write_age_max),
        ] {
            if let Some(value) = value {
                device.set(key, &value, Origin::Command)?;
            }
        }
        for setting in &self.settings {
            let right = "write it as ping_after=2s";
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| Wrong::new(format!("`{setting}` is no setting"), right))?;
            device.set(key, value, Origin::Command)?;
        }
        device.chap = credentials(self.chap_user, self.chap_secret_file)?;
        device.mutual_chap = credentials(self.mutual_chap_user, self.mutual_chap_secret_file)?;
        if let (Some(ours), Some(theirs)) = (&device.chap, &device.mutual_chap)
            && ours.secret == theirs.secret
        {
            let right = "give each direction its own (RFC 7143 9.2.1)";
            return Err(Wrong::new("both directions have the same CHAP secret", right));
        }
        device.digests = if self.digests { Digests::Require } else { Digests::None };
        let usual = Daemon::default();
        let daemon = Daemon {
            admin_socket: self.admin_socket,
            state_dir: self.state_dir.unwrap_or_else(|| usual.state_dir.clone()),
            initiator_name: self.initiator,
            event_hook: self.event_hook.map(absolute).transpose()?,
            ..usual
        };
        Ok(Settings { daemon, devices: vec![device] })
    }
}

/// A program's name without a folder would be looked for in PATH.
fn absolute(path: PathBuf) -> Result<PathBuf, Wrong> {
    std::path::absolute(&path).map_err(|error| {
        let what = format!("`{}` is no path: {error}", path.display());
        Wrong::new(what, "give the path of a program")
    })
}

fn numbered(present: Present, number: Option<u32>) -> Result<Present, Wrong> {
    match (present, number) {
        (Present::Ublk(_), number) => Ok(Present::Ublk(number)),
        (Present::Nbd(_), number) => Ok(Present::Nbd(number)),
        (server, None) => Ok(server),
        (_, Some(_)) => Err(Wrong::new("an NBD server has no number", "leave --number out")),
    }
}

fn credentials(user: Option<String>, file: Option<PathBuf>) -> Result<Option<Credentials>, Wrong> {
    let (Some(user), Some(file)) = (user, file) else { return Ok(None) };
    Ok(Some(Credentials { user, secret: Secret::read(&file)? }))
}

/// A device's name made from a path: `e0.1`, or what stands behind the target's naming authority.
fn name_of(path: &PathSpec) -> String {
    let text = match path {
        PathSpec::Aoe { shelf, slot, .. } => format!("e{shelf}.{slot}"),
        PathSpec::Iscsi { target, lun, .. } => {
            let own = target.as_str().rsplit(':').next().unwrap_or_default();
            if *lun == 0 { own.to_owned() } else { format!("{own}-{lun}") }
        }
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = text.chars().map(|c| if good(c) { c } else { '-' }).take(64).collect();
    device_name(&name).unwrap_or_else(|_| "disk".to_owned())
}
