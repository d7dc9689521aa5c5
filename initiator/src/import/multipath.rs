//! multipath.conf's sections to initiator.toml.
//!
//! `defaults` and `overrides` become `[defaults]`; so does the one `device` section of a file,
//! since nothing here is chosen by vendor and product. Several of them are carried over as
//! comments, to be put where they belong. Each `multipath` becomes a `[[device]]`; which paths it
//! has, that file does not know.

use super::Imported;
use super::keywords::{Fate, fate};
use super::syntax::{Item, Section, parse};
use crate::config::{device_name, wwid};

/// multipathd's own, in seconds (multipath.conf.5).
const POLLING_INTERVAL: u64 = 5;

/// What the meaning of a keyword depends on.
#[derive(Debug)]
pub(super) struct Context {
    /// Seconds between two checks of a path.
    pub(super) polling_interval: u64,
}

/// One of our keys, and its value as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) key: &'static str,
    pub(super) value: String,
}

impl Key {
    pub(super) fn new(key: &'static str, value: &str) -> Self {
        Self { key, value: value.to_owned() }
    }
}

/// Where a key's value comes from.
#[derive(Debug)]
struct Given {
    key: Key,
    line: usize,
    keyword: String,
    said: String,
}

/// What becomes one of our tables.
#[derive(Debug, Default)]
struct Table {
    keys: Vec<Given>,
    notes: Vec<(usize, String)>,
}

/// The file `name`, which says `text`.
pub fn multipath(text: &str, name: &str) -> Imported {
    let (items, errors) = parse(text);
    let context = Context { polling_interval: polling_interval(&items) };
    let mut import = Import { context, warnings: Vec::new(), elsewhere: Vec::new() };
    for (line, error) in errors {
        import.warn(line, error);
    }
    let (mut defaults, mut devices) = (Table::default(), Vec::new());
    let named = |wanted: &'static [&'static str]| {
        items.iter().filter_map(move |item| match item {
            Item::Section(section) if wanted.contains(&section.keyword.as_str()) => Some(section),
            _ => None,
        })
    };
    named(&["defaults"]).for_each(|section| import.fill(&mut defaults, &section.items));
    let vendors: Vec<&Section> = named(&["devices"]).flat_map(|s| inner(s, "device")).collect();
    if let [only] = vendors[..] {
        let note = format!("{} is taken for every device", vendor(only));
        defaults.notes.push((only.line, note));
        import.fill(&mut defaults, &only.items);
    }
    named(&["overrides"]).for_each(|section| import.fill(&mut defaults, &section.items));
    for section in named(&["multipaths"]).flat_map(|s| inner(s, "multipath")) {
        devices.push(import.device(section, devices.len()));
    }
    import.rest(&items);
    let mut out = format!(
        "# Made by corbel-initiator import from {}; judge it with check.\n",
        one_line(name)
    );
    import.elsewhere.sort_by_key(|(line, _)| *line);
    for (line, note) in &import.elsewhere {
        comment(&mut out, *line, note);
    }
    out.push_str("\n[defaults]\n");
    defaults.write(&mut out);
    if vendors.len() > 1 {
        for section in &vendors {
            out.push_str(&import.set_aside(section));
        }
    }
    devices.iter().for_each(|device| out.push_str(device));
    import.warnings.sort_by_key(|(line, _)| *line);
    let warning = |(line, what): &(usize, String)| format!("{name}:{line}: {what}");
    Imported { toml: out, warnings: import.warnings.iter().map(warning).collect() }
}

struct Import {
    context: Context,
    warnings: Vec<(usize, String)>,
    /// Notes about lines that belong to none of our tables.
    elsewhere: Vec<(usize, String)>,
}

impl Import {
    /// Something that is not understood: it stands in the text, and is told.
    fn warn(&mut self, line: usize, what: String) {
        self.elsewhere.push((line, what.clone()));
        self.warnings.push((line, what));
    }

    fn fill(&mut self, table: &mut Table, items: &[Item]) {
        for item in items {
            match item {
                Item::Pair { line, keyword, value } => self.pair(table, *line, keyword, value),
                Item::Section(section) if section.keyword == "protocol" => {
                    self.all(section, "it is about transports of the kernel");
                }
                Item::Section(section) => {
                    let what =
                        format!("section `{}` is not known here", one_line(&section.keyword));
                    self.warn(section.line, what);
                    self.all(section, "it stands in a section that is not known");
                }
            }
        }
    }

