//! Traces of sealed history where no valid copy of the document is left.
//!
//! The journal's commits, the revisions in the names of backups, and a mirror, valid or not, prove
//! that this root had a sealed document. A live file without a seal is then not a document from
//! before seals. All of these lie in the root: a log outside it may refer to another root that had
//! the same path.

use super::layout::{BackupName, pinned};
use crate::document::seal::{Lineage, Revision};
use crate::journal::Events;

/// The records of a sealed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The lineage of the last commit in the journal.
    pub lineage: Option<Lineage>,
    /// The highest revision in the journal.
    pub journaled: Option<Revision>,
    /// The highest revision in the names of backups. A commit makes a backup of the revision that
    /// it replaces, so it is followed by another one. A name proves little: other records of
    /// revisions take precedence.
    pub named: Option<Revision>,
}

impl Trace {
    /// The last revision on record.
    pub fn revision(&self) -> Option<Revision> {
        self.journaled.or(self.named)
    }

    /// The traces in the journal, in the names of backups, and in the presence of a mirror; `None`
    /// if there are none.
    pub fn of(events: &Events, backups: &[BackupName], has_mirror: bool) -> Option<Self> {
        let lineage = events.commits().last().map(|commit| commit.lineage.clone());
        let journaled = events.commits().map(|commit| commit.revision).max();
        let last = |backup: &BackupName| {
            let revision = backup.revision?;
            match backup.reason.starts_with(pinned::MANUAL) {
                true => Some(revision),
                false => Revision::after(Some(revision)),
            }
        };
        let named = backups.iter().filter_map(last).max();
        let is_any = has_mirror || named.is_some() || journaled.is_some();
        is_any.then_some(Self { lineage, journaled, named })
    }
}
