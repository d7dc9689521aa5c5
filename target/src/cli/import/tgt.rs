//! tgt's targets.conf, as tgt-admin reads it.

use super::{Output, line, list, quoted};

/// The targets of `text`.
pub(in crate::cli) fn tgt(text: &str) -> String {
    let mut output = Output::default();
    output
        .notes
        .push("tgt listened on every address: name your storage network's in `portals`".into());
    output.notes.push("initiators see the disks under other WWIDs than tgt's".into());
    let mut target: Option<Target> = None;
    let mut store: Option<Store> = None;
    for (number, raw) in (1..).zip(text.lines()) {
        let code = raw.split('#').next().unwrap_or_default().trim();
        if code.is_empty() {
            continue;
        }
        let (key, value) = code.split_once(char::is_whitespace).unwrap_or((code, ""));
        let value = value.trim().trim_end_matches('>').trim().trim_matches('"');
        let shown = if key.to_ascii_lowercase().contains("user") { key } else { code };
        match (key.to_ascii_lowercase().as_str(), &mut target, &mut store) {
            ("<target", None, None) => target = Some(Target::new(value)),
            ("</target>", Some(_), None) => {
                target.take().into_iter().for_each(|target| target.write(&mut output));
            }
            ("<backing-store" | "<direct-store", Some(_), None) => store = Some(Store::new(value)),
            ("</backing-store>" | "</direct-store>", Some(target), Some(_)) => {
                target.stores.extend(store.take());
            }
            (key, Some(_), Some(store)) => {
                if let Err(why) = store.key(key, value) {
                    output.note(number, shown, why);
                }
            }
            (key, Some(target), None) => {
                if let Err(why) = target.key(key, value) {
                    output.note(number, shown, why);
                }
            }
            ("include", None, _) => output.note(number, code, "not followed: import it as well"),
            // Whatever stands there may have a password in it.
            (key, None, _) => output.note(number, key, "not applicable: about tgtd as a whole"),
        }
    }
    if let Some(mut target) = target {
        output.notes.push(format!("target {} has no end; see the last lines", target.name));
        target.stores.extend(store);
        target.write(&mut output);
    }
    output.write()
}

#[derive(Default)]
struct Target {
    name: String,
    stores: Vec<Store>,
    /// All stores refuse writes.
    read_only: bool,
    /// Networks and names, as they stand.
    addresses: Vec<String>,
    initiators: Vec<String>,
    users: Vec<String>,
    own: Option<String>,
}

impl Target {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn key(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let user = || value.split_whitespace().next().unwrap_or_default().to_owned();
        match key {
            "backing-store" | "direct-store" => self.stores.push(Store::new(value)),
            "initiator-address" if value.eq_ignore_ascii_case("all") => {}
            "initiator-address" => self.addresses.push(value.to_owned()),
            "initiator-name" if value.eq_ignore_ascii_case("all") => {}
            "initiator-name" => self.initiators.push(value.to_owned()),
            "incominguser" => self.users.push(user()),
            "outgoinguser" => self.own = Some(user()),
            "driver" if value.eq_ignore_ascii_case("iscsi") => {}
            "driver" => return Err("not applicable: only iSCSI over TCP is served"),
            "readonly" => self.read_only = !is_off(value),
            "scsi_sn" | "removable" => {
                return Err("applies to no single store here: give it to the exports");
            }
            "allow-in-use" => return Err("not applicable: a device in use can be exported"),
            _ => return Err("not applicable"),
        }
        Ok(())
    }

    fn write(mut self, output: &mut Output) {
        // LUN 0 is tgt's controller; the others are counted in the order of the file.
        let given: Vec<_> = self.stores.iter().filter_map(|store| store.lun.clone()).collect();
        let mut free = (1_u32..).map(|n| n.to_string()).filter(|n| !given.contains(n));
        for mut store in std::mem::take(&mut self.stores) {
            if self.read_only && !store.keys.iter().any(|key| key == READ_ONLY) {
                store.keys.push(READ_ONLY.to_owned());
            }
            let lun = store.lun.or_else(|| free.next()).unwrap_or_default();
            let unit = format!("{{ target = {}, lun = {lun} }}", quoted(&self.name));
            output.export(&store.path, store.keys).iscsi.push(unit);
        }
        let out = &mut output.targets;
        line(out, "\n[[target]]");
        line(out, &format!("name = {}", quoted(&self.name)));
        line(out, "portals = [\"0.0.0.0:3260\"]");
        let mut allow = Vec::new();
        if !self.initiators.is_empty() {
            allow.push(format!("initiators = {}", list(&self.initiators)));
        }
        if !self.addresses.is_empty() {
            allow.push(format!("addresses = {}", list(&self.addresses)));
        }
        if !allow.is_empty() {
            line(out, &format!("allow = {{ {} }}", allow.join(", ")));
        }
        let user = |name: &str, kind: &str| {
            let file: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let file = quoted(&format!("/etc/corbel/{file}.{kind}"));
            format!("{{ user = {}, secret_file = {file} }}", quoted(name))
        };
        if !self.users.is_empty() {
            let users: Vec<_> = self.users.iter().map(|name| user(name, "secret")).collect();
            line(out, "# Put the password into the file, chmod 0600. It is not copied from here.");
            line(out, &format!("chap = [{}]", users.join(", ")));
        }
        if let Some(name) = &self.own {
            line(out, &format!("mutual_chap = {}", user(name, "mutual")));
        }
    }
}

const READ_ONLY: &str = "read_only = true";

fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "0" | "no" | "off" | "false")
}

struct Store {
    path: String,
    lun: Option<String>,
    keys: Vec<String>,
}

impl Store {
    fn new(path: &str) -> Self {
        Self { path: path.to_owned(), lun: None, keys: Vec::new() }
    }

    fn key(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let off = is_off(value);
        match key {
            "lun" if value.parse::<u16>().is_ok() => self.lun = Some(value.to_owned()),
            "readonly" | "removable" if off => {}
            "readonly" => self.keys.push(READ_ONLY.to_owned()),
            "removable" => self.keys.push("removable = true".to_owned()),
            "thin-provisioning" | "thin_provisioning" if !off => {
                self.keys.push("thin = true".to_owned());
            }
            "scsi_sn" => self.keys.push(format!("serial = {}", quoted(value))),
            "write-cache" => return Err("not applicable: the store's own cache is reported"),
            "block-size" => return Err("not applicable: the store's own block size is reported"),
            "allow-in-use" => return Err("not applicable: a device in use can be exported"),
            _ => return Err("not applicable"),
        }
        Ok(())
    }
}
