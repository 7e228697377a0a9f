//! `diff`: two versions of the document, compared.

use super::Report;
use crate::document::contents::without_seal;
use crate::document::diff::{Difference, diff};
use crate::document::lazy::LazyDocument;
use crate::error::Result;
use crate::side;
use crate::store::copies::{BackupCopy, Copies, lineage_of};
use crate::store::files::observe::Observation;
use crate::store::files::root::Root;
use crate::store::layout::{BACKUPS, BackupName};
use crate::store::versions::Versions;

impl Report<'_> {
    /// The differences between two revisions or backups; by default between the previous revision
    /// and the live file.
    pub fn differences(&self, old: Option<&str>, new: Option<&str>) -> Result<Vec<Difference>> {
        let seen = Observation::examine(self.store)?;
        let copies = seen.backup_dir.copies()?;
        let lineage = lineage_of(copies);
        let versions = Versions { health: &seen.health, copies, lineage: lineage.as_ref() };
        let named =
            |word| versions.named(side::name_in(&self.store.settings.directory, BACKUPS, word));
        let new = match new {
            Some(word) => named(word)?,
            None => seen.known().ok_or_else(|| seen.refusal())?,
        };
        let old = old.map_or_else(|| versions.previous(), named)?;
        Ok(diff(&without_seal(old), &without_seal(new)))
    }

    /// The remaining copies of the revisions between two that a watcher saw, oldest first.
    pub fn between(&self, seen: u64, current: u64) -> Vec<LazyDocument> {
        let Ok(backup_dir) = Root::of(self.store).backup_dir_to_read() else {
            return Vec::new();
        };
        let between =
            |name: &&BackupName| name.revision.is_some_and(|r| r.get() > seen && r.get() < current);
        let mut found: Vec<(u64, LazyDocument)> = Vec::new();
        for name in backup_dir.backups.iter().filter(between) {
            if let Some(document) =
                backup_dir.read(name.as_str()).ok().as_ref().and_then(BackupCopy::sealed)
                && found.last().is_none_or(|(last, _)| *last < document.seal.revision.get())
            {
                found.push((document.seal.revision.get(), document.value.clone()));
            }
        }
        found.into_iter().map(|(_, document)| document).collect()
    }
}
