//! A JSON text with values that know their line.
//!
//! serde_json's raw values are parts of the text, so their addresses give their positions.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{RuleFinding, Weight};
use crate::document::text::without_mark;

/// A JSON text.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    root: &'a RawValue,
}

/// A value in the text.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    raw: &'a RawValue,
    /// As in `skills[2].phase`.
    pub place: String,
}

/// The type of a JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonType {
    Object,
    Array,
    String,
    Boolean,
    Null,
    Number,
}

impl JsonType {
    /// The type, with its article.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Boolean => "a boolean",
            Self::Null => "null",
            Self::Number => "a number",
        }
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, RuleFinding> {
        let fault = |line, message| RuleFinding {
            line,
            place: String::new(),
            message,
            weight: Weight::Bad,
        };
        let bytes = without_mark(bytes);
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            fault(1 + newlines(before), "it is not UTF-8".to_owned())
        })?;
        if text.trim().is_empty() {
            return Err(fault(1, "it is empty; `{}` is a file without rules".to_owned()));
        }
        let root = serde_json::from_str(text).map_err(|error: serde_json::Error| {
            fault(error.line().max(1), format!("it is not valid JSON: {}", without_place(&error)))
        })?;
        Ok(Self { text, root })
    }

    pub(super) fn root(&self) -> Node<'a> {
        Node { raw: self.root, place: String::new() }
    }

    /// The line at which a value of this text begins.
    pub(super) fn line(&self, node: &Node<'_>) -> usize {
        let offset = node.raw.get().as_ptr().addr().wrapping_sub(self.text.as_ptr().addr());
        1 + newlines(self.text.as_bytes().get(..offset).unwrap_or_default())
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// The message of serde_json without the line and column at its end.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

impl<'a> Node<'a> {
    /// The type of the value.
    pub(super) fn kind(&self) -> JsonType {
        match self.raw.get().as_bytes().first() {
            Some(b'{') => JsonType::Object,
            Some(b'[') => JsonType::Array,
            Some(b'"') => JsonType::String,
            Some(b't' | b'f') => JsonType::Boolean,
            Some(b'n') => JsonType::Null,
            _ => JsonType::Number,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.kind() == JsonType::Null
    }

    /// True if it is a negative number, as written.
    pub(super) fn is_negative(&self) -> bool {
        self.raw.get().starts_with('-')
    }

    /// The digits of a number, as written.
    pub(super) fn digits(&self) -> Option<&'a str> {
        Some(self.raw.get()).filter(|_| self.kind() == JsonType::Number)
    }

    /// The value, if it has this type.
    pub(super) fn value<T: Deserialize<'a>>(&self) -> Option<T> {
        serde_json::from_str(self.raw.get()).ok()
    }

    /// The fields of an object, in order.
    pub(super) fn fields(&self) -> Option<Vec<(String, Self)>> {
        let entries: Entries<'a> = self.value().filter(|_| self.kind() == JsonType::Object)?;
        let node = |(name, raw): (String, &'a RawValue)| {
            let place =
                if self.place.is_empty() { name.clone() } else { format!("{}.{name}", self.place) };
            (name, Self { raw, place })
        };
        Some(entries.0.into_iter().map(node).collect())
    }

    /// The elements of an array.
    pub(super) fn elements(&self) -> Option<Vec<Self>> {
        let elements: Vec<&'a RawValue> = self.value()?;
        let node = |(index, raw)| Self { raw, place: format!("{}[{index}]", self.place) };
        Some(elements.into_iter().enumerate().map(node).collect())
    }
}

/// An object's entries as written, equal keys included.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = object.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}
