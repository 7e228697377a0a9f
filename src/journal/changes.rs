//! A summary of a commit's changes: paths of at most three levels, the phase, the names of tasks
//! and signals. No other contents of the document.
//!
//! It is computed from the two texts. A text that this program wrote has one field of the document
//! a line, so fields with equal bytes are never parsed, and the cost is proportional to the change.

use std::collections::HashMap;
use std::fmt;

use memchr::memmem;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::line::cut;
use crate::document::json;
use crate::document::path::{DocPath, PathStep};
use crate::document::schema::OWN_FIELDS;

/// The most changes that are listed.
pub const LISTED: usize = 20;
const LEVELS: usize = 3;
/// The longest path, name of a task or phase, in bytes.
const TEXT_LIMIT: usize = 200;
/// Of a field larger than this, in bytes, only the name is listed.
const FIELD_LIMIT: usize = 256 << 10;

/// The summary of a commit's changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// At most [`LISTED`] changes.
    pub list: Vec<Change>,
    /// The number of further changes.
    pub more: usize,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something below this path changed.
    Path(String),
    /// The phase changed.
    Phase {
        /// The phase before, if it was a string.
        old: Option<String>,
        /// The phase after.
        new: Option<String>,
    },
    /// A task was completed, or no longer is.
    Task {
        /// Its name.
        name: String,
        /// Whether it was added.
        is_added: bool,
    },
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |phase: &Option<String>| phase.clone().unwrap_or_else(|| "-".to_owned());
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Phase { old, new } => write!(f, "phase {} → {}", name(old), name(new)),
            Self::Task { name, is_added: true } => write!(f, "task {name} completed"),
            Self::Task { name, is_added: false } => write!(f, "task {name} removed"),
        }
    }
}

impl Changes {
    /// The changes from one text of a document to the next; `None` where a text is not a document.
    pub fn between<'a>(old: &'a [u8], new: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let (before, after) = (Rope::new([old].into_iter()), Rope::new(new));
        let (Some(old), Some(new)) = (before.fields(), after.fields()) else {
            return Self::of_other_texts(old, &after.copy(0..after.size));
        };
        let before: HashMap<&str, &Field<'_, '_>> =
            old.iter().map(|field| (field.key.as_str(), field)).collect();
        let after: HashMap<&str, &Field<'_, '_>> =
            new.iter().map(|field| (field.key.as_str(), field)).collect();
        let mut changes = Self::default();
        for field in &new {
            match before.get(field.key.as_str()) {
                Some(old) if old.is_same_as(field) => {}
                old => {
                    changes.add_field(&field.key, old.map(|old| old.value()), Some(field.value()))
                }
            }
        }
        for field in old.iter().filter(|field| !after.contains_key(field.key.as_str())) {
            changes.add_field(&field.key, Some(field.value()), None);
        }
        Some(changes)
    }

    /// Compares texts with another layout than this program's.
    fn of_other_texts(old: &[u8], new: &[u8]) -> Option<Self> {
        if old.len().max(new.len()) > FIELD_LIMIT {
            return None;
        }
        let (Value::Object(old), Value::Object(new)) =
            (json::parse(old).ok()?, json::parse(new).ok()?)
        else {
            return None;
        };
        let mut changes = Self::default();
        for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
            changes.add_field(
                key,
                old.get(key).cloned().map(Known::Value),
                Some(Known::Value(value.clone())),
            );
        }
        for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            changes.add_field(key, Some(Known::Value(value.clone())), None);
        }
        Some(changes)
    }

    fn add_field(&mut self, key: &str, old: Option<Known>, new: Option<Known>) {
        let path = DocPath(vec![PathStep::Key(key.to_owned())]);
        let values = match (old, new) {
            (Some(Known::TooLarge), _) | (_, Some(Known::TooLarge)) => return self.add_path(&path),
            (old, new) => (old.and_then(Known::into_value), new.and_then(Known::into_value)),
        };
        match (key, &values) {
            ("phase", (old, new)) => {
                let text = |value: &Option<Value>| {
                    value
                        .as_ref()
                        .and_then(Value::as_str)
                        .map(|text| cut(text, TEXT_LIMIT).to_owned())
                };
                self.add(Change::Phase { old: text(old), new: text(new) });
            }
            ("completedTasks", (Some(Value::Array(old)), Some(Value::Array(new)))) => {
                self.add_tasks(old, new)
            }
            (_, (old, new)) => self.add_below(path, old.as_ref(), new.as_ref()),
        }
    }

    fn add_tasks(&mut self, old: &[Value], new: &[Value]) {
        let (before, after): (Vec<&str>, Vec<&str>) = (texts(old), texts(new));
        let only_in = |these: &[&str], those: &[&str]| {
            let those: std::collections::HashSet<&str> = those.iter().copied().collect();
            these
                .iter()
                .filter(|name| !those.contains(**name))
                .map(|name| cut(name, TEXT_LIMIT).to_owned())
                .collect()
        };
        let (added, removed): (Vec<String>, Vec<String>) =
            (only_in(&after, &before), only_in(&before, &after));
        if added.is_empty() && removed.is_empty() {
            return self.add(Change::Path(".completedTasks".into()));
        }
        for name in added {
            self.add(Change::Task { name, is_added: true });
        }
        for name in removed {
            self.add(Change::Task { name, is_added: false });
        }
    }

    fn add_below(&mut self, path: DocPath, old: Option<&Value>, new: Option<&Value>) {
        let (Some(Value::Object(old)), Some(Value::Object(new))) = (old, new) else {
            return self.add_path(&path);
        };
        if path.0.len() == LEVELS {
            return self.add_path(&path);
        }
        let is_metadata = matches!(&path.0[..], [PathStep::Key(key)] if key == "metadata");
        let is_users = |key: &str| !is_metadata || !OWN_FIELDS.contains(&key);
        let below = |key: &str| {
            DocPath(path.0.iter().cloned().chain([PathStep::Key(key.to_owned())]).collect())
        };
        for (key, value) in
            new.iter().filter(|(key, value)| is_users(key) && old.get(*key) != Some(value))
        {
            self.add_below(below(key), old.get(key), Some(value));
        }
        for (key, _) in old.iter().filter(|(key, _)| is_users(key) && !new.contains_key(*key)) {
            self.add_path(&below(key));
        }
    }

    fn add_path(&mut self, path: &DocPath) {
        self.add(Change::Path(cut(&path.to_string(), TEXT_LIMIT).to_owned()));
    }

    fn add(&mut self, change: Change) {
        if self.list.len() < LISTED {
            self.list.push(change);
        } else {
            self.more += 1;
        }
    }

    /// Removes the last change from the list; false if the list is empty.
    pub(super) fn drop_last(&mut self) -> bool {
        let dropped = self.list.pop().is_some();
        self.more += usize::from(dropped);
        dropped
    }
}

