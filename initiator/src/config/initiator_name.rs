//! Our iSCSI name. Targets grant access by it and keep state under it, so it is the same for the
//! life of the machine.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use corbel_proto::iscsi::name::Name;
use sha2::{Digest, Sha256};

use super::Daemon;

/// A name that the administrator or a package wrote.
const NAME_FILE: &str = "/etc/corbel/initiatorname";

/// What names this installation of an operating system (machine-id(5)).
const MACHINE_ID: &str = "/etc/machine-id";

/// The configured name; or the one in `/etc/corbel/initiatorname`; or the one kept in the state
/// folder, which is made from the machine's id at the first start, or drawn if it has none.
///
/// # Errors
/// If a file holds no name, or the name that was drawn cannot be kept.
pub fn initiator_name(daemon: &Daemon) -> io::Result<Name> {
    match &daemon.initiator_name {
        Some(name) => Ok(name.clone()),
        None => find(Path::new(NAME_FILE), Path::new(MACHINE_ID), &daemon.state_dir),
    }
}

fn find(given: &Path, machine_id: &Path, state_dir: &Path) -> io::Result<Name> {
    let kept = state_dir.join("initiatorname");
    for path in [given, &kept] {
        match fs::read_to_string(path) {
            Ok(text) => return parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(path, &error)),
        }
    }
    let id = fs::read_to_string(machine_id).unwrap_or_default();
    let (seed, lasting) = match id.trim() {
        "" | "uninitialized" => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
            (random.to_vec(), false)
        }
        id => (id.as_bytes().to_vec(), true),
    };
    let name = made_from(&seed);
    match keep(&kept, &name) {
        Err(error) if !lasting => Err(at(&kept, &error)),
        Err(error) => {
            // It comes out the same at the next start.
            tracing::debug!(%error, "the initiator's name is not kept");
            Ok(name)
        }
        Ok(()) => Ok(name),
    }
}

/// The machine's id itself is confidential (machine-id(5)); a keyed hash of it is not.
fn made_from(seed: &[u8]) -> Name {
    let digest =
        Sha256::new().chain_update(b"corbel initiator name\0").chain_update(seed).finalize();
    let mut text = String::from("iqn.2026-11.internal.corbel:");
    for byte in &digest[..8] {
        write!(text, "{byte:02x}").expect("a string takes any text");
    }
    text.parse().expect("it is shaped as RFC 7143 4.2.7.4 says")
}

/// Never half of it: the next start must not find a torn name.
fn keep(path: &Path, name: &Name) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    fs::write(&new, format!("InitiatorName={name}\n"))?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, path)
}

/// open-iscsi's form, `InitiatorName=NAME`, or the name alone; `#` begins a comment line.
fn parse(text: &str, path: &Path) -> io::Result<Name> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let name = line.map(|line| line.strip_prefix("InitiatorName=").unwrap_or(line).trim());
    let wrong = |why: String| at(path, &io::Error::new(io::ErrorKind::InvalidData, why));
    let Some(name) = name else { return Err(wrong("it holds no iSCSI name".to_owned())) };
    name.parse().map_err(|error| wrong(format!("`{name}`: {error}")))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        let state = folder.path().join("state");
        let first = find(&absent, &absent, &state).unwrap();
        assert!(first.as_str().starts_with("iqn.2026-11.internal.corbel:"));
        assert_eq!(find(&absent, &absent, &state).unwrap(), first);
    }

    #[test]
    fn the_machines_id_decides_and_does_not_show() {
        let folder = tempfile::tempdir().unwrap();
        let (absent, id) = (folder.path().join("absent"), folder.path().join("id"));
        fs::write(&id, "0123456789abcdef0123456789abcdef\n").unwrap();
        let one = find(&absent, &id, &folder.path().join("a")).unwrap();
        let other = find(&absent, &id, &folder.path().join("b")).unwrap();
        assert_eq!(one, other);
        assert!(!one.as_str().contains("0123456789abcdef"));
    }

    #[test]
    fn a_file_that_holds_no_name_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("initiatorname");
        fs::write(&given, "# mine\nInitiatorName=iqn.2026-11.org.example:dom0\n").unwrap();
        let found = find(&given, &given, folder.path()).unwrap();
        assert_eq!(found.as_str(), "iqn.2026-11.org.example:dom0");
        for bad in ["", "# nothing\n", "InitiatorName=dom0\n"] {
            fs::write(&given, bad).unwrap();
            let error = find(&given, &given, folder.path()).unwrap_err().to_string();
            assert!(error.contains("initiatorname"), "{error}");
        }
    }
}
