//! What `state init` does, and its result.

use serde_json::Value;

use crate::document::seal::Revision;

/// The treatment of an existing history by `state init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitMode {
    /// It keeps the history, and heals and migrates where needed.
    Continue,
    /// It archives the history and starts a new lineage.
    Fresh,
}

/// The result of `state init`.
#[derive(Clone, Debug)]
pub struct Initialized {
    /// The current revision.
    pub revision: Revision,
    /// The change to the document.
    pub done: Done,
    /// What a store on a cluster keeps of the document that a new lineage replaced.
    pub replaced: Option<Replaced>,
}

/// Where a store on a cluster keeps a document that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It is this backup.
    Backup(String),
    /// It was damaged or changed by something else, and is the value of this key.
    Evidence(String),
}

/// The change that `state init` made to the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It created the first document of its lineage.
    Created,
    /// It restored a damaged document from a copy.
    Healed,
    /// It migrated the document to the current form and sealed it.
    Migrated,
    /// It changed nothing.
    AlreadyThere,
}

impl Done {
    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Healed => "healed",
            Self::Migrated => "migrated",
            Self::AlreadyThere => "already there",
        }
    }
}

/// A document in words, for the question whether to archive it.
pub(super) fn in_words(document: &Value) -> String {
    let revision = document
        .pointer("/metadata/revision")
        .map_or_else(|| "unsealed".to_owned(), |revision| format!("at revision {revision}"));
    let phase = document.get("phase").and_then(Value::as_str).unwrap_or_default();
    format!("{revision}, phase {phase:?}")
}
