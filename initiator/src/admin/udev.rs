//! What udev is told of a device: a small file for each, below `/run`, that our rules read by
//! `corbel-initiator udev-info`. Reading it never waits for the device, nor for the daemon.
//!
//! A device whose paths are all down is marked: probing it for a file system would wait. If udev
//! asked meanwhile, it is told to look again when a path is back.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::devices::{Presented, Report};

/// Where the files are.
pub const FOLDER: &str = "/run/corbel/udev";

/// Where names that last are.
pub const LINKS: &str = "/dev/corbel";

/// What is told of one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Info {
    /// The device's name.
    name: String,
    /// The kernel's name for it: `ublkb0`.
    node: String,
    wwid: Option<String>,
    model: Option<String>,
    /// It can be read without waiting.
    ready: bool,
}

/// Where files and links are: other places in tests.
#[derive(Debug, Clone)]
struct Places {
    folder: PathBuf,
    links: PathBuf,
    sysfs: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { folder: FOLDER.into(), links: LINKS.into(), sysfs: "/sys/class/block".into() }
    }
}

/// A device can be used: tells udev, and makes the name that lasts where no udev does. Failures
/// are logged: the device works without.
pub(super) fn announce(presented: &Presented, report: Option<&Report>) {
    Places::default().announce(presented, report);
}

/// A device is gone.
pub(super) fn withdraw(name: &str) {
    Places::default().withdraw(name);
}

/// The last path of a device is gone, or the first is back.
pub(super) fn set_ready(name: &str, ready: bool) {
    Places::default().set_ready(name, ready);
}

/// What rules import for `devnode` (`/dev/ublkb0`): `KEY=value` lines. `None` if it is not ours.
pub fn describe(devnode: &str) -> Option<String> {
    Places::default().describe(devnode)
}

impl Places {
    fn announce(&self, presented: &Presented, report: Option<&Report>) {
        let Some(node) = presented.at.strip_prefix("/dev/") else { return };
        let name = presented.link.as_deref().and_then(|link| link.rsplit('/').next());
        let Some(name) = name.or_else(|| report.map(|report| report.device.name.as_str())) else {
            return;
        };
        let info = Info {
            name: name.to_owned(),
            node: node.to_owned(),
            wwid: report.and_then(|report| report.device.wwid.clone()),
            model: report.and_then(|report| report.device.model.clone()),
            ready: true,
        };
        let told = self.write(&info).and_then(|()| self.link(&info));
        if let Err(error) = told {
            tracing::warn!(%error, "udev is not told of {name}; it has no {}/{name}", LINKS);
        }
        self.trigger(node);
    }

    fn withdraw(&self, name: &str) {
        let Some(info) = self.find(name) else { return };
        for path in [self.file(&info.node), self.mark(&info.node)] {
            // Not there: as it should be.
            let _ = fs::remove_file(path);
        }
        let link = self.links.join(name);
        if fs::read_link(&link).is_ok_and(|to| to.file_name() == Some(info.node.as_ref())) {
            let _ = fs::remove_file(link);
        }
    }

    fn set_ready(&self, name: &str, ready: bool) {
        let Some(info) = self.find(name) else { return };
        let node = info.node.clone();
        if let Err(error) = self.write(&Info { ready, ..info }) {
            let not = if ready { "" } else { "not " };
            tracing::warn!(%error, "udev is not told that {name} is {not}ready");
        }
        if ready && fs::remove_file(self.mark(&node)).is_ok() {
            self.trigger(&node);
        }
    }

    fn describe(&self, devnode: &str) -> Option<String> {
        let node = devnode.strip_prefix("/dev/").unwrap_or(devnode);
        // It becomes part of a path.
        let shaped = !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let info = shaped.then(|| self.read(&self.file(node))).flatten()?;
        if !info.ready {
            // Whoever asked is told again as soon as there is an answer.
            let _ = fs::write(self.mark(node), b"");
        }
        let mut lines = vec![
            "ID_CORBEL=1".to_owned(),
            format!("ID_CORBEL_NAME={}", clean(&info.name)),
            format!("ID_CORBEL_READY={}", u8::from(info.ready)),
            "ID_VENDOR=Corbel".to_owned(),
        ];
        lines.extend(info.model.map(|model| format!("ID_MODEL={}", clean(&model))));
        if let Some(wwid) = info.wwid.map(|wwid| clean(&wwid)) {
            lines.push(format!("ID_CORBEL_WWID={wwid}"));
            lines.push(format!("ID_WWN=0x{wwid}"));
            lines.push(format!("ID_SERIAL=corbel-{wwid}"));
            lines.push(format!("ID_SERIAL_SHORT={wwid}"));
        }
        lines.push(String::new());
        Some(lines.join("\n"))
    }