    fn pair(&mut self, table: &mut Table, line: usize, keyword: &str, value: &str) {
        let said = one_line(&format!("{keyword} {value}"));
        match fate(keyword, value, &self.context) {
            Some(Fate::Key(key, remark)) => {
                let remark = remark.map(|remark| format!(" ({remark})")).unwrap_or_default();
                let said = format!("{said}{remark}");
                table.give(Given { key, line, keyword: keyword.to_owned(), said });
            }
            Some(Fate::Always(why)) => table.note(line, format!("`{said}`: needs no key: {why}")),
            Some(Fate::NotApplicable(why)) => {
                table.note(line, format!("`{said}`: not applicable: {why}"));
            }
            Some(Fate::BadValue) => {
                let what = format!("`{said}`: not understood: multipath-tools know no such value");
                self.warn(line, what);
            }
            None => self.warn(line, format!("`{said}`: unknown keyword")),
        }
    }

    /// A `multipath` section as a `[[device]]`.
    fn device(&mut self, section: &Section, index: usize) -> String {
        let value = |wanted: &str| {
            section.items.iter().rev().find_map(|item| match item {
                Item::Pair { keyword, value, line } if keyword == wanted => Some((*line, value)),
                _ => None,
            })
        };
        let (alias, id) = (value("alias"), value("wwid"));
        let mut table = Table::default();
        let named = |keyword: &String| keyword == "alias" || keyword == "wwid";
        let own = |item: &&Item| match item {
            Item::Pair { keyword, .. } => !named(keyword),
            Item::Section(_) => true,
        };
        let others: Vec<Item> = section.items.iter().filter(own).cloned().collect();
        self.fill(&mut table, &others);
        let mut out = format!("\n# line {}: multipath\n[[device]]\n", section.line);
        let given = alias.or(id).map_or_else(String::new, |(_, text)| text.clone());
        let name = device_name(&given).unwrap_or_else(|_| {
            let tidy: String = given.chars().filter(char::is_ascii_alphanumeric).take(48).collect();
            let name = format!("mpath{}-{tidy}", index + 1);
            let name = name.trim_end_matches('-').to_owned();
            let line = alias.or(id).map_or(section.line, |(line, _)| line);
            table.note(line, format!("`{}` cannot be a name here", one_line(&given)));
            name
        });
        out.push_str(&format!("name = {}\n", quoted(&name)));
        match id {
            Some((line, text)) => match wwid(text) {
                Ok(plain) => {
                    out.push_str(&format!("wwid = {}  # line {line}\n", quoted(&plain)));
                }
                Err(_) => {
                    let text = one_line(text);
                    let why = "no NAA or EUI-64 name; the first path decides which device it is";
                    table.note(line, format!("`wwid {text}`: not applicable: {why}"));
                }
            },
            None => table.note(section.line, "no wwid: multipathd ignores the section".to_owned()),
        }
        out.push_str(
            "# multipath.conf names no paths: `corbel-initiator discover` does. Put them here:\n\
             # paths = [\"iscsi:IQN/LUN@ADDR:PORT\", \"aoe:SHELF.SLOT@IFACE\"]\n",
        );
        table.write(&mut out);
        out
    }

    /// One of several `device` sections: nothing says which of our devices it is about.
    fn set_aside(&mut self, section: &Section) -> String {
        let mut table = Table::default();
        self.fill(&mut table, &section.items);
        let mut text = String::new();
        table.write(&mut text);
        let mut out = format!(
            "\n# line {}: {}: put what follows into each [[device]] that it is about.\n",
            section.line,
            vendor(section)
        );
        for line in text.lines() {
            out.push_str(if line.starts_with('#') { "" } else { "# " });
            out.push_str(line);
            out.push('\n');
        }
        out
    }

