//! The copies of a document that a store keeps beside it, and the choice of the one that heals it.

use bytes::Bytes;

use super::layout::MIRROR;
use super::trace::Trace;
use crate::document::migrate::{self, TooNew, Unfit};
use crate::document::rules::Finding;
use crate::document::seal::{Document, Lineage, Revision, Seal};
use crate::document::{Reading, inspect_text};
use crate::error::Result;

/// The copies of the document and what else is left of its history.
pub trait Copies {
    /// All copies, read once: the mirror first, then the backups, newest first.
    fn copies(&self) -> Result<&[BackupCopy]>;
    /// Returns whether there ever was a document that could be restored.
    fn has_history(&self) -> bool;
    /// The traces of sealed documents; `None` where there never was one.
    fn trace(&self) -> Option<Trace>;
    /// The command that shows the newest archived history, if there is one.
    fn archive_listing(&self) -> Option<String>;
}

/// A copy of the document in the backup directory.
#[derive(Debug)]
pub struct BackupCopy {
    /// The file's name.
    pub name: String,
    /// Its condition.
    pub state: CopyState,
}

/// The condition of a copy.
#[derive(Debug)]
pub enum CopyState {
    /// It can be restored. In the current form.
    Sealed(Document),
    /// It can be restored, but has no digest to verify: it predates seals. In the current form.
    Legacy(serde_json::Value),
    /// A newer program wrote it; this one must not ignore it.
    TooNew(TooNew, Seal),
    /// It cannot be restored; the reason.
    Invalid(String),
}

impl BackupCopy {
    /// The copy as a sealed document.
    pub fn sealed(&self) -> Option<&Document> {
        match &self.state {
            CopyState::Sealed(sealed) => Some(sealed),
            _ => None,
        }
    }

    /// The document that restoring the copy would bring back, in the current form.
    pub fn value(&self) -> Option<&serde_json::Value> {
        match &self.state {
            CopyState::Sealed(sealed) => Some(&sealed.value),
            CopyState::Legacy(value) => Some(value),
            CopyState::TooNew(..) | CopyState::Invalid(_) => None,
        }
    }

    /// The copy's verified seal, whatever its schema.
    pub fn seal(&self) -> Option<&Seal> {
        match &self.state {
            CopyState::Sealed(sealed) => Some(&sealed.seal),
            CopyState::TooNew(_, seal) => Some(seal),
            CopyState::Legacy(_) | CopyState::Invalid(_) => None,
        }
    }

    /// The revision of its verified seal.
    pub fn revision(&self) -> Option<Revision> {
        self.seal().map(|seal| seal.revision)
    }
}

impl CopyState {
    /// The condition of the copy with this text.
    pub fn of(text: Bytes) -> Self {
        let unfit = |findings: Vec<Finding>| {
            Self::Invalid(findings.first().map_or_else(String::new, ToString::to_string))
        };
        match inspect_text(text) {
            Reading::Damaged(why) => Self::Invalid(why),
            Reading::Conflicted(_) => Self::Invalid("it has git's conflict markers".to_owned()),
            Reading::Broken(_) => Self::Invalid("its digest is wrong".to_owned()),
            Reading::Sealed(sealed) => {
                let seal = sealed.seal.clone();
                match migrate::usable_sealed(sealed) {
                    Ok(sealed) => Self::Sealed(sealed),
                    Err(Unfit::TooNew(too_new)) => Self::TooNew(too_new, seal),
                    Err(Unfit::Invalid(findings)) => unfit(findings),
                }
            }
            Reading::Unsealed(value) => match migrate::usable(&value) {
                Ok(migrated) => Self::Legacy(migrated.value),
                // Without a seal its contents are unknown.
                Err(Unfit::TooNew(too_new)) => {
                    Self::Invalid(format!("its schema {} is unknown", too_new.version))
                }
                Err(Unfit::Invalid(findings)) => unfit(findings),
            },
        }
    }
}

/// The lineage of a root: the mirror's; without a valid mirror that of the highest revision in the
/// backup directory.
pub fn lineage_of(copies: &[BackupCopy]) -> Option<Lineage> {
    let mirror = copies.iter().filter(|copy| copy.name == MIRROR).find_map(BackupCopy::sealed);
    let highest =
        || copies.iter().filter_map(BackupCopy::sealed).max_by_key(|sealed| sealed.seal.revision);
    mirror.or_else(highest).map(|sealed| sealed.seal.lineage.clone())
}

/// The copy that a damaged or missing document is restored from: the highest valid revision of the
/// root's lineage, from the mirror or any backup. Copies from before seals come after every sealed
/// one, newest name first. A copy by a newer program stops the search: no older copy may replace
/// it.
pub fn newest_valid(
    copies: &[BackupCopy],
) -> std::result::Result<Option<&BackupCopy>, &BackupCopy> {
    if let Some(newer) = copies.iter().find(|copy| matches!(copy.state, CopyState::TooNew(..))) {
        return Err(newer);
    }
    let lineage = lineage_of(copies);
    let of_lineage = |copy: &&BackupCopy| {
        copy.sealed().is_some_and(|sealed| Some(&sealed.seal.lineage) == lineage.as_ref())
    };
    // Of equal copies `max_by_key` returns the last; the mirror is listed first and is preferred.
    let sealed = copies.iter().rev().filter(of_lineage).max_by_key(|copy| copy.revision());
    let legacy = || {
        let unsealed = copies.iter().filter(|copy| matches!(copy.state, CopyState::Legacy(_)));
        unsealed.max_by(|a, b| a.name.cmp(&b.name))
    };
    Ok(sealed.or_else(legacy))
}

/// The highest revision in the directory, of any lineage.
pub fn highest_revision(copies: &[BackupCopy]) -> Option<Revision> {
    copies.iter().filter_map(BackupCopy::revision).max()
}
