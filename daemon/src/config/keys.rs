//! Every key that a file may have, once: the reader refuses what is not here, and the reference
//! page is made from here.

use std::fmt::Write;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The heading it stands under: a table's dotted name, or one of [`Keys::joint`].
    section: &'static str,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    effect: &'static str,
}

/// A key: the heading it stands under, its name, what its value may be, what holds without it,
/// and what it does, as the reference page has them.
pub const fn key(
    section: &'static str,
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    effect: &'static str,
) -> Key {
    Key { section, name, kind, default, effect }
}

/// The keys of a file.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// In the order of the reference page; a heading's keys stand together.
    pub list: &'static [Key],
    /// Headings that are no table's name, and the tables that have their keys.
    pub joint: &'static [(&'static str, &'static [&'static str])],
}

impl Keys {
    /// The names of the keys that a table of `section` may have.
    pub fn names(self, section: &str) -> impl Iterator<Item = &'static str> {
        let has = move |heading: &str| {
            let joint = self.joint.iter().find(|(joint, _)| *joint == heading);
            heading == section || joint.is_some_and(|(_, tables)| tables.contains(&section))
        };
        self.list.iter().filter(move |key| has(key.section)).map(|key| key.name)
    }

    /// The reference page: `head`, then a table per heading.
    pub fn reference(self, head: &str) -> String {
        let mut out = head.to_owned();
        let mut section = None;
        for key in self.list {
            if section != Some(key.section) {
                section = Some(key.section);
                let title = if key.section.is_empty() { "The file" } else { key.section };
                let _ = write!(
                    out,
                    "\n## {title}\n\n| key | value | default | effect |\n|---|---|---|---|\n"
                );
            }
            let default = if key.default.is_empty() { "–" } else { key.default };
            let _ = writeln!(out, "| `{}` | {} | {default} | {} |", key.name, key.kind, key.effect);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys {
        list: &[
            key("", "a", "table", "", "One."),
            key("", "b", "table", "", "Two."),
            key("a and b", "size", "size", "1G", "How large."),
            key("b", "thin", "true or false", "false", "How wide."),
        ],
        joint: &[("a and b", &["a", "b"])],
    };

    fn names(section: &str) -> Vec<&'static str> {
        KEYS.names(section).collect()
    }

    #[test]
    fn keys_of_a_joint_heading_are_in_each_of_its_tables() {
        assert_eq!(names(""), ["a", "b"]);
        assert_eq!(names("a"), ["size"]);
        assert_eq!(names("b"), ["size", "thin"]);
        assert!(names("c").is_empty());
    }

    #[test]
    fn the_reference_has_each_key_under_its_heading() {
        let page = KEYS.reference("# f\n");
        let headings: Vec<_> = page.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings, ["## The file", "## a and b", "## b"]);
        assert!(page.starts_with("# f\n\n## "), "{page}");
        assert!(page.contains("\n| `a` | table | – | One. |\n"), "{page}");
        assert!(page.ends_with("| `thin` | true or false | false | How wide. |\n"), "{page}");
    }
}
