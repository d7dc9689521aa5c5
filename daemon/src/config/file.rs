//! From a path to the document.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

use super::problem::{Findings, Problem, Problems, Wrong};

/// A configuration file's largest size in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The text of the file at `path`.
///
/// # Errors
/// If it cannot be read, is no UTF-8, or is larger than 4 MiB.
pub fn text(path: &Path) -> Result<String, Problems> {
    let bytes = read_bounded(path).map_err(|error| unreadable(path, &error))?;
    String::from_utf8(bytes).map_err(|error| unreadable(path, &error))
}

/// Says that the configuration at `path` cannot be read.
pub fn unreadable(path: &Path, error: &dyn Display) -> Problems {
    let what = format!("the configuration cannot be read: {error}");
    let right = "name another one with --config, or write this one";
    let (file, wrong) = (path.display().to_string(), Wrong::new(what, right));
    Problems(vec![Problem { file, line: 1, column: 1, wrong }])
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("it is larger than 4 MiB"));
    }
    Ok(bytes)
}

/// The document that `text` is, and where findings about it are gathered. `file` is its name in
/// messages.
///
/// # Errors
/// Every place where it is no TOML.
pub fn document<'a>(
    file: &'a str,
    text: &'a str,
) -> Result<(Spanned<DeTable<'a>>, Findings<'a>), Problems> {
    let mut findings = Findings::new(file, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let what = error.message().replace('\n', "; ");
        findings.error(&error.span().unwrap_or(0..0), Wrong::new(what, "see https://toml.io"));
    }
    if !errors.is_empty() {
        return Err(findings.finish().expect_err("there are errors"));
    }
    Ok((document, findings))
}
