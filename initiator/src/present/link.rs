//! `/dev/corbel/NAME`: the name of a device that lasts.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Where stable names are.
pub(crate) const FOLDER: &str = "/dev/corbel";

/// Makes `/dev/corbel/NAME` lead to `device` (`nbd0`); whatever it led to before, it never leads
/// nowhere in between. Gives its path.
pub(crate) fn publish(name: &str, device: &str) -> io::Result<PathBuf> {
    publish_in(Path::new(FOLDER), name, device)
}

fn publish_in(folder: &Path, name: &str, device: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let fresh = folder.join(format!(".{name}.{device}"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target(device), &fresh)?;
    let path = folder.join(name);
    fs::rename(&fresh, &path)?;
    Ok(path)
}

/// Removes `/dev/corbel/NAME` if it leads to `device`.
pub(crate) fn withdraw(name: &str, device: &str) -> io::Result<()> {
    withdraw_in(Path::new(FOLDER), name, device)
}

fn withdraw_in(folder: &Path, name: &str, device: &str) -> io::Result<()> {
    let path = folder.join(name);
    match fs::read_link(&path) {
        Ok(leads_to) if leads_to == Path::new(&target(device)) => fs::remove_file(path),
        _ => Ok(()),
    }
}

fn target(device: &str) -> String {
    format!("../{device}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_the_newest_device_and_goes_with_it_only() {
        let folder = tempfile::tempdir().unwrap();
        publish_in(folder.path(), "disk", "nbd0").unwrap();
        let path = publish_in(folder.path(), "disk", "nbd1").unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("../nbd1"));
        withdraw_in(folder.path(), "disk", "nbd0").unwrap();
        assert!(path.is_symlink());
        withdraw_in(folder.path(), "disk", "nbd1").unwrap();
        assert!(!path.is_symlink());
    }
}
