//! Walks a parsed TOML document and keeps the place of every value.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::Keys;
use super::problem::{Findings, Span, Wrong, nearest};
use super::secret::{Secret, SecretKey};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct At<T> {
    /// What it is.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

/// One table of the document.
#[derive(Debug, Clone)]
pub struct Table<'t> {
    section: &'static str,
    map: &'t DeTable<'t>,
    /// Where it stands.
    pub span: Span,
}

/// Reads values and gathers findings.
#[derive(Debug)]
pub struct Reader<'a> {
    /// What was found so far.
    pub findings: Findings<'a>,
    base: &'a Path,
    keys: Keys,
}

type Value<'t> = Spanned<DeValue<'t>>;

impl<'a> Reader<'a> {
    /// Relative paths count from `base`; what is not in `keys` is an error.
    pub fn new(findings: Findings<'a>, base: &'a Path, keys: Keys) -> Self {
        Self { findings, base, keys }
    }

    /// Takes `map` as a table of `section`; keys that the section does not have are errors.
    pub fn table<'t>(
        &mut self,
        section: &'static str,
        map: &'t DeTable<'t>,
        span: Span,
    ) -> Table<'t> {
        for key in map.keys() {
            let given = key.get_ref();
            if self.keys.names(section).any(|known| known == given) {
                continue;
            }
            let place = if section.is_empty() { "the file" } else { section };
            let right = match nearest(given, self.keys.names(section)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    let all: Vec<&str> = self.keys.names(section).collect();
                    format!("{place} has {}", all.join(", "))
                }
            };
            let what = format!("there is no key `{given}` in {place}");
            self.findings.error(&key.span(), Wrong::new(what, right));
        }
        Table { section, map, span }
    }

    fn get<'t>(&self, table: &Table<'t>, key: &str) -> Option<&'t Value<'t>> {
        debug_assert!(self.keys.names(table.section).any(|k| k == key), "{key} is not in the keys");
        table.map.get(key)
    }

    /// True if the table has `key`, whatever its value.
    pub fn has(&self, table: &Table<'_>, key: &str) -> bool {
        self.get(table, key).is_some()
    }

    /// Says that `key` is missing.
    pub fn missing(&mut self, table: &Table<'_>, key: &str) {
        let what = format!("`{key}` is missing in {}", table.section);
        self.findings.error(&table.span, Wrong::new(what, format!("add `{key} = …`")));
    }

    fn mistyped(&mut self, value: &Value<'_>, key: &str, right: &str) {
        let what = format!("`{key}` is of type {}", value.get_ref().type_str());
        self.findings.error(&value.span(), Wrong::new(what, right));
    }

    /// A text.
    pub fn text<'t>(&mut self, table: &Table<'t>, key: &str) -> Option<At<&'t str>> {
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
    pub fn with<T>(
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
    pub fn required<T>(
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
    pub fn integer(
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
    pub fn number<T: TryFrom<i64>>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<T> {
        T::try_from(self.integer(table, key, range)?.value).ok()
    }

    /// True or false.
    pub fn boolean(&mut self, table: &Table<'_>, key: &str) -> Option<bool> {
        let value = self.get(table, key)?;
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.mistyped(value, key, "give `true` or `false` without quotes");
        }
        found
    }

    /// A text or a whole number, as text: what a time or a count may be written as.
    pub fn scalar(&mut self, table: &Table<'_>, key: &str) -> Option<At<String>> {
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
    pub fn path(&mut self, table: &Table<'_>, key: &str) -> Option<At<PathBuf>> {
        let text = self.text(table, key)?;
        if text.value.is_empty() || text.value.contains('\0') {
            let wrong = Wrong::new(format!("`{key}` is no path"), "give the path of a file");
            self.findings.error(&text.span, wrong);
            return None;
        }
        Some(At { value: self.base.join(text.value), span: text.span })
    }

    /// `path`, counted from the file's folder if it is relative.
    pub fn based(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// One of a few words.
    pub fn choice<T: Copy>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        self.with(table, key, |text| pick(text, choices)).map(|at| at.value)
    }

    /// An address with a port; `example` is a good one.
    pub fn address(&mut self, table: &Table<'_>, key: &str, example: &str) -> Option<SocketAddr> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                let what = format!("`{text}` is no address with a port");
                Wrong::new(what, format!("write it as {example}"))
            })
        };
        self.with(table, key, parse).map(|at| at.value)
    }

    /// A CHAP name and its secret: `user`, and the file that `secret_file` names.
    pub fn credentials(&mut self, table: &Table<'_>) -> Option<(String, Secret)> {
        let user = self.required(table, "user", |text| short(text, "a CHAP name"));
        if !self.has(table, "secret_file") {
            self.missing(table, "secret_file");
        }
        let path = self.path(table, "secret_file")?;
        match Secret::read(&path.value) {
            Ok(secret) => Some((user?.value, secret)),
            Err(wrong) => {
                self.findings.error(&path.span, wrong);
                None
            }
        }
    }

    /// The key in the file that `key` names.
    pub fn key_file(&mut self, table: &Table<'_>, key: &str) -> Option<SecretKey> {
        if !self.has(table, key) {
            self.missing(table, key);
        }
        let path = self.path(table, key)?;
        SecretKey::read(&path.value).map_err(|wrong| self.findings.error(&path.span, wrong)).ok()
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

    /// A list of texts. An empty list, or the same twice, is an error.
    pub fn list<T: PartialEq>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let right = "give a list of texts: [\"…\", \"…\"]";
        let mut list: Vec<T> = Vec::new();
        let items = self.items(table, key, right);
        if let (true, Some(value)) = (items.is_empty(), self.get(table, key))
            && value.get_ref().is_array()
        {
            let what = format!("`{key}` is empty, which would let nobody in");
            self.findings.error(&value.span(), Wrong::new(what, "name some, or leave it out"));
        }
        for item in items {
            let Some(text) = item.get_ref().as_str() else {
                self.mistyped(item, key, right);
                continue;
            };
            match parse(text) {
                Ok(value) if list.contains(&value) => {
                    let what = format!("`{text}` is in `{key}` twice");
                    self.findings.error(&item.span(), Wrong::new(what, "name it once"));
                }
                Ok(value) => list.push(value),
                Err(wrong) => self.findings.error(&item.span(), wrong),
            }
        }
        list
    }

    /// True if `key` is a list with nothing in it.
    pub fn is_empty_list(&self, table: &Table<'_>, key: &str) -> bool {
        let value = self.get(table, key).and_then(|value| value.get_ref().as_array());
        value.is_some_and(|array| array.is_empty())
    }

    /// One table.
    pub fn section<'t>(
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
    pub fn sections<'t>(
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
    pub fn texts_or_tables<'t>(
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

/// `text`, if it has 1 to 255 bytes and no control characters. `what` it is to be: `an alias`.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn short(text: &str, what: &str) -> Result<String, Wrong> {
    if !(1..=255).contains(&text.len()) || text.chars().any(char::is_control) {
        let right = format!("{what} has 1 to 255 bytes and no control characters");
        return Err(Wrong::new(format!("`{}` cannot be {what}", text.escape_debug()), right));
    }
    Ok(text.to_owned())
}

/// One of a few words.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn pick<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Wrong> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        Wrong::new(format!("`{text}` is not known here"), format!("give {}", words.join(" or ")))
    })
}
