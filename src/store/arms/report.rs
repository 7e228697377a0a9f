//! Reports on the store of either arm. They change nothing.

use serde_json::Value;

use super::Store;
use crate::arms::each;
use crate::document::diff::Difference;
use crate::document::lazy::LazyDocument;
use crate::document::schema::OldForm;
use crate::error::{Error, Result};
use crate::journal::Events;
use crate::store::backups::Listed;
use crate::store::report::{Remembered, Status, Validation};
use crate::time::Since;

/// Reports on a store.
#[derive(Clone, Copy, Debug)]
pub struct Report<'s> {
    pub(super) store: &'s Store,
}

impl Report<'_> {
    /// The revisions that are remembered, newest first; at most `limit`.
    pub fn history(&self, limit: Option<usize>, since: Option<Since>) -> Result<Vec<Remembered>> {
        each!(Store: self.store, store => store.report().history(limit, since))
    }

    /// The differences between two revisions or backups; by default between the previous revision
    /// and the current document.
    pub fn differences(&self, old: Option<&str>, new: Option<&str>) -> Result<Vec<Difference>> {
        each!(Store: self.store, store => store.report().differences(old, new))
    }

    /// The remaining copies of the revisions between two that a watcher saw, oldest first.
    pub fn between(&self, seen: u64, current: u64) -> Result<Vec<LazyDocument>> {
        each!(Store: self.store,
            store => Ok(store.report().between(seen, current)),
            store => store.report().between(seen, current))
    }

    /// The state's condition, and the error that other commands would end with.
    pub fn status(&self) -> Result<(Status, Option<Error>)> {
        each!(Store: self.store, store => store.report().status())
    }

    /// The events on record.
    pub fn events(&self) -> Result<Events> {
        each!(Store: self.store, store => store.report().events())
    }

    /// Checks the document as every command would.
    pub fn validate(&self) -> Result<Validation> {
        each!(Store: self.store, store => store.report().validate())
    }

    /// The document that `state read` would serve, in words; `None` if there is none.
    pub fn served(&self) -> Option<String> {
        each!(Store: self.store, store => store.lineages().served())
    }

    /// The document that is there, valid or not, for reports; nothing is healed.
    pub fn read_as_it_is(&self) -> Result<Option<Value>> {
        each!(Store: self.store, store => store.report().read_as_it_is())
    }

    /// The form that the document would be migrated from; `None` if it has the current form.
    pub fn pending_migration(&self) -> Result<Option<OldForm>> {
        each!(Store: self.store, store => store.report().pending_migration())
    }

    /// The backups, newest first.
    pub fn backups(&self) -> Result<Vec<Listed>> {
        each!(Store: self.store, store => store.report().backups())
    }
}
