//! The body of a document: its text, parsed lazily.
//!
//! Most commands read a few fields only, and jq has a tree of its own. Invariant: the text was
//! checked when the body was made, so it can be parsed at any later time.

use std::cell::OnceCell;
use std::ops::Deref;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;

use super::chunks::Chunks;
use super::json::{self, JsonError};
use super::path::DocPath;

/// The fields that the rules, the seal and the migration read; of all others they need only the
/// type.
pub const SKELETON_FIELDS: [&str; 6] =
    ["schemaVersion", "phase", "signals", "lastActivation", "lastSignal", "metadata"];

/// A document. It can be used like a [`Value`], and is parsed at the first such use; its skeleton
/// is available without that.
#[derive(Clone, Debug)]
pub struct LazyDocument(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    text: Chunks,
    skeleton: Option<Value>,
    value: OnceCell<Value>,
}

impl LazyDocument {
    /// The document of a text.
    pub fn of_text(text: Bytes) -> Result<Self, JsonError> {
        let skeleton = json::skeleton(&text, &SKELETON_FIELDS)?;
        Ok(Self::with_skeleton(skeleton, text.into()))
    }

    /// The document of a text, with its skeleton.
    pub(super) fn with_skeleton(skeleton: Value, text: Chunks) -> Self {
        Self(Rc::new(Inner { text, skeleton: Some(skeleton), value: OnceCell::new() }))
    }

    /// The document with the [`SKELETON_FIELDS`] fields whole. Of the others only the type need be
    /// right.
    pub fn skeleton(&self) -> &Value {
        self.0.skeleton.as_ref().unwrap_or_else(|| self)
    }

    /// The part of the document needed to follow `path`.
    pub fn at(&self, path: &DocPath) -> &Value {
        if path.field().is_some_and(|field| SKELETON_FIELDS.contains(&field)) {
            self.skeleton()
        } else {
            self
        }
    }

    /// The text it was made from, if any.
    pub fn text(&self) -> Option<Bytes> {
        self.0.skeleton.as_ref().map(|_| self.0.text.whole())
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

impl Deref for LazyDocument {
    type Target = Value;

    fn deref(&self) -> &Value {
        self.0.value.get_or_init(|| json::parse(&self.0.text.whole()).unwrap_or_default())
    }
}

impl From<Value> for LazyDocument {
    fn from(value: Value) -> Self {
        Self(Rc::new(Inner { text: Chunks::default(), skeleton: None, value: value.into() }))
    }
}
