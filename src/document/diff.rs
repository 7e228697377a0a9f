//! The structural difference of two documents, as a list of changed places.
//!
//! Invariant: setting every [`Difference`] in an old document makes it equal to the new one, where
//! the order of keys does not count, and numbers are equal when their digits are.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::path::{DocPath, PathStep};
use crate::printable::is_steering;

/// The most characters of a value that a rendered line shows.
const SHOWN: usize = 60;

/// One place at which two documents differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The canonical path of the place, `.` for the root.
    pub path: String,
    /// The old value; `None` if the place did not exist, which is not the same as a `null`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// The new value; `None` if the place was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// Lists the places at which `old` and `new` differ, each as deep down as it can be named.
///
/// Objects are listed in the old order of their keys, followed by the new keys; arrays are compared
/// by index, so that an insertion in the middle appears as changes of every element after it.
pub fn diff(old: &Value, new: &Value) -> Vec<Difference> {
    let mut changes = Vec::new();
    descend(&mut DocPath::default(), Some(old), Some(new), &mut changes);
    changes
}

fn descend(
    at: &mut DocPath,
    old: Option<&Value>,
    new: Option<&Value>,
    changes: &mut Vec<Difference>,
) {
    let mut child = |step, old, new| {
        at.0.push(step);
        descend(at, old, new, changes);
        at.0.pop();
    };
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (key, value) in old {
                child(PathStep::Key(key.clone()), Some(value), new.get(key));
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                child(PathStep::Key(key.clone()), None, Some(value));
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for (index, at) in (0..).zip(0..old.len().max(new.len())) {
                child(PathStep::Index(index), old.get(at), new.get(at));
            }
        }
        // With `arbitrary_precision` this compares the text of numbers.
        (old, new) if old == new => {}
        (old, new) => {
            changes.push(Difference { path: at.to_string(), old: old.cloned(), new: new.cloned() })
        }
    }
}

impl Difference {
    /// The values for people, such as `1 -> 2`; long ones are cut, and control characters escaped.
    pub fn values(&self) -> String {
        format!("{} -> {}", shown(self.old.as_ref()), shown(self.new.as_ref()))
    }
}

impl fmt::Display for Difference {
    /// One line for people, such as `.n: 1 -> 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", without_controls(&self.path), self.values())
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "(absent)".to_owned();
    };
    cut(&without_controls(&value.to_string()))
}

/// The first [`SHOWN`] characters of a text that is too long to show.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Escapes controls: JSON escapes only those below U+0020, but a terminal obeys U+007F to U+009F as
/// well.
fn without_controls(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_steering(c) {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn number(text: &str) -> Value {
        Value::Number(serde_json::Number::from_string_unchecked(text.to_owned()))
    }

    fn lines(old: &Value, new: &Value) -> Vec<String> {
        diff(old, new).iter().map(Difference::to_string).collect()
    }

    /// Applies the changes, as the invariant at the top of the file states.
    fn apply(doc: &mut Value, changes: &[Difference]) {
        // Elements are removed from the end of an array, so that the indices before them stay
        // valid.
        let (gone, kept): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.new.is_none());
        for change in kept {
            let mut path = DocPath::parse_filter(&change.path).unwrap();
            if let (None, Some(last @ PathStep::Index(_))) = (&change.old, path.0.last_mut()) {
                *last = PathStep::Append;
            }
            path.set(doc, change.new.clone().unwrap()).unwrap();
        }
        for change in gone.iter().rev() {
            let mut path = DocPath::parse_filter(&change.path).unwrap();
            let last = path.0.pop().unwrap();
            let mut parent = path.get(doc).unwrap().unwrap().clone();
            match (&mut parent, last) {
                (Value::Object(map), PathStep::Key(key)) => drop(map.shift_remove(&key).unwrap()),
                (Value::Array(list), PathStep::Index(_)) => drop(list.pop().unwrap()),
                other => panic!("{other:?}"),
            }
            path.set(doc, parent).unwrap();
        }
    }

    #[test]
    fn the_order_of_keys_is_no_difference() {
        assert!(diff(&json!({"a": 1, "b": [2]}), &json!({"b": [2], "a": 1})).is_empty());
    }

    #[test]
    fn a_change_is_named_as_deep_down_as_it_is() {
        let old = json!({"n": 1, "x": "a", "l": [1, 2, 3], "o k": {"p": null}, "t": {}});
        let new = json!({"n": 2, "m": 1, "l": [1, 5], "o k": {"p": [], "q": null}, "t": []});
        let expected = [
            ".n: 1 -> 2",
            r#".x: "a" -> (absent)"#,
            ".l[1]: 2 -> 5",
            ".l[2]: 3 -> (absent)",
            r#"."o k".p: null -> []"#,
            r#"."o k".q: (absent) -> null"#,
            ".t: {} -> []",
            ".m: (absent) -> 1",
        ];
        assert_eq!(lines(&old, &new), expected);
        assert_eq!(lines(&json!(1), &json!([1])), [".: 1 -> [1]"]);
        assert_eq!(lines(&json!([1]), &json!([1, 2])), [".[1]: (absent) -> 2"]);
    }

    #[test]
    fn numbers_differ_when_their_digits_do() {
        assert_eq!(lines(&number("1.0"), &number("1")), [".: 1.0 -> 1"]);
        assert_eq!(
            lines(&number("9223372036854775808"), &number("9223372036854775809")),
            [".: 9223372036854775808 -> 9223372036854775809"]
        );
        assert!(diff(&number("1e400"), &number("1e400")).is_empty());
    }

    #[test]
    fn only_an_absent_side_is_left_out_of_json() {
        let changes = diff(&json!({"a": null}), &json!({"b": number("1.0")}));
        let expected = r#"[{"path":".a","old":null},{"path":".b","new":1.0}]"#;
        assert_eq!(serde_json::to_string(&changes).unwrap(), expected);
    }

    #[test]
    fn a_line_is_short_and_moves_no_cursor() {
        let key = "\u{9b}k";
        let change = lines(&json!({ key: "é".repeat(100) }), &json!({ key: "\u{1b}[2J\u{7f}" }));
        let expected = format!(r#"."\u009bk": "{}… -> "\u001b[2J\u007f""#, "é".repeat(SHOWN - 1));
        assert_eq!(change, [expected]);
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3).prop_map(Value::from),
            Just(number("1.0")),
            "[ab\"\\\\]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[abc \"\\-]{1}", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_changes_turn_old_into_new(old in document(), new in document()) {
            let changes = diff(&old, &new);
            prop_assert_eq!(changes.is_empty(), old == new);
            let mut doc = old;
            apply(&mut doc, &changes);
            prop_assert_eq!(doc, new);
        }
    }
}
