//! The version of a document that a word names, for `diff`.

use serde_json::Value;

use super::copies::BackupCopy;
use super::diagnosis::Health;
use super::layout::matches;
use crate::document::seal::{Document, Lineage};
use crate::error::{Error, Kind, Result};

/// The document that is there now, and the copies of it that are kept.
pub(super) struct Versions<'a> {
    pub health: &'a Health,
    pub copies: &'a [BackupCopy],
    /// The lineage that revisions are numbered in.
    pub lineage: Option<&'a Lineage>,
}

impl<'a> Versions<'a> {
    /// A revision by its number, or a copy by its name or a part of it.
    pub fn named(&self, word: &str) -> Result<&'a Value> {
        let found = match word.parse::<u64>() {
            Ok(number) => self.revision(number),
            Err(_) => {
                let mut named = self.copies.iter().filter(|copy| matches(word, &copy.name));
                named.find_map(BackupCopy::value)
            }
        };
        found.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("no valid copy of {word:?} is left"))
                .hint_command("state backups", "see which ones there are")
        })
    }

    /// The newest revision before the current one; for a foreign edit the last acknowledged one.
    pub fn previous(&self) -> Result<&'a Value> {
        let current = match self.health {
            Health::Healthy(document) => Some(document.seal.revision),
            _ => None,
        };
        let is_older = |it: &&Document| current.is_none_or(|current| it.seal.revision < current);
        let newest = self.kept().filter(is_older).max_by_key(|it| it.seal.revision);
        newest.map(|document| &*document.value).ok_or_else(|| {
            Error::new(Kind::NotFound, "there is no earlier revision to compare with")
                .hint_command("state history", "see what is remembered")
        })
    }

    fn revision(&self, number: u64) -> Option<&'a Value> {
        let is_wanted = |document: &&Document| document.seal.revision.get() == number;
        let live = match self.health {
            Health::Healthy(document) => Some(document).filter(is_wanted),
            _ => None,
        };
        live.or_else(|| self.kept().find(is_wanted)).map(|document| &*document.value)
    }

    fn kept(&self) -> impl Iterator<Item = &'a Document> {
        let sealed = self.copies.iter().filter_map(BackupCopy::sealed);
        let lineage = self.lineage;
        sealed.filter(move |document| Some(&document.seal.lineage) == lineage)
    }
}
