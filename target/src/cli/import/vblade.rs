//! vblade's command lines, wherever they stand: inittab, init scripts, unit files, vblade.conf.

use clap::Parser;

use super::{Output, list, quoted};
use crate::cli::{Cli, Command, VbladeArgs};
use crate::config::AoeExport;

/// The slots that the lines of `text` serve.
pub(in crate::cli) fn vblade(text: &str) -> String {
    let mut output = Output::default();
    let mut slots: Vec<Slot> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim();
        if code.is_empty() || code.starts_with('#') {
            continue;
        }
        let Some(words) = words(code) else {
            output.note(number, code, "no vblade command");
            continue;
        };
        match slot(&words) {
            Ok(slot) => match slots.iter_mut().find(|known| known.joins(&slot)) {
                Some(known) => known.aoe.interfaces.extend(slot.aoe.interfaces),
                None => slots.push(slot),
            },
            Err(why) => output.note(number, code, &why),
        }
    }
    for slot in slots {
        let table = table(&slot.aoe);
        output.export(&slot.path, slot.keys).aoe.push(table);
    }
    output.write()
}

/// One vblade process.
struct Slot {
    path: String,
    keys: Vec<String>,
    aoe: AoeExport,
}

impl Slot {
    /// vblade takes one interface: two processes that differ in nothing else are one slot.
    fn joins(&self, other: &Self) -> bool {
        let aoe = AoeExport { interfaces: other.aoe.interfaces.clone(), ..self.aoe.clone() };
        let new = !self.aoe.interfaces.contains(&other.aoe.interfaces[0]);
        (&self.path, &self.keys, &aoe) == (&other.path, &other.keys, &other.aoe) && new
    }
}

/// The words after `vblade`, or a line of vblade.conf, up to where a shell would end the command.
fn words(code: &str) -> Option<Vec<String>> {
    let strip = |word: &str| word.trim_matches(|c| matches!(c, '"' | '\'')).to_owned();
    let mut words = code.split_whitespace().map(strip).peekable();
    if !words.peek()?.starts_with(|c: char| c.is_ascii_digit()) || code.contains("vblade") {
        words.find(|word| {
            let word = word.rsplit(['/', ':', '=']).next().unwrap_or_default();
            matches!(word.trim_start_matches(['"', '\'']), "vblade" | "vbladed")
        })?;
    }
    let ends =
        |word: &String| !word.starts_with(['>', '<', '|', '&', ';', '#', '2']) || number(word);
    let mut taken = Vec::new();
    for word in words.take_while(ends) {
        match word.strip_suffix(';') {
            Some(last) => {
                taken.push(last.to_owned());
                break;
            }
            None => taken.push(word),
        }
    }
    Some(taken)
}

fn number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

fn slot(words: &[String]) -> Result<Slot, String> {
    let line = ["corbel-target", "vblade"].into_iter().map(str::to_owned);
    let parsed = Cli::try_parse_from(line.chain(words.iter().cloned())).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or("not understood").trim_start_matches("error: ").to_owned()
    })?;
    let Command::Vblade(args) = parsed.command else { return Err("no vblade command".into()) };
    convert(args).map_err(|wrong| wrong.to_string())
}

fn convert(args: VbladeArgs) -> Result<Slot, crate::config::Wrong> {
    let path = args.file.display().to_string();
    let mut config = args.config()?;
    let mut export = config.exports.remove(0);
    let mut keys = Vec::new();
    if export.offset > 0 {
        keys.push(format!("offset = {}", quoted(&format!("{}s", export.offset / 512))));
    }
    if let Some(length) = export.length {
        keys.push(format!("length = {}", quoted(&format!("{}s", length / 512))));
    }
    if export.read_only {
        keys.push("read_only = true".to_owned());
    }
    if export.direct == crate::config::Direct::Require {
        keys.push("direct = \"require\"".to_owned());
    }
    Ok(Slot { path, keys, aoe: export.aoe.remove(0) })
}

fn table(aoe: &AoeExport) -> String {
    let (shelf, slot) = (aoe.address.shelf(), aoe.address.slot());
    let interfaces: Vec<_> = aoe.interfaces.iter().map(ToString::to_string).collect();
    let mut table =
        format!("{{ shelf = {shelf}, slot = {slot}, interfaces = {}", list(&interfaces));
    if !aoe.allow.is_empty() {
        let allow: Vec<_> = aoe.allow.iter().map(ToString::to_string).collect();
        table.push_str(&format!(", allow = {}", list(&allow)));
    }
    if aoe.buffers != crate::config::AOE_BUFFERS {
        table.push_str(&format!(", buffers = {}", aoe.buffers));
    }
    if let Some(config) = &aoe.config {
        table.push_str(&format!(", config = {}", quoted(config)));
    }
    table.push_str(" }");
    table
}
