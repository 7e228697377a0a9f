//! A change of the document: its start, its proposal, its outcome.

use bytes::Bytes;
use serde_json::{Value, json};

use super::ForeignEdits;
use super::diagnosis::{ForeignEdit, Health};
use super::layout::{automatic_reason, pinned};
use super::next_revision::check_growth;
use super::options::{Author, WriteOptions};
use super::signal::Signals;
use crate::document::chunks::Chunks;
use crate::document::contents::without_seal;
use crate::document::lazy::LazyDocument;
use crate::document::new_document::NewDocument;
use crate::document::schema::OldForm;
use crate::document::seal::{Revision, Seal, full_size, size_when_sealed};
use crate::document::{diff, json as text, rules};
use crate::error::{Error, Kind, Result};

/// The revision and digest that a document says it has, sealed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    revision: Option<Value>,
    digest: Option<Value>,
}

impl Claim {
    /// Reads the claim of `document`.
    pub fn of(document: &Value) -> Self {
        let field =
            |name: &str| document.get("metadata").and_then(|metadata| metadata.get(name)).cloned();
        Self { revision: field("revision"), digest: field("digest") }
    }

    /// The claim of a document that was never sealed.
    pub fn unsealed() -> Self {
        Self { revision: Some(0.into()), digest: None }
    }

    /// Returns whether the document names the revision it was made from.
    pub fn is_made(&self) -> bool {
        self.revision.is_some()
    }

    /// The difference from the current document's claim, in words.
    pub fn differs_from(&self, current: &Self) -> String {
        let number = |claim: &Self| {
            claim.revision.as_ref().map_or_else(|| "none".to_owned(), Value::to_string)
        };
        let digest = |claim: &Self| {
            let text =
                claim.digest.as_ref().and_then(Value::as_str).and_then(|digest| digest.get(..8));
            text.map_or_else(|| "no digest".to_owned(), |digest| format!("digest {digest}…"))
        };
        if self.revision != current.revision {
            let (theirs, ours) = (number(self), number(current));
            return format!(
                "another writer committed since this document was read: it is from revision \
                 {theirs}, and the state is at {ours}"
            );
        }
        format!(
            "this document says it is from revision {}, but with {}, and the current one has {}: \
             it is not the one that was read",
            number(self),
            digest(self),
            digest(current)
        )
    }
}

/// The document that a change starts from.
#[derive(Debug)]
pub struct Base {
    /// The document, in today's form.
    pub value: LazyDocument,
    /// Its seal; none if it was never sealed or the seal is broken.
    pub seal: Option<Seal>,
    /// The revision and digest that a reader was shown.
    pub claim: Claim,
    /// The form that it was migrated from.
    pub migrated_from: Option<OldForm>,
    /// The foreign edit, if the document is one.
    pub edit: Option<ForeignEdit>,
}

impl Base {
    /// The document that `health` gives a writer to start from. A foreign edit is one where those
    /// are accepted.
    pub(super) fn of(health: &Health, foreign_edits: ForeignEdits) -> Option<Self> {
        match health {
            Health::Healthy(document) => Some(Self {
                value: document.value.clone(),
                seal: Some(document.seal.clone()),
                claim: Claim::of(document.value.skeleton()),
                migrated_from: document.older.as_ref().map(|older| older.from.clone()),
                edit: None,
            }),
            Health::Legacy(migrated) => Some(Self {
                value: migrated.value.clone().into(),
                seal: None,
                claim: Claim::unsealed(),
                migrated_from: migrated.from.clone(),
                edit: None,
            }),
            Health::Foreign(edit) if foreign_edits == ForeignEdits::Accept => {
                let migrated = edit.acceptable().ok()?;
                Some(Self {
                    claim: Claim::of(&migrated.value),
                    value: migrated.value.into(),
                    seal: None,
                    migrated_from: migrated.from,
                    edit: Some(edit.clone()),
                })
            }
            _ => None,
        }
    }

