//! Names that become part of a path: locks, backups, checkpoints, signals, operations.

use std::fmt;

use crate::error::{Error, Kind, Result};

/// The longest name, in characters.
pub const MAX_LENGTH: usize = 128;
/// The longest name of an operation in a new checkpoint, in characters. It is the end of the
/// checkpoint's id; ids of older checkpoints may be longer.
pub const MAX_OPERATION: usize = 64;

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,127}` without `..`: safe as a part of a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Parses a name; `what` is the kind of name for the error.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        Self::parse_up_to(MAX_LENGTH, what, text)
    }

    /// Parses the name of a new checkpoint's operation: at most [`MAX_OPERATION`] characters.
    pub fn parse_operation(text: &str) -> Result<Self> {
        Self::parse_up_to(MAX_OPERATION, "operation", text)
    }

    fn parse_up_to(longest: usize, what: &str, text: &str) -> Result<Self> {
        if text.len() <= longest && is_name(text) {
            return Ok(Self(text.to_owned()));
        }
        let article = if what.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        let message = format!(
            "{text:?} is not a valid name for {article} {what}: that has 1 to {longest} letters, \
             digits, `.`, `_` and `-`, begins with a letter or digit and has no `..`"
        );
        let mut meant = Self::reduce(text, what).0;
        meant.truncate(longest);
        Err(Error::new(Kind::InvalidName, message)
            .hint_text(format!("a name that fits: {meant}"))
            .detail("name", text))
    }

    /// Reduces any text to a name: characters that a name cannot have become `-`. `fallback` where
    /// nothing is left.
    pub fn reduce(text: &str, fallback: &str) -> Self {
        let mut name = String::new();
        for c in text.chars() {
            let c = if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
            let doubled = (c == '-' || c == '.') && name.ends_with(c);
            let may_stand = c.is_ascii_alphanumeric() || !name.is_empty();
            if may_stand && !doubled && name.len() < 64 {
                name.push(c);
            }
        }
        let name = name.trim_end_matches(['-', '.', '_']);
        Self(if name.is_empty() { fallback.to_owned() } else { name.to_owned() })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The one of `known` that a misspelt word probably means; `None` if the word is one of them.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let distance = |other: &str| strsim::damerau_levenshtein(word, other);
    let nearest = known.min_by_key(|other| distance(other))?;
    // Two edits in a long word, one in a short one.
    (1..=if nearest.len() > 5 { 2 } else { 1 }).contains(&distance(nearest)).then_some(nearest)
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_LENGTH && is_plain(text)
}

/// Returns whether a text has the form of a name, of any length.
pub fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !text.contains("..")
}

/// Names as they are typed.
pub fn join(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_never_leave_its_directory() {
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a..b",
            "-a",
            ".a",
            "a b",
            "a\n",
            "ä",
            "a\0",
            &"a".repeat(129),
        ] {
            assert!(Name::parse("backup", bad).is_err(), "{bad:?}");
        }
        for good in ["a", "PHASE1_START", "v1.2-rc_3", "9", &"a".repeat(128)] {
            assert!(Name::parse("backup", good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn any_reason_can_be_reduced_to_a_name() {
        for (reason, name) in [
            ("phase transition", "phase-transition"),
            ("../../etc", "etc"),
            ("héllo…", "h-llo"),
            ("…", "update"),
            ("a..b", "a.b"),
        ] {
            assert_eq!(Name::reduce(reason, "update").as_str(), name);
            assert!(is_name(name));
        }
        assert!(is_name(Name::reduce(&"x".repeat(999), "u").as_str()));
    }
}
