//! Plain paths such as `.phase`, `.a.b[0]` or `."odd key"[-1]`: places in a document, without a jq
//! program.
//!
//! Invariants: a path read by [`DocPath::parse_filter`] means the same as in jq; the output of
//! [`Display`](fmt::Display) parses back to the same path; and [`DocPath::set`] either makes its
//! one change or leaves the document unchanged.

mod cursor;

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

use self::cursor::{Cursor, Form};
use super::json_type::JsonType;
use super::schema::OWN_FIELDS;

/// One step down into a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathStep {
    /// The value under a key of an object.
    Key(String),
    /// The element at an index of an array; a negative index counts from the end.
    Index(i64),
    /// One past the last element of an array, written `[+]`; exists only where something is set.
    Append,
}

/// Steps from the root of a document; no steps at all is the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DocPath(pub Vec<PathStep>);

/// The reason why a path could not be read or followed; the paths in it are written out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// The text is not a path: the column, in characters from 1, and the expected token.
    #[error("bad path at column {0}: expected {1}")]
    Syntax(usize, &'static str),
    /// The root was named where a place inside the document is needed.
    #[error("the root `.` cannot be set; name a key, as in `.phase`")]
    Root,
    /// A value of this type has no children by this key or `number`; the words are jq's.
    #[error("cannot index {} with {}", .0.name(), .1)]
    CannotIndex(JsonType, String),
    /// The parent is of this type, and so cannot hold the child.
    #[error("`{parent}` is of type {}, so `{child}` cannot be set inside it", .found.name())]
    WrongParent {
        /// The path of the parent.
        parent: DocPath,
        /// The type of the parent.
        found: JsonType,
        /// The path of the child.
        child: DocPath,
    },
    /// The array at this path, with this many elements, has none at this index.
    #[error("`{0}` has {1} element(s), so there is no [{2}]; use `[+]` to append")]
    OutOfRange(String, usize, i64),
    /// The field at this path is maintained by the program.
    #[error("`{0}` is written by the program itself, with every commit")]
    Owned(String),
    /// `[+]` was read from, but has no value yet.
    #[error("`[+]` can be set but not read")]
    AppendRead,
}

impl DocPath {
    /// Parses a whole text as a plain path with jq's meaning.
    ///
    /// `None` does not mean an error, only that jq has to interpret the text.
    pub fn parse_filter(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        let (path, rest) = Cursor::new(text, Form::Filter).path().ok()?;
        rest.is_empty().then_some(path)
    }

    /// Parses the longest path at the start of `PATH=TEXT` or `PATH:=JSON`, and returns the rest.
    ///
    /// The leading dot may be missing, and a bare key may contain dashes but not end with one:
    /// `n-=1` is jq arithmetic.
    ///
    /// # Errors
    /// [`PathError::Syntax`] if no path starts here, [`PathError::Root`] for `.` alone.
    pub fn parse_target(text: &str) -> Result<(Self, &str), PathError> {
        let (path, rest) = Cursor::new(text, Form::Target).path()?;
        if path.0.is_empty() {
            return Err(PathError::Root);
        }
        Ok((path, rest))
    }

