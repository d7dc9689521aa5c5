//! Walks a parsed TOML document and keeps the place of every value.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::{Findings, Span, Wrong, nearest};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// One table of the document.
#[derive(Debug, Clone)]
pub(super) struct Table<'t> {
    section: &'static str,
    map: &'t DeTable<'t>,
    pub(super) span: Span,
}

/// Reads values and gathers findings.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) findings: Findings<'a>,
    base: &'a Path,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl<'a> Reader<'a> {
    pub(super) fn new(findings: Findings<'a>, base: &'a Path) -> Self {
        Self { findings, base }
    }

    /// Takes `map` as a table of `section`; keys that the section does not have are errors.
    pub(super) fn table<'t>(
        &mut self,
        section: &'static str,
        map: &'t DeTable<'t>,
        span: Span,
    ) -> Table<'t> {
        for key in map.keys() {
            let given = key.get_ref();
            if keys::names(section).any(|known| known == given) {
                continue;
            }
            let place = if section.is_empty() { "the file" } else { section };
            let right = match nearest(given, keys::names(section)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    let all: Vec<&str> = keys::names(section).collect();
                    format!("{place} has {}", all.join(", "))
                }
            };
            let what = format!("there is no key `{given}` in {place}");
            self.findings.error(&key.span(), Wrong::new(what, right));
        }
        Table { section, map, span }
    }

    fn get<'t>(&self, table: &Table<'t>, key: &str) -> Option<&'t Value<'t>> {
        debug_assert!(keys::names(table.section).any(|k| k == key), "{key} is not in KEYS");
        table.map.get(key)
    }

    /// True if the table has `key`, whatever its value.
    pub(super) fn has(&self, table: &Table<'_>, key: &str) -> bool {
        self.get(table, key).is_some()
    }

    /// Says that `key` is missing.
    pub(super) fn missing(&mut self, table: &Table<'_>, key: &str) {
        let what = format!("`{key}` is missing in {}", table.section);
        self.findings.error(&table.span, Wrong::new(what, format!("add `{key} = …`")));
    }

    fn mistyped(&mut self, value: &Value<'_>, key: &str, right: &str) {
        let what = format!("`{key}` is of type {}", value.get_ref().type_str());
        self.findings.error(&value.span(), Wrong::new(what, right));
    }

    pub(super) fn text<'t>(&mut self, table: &Table<'t>, key: &str) -> Option<At<&'t str>> {
        let value = self.get(table, key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(At { value: text, span: value.span() }),
            None => {
                self.mistyped(value, key, "give a text in quotes");
                None
            }
        }
    }

    /// A text that `parse` makes something of.
    pub(super) fn with<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let text = self.text(table, key)?;
        match parse(text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err(wrong) => {
                self.findings.error(&text.span, wrong);
                None
            }
        }
    }

    /// As [`Self::with`], for a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        if self.get(table, key).is_none() {
            self.missing(table, key);
        }
        self.with(table, key, parse)
    }

    /// An integer inside `range`.
    pub(super) fn integer(
        &mut self,
        table: &Table<'_>,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<At<i64>> {
        let value = self.get(table, key)?;
        let Some(number) = value.get_ref().as_integer() else {
            self.mistyped(value, key, "give a whole number without quotes");
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let Some(number) = parsed.filter(|number| range.contains(number)) else {
            let what = format!("`{key} = {number}` is out of range");
            let right = format!("give {} to {}", range.start(), range.end());
            self.findings.error(&value.span(), Wrong::new(what, right));
            return None;
        };
        Some(At { value: number, span: value.span() })
    }

    /// As [`Self::integer`], in a narrower type.
    pub(super) fn number<T: TryFrom<i64>>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<T> {
        T::try_from(self.integer(table, key, range)?.value).ok()
    }

    pub(super) fn boolean(&mut self, table: &Table<'_>, key: &str) -> Option<bool> {
        let value = self.get(table, key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.mistyped(value, key, "give `true` or `false` without quotes");
        }
        found
    }

    /// A text or a whole number, as text: what a time or a count may be written as.
    pub(super) fn scalar(&mut self, table: &Table<'_>, key: &str) -> Option<At<String>> {
        let value = self.get(table, key)?;
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref().to_owned(),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => number.to_string(),
                    Err(_) => number.as_str().to_owned(),
                }
            }
            _ => {
                self.mistyped(value, key, "give a text in quotes, or a whole number");
                return None;
            }
        };
        Some(At { value: text, span: value.span() })
    }

    /// A path; a relative one counts from the file's folder.
    pub(super) fn path(&mut self, table: &Table<'_>, key: &str) -> Option<At<PathBuf>> {
        let text = self.text(table, key)?;
        if text.value.is_empty() || text.value.contains('\0') {
            let wrong = Wrong::new(format!("`{key}` is no path"), "give the path of a file");
            self.findings.error(&text.span, wrong);
            return None;
        }
        Some(At { value: self.base.join(text.value), span: text.span })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        self.with(table, key, |text| pick(text, choices)).map(|at| at.value)
    }

    /// The values of a list.
    fn items<'t>(&mut self, table: &Table<'t>, key: &str, right: &str) -> Vec<&'t Value<'t>> {
        let Some(value) = self.get(table, key) else { return Vec::new() };
        match value.get_ref().as_array() {
            Some(array) => array.iter().collect(),
            None => {
                self.mistyped(value, key, right);
                Vec::new()
            }
        }
    }

    /// True if `key` is a list with nothing in it.
    pub(super) fn is_empty_list(&self, table: &Table<'_>, key: &str) -> bool {
        let value = self.get(table, key).and_then(|value| value.get_ref().as_array());
        value.is_some_and(|array| array.is_empty())
    }

    /// One table.
    pub(super) fn section<'t>(
        &mut self,
        table: &Table<'t>,
        key: &str,
        section: &'static str,
    ) -> Option<Table<'t>> {
        let value = self.get(table, key)?;
        match value.get_ref().as_table() {
            Some(map) => Some(self.table(section, map, value.span())),
            None => {
                self.mistyped(value, key, "give a table: { … }");
                None
            }
        }
    }

    /// Tables, or one table alone.
    pub(super) fn sections<'t>(
        &mut self,
        table: &Table<'t>,
        key: &str,
        section: &'static str,
    ) -> Vec<Table<'t>> {
        if self.get(table, key).is_some_and(|value| value.get_ref().is_table()) {
            return self.section(table, key, section).into_iter().collect();
        }
        let mut tables = Vec::new();
        for item in self.items(table, key, "give tables: [{ … }]") {
            match item.get_ref().as_table() {
                Some(map) => tables.push(self.table(section, map, item.span())),
                None => self.mistyped(item, key, "give tables: [{ … }]"),
            }
        }
        tables
    }

    /// A list in which each item is a text or a table.
    pub(super) fn texts_or_tables<'t>(
        &mut self,
        table: &Table<'t>,
        key: &str,
        section: &'static str,
    ) -> Vec<Result<At<&'t str>, Table<'t>>> {
        let mut found = Vec::new();
        for item in self.items(table, key, "give a list: [\"…\"]") {
            match item.get_ref() {
                DeValue::String(text) => {
                    found.push(Ok(At { value: text.as_ref(), span: item.span() }));
                }
                DeValue::Table(map) => found.push(Err(self.table(section, map, item.span()))),
                _ => self.mistyped(item, key, "give texts or tables"),
            }
        }
        found
    }
}

/// One of a few words.
pub(super) fn pick<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        Wrong::new(format!("`{text}` is not known here"), format!("give {}", words.join(" or ")))
    })
}