    /// Whatever stands in no section that becomes one of our tables.
    fn rest(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Pair { line, keyword, value } => {
                    let said = one_line(&format!("{keyword} {value}"));
                    self.warn(*line, format!("`{said}`: it stands in no section"));
                }
                Item::Section(section) => match section.keyword.as_str() {
                    "defaults" | "overrides" => {}
                    "blacklist" | "blacklist_exceptions" | "devnode_blacklist" => {
                        self.all(section, "no device is taken that no [[device]] names");
                    }
                    "devices" => self.others(section, "device"),
                    "multipaths" => self.others(section, "multipath"),
                    _ => {
                        let keyword = one_line(&section.keyword);
                        self.warn(section.line, format!("section `{keyword}` is not known here"));
                        self.all(section, "it stands in a section that is not known");
                    }
                },
            }
        }
    }

    /// What stands in `section` beside the sections that it is for.
    fn others(&mut self, section: &Section, wanted: &str) {
        for item in &section.items {
            match item {
                Item::Section(inner) if inner.keyword == wanted => {}
                Item::Section(inner) => {
                    let keyword = one_line(&inner.keyword);
                    self.warn(inner.line, format!("section `{keyword}` is not known here"));
                    self.all(inner, "it stands in a section that is not known");
                }
                Item::Pair { line, keyword, value } => {
                    let said = one_line(&format!("{keyword} {value}"));
                    self.warn(*line, format!("`{said}`: it stands outside of a {wanted} section"));
                }
            }
        }
    }

    /// Every line of a section, for one reason.
    fn all(&mut self, section: &Section, why: &str) {
        for item in &section.items {
            match item {
                Item::Pair { line, keyword, value } => {
                    let said = one_line(&format!("{} {keyword} {value}", section.keyword));
                    self.elsewhere.push((*line, format!("`{said}`: not applicable: {why}")));
                }
                // As deep as the parser lets sections be.
                Item::Section(inner) => self.all(inner, why),
            }
        }
    }
}

impl Table {
    fn note(&mut self, line: usize, text: String) {
        self.notes.push((line, text));
    }

    /// Later ones win, but an old way of saying it never wins over the new one.
    fn give(&mut self, given: Given) {
        let weak = |keyword: &str| matches!(keyword, "features" | "default_features" | "rr_min_io");
        let Some(at) = self.keys.iter().position(|known| known.key.key == given.key.key) else {
            return self.keys.push(given);
        };
        let known = &self.keys[at];
        let loses = weak(&given.keyword) && !weak(&known.keyword);
        let (winner, loser) = if loses { (known.line, &given) } else { (given.line, known) };
        let note = (loser.line, format!("`{}`: line {winner} is used instead", loser.said));
        self.notes.push(note);
        if !loses {
            self.keys[at] = given;
        }
    }

    fn write(&mut self, out: &mut String) {
        self.notes.sort_by_key(|(line, _)| *line);
        for (line, note) in &self.notes {
            comment(out, *line, note);
        }
        for Given { key, line, said, .. } in &self.keys {
            out.push_str(&format!("{} = {}  # line {line}: {said}\n", key.key, key.value));
        }
    }
}

fn inner<'s>(section: &'s Section, wanted: &'static str) -> impl Iterator<Item = &'s Section> {
    section.items.iter().filter_map(move |item| match item {
        Item::Section(inner) if inner.keyword == wanted => Some(inner),
        _ => None,
    })
}

/// `device "HP" "HSV200"`
fn vendor(section: &Section) -> String {
    let mut text = String::from("device");
    for item in &section.items {
        if let Item::Pair { keyword, value, .. } = item
            && matches!(keyword.as_str(), "vendor" | "product")
        {
            text.push_str(&format!(" \"{}\"", one_line(value)));
        }
    }
    text
}

/// The last one in `defaults` counts.
fn polling_interval(items: &[Item]) -> u64 {
    let mut found = POLLING_INTERVAL;
    for item in items {
        let Item::Section(section) = item else { continue };
        if section.keyword != "defaults" {
            continue;
        }
        for item in &section.items {
            if let Item::Pair { keyword, value, .. } = item
                && keyword == "polling_interval"
                && let Ok(seconds) = value.parse::<u32>()
                && seconds > 0
            {
                found = seconds.into();
            }
        }
    }
    found
}

fn comment(out: &mut String, line: usize, text: &str) {
    out.push_str(&format!("# line {line}: {text}\n"));
}

/// A text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Nothing that would end a comment.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}
