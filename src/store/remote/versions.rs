//! `diff`: two versions of the document, compared.

use serde_json::Value;

use super::RemoteStore;
use super::ground::Ground;
use crate::document::diff::{Difference, diff};
use crate::document::inspect_text;
use crate::document::seal::{Document, without_seal};
use crate::error::{Error, Kind, Result};
use crate::store::copies::{BackupCopy, Copies as _};
use crate::store::diagnosis::{Health, known};
use crate::store::layout::matches;

impl RemoteStore {
    /// The differences between two revisions or backups; by default between the previous revision
    /// and the current document.
    pub fn differences(&self, old: Option<&str>, new: Option<&str>) -> Result<Vec<Difference>> {
        let ground = self.observe(&[])?;
        let new = ground.version(new)?;
        let old = match old {
            Some(old) => ground.version(Some(old))?,
            None => ground.previous()?,
        };
        Ok(diff(&without_seal(&old), &without_seal(&new)))
    }
}

impl Ground<'_> {
    /// The document that `word` names: a revision's number, a backup's name or a part of it; `None`
    /// is the current one.
    fn version(&self, word: Option<&str>) -> Result<Value> {
        let Some(word) = word else {
            let reading = self.text().map(|text| inspect_text(text.clone()));
            return known(&self.health, reading.as_ref()).cloned().ok_or_else(|| self.refusal());
        };
        let found = match word.parse::<u64>() {
            Ok(number) => match &self.health {
                Health::Healthy(document) if document.seal.revision.get() == number => {
                    Some(Value::clone(&document.value))
                }
                _ => {
                    let mut revisions = self.revisions()?;
                    let found = revisions.find(|it| it.seal.revision.get() == number);
                    found.map(|document| Value::clone(&document.value))
                }
            },
            Err(_) => {
                let mut named = self.copies()?.iter().filter(|copy| matches(word, &copy.name));
                named.find_map(BackupCopy::value).cloned()
            }
        };
        found.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("no valid copy of {word:?} is left"))
                .hint_command("state backups", "see which ones there are")
        })
    }

    fn previous(&self) -> Result<Value> {
        let current = match &self.health {
            Health::Healthy(document) => Some(document.seal.revision),
            // Against a foreign edit the last acknowledged revision is the previous one.
            _ => None,
        };
        let is_older = |it: &&Document| current.is_none_or(|current| it.seal.revision < current);
        let newest = self.revisions()?.filter(is_older).max_by_key(|it| it.seal.revision);
        newest.map(|document| Value::clone(&document.value)).ok_or_else(|| {
            Error::new(Kind::NotFound, "there is no earlier revision to compare with")
                .hint_command("state history", "see what is remembered")
        })
    }

    /// The kept revisions of the store's lineage.
    fn revisions(&self) -> Result<impl Iterator<Item = &Document>> {
        let lineage = self.lineage_to_continue()?;
        let sealed = self.copies()?.iter().filter_map(BackupCopy::sealed);
        Ok(sealed.filter(move |document| document.seal.lineage == lineage))
    }
}
