//! The body of a document: its text, parsed lazily.
//!
//! Most commands read a few fields only, and jq has a tree of its own. Invariant: the text was
//! checked when the body was made, so it can be parsed at any later time.

use std::cell::OnceCell;
use std::ops::Deref;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;

use super::json::{self, JsonError};
use super::parts::Parts;
use super::path::Path;

/// The fields that the rules, the seal and the migration read; of all others they need only the
/// type.
pub const OUTLINED: [&str; 6] =
    ["schemaVersion", "phase", "signals", "lastActivation", "lastSignal", "metadata"];

/// A document. It can be used like a [`Value`], and is parsed at the first such use; its outline is
/// available without that.
#[derive(Clone, Debug)]
pub struct Body(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    text: Parts,
    outline: Option<Value>,
    value: OnceCell<Value>,
}

impl Body {
    /// The document of a text.
    pub fn of_text(text: Bytes) -> Result<Self, JsonError> {
        let outline = json::outline(&text, &OUTLINED)?;
        Ok(Self::outlined(outline, text.into()))
    }

    /// The document of a text, with its outline.
    pub(super) fn outlined(outline: Value, text: Parts) -> Self {
        Self(Rc::new(Inner { text, outline: Some(outline), value: OnceCell::new() }))
    }

    /// The document with the [`OUTLINED`] fields whole. Of the others only the type need be right.
    pub fn outline(&self) -> &Value {
        self.0.outline.as_ref().unwrap_or_else(|| self)
    }

    /// The part of the document needed to follow `path`.
    pub fn at(&self, path: &Path) -> &Value {
        if path.field().is_some_and(|field| OUTLINED.contains(&field)) {
            self.outline()
        } else {
            self
        }
    }

    /// The text it was made from, if any.
    pub fn text(&self) -> Option<Bytes> {
        self.0.outline.as_ref().map(|_| self.0.text.whole())
    }

    /// The document's value.
    pub fn into_value(self) -> Value {
        let _: &Value = &self; // parsed now, if it was not yet
        match Rc::try_unwrap(self.0) {
            Ok(inner) => inner.value.into_inner().unwrap_or_default(),
            Err(shared) => Value::clone(&Self(shared)),
        }
    }
}

impl Deref for Body {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.0.value.get_or_init(|| json::parse(&self.0.text.whole()).unwrap_or_default())
    }
}

impl From<Value> for Body {
    fn from(value: Value) -> Self {
        Self(Rc::new(Inner { text: Parts::default(), outline: None, value: value.into() }))
    }
}
