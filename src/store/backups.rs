//! Backups as `state backups` lists them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::copies::{BackupCopy, CopyState};
use super::layout::BackupName;
use super::report::Remembered;
use crate::document::seal::Revision;
use crate::time;

/// A kept copy of the document.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The revision it holds.
    pub revision: Option<u64>,
    /// The reason of the commit that made this revision, if it is on record.
    pub reason: Option<String>,
    /// The reason why the copy was kept, from its name.
    pub kept: String,
    /// The time it was made.
    #[serde(serialize_with = "time::serialize")]
    pub time: SystemTime,
    /// Its size.
    pub bytes: u64,
    /// Whether `state backup` or a similar command made it, rather than a commit.
    pub pinned: bool,
    /// Whether it could be restored.
    pub valid: bool,
    /// The reason why it is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether a newer program wrote it.
    #[serde(skip)]
    pub is_newer: bool,
}

/// The reasons of commits, by revision.
#[derive(Debug)]
pub(super) struct Reasons(BTreeMap<u64, Option<String>>);

impl Reasons {
    /// Of what is remembered.
    pub fn of(history: Vec<Remembered>) -> Self {
        Self(history.into_iter().map(|row| (row.revision, row.reason)).collect())
    }
}

impl Listed {
    /// The copy named `name`, which has that many bytes.
    pub(super) fn of(name: &BackupName, copy: &BackupCopy, bytes: u64, reasons: &Reasons) -> Self {
        let problem = match &copy.state {
            CopyState::Invalid(why) => Some(why.clone()),
            CopyState::TooNew(too_new, _) => {
                Some(format!("schema {} is newer than this program", too_new.version))
            }
            CopyState::Sealed(_) | CopyState::Legacy(_) => None,
        };
        let sealed = copy.seal().map(|seal| seal.revision);
        let revision = sealed.or(name.revision).map(Revision::get);
        Self {
            name: copy.name.clone(),
            revision,
            reason: revision.and_then(|revision| reasons.0.get(&revision).cloned().flatten()),
            kept: name.reason.clone(),
            time: name.time,
            bytes,
            pinned: name.is_pinned(),
            valid: problem.is_none(),
            problem,
            is_newer: matches!(copy.state, CopyState::TooNew(..)),
        }
    }
}
