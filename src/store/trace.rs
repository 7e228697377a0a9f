//! What is left of sealed history where no valid copy of the document is.
//!
//! The journal's commits, the revisions in the names of backups, and a mirror of whatever worth say that this root had
//! a sealed document. A live file without a seal is then no document from before seals. All of it lies in the root: a
//! log outside of it may speak of another root that had the same path.

use super::layout::{BackupName, pinned};
use super::shelf::Shelf;
use crate::document::seal::{Lineage, Revision};

/// What is remembered of a sealed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The lineage of the last commit in the journal.
    pub lineage: Option<Lineage>,
    /// The highest revision in the journal.
    pub journaled: Option<Revision>,
    /// The highest revision that the names of backups speak of. A commit makes a backup of the revision that it replaces,
    /// so one of its own follows. A name proves little: where anything else remembers revisions, that counts.
    pub named: Option<Revision>,
}

impl Trace {
    /// The last revision that is remembered.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        self.journaled.or(self.named)
    }
}

impl Shelf {
    /// What this root remembers of sealed documents; `None` where it never had one. It reads the journal.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        let events = self.events();
        let lineage = events.commits().last().map(|commit| commit.lineage.clone());
        let journaled = events.commits().map(|commit| commit.revision).max();
        let last = |backup: &BackupName| {
            let revision = backup.revision?;
            match backup.reason.starts_with(pinned::MANUAL) {
                true => Some(revision),
                false => Revision::after(Some(revision)),
            }
        };
        let named = self.backups.iter().filter_map(last).max();
        let is_any = self.has_mirror || named.is_some() || journaled.is_some();
        is_any.then_some(Trace { lineage, journaled, named })
    }
}
