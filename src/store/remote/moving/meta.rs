//! `meta`: that there is a store, its lineage, and where its state is.

use serde_json::{Value, json};

use super::super::ground::FORMAT;
use crate::digest::Digest;
use crate::document::seal::{Lineage, Revision, to_bytes};
use crate::error::Result;
use crate::etcd::messages::RangeResponse;
use crate::store::moving::Contents;
use crate::store::restore::intent::OperationId;

/// The fields of a move in `meta`.
const ARRIVING: &str = "arriving";
const DEPARTING: &str = "departing";
const DEPARTED: &str = "departed";
const PUSHED: &str = "pushed";

/// Where the state of a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Here; brought by this push, if by one.
    Here { pushed: Option<OperationId> },
    /// On its way here.
    Arriving { operation: OperationId, root: String },
    /// On its way to a root.
    Departing { operation: OperationId, root: String },
    /// In a root, at this revision.
    Departed { operation: OperationId, root: String, revision: Revision, digest: Digest },
}

impl Standing {
    /// The root that it is in, or on its way from or to.
    pub(super) fn root(&self) -> Option<&str> {
        match self {
            Self::Here { .. } => None,
            Self::Arriving { root, .. }
            | Self::Departing { root, .. }
            | Self::Departed { root, .. } => Some(root),
        }
    }
}

/// `meta` as it was found.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    value: Value,
    /// The revision that put it; 0 if there is none.
    pub put_at: i64,
    pub lineage: Option<Lineage>,
    pub standing: Standing,
}

impl Meta {
    pub(super) fn of(range: RangeResponse) -> Result<Self> {
        let Some(kv) = range.kvs.into_iter().next() else {
            let standing = Standing::Here { pushed: None };
            return Ok(Self { value: Value::Null, put_at: 0, lineage: None, standing });
        };
        Ok(Self {
            lineage: super::super::ground::lineage_in(&kv)?,
            standing: standing_in(&kv.value),
            value: crate::document::json::parse(&kv.value).unwrap_or_default(),
            put_at: kv.mod_revision,
        })
    }

    fn with(&self, note: Option<(&str, Value)>) -> Vec<u8> {
        let mut value = self.value.clone();
        if let Some(fields) = value.as_object_mut() {
            for field in [ARRIVING, DEPARTING, DEPARTED, PUSHED] {
                fields.shift_remove(field);
            }
            if let Some((field, note)) = note {
                fields.insert(field.to_owned(), note);
            }
        }
        to_bytes(&value).unwrap_or_default()
    }

    /// A store that a state of `lineage` is on its way to. What there was before is kept, for a
    /// push that is taken back.
    pub(super) fn arriving(&self, lineage: &Lineage, created: &str, mut note: Value) -> Vec<u8> {
        let before = match &self.standing {
            Standing::Departed { .. } => self.value.clone(),
            Standing::Arriving { .. } => {
                self.value.pointer("/arriving/before").cloned().unwrap_or_default()
            }
            _ => Value::Null,
        };
        note["before"] = before;
        let value = json!({
            "format": FORMAT,
            "lineage": lineage.as_str(),
            "created": self.value.get("created").cloned().unwrap_or_else(|| created.into()),
        });
        Self { value, ..self.clone() }.with(Some((ARRIVING, note)))
    }

    /// What there was before the state was on its way here.
    pub(super) fn before_arrival(&self) -> Option<Vec<u8>> {
        let kept = |field: &str| self.value.get(field)?.get("before");
        let before = kept(ARRIVING).or_else(|| kept(PUSHED)).filter(|before| !before.is_null())?;
        to_bytes(before)
    }

    /// A store that has the state by a push.
    pub(super) fn arrived(&self) -> Vec<u8> {
        let note = self.value.get(ARRIVING).cloned().unwrap_or_default();
        self.with(Some((PUSHED, note)))
    }

    /// A store with its state on the way to a root.
    pub(super) fn departing(&self, note: Value) -> Vec<u8> {
        self.with(Some((DEPARTING, note)))
    }

    /// The same.
    pub(super) fn as_it_is(&self) -> Vec<u8> {
        to_bytes(&self.value).unwrap_or_default()
    }

    /// A store that keeps its state.
    pub(super) fn staying(&self) -> Vec<u8> {
        self.with(None)
    }

    /// A store with its state in a root.
    pub(super) fn departed(&self, contents: &Contents, mut note: Value) -> Vec<u8> {
        note["revision"] = contents.revision.get().into();
        note["digest"] = contents.digest.as_str().into();
        self.with(Some((DEPARTED, note)))
    }
}

/// Where the state of a store with this `meta` is.
pub(super) fn standing_in(meta: &[u8]) -> Standing {
    let here = Standing::Here { pushed: None };
    let Ok(value) = crate::document::json::parse(meta) else { return here };
    let operation_in = |note: &Value| OperationId::parse(note.get("operation")?.as_str()?);
    let root_in = |note: &Value| note.get("root").and_then(Value::as_str).unwrap_or("").to_owned();
    let note = |field: &str| {
        let note = value.get(field)?;
        Some((operation_in(note)?, root_in(note), note))
    };
    if let Some((operation, root, _)) = note(ARRIVING) {
        return Standing::Arriving { operation, root };
    }
    if let Some((operation, root, _)) = note(DEPARTING) {
        return Standing::Departing { operation, root };
    }
    let departed = note(DEPARTED).and_then(|(operation, root, note)| {
        let revision = Revision::from_value(note.get("revision")?)?;
        let digest = Digest::from_value(note.get("digest")?)?;
        Some(Standing::Departed { operation, root, revision, digest })
    });
    departed.unwrap_or_else(|| Standing::Here { pushed: value.get(PUSHED).and_then(operation_in) })
}
