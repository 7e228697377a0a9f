//! `history` and `backups`: the revisions in the log, and the backups that hold them.

use super::Report;
use crate::document::seal::Revision;
use crate::error::Result;
use crate::owner_view::OwnerView;
use crate::store::backups::{Listed, Reasons};
use crate::store::diagnosis::Health;
use crate::store::remote::ground::Ground;
use crate::store::remote::log::{Record, records};
use crate::store::remote::source::copy_of;
use crate::store::report::Remembered;
use crate::time::{Since, parse_rfc3339};

impl Report<'_> {
    /// The revisions of this store, newest first; at most `limit`.
    pub fn history(&self, limit: Option<usize>, since: Option<Since>) -> Result<Vec<Remembered>> {
        let ground = Ground::to_report(self.store)?;
        if let Health::NotInitialized = ground.health {
            return Err(ground.refusal());
        }
        let since = since.map(|since| since.before(self.store.now()));
        let is_wanted = |commit: &Record| {
            since.is_none_or(|since| {
                parse_rfc3339(&commit.commit.origin.time).is_none_or(|time| time >= since)
            })
        };
        let records = records(self.store, ground.source)?.into_iter().rev().filter(is_wanted);
        let file_of = |revision: Revision| {
            let live = match &ground.health {
                Health::Healthy(document) => Some(document.seal.revision),
                _ => None,
            };
            if live == Some(revision) {
                return Some("state".to_owned());
            }
            let mut backups = ground.backups.iter();
            let backup = backups.find(|backup| backup.revision == Some(revision));
            backup.map(|backup| backup.as_str().to_owned())
        };
        let remembered = records.map(|Record { commit, operation }| Remembered {
            revision: commit.revision.get(),
            file: file_of(commit.revision),
            owner: Some(OwnerView::from(&commit.origin.owner)),
            pid: Some(commit.origin.pid),
            more_changes: commit.changes.as_ref().map_or(0, |changes| changes.more),
            changes: commit.changes.map(|changes| changes.list),
            repeats: commit.repeats.map(Revision::get),
            reason: commit.reason,
            time: Some(commit.origin.time),
            command: Some(commit.command),
            operation: Some(operation.as_str().to_owned()),
        });
        Ok(remembered.take(limit.unwrap_or(usize::MAX)).collect())
    }

    /// The backups, newest first.
    pub fn backups(&self) -> Result<Vec<Listed>> {
        let ground = Ground::to_report(self.store)?;
        let reasons = Reasons::of(self.history(None, None).unwrap_or_default());
        let listed = ground.backups.iter().rev().map(|name| {
            let text = ground.source.value(self.store, self.store.keys.backup(name.as_str()))?;
            let bytes = text.as_ref().map_or(0, |text| text.len() as u64);
            let copy = copy_of(name.as_str(), text);
            Ok(Listed::of(name, &copy, bytes, &reasons))
        });
        listed.collect()
    }
}
