//! A shape of JSON: read from its description, and compared with a value.

use serde_json::Value;

use super::{documented, owner_shape};
use crate::sandbox::Sandbox;

#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Any,
    Null,
    Boolean,
    Number,
    Text,
    Time,
    AnyObject,
    List(Box<Shape>),
    Map(Box<Shape>),
    Object(Vec<Field>),
    Either(Vec<Shape>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub may_be_missing: bool,
    pub shape: Shape,
}

impl Shape {
    pub fn check(&self, value: &Value, path: &str) -> Result<(), String> {
        let fits = match (self, value) {
            (Self::Any, _)
            | (Self::Null, Value::Null)
            | (Self::Boolean, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::Text, Value::String(_))
            | (Self::AnyObject, Value::Object(_)) => true,
            (Self::Time, Value::String(text)) => is_time_with_millis(text),
            (Self::List(one), Value::Array(all)) => {
                return all
                    .iter()
                    .enumerate()
                    .try_for_each(|(n, value)| one.check(value, &format!("{path}[{n}]")));
            }
            (Self::Map(one), Value::Object(all)) => {
                return all
                    .iter()
                    .try_for_each(|(name, value)| one.check(value, &format!("{path}.{name}")));
            }
            (Self::Object(fields), Value::Object(all)) => {
                if let Some(unknown) =
                    all.keys().find(|name| !fields.iter().any(|field| &field.name == *name))
                {
                    return Err(format!("{path}.{unknown} is not documented"));
                }
                return fields.iter().try_for_each(|field| match all.get(&field.name) {
                    Some(value) => field.shape.check(value, &format!("{path}.{}", field.name)),
                    None if field.may_be_missing => Ok(()),
                    None => Err(format!("{path}.{} is missing", field.name)),
                });
            }
            (Self::Either(shapes), value) => {
                let mut errors = shapes.iter().map(|shape| shape.check(value, path).err());
                let deepest = shapes
                    .iter()
                    .filter_map(|shape| shape.check(value, path).err())
                    .max_by_key(String::len);
                return if errors.any(|error| error.is_none()) {
                    Ok(())
                } else {
                    deepest.map_or(Ok(()), Err)
                };
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("{path} is {value}, and documented as {self:?}")) }
    }
}

/// Reads shapes.
pub struct Reader<'a> {
    pub text: &'a str,
    pub root: &'a Sandbox,
}

impl Reader<'_> {
    pub fn takes(&mut self, word: &str) -> bool {
        let Some(rest) = self.text.trim_start().strip_prefix(word) else { return false };
        self.text = rest;
        true
    }

    #[track_caller]
    pub fn expect(&mut self, word: &str) {
        assert!(self.takes(word), "{word:?} is expected at {:?}", self.text);
    }

    pub fn until(&mut self, end: char) -> String {
        let (before, after) =
            self.text.split_once(end).unwrap_or_else(|| panic!("no {end:?} in {:?}", self.text));
        self.text = after;
        before.trim().to_owned()
    }

    pub fn shape(&mut self, before: Option<&Shape>) -> Shape {
        let mut shapes = vec![self.one(before)];
        while self.takes("|") {
            shapes.push(self.one(before));
        }
        if shapes.len() == 1 { shapes.remove(0) } else { Shape::Either(shapes) }
    }

    pub fn one(&mut self, before: Option<&Shape>) -> Shape {
        let words = [
            ("any", Shape::Any),
            ("null", Shape::Null),
            ("boolean", Shape::Boolean),
            ("number", Shape::Number),
            ("string", Shape::Text),
            ("TIME", Shape::Time),
            ("object", Shape::AnyObject),
        ];
        if let Some((_, shape)) = words.into_iter().find(|(word, _)| self.takes(word)) {
            return shape;
        }
        if self.takes("the same") {
            return before.expect("a field before").clone();
        }
        if self.takes("OWNER") {
            return owner_shape(self.root);
        }
        if self.takes("as `") {
            let command = self.until('`');
            return documented(self.root, &command).plain.expect("a shape");
        }
        if self.takes("[") {
            let one = self.shape(None);
            self.expect("]");
            return Shape::List(Box::new(one));
        }
        self.expect("{");
        if self.takes("[") {
            self.until(']');
            self.expect(":");
            let one = self.shape(None);
            self.expect("}");
            return Shape::Map(Box::new(one));
        }
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let name = self.until(':');
            let shape = self.shape(fields.last().map(|field| &field.shape));
            let may_be_missing = name.ends_with('?');
            fields.push(Field {
                name: name.trim_end_matches('?').to_owned(),
                may_be_missing,
                shape,
            });
            if !self.takes(",") {
                self.expect("}");
                return Shape::Object(fields);
            }
        }
    }
}

/// `2026-01-02T03:04:05.678Z`
fn is_time_with_millis(text: &str) -> bool {
    let digits = text.replace(|c: char| c.is_ascii_digit(), "0");
    digits == "0000-00-00T00:00:00.000Z"
}