fn texts(values: &[Value]) -> Vec<&str> {
    values.iter().filter_map(Value::as_str).collect()
}

/// A field's value, if it is small enough to parse.
enum Known {
    Value(Value),
    TooLarge,
    Unreadable,
}

impl Known {
    fn into_value(self) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::TooLarge | Self::Unreadable => None,
        }
    }
}

/// A text in parts, without a contiguous copy.
struct Rope<'a> {
    parts: Vec<(usize, &'a [u8])>,
    size: usize,
}

/// A field of the document in its text.
struct Field<'r, 'a> {
    rope: &'r Rope<'a>,
    key: String,
    place: std::ops::Range<usize>,
}

impl<'a> Rope<'a> {
    fn new(parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut size = 0;
        let parts = parts.filter(|part| !part.is_empty()).map(|part| {
            size += part.len();
            (size - part.len(), part)
        });
        let parts = parts.collect();
        Self { parts, size }
    }

    /// The pieces of a range, in order.
    fn pieces(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &'a [u8]> + '_ {
        let first = self.parts.partition_point(|(start, part)| start + part.len() <= range.start);
        self.parts.iter().skip(first).take_while(move |(start, _)| *start < range.end).map(
            move |(start, part)| {
                let (from, to) =
                    (range.start.saturating_sub(*start), (range.end - start).min(part.len()));
                part.get(from..to).unwrap_or_default()
            },
        )
    }

    fn copy(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        self.pieces(range).collect::<Vec<_>>().concat()
    }

    /// The positions of a needle, in order; also of one that spans parts.
    fn find(&self, needle: &[u8]) -> Vec<usize> {
        let finder = memmem::Finder::new(needle);
        let mut places = Vec::new();
        for (start, part) in &self.parts {
            let overlap = needle.len() - 1;
            if *start > 0 {
                let from = start.saturating_sub(overlap);
                let seam = self.copy(from..(start + overlap).min(self.size));
                places.extend(
                    finder.find_iter(&seam).map(|place| from + place).filter(|place| place < start),
                );
            }
            places.extend(finder.find_iter(part).map(|place| start + place));
        }
        places.dedup();
        places
    }

    /// The document's fields, where the text has the layout of this program: one a line, indented
    /// by two spaces.
    fn fields(&self) -> Option<Vec<Field<'_, 'a>>> {
        const BEGIN: &[u8] = b"\n  \"";
        const LONGEST_KEY: usize = 4096;
        let ends = self.copy(0..2) == b"{\n"
            && self.copy(self.size.checked_sub(3)?..self.size) == b"\n}\n";
        if !ends {
            return None;
        }
        let starts = self.find(BEGIN);
        let ends = starts.iter().skip(1).copied().chain([self.size - 3]);
        let mut fields = Vec::with_capacity(starts.len());
        for (start, end) in starts.iter().zip(ends) {
            let start = start + BEGIN.len() - 1;
            let head = self.copy(start..end.min(start + LONGEST_KEY));
            let length = key_length(&head)?;
            let key = json::parse(head.get(..length)?).ok()?.as_str()?.to_owned();
            let value = start + length + 2; // after the colon and a space
            let has_comma = self.copy(end.checked_sub(1)?..end) == b",";
            fields.push(Field { rope: self, key, place: value..end - usize::from(has_comma) });
        }
        Some(fields)
    }
}

/// The length of the JSON string at the beginning of a text.
fn key_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

impl Field<'_, '_> {
    fn is_same_as(&self, other: &Self) -> bool {
        if self.place.len() != other.place.len() {
            return false;
        }
        let (mut these, mut those) =
            (self.rope.pieces(self.place.clone()), other.rope.pieces(other.place.clone()));
        let (mut one, mut two): (&[u8], &[u8]) = (&[], &[]);
        loop {
            if one.is_empty() {
                one = these.next().unwrap_or_default();
            }
            if two.is_empty() {
                two = those.next().unwrap_or_default();
            }
            let length = one.len().min(two.len());
            if length == 0 {
                return one.is_empty() && two.is_empty();
            }
            let ((first, rest), (second, others)) = (one.split_at(length), two.split_at(length));
            if !std::ptr::eq(first, second) && first != second {
                return false;
            }
            (one, two) = (rest, others);
        }
    }

