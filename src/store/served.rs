//! The document as readers receive it.

use bytes::Bytes;
use serde_json::Value;

use super::ForeignEdits;
use super::diagnosis::Health;
use crate::document::lazy::LazyDocument;
use crate::document::seal::to_bytes;
use crate::error::{Error, Kind, Result};

/// A document as a reader receives it.
#[derive(Debug)]
pub struct Served {
    /// The document, in today's form.
    pub value: LazyDocument,
    /// The output of `state read`: the file's own bytes where they have the current form.
    pub bytes: Bytes,
}

impl Served {
    /// The document that readers of this state get; `None` where they get an error. `text` is the
    /// live document's.
    pub(super) fn of(
        health: &Health,
        text: Option<&Bytes>,
        foreign_edits: ForeignEdits,
    ) -> Result<Option<Self>> {
        Ok(Some(match health {
            Health::Healthy(document) => {
                let bytes = match text {
                    Some(text) if document.older.is_none() => text.clone(),
                    _ => written(&document.value)?,
                };
                Self { value: document.value.clone(), bytes }
            }
            Health::Legacy(migrated) => serve_unsealed(migrated.value.clone())?,
            Health::Foreign(edit) if foreign_edits == ForeignEdits::Accept => {
                let Ok(migrated) = edit.acceptable() else { return Ok(None) };
                let bytes = to_bytes(&migrated.value).unwrap_or_default().into();
                Self { bytes, value: migrated.value.into() }
            }
            _ => return Ok(None),
        }))
    }
}

/// A document without a seal, for readers. Revision 0 lets a later write notice that the document
/// was sealed in between.
fn serve_unsealed(mut value: Value) -> Result<Served> {
    let fields = value.as_object_mut();
    let metadata =
        fields.map(|fields| fields.entry("metadata").or_insert_with(|| serde_json::json!({})));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.insert("revision".into(), 0.into());
    }
    Ok(Served { bytes: written(&value)?, value: value.into() })
}

pub(super) fn written(value: &Value) -> Result<Bytes> {
    let unwritable = || Error::new(Kind::Internal, "the document cannot be written as JSON");
    to_bytes(value).map(Bytes::from).ok_or_else(unwritable)
}
