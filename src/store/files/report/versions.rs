//! `diff`: two versions of the document, compared.

use serde_json::Value;

use super::Report;
use crate::document::diff::{Difference, diff};
use crate::document::lazy::LazyDocument;
use crate::document::seal::without_seal;
use crate::error::{Error, Kind, Result};
use crate::side;
use crate::store::copies::{BackupCopy, Copies, lineage_of};
use crate::store::diagnosis::Health;
use crate::store::files::observe::Observation;
use crate::store::files::root::Root;
use crate::store::layout::{BACKUPS, BackupName, matches};

impl Report<'_> {
    /// The differences between two revisions or backups; by default between the previous revision
    /// and the live file.
    pub fn differences(&self, old: Option<&str>, new: Option<&str>) -> Result<Vec<Difference>> {
        let examined = Root::of(self.store).examine()?;
        let new = self.resolve(&examined, new)?;
        let old = match old {
            Some(old) => self.resolve(&examined, Some(old))?,
            None => self.previous(&examined)?,
        };
        Ok(diff(&without_seal(&old), &without_seal(&new)))
    }

    /// The document that `word` names: a revision's number, a backup's name or a part of it; `None`
    /// is the live file.
    fn resolve(&self, examined: &Observation<'_>, word: Option<&str>) -> Result<Value> {
        let live = examined.known();
        let Some(word) = word else {
            return live.cloned().ok_or_else(|| examined.refusal());
        };
        let copies = examined.backup_dir.copies()?;
        let found = match word.parse::<u64>() {
            Ok(number) => {
                let lineage = lineage_of(copies);
                let live = match &examined.health {
                    Health::Healthy(document) if document.seal.revision.get() == number => {
                        Some(&*document.value)
                    }
                    _ => None,
                };
                let copy = copies.iter().filter_map(BackupCopy::sealed).find(|document| {
                    document.seal.revision.get() == number
                        && Some(&document.seal.lineage) == lineage.as_ref()
                });
                live.or(copy.map(|document| &*document.value))
            }
            Err(_) => {
                let word = side::name_in(&self.store.settings.directory, BACKUPS, word);
                copies.iter().filter(|copy| matches(word, &copy.name)).find_map(BackupCopy::value)
            }
        };
        found.cloned().ok_or_else(|| {
            Error::new(Kind::NotFound, format!("no valid copy of {word:?} is left"))
                .hint_command("state backups", "see which ones there are")
        })
    }

    fn previous(&self, examined: &Observation<'_>) -> Result<Value> {
        let current = match &examined.health {
            Health::Healthy(document) => Some(document.seal.revision),
            // Against a foreign edit the last acknowledged revision is the previous one.
            _ => None,
        };
        let copies = examined.backup_dir.copies()?;
        let lineage = lineage_of(copies);
        let older = copies.iter().filter_map(BackupCopy::sealed).filter(|document| {
            Some(&document.seal.lineage) == lineage.as_ref()
                && current.is_none_or(|current| document.seal.revision < current)
        });
        let newest = older
            .max_by_key(|document| document.seal.revision)
            .map(|document| Value::clone(&document.value));
        newest.ok_or_else(|| {
            Error::new(Kind::NotFound, "there is no earlier revision to compare with")
                .hint_command("state history", "see what is remembered")
        })
    }

    /// The remaining copies of the revisions between two that a watcher saw, oldest first.
    pub fn between(&self, seen: u64, current: u64) -> Vec<(u64, LazyDocument)> {
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
        found
    }
}
