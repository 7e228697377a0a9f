//! `diff`, and the revisions that a watcher missed.

use super::Report;
use crate::document::contents::without_seal;
use crate::document::diff::{Difference, diff};
use crate::document::lazy::LazyDocument;
use crate::error::Result;
use crate::store::copies::{BackupCopy, Copies as _};
use crate::store::layout::BackupName;
use crate::store::remote::ground::Ground;
use crate::store::versions::Versions;

impl Report<'_> {
    /// The differences between two revisions or backups; by default between the previous revision
    /// and the current document.
    pub fn differences(&self, old: Option<&str>, new: Option<&str>) -> Result<Vec<Difference>> {
        let ground = Ground::to_report(self.store)?;
        let lineage = ground.lineage_to_continue()?;
        let (health, copies) = (&ground.health, ground.copies()?);
        let versions = Versions { health, copies, lineage: Some(&lineage) };
        let known = ground.known();
        let new = match new {
            Some(word) => versions.named(word)?,
            None => known.as_ref().ok_or_else(|| ground.refusal())?,
        };
        let old = old.map_or_else(|| versions.previous(), |word| versions.named(word))?;
        Ok(diff(&without_seal(old), &without_seal(new)))
    }

    /// The remaining copies of the revisions between two that a watcher saw, oldest first.
    pub fn between(&self, seen: u64, current: u64) -> Result<Vec<LazyDocument>> {
        let ground = Ground::to_report(self.store)?;
        let is_between =
            |name: &BackupName| name.revision.is_some_and(|r| r.get() > seen && r.get() < current);
        let mut found: Vec<(u64, LazyDocument)> = Vec::new();
        for name in ground.backups.iter().filter(|name| is_between(name)) {
            let copy = ground.source.copy(self.store, name.as_str())?;
            if let Some(document) = BackupCopy::sealed(&copy)
                && found.last().is_none_or(|(last, _)| *last < document.seal.revision.get())
            {
                found.push((document.seal.revision.get(), document.value.clone()));
            }
        }
        Ok(found.into_iter().map(|(_, document)| document).collect())
    }
}