    /// Refuses a path to, or into, a field that belongs to the program.
    ///
    /// # Errors
    /// [`PathError::Owned`] for the fields of `metadata` that sealing writes.
    pub fn check_settable(&self) -> Result<(), PathError> {
        match self.0.as_slice() {
            [PathStep::Key(metadata), PathStep::Key(field), ..]
                if metadata == "metadata" && OWN_FIELDS.contains(&field.as_str()) =>
            {
                Err(PathError::Owned(self.upto(2).to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The field of the root that the path leads to or through.
    pub fn field(&self) -> Option<&str> {
        match self.0.first() {
            Some(PathStep::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// Follows the path; `None` is the absent value that jq shows as `null`.
    ///
    /// # Errors
    /// [`PathError::CannotIndex`] where jq would fail too, [`PathError::AppendRead`] for `[+]`.
    pub fn get<'a>(&self, root: &'a Value) -> Result<Option<&'a Value>, PathError> {
        if self.0.contains(&PathStep::Append) {
            return Err(PathError::AppendRead);
        }
        let unfit = |value, by| Err(PathError::CannotIndex(JsonType::of(value), by));
        let mut here = Some(root);
        for step in &self.0 {
            here = match (step, here) {
                (_, None | Some(Value::Null)) => return Ok(None),
                (PathStep::Key(key), Some(Value::Object(map))) => map.get(key),
                (PathStep::Index(at), Some(Value::Array(list))) => {
                    position(*at, list.len()).and_then(|at| list.get(at))
                }
                (PathStep::Key(key), Some(other)) => return unfit(other, quoted(key)),
                (_, Some(other)) => return unfit(other, "number".to_owned()),
            };
        }
        Ok(here)
    }

    /// Sets the value at the path, creating parents that are absent or `null`; an existing key
    /// keeps its place.
    ///
    /// `[0]` may create the first element of an array that is empty or absent, as in jq; any other
    /// index must name an existing element.
    ///
    /// # Errors
    /// [`PathError::WrongParent`] or [`PathError::OutOfRange`]; the document is then unchanged.
    pub fn set(&self, root: &mut Value, new: Value) -> Result<(), PathError> {
        let mut here = root;
        for (done, step) in self.0.iter().enumerate() {
            here = match (step, here) {
                (_, absent @ Value::Null) => {
                    *absent = self.made(done, new)?;
                    return Ok(());
                }
                (PathStep::Key(key), Value::Object(map)) => {
                    if !map.contains_key(key) {
                        map.insert(key.clone(), self.made(done + 1, new)?);
                        return Ok(());
                    }
                    &mut map[key.as_str()]
                }
                (PathStep::Append | PathStep::Index(0), Value::Array(list))
                    if *step == PathStep::Append || list.is_empty() =>
                {
                    list.push(self.made(done + 1, new)?);
                    return Ok(());
                }
                (PathStep::Index(index), Value::Array(list)) => {
                    let at = position(*index, list.len());
                    let at = at.ok_or_else(|| {
                        PathError::OutOfRange(self.upto(done).to_string(), list.len(), *index)
                    })?;
                    &mut list[at]
                }
                (_, parent) => {
                    return Err(PathError::WrongParent {
                        parent: self.upto(done),
                        found: JsonType::of(parent),
                        child: self.upto(done + 1),
                    });
                }
            };
        }
        *here = new;
        Ok(())
    }

    /// The same path with the places of negative indices in `root`.
    #[must_use]
    pub fn resolved(&self, root: &Value) -> Self {
        let mut here = Some(root);
        let steps = self.0.iter().map(|step| {
            let (next, step) = match (step, here) {
                (PathStep::Key(key), Some(Value::Object(map))) => (map.get(key), step.clone()),
                (PathStep::Index(at), Some(Value::Array(list))) => {
                    let place = position(*at, list.len());
                    let index = place.and_then(|place| i64::try_from(place).ok());
                    let step = index.map_or_else(|| step.clone(), PathStep::Index);
                    (place.and_then(|place| list.get(place)), step)
                }
                _ => (None, step.clone()),
            };
            here = next;
            step
        });
        Self(steps.collect())
    }

    /// Removes the value at the path; true if there was one. The elements after a removed one move
    /// up.
    ///
    /// # Errors
    /// As [`DocPath::get`].
    pub fn unset(&self, root: &mut Value) -> Result<bool, PathError> {
        if self.get(root)?.is_none() {
            return Ok(false);
        }
        let Some((last, parents)) = self.0.split_last() else { return Err(PathError::Root) };
        let mut here = root;
        for step in parents {
            let next = match (step, here) {
                (PathStep::Key(key), Value::Object(map)) => map.get_mut(key),
                (PathStep::Index(at), Value::Array(list)) => {
                    position(*at, list.len()).and_then(|at| list.get_mut(at))
                }
                _ => None,
            };
            let Some(next) = next else { return Ok(false) };
            here = next;
        }
        match (last, here) {
            (PathStep::Key(key), Value::Object(map)) => Ok(map.shift_remove(key).is_some()),
            (PathStep::Index(at), Value::Array(list)) => {
                let at = position(*at, list.len());
                Ok(at.map(|at| list.remove(at)).is_some())
            }
            _ => Ok(false),
        }
    }

    /// The value to create after `from` steps, so that the remaining steps lead to `new`.
    fn made(&self, from: usize, new: Value) -> Result<Value, PathError> {
        let mut value = new;
        for (done, step) in self.0.iter().enumerate().skip(from).rev() {
            value = match step {
                PathStep::Key(key) => Value::Object(Map::from_iter([(key.clone(), value)])),
                PathStep::Append | PathStep::Index(0) => Value::Array(vec![value]),
                PathStep::Index(index) => {
                    return Err(PathError::OutOfRange(self.upto(done).to_string(), 0, *index));
                }
            };
        }
        Ok(value)
    }

    fn upto(&self, steps: usize) -> Self {
        Self(self.0.iter().take(steps).cloned().collect())
    }
}

impl fmt::Display for DocPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.0.first(), Some(PathStep::Key(_))) {
            f.write_str(".")?;
        }
        self.0.iter().try_for_each(|step| match step {
            PathStep::Key(key) if is_identifier(key) => write!(f, ".{key}"),
            PathStep::Key(key) => write!(f, ".{}", quoted(key)),
            PathStep::Index(index) => write!(f, "[{index}]"),
            PathStep::Append => f.write_str("[+]"),
        })
    }
}

fn is_identifier(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `Value`'s own `Display` is compact JSON and cannot fail on a string.
fn quoted(key: &str) -> String {
    Value::from(key).to_string()
}

fn position(index: i64, len: usize) -> Option<usize> {
    let steps = usize::try_from(index.unsigned_abs()).ok()?;
    let from_end = len.checked_sub(steps);
    let at = if index < 0 { from_end? } else { steps };
    (at < len).then_some(at)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::cursor::KEY;
    use super::*;

    fn target(text: &str) -> DocPath {
        DocPath::parse_target(text).unwrap().0
    }

    #[test]
    fn only_plain_paths_are_not_left_to_jq() {
        let plain = r#".|.phase|.a.b[0]|.a[-1]|."odd key".x|.[0].a|."é\n""#;
        for text in plain.split('|') {
            assert_eq!(DocPath::parse_filter(text).unwrap().to_string(), text);
        }
        let read = DocPath::parse_filter(" .a[\"x\"][2].\"\\u0079\"[\"z \"]\n").unwrap();
        assert_eq!(read.to_string(), r#".a.x[2].y."z ""#);
        let jq = r#"/p/../.a-b/.a./.a | .b/.a?/.[]/.[+]/.[0/.[01]/.[-0]/.[1:2]/."\(.x)"/."a/.ä/.2"#;
        for text in jq.split('/').chain([".[99999999999999999999]"]) {
            assert_eq!(DocPath::parse_filter(text), None, "{text}");
        }
    }

    #[test]
    fn a_target_ends_where_its_text_begins() {
        let lines = r#".phase =x=y/.m.owner :=1/.list[+] =x/."a=b".c =1/.[0] =x/.n -=1"#;
        for line in lines.split('/') {
            let (path, rest) = line.split_once(' ').unwrap();
            let text = format!("{path}{rest}");
            for text in [text.as_str(), text.trim_start_matches('.')] {
                assert_eq!(DocPath::parse_target(text), Ok((target(path), rest)));
            }
        }
        assert_eq!(target("s.PHASE-1=").to_string(), r#".s."PHASE-1""#);
        assert_eq!(DocPath::parse_target(".=1"), Err(PathError::Root));
        assert_eq!(DocPath::parse_target("é=1"), Err(PathError::Syntax(1, KEY)));
        assert_eq!(DocPath::parse_target("a.=1"), Err(PathError::Syntax(3, KEY)));
    }

    #[test]
    fn reading_follows_jq() {
        let doc = json!({"a": {"b": [1, null]}, "s": "x"});
        let read = |path| match target(path).get(&doc) {
            Ok(value) => value.map_or("absent".to_owned(), Value::to_string),
            Err(error) => error.to_string(),
        };
        assert_eq!([".a.b[-2]", ".a.b[1]"].map(read), ["1", "null"]);
        let absent = [".a.b[1].c[0]", ".a.b[2]", ".a.b[-3]", ".zz[0]"];
        assert_eq!(absent.map(read), ["absent"; 4]);
        assert_eq!(read(".s.b"), r#"cannot index string with "b""#);
        assert_eq!(read(".a[0]"), "cannot index object with number");
        assert_eq!(read(".n[+]"), "`[+]` can be set but not read");
    }

    #[test]
    fn set_creates_parents_or_changes_nothing() {
        let cases = r#"null | a.b[+].c[0] | {"a":{"b":[{"c":[9]}]}}
            {"a":[0],"b":2} | a[0] | {"a":[9],"b":2}
            [1,[2]] | [-1][+] | [1,[2,9]]
            {"l":[1]} | l[1] | `.l` has 1 element(s), so there is no [1]; use `[+]` to append
            {"l":[1]} | l[-2].a | `.l` has 1 element(s), so there is no [-2]; use `[+]` to append
            {} | a.b[1] | `.a.b` has 0 element(s), so there is no [1]; use `[+]` to append
            {"s":"x"} | s.x | `.s` is of type string, so `.s.x` cannot be set inside it
            {"o":{}} | o[+] | `.o` is of type object, so `.o[+]` cannot be set inside it"#;
        for case in cases.lines() {
            let case: Vec<_> = case.trim().split(" | ").collect();
            let mut doc: Value = case[0].parse().unwrap();
            match target(case[1]).set(&mut doc, json!(9)) {
                Ok(()) => assert_eq!(doc.to_string(), case[2]),
                Err(error) => {
                    assert_eq!([&doc.to_string(), &error.to_string()], [case[0], case[2]])
                }
            }
        }
    }

    fn step() -> impl Strategy<Value = PathStep> {
        let key = r#"\PC{0,6}|[a-z_\-"\\\n]{0,6}"#.prop_map(PathStep::Key);
        prop_oneof![key, any::<i64>().prop_map(PathStep::Index), Just(PathStep::Append)]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            path in prop::collection::vec(step(), 1..6).prop_map(DocPath),
        ) {
            let text = format!("{path}=x");
            prop_assert_eq!(DocPath::parse_target(&text), Ok((path.clone(), "=x")));
            let readable = (!path.0.contains(&PathStep::Append)).then_some(path.clone());
            prop_assert_eq!(DocPath::parse_filter(&path.to_string()), readable);
        }
    }
}
