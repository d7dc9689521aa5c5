//! Other targets' configurations to `target.toml`. Every line is either converted or named, with
//! the reason, in a comment at the top. What restricts access is never dropped: what cannot be
//! read is carried over as it stands, so that `check` stops at it.

#[cfg(test)]
mod tests;
mod tgt;
mod vblade;

use std::fmt::Write;

pub(super) use tgt::tgt;
pub(super) use vblade::vblade;

/// A text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

/// What is gathered from a file.
#[derive(Debug, Default)]
struct Output {
    notes: Vec<String>,
    exports: Vec<Export>,
    /// Whole `[[target]]` tables.
    targets: String,
}

/// An `[[export]]` table.
#[derive(Debug, Default, PartialEq)]
struct Export {
    path: String,
    /// `key = value`, those that are not at their defaults.
    keys: Vec<String>,
    /// Inline tables.
    aoe: Vec<String>,
    iscsi: Vec<String>,
}

impl Output {
    /// A line of the source that is not converted.
    fn note(&mut self, line: usize, text: &str, why: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.notes.push(format!("line {line}: `{}`: {why}", text.trim()));
    }

    /// The export of a store, made if there is none with these keys.
    fn export(&mut self, path: &str, keys: Vec<String>) -> &mut Export {
        let known = self.exports.iter().position(|e| e.path == path && e.keys == keys);
        let index = known.unwrap_or_else(|| {
            self.exports.push(Export { path: path.to_owned(), keys, ..Export::default() });
            self.exports.len() - 1
        });
        &mut self.exports[index]
    }

    fn write(&self) -> String {
        let mut out = String::from("# Made by corbel-target import; judge it with check.\n");
        for note in &self.notes {
            line(&mut out, &format!("# {note}"));
        }
        let mut names = Vec::new();
        for export in &self.exports {
            let name = unique(&mut names, &export.path);
            line(&mut out, "\n[[export]]");
            line(&mut out, &format!("name = {}", quoted(&name)));
            line(&mut out, &format!("path = {}", quoted(&export.path)));
            export.keys.iter().for_each(|key| line(&mut out, key));
            for (key, tables) in [("aoe", &export.aoe), ("iscsi", &export.iscsi)] {
                if !tables.is_empty() {
                    line(&mut out, &format!("{key} = [{}]", tables.join(", ")));
                }
            }
        }
        out.push_str(&self.targets);
        out
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a string takes any text");
}

/// An export's name made of its path, unlike all before.
fn unique(names: &mut Vec<String>, path: &str) -> String {
    let last = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let stem = super::build::tidy(last);
    let mut name = stem.clone();
    let mut number = 2;
    while names.contains(&name) {
        let stem: String = stem.chars().take(56).collect();
        name = format!("{stem}-{number}");
        number += 1;
    }
    names.push(name.clone());
    name
}