    fn value(&self) -> Known {
        if self.place.len() > FIELD_LIMIT {
            return Known::TooLarge;
        }
        json::parse(&self.rope.copy(self.place.clone())).map_or(Known::Unreadable, Known::Value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::seal::to_bytes;

    fn between(old: &Value, new: &Value) -> Changes {
        let (old, new) = (to_bytes(old).unwrap(), to_bytes(new).unwrap());
        Changes::between(&old, [&*new].into_iter()).unwrap()
    }

    fn document() -> Value {
        json!({
            "phase": "build", "completedTasks": ["a"], "signals": {"GO": 1}, "n": 1,
            "deep": {"a": {"b": {"c": {"d": "secret"}}}, "x": [1]},
            "metadata": {"revision": 1, "owner": "me"},
        })
    }

    #[test]
    fn changes_show_only_phases_tasks_and_signals() {
        let mut new = document();
        new["phase"] = "test".into();
        new["completedTasks"] = json!(["a", "b"]);
        new["signals"]["STOP"] = 2.into();
        new["deep"]["a"]["b"]["c"]["d"] = "other secret".into();
        new["deep"]["x"] = json!([1, 2]);
        new["metadata"]["revision"] = 2.into();
        new.as_object_mut().unwrap().shift_remove("n");
        let path = |path: &str| Change::Path(path.to_owned());
        let expected = [
            Change::Phase { old: Some("build".into()), new: Some("test".into()) },
            Change::Task { name: "b".into(), is_added: true },
            path(".signals.STOP"),
            path(".deep.a.b"),
            path(".deep.x"),
            path(".n"),
        ];
        let changes = between(&document(), &new);
        assert_eq!((&changes.list[..], changes.more), (&expected[..], 0));
        assert!(!format!("{changes:?}").contains("secret"));
    }

    #[test]
    fn of_many_changes_the_first_twenty_are_listed() {
        let mut new = document();
        for n in 0..30 {
            new[format!("f{n}")] = n.into();
        }
        let changes = between(&document(), &new);
        assert_eq!((changes.list.len(), changes.more), (LISTED, 10));
    }

    #[test]
    fn a_large_field_is_only_named() {
        let mut new = document();
        new["n"] = "x".repeat(FIELD_LIMIT + 1).into();
        assert_eq!(between(&document(), &new).list, [Change::Path(".n".into())]);
    }

    #[test]
    fn texts_of_another_layout_are_compared_too() {
        let (old, new) = (b"{\"phase\":\"a\",\"n\":1}", b"{\"n\":1,\"phase\":\"b\"}");
        let changes = Changes::between(old, [&new[..]].into_iter()).unwrap();
        assert_eq!(changes.list, [Change::Phase { old: Some("a".into()), new: Some("b".into()) }]);
        assert_eq!(Changes::between(b"\0\0", [&new[..]].into_iter()), None);
    }

    proptest! {
        #[test]
        fn a_text_in_parts_says_what_the_whole_says(
            cuts in prop::collection::vec(0_usize..400, 0..8),
            n in 0_u32..9,
        ) {
            let mut new = document();
            new["n"] = n.into();
            new["more"] = "line\nfeed \" \\".into();
            let (old, new) = (to_bytes(&document()).unwrap(), to_bytes(&new).unwrap());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(new.len())).collect();
            cuts.extend([0, new.len()]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|pair| &new[pair[0]..pair[1]]);
            let whole = Changes::between(&old, [&*new].into_iter());
            prop_assert_eq!(Changes::between(&old, parts), whole);
        }
    }
}
