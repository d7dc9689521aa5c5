//! What is wrong with a configuration: where, what, and what would be right.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::Range;

/// A value that cannot be what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, with the offending text in it.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl Wrong {
    /// `what` is wrong; `right` would be right.
    pub fn new(what: impl Into<String>, right: impl Into<String>) -> Self {
        Self { what: what.into(), right: right.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.right)
    }
}

impl std::error::Error for Wrong {}

/// One finding in a file. Lines and columns count from one; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as the user gave it.
    pub file: String,
    /// Line, from one.
    pub line: usize,
    /// Column in characters, from one.
    pub column: usize,
    /// What is wrong and what would be right.
    pub wrong: Wrong,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.wrong)
    }
}

/// Every error of a file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Where in the text a value stands, in bytes.
pub type Span = Range<usize>;

/// Gathers findings while a file is read, so that one run tells all of them.
#[derive(Debug)]
pub struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Findings<'a> {
    /// None yet. `file` is the name in messages, `text` what places count in.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, errors: Vec::new(), warnings: Vec::new() }
    }

    /// Nothing of the file can be used.
    pub fn error(&mut self, span: &Span, wrong: Wrong) {
        let problem = self.at(span, wrong);
        self.errors.push(problem);
    }

    /// The file can be used, but this is probably not meant.
    pub fn warn(&mut self, span: &Span, wrong: Wrong) {
        let problem = self.at(span, wrong);
        self.warnings.push(problem);
    }

    /// `line N` of a place, to point at a second one from a message.
    pub fn place(&self, span: &Span) -> String {
        let problem = self.at(span, Wrong::new("", ""));
        format!("line {}", problem.line)
    }

    /// Says of every item that an earlier one is equal to it. `what` names the item.
    pub fn unique<'s, K: Hash + Eq>(
        &mut self,
        items: impl IntoIterator<Item = (K, &'s Span)>,
        what: impl Fn(&K) -> String,
    ) {
        let mut seen: HashMap<K, &Span> = HashMap::new();
        for (item, span) in items {
            if let Some(first) = seen.get(&item) {
                let what = format!("{} was given before ({})", what(&item), self.place(first));
                self.error(span, Wrong::new(what, "each may be given once"));
            } else {
                seen.insert(item, span);
            }
        }
    }

    /// The warnings, or else every error.
    ///
    /// # Errors
    /// What was gathered, in the order of the file.
    pub fn finish(mut self) -> Result<Vec<Problem>, Problems> {
        let order = |p: &Problem| (p.line, p.column);
        self.errors.sort_by_key(order);
        self.warnings.sort_by_key(order);
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(Problems(self.errors)) }
    }

    fn at(&self, span: &Span, wrong: Wrong) -> Problem {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Problem {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            wrong,
        }
    }
}

/// The one of `known` that `given` was probably meant to be.
pub fn nearest<'k>(given: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let mut best: Option<(usize, &str)> = None;
    for name in known {
        let distance = distance(given, name);
        let near = distance <= 1 + name.len() / 4;
        if near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Edits from one word to the other. Long words are never compared: nobody mistypes by that much.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let text = "a = 1\n# ü\nü = x";
        let mut findings = Findings::new("f", text);
        let at = text.find('x').unwrap();
        findings.error(&(at..at + 1), Wrong::new("bad", "good"));
        let problems = findings.finish().unwrap_err();
        assert_eq!(problems.to_string(), "f:3:5: bad; good");
    }

    #[test]
    fn the_second_of_two_equal_items_is_wrong() {
        let text = "a\nb\na";
        let mut findings = Findings::new("f", text);
        let spans = [0..1, 2..3, 4..5];
        let items = spans.iter().map(|span| (&text[span.clone()], span));
        findings.unique(items, |letter| format!("letter {letter}"));
        let told = findings.finish().unwrap_err().to_string();
        assert_eq!(told, "f:3:1: letter a was given before (line 1); each may be given once");
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_key() {
        let known = ["path", "read_only", "thin"];
        assert_eq!(nearest("readonly", known.into_iter()), Some("read_only"));
        assert_eq!(nearest("pth", known.into_iter()), Some("path"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
