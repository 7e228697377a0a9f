//! The copies that can be restored, and the choice among them.

use serde_json::Value;

use super::copies::{BackupCopy, CopyState};
use super::layout::{BackupName, MIRROR, matches};
use crate::document::schema;
use crate::document::seal::{Document, Lineage, Revision};
use crate::error::{Error, Kind, Result};
use crate::name::nearest;

/// A document that can be restored.
#[derive(Clone, Debug)]
pub enum Restorable {
    /// With its seal and its value in the current form.
    Sealed(Document),
    /// From before seals, in the current form.
    Legacy(Value),
}

impl Restorable {
    /// The document of a copy, if it can be restored.
    pub fn of(copy: &BackupCopy) -> Option<Self> {
        match &copy.state {
            CopyState::Sealed(document) => Some(Self::Sealed(document.clone())),
            CopyState::Legacy(value) => Some(Self::Legacy(value.clone())),
            CopyState::TooNew(..) | CopyState::Invalid(_) => None,
        }
    }

    /// Its value.
    pub fn into_value(self) -> Value {
        match self {
            Self::Sealed(document) => document.into_value(),
            Self::Legacy(value) => value,
        }
    }

    /// Its value.
    pub fn value(&self) -> &Value {
        match self {
            Self::Sealed(document) => &document.value,
            Self::Legacy(value) => value,
        }
    }

    /// Its revision; none for one from before seals.
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Sealed(document) => Some(document.seal.revision),
            Self::Legacy(_) => None,
        }
    }
}

/// A copy that can be restored.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The document.
    pub document: Restorable,
    /// Its path below the backup directory.
    pub name: String,
}

impl Candidate {
    /// The candidate that a copy is, if it can be restored.
    pub fn of(copy: &BackupCopy) -> Option<Self> {
        Some(Self { document: Restorable::of(copy)?, name: copy.name.clone() })
    }
}

/// The copy that `state recover` is to restore.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The newest valid copy, if the live file is not valid itself.
    Newest,
    /// The newest valid backup with a matching name.
    Matching(String),
    /// The copy of a revision.
    Revision(u64),
}

impl Wanted {
    /// What a word names: a revision by its number, as in `state diff`, or backups by a part of
    /// their name, such as a date.
    pub fn named(word: &str) -> Self {
        const DATE: usize = "20261231".len();
        match word.parse() {
            Ok(revision) if word.len() < DATE => Self::Revision(revision),
            _ => Self::Matching(word.to_owned()),
        }
    }

    /// The newest copy that is wanted and can be restored. `lineage` is that of the root.
    pub fn choose(&self, copies: &[BackupCopy], lineage: Option<&Lineage>) -> Result<Candidate> {
        let (what, found): (String, Vec<&BackupCopy>) = match self {
            Self::Revision(revision) => {
                let named = |copy: &&BackupCopy| {
                    let name = BackupName::parse(&copy.name).and_then(|name| name.revision);
                    name.is_some_and(|named| named.get() == *revision)
                };
                let of = |copy: &&BackupCopy| match &copy.state {
                    CopyState::Invalid(_) => named(copy), // so that its defect can be reported
                    _ => copy.sealed().is_some_and(|document| {
                        document.seal.revision.get() == *revision
                            && Some(&document.seal.lineage) == lineage
                    }),
                };
                (format!("of revision {revision}"), copies.iter().filter(of).collect())
            }
            Self::Matching(pattern) => {
                let of = |copy: &&BackupCopy| {
                    copy.name != MIRROR
                        && BackupName::parse(&copy.name).is_some()
                        && matches(pattern, &copy.name)
                };
                (format!("matching {pattern:?}"), copies.iter().filter(of).collect())
            }
            Self::Newest => (String::new(), copies.iter().collect()),
        };
        // Copies are ordered newest first.
        if let Some(candidate) = found.iter().find_map(|copy| Candidate::of(copy)) {
            return Ok(candidate);
        }
        if let Some(bad) = found.first() {
            let CopyState::Invalid(why) = &bad.state else {
                return Err(written_by_a_newer_program(bad));
            };
            let message = format!("no backup {what} is valid: {}: {why}", bad.name);
            return Err(Error::new(Kind::NothingToRestore, message)
                .hint_command("state backups", "see which ones are"));
        }
        let error =
            Error::new(Kind::NotFound, format!("there is no backup {what}; nothing was changed"))
                .hint_command("state backups", "see which ones there are");
        let Self::Matching(pattern) = self else { return Err(error) };
        let names = copies.iter().filter_map(|copy| BackupName::parse(&copy.name));
        let given: Vec<String> = names.map(|name| name.given().to_owned()).collect();
        Err(match nearest(pattern, given.iter().map(String::as_str)) {
            Some(meant) => error.did_you_mean(format!("state recover {meant}")),
            None => error,
        })
    }
}

/// The error where an older copy would replace a document that this program does not understand.
pub fn written_by_a_newer_program(copy: &BackupCopy) -> Error {
    let version = match &copy.state {
        CopyState::TooNew(too_new, _) => too_new.version.as_str(),
        _ => "unknown",
    };
    let message = format!(
        "the copy {} has schema {version}, and this program knows {}; \
         nothing older may take its place",
        copy.name,
        schema::current().version
    );
    Error::new(Kind::NewerSchema, message)
        .hint_command("--version", "a newer one is needed; nothing was changed")
        .detail("schema_version", version)
}