    fn file(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.json"))
    }

    /// There if udev asked while the device was not ready.
    fn mark(&self, node: &str) -> PathBuf {
        self.folder.join(format!("{node}.asked"))
    }

    fn read(&self, path: &Path) -> Option<Info> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Never half of it: udev reads at any time.
    fn write(&self, info: &Info) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.file(&info.node);
        let draft = path.with_extension("new");
        fs::write(&draft, serde_json::to_vec(info)?)?;
        fs::rename(&draft, &path)
    }

    fn find(&self, name: &str) -> Option<Info> {
        let files = fs::read_dir(&self.folder).ok()?;
        let paths = files.filter_map(|entry| Some(entry.ok()?.path()));
        let json = paths.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
        json.filter_map(|path| self.read(&path)).find(|info| info.name == name)
    }

    fn link(&self, info: &Info) -> io::Result<()> {
        fs::create_dir_all(&self.links)?;
        // Whatever our umask is: names in /dev are for everyone to see.
        fs::set_permissions(&self.links, fs::Permissions::from_mode(0o755))?;
        let link = self.links.join(&info.name);
        let draft = self.links.join(format!(".{}.new", info.name));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(Path::new("..").join(&info.node), &draft)?;
        fs::rename(&draft, link)
    }

    /// Makes udev run its rules for the device: `add` is what LVM's rules wait for.
    fn trigger(&self, node: &str) {
        if let Err(error) = fs::write(self.sysfs.join(node).join("uevent"), b"add") {
            tracing::debug!(%error, "udev does not look at {node}");
        }
    }
}

/// What came from a target, as udev takes it: no blanks, nothing that ends a line or a word.
fn clean(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c);
    text.chars().map(|c| if good(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        let sysfs = folder.join("sys");
        fs::create_dir_all(sysfs.join("ublkb3")).unwrap();
        Places { folder: folder.join("run"), links: folder.join("dev/corbel"), sysfs }
    }

    fn attached(places: &Places) {
        let presented = Presented {
            by: "ublk",
            at: "/dev/ublkb3".into(),
            link: Some("/dev/corbel/vmstore".into()),
        };
        places.announce(&presented, None);
    }

    #[test]
    fn a_device_has_a_name_that_lasts_until_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        attached(&places);
        let link = folder.path().join("dev/corbel/vmstore");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("../ublkb3"));
        assert_eq!(fs::read(folder.path().join("sys/ublkb3/uevent")).unwrap(), b"add");
        let told = places.describe("/dev/ublkb3").unwrap();
        assert!(told.starts_with("ID_CORBEL=1\nID_CORBEL_NAME=vmstore\nID_CORBEL_READY=1\n"));
        places.withdraw("vmstore");
        assert!(!link.is_symlink() && places.describe("/dev/ublkb3").is_none());
    }

    #[test]
    fn a_link_that_leads_elsewhere_by_now_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        attached(&places);
        let link = folder.path().join("dev/corbel/vmstore");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("../ublkb9", &link).unwrap();
        places.withdraw("vmstore");
        assert!(link.is_symlink());
    }

    #[test]
    fn who_asked_while_no_path_worked_is_told_when_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        attached(&places);
        let uevent = folder.path().join("sys/ublkb3/uevent");
        fs::remove_file(&uevent).unwrap();
        places.set_ready("vmstore", false);
        places.set_ready("vmstore", true);
        assert!(!uevent.exists(), "nobody asked");
        places.set_ready("vmstore", false);
        assert!(places.describe("ublkb3").unwrap().contains("ID_CORBEL_READY=0\n"));
        places.set_ready("vmstore", true);
        assert_eq!(fs::read(&uevent).unwrap(), b"add");
    }

    #[test]
    fn devices_of_others_and_names_that_are_none_are_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        attached(&places);
        for other in ["", "/dev/sda", "/dev/../ublkb3", "/dev/ublkb3.json", "/dev/ublkb30"] {
            assert_eq!(places.describe(other), None, "{other}");
        }
        assert_eq!(clean("a b\nID_X=\"1\""), "a_b_ID_X=_1_");
    }
}