    /// The reason in the name of the backup that a commit makes of this document.
    pub(super) fn backup_reason(&self, options: &WriteOptions) -> String {
        match (&self.seal, &self.migrated_from) {
            (Some(_), None) => automatic_reason(
                options.reason.as_deref().unwrap_or(options.action),
                options.action,
            ),
            _ => pinned::PRE_MIGRATION.to_owned(),
        }
    }

    /// The differences that a proposal would make, if it may be committed. `text` is the live
    /// document's.
    pub(super) fn plan(
        &self,
        proposal: Proposal,
        text: Option<&Bytes>,
        author: Author,
    ) -> Result<Outcome> {
        let mut draft = proposal.draft;
        draft.set_schema();
        check_document(&draft)?;
        let changes = diff::diff(&without_seal(&self.value), &without_seal(&draft.to_value()));
        if !changes.is_empty() {
            let created =
                self.value.skeleton().pointer("/metadata/created").and_then(Value::as_str);
            let size = size_when_sealed(draft, created).unwrap_or_default();
            check_growth(size, self.full_size(text), author)?;
        }
        Ok(Outcome::Planned(changes))
    }

    /// A copy of the document, to be changed.
    pub fn draft(&self) -> Value {
        Value::clone(&self.value)
    }

    /// The size of the sealed document in bytes, counted by [`full_size`]; 0 for one that is not
    /// sealed. `text` is the live document's.
    pub fn full_size(&self, text: Option<&Bytes>) -> usize {
        match (&self.seal, text) {
            (Some(seal), Some(text)) => full_size(&Chunks::from(text.clone()), seal.revision),
            _ => 0,
        }
    }

    /// The current revision; for a foreign edit the one before it; 0 for a document that was never
    /// sealed.
    pub fn revision(&self) -> u64 {
        match (&self.seal, &self.edit) {
            (Some(seal), _) => seal.revision.get(),
            (None, edit) => edit.as_ref().map_or(0, ForeignEdit::revision),
        }
    }
}

/// The next document and the signal files that accompany it.
#[derive(Debug)]
pub struct Proposal {
    /// The document.
    pub draft: NewDocument,
    /// Signal files to write or remove after the commit.
    pub signals: Signals,
    /// The earlier revision that this is again, if it is one.
    pub repeats: Option<Revision>,
}

impl From<Value> for Proposal {
    fn from(value: Value) -> Self {
        NewDocument::from(value).into()
    }
}

impl From<NewDocument> for Proposal {
    fn from(draft: NewDocument) -> Self {
        Self { draft, signals: Signals::STAY, repeats: None }
    }
}

/// Makes the next document from the current one. It is called again if another writer commits
/// first.
pub type Change<'a> = dyn FnMut(&Base) -> Result<Proposal> + 'a;

/// The result of a change.
#[derive(Debug)]
pub enum Outcome {
    /// The new document is on the disk.
    Committed {
        /// The new revision.
        revision: Revision,
        /// The schema from which the commit migrated the document.
        migrated_from: Option<OldForm>,
    },
    /// The change had no effect, so nothing was written.
    Unchanged {
        /// The current revision.
        revision: Revision,
    },
    /// The differences that the change would make (dry run).
    Planned(Vec<diff::Difference>),
}

/// Refuses a document that breaks the rules.
pub(super) fn check_document(draft: &NewDocument) -> Result<()> {
    let findings = rules::check(draft.skeleton());
    let Some(first) = findings.first() else {
        return if draft.is_nested_too_deep() {
            let message = format!(
                "the new document is nested deeper than {} levels; nothing was written",
                text::MAX_DEPTH
            );
            Err(Error::new(Kind::Schema, message).hint_command(
                "state validate FILE",
                "see what is wrong with a document before it is written",
            ))
        } else {
            Ok(())
        };
    };
    let more = findings.len() - 1;
    let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    let message =
        format!("the new document breaks the schema's rules: {first}{more}; nothing was written");
    Err(Error::new(Kind::Schema, message)
        .hint_command(
            "state read",
            "see what the document is now; these rules are on its top fields",
        )
        .detail("findings", json!(findings)))
}
